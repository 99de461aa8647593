"""How good what was said turned out to be: join -> [score] -> version, dashboard, decisions.

    B rows, K outputs, P predictors scored side by side: the model, and the baselines it must beat

Test-then-train: every row was predicted before its label was learned. ``stream_app.measures`` has the numbers.
However the rows are split over calls, the same rows give the same numbers, to the last bit.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.merging import Fork
from stream_app import tally
from stream_app.curves import ratio
from stream_app.measures import BINS, BinaryScore, ClassCount, MulticlassScore, RegressionScore, Score, counted_from
from stream_app.tally import Floats, State

PREDICTORS = ("", "majority_", "nochange_")
"""Prefixes of the metrics, in the order of P: the model and the baselines it has to beat."""


class Prequential:
    """The model's score beside two baselines that need no model.

    majority: always the most frequent class so far, with its running share (regression: the mean).
    nochange: what the last label said that had arrived by then; while none had, what majority says.

    Args:
        task: binary, multiclass or regression.
        classes: how many; 0 for regression.
    """

    def __init__(self, task: Literal["binary", "multiclass", "regression"], classes: int) -> None:
        self._classes = classes if task == "multiclass" else 1
        self._quality = "mae" if task == "regression" else "accuracy"
        self._score: Score
        match task:
            case "binary":
                # The share moves slowly and nochange says 0 or 1: few bins hold them.
                self._score = BinaryScore((BINS, 256, 16))
            case "multiclass":
                self._score = MulticlassScore(classes, len(PREDICTORS))
            case "regression":
                self._score = RegressionScore(len(PREDICTORS))

    def add(
        self,
        scores: ArrayLike,
        target: ArrayLike,
        nochange: ArrayLike,
        prior: ArrayLike,
        weights: ArrayLike | None = None,
    ) -> None:
        """Score B rows, in the order in which their labels are learned.

        Args:
            scores: (B, K) what the model said; binary: the probability of the positive class.
                One that is not finite is scored as if it had said the prior.
            target: (B,) class index, or number.
            nochange: (B,) the last label that had arrived when it was said; -1 or NaN: none had
                (for regression only NaN).
            prior: (B, K) up to then, the shares of the classes (binary: of the positive one;
                regression: the mean).
            weights: (B,) what each row counts for; None is 1 each.

        Raises:
            ValueError: a prior is not finite, a target is no class index, a weight is not above 0, or shapes
                do not fit.
        """
        label = np.asarray(target, np.float64).ravel()  # (B,)
        shape = (label.size, self._classes)
        base = np.asarray(prior, np.float64).reshape(shape)  # (B, K)
        said = np.asarray(scores, np.float64).reshape(shape)
        rows = np.empty((len(PREDICTORS), *shape))  # (P, B, K)
        rows[0] = np.where(np.isfinite(said), said, base)
        rows[1] = base
        rows[2] = self._last_label(np.asarray(nochange, np.float64).ravel(), base)
        self._score.add(rows, label, weights)

    def _last_label(self, last: Floats, base: Floats) -> Floats:
        """What nochange says, (B, K), of last labels (B,)."""
        known = np.isfinite(last) if self._quality == "mae" else last >= 0
        sure = last[:, None] if self._classes == 1 else last[:, None] == np.arange(self._classes)
        return np.where(known[:, None], sure, base)

    def metrics(self) -> dict[str, float]:
        """All of it, flat: ``auc``, ``nochange_auc``, ``window_auc``, ``window_nochange_auc`` ...

        ``kappa_temporal`` is the share of nochange's mistakes (regression: of its mean absolute
        error) that the model avoids: 0 is no better, 1 is perfect (Zliobaite et al. 2015,
        "Evaluation methods and decision theory for classification of streaming data with temporal
        dependence").
        """
        return self._flat("", window=False) | self._flat("window_", window=True)

    def _flat(self, prefix: str, *, window: bool) -> dict[str, float]:
        summaries = self._score.summaries(window=window)
        flat = {f"{prefix}count": summaries[0]["count"]}
        for predictor, summary in zip(PREDICTORS, summaries, strict=True):
            flat |= {f"{prefix}{predictor}{k}": v for k, v in summary.items() if k != "count"}
        mine, last = summaries[0][self._quality], summaries[2][self._quality]
        wrong = (mine, last) if self._quality == "mae" else (1.0 - mine, 1.0 - last)
        flat[f"{prefix}kappa_temporal"] = 1.0 - ratio(*wrong)
        return flat

    def unit(self) -> float:
        """What an error is measured in, to say whether it is large: majority's mean absolute error; else 1."""
        found = self._score.mae(PREDICTORS.index("majority_")) if isinstance(self._score, RegressionScore) else 1.0
        return found if found > 0.0 else 1.0

    def classes(self) -> list[ClassCount]:
        """What the model said of each class, over all rows; none for regression."""
        return self._score.classes()

    def state(self) -> State:
        """Arrays that ``load`` continues from as if it had never stopped."""
        return self._score.state()

    def merged(self, fork: Fork) -> State:
        """One state of what two have scored since the same base."""
        if "first" not in fork.mine:
            return tally.merged(fork)
        # Two that began from nothing count R2 from a first target each; base then has counted none.
        first = fork.theirs["first"] if fork.theirs["rows"][0] else fork.mine["first"]
        mine = {name: np.asarray(array) for name, array in fork.mine.items()}
        return tally.merged(fork._replace(mine=counted_from(mine, first))) | {"first": np.array(first, np.float64)}

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from a ``state()`` of the same task and classes.

        Raises:
            ValueError: it is of another task, or of other classes.
        """
        self._score.load(state)
