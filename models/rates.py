"""How labels have been going lately: learned label -> [decayed counts per key] -> features of the next row.

Here they are kept and read; ``models.walk`` counts.

w, s      decayed count and sum of labels per slot and time scale:  (K + 1, slots, H), (K + 1, slots, H, T)
last      when a slot was last brought up to date, event time:      (K + 1, slots)
overall   row 0 counts every label; rows 1..K belong to the spec's key combinations
rate      (s + PSEUDO * overall) / (w + PSEUDO), overall shrunk to the all-time mean alike

Rates stay means: their log-odds, tried too, served the flights worse (AUC 0.752, means 0.754).
"""

from copy import copy

import numpy as np
from numpy.typing import NDArray

from models.merging import Fork, added
from models.snapshot import Arrays

PSEUDO = 5.0
"""Labels' worth of belief in the parent rate."""

NEVER_S = -1e18
"""Time of a slot that no label has touched."""

TABLE_BYTES = 4 << 20
"""A larger table is not made: many classes would make it larger than all else in a server."""

Floats = NDArray[np.float64]
Table = NDArray[np.float32]


class RecentRates:
    """Recent label rates of K key combinations at H half-lives.

    Args:
        combinations: K.
        slots: counters per combination; keys are hashed into them.
        half_lives_s: event time, seconds.
        tracked: T, numbers per label.
        blank: the prior before the first label, later worth one label.
    """

    def __init__(
        self,
        *,
        combinations: int,
        slots: int,
        half_lives_s: tuple[float, ...],
        tracked: int,
        blank: float,
    ) -> None:
        self.slots, self.blank, self.tracked = slots, blank, tracked
        self.half_lives_s = np.array(half_lives_s, dtype=np.float64)
        self._offsets = np.arange(1, combinations + 1) * slots
        rows = (combinations + 1) * slots if half_lives_s else 0
        self.w = np.zeros((rows, len(half_lives_s)))
        self.s = np.zeros((rows, len(half_lives_s), tracked))
        self.last_s = np.full(rows, NEVER_S)
        self.totals = np.zeros(tracked + 1)
        """Sum and, last, number of all labels, as weighted."""
        self.columns = combinations * len(half_lives_s) * tracked

    def prior(self) -> Floats:
        """All-time mean of the labels (T,); ``blank`` before the first."""
        prior: Floats = (self.totals[:-1] + self.blank) / (self.totals[-1] + 1.0)
        return prior

    def seen(self) -> tuple[Floats, float]:
        """Sum (T,) and number of all labels, as weighted."""
        return self.totals[:-1], float(self.totals[-1])

    def read(self, keys: NDArray[np.int64], times_s: Floats) -> NDArray[np.float32]:
        """Rates of keys (B, K) as they stand at times_s (B,): (B, R)."""
        if not self.columns:
            return np.zeros((len(keys), 0), dtype=np.float32)
        rows = self._rows(keys)  # (B, K + 1)
        w, s = self._decayed(rows, times_s[:, None])  # (B, K + 1, H), (B, K + 1, H, T)
        overall = _shrunk(s[:, :1], w[:, :1], self.prior())  # (B, 1, H, T)
        rate = _shrunk(s[:, 1:], w[:, 1:], overall)  # (B, K, H, T)
        return rate.reshape(len(keys), self.columns).astype(np.float32)

    def table(self, time_s: float) -> Table | None:
        """What ``read`` says of every slot at one time, ((K + 1) * slots, H * T); None if that would be too large."""
        if not self.columns or self.s.size * 4 > TABLE_BYTES:
            return None
        w, s = self._decayed(np.zeros(1, np.int64), np.array([time_s]))
        overall = _shrunk(s, w, self.prior())  # (1, H, T)
        table = np.empty((len(self.w), overall.size), np.float32)
        table[:] = _shrunk(np.zeros_like(s), np.zeros_like(w), overall).reshape(1, -1)
        used = np.flatnonzero(self.last_s > NEVER_S)
        w, s = self._decayed(used, np.array([time_s]))
        table[used] = _shrunk(s, w, overall).reshape(len(used), overall.size)
        return table

    def look_up(self, table: Table, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rates of keys (B, K) in a ``table``: (B, R)."""
        found: NDArray[np.float32] = table[keys + self._offsets].reshape(len(keys), self.columns)
        return found

    def _decayed(self, rows: NDArray[np.int64], times_s: Floats) -> tuple[Floats, Floats]:
        """w and s of rows as they stand at times_s, which has their shape or spreads to it."""
        decay = np.exp2(-np.maximum(times_s - self.last_s[rows], 0.0)[..., None] / self.half_lives_s)
        return self.w[rows] * decay, self.s[rows] * decay[..., None]

    def _rows(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([np.zeros((len(keys), 1), dtype=np.int64), keys + self._offsets], axis=1)

    def state(self) -> Arrays:
        """Only the slots ever touched."""
        used = np.flatnonzero(self.last_s > NEVER_S)
        return {
            "used": used.astype(np.int32),
            "w": self.w[used],
            "s": self.s[used],
            "last_s": self.last_s[used],
            "sum": self.totals[:-1].copy(),
            "count": self.totals[-1:].copy(),
        }

    def merged(self, fork: Fork) -> Arrays:
        """States of the same rates: what both have counted, exactly. All decay alike, so counts of one time add up."""
        used = np.unique(np.concatenate([state["used"].astype(np.int64) for state in fork[:3]]))
        base, *parts = (self._loaded(state) for state in fork[:3])
        newest_s = np.maximum.reduce([base.last_s, *(part.last_s for part in parts)])  # (rows,)
        (w0, s0), *now = (each._decayed(used, newest_s[used]) for each in (base, *parts))
        return {
            "used": used.astype(np.int32),
            "w": added(w0, [w for w, _ in now]),
            "s": added(s0, [s for _, s in now]),
            "last_s": newest_s[used],
            "sum": added(fork.base["sum"], fork.parts("sum")),
            "count": added(fork.base["count"], fork.parts("count")),
        }

    def _loaded(self, state: Arrays) -> "RecentRates":
        found = copy(self)
        found.w, found.s, found.last_s = self.w.copy(), self.s.copy(), self.last_s.copy()
        found.load(state)
        return found

    def load(self, state: Arrays) -> None:
        used = state["used"].astype(np.int64)
        for mine, name, blank in (
            (self.w, "w", 0.0),
            (self.s, "s", 0.0),
            (self.last_s, "last_s", NEVER_S),
        ):
            mine[:] = blank
            mine[used] = state[name].astype(np.float64)
        self.totals = np.concatenate([state["sum"], state["count"]]).astype(np.float64)


def _shrunk(s: Floats, w: Floats, parent: Floats) -> Floats:
    shrunk: Floats = (s + PSEUDO * parent) / (w[..., None] + PSEUDO)
    return shrunk
