"""Names of fields, features and classes, found where they stand in a record, compiled: scanner -> [name] -> index.

F names
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from stream_app.codecs.numbers import Bytes

Places = NDArray[np.int64]


class Names(NamedTuple):
    """Texts that may come, found by their hash."""

    text: Bytes
    starts: Places
    """(F + 1,) where in ``text`` each begins."""
    slots: Places
    """Power of two: index of a name, or -1; the next free slot where two meet."""
    likely: Places
    """(F + 1,) which name last followed each; of -1, the last entry. -1: there is none at all."""


def names(texts: Sequence[str]) -> Names:
    """The table of some names; they differ."""
    raw = [t.encode() for t in texts]
    size = 4
    while size < 4 * len(raw):
        size *= 2
    slots = np.full(size, -1, np.int64)
    for i, text in enumerate(raw):
        slot = 0
        for byte in text:
            slot = (slot * 31 + byte) & (1 << 32) - 1
        slot &= size - 1
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = i
    starts = np.cumsum([0, *map(len, raw)]).astype(np.int64)
    joined = np.frombuffer(b"".join(raw) + b"\0", np.uint8)
    return Names(joined, starts, slots, np.full(len(raw) + 1, 0 if raw else -1, np.int64))


@compiled_exactly
def _is(text: Bytes, at: int, length: int, known: Names, name: int) -> bool:
    """Whether the name stands there."""
    begin = known.starts[name]
    if known.starts[name + 1] - begin != length:
        return False
    for i in range(length):  # noqa: SIM110 - numba makes a loop of this, not of a generator
        if text[at + i] != known.text[begin + i]:
            return False
    return True


@compiled_exactly
def find(text: Bytes, at: int, length: int, known: Names) -> int:
    """Index of the name that stands there, or -1."""
    slot = np.uint32(0)
    for i in range(length):
        slot = np.uint32(slot * np.uint32(31) + text[at + i])
    mask = len(known.slots) - 1
    place = np.int64(slot) & mask
    while known.slots[place] >= 0:
        if _is(text, at, length, known, known.slots[place]):
            return int(known.slots[place])
        place = (place + 1) & mask
    return -1


@compiled_exactly
def find_next(text: Bytes, at: int, length: int, known: Names, last: int) -> int:
    """As ``find``; tries first what followed ``last`` before."""
    guess = known.likely[last]
    if guess >= 0 and _is(text, at, length, known, guess):
        return int(guess)
    found = find(text, at, length, known)
    if found >= 0:
        known.likely[last] = found
    return found
