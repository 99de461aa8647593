"""Gaussian naive Bayes that forgets: row -> [sums per class] -> log-density.

D columns   K classes
count (K,)   sums, squares (D, K): decayed weight, sum and sum of squares of each class's rows
mean, precision (D, K), base (K,): derived of them whenever a class has learned
"""

import math

import numpy as np

from models.compiled import compiled, compiled_exactly
from models.experts.arrays import F32, F64, widened
from models.experts.scores import squash
from models.experts.window import Rows, Window
from models.snapshot import Arrays

FLOOR = 1e-2
"""Smallest variance, of a standardised column."""
KEEP = 0.5 ** (1 / 2000)
"""What a class keeps of its past at each of its rows."""


@compiled_exactly  # as part of ``learn`` it must round as it does alone: what was loaded goes on to the bit
def derive(k: int, count: F64, sums: F64, squares: F64, mean: F64, precision: F64, base: F64) -> None:
    """One class's densities from its sums, shrunk toward one row at 0 with variance 1."""
    n = count[k] + 1.0
    base[k] = 0.0
    for d in range(len(sums)):
        mean[d, k] = sums[d, k] / n
        variance = max((squares[d, k] + 1.0) / n - mean[d, k] * mean[d, k], FLOOR)
        precision[d, k] = 0.5 / variance
        base[k] -= 0.5 * math.log(variance)


@compiled
def answer(row: F32, count: F64, mean: F64, precision: F64, base: F64, out: F64) -> None:
    """Shares of the classes by their densities at a row (D,): out (K,)."""
    classes = len(count)
    for k in range(classes):
        out[k] = math.log(count[k] + 1.0) + base[k]
    for d in range(len(row)):
        v = row[d]
        for k in range(classes):
            off = v - mean[d, k]
            out[k] -= precision[d, k] * off * off
    squash(out)


@compiled
def predict(z: F32, count: F64, mean: F64, precision: F64, base: F64, out: F64) -> None:
    """Answers for rows z (B, D): out (1, B, K)."""
    for b in range(len(z)):
        answer(z[b], count, mean, precision, base, out[0, b])


@compiled
def learn(
    z: F32, y: F32, w: F32, count: F64, sums: F64, squares: F64, mean: F64, precision: F64, base: F64, out: F64
) -> None:
    """Row by row: answer into out (1, B, K), then count the row."""
    for b in range(len(z)):
        answer(z[b], count, mean, precision, base, out[0, b])
        k = int(y[b])
        count[k] = KEEP * count[k] + w[b]
        for d in range(z.shape[1]):
            v = float(z[b, d])
            sums[d, k] = KEEP * sums[d, k] + w[b] * v
            squares[d, k] = KEEP * squares[d, k] + w[b] * v * v
        derive(k, count, sums, squares, mean, precision, base)


class Bayes:
    """One member; of classes only."""

    names: tuple[str, ...] = ("bayes",)

    def __init__(self, columns: int, classes: int) -> None:
        self._count = np.zeros(classes)
        self._sums, self._squares = np.zeros((columns, classes)), np.zeros((columns, classes))
        self._derive()

    def _derive(self) -> None:
        self._mean, self._precision = np.empty_like(self._sums), np.empty_like(self._sums)
        self._base = np.empty_like(self._count)
        for k in range(len(self._count)):
            derive(k, self._count, self._sums, self._squares, self._mean, self._precision, self._base)

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        predict(rows.z, self._count, self._mean, self._precision, self._base, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        learn(
            rows.z, rows.y, rows.w, self._count, self._sums, self._squares,
            self._mean, self._precision, self._base, out,
        )  # fmt: skip

    def vectors(self) -> tuple[F32, ...]:
        return ()

    def grow(self, columns: int, classes: int, codes: int) -> None:
        self._count = widened(self._count, (classes,))
        self._sums = widened(self._sums, (columns, classes))
        self._squares = widened(self._squares, (columns, classes))
        self._derive()

    def state(self) -> Arrays:
        return {"count": self._count.copy(), "sums": self._sums.copy(), "squares": self._squares.copy()}

    def load(self, state: Arrays) -> None:
        self._count, self._sums, self._squares = (
            state[name].astype(np.float64) for name in ("count", "sums", "squares")
        )
        self._derive()
