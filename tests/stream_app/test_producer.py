"""What is sent arrives once, in order and where it belongs; what does not arrive is named; what waits is bounded."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaTimeoutError
from kafka.future import Future
from kafka.partitioner.default import murmur2

from stream_app import kafka_clients, producer
from stream_app.broker import free_port
from stream_app.codecs.mixed import Codec
from stream_app.columns import Columns
from stream_app.errors import BrokerError, DeliveryError, ExampleError
from stream_app.packing import PACK_FROM
from stream_app.producer import EventProducer, Lost
from tests.stream_app.codecs.test_jsons import spec_of

CODEC = Codec(spec_of())


class FakeKafka:
    """Takes records; the test says what becomes of them."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes, Any]] = []
        self.futures: list[Future] = []
        self.refuse: Exception | None = None
        self.closed = False

    def send(self, topic: str, value: bytes, key: bytes | None, *, headers: Any, partition: int) -> Future:
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((partition, value, headers or ()))
        self.futures.append(Future())
        return self.futures[-1]

    def acknowledge(self) -> None:
        for future in self.futures:
            if not future.is_done:
                future.success(None)

    def close(self, timeout: float) -> None:
        self.closed = True


@contextmanager
def producing(
    monkeypatch: pytest.MonkeyPatch, partitions: int = 1, **settings: Any
) -> Iterator[tuple[EventProducer, FakeKafka]]:
    kafka = FakeKafka()
    monkeypatch.setattr(producer, "_connected", lambda *_: (kafka, list(range(partitions))))
    made = EventProducer("nowhere:1", "t", **settings)
    try:
        yield made, kafka
    finally:
        kafka.acknowledge()
        try:
            made.close(0.0)
        except DeliveryError:
            pass


def until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def label(made: EventProducer, id: str, **said: Any) -> None:
    made.send(id, label=1, label_time_s=1.0, **said)


def decoded(kafka: FakeKafka) -> Columns:
    """What the records say, as if each stood at an offset of its own."""
    from tests.stream_app.codecs.test_mixed import Sent

    columns, bad = CODEC.decode([Sent(i, 0, value, headers) for i, (_, value, headers) in enumerate(kafka.sent)])
    assert bad == []
    return columns


def test_one_example_goes_at_once_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, kafka):
        made.send("a1", features={"a": 1.5, "c": "UA", "id": None}, time_s=5, key="EWR", weight=2)
        until(lambda: len(kafka.sent) == 1)
        assert kafka.sent == [
            (0, b'{"id":"a1","key":"EWR","time":5.0,"features":{"a":1.5,"c":"UA","id":null},"weight":2.0}', ())
        ]


def test_what_waits_while_the_broker_is_busy_is_packed_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, kafka):
        for i in range(8):
            label(made, f"first{i}")
            until(lambda i=i: len(kafka.sent) == i + 1)  # type: ignore[misc]
        for i in range(PACK_FROM):
            made.send(f"x{i}", features={"a": float(i), "c": "UA" if i % 2 else i}, time_s=i)
        label(made, "last")
        assert len(kafka.sent) == 8
        kafka.acknowledge()
        until(lambda: len(kafka.sent) == 9)
        columns = decoded(kafka)
        assert columns.ids[8:] == [*(f"x{i}" for i in range(PACK_FROM)), "last"]
        assert columns.numeric[8:-1, 0].tolist() == [*range(PACK_FROM)]
        assert columns.lengths[8:, 0].tolist() == [1, 2] * (PACK_FROM // 2) + [-1]
        kafka.acknowledge()
        made.flush()
        assert made.progress == (17, 17, 0, 0, 9)


def test_columns_are_grouped_by_partition_and_follow_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch, partitions=3) as (made, kafka):
        ids = [f"r{i}" for i in range(100)]
        for i in range(24):  # the broker is busy
            label(made, f"busy{i}")
        until(lambda: made._in_flight == 24 or bool(kafka.sent))
        label(made, "r7")
        made.send_columns(ids, features={"a": np.arange(100.0), "c": ["UA", None] * 50}, time_s=np.zeros(100))
        until(lambda: bool(kafka.sent))
        while made.progress.acknowledged < 125:
            kafka.acknowledge()
            time.sleep(0.001)
        columns = decoded(kafka)
        assert sorted(columns.ids) == sorted([*(f"busy{i}" for i in range(24)), "r7", *ids])
        partitions = np.array([kafka.sent[o][0] for o in columns.offsets.tolist()])
        for i, id in enumerate(columns.ids):
            assert partitions[i] == (murmur2(id.encode()) & 0x7FFFFFFF) % 3
        for p in range(3):
            rows = [int(i[1:]) for i, q in zip(columns.ids, partitions, strict=True) if q == p and i[0] == "r"]
            features = [r for r in rows if r != 7] if p == partitions[columns.ids.index("r7")] else rows
            assert features == sorted(features)
        assert np.isnan(columns.time_s[columns.ids.index("r7")])  # the label came first


