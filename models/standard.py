"""Standardising for those who learn: rows -> [one compiled pass] -> statistics, z.

What ``Scaler.observe`` and ``FeatureEncoder.standardise`` do in a dozen passes of numpy, and equal to the bit: sums are
in the order of the rows there, too (but for a single column, which numpy sums in pairs). Servers, which load no
compiler, use those.

    B rows   N numeric features   D = N + R columns
"""

import math

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.features import FeatureEncoder
from models.scaler import CLIP, RESOLUTION, TINIEST, TRUSTED, WINSOR, Scaler

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


def observe(scaler: Scaler, x: Floats) -> None:
    """Count rows x (B, D) in, as ``Scaler.observe`` does."""
    if (scaler.n < TRUSTED).any():
        scaler.observe(x)
        return
    n, mean, m2 = np.zeros(x.shape[1], np.int64), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    low, high = np.empty(x.shape[1]), np.empty(x.shape[1])
    _sums(x, scaler.n, scaler.mean, scaler.m2, low, high, n, mean, m2)
    scaler.add(n, mean, m2)


def standardise(encoder: FeatureEncoder, dense: Floats) -> Floats:
    """z of rows (B, D), then which of the N features are missing: (B, D + N); as ``FeatureEncoder.standardise``."""
    scaler, missing = encoder.scaler, len(encoder.numeric_names)
    found = np.empty((len(dense), dense.shape[1] + missing), np.float32)
    mean, std = np.empty(dense.shape[1], np.float32), np.empty(dense.shape[1], np.float32)
    _scale(np.ascontiguousarray(dense), scaler.n, scaler.mean, scaler.m2, mean, std, missing, found)
    return found


@compiled_exactly
def _std(n: float, mean: float, m2: float) -> float:
    found = math.sqrt(m2 / max(n, 1.0))
    return found if found > max(RESOLUTION * abs(mean), TINIEST) else 1.0


@compiled_exactly
def _sums(
    x: Floats, n_before: Doubles, mean_before: Doubles, m2_before: Doubles, low: Doubles, high: Doubles,
    n: Counts, mean: Doubles, m2: Doubles,
) -> None:  # fmt: skip
    """How many there are of each column, the mean of these as cut at the limits, and their squares around it."""
    columns = x.shape[1]
    for d in range(columns):
        reach = WINSOR * _std(n_before[d], mean_before[d], m2_before[d])
        low[d], high[d] = mean_before[d] - reach, mean_before[d] + reach
    for b in range(len(x)):
        for d in range(columns):
            value = np.float64(x[b, d])
            there = value == value
            n[d] += there
            mean[d] += min(max(value, low[d]), high[d]) if there else 0.0
    for d in range(columns):
        mean[d] /= max(n[d], 1)
    for b in range(len(x)):
        for d in range(columns):
            value = np.float64(x[b, d])
            off = min(max(value, low[d]), high[d]) - mean[d] if value == value else 0.0
            m2[d] += off * off


@compiled_exactly
def _scale(
    x: Floats, n: Doubles, mean: Doubles, m2: Doubles, mean32: Floats, std32: Floats, missing: int, found: Floats
) -> None:
    columns = x.shape[1]
    for d in range(columns):
        mean32[d], std32[d] = mean[d], _std(n[d], mean[d], m2[d])
    for b in range(len(x)):
        for d in range(columns):
            z = (x[b, d] - mean32[d]) / std32[d]
            found[b, d] = min(max(z, np.float32(-CLIP)), np.float32(CLIP)) if z == z else np.float32(0.0)
        for d in range(missing):
            found[b, columns + d] = x[b, d] != x[b, d]
