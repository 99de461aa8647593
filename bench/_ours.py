"""The mixture as `bench/accuracy.py` measures it: rows of a Stream -> OnlineModel, as anyone would call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench._streams import Row, Stream
from models.experts.mixture import Mixture
from models.online import OnlineModel


class Ours:
    """A fresh OnlineModel; it is told the task, and neither classes nor columns."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self._model = OnlineModel(stream.task, seed=seed, learner=self._made)
        self._mixture: Any = None
        if stream.task == "regression":
            self.predict_one, self.predict_many = self._model.predict_one, self._model.predict_many
        else:
            self.predict_one, self.predict_many = self._model.predict_proba_one, self._model.predict_proba_many

    def _made(self, **sizes: Any) -> Any:
        self._mixture = Mixture(**sizes)
        return self._mixture

    def learn_one(self, x: Row, y: float) -> None:
        self._model.learn_one(x, y)

    def learn_many(self, rows: Sequence[Row], labels: Sequence[float]) -> None:
        self._model.learn_many(rows, labels)

    def best_member(self) -> tuple[str, float]:
        """Its name and its summed log-loss so far."""
        losses: dict[str, float] = self._mixture.member_losses()
        return min(losses.items(), key=lambda pair: pair[1])

    def regret(self) -> float:
        """By how much the mixture's summed log-loss so far is above its best member's."""
        loss: float = self._mixture.loss
        return loss - self.best_member()[1]
