"""Small streams with known answers, for tests that need events rather than flights."""

import random
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from models.spec import ModelSpec, parse_spec
from stream_app import kafka_clients

SPEC = """
name = "{name}"
task = "binary"
[label]
name = "late"
classes = [0, 1]
wait_s = 500
[stream]
partitions = {partitions}
[features.numeric]
a = {{}}
b = {{}}
[features.categorical]
c = {{ size = 16, dim = 2 }}
[features.rates]
half_lives_s = [60, 600]
keys = [[], ["c"]]
slots = 64
[learner]
{learner}
batch_records = 32
[tuning]
every_labels = {every_labels}
window_labels = 400
trials = 3
shadow_labels = 200
margin = {margin}
[compression]
every_s = 0.5
calibration_rows = 256
[publish]
every_s = 0.05
"""


NETWORK = 'kind = "torch"\nhidden = [8]'
MIXTURE = 'kind = "mixture"\ntier = "fast"'


def spec_text(
    name: str, *, partitions: int = 1, every_labels: int = 0, margin: float = 0.0, learner: str = NETWORK
) -> str:
    return SPEC.format(name=name, partitions=partitions, every_labels=every_labels, margin=margin, learner=learner)


def spec(name: str, **changes: Any) -> ModelSpec:
    return parse_spec(spec_text(name, **changes), "test")


def records(examples: int, *, seed: int = 0, unlabelled: float = 0.1) -> list[dict[str, Any]]:
    """Features at 1-second steps; labels up to 120 s later, in event-time order; some never come."""
    rng = random.Random(seed)
    timed: list[tuple[float, int, dict[str, Any]]] = []
    for i in range(examples):
        a, b, c = rng.gauss(0, 1), rng.gauss(0, 1), rng.choice("xyz")
        key, time_s = f"k{i % 7}", 1_000_000.0 + i
        features = {"a": a, "b": None if rng.random() < 0.1 else b, "c": c}
        timed.append((time_s, 2 * i, {"id": f"e{i}", "key": key, "time": time_s, "features": features}))
        if rng.random() >= unlabelled:
            label, at_s = int(a + (c == "x") + rng.gauss(0, 0.5) > 0.5), time_s + rng.uniform(0.5, 120)
            timed.append((at_s, 2 * i + 1, {"id": f"e{i}", "key": key, "label": label, "label_time": at_s}))
    return [record for _, _, record in sorted(timed, key=lambda t: t[:2])]


def produce(bootstrap_servers: str, topic: str, stream: Iterable[dict[str, Any]]) -> None:
    producer = kafka_clients.producer(bootstrap_servers, linger_ms=5)
    for record in stream:
        producer.send(topic, msgspec.json.encode(record), key=record["key"].encode())
    producer.flush(timeout=30)
    producer.close(timeout=5)


def produce_raw(bootstrap_servers: str, topic: str, partition: int, values: list[bytes]) -> None:
    producer = kafka_clients.producer(bootstrap_servers)
    for value in values:
        producer.send(topic, value, partition=partition)
    producer.flush(timeout=30)
    producer.close(timeout=5)


def produce_in_transaction(bootstrap_servers: str, topic: str, partition: int, values: list[bytes]) -> None:
    """One transaction: its marker takes the offset after the records."""
    producer = kafka_clients.producer(bootstrap_servers, transactional_id=f"{topic}-{partition}")
    producer.init_transactions()
    producer.begin_transaction()
    for value in values:
        producer.send(topic, value, partition=partition)
    producer.commit_transaction()
    producer.close(timeout=5)


def expected_ledger(stream: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """Pairs and XOR over all partitions, computed from the stream alone; every label here is in time."""
    count = xor = 0
    for record in stream:
        if "label" in record:
            xor ^= ledger_hash(record["id"], float(record["label"]))
            count += 1
    return count, xor


def ledger_hash(id_: str, target: float) -> int:
    """Of one pair, as the ledger's definition says it: splitmix64 over the CRC-32 of the id and the target's bits."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", target))
    return _mixed(zlib.crc32(id_.encode()) ^ _mixed(bits))


def _mixed(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def total_ledger(ledger: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """One ledger for all partitions."""
    xor = 0
    for _, part in ledger.values():
        xor ^= part
    return sum(count for count, _ in ledger.values()), xor
