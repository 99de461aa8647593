"""The join of one partition as the protocol's rules 1 to 3 say it, and what must have been learned at any offset.

Written down a second time, record by record and without any cleverness, on purpose: everything else in a simulation
is the product's own code.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from simulation.stream import WAIT_S, Row

WORD = (1 << 64) - 1
CODES = 1 << 16
"""Rows of the embedding of the feature that names an example."""


class Pair(NamedTuple):
    """A learned example."""

    id: str
    target: float
    features_at: int
    """Position of its features: offset and row."""
    learned_at: int
    """Offset of the record that completed it."""


class Point(NamedTuple):
    """What there must be once all records before an offset have taken effect."""

    count: int = 0
    xor: int = 0
    """Of the pairs' hashes."""
    sum: int = 0
    """Of the learner's marks."""
    bad: int = 0
    """Rows that are no example."""
    events: int = 0
    """Rows with features."""


@dataclass
class _Known:
    last_s: float
    time_s: float | None = None
    who: str = ""
    features_at: int = -1
    target: float | None = None
    label_time_s: float | None = None
    done: bool = False


class Reference:
    """One partition, joined as its records are produced."""

    def __init__(self) -> None:
        self.points = [Point()]
        """By offset."""
        self.pairs: list[Pair] = []
        self.asked: list[int] = []
        """Positions of rows with features, rising."""
        self.bad: list[tuple[int, int | None]] = []
        """Offset and row of what is no example; the row is None where all of the record is bad."""
        self._clock_s = float("-inf")
        self._known: dict[str, _Known] = {}

    def take(self, rows: tuple[Row | None, ...], whole: bool) -> None:
        """The next record."""
        offset = len(self.points) - 1
        count, xor, total, bad, events = self.points[-1]
        for i, row in enumerate(rows):
            if row is None:
                self.bad.append((offset, i if whole else None))
                bad += 1
                continue
            position = offset << 16 | i
            if row.time_s is not None:
                self.asked.append(position)
                events += 1
            found = self._join(row, position)
            if found is not None:
                known, target = found
                self.pairs.append(Pair(row.id, target, known.features_at, offset))
                count += 1
                xor ^= ledger_hash(row.id, target)
                total = (total + mark(known.who, target)) & WORD
        self.points.append(Point(count, xor, total, bad, events))

    def _join(self, row: Row, position: int) -> tuple[_Known, float] | None:
        now_s = row.label_time_s if row.time_s is None else row.time_s
        assert now_s is not None
        if row.label_time_s is not None and row.label_time_s > now_s:
            now_s = row.label_time_s
        if now_s > self._clock_s:
            self._clock_s = now_s
        known = self._known.get(row.id)
        if known is None or known.last_s + WAIT_S < self._clock_s:  # rule 2: forgotten
            known = self._known[row.id] = _Known(last_s=now_s)
        elif known.last_s < now_s:
            known.last_s = now_s
        if row.time_s is not None and known.time_s is None:
            known.time_s, known.who, known.features_at = row.time_s, row.who, position
        if row.target is not None and known.target is None:
            known.target, known.label_time_s = row.target, row.label_time_s
        if known.done or known.time_s is None or known.target is None or known.label_time_s is None:
            return None
        known.done = True
        return (known, known.target) if abs(known.label_time_s - known.time_s) <= WAIT_S else None


def ledger_hash(id_: str, target: float) -> int:
    """As ``stream_app.learn.ledger_hash`` has it, of one pair."""
    return _mixed(zlib.crc32(id_.encode()) ^ _mixed(struct.unpack("<Q", struct.pack("<d", target))[0]))


def _mixed(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & WORD
    return _finished(z)


def _finished(z: int) -> int:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def mark(who: str, target: float) -> int:
    """What the learner of simulations adds for an example."""
    code = 1 + zlib.crc32(who.encode()) % (CODES - 1)
    return _finished(code << 32 ^ struct.unpack("<I", struct.pack("<f", target))[0])
