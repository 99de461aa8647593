"""The newest rows learned, kept to be learned again, compared with and grown trees over."""

from typing import NamedTuple

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64, I64, widened
from models.snapshot import Arrays

CHUNK = 256
"""Rows written ahead of the row that is being learned; so many more than the window there is room for."""
REACH = 10.0
"""Deviations beyond which columns are not told apart, so that no number drives weights out of float32."""


@compiled
def tame(z: F32) -> None:
    """Columns (B, D) in place: NaN is missing, which is 0; the rest within REACH."""
    for b in range(len(z)):
        for d in range(z.shape[1]):
            v = z[b, d]
            z[b, d] = min(max(v, -REACH), REACH) if v == v else 0.0


class Rows(NamedTuple):
    """What members get: B rows, and their labels when they learn."""

    z: F32
    """(B, D) standardised columns, then the rates of the categories."""
    codes: I64
    """(B, C) rows of one table of all categorical features."""
    prior: F64
    """(B, K) how often each class came of late; the mean of late for regression."""
    centre: F64
    """(B,) mean and"""
    scale: F64
    """(B,) deviation of the values so far; 0 and 1 for classes."""
    last: F64
    """(B,) the last value before, and"""
    change: F64
    """(B,) the deviation of the changes from value to value; 0 and 1 for classes."""
    y: F32
    """(B,) class or value."""
    w: F32
    """(B,) weights."""


class Window:
    """A ring of ``room`` rows: row number i, counted from the first ever learned, stands at i % room."""

    def __init__(self, length: int, columns: int, categories: int) -> None:
        room = length + CHUNK
        self.count = 0
        """Rows learned."""
        self.z = np.zeros((room, columns), np.float32)
        self.codes = np.zeros((room, categories), np.int64)
        self.y = np.zeros(room, np.float32)
        self.w = np.zeros(room, np.float32)

    def write(self, rows: Rows) -> None:
        """Put rows behind the newest; they count as learned once ``count`` says so."""
        at = (self.count + np.arange(len(rows.z))) % len(self.z)
        self.z[at], self.codes[at], self.y[at], self.w[at] = rows.z, rows.codes, rows.y, rows.w

    def grow(self, columns: int, first_codes: I64) -> None:
        """To as many columns, and a categorical feature for each of first_codes (C,): what new ones were so far."""
        room, had = self.codes.shape
        self.z = widened(self.z, (room, columns))
        self.codes = widened(self.codes, (room, len(first_codes)))
        self.codes[:, had:] = first_codes[had:]

    def forget(self, codes: I64, instead: int) -> None:
        """The rows that had these codes have the code ``instead``."""
        self.codes[np.isin(self.codes, codes)] = instead

    def state(self) -> Arrays:
        """Only the part that has ever been written."""
        used = min(self.count, len(self.z))
        return {
            "count": np.array([self.count]),
            "room": np.array([len(self.z)]),
            "z": self.z[:used].copy(),
            "codes": self.codes[:used].astype(np.int32),
            "y": self.y[:used].copy(),
            "w": self.w[:used].copy(),
        }

    def load(self, state: Arrays) -> None:
        used = len(state["y"])
        self.count = int(state["count"].astype(np.int64)[0])
        self.z = np.zeros((len(self.z), state["z"].shape[1]), np.float32)
        self.codes = np.zeros((len(self.z), state["codes"].shape[1]), np.int64)
        self.z[:used], self.codes[:used] = state["z"], state["codes"]
        self.y[:used], self.w[:used] = state["y"], state["w"]
