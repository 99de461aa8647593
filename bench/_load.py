"""A load for as long as one likes: flights, year after year -> JSON -> batches -> Kafka, and what must come of them.

A process of its own sends. Every pass over the flights has ids of its own and times a year later, so that nothing is
ignored as a repetition. Records are encoded before, but for id and time, and handed over in whole batches: sending
10,000 a second takes a tenth of a core.
"""

import asyncio
import gc
import multiprocessing
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from typing import NamedTuple

import aiokafka
import msgspec

from examples.flights.data import FeaturesRecord, Flight, Record, stream
from tests.streams import ledger_hash

YEAR_S = 365 * 86_400
FIRST_YEAR = -40
"""Of the flights' own: a topic takes no events from beyond the wall clock."""
PACE_S = 0.02
BATCH_BYTES = 256 << 10
UNACKNOWLEDGED = 64
"""Batches, at most."""


class Part(NamedTuple):
    """A record but for its pass: ``head + pass + middle + time + tail``."""

    head: bytes
    middle: bytes
    time_s: int
    tail: bytes
    partition: int
    label: int | None
    """None: it has features."""

    def value(self, year: int) -> bytes:
        """The record of one pass."""
        time_s = self.time_s + (year + FIRST_YEAR) * YEAR_S
        return b"%b+%d%b%d%b" % (self.head, year, self.middle, time_s, self.tail)


class Sent(NamedTuple):
    """What was sent and acknowledged so far."""

    records: int
    features: int
    ledger: dict[int, tuple[int, int]]
    """Per partition: pairs of features and label, and XOR of their hashes, computed from what was sent alone."""


class Feeder:
    """Sends in another process; one instruction at a time.

    Make it before this process has threads: it forks.

    Args:
        servers: the broker's.
        topic: an existing one.
        flights: repeated.
        partitions: of the topic; a flight's origin chooses among them.
        by_id: its id does, so that all get the same.
    """

    def __init__(
        self, servers: str, topic: str, flights: Sequence[Flight], *, partitions: int, by_id: bool = False
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        parts = list(encoded(stream(flights), partitions, by_id=by_id))
        self._process = context.Process(target=_serve, args=(there, servers, topic, parts), daemon=True)
        self._process.start()

    def burst(self, records: int) -> Sent:
        """So many records as fast as they go."""
        self._here.send((records, None))
        return self._here.recv()

    def pace(self, per_s: float, seconds: float) -> None:
        """Begin to send steadily; ``wait`` says when it has ended."""
        self._here.send((round(per_s * seconds), per_s))

    def wait(self) -> Sent:
        """Until the last instruction is done."""
        return self._here.recv()

    def close(self) -> None:
        self._here.send(None)
        self._process.join(10)


def encoded(records: Iterator[Record], partitions: int, *, by_id: bool = False) -> Iterator[Part]:
    """The records in parts, in their order."""
    encode = msgspec.json.Encoder().encode
    for record in records:
        key = record.key.encode()
        at = zlib.crc32(record.id.encode() if by_id else key) % partitions
        head = b'{"id":"%b' % record.id.encode()
        if isinstance(record, FeaturesRecord):
            middle, tail = b'","key":"%b","time":' % key, b',"features":%b}' % encode(record.features)
            yield Part(head, middle, record.time, tail, at, None)
        else:
            middle = b'","key":"%b","label":%d,"label_time":' % (key, record.label)
            yield Part(head, middle, record.label_time, b"}", at, record.label)


def repeated(parts: Sequence[Part]) -> Iterator[tuple[int, Part]]:
    """Pass and part, without an end."""
    year = 0
    while True:
        for part in parts:
            yield year, part
        year += 1


def owed(parts: Sequence[Part], records: int) -> Sent:
    """What must come of the first ``records``."""
    features, ledger = 0, {part.partition: (0, 0) for part in parts}
    for year, part in islice(repeated(parts), records):
        if part.label is None:
            features += 1
            continue
        count, xor = ledger[part.partition]
        id_ = f"{part.head[7:].decode()}+{year}"
        ledger[part.partition] = (count + 1, xor ^ ledger_hash(id_, float(part.label)))
    return Sent(records, features, ledger)


def _serve(pipe: Connection, servers: str, topic: str, parts: Sequence[Part]) -> None:
    gc.freeze()
    asyncio.run(_obey(pipe, servers, topic, parts))


async def _obey(pipe: Connection, servers: str, topic: str, parts: Sequence[Part]) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=servers.split(","), max_batch_size=BATCH_BYTES, compression_type="lz4", acks="all"
    )
    await producer.start()
    rows, sent = repeated(parts), 0
    try:
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            records, per_s = order
            await _send(producer, topic, islice(rows, records), records, per_s)
            sent += records
            pipe.send(owed(parts, sent))
    finally:
        await producer.stop()


async def _send(
    producer: aiokafka.AIOKafkaProducer,
    topic: str,
    rows: Iterator[tuple[int, Part]],
    records: int,
    per_s: float | None,
) -> None:
    """Send so many rows, no faster than ``per_s``; returns when all are acknowledged."""
    begun_s, sent, acks = time.monotonic(), 0, set[asyncio.Future[object]]()
    while sent < records:
        if per_s is None:
            due = min(sent + 1_000, records)
        else:
            await asyncio.sleep(PACE_S)
            due = min(int((time.monotonic() - begun_s) * per_s), records)
        acks |= {asyncio.ensure_future(ack) for ack in await _batches(producer, topic, islice(rows, due - sent))}
        sent = due
        while len(acks) > UNACKNOWLEDGED:
            done, acks = await asyncio.wait(acks, return_when=asyncio.FIRST_COMPLETED)
            for ack in done:
                ack.result()
    await asyncio.gather(*acks)


async def _batches(
    producer: aiokafka.AIOKafkaProducer, topic: str, rows: Iterator[tuple[int, Part]]
) -> list[asyncio.Future[object]]:
    """Hand rows over in as few batches as they fit into; what will be known when they are acknowledged."""
    builders, acks, now_ms = {}, [], int(time.time() * 1000)
    for year, part in rows:
        value, at = part.value(year), part.partition
        builder = builders.get(at)
        if builder is None or builder.append(key=None, value=value, timestamp=now_ms) is None:
            if builder is not None:
                acks.append(await producer.send_batch(builder, topic, partition=at))
            builders[at] = producer.create_batch()
            builders[at].append(key=None, value=value, timestamp=now_ms)
    for at, builder in builders.items():
        acks.append(await producer.send_batch(builder, topic, partition=at))
    return acks
