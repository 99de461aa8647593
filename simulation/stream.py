"""Events in an awkward order, and what each record says however it is written: seed -> [stream] -> broker, oracle.

Labels that come before their features, late, twice, too late, or never; ids used again; clocks that jump; records that
are no events; records of many rows.
"""

import heapq
import random
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from stream_app.events import CONTENT_TYPE, ContentType
from stream_app.wire import events_pb2

WAIT_S = 100.0
"""How far features and label may lie apart."""
TIMES_S = 900_000_000.0
"""Event times begin about here, years before the wall clock."""


class Row(NamedTuple):
    """One example, or half of one."""

    id: str
    time_s: float | None = None
    who: str = ""
    """The only feature."""
    target: float | None = None
    label_time_s: float | None = None


class Written(NamedTuple):
    """One record of the events topic."""

    partition: int
    value: bytes
    rows: tuple[Row | None, ...]
    """What it says; None where a row is no example."""
    batch: bool = False
    whole: bool = True
    """Whether all of it can be read, so that a bad row is set aside alone."""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        return ((CONTENT_TYPE, ContentType.BATCH.encode()),) if self.batch else ()


POISON = (b"", b"not json", b'{"id":1}', b'{"id":"x"}', b'{"id":"x","label":"much","label_time":1}', b"[]", b"\xff\xfe")


def stream(rng: random.Random, records: int, partitions: int) -> list[Written]:
    """So many records, in the order in which they are produced."""
    lanes = [_lane(rng, p) for p in range(partitions)]
    order = rng.choices(lanes, [rng.random() + 0.1 for _ in lanes], k=records)
    return [next(lane) for lane in order]


def _lane(rng: random.Random, partition: int) -> Iterator[Written]:
    """One partition's records, without an end."""
    rows = _rows(rng, partition)
    poison, batches = rng.choice((0.0, 0.005, 0.02)), rng.choice((0.0, 0.01, 0.03))
    while True:
        chance = rng.random()
        if chance < poison:
            yield Written(partition, rng.choice(POISON), (None,), whole=False)
        elif chance < poison + batches:
            yield _batch(rng, partition, [next(rows) for _ in range(rng.randint(1, 5))])
        else:
            row = next(rows)
            yield Written(partition, _json(row), (row,))


def _rows(rng: random.Random, partition: int) -> Iterator[Row]:
    now_s, number = TIMES_S + rng.choice((0.0, 1e7, rng.random() * 1e8)), 0
    later: list[tuple[float, int, Row]] = []
    step_s, order = rng.choice((0.5, 2.0, 8.0)), 0
    jumps = rng.choice((0.0, 0.002, 0.01))
    while True:
        now_s += rng.random() * step_s
        if rng.random() < jumps:
            now_s += rng.choice((0.5, 1.0, 3.0)) * WAIT_S
        while later and later[0][0] <= now_s:
            yield heapq.heappop(later)[2]
        number += 1
        for at_s, row in _example(rng, f"{partition}-{number}", now_s):
            order += 1
            if at_s <= now_s:
                yield row
            else:
                heapq.heappush(later, (at_s, order, row))


def _example(rng: random.Random, id_: str, now_s: float) -> Iterator[tuple[float, Row]]:
    """One example's rows, and when each is produced; its features' time is about now."""
    time_s = now_s - rng.choice((0.0, 0.0, 0.0, rng.random() * 30.0))
    target, kind = float(rng.randrange(1000)), rng.random()
    label_s = time_s + rng.random() * 0.6 * WAIT_S
    features = Row(id_, time_s, id_)
    label = Row(id_, None, "", target, label_s)
    if kind < 0.08:  # never labelled
        yield now_s, features
        return
    if kind < 0.16:  # at once
        yield now_s, Row(id_, time_s, id_, target, label_s)
    elif kind < 0.26:  # the label first
        early = label._replace(label_time_s=time_s - rng.random() * 20.0)
        yield now_s, early
        yield now_s + rng.random() * 0.5 * WAIT_S, features
    elif kind < 0.32:  # the label too late
        yield now_s, features
        yield now_s + (1.0 + rng.random()) * WAIT_S, label._replace(label_time_s=now_s + (1.0 + rng.random()) * WAIT_S)
    else:
        yield now_s, features
        yield label_s, label
    if rng.random() < 0.25:  # something of it again, different, sometimes when it is forgotten
        again_s = now_s + rng.random() * rng.choice((0.5, 1.5, 3.0)) * WAIT_S
        if rng.random() < 0.5:
            yield again_s, Row(id_, again_s, id_ + "'")
        if rng.random() < 0.7:
            yield again_s, label._replace(target=target + 1.0, label_time_s=again_s)


_encode = msgspec.json.Encoder().encode


def _json(row: Row) -> bytes:
    said: dict[str, object] = {"id": row.id}
    if row.time_s is not None:
        said |= {"time": row.time_s, "features": {"who": row.who}}
    if row.target is not None:
        said |= {"label": row.target, "label_time": row.label_time_s}
    return _encode(said)


def _batch(rng: random.Random, partition: int, rows: list[Row]) -> Written:
    said: list[Row | None] = list(rows)
    if rng.random() < 0.1:  # a row that is no example
        at = rng.randrange(len(rows))
        rows[at], said[at] = Row("", None, "", 1.0, 1.0), None
    message = events_pb2.Examples(
        rows=len(rows),
        ids=_texts([r.id for r in rows]),
        time=_floats([r.time_s for r in rows]),
        value=_floats([r.target for r in rows]),
        label_time=_floats([r.label_time_s for r in rows]),
    )
    codes = np.array([i if r.time_s is not None else -1 for i, r in enumerate(rows)], np.int32)
    message.categorical.add(name="who", texts=_texts([r.who for r in rows]), codes=codes.tobytes())
    return Written(partition, message.SerializeToString(), tuple(said), batch=True)


def _texts(texts: list[str]) -> events_pb2.Texts:
    ends = np.cumsum([len(t) for t in texts]).astype(np.uint32)
    return events_pb2.Texts(text="".join(texts).encode(), ends=ends.tobytes())


def _floats(values: list[float | None]) -> bytes:
    return np.array([np.nan if v is None else v for v in values], np.float64).tobytes()
