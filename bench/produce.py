"""How fast do examples reach Kafka? flights -> `EventProducer` -> broker, acknowledged: rows/s.

One by one by `send`, as columns by `send_columns`, and as the flights' own producer has them (JSON, a record each), in
turns; connecting counts. The broker (embedded; with KAFKA_HOME set, Apache Kafka) shares the machine, so what it takes
is in the figures. `python -m bench.produce --flights 20000 --rounds 3`
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from kafka.admin import NewTopic

from examples.flights.data import FeaturesRecord, Flight, load, stream
from examples.flights.produce import produce
from models.spec import ModelSpec, read_spec
from stream_app import kafka_clients
from stream_app.broker import EmbeddedBroker
from stream_app.producer import EventProducer
from tests.broker.apache_kafka import ApacheKafka


def one_by_one(server: str, topic: str, records: Sequence[Any]) -> None:
    with EventProducer(server, topic) as producer:
        for r in records:
            if isinstance(r, FeaturesRecord):
                producer.send(r.id, features=msgspec.structs.asdict(r.features), time_s=r.time, key=r.key)
            else:
                producer.send(r.id, label=r.label, label_time_s=r.label_time, key=r.key)


def in_columns(spec: ModelSpec, server: str, topic: str, records: Sequence[Any]) -> Callable[[], None]:
    """The columns are there already: who has a table has them."""
    some = [r for r in records if isinstance(r, FeaturesRecord)]
    features: dict[str, Any] = {}
    for name in spec.features.numeric:
        features[name] = np.array([getattr(r.features, name) for r in some], np.float64)
    for name in spec.features.categorical:
        features[name] = [getattr(r.features, name) for r in some]
    labels = [r for r in records if not isinstance(r, FeaturesRecord)]

    def send() -> None:
        with EventProducer(server, topic) as producer:
            producer.send_columns(
                [r.id for r in some],
                features=features,
                time_s=[float(r.time) for r in some],
                keys=[r.key for r in some],
            )
            producer.send_columns(
                [r.id for r in labels],
                label=[r.label for r in labels],
                label_time_s=[float(r.label_time) for r in labels],
                keys=[r.key for r in labels],
            )

    return send


def measured(spec: ModelSpec, server: str, flights: Sequence[Flight], rounds: int) -> dict[str, int]:
    """Medians of rows/s, acknowledged."""
    records = list(stream(flights))
    topics = {name: f"bench.{name}" for name in ("send", "columns", "json")}
    admin = kafka_clients.admin(server)
    for topic in topics.values():
        admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    admin.close()
    ways = {
        "send": lambda: one_by_one(server, topics["send"], records),
        "columns": in_columns(spec, server, topics["columns"], records),
        "json": lambda: produce(server, topics["json"], flights=flights),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            began_s = time.monotonic()
            run()
            rates[name].append(len(records) / (time.monotonic() - began_s))
    return {name: round(statistics.median(found)) for name, found in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flights", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    spec, flights = read_spec("examples/flights/model.toml"), load()[: options.flights]
    home = os.environ.get("KAFKA_HOME")
    with tempfile.TemporaryDirectory() as folder:
        broker: Any = ApacheKafka(Path(home).resolve(), Path(folder)) if home else EmbeddedBroker()
        with broker:
            rates = measured(spec, broker.bootstrap_servers, flights, options.rounds)
    for name, rate in rates.items():
        print(f"{name:8} {rate:>10,} rows/s", flush=True)
    print(json.dumps({"broker": "kafka" if home else "embedded", "rows_per_s": rates}))


if __name__ == "__main__":
    main()
