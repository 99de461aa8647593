"""Linear discriminants: classes of one shape around means that drift; for values, recursive least squares.

    D columns (and a bias for values)   K outputs
    inverse (D, D)   of the summed squared deviations of all rows from their class's mean, one to begin with
    mean, pull (D, K)   decayed mean of each class, and inverse @ mean
    count (K,)   decayed rows of each class          seen (1,)   all rows, not decayed
    A class's logit at x:  seen * (pull' x - pull' mean / 2) + log count      (Fisher 1936)

The inverse follows row by row (Sherman & Morrison 1950): D * D steps, whence the limit on columns. It forgets
nothing: a column that rests would swell it without bound. Only the means do.
"""

import math

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64
from models.experts.scores import HEAVIEST
from models.experts.window import Rows, Window
from models.snapshot import Arrays

WIDEST = 128
"""Columns beyond which the member says what is typical of late."""
KEEP = 0.5 ** (1 / 500)
"""What a class's mean keeps at each of the class's rows."""
RIDGE = 1.0
"""Rows' worth of belief that columns are independent, with deviation 1."""


@compiled
def classes_at(row: F32, count: F64, mean: F64, pull: F64, seen: float, out: F64) -> None:
    """Shares of the classes at a row (D,): out (K,)."""
    classes = len(count)
    total = count.sum() + classes
    for k in range(classes):
        out[k] = 0.0
    for d in range(len(row)):
        v = row[d]
        for k in range(classes):
            out[k] += pull[d, k] * (v - 0.5 * mean[d, k])
    for k in range(classes):
        out[k] = seen * out[k] + math.log((count[k] + 1.0) / total)
    out[:] = np.exp(out - out.max())
    out /= out.sum()


@compiled
def predict_classes(z: F32, count: F64, mean: F64, pull: F64, seen: F64, out: F64) -> None:
    """Shares of the classes at rows z (B, D): out (1, B, K)."""
    for b in range(len(z)):
        classes_at(z[b], count, mean, pull, seen[0], out[0, b])


@compiled
def times(matrix: F64, vector: F64, out: F64) -> None:
    """out (D,) = symmetric matrix (D, D) @ vector (D,)."""
    out[:] = 0.0
    for d in range(len(vector)):
        add(matrix[d], vector[d], out)


@compiled
def add(row: F64, v: float, out: F64) -> None:
    """out += v * row; apart, so that it is vectorised."""
    for i in range(len(row)):
        out[i] += v * row[i]


@compiled
def deflate(inverse: F64, gone: F64, shrink: float) -> None:
    """inverse -= shrink * gone gone'."""
    for d in range(len(gone)):
        add(gone, -shrink * gone[d], inverse[d])


@compiled
def learn_classes(z: F32, y: F32, w: F32, count: F64, mean: F64, pull: F64, inverse: F64, seen: F64, out: F64) -> None:
    """Row by row: answer into out (1, B, K), then move the class's mean and the inverse."""
    columns, classes = mean.shape
    off, gone, column = np.empty(columns), np.empty(columns), np.empty(columns)
    for b in range(len(z)):
        classes_at(z[b], count, mean, pull, seen[0], out[0, b])
        true, weight = int(y[b]), min(w[b], HEAVIEST)
        for d in range(columns):
            off[d] = z[b, d] - mean[d, true]
        times(inverse, off, gone)
        far = 0.0
        for d in range(columns):
            far += off[d] * gone[d]
        shrink = weight / (1.0 + weight * far)
        for k in range(classes):
            along = 0.0
            for d in range(columns):
                along += gone[d] * mean[d, k]
            for d in range(columns):
                pull[d, k] -= shrink * along * gone[d]
        deflate(inverse, gone, shrink)
        count[true] = KEEP * count[true] + weight
        for d in range(columns):
            mean[d, true] += weight / count[true] * off[d]
            column[d] = mean[d, true]
        times(inverse, column, gone)
        pull[:, true] = gone
        seen[0] += weight


class Discriminant:
    """One member, of classes."""

    names: tuple[str, ...] = ("discriminant",)

    def __init__(self, columns: int, classes: int) -> None:
        self._count, self._seen = np.zeros(classes), np.full(1, RIDGE)
        self._mean, self._pull = np.zeros((columns, classes)), np.zeros((columns, classes))
        self._inverse = np.eye(columns) / RIDGE if columns <= WIDEST else np.zeros((columns, 0))

    @property
    def _wide(self) -> bool:
        return len(self._inverse) > WIDEST

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        if self._wide:
            out[0] = rows.prior
            return
        predict_classes(rows.z, self._count, self._mean, self._pull, self._seen, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        if self._wide:
            out[0] = rows.prior
            return
        learn_classes(
            rows.z, rows.y, rows.w, self._count, self._mean, self._pull, self._inverse, self._seen, out
        )  # fmt: skip

    def vectors(self) -> tuple[F32, ...]:
        return ()

    def grow(self, columns: int, classes: int, codes: int) -> None:
        was = len(self._inverse)
        more = columns - was
        self._mean = np.pad(self._mean, ((0, more), (0, classes - self._mean.shape[1])))
        self._pull = np.pad(self._pull, ((0, more), (0, classes - self._pull.shape[1])))
        self._count = np.pad(self._count, (0, classes - len(self._count)))
        if columns > WIDEST:
            self._inverse = np.zeros((columns, 0))
            return
        self._inverse = np.pad(self._inverse, (0, more))
        rest = np.arange(was, columns)
        self._inverse[rest, rest] = 1.0 / RIDGE

    def state(self) -> Arrays:
        return {
            "count": self._count.copy(),
            "seen": self._seen.copy(),
            "mean": self._mean.copy(),
            "pull": self._pull.copy(),
            "inverse": self._inverse.copy(),
        }

    def load(self, state: Arrays) -> None:
        self._count, self._seen, self._mean, self._pull, self._inverse = (
            state[name].astype(np.float64) for name in ("count", "seen", "mean", "pull", "inverse")
        )
