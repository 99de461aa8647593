"""A stream in which much is wrong, sent record by record: scenario -> [load] -> events topic; what it should come to.

Examples begin a second apart; labels follow within two minutes, some never. Of some examples a record comes twice, with
other contents; of some the label comes before the features; of some the label comes when nobody remembers them. Some
records are no events.
"""

import heapq
import json
import random
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from faults.scenario import Scenario
from stream_app import kafka_clients

WAIT_S = 500
"""As in the spec of tests/streams.py."""
BURST = 1_000
"""Records that are there before anything starts."""
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


def records(scenario: Scenario) -> Iterator[Record]:
    """Without an end."""
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
                headers = [(POISON_HEADER, b"")] if record.wrong == "poison" else []
                partition = zlib.crc32(record.key.encode()) % self._scenario.partitions
                sent.append(
                    producer.send(self._topic, record.value, record.key.encode(), headers=headers, partition=partition)
                )
                self.wrong[record.wrong] += 1
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
