"""The mixture as a learner of the service: standardised rows -> [members -> mixing -> pull] -> scores.

Labels of a served model come after their rows, often by hours. So members are judged by what they told when a row
was answered, which waits with the row for its label.
"""

import logging
from functools import cache

import numpy as np

from models.blend import strength
from models.experts.merge import Part, merge
from models.experts.mixture import Mixture
from models.learner import Floats, Ints, check_weights
from models.merging import Fork, picked
from models.shapes import dense_columns
from models.snapshot import Arrays
from models.spec import ModelSpec

PULL_EVERY = 32
"""Rows between two pulls, counted from the first ever learned: the same however rows come together."""
USUAL_RATE = 0.003
"""``optimiser.learning_rate`` at which the members have the rates of their tier; twice that doubles the nets'."""

_log = logging.getLogger(__name__)


class MixtureLearner:
    """The mixture that the spec names.

    Args:
        spec: its ``learner.kind`` is mixture.
        learning_rate: overrides the spec's, as re-tuning does.
        half_life_events: overrides the blend's.
    """

    def __init__(
        self, spec: ModelSpec, *, learning_rate: float | None = None, half_life_events: float | None = None
    ) -> None:
        self._task, self._pulled = spec.task, spec.blend.kind != "none"
        self.learning_rate = learning_rate or spec.optimiser.learning_rate
        self.half_life_events = half_life_events or spec.blend.half_life_events
        self.share = 1.0
        self.skipped_steps = 0
        self._reference: Floats | None = None
        self._mixture = Mixture(
            task="regression" if spec.task == "regression" else "classification",
            columns=dense_columns(spec) + len(spec.features.numeric),
            classes=max(2, spec.outputs),
            category_sizes=tuple(c.size for c in spec.features.categorical.values()),
            tier=spec.learner.tier,
            seed=spec.learner.seed,
            pace=self.learning_rate / USUAL_RATE,
        )

    def predict(self, x: Floats, categories: Ints) -> Floats:
        found = self._mixture.predict(x, categories)
        return found[:, 1:] if self._task == "binary" else found

    def ask(self, x: Floats, categories: Ints) -> tuple[Floats, Floats]:
        found, told = self._mixture.ask(x, categories)
        return found[:, 1:] if self._task == "binary" else found, told

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
        skipped, at = self._mixture.skipped, 0
        while at < len(target):
            end = at + PULL_EVERY - self._mixture.count % PULL_EVERY
            some = None if weights is None else weights[at:end]
            then, before = None if told is None else told[at:end], self._mixture.count
            self._mixture.learn(x[at:end], categories[at:end], target[at:end], some, then)
            at, due = end, self._mixture.count > before and self._mixture.count % PULL_EVERY == 0
            if due and self._pulled and self._reference is not None:
                self._mixture.pull(self._reference, strength(self.half_life_events, PULL_EVERY))
        self.skipped_steps += int(self._mixture.skipped > skipped)

    def members(self) -> dict[str, float]:
        return self._mixture.weights()

    def set_reference(self, theta: Floats | None) -> None:
        self._reference = None if theta is None else theta.copy()

    def reference(self) -> Floats | None:
        return None if self._reference is None else self._reference.copy()

    def parameters(self) -> Floats:
        return self._mixture.parameters()

    def set_parameters(self, theta: Floats) -> None:
        self._mixture.set_parameters(theta)

    def serving_parameters(self) -> Floats:
        """(0,): it is served whole."""
        return np.zeros(0, np.float32)

    def state(self) -> Arrays:
        arrays = self._mixture.state()
        return arrays if self._reference is None else arrays | {"reference": self._reference.copy()}

    def merged(self, fork: Fork) -> Arrays:
        began, *rows = (int(state["window.count"][0]) for state in fork[:3])
        base, *states = ({k: a for k, a in state.items() if k != "reference"} for state in fork[:3])
        found = merge(base, [Part(s, n - began, key) for key, (s, n) in enumerate(zip(states, rows, strict=True))])
        reference = picked(fork, "reference")
        return found if reference is None else found | {"reference": reference}

    def load(self, state: Arrays) -> None:
        self.set_reference(state["reference"].astype(np.float32) if "reference" in state else None)
        self._mixture.load(state)


@cache
def compile_members(regression: bool) -> None:
    """Have all that answers and learns compiled before the first record waits for it; a minute once a machine."""
    _log.info("compiling the mixture's members, or loading what was compiled here before")
    tiny = Mixture(task="regression" if regression else "classification", columns=1, classes=2, category_sizes=(2,))
    x, codes, y = np.zeros((2, 1), np.float32), np.zeros((2, 1), np.int64), np.array([0.0, 1.0], np.float32)
    for _ in range(4):  # the first trees grow after some rows
        _, told = tiny.ask(x, codes)
        tiny.learn(x, codes, y, None, told)
