"""A stream in which much is wrong, sent record by record: scenario -> [load] -> events topic; what it should come to.

Examples begin a second apart; labels follow within two minutes, some never. Of some examples a record comes twice, with
other contents; of some the label comes before the features; of some the label comes when nobody remembers them. Some
records are no events, and some are many rows in columns.
"""

import heapq
import itertools
import json
import math
import random
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from faults.scenario import Scenario
from stream_app import kafka_clients
from stream_app.events import CONTENT_TYPE, ContentType
from stream_app.wire import events_pb2

WAIT_S = 500
"""As in the spec of tests/streams.py."""
BURST = 1_000
"""Records that are there before anything starts."""
ROWS = 12
"""Of a columnar record."""
POISON_HEADER = "poison"
_POISON = (
    b"",
    b"no JSON",
    b'{"id": "p1", "key": "k", "time": 1000000, "features": {"a": "high"}}',
    b'{"id": "p2", "key": "k", "label": 7, "label_time": 1000000}',
    b'{"id": "p3", "key": "k"}',
)


class Record(NamedTuple):
    """What is sent."""

    key: str
    value: bytes
    wrong: str = ""
    """What is wrong with it, for the statistics: poison, duplicate, early label, late label."""
    columnar: bool = False

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        if self.columnar:
            return [(CONTENT_TYPE, ContentType.BATCH.encode())]
        return [(POISON_HEADER, b"")] if self.wrong == "poison" else []


def records(scenario: Scenario) -> Iterator[Record]:
    """Without an end."""
    rng = random.Random(-2 - scenario.seed)
    waiting: dict[str, list[Record]] = {}
    for record in _single(scenario):
        rows = waiting.get(record.key)
        if rows is not None and record.wrong != "poison":
            rows.append(record)
            if len(rows) < ROWS:
                continue
            yield columnar(waiting.pop(record.key))
        elif record.wrong != "poison" and rng.random() < scenario.columnar:
            waiting[record.key] = [record]
        else:
            yield record


def columnar(records: Sequence[Record]) -> Record:
    """Several of one key as one."""
    rows = [json.loads(record.value) for record in records]
    features = [row.get("features", {}) for row in rows]
    message = events_pb2.Examples(
        rows=len(rows),
        ids=_texts([row["id"] for row in rows]),
        time=_floats([row.get("time") for row in rows]),
        label_time=_floats([row.get("label_time") for row in rows]),
    )
    for name in ("a", "b"):
        message.numeric.add(name=name, values=_floats([f.get(name) for f in features]))
    category, label = message.categorical.add(name="c"), getattr(message, "class")
    category.texts.CopyFrom(_texts(list("xyz")))
    category.codes = _codes(["xyz".find(f["c"]) if "c" in f else -1 for f in features])
    label.numbers = np.array([0, 1], np.int64).tobytes()
    label.codes = _codes([row.get("label", -1) for row in rows])
    return Record(records[0].key, message.SerializeToString(), columnar=True)


def rows_of(value: bytes) -> list[dict[str, Any]]:
    """What ``columnar`` made, as what JSON records would have said, without the features' values."""
    message = events_pb2.Examples.FromString(value)
    ends = np.frombuffer(message.ids.ends, np.uint32).tolist()
    times, label_times = (np.frombuffer(b, np.float64).tolist() for b in (message.time, message.label_time))
    labels = np.frombuffer(getattr(message, "class").codes, np.int32).tolist()
    found = []
    for i, (start, end) in enumerate(itertools.pairwise([0, *ends])):
        said: dict[str, Any] = {"id": message.ids.text[start:end].decode()}
        if not math.isnan(times[i]):
            said |= {"time": times[i], "features": {}}
        if labels[i] >= 0:
            said |= {"label": labels[i], "label_time": label_times[i]}
        found.append(said)
    return found


def _texts(texts: Sequence[str]) -> events_pb2.Texts:
    ends = np.cumsum([len(t) for t in texts]).astype(np.uint32)
    return events_pb2.Texts(text="".join(texts).encode(), ends=ends.tobytes())


