"""Rows that wait for their label: predict -> [waiting] -> join, score, learn. Columns, found again by place.

n rows   N numeric features   R rate columns   C categories   K scores   Q numbers told
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Rows(NamedTuple):
    """What is known and said of n rows."""

    dense: Floats
    """(n, N + R) unscaled."""
    categories: Ints
    """(n, C)"""
    own: Floats
    """(n, K) what this model says."""
    told: Floats
    """(n, Q) what the learner will want to know of it when the label comes; NaN where it is lost."""
    said: Floats
    """(n, K) what counts as said: the first record in the predictions topic, else the same as ``own``."""
    nochange: Floats
    """(n,) the last label that had arrived; NaN before the first."""
    prior: Floats
    """(n, K) all-time label distribution."""


class Waiting:
    """Room for rows, each at a place of its own until it is given back."""

    def __init__(self) -> None:
        self._columns: dict[str, NDArray[Any]] = {}
        self._free = np.empty(0, np.int64)
        self._used = np.empty(0, np.bool_)

    def reserve(self, n: int) -> Ints:
        """Places (n,) for further rows."""
        if n > len(self._free):
            self._grow(max(n, len(self._used), 64))
        places = self._free[len(self._free) - n :]
        self._free = self._free[: len(self._free) - n]
        self._used[places] = True
        return places

    def _grow(self, more: int) -> None:
        size = len(self._used)
        self._free = np.concatenate([self._free, np.arange(size, size + more)])
        self._used = np.concatenate([self._used, np.zeros(more, np.bool_)])
        self._columns = {name: _longer(column, size + more) for name, column in self._columns.items()}

    def put(self, places: Ints, **columns: NDArray[np.generic]) -> None:
        """Fill some columns, (n, ...) each, of reserved places (n,)."""
        for name, column in columns.items():
            if name not in self._columns:
                self._columns[name] = np.zeros((len(self._used), *column.shape[1:]), column.dtype)
            self._columns[name][places] = column

    def column(self, name: str, places: Ints) -> NDArray[Any]:
        """A copy of one column at some places, (n, ...)."""
        return self._columns[name].take(places, axis=0)

    def rows(self, places: Ints) -> Rows:
        """Copies of the columns that a core fills."""
        return Rows(*(self.column(name, places) for name in Rows._fields))

    def give_back(self, places: Ints) -> None:
        self._used[places] = False
        self._free = np.concatenate([self._free, places])

    def places(self) -> Ints:
        """Of all that wait."""
        return np.flatnonzero(self._used)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._used))


def _longer(column: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    found = np.zeros((size, *column.shape[1:]), column.dtype)
    found[: len(column)] = column
    return found
