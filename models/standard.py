"""Standardising for those who learn: rows -> [one compiled pass] -> statistics, z.

What ``Scaler.observe`` and ``FeatureEncoder.standardise`` do in a dozen passes of numpy, and equal to the bit: sums are
in the order of the rows there, too (but for a single column, which numpy sums in pairs). Servers, which load no
compiler, use those.

    B rows   N numeric features   D = N + R columns
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.features import FeatureEncoder
from models.scaler import CLIP, TRUSTED, WINSOR, Scaler

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


def observe(scaler: Scaler, x: Floats) -> None:
    """Count rows x (B, D) in, as ``Scaler.observe`` does."""
    if (scaler.n < TRUSTED).any():
        scaler.observe(x)
        return
    n, mean, m2 = np.zeros(x.shape[1], np.int64), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    reach = WINSOR * scaler.std
    _sums(x, scaler.mean - reach, scaler.mean + reach, n, mean, m2)
    scaler.add(n, mean, m2)


def standardise(encoder: FeatureEncoder, dense: Floats) -> Floats:
    """z of rows (B, D), then which of the N features are missing: (B, D + N); as ``FeatureEncoder.standardise``."""
    scaler, missing = encoder.scaler, len(encoder.numeric_names)
    found = np.empty((len(dense), dense.shape[1] + missing), np.float32)
    _scale(dense, scaler.mean.astype(np.float32), scaler.std.astype(np.float32), missing, found)
    return found


@compiled_exactly
def _sums(x: Floats, low: Doubles, high: Doubles, n: Counts, mean: Doubles, m2: Doubles) -> None:
    """How many there are of each column, the mean of these as cut at the limits, and their squares around it."""
    columns = x.shape[1]
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
def _scale(x: Floats, mean: Floats, std: Floats, missing: int, found: Floats) -> None:
    columns = x.shape[1]
    for b in range(len(x)):
        for d in range(columns):
            z = (x[b, d] - mean[d]) / std[d]
            found[b, d] = min(max(z, np.float32(-CLIP)), np.float32(CLIP)) if z == z else np.float32(0.0)
        for d in range(missing):
            found[b, columns + d] = x[b, d] != x[b, d]
