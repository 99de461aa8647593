"""Any River estimator or pipeline as a learner of the service: rows by column -> rows by name -> [River] -> scores.

Each row goes to River as a dict: the standardised numbers under the features' names, the recent rates as rate[0],
rate[1] and on, missing indicators as missing[name]; categories as texts of their codes, which River's classification
trees take, or (``nominal = false``) as name=code: 1.0, which all take.

River has no theta: nothing is blended, tuned or compressed, and the spec says so. Servers answer with the estimator
itself (models.direct): it travels in the version as ``models.pickles`` writes it.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from models import estimators, pickles
from models.learner import Floats, Ints, check_weights
from models.merging import Fork, MergeError
from models.shapes import rate_columns
from models.snapshot import Arrays
from models.spec import ModelSpec, river_stages

ESTIMATOR = "estimator"
"""Name of the array in the learner's state, uint8."""


class RiverLearner:
    """The estimator that the spec names.

    Args:
        spec: its ``learner.kind`` is river.

    Raises:
        EstimatorError: there is no such estimator, or it cannot learn such rows, or be kept in a version.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._task, self._outputs, self._nominal = spec.task, spec.outputs, spec.learner.nominal
        numeric = list(spec.features.numeric)
        rates = [f"rate[{i}]" for i in range(rate_columns(spec))]
        self._numbers = [*numeric, *rates, *(f"missing[{n}]" for n in numeric)]
        self._categories = list(spec.features.categorical)
        self.learning_rate = spec.optimiser.learning_rate
        self.half_life_events = spec.blend.half_life_events
        self.share = 1.0
        self.skipped_steps = 0
        self._stages, self._seed = river_stages(spec.learner), spec.learner.seed
        self._estimator = self._built()
        self._try_out()
        self._estimator = self._built()

    def _built(self) -> Any:
        return estimators.build(self._stages, task=self._task, seed=self._seed)

    def _try_out(self) -> None:
        """Two rows tell whether it takes the names and texts of this spec; better here than at the first event."""
        x = np.zeros((2, len(self._numbers)), np.float32)
        categories = np.ones((2, len(self._categories)), np.int64)
        try:
            self.learn(x, categories, np.array([0.0, 1.0], np.float32))
            self.predict(x, categories)
            self.load(self.state())
        except Exception as error:  # whatever River thinks of them
            hint = "; nominal = false gives it numbers only" if self._nominal and self._categories else ""
            path = self._stages[-1][0]
            raise estimators.EstimatorError(f"{path} fails on rows of this spec: {error!r}{hint}") from error

    @property
    def takes_weights(self) -> bool:
        """Whether the estimator learns weights; if not, each row weighs 1."""
        last = getattr(self._estimator, "_last_step", self._estimator)
        return "w" in inspect.signature(last.learn_one).parameters

    def predict(self, x: Floats, categories: Ints) -> Floats:
        """Probabilities (B, K) or values (B, 1); what River has no finite answer for is the prior, or 0."""
        found = np.array([self._scores(row) for row in self._rows(x, categories)])
        return found.reshape(len(x), self._outputs).astype(np.float32)

    def _scores(self, row: dict[str, Any]) -> list[float]:
        if self._task == "regression":
            value = self._estimator.predict_one(row)
            return [value if value is not None and abs(value) <= np.finfo(np.float32).max else 0.0]
        classes = max(2, self._outputs)
        said = self._probabilities(row)
        p = [float(said.get(k, 0.0)) for k in range(classes)]
        total = sum(p)
        if not 0.0 < total < np.inf or min(p) < 0.0:
            p, total = [1.0] * classes, float(classes)
        return [v / total for v in p] if self._task == "multiclass" else [p[1] / total]

    def _probabilities(self, row: dict[str, Any]) -> dict[int, float]:
        try:
            found: dict[int, float] = self._estimator.predict_proba_one(row)
        except NotImplementedError:  # some classifiers only name one
            found = {self._estimator.predict_one(row): 1.0}
        return found

    def ask(self, x: Floats, categories: Ints) -> tuple[Floats, Floats]:
        return self.predict(x, categories), np.zeros((len(x), 0), np.float32)

    def learn(
        self,
        x: Floats,
        categories: Ints,
        target: Floats,
        weights: Floats | None = None,
        told: Floats | None = None,
    ) -> None:
        """Row by row; a row that is not finite is left out, and the step counted as skipped."""
        if weights is not None:
            check_weights(weights, len(target))
        finite = np.isfinite(x).all(axis=1) & np.isfinite(target)
        self.skipped_steps += int(not finite.all())
        weighted = weights is not None and self.takes_weights
        for i, row in enumerate(self._rows(x, categories)):
            if not finite[i]:
                continue
            y = float(target[i]) if self._task == "regression" else int(target[i])
            if weighted and weights is not None:
                self._estimator.learn_one(row, self._label(y), w=float(weights[i]))
            else:
                self._estimator.learn_one(row, self._label(y))

    def _label(self, y: float) -> float | bool:
        return bool(y) if self._task == "binary" else y

    def _rows(self, x: Floats, categories: Ints) -> Iterator[dict[str, Any]]:
        for numbers, codes in zip(x.tolist(), categories.tolist(), strict=True):
            row: dict[str, Any] = dict(zip(self._numbers, numbers, strict=True))
            for name, code in zip(self._categories, codes, strict=True):
                if self._nominal:
                    row[name] = str(code)
                else:
                    row[f"{name}={code}"] = 1.0
            yield row

    def members(self) -> dict[str, float]:
        return {}

    def set_reference(self, theta: Floats | None) -> None:
        """There is nothing to pull.

        Raises:
            ValueError: a reference is given.
        """
        if theta is not None:
            raise ValueError(f"reference has {theta.size} numbers, wanted None: a River estimator has no parameters")

    def reference(self) -> None:
        """There is none."""

    def parameters(self) -> Floats:
        """(0,)"""
        return np.zeros(0, np.float32)

    def set_parameters(self, theta: Floats) -> None:
        """There are none to go on from.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"theta has {theta.size} numbers: a River estimator has no parameters")

    def serving_parameters(self) -> Floats:
        """(0,)"""
        return self.parameters()

    def state(self) -> Arrays:
        """The estimator whole.

        Raises:
            PickleError: it cannot be pickled.
        """
        return {ESTIMATOR: pickles.dumps(self._estimator).copy()}

    def merged(self, fork: Fork) -> Arrays:
        """Nobody knows how.

        Raises:
            MergeError: always.
        """
        raise MergeError("River's estimators cannot be merged")

    def load(self, state: Arrays) -> None:
        """Back to a state.

        Raises:
            PickleError: it is none, or names what no estimator needs.
        """
        self._estimator = pickles.loads(state[ESTIMATOR])
