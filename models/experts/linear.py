"""Softmax or linear regression by plain stochastic gradient, at several rates: the members that follow fastest.

D columns   K outputs   R rates
weights (R, D + 1, K), the last row the bias
"""

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64
from models.experts.scores import HEAVIEST, slope_of, squash
from models.experts.window import Rows, Window
from models.snapshot import Arrays

RATES = (0.005, 0.02, 0.1, 0.5)
"""How much of its error a model mends on the row it erred on, were all columns at one deviation."""


@compiled
def answer(row: F32, weights: F32, out: F32) -> None:
    """Probabilities, or the value: out (K,), of a row (D,)."""
    columns, classes = len(row), weights.shape[1]
    out[:] = weights[columns]
    for d in range(columns):
        v = row[d]
        if v != 0.0:
            for k in range(classes):
                out[k] += v * weights[d, k]
    squash(out)


@compiled
def predict(z: F32, centre: F64, scale: F64, weights: F32, out: F64) -> None:
    """Answers for rows z (B, D): out (R, B, K)."""
    said = np.empty(weights.shape[2], np.float32)
    for r in range(len(weights)):
        for b in range(len(z)):
            answer(z[b], weights[r], said)
            out[r, b] = centre[b] + scale[b] * said


@compiled
def learn(z: F32, y: F32, w: F32, centre: F64, scale: F64, rates: F32, weights: F32, out: F64) -> None:
    """Row by row: answer into out (R, B, K), then one step on the row."""
    columns, classes = z.shape[1], weights.shape[2]
    said, slope = np.empty(classes, np.float32), np.empty(classes, np.float32)
    for r in range(len(weights)):
        for b in range(len(z)):
            answer(z[b], weights[r], said)
            out[r, b] = centre[b] + scale[b] * said
            slope_of(said, (y[b] - centre[b]) / scale[b], slope)
            size = -rates[r] * min(w[b], HEAVIEST) / (1.0 + columns)
            for d in range(columns):
                v = np.float32(size * z[b, d])
                if v != 0.0:
                    for k in range(classes):
                        weights[r, d, k] += v * slope[k]
            for k in range(classes):
                weights[r, columns, k] += np.float32(size * slope[k])


class Linear:
    """As many members as rates.

    Args:
        of_change: learn how a value differs from the one before it, not the value.
    """

    def __init__(self, rates: tuple[float, ...], *, columns: int, classes: int, of_change: bool = False) -> None:
        self.names = tuple(f"{'change' if of_change else 'linear'}_{rate:g}" for rate in rates)
        self._of_change = of_change
        self._rates = np.array(rates, np.float32)
        self._weights = np.zeros((len(rates), columns + 1, classes), np.float32)

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        predict(rows.z, *self._units(rows), self._weights, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        learn(rows.z, rows.y, rows.w, *self._units(rows), self._rates, self._weights, out)

    def _units(self, rows: Rows) -> tuple[F64, F64]:
        return (rows.last, rows.change) if self._of_change else (rows.centre, rows.scale)

    def vectors(self) -> tuple[F32, ...]:
        return (self._weights,)

    def grow(self, columns: int, classes: int, codes: int) -> None:
        old = self._weights
        self._weights = np.zeros((len(old), columns + 1, classes), np.float32)
        self._weights[:, : old.shape[1] - 1, : old.shape[2]] = old[:, :-1]
        self._weights[:, -1, : old.shape[2]] = old[:, -1]

    def state(self) -> Arrays:
        return {"weights": self._weights.copy()}

    def load(self, state: Arrays) -> None:
        self._weights = state["weights"].astype(np.float32)
