"""A year of flights goes to Kafka as it happened: data.stream -> encode -> [produce] -> topic.

    python -m examples.flights.produce --bootstrap-servers HOST:PORT --topic flights.events

Three bad records are slipped in, at fixed positions, because real topics have some. The last line
on stdout is one JSON object (`Produced`). Progress goes to stderr. SIGINT and SIGTERM send what is
begun and end normally.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.codec import has_lz4
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from examples.flights.data import (
    DataError,
    FeaturesRecord,
    Flight,
    Record,
    event_time_s,
    load,
    stream,
)
from stream_app import kafka_clients

BAD_AT = (100, 1_000, 5_000)
"""Good records before the first, second and third bad one; a shorter stream has them at its end."""

OUTSTANDING_RECORDS = 20_000
"""Records not yet acknowledged, at most: about 10 MB. KafkaProducer itself has no limit."""

CHECK_EVERY_RECORDS = 1_000
"""Acknowledgements are looked at, and the callbacks called, once in so many records."""

CONNECT_TIMEOUT_S = 10.0
"""How long the broker and the topic may take to answer at the start."""

DELIVERY_TIMEOUT_S = 60.0
"""How long a record may remain unacknowledged, retries included."""


class ProduceError(Exception):
    """The records did not all reach the topic."""


class Produced(msgspec.Struct, frozen=True):
    """What was sent and acknowledged."""

    flights: int
    """Features records."""
    labels: int
    records: int
    """All records: features, labels and bad ones."""
    bad: int
    seconds: float
    """From the first record to the last acknowledgement; reading the files is not counted."""
    records_per_s: float


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record on its way."""

    kind: str
    """"flight", "label" or "bad"."""
    key: bytes
    value: bytes
    time_s: int
    """Event time, seconds since the epoch."""


def produce(
    bootstrap_servers: str,
    topic: str,
    *,
    limit: int | None = None,
    speed: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    wait: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    flights: Sequence[Flight] | None = None,
) -> Produced:
    """Send the first `limit` flights, with their labels, and return when all is acknowledged.

    Args:
        bootstrap_servers: HOST:PORT, several with commas.
        topic: An existing topic.
        limit: Flights, in the order of their scheduled departures; None for all.
        speed: Event-seconds per second; None for as fast as possible.
        progress: Called with (records sent, records in all) every 1,000 records (every second
            if they come slowly) and at the end.
        wait: Called with the records sent as often; may block, to hold production back.
        stop: Set from elsewhere (a signal, another thread), it ends the stream early and cleanly.
        flights: As `load` returns them, if the caller has them already.

    Raises:
        ProduceError: no broker, no topic, or a record that was not delivered.
    """
    stop = stop or threading.Event()
    counts, n_sent = {"flight": 0, "label": 0, "bad": 0}, 0
    with _sender(bootstrap_servers, topic) as send:
        flights = (load() if flights is None else flights)[:limit]
        n_records = len(flights) + sum(flight.late is not None for flight in flights) + len(BAD_AT)
        beat, started_s = Beat(), time.monotonic()
        for record in paced(outgoing(stream(flights)), speed, stop):
            if stop.is_set():
                break
            send(record)
            counts[record.kind] += 1
            n_sent += 1
            if beat.due(n_sent):
                send.settle(OUTSTANDING_RECORDS)
                _tell(n_sent, n_records, progress, wait)
        send.settle(0)
        seconds = time.monotonic() - started_s
    _tell(n_sent, n_records, progress, None)
    rate = round(n_sent / seconds, 1)
    return Produced(counts["flight"], counts["label"], n_sent, counts["bad"], round(seconds, 3), rate)


def outgoing(records: Iterable[Record]) -> Iterator[Outgoing]:
    """The records as bytes, with the bad ones after BAD_AT good ones."""
    encode = msgspec.json.Encoder().encode
    template = None
    bad = deque(zip(BAD_AT, (not_json, text_for_number, without_id), strict=True))
    for n_good, record in enumerate(records):
        if bad and n_good == bad[0][0] and template is not None:
            yield bad.popleft()[1](template)
        if isinstance(record, FeaturesRecord):
            template = record
        yield _good(record, encode)
    if template is not None:
        yield from (make(template) for _, make in bad)


def not_json(like: FeaturesRecord) -> Outgoing:
    """What a broken client sends."""
    return Outgoing("bad", like.key.encode(), b"\xff\xfe this is not JSON {", like.time)