def test_what_is_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Lost] = []
    with producing(monkeypatch, on_lost=lost.append) as (made, kafka):
        label(made, "good")
        until(lambda: len(kafka.futures) == 1)
        label(made, "bad")
        until(lambda: len(kafka.futures) == 2)
        kafka.futures[1].failure(KafkaTimeoutError("too late"))
        kafka.futures[0].success(None)
        with pytest.raises(DeliveryError, match=r"topic 't': 1 examples were not acknowledged \('bad'\): .*too late"):
            made.flush()
        made.flush()  # told once
        assert [x.ids for x in lost] == [["bad"]]
        assert (made.progress.lost, made.progress.waiting_bytes) == (1, 0)


def test_what_kafka_refuses_at_once_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, kafka):
        kafka.refuse = ValueError("far too large")
        label(made, "a")
        with pytest.raises(DeliveryError, match="far too large"):
            made.flush()
        kafka.refuse = None
        label(made, "b")
        until(lambda: len(kafka.sent) == 1)


def test_what_on_lost_raises_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Lost) -> None:
        raise ArithmeticError("theirs")

    with producing(monkeypatch, on_lost=fail) as (made, kafka):
        kafka.refuse = ValueError("no")
        label(made, "a")
        with pytest.raises(DeliveryError, match="1 examples were not acknowledged"):
            made.flush()
        until(lambda: "on_lost failed" in caplog.text)
        kafka.refuse = None
        label(made, "b")
        until(lambda: len(kafka.sent) == 1)
    assert made.progress.lost == 1


def test_a_failure_of_our_own_is_told_and_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, _), monkeypatch.context() as broken:

        def fail(*_: Any) -> Any:
            raise ArithmeticError("surprise")

        broken.setattr(producer, "records_of", fail)
        label(made, "a")
        with pytest.raises(DeliveryError, match=r"'a'.*surprise"):
            made.flush()
        broken.undo()


def test_memory_is_bounded_and_sending_blocks_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch, memory_bytes=1_000, block_s=0.05) as (made, kafka):
        reason = r"bytes wait, wanted room within 0.05 s \(memory_bytes=1000\)"
        with pytest.raises(DeliveryError, match=reason):  # noqa: PT012 - which of them blocks does not matter
            for i in range(100):
                label(made, f"x{i}")
        waiting = made.progress.accepted
        assert 1 <= waiting <= 3
        kafka.acknowledge()
        until(lambda: made.progress.waiting_bytes == 0)
        label(made, "again")


def test_flush_says_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, _):
        label(made, "x")
        with pytest.raises(DeliveryError, match=r"1 examples not acknowledged after 0.01 s"):
            made.flush(0.01)


def test_closed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, kafka):
        made.close()
        made.close()
        assert kafka.closed
        with pytest.raises(DeliveryError, match="the producer is closed"):
            label(made, "x")


