"""Standardisation that never stops: columns -> [mean and deviation so far] -> z.

n, mean, m2   count, mean and summed squared deviation per column (D,)
Batches merge by Chan, Golub & LeVeque (1979), so the statistics add up over workers too.
"""

import numpy as np
from numpy.typing import NDArray

from models.merging import Fork, quotient
from models.snapshot import Arrays

Columns = NDArray[np.float64]

CLIP = 5.0
"""Deviations beyond which a network no longer tells apart."""
WINSOR = 10.0
"""Deviations beyond which a value no longer moves the statistics; one absurd record cannot spoil them."""
TRUSTED = 100
"""Values of a column after which WINSOR counts from its own mean and deviation so far."""
FEWEST = 20
"""Values in a batch from which it counts, until then, from the batch's median and median absolute deviation
(MAD). A smaller batch, or one of which more than half are equal, shows no spread to count in: what is absurd
there, in a column's first values, is taken as it is and spoils it until the rest outweighs it."""
DEVIATIONS_PER_MAD = 1.4826
"""Of a normal distribution (Rousseeuw & Croux 1993)."""
RESOLUTION = 4 * float(np.finfo(np.float32).eps)
"""Of the mean: a deviation below it is rounding, not spread."""
TINIEST = 1e-30
"""The smallest deviation; float32 divides by it and leaves room for what is multiplied to it."""


class Scaler:
    """Running standardisation of D columns; NaN is missing and becomes 0."""

    def __init__(self, columns: int) -> None:
        self.n = np.zeros(columns)
        self.mean = np.zeros(columns)
        self.m2 = np.zeros(columns)

    @property
    def std(self) -> NDArray[np.float64]:
        """(D,); 1 where there is no spread yet."""
        found = np.sqrt(self.m2 / np.maximum(self.n, 1))
        return np.where(found > np.maximum(RESOLUTION * np.abs(self.mean), TINIEST), found, 1.0)

    def observe(self, x: NDArray[np.float32]) -> None:
        """Count rows x (B, D) in, each value cut at WINSOR deviations; which ones, see TRUSTED and FEWEST."""
        values = x.astype(np.float64)
        there = ~np.isnan(values)
        n = there.sum(axis=0)
        if not n.any():
            return
        middle, reach = self._limits(values, n)
        values = np.clip(values, middle - reach, middle + reach)
        values = np.where(there, values, 0.0)
        mean = values.sum(axis=0) / np.maximum(n, 1)
        self.add(n, mean, (np.where(there, values - mean, 0.0) ** 2).sum(axis=0))

    def add(self, n: NDArray[np.int64], mean: Columns, m2: Columns) -> None:
        """Count in what is known of further rows: how many values of each column (D,), their mean and squares."""
        total = np.maximum(self.n + n, 1)
        shift = np.where(n > 0, mean - self.mean, 0.0)
        self.m2 += m2 + shift**2 * self.n * n / total
        self.mean += shift * n / total
        self.n += n

    def _limits(self, values: Columns, n: NDArray[np.int64]) -> tuple[Columns, Columns]:
        """Where values (B, D), n (D,) of them there, are cut: middle (D,) and reach (D,) to both sides."""
        middle, reach = self.mean, WINSOR * self.std
        new = self.n < TRUSTED
        if not new.any():
            return middle, reach
        middle, reach = middle.copy(), np.where(new, np.inf, reach)
        new &= n >= FEWEST
        if new.any():
            middle[new] = _median(values[:, new], n[new])
            mad = _median(np.abs(values[:, new] - middle[new]), n[new])
            reach[new] = np.where(mad > 0, WINSOR * DEVIATIONS_PER_MAD * mad, np.inf)
        return middle, reach

    def scale(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """z (B, D), clipped; 0 where missing."""
        with np.errstate(over="ignore"):  # what overflows is clipped
            z = x - self.mean.astype(np.float32)
            z /= self.std.astype(np.float32)
        np.maximum(z, -CLIP, out=z)
        np.minimum(z, CLIP, out=z)
        np.copyto(z, 0.0, where=np.isnan(z))
        return z

    def grow(self, columns: int) -> None:
        """Room for ``columns`` in all; the new ones have seen nothing yet.

        Raises:
            ValueError: it has more already.
        """
        more = columns - len(self.n)
        if more < 0:
            raise ValueError(f"columns is {columns}, wanted at least the {len(self.n)} there are")
        self.n, self.mean, self.m2 = (np.append(a, np.zeros(more)) for a in (self.n, self.mean, self.m2))

    def state(self) -> Arrays:
        return {"n": self.n.copy(), "mean": self.mean.copy(), "m2": self.m2.copy()}

    def load(self, state: Arrays) -> None:
        self.n, self.mean, self.m2 = (state[k].astype(np.float64) for k in ("n", "mean", "m2"))


def merged(fork: Fork) -> Arrays:
    """What both have counted in, by Chan, Golub & LeVeque (1979): theirs, and what is new in mine."""
    was, theirs, mine = ({k: a[k].astype(np.float64) for k in ("n", "mean", "m2")} for a in fork[:3])
    n = mine["n"] - was["n"]
    shift = quotient((mine["mean"] - was["mean"]) * mine["n"], n)  # of the new values' mean from the base's
    squares = mine["m2"] - was["m2"] - quotient(shift**2 * was["n"] * n, mine["n"])
    total, off = theirs["n"] + n, was["mean"] + shift - theirs["mean"]
    return {
        "n": total,
        "mean": theirs["mean"] + quotient(off * n, total),
        "m2": theirs["m2"] + np.maximum(squares, 0.0) + quotient(off**2 * theirs["n"] * n, total),
    }


def _median(values: Columns, n: NDArray[np.int64]) -> Columns:
    """Of each column (B, D) with n (D,) values that are not NaN; sorted, NaN comes last."""
    rising, columns = np.sort(values, axis=0), np.arange(len(n))
    median: Columns = (rising[(n - 1) // 2, columns] + rising[n // 2, columns]) / 2
    return median
