"""How wrong scores are, without torch: scores, targets -> [mean_loss] -> one number.

B rows, K scores
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

CLIPPED = 1e-6
"""Probabilities are kept this far from 0 and 1: one sure mistake costs 13.8, not infinity."""
Task = Literal["binary", "multiclass", "regression"]


class Examples(NamedTuple):
    """Labelled rows as the network gets them, oldest first."""

    numeric: NDArray[np.float32]
    """(B, N + R), raw; NaN is missing."""
    categories: NDArray[np.int64]
    """(B, C)"""
    target: NDArray[np.float32]
    """(B,): 0 or 1, the class's index, or the value."""

    def part(self, rows: slice) -> "Examples":
        return Examples(self.numeric[rows], self.categories[rows], self.target[rows])


def mean_loss(task: Task, scores: NDArray[np.floating], target: NDArray[np.generic]) -> float:
    """The mean of ``row_losses`` over B rows.

    Raises:
        ValueError: no rows, or not as many scores as targets.
    """
    if len(target) == 0 or len(scores) != len(target):
        raise ValueError(f"{len(scores)} rows of scores, {len(target)} targets; wanted equally many, at least 1")
    return float(np.mean(row_losses(task, scores, target)))


def row_losses(task: Task, scores: NDArray[np.floating], target: NDArray[np.generic]) -> NDArray[np.float64]:
    """Log-loss in nats of probabilities, or squared error for regression: (B,).

    Args:
        scores: (B, K) as a session gives them: probability of the second class (binary, K = 1), of
            each class (multiclass), or the value (regression, K = 1).
        target: (B,): 0 or 1, the class's index, or the value.
    """
    wide = scores.astype(np.float64)  # (B, K)
    if task == "regression":
        squares: NDArray[np.float64] = (wide[:, 0] - target.astype(np.float64)) ** 2
        return squares
    classes = target.astype(np.int64)
    if task == "binary":
        said = np.where(classes == 1, wide[:, 0], 1.0 - wide[:, 0])  # (B,)
    else:
        said = wide[np.arange(len(wide)), classes]  # (B,)
    losses: NDArray[np.float64] = -np.log(np.clip(said, CLIPPED, 1.0 - CLIPPED))
    return losses