def test_leaving_by_an_error_keeps_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = FakeKafka()
    kafka.refuse = ValueError("no")
    monkeypatch.setattr(producer, "_connected", lambda *_: (kafka, [0]))
    with pytest.raises(KeyError), EventProducer("nowhere:1", "t") as made:  # noqa: PT012
        label(made, "x")
        raise KeyError


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"id": ""}, "id is '', wanted a text of 1 to 512 characters"),
        ({"id": 5}, "id is 5, wanted a text"),
        ({"id": "\ud800", "label": 1, "label_time_s": 1}, "surrogates not allowed"),
        ({}, "example 'x' has neither features nor a label"),
        ({"label": 1, "label_time_s": 1, "key": 5}, "example 'x': key is 5, wanted a text"),
        ({"features": {}}, "example 'x': time_s is None, wanted seconds since the epoch"),
        ({"features": {}, "time_s": math.nan}, "time_s is nan"),
        ({"label": 1}, "example 'x': label_time_s is None, wanted seconds"),
        ({"label": math.nan, "label_time_s": 1}, "label is nan, wanted a class or a number"),
        ({"label": True, "label_time_s": 1}, "'label' is True, wanted a text, an integer of 64 bits or a finite"),
        ({"features": {"a": math.inf}, "time_s": 1}, "'a' is inf, wanted"),
        ({"features": {"a": [1]}, "time_s": 1}, r"'a' is \[1\], wanted"),
        ({"features": {"a": 2**63}, "time_s": 1}, "'a' is 9223372036854775808, wanted"),
        ({"features": {"a": "\ud800"}, "time_s": 1}, "surrogates not allowed"),
        ({"features": {1: 1.0}, "time_s": 1}, r"the features' names are \[1\], wanted texts"),
        ({"label": 1, "label_time_s": 1, "weight": 0}, "weight is 0, wanted 1e-06 to 1e\\+06"),
    ],
)
def test_no_example_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], reason: str) -> None:
    with producing(monkeypatch) as (made, _):
        with pytest.raises(ExampleError, match=reason):
            made.send(**({"id": "x"} | said))
        assert made.progress.accepted == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"features": {"a": [1.0]}, "time_s": [1, 1]}, r"column 'a' has the shape \(1,\), wanted \(2,\)"),
        ({"features": {"a": [1.0, math.inf]}, "time_s": [1, 1]}, "'a' is inf, wanted"),
        ({"features": {"a": np.array([1.0, np.inf])}, "time_s": [1, 1]}, "column 'a' has an infinite number"),
        ({"features": {"a": np.array([True, False])}, "time_s": [1, 1]}, "column 'a' is of bool, wanted numbers"),
        ({"features": {"a": np.array([1, 2**63], np.uint64)}, "time_s": [1, 1]}, "integers of 64 bits"),
        ({"features": {}}, "there are features and no time_s"),
        ({}, "there are neither features nor labels"),
        ({"label": [1, 0]}, "there are labels and no label_time_s"),
        ({"label": [1, 0], "label_time_s": [1]}, r"column 'label_time_s' has the shape \(1,\)"),
        ({"ids": ["x", ""]}, "an id is '', wanted texts"),
        ({"keys": ["x"], "label": [1, 0], "label_time_s": [1, 1]}, "there are 1 keys, wanted 2"),
    ],
)
def test_no_columns_are_refused_at_once(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], reason: str) -> None:
    with producing(monkeypatch) as (made, _):
        with pytest.raises(ExampleError, match=reason):
            made.send_columns(**({"ids": ["x", "y"]} | said))
        assert made.progress.accepted == 0


def test_values_of_numpy_and_integers_are_what_json_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, kafka):
        made.send("a", features={"a": np.float32(1.5), "c": np.int64(7), "b b": math.nan}, time_s=np.float64(2))
        until(lambda: len(kafka.sent) == 1)
        made.send_columns(
            ["b"], features={"a": np.array([3]), "c": np.array([7])}, time_s=[2], label=[1], label_time_s=[3]
        )
        until(lambda: len(kafka.sent) == 2)
        columns = decoded(kafka)
        assert columns.numeric[:, 0].tolist() == [1.5, 3.0]
        assert len(set(columns.hashes[:, 0].tolist())) == 1
        assert columns.target.tolist()[1] == 1.0


