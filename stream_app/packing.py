"""What waits becomes Kafka records: little of it one by one, much of it packed: produce -> [pack] -> events topic."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stream_app.codecs import gather
from stream_app.codecs.batch import LARGEST_BATCH_BYTES, Batch, pack
from stream_app.codecs.gather import Example
from stream_app.partitions import partitions_of

PACK_FROM = 8
"""So many waiting examples of a partition, or more, make a columnar record."""
RECORD_ROWS = 4_096
RECORD_BYTES = 2_000_000
"""Of examples in memory, which take some five times what they take packed."""


class Waiting(NamedTuple):
    """What one call sent."""

    content: Example | Batch
    partition: int | None
    """None: to be found by the example's key."""
    size_bytes: int


class Record(NamedTuple):
    """One Kafka record."""

    partition: int
    key: bytes | None
    value: bytes
    ids: list[str]
    size_bytes: int
    packed: bool


def records_of(taken: Sequence[Waiting], partitions: Sequence[int]) -> Iterator[Record]:
    """Records; of each partition, in the order of what was sent."""
    singles = [w.content.key.encode() for w in taken if isinstance(w.content, Example)]
    places = iter(partitions_of(singles, len(partitions)).tolist())
    pending: dict[int, list[Waiting]] = {}
    for waiting in taken:
        if waiting.partition is None:
            pending.setdefault(partitions[next(places)], []).append(waiting)
        else:
            yield from _together(waiting.partition, pending.pop(waiting.partition, []))
            assert isinstance(waiting.content, Batch)
            yield from _packed(waiting.partition, waiting.content, waiting.size_bytes)
    for partition, examples in pending.items():
        yield from _together(partition, examples)


def ids_of(waiting: Waiting) -> list[str]:
    return list(waiting.content.ids) if isinstance(waiting.content, Batch) else [waiting.content.id]


def _together(partition: int, waiting: Sequence[Waiting]) -> Iterator[Record]:
    """Few examples as they are, many packed."""
    examples = [w.content for w in waiting if isinstance(w.content, Example)]
    if len(examples) < PACK_FROM:
        for e, w in zip(examples, waiting, strict=True):
            yield Record(partition, e.key.encode(), e.json(), [e.id], w.size_bytes, False)
        return
    begin = size_bytes = 0
    for i, w in enumerate(waiting):
        if i - begin == RECORD_ROWS or (i > begin and size_bytes + w.size_bytes > RECORD_BYTES):
            yield from _packed(partition, gather.gathered(examples[begin:i]), size_bytes)
            begin, size_bytes = i, 0
        size_bytes += w.size_bytes
    yield from _packed(partition, gather.gathered(examples[begin:]), size_bytes)


def _packed(partition: int, batch: Batch, size_bytes: int) -> Iterator[Record]:
    """A batch as one record, or as several if it is too large for one."""
    value, rows = pack(batch), len(batch.ids)
    if len(value) <= LARGEST_BATCH_BYTES or rows == 1:
        yield Record(partition, None, value, list(batch.ids), size_bytes, True)
        return
    half = rows // 2
    yield from _packed(partition, gather.taken(batch, np.arange(half)), size_bytes * half // rows)
    yield from _packed(partition, gather.taken(batch, np.arange(half, rows)), size_bytes - size_bytes * half // rows)
