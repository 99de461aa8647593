"""A learner without a graph answers itself: raw columns -> [standardise -> learner] -> scores.

B rows, N + R dense columns, C categorical features, K scores
"""

import numpy as np
from numpy.typing import NDArray

from models.features import FeatureEncoder
from models.learner import Learner


class Direct:
    """What ``models.runtime.Session`` is for a graph.

    Args:
        encoder: standardises; its state is the version's.
        learner: the version's, too.
    """

    def __init__(self, encoder: FeatureEncoder, learner: Learner) -> None:
        self._encoder, self._learner = encoder, learner

    def run(self, numeric: NDArray[np.float32], categories: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Scores (B, K) of numeric (B, N + R), raw, NaN is missing, and categories (B, C)."""
        if categories is None:
            categories = np.zeros((len(numeric), 0), np.int64)
        return self._learner.predict(self._encoder.standardise(numeric), categories)
