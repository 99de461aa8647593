"""What every gRPC call meets: bytes that are no message, methods that are none, errors nobody expected."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from stream_app.serving.calls import short
from stream_app.wire import stream_app_pb2 as pb
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import spec_of, until, writing

METHODS = [
    "stream_app.v1.StreamModel/Predict",
    "stream_app.v1.StreamModel/GetModel",
    "inference.GRPCInferenceService/ModelInfer",
    "grpc.health.v1.Health/Check",
]


@pytest.fixture(scope="module")
def channel(embedded_broker: Any) -> Iterator[grpc.Channel]:
    servers = embedded_broker.bootstrap_servers
    with writing(servers, spec_of("calls")) as writer, serving(servers, "calls") as client:
        writer.version(0.75)
        until(lambda: number(client) == 1)
        with grpc.insecure_channel(client.targets[0]) as made:
            yield made


def refused(channel: grpc.Channel, method: str, request: bytes) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{method}")(request, timeout=20)
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message(channel: grpc.Channel, method: str) -> None:
    status, text = refused(channel, method, b"\xff\xff")
    assert (status, text) == (
        "INVALID_ARGUMENT",
        "the request is 2 bytes that are no such message, wanted one of protos/",
    )


def test_bytes_that_are_no_message_of_a_stream(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(channel.unary_stream("/stream_app.v1.StreamModel/WatchModel")(b"\xff", timeout=20))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_method_that_is_none(channel: grpc.Channel) -> None:
    for method in ("stream_app.v1.StreamModel/Nothing", "nothing"):
        assert refused(channel, method, b"")[0] == "UNIMPLEMENTED"


def test_an_error_nobody_expected_tells_nothing(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("stream_app.serving.messages.described", broken)
    status, text = refused(channel, METHODS[1], pb.GetModelRequest().SerializeToString())
    assert (status, text) == ("INTERNAL", "an error of the server, which its log tells")


def test_a_long_text_is_cut_in_its_middle() -> None:
    assert short("abc") == "abc"
    cut = short("a" * 1000 + "b" * 1000)
    assert (len(cut), cut[:3], cut[-3:]) == (405, "aaa", "bbb")