def text_for_number(like: FeaturesRecord) -> Outgoing:
    """A features record whose distance is a word."""
    features = msgspec.to_builtins(like.features) | {"distance": "far"}
    return _bad(like, {"id": f"{like.id}-far", "key": like.key, "time": like.time, "features": features})


def without_id(like: FeaturesRecord) -> Outgoing:
    """A features record that no label could ever be joined to."""
    return _bad(like, {"key": like.key, "time": like.time, "features": msgspec.to_builtins(like.features)})


def paced(records: Iterable[Outgoing], speed: float | None, stop: threading.Event) -> Iterator[Outgoing]:
    """The records no earlier than their event time, `speed` event-seconds to the second, allows."""
    if speed is None:
        yield from records
        return
    started_s, first_s = time.monotonic(), None
    for record in records:
        first_s = record.time_s if first_s is None else first_s
        early_s = (record.time_s - first_s) / speed - (time.monotonic() - started_s)
        if early_s > 0:
            stop.wait(early_s)
        yield record


class Beat:
    """When to look up from sending: once in so many records, once a second if they come slowly."""

    def __init__(self, every_records: int = CHECK_EVERY_RECORDS, every_s: float = 1.0) -> None:
        self._every_records, self._every_s = every_records, every_s
        self._last_sent, self._last_s = 0, time.monotonic()

    def due(self, n_sent: int) -> bool:
        """Whether it is time again, `n_sent` records having been sent so far."""
        now_s = time.monotonic()
        if n_sent - self._last_sent < self._every_records and now_s - self._last_s < self._every_s:
            return False
        self._last_sent, self._last_s = n_sent, now_s
        return True


class Sender:
    """Sends with at most so many records unacknowledged, and looks at every acknowledgement."""

    def __init__(self, producer: Any, topic: str, partitions: Sequence[int]) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = sorted(partitions)
        self._partition_of: dict[bytes, int] = {}
        self._futures: deque[Any] = deque()

    def __call__(self, record: Outgoing) -> None:
        """Hand one record to the producer's queue.

        Raises:
            ProduceError: it was refused at once.
        """
        try:
            partition = self._partition(record.key)
            self._futures.append(self._producer.send(self._topic, record.value, record.key, partition=partition))
        except KafkaError as error:
            raise self._undelivered(error) from error

    def settle(self, outstanding_records: int) -> None:
        """Wait until at most so many records are unacknowledged.

        Raises:
            ProduceError: one of them was refused, or not acknowledged in time.
        """
        futures = self._futures
        try:
            if outstanding_records == 0:
                self._producer.flush(DELIVERY_TIMEOUT_S)
            while futures and (len(futures) > outstanding_records or futures[0].is_done):
                futures.popleft().get(DELIVERY_TIMEOUT_S)
        except KafkaError as error:
            raise self._undelivered(error) from error

    def _partition(self, key: bytes) -> int:
        """What the default partitioner gives, computed once for each of the few keys."""
        if key not in self._partition_of:
            index = (murmur2(key) & 0x7FFFFFFF) % len(self._partitions)
            self._partition_of[key] = self._partitions[index]
        return self._partition_of[key]

    def _undelivered(self, error: KafkaError) -> ProduceError:
        return ProduceError(f"topic {self._topic!r} did not take a record: {error!r}, wanted its acknowledgement")


