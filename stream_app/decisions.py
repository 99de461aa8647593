"""What the system decided goes on record: tuner, compressor -> [decisions topic] -> monitor, people."""

import time

import msgspec

from stream_app import kafka_clients
from stream_app.events import Decision

Evidence = dict[str, float | int | str | bool | None]


class DecisionWriter:
    """Appends to one decisions topic.

    Args:
        bootstrap_servers: of the broker.
        topic: the decisions topic.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._producer = kafka_clients.producer(bootstrap_servers)

    def write(self, decision: Decision) -> None:
        """On record once the broker has it."""
        sent = self._producer.send(self._topic, msgspec.json.encode(decision))
        self._producer.flush(timeout=10)
        sent.get(timeout=10)

    def decide(self, kind: str, version: int, evidence: Evidence) -> None:
        self.write(Decision(kind=kind, at_s=time.time(), version=version, evidence=evidence))

    def close(self) -> None:
        self._producer.close(timeout=5)