def _floats(values: Sequence[float | None]) -> bytes:
    return np.array([math.nan if v is None else v for v in values], np.float64).tobytes()


def _codes(codes: Sequence[int]) -> bytes:
    return np.array(codes, np.int32).tobytes()


def _single(scenario: Scenario) -> Iterator[Record]:
    """One example or half of one, or none, to a record."""
    rng = random.Random(-1 - scenario.seed)
    waiting: list[tuple[float, int, Record]] = []
    number = 0

    def send(at_s: float, said: dict[str, Any], wrong: str = "") -> None:
        nonlocal number
        number += 1
        heapq.heappush(waiting, (at_s, number, Record(said["key"], json.dumps(said).encode(), wrong)))

    for i in range(1 << 30):
        _example(scenario, rng, i, send)
        while waiting and waiting[0][0] <= 1_000_000.0 + i:
            yield heapq.heappop(waiting)[2]
        if rng.random() < scenario.poison:
            yield Record(f"k{rng.randrange(7)}", rng.choice(_POISON), "poison")


def _example(scenario: Scenario, rng: random.Random, i: int, send: Any) -> None:
    a, b, c, time_s = rng.gauss(0, 1), rng.gauss(0, 1), rng.choice("xyz"), 1_000_000.0 + i
    named = {"id": f"e{i}", "key": f"k{i % 7}"}
    features = named | {"time": time_s, "features": {"a": a, "b": b, "c": c}}
    early, late = rng.random() < scenario.early, rng.random() < scenario.late
    label_s = time_s + (rng.uniform(WAIT_S + 200, WAIT_S + 400) if late else rng.uniform(0.5, 120))
    target = int(a + (c == "x") > 0.5)
    label = named | {"label": target, "label_time": label_s}
    send(time_s + (150.0 if early else 0.0), features, "early label" if early else "")
    if rng.random() < 0.9:
        send(label_s, label, "late label" if late else "")
        if rng.random() < scenario.duplicates:
            send(label_s + rng.uniform(0, 100), label | {"label": 1 - target}, "duplicate")
    if rng.random() < scenario.duplicates:
        send(time_s + rng.uniform(0, 100), features | {"features": {"a": -a}}, "duplicate")


class Feeder:
    """Sends a scenario's records in a thread, whatever the broker does meanwhile, until it is stopped."""

    def __init__(self, scenario: Scenario, bootstrap_servers: str, topic: str) -> None:
        self._scenario, self._servers, self._topic = scenario, bootstrap_servers, topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failed: BaseException | None = None
        self.begun = threading.Event()
        """What is there before anything starts is sent."""
        self.sent = 0
        self.wrong: Counter[str] = Counter()
        """Of these, how many were wrong, and how."""

    def start(self) -> None:
        self._thread.start()
        self.begun.wait(60)

    def stop(self) -> None:
        """Everything sent so far is acknowledged.

        Raises:
            RuntimeError: it is not.
        """
        self._stop.set()
        self._thread.join(180)
        if self._failed is not None or self._thread.is_alive():
            raise RuntimeError("the load was not taken by the broker") from self._failed

    def _run(self) -> None:
        try:
            # Nothing gets lost in an outage, and nothing twice into the log: the oracle counts what is there anyway.
            producer = kafka_clients.producer(self._servers, linger_ms=5, max_block_ms=120_000)
            sent = []
            for record in records(self._scenario):
                partition = zlib.crc32(record.key.encode()) % self._scenario.partitions
                sent.append(
                    producer.send(
                        self._topic, record.value, record.key.encode(), headers=record.headers, partition=partition
                    )
                )
                self.wrong["columnar" if record.columnar else record.wrong] += 1
                if len(sent) == BURST:
                    producer.flush(timeout=60)
                    self.begun.set()
                if len(sent) >= BURST and self._stop.wait(1 / self._scenario.per_s):
                    break
            producer.flush(timeout=120)
            for s in sent:
                s.get(timeout=1)
            self.sent = len(sent)
            del self.wrong[""]
            producer.close(timeout=5)
        except BaseException as error:
            self._failed = error
            self.begun.set()
