"""What the client sends and makes of the answers; a stand-in server says what it is told to."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from stream_app.aio_client import AsyncStreamModelClient
from stream_app.client import DEADLINE_S, Prediction, Predictions, StreamModelClient, Version
from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

VERSION = pb.Version(number=7, id="abc", epoch=2, parent="def", created_s=1.0)


class StandIn(pb_grpc.StreamModelServicer):
    """Keeps what it was asked and gives fixed answers."""

    def __init__(self) -> None:
        self.asked: list[pb.PredictRequest] = []
        self.remaining_s: list[float | None] = []
        self.watch_ended = threading.Event()
        self.metadata: dict[str, str | bytes] = {}
        self.refused = 0

    def Predict(self, request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        self.asked.append(request)
        self.remaining_s.append(context.time_remaining())
        self.metadata = dict(context.invocation_metadata())
        if self.refused > 0:
            self.refused -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "ending")
        return pb.PredictResponse(
            predictions=[
                pb.Prediction(scores={"no": 0.25, "yes": 0.75}, label="yes"),
                pb.Prediction(value=0.0),
            ],
            model="flights",
            version=7,
            version_id="abc",
            epoch=2,
            variant="int8",
            prior_only=True,
            staleness=pb.Staleness(version_age_s=3.0, log_age_s=0.5),
        )

    def PredictStream(
        self, request_iterator: Iterator[pb.PredictRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.PredictStreamResponse]:
        for request in request_iterator:
            if request.rows:
                yield pb.PredictStreamResponse(response=self.Predict(request, context))
            else:
                yield pb.PredictStreamResponse(error=pb.Error(status="INVALID_ARGUMENT", message="no rows"))

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")

    def WatchModel(
        self, request: pb.WatchModelRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchModelResponse]:
        context.add_callback(self.watch_ended.set)
        yield pb.WatchModelResponse(version=VERSION, variant="fp32")
        self.watch_ended.wait(20)


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[str]:
    """Where it listens."""
    with futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        pb_grpc.add_StreamModelServicer_to_server(stand_in, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


@pytest.fixture
def address(stand_in: StandIn) -> Iterator[str]:
    with standing_in(stand_in) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[StreamModelClient]:
    with StreamModelClient(address) as made:
        yield made


def test_a_unit_that_is_none_is_refused(client: StreamModelClient) -> None:
    with pytest.raises(ServingError, match=r"explain is 'logit', wanted 'score', 'log_odds' or None") as caught:
        client.predict([{}], explain="logit")  # type: ignore[arg-type]
    assert caught.value.status == "INVALID_ARGUMENT"


def test_rows_become_a_request(client: StreamModelClient, stand_in: StandIn) -> None:
    row = {"a": 1, "b": 2.5, "c": "UA", "d": None, "e": 2**60, "f": float("nan")}
    client.predict([row, {}], [None, 12.0])
    first, second = stand_in.asked[0].rows
    kinds = {name: value.WhichOneof("kind") for name, value in first.features.items()}
    assert kinds == {"a": "number", "b": "number", "c": "text", "e": "text", "f": "number"}
    assert first.features["e"].text == str(2**60)
    assert not first.HasField("time_s")
    assert second.time_s == 12.0


@pytest.mark.parametrize("value", [True, b"x", [1]])
def test_a_value_of_no_known_type(client: StreamModelClient, value: object) -> None:
    text = r"rows\[1\]: feature 'a' is .*, wanted a number or a string"
    with pytest.raises(ServingError, match=text) as caught:
        client.predict([{}, {"a": value}])
    assert caught.value.status == "INVALID_ARGUMENT"


def test_numpy_numbers(client: StreamModelClient, stand_in: StandIn) -> None:
    client.predict([{"a": np.float32(0.5), "b": np.int64(3)}])
    features = stand_in.asked[0].rows[0].features
    assert (features["a"].number, features["b"].number) == (0.5, 3.0)


@pytest.mark.parametrize(
    ("row", "time_s", "text"),
    [
        ({1: 2.0}, None, r"rows\[1\]: a feature's name is 1, wanted a string"),
        ({}, "now", r"rows\[1\]: time_s is 'now', wanted seconds since the epoch"),
        ({"a": "\ud800"}, None, r"rows\[1\]: feature 'a' cannot be sent: .*surrogates not allowed"),
        ({"a": 10**5000}, None, r"rows\[1\]: feature 'a' cannot be sent: Exceeds the limit"),
    ],
)
def test_what_no_request_can_hold(client: StreamModelClient, row: Any, time_s: Any, text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        client.predict([{}, row], [None, time_s])
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_server_that_comes_back_is_soon_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute away, it took as long again; here the setting only, which gRPC is known to keep."""
    given: dict[str, Any] = {}
    channel = grpc.insecure_channel

    def noted(target: str, options: Any) -> grpc.Channel:
        given.update(options)
        return channel(target, options)

    monkeypatch.setattr(grpc, "insecure_channel", noted)
    StreamModelClient("127.0.0.1:1").close()
    assert given["grpc.max_reconnect_backoff_ms"] <= 1000 * DEADLINE_S


def test_one_time_per_row(client: StreamModelClient) -> None:
    with pytest.raises(ServingError, match="times_s has 2 times, wanted one per row: 1") as caught:
        client.predict([{}], [1.0, 2.0])
    assert caught.value.status == "INVALID_ARGUMENT"


