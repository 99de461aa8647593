"""The Open Inference Protocol over HTTP: JSON, or JSON and then bytes -> [tensors -> ``inference``] -> the same back.

Bytes behind the JSON are the protocol's binary tensor extension, which Triton's HTTP client uses unless told otherwise.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import msgspec

from stream_app.errors import ServingError
from stream_app.serving import inference, jsons, tensors
from stream_app.serving.jsons import Schema
from stream_app.serving.limits import Limits
from stream_app.serving.oip import SERVICE, OpenInference
from stream_app.serving.routes import NoDeadline, Reply, Route, Sent, aside, encoded, summary_of
from stream_app.serving.source import Source
from stream_app.serving.tensors import Parameter, Tensor
from stream_app.wire import open_inference_pb2 as pb

JSON_BYTES = "Inference-Header-Content-Length"
"""Header: how many bytes of the body are JSON; those of tensors follow."""
_IN, _OUT, _OUT_ALL = "binary_data_size", "binary_data", "binary_data_output"

Parameters = dict[str, Parameter | None]


class Input(msgspec.Struct, kw_only=True):
    name: str
    datatype: str
    shape: list[int]
    data: Any = None
    """A list, flat or nested as the shape is; null is missing."""
    parameters: Parameters = {}


class Wanted(msgspec.Struct, kw_only=True):
    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, kw_only=True):
    id: str = ""
    parameters: Parameters = {}
    inputs: list[Input]
    outputs: list[Wanted] = []


class Output(msgspec.Struct, kw_only=True):
    name: str
    datatype: str
    shape: list[int]
    data: list[float | int | str]
    parameters: Parameters


class InferResponse(msgspec.Struct, kw_only=True):
    model_name: str
    model_version: str
    id: str
    parameters: Parameters
    outputs: list[Output]


class Ready(msgspec.Struct, kw_only=True):
    ready: Annotated[bool, msgspec.Meta(description="503 unless true")]


class OpenInferenceOverHTTP:
    """Routes under /v2.

    Args:
        inference: the same calls over gRPC.
        source: gives the live model.
        limits: how much to take on.
    """

    def __init__(self, calls: OpenInference, source: Source, limits: Limits) -> None:
        self._calls, self._source, self._limits = calls, source, limits

    def routes(self, found: dict[str, Schema]) -> list[Route]:
        """``found`` gets the schemas of what is sent."""
        _, schemas = msgspec.json.schema_components(
            (InferRequest, InferResponse, Ready), ref_template="#/components/schemas/{name}"
        )
        found.update(schemas)
        model = "/v2/models/{model}"
        made = [
            ("GET", "/v2/health/live", "ServerLive", self.live, _message(pb.ServerLiveResponse, found)),
            ("GET", "/v2/health/ready", "ServerReady", self.ready, _ref("Ready")),
            ("GET", "/v2", "ServerMetadata", self.metadata, _message(pb.ServerMetadataResponse, found)),
            ("POST", "/v2/repository/index", "RepositoryIndex", self.index, {"type": "array"}),
        ]
        for version in ("", "/versions/{version}"):
            path = f"{model}{version}"
            made += [
                ("GET", path, "ModelMetadata", self.model, _message(pb.ModelMetadataResponse, found)),
                ("GET", f"{path}/ready", "ModelReady", self.model_ready, _ref("Ready")),
                ("POST", f"{path}/infer", "ModelInfer", self.infer, _ref("InferResponse")),
            ]
        return [_route(*parts) for parts in made]

    async def live(self, sent: Sent) -> Reply:
        """The process answers."""
        answer = await self._calls.ServerLive(pb.ServerLiveRequest(), NoDeadline())
        return Reply(encoded(jsons.dump(answer)))

    async def ready(self, sent: Sent) -> Reply:
        """A version is live, and the server is not ending."""
        answer = await self._calls.ServerReady(pb.ServerReadyRequest(), NoDeadline())
        return _ready(answer.ready)

    async def metadata(self, sent: Sent) -> Reply:
        """What this server is."""
        answer = await self._calls.ServerMetadata(pb.ServerMetadataRequest(), NoDeadline())
        return Reply(encoded(jsons.dump(answer)))

    async def index(self, sent: Sent) -> Reply:
        """The one model, in the version that is live."""
        answer = await self._calls.RepositoryIndex(pb.RepositoryIndexRequest(), NoDeadline())
        return Reply(encoded(jsons.dump(answer)["models"]))

    async def model(self, sent: Sent) -> Reply:
        """The tensors that the model takes and gives."""
        request = pb.ModelMetadataRequest(name=sent.path["model"], version=sent.path.get("version", ""))
        return Reply(encoded(jsons.dump(await self._calls.ModelMetadata(request, NoDeadline()))))

    async def model_ready(self, sent: Sent) -> Reply:
        """This model is live, in this version if one is named."""
        request = pb.ModelReadyRequest(name=sent.path["model"], version=sent.path.get("version", ""))
        return _ready((await self._calls.ModelReady(request, NoDeadline())).ready)

    async def infer(self, sent: Sent) -> Reply:
        """Score rows that come as tensors."""
        request, inputs = await aside(sent, _read, sent)
        asked = inference.Asked(
            sent.path["model"],
            sent.path.get("version", ""),
            request.id,
            inputs,
            [output.name for output in request.outputs],
        )
        answered = await inference.infer(self._source, self._limits, asked)
        everything = bool(request.parameters.get(_OUT_ALL))
        binary = {w.name: bool(w.parameters.get(_OUT, everything)) for w in request.outputs}
        return _reply(answered, binary, everything)


def _route(
    verb: str, path: str, method: str, answer: Callable[[Sent], Coroutine[Any, Any, Reply]], response: Schema
) -> Route:
    request = _ref("InferRequest") if method == "ModelInfer" else None
    return Route(verb, path, f"/{SERVICE}/{method}", answer, summary_of(answer), request, response)


def _message(kind: Any, found: dict[str, Schema]) -> Schema:
    return jsons.schema(kind.DESCRIPTOR, found)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _ready(ready: bool) -> Reply:
    return Reply(encoded({"ready": ready}), status=200 if ready else 503)


def _read(sent: Sent) -> tuple[InferRequest, list[Tensor]]:
    """The JSON, and its tensors, some of them in the bytes behind it."""
    size = sent.headers.get(JSON_BYTES, str(len(sent.body)))
    if not size.isascii() or not size.isdigit() or len(size) > 12 or int(size) > len(sent.body):
        raise _wrong(f"{JSON_BYTES} is {size[:20]!r}, wanted at most the {len(sent.body)} bytes of the body")
    try:
        request = msgspec.json.decode(sent.body[: int(size)], type=InferRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(f"the body is no inference request: {error}") from error
    rest, inputs = memoryview(sent.body)[int(size) :], []
    for given in request.inputs:
        taken = _own_bytes(given, len(rest))
        inputs.append(_input(given, None if taken is None else rest[:taken]))
        rest = rest[taken or 0 :]
    if rest:
        raise _wrong(f"the body has {len(rest)} bytes more than its tensors need")
    return request, inputs


def _own_bytes(given: Input, left: int) -> int | None:
    """How many of the bytes behind the JSON are a tensor's; None if its data is JSON."""
    size = given.parameters.get(_IN)
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
        raise _wrong(f"tensor {given.name!r}: {_IN} is {size!r}, wanted at most the {left} bytes that follow")
    return size


