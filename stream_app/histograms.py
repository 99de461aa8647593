"""Probabilities of the positive class are counted in, row by row: rows -> [one compiled pass] -> a Tally's numbers.

    B rows   P predictors scored side by side

Bins and terms are those of ``stream_app.curves`` and ``stream_app.measures``; every number is added in the rows' order.
"""

import math

import numpy as np

from models.compiled import compiled_exactly
from stream_app.curves import CONFIDENCE_BINS
from stream_app.tally import BLOCK_ROWS, BLOCKS, Floats, Ints, Tally


def count(
    tally: Tally, said: Floats, label: Ints, weights: Floats | None, *, bins: Ints, coarser: int, clip: float
) -> None:
    """Count rows in.

    Args:
        tally: of histograms (P, bins, 2), one after another, and of sums: the weight, P log-losses, P times the gaps
            of CONFIDENCE_BINS.
        said: (P, B) from 0 to 1.
        label: (B,) 0 or 1.
        weights: (B,) what each row counts for; None is 1 each.
        bins: (P,) of each predictor's histogram.
        coarser: so many times fewer bins has the window.
        clip: the least probability that counts in the log-loss.
    """
    each = _NONE if weights is None else weights
    _count(
        tally.counts, tally.sums, tally.block_counts, tally.block_sums, tally.rows,
        np.ascontiguousarray(said), label, each, bins, coarser, clip,
    )  # fmt: skip
    tally.rows += len(label)


_NONE = np.empty(0)


@compiled_exactly
def _count(
    counts: Floats, sums: Floats, block_counts: Floats, block_sums: Floats, rows: int,
    said: Floats, label: Ints, weights: Floats, bins: Ints, coarser: int, clip: float,
) -> None:  # fmt: skip
    predictors = len(said)
    for b in range(len(label)):
        slot = (rows + b) // BLOCK_ROWS % BLOCKS
        if (rows + b) % BLOCK_ROWS == 0:
            block_counts[slot] = 0.0
            block_sums[slot] = 0.0
        w = weights[b] if len(weights) else 1.0
        sums[0] += w
        block_sums[slot, 0] += w
        first = 0
        for p in range(predictors):
            of_positive = said[p, b]
            spread = (1.0 + math.sqrt(math.sqrt(of_positive)) - math.sqrt(math.sqrt(1.0 - of_positive))) / 2.0
            at = first + min(int(spread * bins[p]), bins[p] - 1)
            counts[2 * at + label[b]] += w
            block_counts[slot, 2 * (at // coarser) + label[b]] += w
            true = of_positive if label[b] else 1.0 - of_positive
            loss = -math.log(min(max(true, clip), 1.0 - clip)) * w
            sums[1 + p] += loss
            block_sums[slot, 1 + p] += loss
            confidence = min(int(of_positive * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
            gap = (of_positive - label[b]) * w
            sums[1 + predictors + CONFIDENCE_BINS * p + confidence] += gap
            block_sums[slot, 1 + predictors + CONFIDENCE_BINS * p + confidence] += gap
            first += bins[p]
