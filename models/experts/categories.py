"""Categorical codes become columns: how the labels of each code have been going, against all labels.

Q codes of all features   T columns of each feature: class 1, 2, ...; for regression the value
weight (Q,)   sums (Q, T)   decayed at each of the code's own labels
at (C, T)     where in z the columns of each feature stand
"""

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64, I64, widened
from models.snapshot import Arrays

KEEP = 0.5 ** (1 / 1000)
BELIEF = 3.0
"""Labels' worth of belief in what is typical of late."""
MOST = 15
"""Columns of a feature: with more classes, the further ones have none."""
LIVELY = 4.0
"""What a rate's distance from the typical is multiplied by, so that it spreads like other columns."""
REACH = 5.0


def columns_of(classes: int) -> int:
    """T."""
    return max(1, min(classes - 1, MOST))


@compiled
def write(codes: I64, prior: F64, scale: F64, b: int, at: I64, weight: F64, sums: F64, z: F32) -> None:
    """One row's columns into z[b]."""
    classes = prior.shape[1]
    for c in range(codes.shape[1]):
        q = codes[b, c]
        for t in range(at.shape[1]):
            typical = prior[b, 0] if classes == 1 else prior[b, t + 1]
            rate = (sums[q, t] + BELIEF * typical) / (weight[q] + BELIEF)
            off = (rate - typical) / scale[b] if classes == 1 else LIVELY * (rate - typical)
            z[b, at[c, t]] = min(max(off, -REACH), REACH)


@compiled
def predict(codes: I64, prior: F64, scale: F64, at: I64, weight: F64, sums: F64, z: F32) -> None:
    """Columns of rows with codes (B, C) into z (B, D)."""
    for b in range(len(codes)):
        write(codes, prior, scale, b, at, weight, sums, z)


@compiled
def learn(codes: I64, y: F32, w: F32, prior: F64, scale: F64, at: I64, weight: F64, sums: F64, z: F32) -> None:
    """Row by row: columns into z (B, D), then count the row's label to its codes."""
    classes = prior.shape[1]
    for b in range(len(codes)):
        write(codes, prior, scale, b, at, weight, sums, z)
        for c in range(codes.shape[1]):
            q = codes[b, c]
            weight[q] = KEEP * weight[q] + w[b]
            for t in range(at.shape[1]):
                label = y[b] if classes == 1 else (1.0 if int(y[b]) == t + 1 else 0.0)
                sums[q, t] = KEEP * sums[q, t] + w[b] * label


class Categories:
    """The rates of all codes."""

    def __init__(self, codes: int, classes: int) -> None:
        self._weight, self._sums = np.zeros(codes), np.zeros((codes, columns_of(classes)))

    def predict(self, z: F32, codes: I64, prior: F64, scale: F64, at: I64) -> None:
        """The rates of codes (B, C) into z (B, D)."""
        predict(codes, prior, scale, at, self._weight, self._sums, z)

    def learn(self, z: F32, codes: I64, y: F32, w: F32, prior: F64, scale: F64, at: I64) -> None:
        """As ``predict``, label by label, each then counted."""
        learn(codes, y, w, prior, scale, at, self._weight, self._sums, z)

    def grow(self, codes: int, classes: int) -> None:
        self._weight = widened(self._weight, (codes,))
        self._sums = widened(self._sums, (codes, columns_of(classes)))

    def forget(self, codes: I64) -> None:
        self._weight[codes], self._sums[codes] = 0.0, 0.0

    def state(self) -> Arrays:
        return {"weight": self._weight.copy(), "sums": self._sums.copy()}

    def load(self, state: Arrays) -> None:
        self._weight, self._sums = state["weight"].astype(np.float64), state["sums"].astype(np.float64)
