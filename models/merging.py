"""Two that began from one state and learned apart become one: base, theirs, mine -> [each kind its own way] -> state.

    b, x_i, x   base, part, merged   n_i  rows that part i has learned since the base   n  their sum

The arithmetic that all kinds of state are merged with; each kind's own ``merged`` stands beside its ``state``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.snapshot import Arrays, under

F64 = NDArray[np.float64]
Each = Sequence[NDArray[np.generic]] | F64
"""Of each part, the same array."""


class MergeError(ValueError):
    """What was learned apart cannot be put together."""


class Fork(NamedTuple):
    """What two have made of one base."""

    base: Arrays
    theirs: Arrays
    mine: Arrays
    their_rows: int
    """Labelled rows that they have learned since the base."""
    my_rows: int

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.array([self.their_rows, self.my_rows], np.int64)

    def under(self, name: str) -> "Fork":
        """The part of all three whose names begin with ``name`` and a dot."""
        base, theirs, mine = (under(name, arrays) for arrays in self[:3])
        return self._replace(base=base, theirs=theirs, mine=mine)

    def parts(self, name: str) -> list[NDArray[np.generic]]:
        """One array of both."""
        return [self.theirs[name], self.mine[name]]


def picked(fork: Fork, name: str) -> NDArray[np.generic] | None:
    """Of what cannot be mixed, the one that has changed since the base; mine if both have; None where it has none."""
    was, mine = fork.base.get(name), fork.mine.get(name)
    unchanged = mine is None if was is None else mine is not None and np.array_equal(was, mine)
    return fork.theirs.get(name) if unchanged else mine


def stacked(parts: Each) -> F64:
    return np.stack([part.astype(np.float64) for part in parts])


def averaged(base: NDArray[np.generic], parts: Each, rows: NDArray[np.generic]) -> F64:
    """b + sum_i n_i / n (x_i - b); rows (N,), or (N, ...) as far as it is told how often each number's turn came."""
    was, now = base.astype(np.float64), stacked(parts)
    shares = rows / rows.sum(axis=0)
    shares = shares.reshape(shares.shape + (1,) * (now.ndim - shares.ndim))
    merged: F64 = was + (shares * (now - was)).sum(axis=0)
    return merged


def stepped(base: NDArray[np.generic], parts: Each, rows: NDArray[np.generic]) -> F64:
    """b + a sum_i s_i (x_i - b), s_i = n_i / n, a = 1 / sqrt(sum_i s_i^2): parameters that optimisers have moved.

    The mean of N parts is a step on N times the examples. What moves at its own pace whatever the gradient's length, as
    Adam does, then wants a pace sqrt(N) times as high (Krizhevsky 2014; Malladi et al. 2022); its noise is one part's.
    """
    shares = rows / rows.sum(axis=0)
    pace = 1 / np.sqrt((shares**2).sum(axis=0))
    was = base.astype(np.float64)
    merged: F64 = was + pace.reshape(pace.shape + (1,) * (was.ndim - pace.ndim)) * (averaged(base, parts, rows) - was)
    return merged


def added(base: NDArray[np.generic], parts: Each) -> F64:
    """b + sum_i (x_i - b)."""
    was = base.astype(np.float64)
    merged: F64 = was + (stacked(parts) - was).sum(axis=0)
    return merged


def faded(base: NDArray[np.generic], parts: Each, keep: float | F64, steps: Sequence[F64 | int]) -> F64:
    """Sums of which ``keep`` is left at every step, with steps_i steps in part i."""
    return of_late(base, parts, [keep**own for own in steps], keep ** sum(steps), steps)


def of_late(
    base: NDArray[np.generic],
    parts: Each,
    left: Sequence[F64 | float],
    left_of_all: F64 | float,
    turns: Sequence[F64 | int],
) -> F64:
    """What has kept left_i of the base in part i, left_of_all in the merged; what is new is dealt out by turns.

    Each of left, left_of_all and turns is one number, or broadcasts to the base.
    """
    was, total = base.astype(np.float64), sum(turns)
    merged: F64 = left_of_all * was
    for part, kept, own in zip(stacked(parts), left, turns, strict=True):
        weight = quotient((1 - left_of_all) * own, total * (1 - np.asarray(kept)))
        merged = merged + weight * (part - kept * was)
    return merged


def quotient(above: F64 | float, below: F64) -> F64:
    """0 where there is nothing below."""
    shape = np.broadcast_shapes(np.shape(above), below.shape)
    return np.divide(above, below, out=np.zeros(shape), where=below > 0)
