"""What a histogram of probabilities says of their ranking: bins -> [ROC-AUC, PR-AUC]; and bins of confidence.

Two rows in one bin count as a tie. Bins are 1.2e-3 wide at 0.5 where there are 2,048 of them, and ever finer
toward 0 and 1, so that rare classes are resolved.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIDENCE_BINS = 15
"""Of the calibration error; as many as Guo et al. 2017 took."""


def spread(p: Floats) -> Floats:
    """[0, 1] -> [0, 1], rising, 0.5 stays: fine steps near 0 and 1.

    Roots are rounded alike on every machine (IEEE 754), logarithms are not.
    """
    return (1.0 + np.sqrt(np.sqrt(p)) - np.sqrt(np.sqrt(1.0 - p))) / 2.0


def bin_of(p: Floats, bins: int | Ints) -> Ints:
    """Where each probability falls among so many bins, evenly spaced in ``spread``."""
    return np.minimum((spread(p) * bins).astype(np.int64), bins - 1)


def roc_auc(table: Floats) -> float:
    """Chance that a positive row scores above a negative one; equal scores count half.

    Args:
        table: (bins, 2) weight of the negative and of the positive rows per bin, scores rising.

    Returns:
        NaN if the rows are of one class only.
    """
    negative, positive = table[:, 0], table[:, 1]
    below = np.cumsum(negative) - negative / 2
    return ratio(float(positive @ below), float(positive.sum() * negative.sum()))


def average_precision(table: Floats) -> float:
    """Area under the precision-recall curve, as steps: sum over thresholds of (recall gained) * precision.

    The curve is not interpolated, which would be too hopeful (Davis and Goadrich 2006). A bin is one threshold, so
    what it holds beside its positive rows counts against it. NaN without positive rows.

    Args:
        table: (bins, 2) as for ``roc_auc``.
    """
    found = np.cumsum(table[::-1], axis=0)  # (bins, 2) weight at or above each threshold, from the highest
    gained, above = table[::-1, 1], found.sum(axis=1)
    precision = np.divide(found[:, 1], above, out=np.zeros_like(above), where=above > 0)
    return ratio(float(gained @ precision), float(gained.sum()))


def confidence_bin(p: Floats) -> Ints:
    """Which of the CONFIDENCE_BINS, of equal width, a probability falls in."""
    return np.minimum((p * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)


def calibration_error(gaps: Floats, weight: float) -> float:
    """Expected calibration error: the mean over rows of how far their bin's confidence is from what came true.

    sum over bins |sum of w (confidence - outcome)| / sum of w  (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", Eq. 3, multiplied out).

    Args:
        gaps: (CONFIDENCE_BINS,) per bin, the sum of w (confidence - outcome).
        weight: of all rows.
    """
    return ratio(float(np.abs(gaps).sum()), weight)


def ratio(part: float, whole: float) -> float:
    """NaN where the whole is 0."""
    return float(part / whole) if whole else float("nan")
