"""Weighted counts and sums per row, in all and over the newest rows: [tally] -> score.

    B rows, A cells that each row counts in, S sums that each row adds to

All of it adds up: the totals of several workers are merged by adding them. The window is a ring of blocks
cut by the number of rows alone, and every number is added row by row: however the rows are split over
calls, the same rows give the same numbers, to the last bit.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.merging import Fork, added

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
State = dict[str, NDArray[np.generic]]

BLOCK_ROWS = 2_000
BLOCKS = 10
"""The window holds the newest 18,001 to 20,000 rows: nine blocks and the one that is filling."""


class Tally:
    """Counts and sums per row, in all and over the newest rows.

    Args:
        cells: length of the counts.
        block_cells: length of the window's counts.
        sums: how many numbers are summed.
    """

    def __init__(self, cells: int, block_cells: int, sums: int) -> None:
        self.rows = 0
        self.counts = np.zeros(cells, np.float64)
        self.sums = np.zeros(sums, np.float64)
        self.block_counts = np.zeros((BLOCKS, block_cells), np.float64)
        self.block_sums = np.zeros((BLOCKS, sums), np.float64)

    def add(self, cells: Ints, block_cells: Ints, into: Ints, terms: Floats, weights: Floats | None = None) -> None:
        """Count rows and add to sums; no two of a row's cells, and no two of its sums, are the same.

        Args:
            cells: (A, B) where each row counts.
            block_cells: (A, B) the same in the window.
            into: (S, B) which sums the terms are added to.
            terms: (S, B), already weighted.
            weights: (B,) what each row counts for; None is 1 each.
        """
        _add_at(self.counts, cells, _ONE if weights is None else weights)
        _add_at(self.sums, into, terms)
        start, rows = 0, terms.shape[1]
        while start < rows:
            slot, filled = self.rows // BLOCK_ROWS % BLOCKS, self.rows % BLOCK_ROWS
            end = min(rows, start + BLOCK_ROWS - filled)
            if filled == 0:
                self.block_counts[slot] = 0.0
                self.block_sums[slot] = 0.0
            part = slice(start, end)
            _add_at(self.block_counts[slot], block_cells[:, part], _ONE if weights is None else weights[part])
            _add_at(self.block_sums[slot], into[:, part], terms[:, part])
            self.rows += end - start
            start = end

    def total(self) -> tuple[int, Floats, Floats]:
        """Rows, counts and sums of all."""
        return self.rows, self.counts, self.sums

    def window(self) -> tuple[int, Floats, Floats]:
        """Rows, counts and sums of the newest."""
        older = (BLOCKS - 1) * BLOCK_ROWS
        filling = (self.rows - 1) % BLOCK_ROWS + 1
        rows = min(self.rows, older + filling)
        return rows, self.block_counts.sum(axis=0), self.block_sums.sum(axis=0)

    def state(self) -> State:
        """Copies; ``load`` continues from them as if it had never stopped."""
        return {
            "rows": np.array([self.rows], np.int64),
            "counts": _packed(self.counts),
            "sums": self.sums.copy(),
            "block_counts": _packed(self.block_counts),
            "block_sums": self.block_sums.copy(),
        }

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from a ``state()``.

        Raises:
            ValueError: it belongs to another kind of score.
        """
        check(state, self.state())
        self.rows = int(np.asarray(state["rows"], np.int64)[0])
        self.counts = np.array(state["counts"], np.float64)
        self.sums = np.array(state["sums"], np.float64)
        self.block_counts = np.array(state["block_counts"], np.float64)
        self.block_sums = np.array(state["block_sums"], np.float64)


def merged(fork: Fork) -> State:
    """What both have counted. The window has their rows by turns as far as whole blocks can have them."""
    was, theirs, mine = (int(np.asarray(state["rows"], np.int64)[0]) for state in fork[:3])
    rows = theirs + mine - was
    found = {name: added(fork.base[name], fork.parts(name)) for name in ("counts", "sums")}
    for name in ("block_counts", "block_sums"):
        base, ring, own = (np.array(state[name], np.float64) for state in fork[:3])
        for block in range(max(_newest(theirs) + 1, _newest(rows) - BLOCKS + 1), _newest(rows) + 1):
            ring[block % BLOCKS] = 0.0
        for block in range(max(was // BLOCK_ROWS, _newest(mine) - BLOCKS + 1), _newest(mine) + 1):
            began_before = block * BLOCK_ROWS < was
            news = own[block % BLOCKS] - (base[block % BLOCKS] if began_before else 0.0)
            ring[(_newest(rows) - _newest(mine) + block) % BLOCKS] += news
        found[name] = ring
    packed = {name: _packed(found[name]) for name in ("counts", "block_counts")}
    return found | packed | {"rows": np.array([rows], np.int64)}


def _newest(rows: int) -> int:
    """The block that has the newest of so many rows; -1 before the first."""
    return (rows - 1) // BLOCK_ROWS


def check(state: Mapping[str, NDArray[np.generic]], mine: State) -> None:
    """See that a state has the arrays of mine, in their shapes.

    Raises:
        ValueError: it has not.
    """
    for name, array in mine.items():
        got = state.get(name)
        if got is None or got.shape != array.shape:
            found = "missing" if got is None else f"of shape {got.shape}"
            raise ValueError(f"score state {name!r} is {found}, wanted shape {array.shape}")


_ONE = np.ones(1)


def _add_at(into: Floats, cells: Ints, values: Floats) -> None:
    """One by one, in the order of the rows: np.sum adds in pairs, so depends on B."""
    if values.ndim == 1 and len(values) > 1:
        values = np.tile(values, (len(cells), 1))
    np.add.at(into, cells.ravel(), values.ravel())


def _packed(counts: Floats) -> NDArray[np.generic]:
    """A copy of the smallest type that holds them exactly: whole numbers, as long as nobody gives weights."""
    most = counts.max(initial=0.0)
    for kind in (np.uint16, np.uint32):
        if most <= np.iinfo(kind).max and np.array_equal(counts, small := counts.astype(kind)):
            return small
    return counts.copy()
