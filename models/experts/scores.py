"""Outputs become answers, and their slopes: logits -> [squash] -> probabilities. One column is a value (regression)."""

import math

from models.compiled import compiled
from models.experts.arrays import F32, F64

HUBER = 1.0
"""Deviations of the target beyond which an error pulls no harder (Huber 1964)."""
HEAVIEST = 10.0
"""Weight beyond which a row moves a gradient no further: one row must not undo a thousand."""


@compiled
def squash(out: F32 | F64) -> None:
    """Softmax in place of logits (K,); a value stays as it is."""
    classes = len(out)
    if classes == 1:
        return
    top = out[0]
    for k in range(1, classes):
        top = max(top, out[k])
    total = 0.0
    for k in range(classes):
        out[k] = math.exp(out[k] - top)
        total += out[k]
    for k in range(classes):
        out[k] /= total


@compiled
def slope_of(answer: F32, y: float, slope: F32) -> None:
    """Slope of the loss by the outputs, slope (K,): log-loss of answer (K,), or Huber's loss of a value."""
    classes = len(answer)
    if classes == 1:
        slope[0] = max(-HUBER, min(HUBER, answer[0] - y))
        return
    for k in range(classes):
        slope[k] = answer[k]
    slope[int(y)] -= 1.0
