"""River's logistic regression on the same stream: topic -> decode -> [predict -> learn] -> score.

    python -m examples.flights.baseline --bootstrap-servers HOST:PORT --topic flights.events \\
        --labels 327346 --out FILE

One event at a time, in the order of consumption: it predicts when a flight's features arrive and
learns when its label does, so it is delayed exactly as the service is. A missing measurement is
left out of the sample; after standard scaling that equals putting the running mean in its place.
FILE is replaced every two seconds, as a whole; what is not defined yet is null in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from kafka import TopicPartition
from kafka.errors import KafkaError
from river import compose, linear_model, preprocessing

from examples.flights.data import FlightFeatures
from stream_app import kafka_clients
from stream_app.errors import BrokerError
from stream_app.measures import BinaryScore
from stream_app.topics import connect

SCORE_EVERY_LABELS = 1_000
"""Scored pairs are handed on in chunks of this many."""

CONNECT_TIMEOUT_S = 10.0
"""How long a broker that accepts connections may take to answer at the start."""


class BaselineError(Exception):
    """The topic could not be read."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """What the baseline reads of a record."""

    id: str
    features: FlightFeatures | None = None
    label: int | None = None


class Baseline:
    """River's logistic regression on delayed labels, scored before it learns.

    Flights that never land stay in memory: 9,430 of the whole year.
    """

    def __init__(self) -> None:
        self.n_records = 0
        self.n_labels = 0
        self._model = pipeline()
        self._pending: dict[str, tuple[dict[str, Any], float]] = {}
        self._score = BinaryScore()
        self._unscored: list[tuple[float, int]] = []

    def take(self, event: Event) -> None:
        """Predict at the features, learn at the label. A label without features is passed over."""
        self.n_records += 1
        if event.features is not None:
            sample = msgspec.to_builtins(event.features)
            self._pending[event.id] = sample, self._model.predict_proba_one(sample).get(True, 0.5)
        if event.label is not None and event.id in self._pending:
            sample, probability = self._pending.pop(event.id)
            self._model.learn_one(sample, bool(event.label))
            self._keep(probability, event.label)

    def report(self) -> dict[str, Any]:
        """Labels so far, with log_loss, calibration_error, auc and accuracy over all and over the last window."""
        self._settle()
        if not self.n_labels:
            return {"name": "river_logistic", "labels": 0}
        summary, window = self._score.summary(), self._score.window()
        return {
            "name": "river_logistic",
            "labels": self.n_labels,
            **_figures(summary),
            "window": _figures(window),
        }

    def _keep(self, probability: float, label: int) -> None:
        self.n_labels += 1
        self._unscored.append((probability, label))
        if len(self._unscored) >= SCORE_EVERY_LABELS:
            self._settle()

    def _settle(self) -> None:
        if self._unscored:
            pairs = np.array(self._unscored)  # (B, 2)
            self._score.add(pairs[:, 0], pairs[:, 1].astype(np.int64))
            self._unscored.clear()


def pipeline() -> compose.Pipeline:
    """(numeric | StandardScaler) + (categorical | OneHotEncoder) -> LogisticRegression, SGD 0.01.

    Chosen by type, as River's choice by name refuses a sample that lacks a measurement.
    `drop_zeros` leaves the one-hot columns' zeros out; they change no prediction and no weight.
    """
    numeric = compose.SelectType(float) | preprocessing.StandardScaler()
    categorical = compose.SelectType(str) | preprocessing.OneHotEncoder(drop_zeros=True)
    model: compose.Pipeline = (numeric + categorical) | linear_model.LogisticRegression()
    return model


def run(
    values: Iterable[bytes | None],
    out: Path,
    *,
    n_labels: int | None = None,
    until_idle_s: float | None = None,
    every_s: float = 2.0,
) -> dict[str, Any]:
    """Take values until `n_labels` were scored or none came for `until_idle_s`; return the report.

    Args:
        values: Records' payloads in the order of consumption; None when none came for a moment.
        out: The JSON file to replace every `every_s` seconds and at the end. `events_per_s` counts
            good records, features and labels alike, since the first one arrived, and is the
            producer's rate if that is slower.
    """
    decode = msgspec.json.Decoder(Event).decode
    baseline, watch = Baseline(), _Watch(every_s)
    for value in values:
        if value is not None:
            watch.came()
            try:
                baseline.take(decode(value))
            except msgspec.MsgspecError:
                continue
        if n_labels is not None and baseline.n_labels >= n_labels:
            break
        if until_idle_s is not None and watch.idle_s() >= until_idle_s:
            break
        if watch.due():
            write_json(out, _report(baseline, watch, done=False))
    report = _report(baseline, watch, done=True)
    write_json(out, report)
    return report


def consume(bootstrap_servers: str, topic: str, *, wait_s: float = 60.0) -> Iterator[bytes | None]:
    """All values of the topic from its beginning, without a group; None when none came for 0.2 s.

    Raises:
        BaselineError: no broker, or no such topic within `wait_s`.
    """
    try:
        connect(bootstrap_servers)  # else Kafka's client would try for the whole time
        consumer = kafka_clients.consumer(
            bootstrap_servers,
            bootstrap_timeout_ms=int(1000 * CONNECT_TIMEOUT_S),
            max_poll_records=5_000,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
    except (BrokerError, KafkaError) as error:
        raise BaselineError(f"{bootstrap_servers} did not answer: {error!r}, wanted a Kafka broker") from error
    try:
        partitions = _partitions(consumer, topic, wait_s=wait_s)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        while True:
            polled = consumer.poll(timeout_ms=200)
            for records in polled.values():
                yield from (record.value for record in records)
            if not polled:
                yield None
    finally:
        consumer.close()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace the file as a whole, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(content) + b"\n")
    os.replace(temporary, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 when it has seen what it was to see, 1 when it could not be read to there."""
    options = _options(arguments)
    values = consume(options.bootstrap_servers, options.topic)
    try:
        report = run(values, options.out, n_labels=options.labels, until_idle_s=options.until_idle_s)
    except (BaselineError, KafkaError) as error:
        print(f"baseline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(msgspec.json.encode(report).decode(), flush=True)
    return 0


class _Watch:
    """When the first and the last record came, and when to write next (monotonic clock)."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._first_s: float | None = None
        self._last_s = self._written_s = time.monotonic()

    def came(self) -> None:
        self._last_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._last_s

    def idle_s(self) -> float:
        return time.monotonic() - self._last_s

    def busy_s(self) -> float:
        """From the first record to the last one."""
        return 0.0 if self._first_s is None else self._last_s - self._first_s

    def due(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._written_s < self._every_s:
            return False
        self._written_s = now_s
        return True


def _report(baseline: Baseline, watch: _Watch, *, done: bool) -> dict[str, Any]:
    rate = baseline.n_records / watch.busy_s() if watch.busy_s() else 0.0
    return {**baseline.report(), "events_per_s": round(rate, 1), "done": done}


def _figures(summary: dict[str, Any]) -> dict[str, float]:
    return {name: float(summary[name]) for name in ("log_loss", "calibration_error", "auc", "accuracy")}


def _partitions(consumer: Any, topic: str, *, wait_s: float) -> list[TopicPartition]:
    deadline_s = time.monotonic() + wait_s
    while not (numbers := consumer.partitions_for_topic(topic)):
        if time.monotonic() > deadline_s:
            raise BaselineError(f"topic {topic!r} is not there after {wait_s:g} s, wanted an existing one")
        time.sleep(0.5)
    return [TopicPartition(topic, number) for number in sorted(numbers)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights.baseline", description="River on the same stream."
    )
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--labels", type=int, metavar="N", help="end after so many labels")
    parser.add_argument("--until-idle-s", type=float, metavar="S", help="end when nothing came for so long")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="where the figures are written, as JSON",
    )
    options = parser.parse_args(arguments)
    if options.labels is None and options.until_idle_s is None:
        parser.error("got neither --labels nor --until-idle-s, wanted at least one, to know when to end")
    return options


if __name__ == "__main__":
    sys.exit(main())
