"""What the labels alone say: how often each comes of late, and what follows the last one.

K classes   S paces of forgetting
rates (S, K)     decayed weight of each class; for regression the mean of late
follows (K, K)   decayed weight of each class (second) after each (first)
last (1,)        the label learned last; -1 before the first class
moments (5,)     of values: weight, mean and summed squared deviation (Welford 1962); decayed weight and
                 sum of the squared changes from value to value
trend (4,)       of values: how much of each of the last two changes is repeated, and those changes
units (4,)       of values: mean, deviation; last value, deviation of the changes (0, 1, 0, 1 for classes)
"""

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64, widened
from models.snapshot import Arrays

KEEPS = (0.5 ** (1 / 10_000), 0.5 ** (1 / 300), 0.5 ** (1 / 20))
"""What is kept at every label: a half-life in labels each."""
FOLLOWS_KEEP = 0.5 ** (1 / 1000)
CHANGE_KEEP = 0.5 ** (1 / 200)
TREND_STEP = 0.005
BELIEF = 1.0
"""Labels' worth of belief in the slower rate."""
LATE = 1
"""The pace whose rates the other members shrink to."""
WINSOR = 10.0
"""Deviations beyond which a value no longer moves the moments, after ``TRUSTED`` values."""
TRUSTED = 100


@compiled
def answer(rates: F64, follows: F64, last: F64, trend: F64, out: F64) -> None:
    """Rates, then what follows the last label; of values, then the trend too: out (S + 1 or S + 2, K)."""
    paces, classes = rates.shape
    if classes == 1:
        out[:paces] = rates
        out[paces, 0] = last[0]
        out[paces + 1, 0] = last[0] + trend[0] * trend[2] + trend[1] * trend[3]
        return
    for s in range(paces):
        total = 0.0
        for k in range(classes):
            total += rates[s, k]
        for k in range(classes):
            parent = 1.0 / classes if s == 0 else out[s - 1, k]
            out[s, k] = (rates[s, k] + BELIEF * parent) / (total + BELIEF)
    at = int(last[0])
    total = 0.0
    if at >= 0:
        for k in range(classes):
            total += follows[at, k]
    for k in range(classes):
        n = follows[at, k] if at >= 0 else 0.0
        out[paces, k] = (n + BELIEF * out[0, k]) / (total + BELIEF)


@compiled
def count_class(k: int, w: float, keeps: F64, rates: F64, follows: F64, last: F64) -> None:
    for s in range(len(rates)):
        rates[s] *= keeps[s]
        rates[s, k] += w
    before = int(last[0])
    if before >= 0:
        follows[before] *= FOLLOWS_KEEP
        follows[before, k] += w
    last[0] = k


@compiled
def count_value(y: float, w: float, keeps: F64, rates: F64, last: F64, trend: F64, moments: F64) -> None:
    if moments[0] > TRUSTED:
        reach = WINSOR * np.sqrt(moments[2] / moments[0]) + 1e-30
        y = min(max(y, moments[1] - reach), moments[1] + reach)
    if moments[0] > 0.0:
        change = y - last[0]
        moments[3] = CHANGE_KEEP * moments[3] + w
        moments[4] = CHANGE_KEEP * moments[4] + w * change * change
        unit = spread(moments[4] / moments[3], moments[1])
        off = (change - trend[0] * trend[2] - trend[1] * trend[3]) / unit
        for i in range(2):
            trend[i] += TREND_STEP * max(-1.0, min(1.0, off)) * max(-3.0, min(3.0, trend[2 + i] / unit))
        trend[2], trend[3] = change, trend[2]
    moments[0] += w
    off = y - moments[1]
    moments[1] += w / moments[0] * off
    moments[2] += w * off * (y - moments[1])
    for s in range(len(rates)):
        rates[s, 0] += max(w / moments[0], 1.0 - keeps[s]) * (y - rates[s, 0])
    last[0] = y


@compiled
def measure(moments: F64, last: F64, units: F64) -> None:
    """What values are counted in, from those so far."""
    units[0], units[1], units[2], units[3] = 0.0, 1.0, 0.0, 1.0
    if moments[0] > 0.0:
        units[0], units[2] = moments[1], last[0]
        units[1] = spread(moments[2] / moments[0], moments[1])
    if moments[3] > 0.0:
        units[3] = spread(moments[4] / moments[3], moments[1])


@compiled
def spread(variance: float, mean: float) -> float:
    """The deviation, 1 where there is none but rounding."""
    deviation = np.sqrt(variance)
    return float(deviation) if deviation > 1e-6 * abs(mean) + 1e-30 else 1.0


@compiled
def learn(
    y: F32, w: F32, keeps: F64, rates: F64, follows: F64, last: F64, trend: F64, moments: F64, units: F64, out: F64
) -> None:
    """Label by label: answer into out (N, B, K), say units (4, B), then count it."""
    paces, classes = rates.shape
    said, now = np.empty((paces + 2, classes)), np.empty(len(units))
    for b in range(len(y)):
        answer(rates, follows, last, trend, said)
        out[:, b] = said[: len(out)]
        if classes == 1:
            measure(moments, last, now)
            units[:, b] = now
            count_value(y[b], w[b], keeps, rates, last, trend, moments)
        else:
            count_class(int(y[b]), w[b], keeps, rates, follows, last)


class Recent:
    """Members that look at no feature; and what is typical of late, for those that do."""

    def __init__(self, classes: int) -> None:
        names = ("rate_10000", "rate_300", "rate_20", "follows", "trend")
        self.names = names if classes == 1 else names[:-1]
        self._keeps = np.array(KEEPS)
        self._rates = np.zeros((len(KEEPS), classes))
        self._follows = np.zeros((classes, classes))
        self._last = np.full(1, -1.0 if classes > 1 else 0.0)
        self._trend, self._moments = np.zeros(4), np.zeros(5)

    def predict(self, rows: int, out: F64) -> F64:
        """Answers into out (N, B, K), the same for all; returns the units (4, B)."""
        said, units = np.empty((len(KEEPS) + 2, out.shape[2])), _no_units(1)
        answer(self._rates, self._follows, self._last, self._trend, said)
        out[:] = said[: len(out), None]
        if out.shape[2] == 1:
            measure(self._moments, self._last, units[:, 0])
        return np.repeat(units, rows, axis=1)

    def learn(self, y: F32, w: F32, out: F64) -> F64:
        """As ``predict``, label by label, each then counted."""
        units = _no_units(len(y))
        learn(y, w, self._keeps, self._rates, self._follows, self._last, self._trend, self._moments, units, out)
        return units

    def grow(self, classes: int) -> None:
        self._rates = widened(self._rates, (len(KEEPS), classes))
        self._follows = widened(self._follows, (classes, classes))

    def state(self) -> Arrays:
        return {
            "rates": self._rates.copy(),
            "follows": self._follows.copy(),
            "last": self._last.copy(),
            "trend": self._trend.copy(),
            "moments": self._moments.copy(),
        }

    def load(self, state: Arrays) -> None:
        self._rates, self._follows, self._last, self._trend, self._moments = (
            state[name].astype(np.float64) for name in ("rates", "follows", "last", "trend", "moments")
        )


def _no_units(rows: int) -> F64:
    units = np.zeros((4, rows))
    units[1::2] = 1.0
    return units


def prior_of(out: F64) -> F64:
    """What members shrink to (B, K), of the answers (N, B, K) of ``Recent``."""
    return np.ascontiguousarray(out[LATE])