class LagGate:
    """Holds production back while a consumer group is too far behind the end of the topic."""

    def __init__(self, bootstrap_servers: str, topic: str, *, group: str, max_lag: int, stop: threading.Event) -> None:
        self._consumer = kafka_clients.consumer(bootstrap_servers, group_id=group)
        self._topic, self._max_lag, self._stop = topic, max_lag, stop

    def __call__(self, n_sent: int) -> None:
        """Return when the lag is small enough, or the run is to stop."""
        while not self._stop.is_set() and self.lag() > self._max_lag:
            self._stop.wait(0.2)

    def lag(self) -> int:
        """Records between the group's committed offsets and the end of the topic."""
        partitions = self._consumer.partitions_for_topic(self._topic) or ()
        ends = self._consumer.end_offsets([TopicPartition(self._topic, p) for p in partitions])
        return sum(end - (self._consumer.committed(partition) or 0) for partition, end in ends.items())

    def close(self) -> None:
        self._consumer.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 when all was sent or a signal ended it, 1 when something did not arrive."""
    options = _options(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _shown_progress() as progress, _gate(options, stop) as wait:
            produced = produce(
                options.bootstrap_servers,
                options.topic,
                limit=options.limit,
                speed=options.speed,
                progress=progress,
                wait=wait,
                stop=stop,
            )
    except (ProduceError, DataError, KafkaError) as error:
        print(f"produce: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(produced).decode(), flush=True)
    return 0


def _good(record: Record, encode: Callable[[Any], bytes]) -> Outgoing:
    kind = "flight" if isinstance(record, FeaturesRecord) else "label"
    return Outgoing(kind, record.key.encode(), encode(record), event_time_s(record))


def _bad(like: FeaturesRecord, payload: dict[str, Any]) -> Outgoing:
    return Outgoing("bad", like.key.encode(), msgspec.json.encode(payload), like.time)


def _tell(
    n_sent: int,
    n_records: int,
    progress: Callable[[int, int], None] | None,
    wait: Callable[[int], None] | None,
) -> None:
    if progress is not None:
        progress(n_sent, n_records)
    if wait is not None:
        wait(n_sent)


@contextmanager
def _sender(bootstrap_servers: str, topic: str) -> Iterator[Sender]:
    """A connected sender; on the way out what is still queued has a few seconds."""
    try:
        producer = _producer(bootstrap_servers)
    except KafkaError as error:
        raise ProduceError(f"{bootstrap_servers} did not answer: {error!r}, wanted a Kafka broker") from error
    try:
        yield Sender(producer, topic, _partitions(producer, topic))
    finally:
        producer.close(timeout=5)


def _producer(bootstrap_servers: str) -> Any:
    return kafka_clients.producer(
        bootstrap_servers,
        compression_type="lz4" if has_lz4() else None,  # gzip comes with Python, but halves the rate
        batch_size=256 * 1024,
        linger_ms=20,
        max_block_ms=int(1000 * CONNECT_TIMEOUT_S),
        bootstrap_timeout_ms=int(1000 * CONNECT_TIMEOUT_S),
        delivery_timeout_ms=int(1000 * DELIVERY_TIMEOUT_S),
        metrics_enabled=False,
    )


def _partitions(producer: Any, topic: str) -> Sequence[int]:
    try:
        return sorted(producer.partitions_for(topic))
    except KafkaError as error:
        raise ProduceError(
            f"topic {topic!r} is not there ({error!r}), wanted an existing one: create it first"
        ) from error


@contextmanager
def _shown_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar where somebody looks, else a line every five seconds; both on stderr."""
    if not sys.stderr.isatty():
        yield _ProgressLines()
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("records", total=None)
        yield lambda n_sent, n_records: bar.update(task, completed=n_sent, total=n_records)


class _ProgressLines:
    """Progress for a log file."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._last_s, self._last_sent = time.monotonic(), 0

    def __call__(self, n_sent: int, n_records: int) -> None:
        past_s = time.monotonic() - self._last_s
        if past_s < self._every_s:
            return
        rate = (n_sent - self._last_sent) / past_s
        print(
            f"produce: {n_sent:,} of {n_records:,} records, {rate:,.0f}/s",
            file=sys.stderr,
            flush=True,
        )
        self._last_s, self._last_sent = self._last_s + past_s, n_sent


@contextmanager
def _gate(options: argparse.Namespace, stop: threading.Event) -> Iterator[LagGate | None]:
    if options.max_lag is None:
        yield None
        return
    gate = LagGate(
        options.bootstrap_servers,
        options.topic,
        group=options.group,
        max_lag=options.max_lag,
        stop=stop,
    )
    try:
        yield gate
    finally:
        gate.close()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights.produce", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT")
    parser.add_argument("--topic", required=True, help="an existing topic")
    parser.add_argument("--limit", type=int, metavar="FLIGHTS", help="only so many flights, with their labels")
    parser.add_argument(
        "--speed",
        type=float,
        metavar="N",
        help="event-seconds per second; default: as fast as possible",
    )
    parser.add_argument("--max-lag", type=int, metavar="RECORDS", help="hold back while --group is further behind")
    parser.add_argument("--group", help="the consumer group that --max-lag watches")
    options = parser.parse_args(arguments)
    if (options.max_lag is None) != (options.group is None):
        parser.error(f"got --max-lag {options.max_lag} and --group {options.group}, wanted both or neither")
    if options.speed is not None and not options.speed > 0:  # NaN neither
        parser.error(f"--speed is {options.speed}, wanted more than 0")
    if options.max_lag is not None and options.max_lag < 0:
        parser.error(f"--max-lag is {options.max_lag}, wanted at least 0")
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit is {options.limit}, wanted at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
