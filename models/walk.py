"""Recent rates, event by event: rows and labels in the order of the log -> [walk] -> rates of the rows, and new counts.

    B events, each with features, a label that completes a pair, or both   n rows   P labels
    shapes and formulas as in ``models.rates``

Whatever the size of a batch, a row's rates know every label that came before it and none that came after.
Only those who learn need this; servers read rates without it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled, compiled_exactly
from models.rates import PSEUDO, RecentRates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LN2 = math.log(2.0)
KNOWN = 1024
"""Time spans whose decay is remembered during a walk; a power of 2."""


def walk(
    rates: RecentRates,
    rows: Ints,
    keys: Ints,
    times_s: Floats,
    learned_at: Ints,
    learned_keys: Ints,
    targets: Floats,
    label_times_s: Floats,
    weights: Floats,
) -> tuple[NDArray[np.float32], Floats]:
    """Read and count, in order.

    Args:
        rates: change by it.
        rows: (B,) which of the n rows comes at each event; -1: none.
        keys: (n, K) slots of the rows.
        times_s: (n,) when they are read.
        learned_at: (P,) at which event each label counts, after the row's own reading; rising.
        learned_keys: (P, K)
        targets: (P, T)
        label_times_s: (P,) the labels' own times.
        weights: (P,) what each counts for.

    Returns:
        Rates (n, R), and the labels' mean over all time as each row found it (n, T).
    """
    found = np.empty((len(keys), rates.columns), np.float32)
    priors = np.empty((len(keys), rates.tracked))
    after_s, left = np.full(KNOWN, np.nan), np.empty((KNOWN, len(rates.half_lives_s)))
    _walk(
        rates.w, rates.s, rates.last_s, rates.totals, rates.half_lives_s, after_s, left, rates.blank, rates.slots,
        rows, keys, times_s, learned_at, learned_keys, targets, label_times_s, weights, found, priors,
    )  # fmt: skip
    return found, priors


def learn(
    rates: RecentRates, keys: Ints, targets: Floats, times_s: Floats, weights: NDArray[np.floating] | None = None
) -> None:
    """Count labels alone: keys (B, K), targets (B, T), the labels' own times (B,), what each counts for (B,)."""
    b = len(keys)
    each = np.ones(b) if weights is None else weights.astype(np.float64)
    none = np.full(b, -1, np.int64)
    walk(rates, none, keys[:0], times_s[:0], np.arange(b), keys, targets, times_s, each)


@compiled
def _walk(
    w: Floats, s: Floats, last_s: Floats, totals: Floats, half_lives_s: Floats, after_s: Floats, left: Floats,
    blank: float, slots: int, rows: Ints, keys: Ints, times_s: Floats, learned_at: Ints, learned_keys: Ints,
    targets: Floats, label_times_s: Floats, weights: Floats, found: NDArray[np.float32], priors: Floats,
) -> None:  # fmt: skip
    tracked, scales, p = targets.shape[1], len(half_lives_s), 0
    overall = np.empty((scales, tracked))
    for b in range(len(rows)):
        i = rows[b]
        if i >= 0:
            for t in range(tracked):
                priors[i, t] = (totals[t] + blank) / (totals[tracked] + 1.0)
            if scales:
                _read(w, s, last_s, half_lives_s, after_s, left, slots, keys, times_s, i, priors, overall, found)
        while p < len(learned_at) and learned_at[p] == b:
            for t in range(tracked):
                totals[t] += targets[p, t] * weights[p]
            totals[tracked] += weights[p]
            if scales:
                time_s, weight = label_times_s[p], weights[p]
                _count(w, s, last_s, half_lives_s, after_s, left, 0, targets, p, time_s, weight)
                for k in range(learned_keys.shape[1]):
                    slot = (k + 1) * slots + learned_keys[p, k]
                    _count(w, s, last_s, half_lives_s, after_s, left, slot, targets, p, time_s, weight)
            p += 1


@compiled_exactly
def _decayed(half_lives_s: Floats, after_s: Floats, left: Floats, seconds: float) -> np.int64:
    """Which row of ``left`` (KNOWN, H) says what is left after so many seconds. Times are often whole minutes."""
    at = (np.int64(seconds) * 0x9E3779B1 >> 16) & (KNOWN - 1)
    if after_s[at] != seconds:
        after_s[at] = seconds
        for h in range(len(half_lives_s)):
            left[at, h] = math.exp(-LN2 * seconds / half_lives_s[h])
    return at


@compiled_exactly
def _read(
    w: Floats, s: Floats, last_s: Floats, half_lives_s: Floats, after_s: Floats, left: Floats, slots: int,
    keys: Ints, times_s: Floats, i: int, priors: Floats, overall: Floats, found: NDArray[np.float32],
) -> None:  # fmt: skip
    tracked, scales = priors.shape[1], len(half_lives_s)
    at = _decayed(half_lives_s, after_s, left, max(times_s[i] - last_s[0], 0.0))
    for h in range(scales):
        for t in range(tracked):
            overall[h, t] = (s[0, h, t] * left[at, h] + PSEUDO * priors[i, t]) / (w[0, h] * left[at, h] + PSEUDO)
    c = 0
    for k in range(keys.shape[1]):
        slot = (k + 1) * slots + keys[i, k]
        at = _decayed(half_lives_s, after_s, left, max(times_s[i] - last_s[slot], 0.0))
        for h in range(scales):
            decay = left[at, h]
            for t in range(tracked):
                found[i, c] = (s[slot, h, t] * decay + PSEUDO * overall[h, t]) / (w[slot, h] * decay + PSEUDO)
                c += 1


@compiled_exactly
def _count(
    w: Floats, s: Floats, last_s: Floats, half_lives_s: Floats, after_s: Floats, left: Floats, slot: int,
    targets: Floats, p: int, time_s: float, weight: float,
) -> None:  # fmt: skip
    """A label of the past counts as it would by now."""
    now_s = max(last_s[slot], time_s)
    at = _decayed(half_lives_s, after_s, left, now_s - last_s[slot])
    for h in range(len(half_lives_s)):
        w[slot, h] *= left[at, h]
        for t in range(targets.shape[1]):
            s[slot, h, t] *= left[at, h]
    last_s[slot] = now_s
    old = time_s < now_s
    at = _decayed(half_lives_s, after_s, left, now_s - time_s) if old else at
    for h in range(len(half_lives_s)):
        fresh = weight * left[at, h] if old else weight
        w[slot, h] += fresh
        for t in range(targets.shape[1]):
            s[slot, h, t] += fresh * targets[p, t]