def _input(given: Input, raw: memoryview | None) -> Tensor:
    said = tensors.declared(given.name, given.datatype, given.shape)
    if raw is not None and given.data is not None:
        raise _wrong(f"{said}: has data and {_IN}, wanted one of them")
    values = tensors.from_json(said, given.data) if raw is None else tensors.from_raw(said, raw)
    return Tensor(*said, values, {k: v for k, v in given.parameters.items() if v is not None})


def _reply(answered: inference.Answered, binary: Mapping[str, bool], everything: bool) -> Reply:
    outputs, raws = [], []
    for tensor in answered.outputs:
        parameters: dict[str, Any] = dict(tensor.parameters)
        said: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary.get(tensor.name, everything):
            raws.append(tensors.to_raw(tensor))
            parameters[_IN] = len(raws[-1])
        else:
            said["data"] = tensors.to_json(tensor)
        outputs.append({**said, "parameters": parameters})
    head = encoded(
        {
            "model_name": answered.model,
            "model_version": answered.version,
            "id": answered.id,
            "parameters": answered.parameters,
            "outputs": outputs,
        }
    )
    if not raws:
        return Reply(head)
    headers = {"Content-Type": "application/octet-stream", JSON_BYTES: str(len(head))}
    return Reply(head + b"".join(raws), headers)


def _wrong(text: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", text)
