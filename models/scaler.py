"""Standardisation that never stops: columns -> [mean and deviation so far] -> z.

n, mean, m2   count, mean and summed squared deviation per column (D,)
Batches merge by Chan, Golub & LeVeque (1979), so the statistics add up over workers too.
"""

import numpy as np
from numpy.typing import NDArray

from models.snapshot import Arrays

CLIP = 5.0
"""Deviations beyond which a network no longer tells apart."""
WINSOR = 10.0
"""Deviations beyond which a value no longer moves the statistics; one absurd record cannot spoil them."""
TRUSTED = 100
"""Values needed before WINSOR holds."""


class Scaler:
    """Running standardisation of D columns; NaN is missing and becomes 0."""

    def __init__(self, columns: int) -> None:
        self.n = np.zeros(columns)
        self.mean = np.zeros(columns)
        self.m2 = np.zeros(columns)

    @property
    def std(self) -> NDArray[np.float64]:
        """(D,); 1 where there is no spread yet."""
        variance = self.m2 / np.maximum(self.n, 1)
        return np.where(variance > 1e-12, np.sqrt(variance), 1.0)

    def observe(self, x: NDArray[np.float32]) -> None:
        """Count rows x (B, D) in."""
        values = x.astype(np.float64)
        reach = np.where(self.n >= TRUSTED, WINSOR * self.std, np.inf)
        values = np.clip(values, self.mean - reach, self.mean + reach)
        there = ~np.isnan(values)
        n = there.sum(axis=0)
        if not n.any():
            return
        values = np.where(there, values, 0.0)
        mean = values.sum(axis=0) / np.maximum(n, 1)
        m2 = (np.where(there, values - mean, 0.0) ** 2).sum(axis=0)
        total = np.maximum(self.n + n, 1)
        shift = np.where(n > 0, mean - self.mean, 0.0)
        self.m2 += m2 + shift**2 * self.n * n / total
        self.mean += shift * n / total
        self.n += n

    def scale(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """z (B, D), clipped; 0 where missing."""
        with np.errstate(over="ignore"):  # what overflows is clipped
            z = (x - self.mean.astype(np.float32)) / self.std.astype(np.float32)
        return np.nan_to_num(np.clip(z, -CLIP, CLIP), nan=0.0).astype(np.float32, copy=False)

    def state(self) -> Arrays:
        return {"n": self.n.copy(), "mean": self.mean.copy(), "m2": self.m2.copy()}

    def load(self, state: Arrays) -> None:
        self.n, self.mean, self.m2 = (state[k].astype(np.float64) for k in ("n", "mean", "m2"))
