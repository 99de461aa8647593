"""Our model where River's are wanted: River's pipelines, evaluation, ensembles -> [adapter] -> OnlineModel.

    from river import evaluate, metrics
    from models.river_adapters import RiverClassifier

    evaluate.progressive_val_score(stream, RiverClassifier(), metrics.LogLoss())

The other way, River's estimators in our service, is ``models.river_learner``.
"""

from collections.abc import Mapping
from typing import Any

from river import base

from models.online import Class, MakesLearner, OnlineModel, Tier


class RiverClassifier(base.Classifier):
    """An OnlineModel of classes, as a River classifier of any number of them.

    Args:
        tier: as for OnlineModel.
        seed: likewise.
        learner: likewise.
    """

    def __init__(self, tier: Tier = "standard", seed: int = 0, learner: MakesLearner | None = None) -> None:
        self.tier, self.seed, self.learner = tier, seed, learner
        self.model = OnlineModel("classification", tier=tier, seed=seed, learner=learner)

    @property
    def _multiclass(self) -> bool:
        return True

    def learn_one(self, x: Mapping[Any, object], y: Class, w: float = 1.0) -> None:
        """Learn one row that stands for ``w``. Raises as OnlineModel does."""
        self.model.learn_one(x, y, w)

    def predict_proba_one(self, x: Mapping[Any, object], **_: Any) -> dict[Class, float]:
        """Probability of each class seen so far; {} before any."""
        return self.model.predict_proba_one(x)


class RiverRegressor(base.Regressor):
    """An OnlineModel of numbers, as a River regressor.

    Args:
        tier: as for OnlineModel.
        seed: likewise.
        learner: likewise.
    """

    def __init__(self, tier: Tier = "standard", seed: int = 0, learner: MakesLearner | None = None) -> None:
        self.tier, self.seed, self.learner = tier, seed, learner
        self.model = OnlineModel("regression", tier=tier, seed=seed, learner=learner)

    def learn_one(self, x: Mapping[Any, object], y: float, w: float = 1.0) -> None:
        """Learn one row that stands for ``w``. Raises as OnlineModel does."""
        self.model.learn_one(x, y, w)

    def predict_one(self, x: Mapping[Any, object], **_: Any) -> float:
        """The value; 0.0 before the first label."""
        found = self.model.predict_one(x)
        assert isinstance(found, float)
        return found
