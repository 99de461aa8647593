"""The Open Inference Protocol over gRPC: messages -> [tensors -> ``inference``] -> messages."""

from collections.abc import Mapping
from importlib import metadata

from stream_app.errors import ServingError
from stream_app.serving import inference, tensors
from stream_app.serving.answers import Call
from stream_app.serving.limits import Limits
from stream_app.serving.source import Source
from stream_app.serving.tensors import Parameter, Tensor
from stream_app.wire import open_inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
PLATFORM = "stream-app"
EXTENSIONS = ("model_repository(index)", "binary_tensor_data")


class OpenInference:
    """The calls of ``protos/open_inference.proto``.

    Args:
        source: gives the live model.
        limits: how much to take on.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits = source, limits

    async def ServerLive(self, request: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._source.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        if not self._source.ready:
            return pb.ModelReadyResponse(ready=False)
        live = inference.named(self._source.live(), request.name, "")
        return pb.ModelReadyResponse(ready=request.version in ("", str(live.envelope.number)))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=PLATFORM, version=metadata.version("stream-app"), extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        live = inference.named(self._source.live(), request.name, request.version)
        made = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=live.spec.name,
            versions=[str(live.envelope.number)],
            platform=PLATFORM,
            inputs=[made(**d._asdict()) for d in inference.inputs_of(live.spec)],
            outputs=[made(**d._asdict()) for d in inference.outputs_of(live.spec)],
            properties=inference.properties_of(live.spec),
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        asked = inference.Asked(
            request.model_name,
            request.model_version,
            request.id,
            _inputs(request),
            [output.name for output in request.outputs],
        )
        answered = await inference.infer(self._source, self._limits, asked)
        made = pb.ModelInferResponse.InferOutputTensor
        return pb.ModelInferResponse(
            model_name=answered.model,
            model_version=answered.version,
            id=answered.id,
            parameters=_wire(answered.parameters),
            outputs=[
                made(name=t.name, datatype=t.datatype, shape=t.shape, parameters=_wire(t.parameters))
                for t in answered.outputs
            ],
            raw_output_contents=[tensors.to_raw(t) for t in answered.outputs],
        )

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        if not self._source.ready:
            return pb.RepositoryIndexResponse()
        live = self._source.live()
        model = pb.RepositoryIndexResponse.ModelIndex(
            name=live.spec.name, version=str(live.envelope.number), state="READY"
        )
        return pb.RepositoryIndexResponse(models=[model])

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, call: Call
    ) -> pb.RepositoryModelLoadResponse:
        raise _refused("load")

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, call: Call
    ) -> pb.RepositoryModelUnloadResponse:
        raise _refused("unload")


def _refused(what: str) -> ServingError:
    text = f"models are not there to {what}: the models log says which version is live"
    return ServingError("FAILED_PRECONDITION", text)


def _inputs(request: pb.ModelInferRequest) -> list[Tensor]:
    raw, inputs = request.raw_input_contents, request.inputs
    if raw and len(raw) != len(inputs):
        text = f"raw_input_contents has {len(raw)} tensors, wanted one per input: {len(inputs)}"
        raise ServingError("INVALID_ARGUMENT", text)
    return [_input(tensor, raw[i] if raw else None) for i, tensor in enumerate(inputs)]


def _input(given: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    said = tensors.declared(given.name, given.datatype, given.shape)
    if raw is None:
        values = tensors.from_contents(said, given.contents)
    elif given.HasField("contents"):
        raise ServingError("INVALID_ARGUMENT", f"{said}: has contents, wanted none beside raw_input_contents")
    else:
        values = tensors.from_raw(said, raw)
    return Tensor(*said, values, _parameters(given.parameters))


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    return {name: getattr(p, kind) for name, p in given.items() if (kind := p.WhichOneof("parameter_choice"))}


def _wire(parameters: Mapping[str, Parameter]) -> dict[str, pb.InferParameter]:
    """Only of kinds that every client knows: true or false, whole numbers, texts."""
    made: dict[str, pb.InferParameter] = {}
    for name, value in parameters.items():
        match value:
            case bool():
                made[name] = pb.InferParameter(bool_param=value)
            case int():
                made[name] = pb.InferParameter(int64_param=value)
            case _:
                made[name] = pb.InferParameter(string_param=str(value))
    return made
