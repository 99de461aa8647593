"""The Open Inference Protocol over gRPC, with our own stubs; ``tests/clients`` asks with others'."""

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from stream_app.client import StreamModelClient
from stream_app.wire import open_inference_pb2 as pb
from stream_app.wire import open_inference_pb2_grpc as pb_grpc
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import artefact, looking, spec_of, until, writing

INPUT = pb.ModelInferRequest.InferInputTensor


@pytest.fixture(scope="module")
def client(embedded_broker: Any) -> Iterator[StreamModelClient]:
    with (
        writing(embedded_broker.bootstrap_servers, spec_of("oip")) as writer,
        serving(embedded_broker.bootstrap_servers, "oip") as made,
    ):
        writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
        until(lambda: number(made) == 1)
        yield made


@pytest.fixture(scope="module")
def stub(client: StreamModelClient) -> Iterator[Any]:
    with grpc.insecure_channel(client.targets[0]) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


def request(**changes: Any) -> pb.ModelInferRequest:
    raw = np.array([2.0, 5.0, 3.0, np.nan], np.float32).tobytes()
    fields = {
        "model_name": "oip",
        "inputs": [INPUT(name="features", datatype="FP32", shape=[1, 4])],
        "raw_input_contents": [raw],
    }
    return pb.ModelInferRequest(**{**fields, **changes})


def test_it_says_that_and_what_it_serves(stub: Any) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    for version, ready in (("", True), ("1", True), ("2", False)):
        assert stub.ModelReady(pb.ModelReadyRequest(name="oip", version=version)).ready is ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "stream-app"
    said = stub.ModelMetadata(pb.ModelMetadataRequest(name="oip"))
    assert (said.name, said.versions, said.platform) == ("oip", ["1"], "stream-app")
    assert [(i.name, i.datatype, list(i.shape)) for i in said.inputs] == [
        ("distance", "FP32", [-1, 1]),
        ("hour", "FP32", [-1, 1]),
        ("carrier", "BYTES", [-1, 1]),
        ("flight", "BYTES", [-1, 1]),
    ]
    assert said.properties["classes"] == '["on time", "late"]'
    model = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models[0]
    assert (model.name, model.version, model.state) == ("oip", "1", "READY")


def test_it_says_what_our_own_service_says(stub: Any, client: StreamModelClient) -> None:
    answer = stub.ModelInfer(request(id="x7"))
    row = client.predict([{"distance": 2.0, "hour": 5.0, "carrier": 3}]).rows[0]
    assert (answer.model_name, answer.model_version, answer.id) == ("oip", "1", "x7")
    assert [(o.name, list(o.shape)) for o in answer.outputs] == [("scores", [1, 2]), ("label", [1])]
    scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
    assert scores.tolist() == pytest.approx([row.scores["on time"], row.scores["late"]])
    assert answer.raw_output_contents[1] == b"\x04\x00\x00\x00late"
    assert answer.parameters["version_id"].string_param == client.model().version.id
    assert answer.parameters["prior_only"].bool_param is False


def test_typed_contents_say_what_raw_ones_say(stub: Any) -> None:
    typed = INPUT(name="features", datatype="FP32", shape=[1, 4])
    typed.contents.fp32_contents.extend([2.0, 5.0, 3.0, float("nan")])
    answers = [stub.ModelInfer(request(inputs=[typed], raw_input_contents=[])), stub.ModelInfer(request())]
    assert answers[0].raw_output_contents == answers[1].raw_output_contents


def test_only_what_is_asked_for_comes(stub: Any) -> None:
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name="label")]
    answer = stub.ModelInfer(request(outputs=wanted))
    assert [o.name for o in answer.outputs] == ["label"]
    assert len(answer.raw_output_contents) == 1


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"model_name": "nothing"}, "NOT_FOUND", "there is no model 'nothing', wanted 'oip'"),
        ({"model_version": "2"}, "NOT_FOUND", "version '2' of 'oip' is not live, wanted 1 or none"),
        ({"raw_input_contents": [b""] * 2}, "INVALID_ARGUMENT", "has 2 tensors, wanted one per input: 1"),
        ({"raw_input_contents": [b"123"]}, "INVALID_ARGUMENT", "has 3 bytes of raw contents, wanted 16"),
        ({"raw_input_contents": []}, "INVALID_ARGUMENT", "has 0 elements, wanted 4"),
        ({"outputs": [{"name": "logits"}]}, "INVALID_ARGUMENT", "no 'logits', wanted of scores, label"),
        (
            {"inputs": [INPUT(name="features", datatype="FP32", shape=[1, 4], contents={"fp32_contents": [1]})]},
            "INVALID_ARGUMENT",
            "has contents, wanted none beside raw_input_contents",
        ),
    ],
)
def test_requests_that_cannot_be_answered(stub: Any, changes: dict[str, Any], status: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(**changes))
    assert (caught.value.code().name, text in caught.value.details()) == (status, True), caught.value.details()


def test_models_are_neither_loaded_nor_unloaded(stub: Any) -> None:
    for call, asked in (
        (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="oip")),
        (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="oip")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(asked)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_before_the_first_version_it_is_live_and_not_ready(embedded: str, app_name: str) -> None:
    with serving(embedded, app_name) as made, grpc.insecure_channel(made.targets[0]) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert not stub.ServerReady(pb.ServerReadyRequest()).ready
        assert not stub.ModelReady(pb.ModelReadyRequest(name=app_name)).ready
        assert not stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request(model_name=app_name))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