def test_no_time_left_is_not_the_default(client: StreamModelClient) -> None:
    assert (client._within_s(0.0), client._within_s(None)) == (0.0, DEADLINE_S)  # over gRPC a race


def test_the_answer(client: StreamModelClient) -> None:
    answer = client.predict([{}, {}])
    assert answer.rows == (
        Prediction(scores={"no": 0.25, "yes": 0.75}, label="yes", value=None),
        Prediction(scores={}, label=None, value=0.0),
    )
    assert answer.version == Version(number=7, id="abc", epoch=2, variant="int8", prior_only=True)
    assert (answer.model, answer.version_age_s, answer.log_age_s) == ("flights", 3.0, 0.5)


def test_every_call_has_a_deadline(client: StreamModelClient, stand_in: StandIn) -> None:
    client.predict([{}])
    client.predict([{}], deadline_s=60.0)
    default_s, own_s = stand_in.remaining_s
    assert default_s is not None
    assert own_s is not None
    assert 0.0 < default_s < 6.0 < own_s < 61.0


def test_errors_carry_status_and_text(client: StreamModelClient) -> None:
    with pytest.raises(ServingError, match="not yet") as caught:
        client.model(deadline_s=0.3)
    assert caught.value.status == "UNAVAILABLE"


def test_a_server_that_is_gone() -> None:
    with (
        StreamModelClient("127.0.0.1:1", deadline_s=0.5) as client,
        pytest.raises(ServingError) as caught,
    ):
        client.predict([{}])
    assert caught.value.status in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


def test_a_watch_that_is_left_ends_at_the_server(client: StreamModelClient, stand_in: StandIn) -> None:
    changes = client.watch()
    assert next(changes).number == 7
    changes.close()
    assert stand_in.watch_ended.wait(20)


def test_a_watch_with_a_deadline(client: StreamModelClient) -> None:
    changes = client.watch(deadline_s=0.2)
    assert next(changes).id == "abc"
    with pytest.raises(ServingError) as caught:
        next(changes)
    assert caught.value.status == "DEADLINE_EXCEEDED"


def test_a_server_that_ends_is_left_for_the_next(stand_in: StandIn, address: str) -> None:
    stand_in.refused = 1
    other = StandIn()
    with standing_in(other) as second, StreamModelClient([address, second], token="secret") as client:
        client.predict([{}])
        client.predict([{}])
    assert (len(stand_in.asked), len(other.asked)) == (1, 2)
    assert other.metadata["authorization"] == "Bearer secret"


def test_a_server_that_is_not_there_is_left_for_the_next(address: str) -> None:
    with StreamModelClient(["127.0.0.1:1", address]) as client:
        assert client.predict([{}]).model == "flights"


def test_a_server_that_says_nothing_is_left_for_the_next(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # as of a process that is stopped: connections, no answers
        targets = [f"127.0.0.1:{silent.getsockname()[1]}", address]
        with StreamModelClient(targets) as client:
            assert client.predict([{}], deadline_s=2.0).model == "flights"
            assert client._turns.at == 1, "it is asked first from now on"

        async def asynchronously() -> str:
            async with AsyncStreamModelClient(targets) as client:
                return (await client.predict([{}], deadline_s=2.0)).model

        assert asyncio.run(asynchronously()) == "flights"


def test_a_server_that_comes_back_is_asked_again(client: StreamModelClient, stand_in: StandIn) -> None:
    stand_in.refused = 2
    assert client.predict([{}], deadline_s=20.0).model == "flights"
    assert len(stand_in.asked) == 3


def test_columns_become_a_request(client: StreamModelClient, stand_in: StandIn) -> None:
    client.predict_columns({"a": np.array([1.0, 2.0]), "c": ["UA", None]}, key="me")  # type: ignore[dict-item]
    asked = stand_in.asked[0]
    assert (asked.columns.rows, [c.name for c in asked.columns.columns], asked.key) == (2, ["a", "c"], "me")


def test_a_stream_of_batches(client: StreamModelClient) -> None:
    first, second, third = client.predict_stream([[{"a": 1}], [], [{}]])
    assert isinstance(first, Predictions)
    assert isinstance(third, Predictions)
    assert isinstance(second, ServingError)
    assert second.status == "INVALID_ARGUMENT"


def test_asyncio_has_the_same_calls(stand_in: StandIn, address: str) -> None:
    async def batches() -> AsyncIterator[list[dict[str, float]]]:
        for rows in ([{"a": 1.0}], [], [{}]):
            yield rows

    async def main() -> None:
        stand_in.refused = 1
        async with AsyncStreamModelClient(["127.0.0.1:1", address], deadline_s=20.0, token="secret") as client:
            assert (await client.predict([{}])).version.number == 7
            assert stand_in.metadata["authorization"] == "Bearer secret"
            assert (await client.predict_columns({"a": [1.0, 2.0]})).model == "flights"
            said = [type(answer) async for answer in client.predict_stream(batches())]
            assert said == [Predictions, ServingError, Predictions]
            with pytest.raises(ServingError, match=r"not yet|connect"):
                await client.model(deadline_s=0.3)
            async for version in client.watch():
                assert version.number == 7
                break

    asyncio.run(main())