def test_too_much_for_one_record_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    with producing(monkeypatch) as (made, kafka):
        texts = [f"{i}" + "x" * 1_000 for i in range(2_000)]
        made.send_columns([f"r{i}" for i in range(2_000)], features={"c": texts}, time_s=np.zeros(2_000))
        until(lambda: sum(len(r[1]) for r in kafka.sent) > 2_000_000)
        assert max(len(r[1]) for r in kafka.sent) <= 1_000_000
        assert decoded(kafka).ids == [f"r{i}" for i in range(2_000)]


def test_threads_may_share_it(bootstrap_servers: str, app_name: str) -> None:
    create_topic(bootstrap_servers, app_name, 2)
    with EventProducer(bootstrap_servers, app_name) as made:
        threads = [
            threading.Thread(target=lambda k=k: [label(made, f"{k}-{i}") for i in range(500)])  # type: ignore[misc]
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        made.send_columns([f"c-{i}" for i in range(1_000)], features={"a": np.arange(1_000.0)}, time_s=np.zeros(1_000))
        for thread in threads:
            thread.join()
        made.flush()
        progress = made.progress
    assert (progress.accepted, progress.acknowledged, progress.waiting_bytes) == (3_000, 3_000, 0)
    found = consumed(bootstrap_servers, app_name, 2, 3_000)
    assert sorted(i for columns in found for i in columns.ids) == sorted(
        [*(f"{k}-{i}" for k in range(4) for i in range(500)), *(f"c-{i}" for i in range(1_000))]
    )
    for columns in found:  # what one thread sent is in order
        for k in ("0", "1", "2", "3", "c"):
            mine = [int(i.split("-")[1]) for i in columns.ids if i.startswith(f"{k}-")]
            assert mine == sorted(mine)


def test_features_and_labels_of_an_id_meet(bootstrap_servers: str, app_name: str) -> None:
    create_topic(bootstrap_servers, app_name, 2)
    ids = [f"r{i}" for i in range(64)]
    with EventProducer(bootstrap_servers, app_name) as made:
        made.send_columns(ids, features={"a": np.arange(64.0)}, time_s=np.zeros(64))
        for id in ids:
            label(made, id)
    for columns in consumed(bootstrap_servers, app_name, 2, 128):
        half = len(columns.ids) // 2
        assert columns.ids[:half] == columns.ids[half:]
        assert half > 0


def test_without_a_topic_it_says_so(embedded: str, app_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "_CONNECT_S", 1.0)
    with pytest.raises(BrokerError, match=f"topic '{app_name}' is not there"):
        EventProducer(embedded, app_name)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "_CONNECT_S", 0.5)
    with pytest.raises(BrokerError, match="did not answer"):
        EventProducer(f"127.0.0.1:{free_port()}", "t")


def create_topic(bootstrap_servers: str, topic: str, partitions: int) -> None:
    admin = kafka_clients.admin(bootstrap_servers)
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])
    admin.close()


def consumed(bootstrap_servers: str, topic: str, partitions: int, rows: int) -> list[Columns]:
    """What each partition holds, by the codec, as soon as there are so many rows in all."""
    consumer = kafka_clients.consumer(bootstrap_servers)
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    consumer.seek_to_beginning()
    found: dict[int, list[Any]] = {p: [] for p in range(partitions)}
    columns: list[Columns] = []
    deadline_s = time.monotonic() + 30.0
    while sum(len(c.ids) for c in columns) < rows:
        assert time.monotonic() < deadline_s
        for tp, records in consumer.poll(timeout_ms=500).items():
            found[tp.partition] += records
        columns = [CODEC.decode(found[p])[0] for p in range(partitions)]
    consumer.close()
    return columns
