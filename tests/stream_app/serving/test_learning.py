"""What callers want learned is on the events topic when they are told so, as the worker will read it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from models.spec import Label, ModelSpec
from stream_app.aio_client import AsyncStreamModelClient
from stream_app.broker import EmbeddedBroker, free_port
from stream_app.decode import Decoder
from stream_app.errors import ServingError
from stream_app.event_log import EventLog
from stream_app.events import Topics
from stream_app.replay import Reader
from stream_app.serving.learning import Learning
from stream_app.serving.limits import Limits
from stream_app.topics import create_topics
from stream_app.wire import stream_app_pb2 as pb
from tests import streams
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import NOW_S, spec_of, until, writing

Records = list[tuple[bytes, bytes]]


def learning(spec: ModelSpec, taken: Records) -> Learning:
    async def append(records: Any) -> None:
        taken.extend(records)

    return Learning(append, lambda: spec, Limits(rows=3), lambda: NOW_S)


async def predict(request: pb.PredictRequest) -> pb.PredictResponse:
    return pb.PredictResponse(version=len(request.rows))


def logged(spec: ModelSpec, *examples: pb.UnlabelledExample) -> Records:
    taken: Records = []
    request = pb.PredictThenLearnRequest(examples=examples)
    response = asyncio.run(learning(spec, taken).predict_then_learn(request, predict))
    assert response.response.version == len(examples)
    return taken


def fed(spec: ModelSpec, *labels: pb.ExampleLabel) -> Records:
    taken: Records = []
    asyncio.run(learning(spec, taken).feedback(pb.FeedbackRequest(labels=labels)))
    return taken


def example(id_: str = "a", **fields: Any) -> pb.UnlabelledExample:
    features = {"distance": pb.Value(number=2.5), "carrier": pb.Value(text="UA"), "flight": pb.Value(number=12.0)}
    return pb.UnlabelledExample(**{"id": id_, "row": pb.Row(features=features)} | fields)


def test_an_example_is_a_record_as_any_producer_writes_it() -> None:
    plain, whole = logged(spec_of("m"), example(), example("b", key="EWR", weight=2.0, row=pb.Row(time_s=5.0)))
    assert plain[0] == b"a"
    assert json.loads(plain[1]) == {
        "id": "a",
        "key": "a",
        "time": NOW_S,
        "features": {"distance": 2.5, "carrier": "UA", "flight": 12},
    }
    assert whole[0] == b"EWR"
    assert json.loads(whole[1]) == {"id": "b", "key": "EWR", "time": 5.0, "features": {}, "weight": 2.0}


def test_what_is_missing_stays_missing() -> None:
    features = {"distance": pb.Value(number=float("nan")), "carrier": pb.Value()}
    ((_, value),) = logged(spec_of("m"), example(row=pb.Row(features=features)))
    assert json.loads(value)["features"] == {"distance": None, "carrier": None}


@pytest.mark.parametrize(
    ("task", "classes", "given", "wanted"),
    [
        ("binary", ("on time", "late"), pb.Value(text="late"), "late"),
        ("binary", (0, 1), pb.Value(number=1.0), 1),
        ("binary", (0, 1), pb.Value(text="1"), 1),
        ("regression", (), pb.Value(number=2.5), 2.5),
        ("regression", (), pb.Value(number=2.0), 2),
    ],
)
def test_a_label_is_the_class_that_it_names(task: str, classes: Any, given: pb.Value, wanted: object) -> None:
    spec = spec_of("m", task)
    spec = msgspec.structs.replace(spec, label=Label(name="y", classes=classes))
    ((key, value),) = fed(spec, pb.ExampleLabel(id="a", key="EWR", label=given, time_s=7.0))
    assert (key, json.loads(value)) == (b"EWR", {"id": "a", "key": "EWR", "label": wanted, "label_time": 7.0})
    events, bad = Decoder(spec).decode([_At(value)])
    assert (len(events), bad) == (1, [])


class _At:
    offset = 0
    timestamp = int(1000 * NOW_S)

    def __init__(self, value: bytes) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (example(""), r"examples\[1\]: 'id' has 0 characters, wanted 1 to 512"),
        (example(row=pb.Row(features={"distance": pb.Value(text="far")})), r"examples\[1\]: Expected `float \| null`"),
        (
            example(row=pb.Row(time_s=NOW_S + 1e6)),
            r"examples\[1\]: event 'a': 'time' is .* ahead of its Kafka",
        ),
        (example(weight=0.0), r"examples\[1\]: event 'a': 'weight' is 0"),
    ],
)
def test_what_the_worker_would_set_aside_is_refused_at_the_door(wrong: pb.UnlabelledExample, text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        logged(spec_of("m"), example("ok"), wrong)
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_label_that_is_no_class_is_refused() -> None:
    for label in (pb.Value(text="early"), pb.Value(number=7.0), pb.Value()):
        with pytest.raises(ServingError, match=r"labels\[0\]: event 'a'"):
            fed(spec_of("m"), pb.ExampleLabel(id="a", label=label))


def test_none_or_too_many_are_refused() -> None:
    for count in (0, 4):
        with pytest.raises(ServingError, match=f"examples has {count} of them, wanted 1 to 3"):
            logged(spec_of("m"), *(example(str(i)) for i in range(count)))


def test_a_server_that_logs_no_events_says_so() -> None:
    learning = Learning(None, lambda: spec_of("m"), Limits())
    with pytest.raises(ServingError, match=r"this server does not log events, wanted one .* --log-events") as caught:
        asyncio.run(learning.feedback(pb.FeedbackRequest(labels=[pb.ExampleLabel(id="a")])))
    assert caught.value.status == "FAILED_PRECONDITION"


# Over a broker ------------------------------------------------------------------------------------


@pytest.fixture
def topics(bootstrap_servers: str, app_name: str) -> Topics:
    create_topics(bootstrap_servers, app_name, partitions=4, retention_s=3600, max_record_bytes=65536)
    return Topics.of(app_name)


def on(bootstrap_servers: str, topic: str, partition: int) -> Iterator[Any]:
    reader = Reader(bootstrap_servers)
    yield from reader.range(topic, partition, 0, reader.end(topic, partition))
    reader.close()


def test_keys_go_where_every_producer_puts_them(bootstrap_servers: str, topics: Topics) -> None:
    keys = [f"k{i}" for i in range(12)]
    streams.produce(bootstrap_servers, topics.events, [{"key": key, "n": 0} for key in keys])

    async def append() -> None:
        log = EventLog(bootstrap_servers, topics.events)
        await log.append([(key.encode(), b"{}") for key in keys])
        await log.close()

    asyncio.run(append())
    for partition in range(4):
        found = [record.key for record in on(bootstrap_servers, topics.events, partition)]
        half = len(found) // 2
        assert sorted(found[:half]) == sorted(found[half:])


def test_more_than_may_wait_is_refused_and_a_dead_broker_is_said(app_name: str) -> None:
    async def main(servers: str) -> None:
        log = EventLog(servers, f"{app_name}.events", waiting=2, acknowledged_s=1.0)
        with pytest.raises(ServingError, match="0 events wait for the broker already, wanted at most 2") as caught:
            await log.append([(b"k", b"v")] * 3)
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        for _ in range(2):  # the second is refused without another try
            with pytest.raises(ServingError, match="the broker has not acknowledged all of 1 events") as caught:
                await log.append([(b"k", b"v")])
            assert caught.value.status == "UNAVAILABLE"
        await log.close()

    asyncio.run(main(f"127.0.0.1:{free_port()}"))


def test_a_broker_that_dies_in_between_is_said_and_one_that_comes_back_is_used(app_name: str) -> None:
    port = free_port()

    async def main() -> None:
        log = EventLog(f"127.0.0.1:{port}", f"{app_name}.events", acknowledged_s=3.0)
        with EmbeddedBroker(port) as broker:
            create_topics(broker.bootstrap_servers, app_name, partitions=1, retention_s=3600, max_record_bytes=65536)
            await log.append([(b"k", b"v")])
        with pytest.raises(ServingError, match="try again, an id counts once"):
            await log.append([(b"k", b"v")])
        with EmbeddedBroker(port) as broker:
            create_topics(broker.bootstrap_servers, app_name, partitions=1, retention_s=3600, max_record_bytes=65536)

            async def again() -> bool:
                try:
                    await log.append([(b"k", b"v")])
                except ServingError:
                    return False
                return True

            assert any([await again() for _ in range(3)])
            await log.close()

    asyncio.run(main())


def test_what_was_acknowledged_over_grpc_is_there(bootstrap_servers: str, app_name: str) -> None:
    with (
        writing(bootstrap_servers, spec_of(app_name)) as writer,
        serving(bootstrap_servers, app_name, log_events=True) as client,
    ):
        writer.version(0.3)
        until(lambda: number(client) == 1)
        answer = client.predict_then_learn({"a": {"carrier": "UA"}, "b": {"flight": 12}}, at_s=5.0)
        assert [row.label for row in answer.rows] == ["on time", "on time"]
        client.feedback({"a": "late"}, at_s=9.0)

        async def more() -> None:
            async with AsyncStreamModelClient(client.targets[0], deadline_s=20.0) as aio:
                await aio.predict_then_learn({"c": {}}, key="EWR")
                await aio.feedback({"c": "on time"}, key="EWR")

        asyncio.run(more())
        values = [json.loads(r.value) for r in on(bootstrap_servers, f"{app_name}.events", 0)]
    assert [(v["id"], v["key"], v.get("label")) for v in values] == [
        ("a", "a", None),
        ("b", "b", None),
        ("a", "a", "late"),
        ("c", "EWR", None),
        ("c", "EWR", "on time"),
    ]
    assert values[0] == {"id": "a", "key": "a", "time": 5.0, "features": {"carrier": "UA"}}
    assert values[2]["label_time"] == 9.0
