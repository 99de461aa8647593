"""A torch network that learns from micro-batches: rows -> gradient -> optimiser -> [blend] -> rows' scores.

theta (P,)   all parameters in one flat tensor; the layers' matrices are views of it
ref   (P,)   the reference optimum, or none
n_c          decayed count of class c    N  their sum    K  how many classes
w_c          N / (K n_c), at most CLASS_WEIGHT_CAP: what an example of class c weighs, if balanced

Weighted so, a network learns the probabilities of a stream with equally frequent classes, p'(c) ~ w_c p(c)
(Elkan 2001, The Foundations of Cost-Sensitive Learning). What is answered and served is p again: log w_c is
taken from the logits. The last layer thus need not learn how rare a class is, and follows at once when that
changes. Taking the loss of logits + log w instead, so that theta itself speaks of p, learned several times slower.
"""

import json
import math

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  loaded before its threads are counted
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from models import fused, nets
from models.blend import blended, strength
from models.learner import Floats, Ints, check_weights
from models.merging import Fork, averaged, faded, picked, stepped
from models.optimisers import Steps, optimiser_of
from models.scaler import Scaler
from models.scaler import merged as scaler_merged
from models.shapes import output_parts, parameter_shapes, split
from models.snapshot import Arrays, prefixed, under
from models.spec import ModelSpec

CLIP_NORM = 10.0
"""Longer gradients are cut to this length; a non-finite one is skipped, not learned."""

FEWEST_TOGETHER = 16
"""Examples in a step of one who learns a small share."""
CLASS_WEIGHT_CAP = 20.0
"""A rarer class weighs no more, so that one of its examples cannot throw the network over."""
CLASS_HALF_LIFE_EXAMPLES = 20_000.0
"""What is rare may change; its counts forget half in so many labels."""


def use_one_thread() -> None:
    """Micro-batches of small networks are slower on many threads than on one, many times where cores are shared."""
    torch.set_num_threads(1)
    threadpool_limits(1)  # of BLAS, which numba calls


class TorchLearner:
    """A linear model, an MLP, or a wide and deep network of the spec.

    Args:
        spec: says the shapes, the optimiser and the blend.
        learning_rate: overrides the spec's, as re-tuning does.
        half_life_events: overrides the blend's.

    Raises:
        SpecError: the optimiser knows no such setting, or refuses its value.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        learning_rate: float | None = None,
        half_life_events: float | None = None,
    ) -> None:
        self._spec = spec
        self.learning_rate = learning_rate or spec.optimiser.learning_rate
        self.half_life_events = half_life_events or spec.blend.half_life_events
        self.share = 1.0
        self.skipped_steps = 0
        shapes = parameter_shapes(spec)
        self._layout = fused.layout(shapes)
        self._theta = nets.initial(shapes, torch.Generator().manual_seed(spec.learner.seed))
        self._theta.grad = torch.zeros_like(self._theta)
        self._values, self._slope = self._theta.numpy(), self._theta.grad.numpy()  # the same memory
        self._reference: Tensor | None = None
        self._target_scaler = Scaler(1)
        self._balanced = spec.learner.class_weights == "balanced"
        self._class_counts = np.ones(max(2, spec.outputs))
        self._optimiser = self._fresh_optimiser()

    def _fresh_optimiser(self) -> Steps:
        return optimiser_of(self._spec.optimiser, self._theta, self.learning_rate)

    def predict(self, x: Floats, categories: Ints) -> Floats:
        outputs = fused.outputs(self._values, self._layout, x, categories)
        if self._balanced:
            outputs -= self._shift()
        found = fused.scores(self._spec.task, outputs)
        if self._spec.task == "regression":
            found = (found * self._target_scaler.std + self._target_scaler.mean).astype(np.float32)
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
        """In steps of at most ``minibatch`` examples; with others, of a share of it, so that as many steps are made."""
        if weights is not None:
            check_weights(weights, len(target))
        most = self._spec.learner.minibatch
        size = min(most, max(FEWEST_TOGETHER, round(most * self.share)))
        for i in range(0, len(target), size):
            part = slice(i, i + size)
            self._step(x[part], categories[part], target[part], None if weights is None else weights[part])

    def _step(self, x: Floats, categories: Ints, target: Floats, weights: Floats | None) -> None:
        if self._spec.task == "regression":
            self._target_scaler.observe(target[:, None])
            target = self._target_scaler.scale(target[:, None])[:, 0]
        if self._balanced:
            weights = self._class_weighted(target, weights)
        fused.gradient(self._values, self._slope, self._layout, self._spec.task, x, categories, target, weights)
        norm = math.sqrt(self._slope @ self._slope)
        if not math.isfinite(norm):
            self.skipped_steps += 1
            return
        if norm > CLIP_NORM:
            self._slope *= np.float32(CLIP_NORM / norm)
        kind, reference = self._spec.blend.kind, self._reference
        before = self._theta.clone() if kind == "explicit" else self._theta
        self._optimiser.step()
        if reference is not None and kind != "none":
            lam = strength(self.half_life_events, len(target))
            self._theta.copy_(blended(kind, before=before, stepped=self._theta, reference=reference, lam=lam))

    def _class_weighted(self, target: Floats, weights: Floats | None) -> Floats:
        """w_c of each example (B,), times its own weight; the batch's classes are counted first."""
        classes = target.astype(np.intp)
        self._class_counts *= 0.5 ** (len(classes) / CLASS_HALF_LIFE_EXAMPLES)
        self._class_counts += np.bincount(classes, minlength=len(self._class_counts))
        each = self.class_weights()[classes].astype(np.float32)
        return each if weights is None else each * weights

    def _shift(self) -> Floats:
        """(K,) by how much the logits of the balanced stream lie above the stream's own."""
        shift = np.log(self.class_weights())
        shift = shift[1:] - shift[:1] if self._spec.task == "binary" else shift
        return shift.astype(np.float32)

    def class_weights(self) -> NDArray[np.float64]:
        """w_c (classes,): what an example of each class weighs now, if ``balanced``."""
        counts = self._class_counts
        found: NDArray[np.float64] = np.minimum(counts.sum() / (len(counts) * counts), CLASS_WEIGHT_CAP)
        return found

    def members(self) -> dict[str, float]:
        return {}

    def set_reference(self, theta: Floats | None) -> None:
        self._reference = None if theta is None else torch.from_numpy(theta.copy())

    def reference(self) -> Floats | None:
        return None if self._reference is None else self._reference.numpy().copy()

    def set_learning_rate(self, learning_rate: float) -> None:
        """From the next step on; what the optimiser remembers stays."""
        self.learning_rate = learning_rate
        self._optimiser.learning_rate = learning_rate

    def parameters(self) -> Floats:
        return self._values.copy()

    def set_parameters(self, theta: Floats) -> None:
        self._values[:] = theta

    def serving_parameters(self) -> Floats:
        theta = self.parameters()
        if self._spec.task == "regression":
            shapes = parameter_shapes(self._spec)
            parts = split(theta, shapes)
            for name in output_parts(shapes):
                parts[name] *= self._target_scaler.std[0]
            theta[-1] += self._target_scaler.mean[0]  # the last layer's bias
        elif self._balanced:
            theta[-self._spec.outputs :] -= self._shift()
        return theta

    def state(self) -> Arrays:
        arrays: Arrays = {"theta": self.parameters()}
        if self._reference is not None:
            arrays["reference"] = self._reference.numpy().copy()
        if self._balanced:
            arrays["class_counts"] = self._class_counts.copy()
        return (
            arrays
            | prefixed(self._slots_name, self._optimiser.state())
            | prefixed("target", self._target_scaler.state())
        )

    @property
    def _slots_name(self) -> str:
        """Of the optimiser with its settings: another's memory would not fit."""
        name, settings = self._spec.optimiser.name, self._spec.optimiser.settings
        return f"optimiser.{name}" + (json.dumps(settings, sort_keys=True) if settings else "")

    def merged(self, fork: Fork) -> Arrays:
        found: Arrays = {"theta": stepped(fork.base["theta"], fork.parts("theta"), fork.rows).astype(np.float32)}
        if (reference := picked(fork, "reference")) is not None:
            found["reference"] = reference
        if self._balanced:
            keep, steps = 0.5 ** (1 / CLASS_HALF_LIFE_EXAMPLES), fork.rows.tolist()
            found["class_counts"] = faded(fork.base["class_counts"], fork.parts("class_counts"), keep, steps)
        slots = _merged_slots(fork.under(self._slots_name))
        return found | prefixed(self._slots_name, slots) | prefixed("target", scaler_merged(fork.under("target")))

    def load(self, state: Arrays) -> None:
        self._values[:] = state["theta"]
        self.set_reference(state["reference"].astype(np.float32) if "reference" in state else None)
        if "class_counts" in state:
            self._class_counts = state["class_counts"].astype(np.float64)
        self._optimiser = self._fresh_optimiser()
        self._optimiser.load(under(self._slots_name, state))
        self._target_scaler.load(under("target", state))


def _merged_slots(fork: Fork) -> Arrays:
    """What optimisers remember, by whose steps it was made; none before the first step."""
    if not fork.theirs or not fork.mine:
        return fork.mine or fork.theirs
    found: Arrays = {}
    for name, own in fork.mine.items():
        parts = [part.reshape(own.shape) for part in fork.parts(name)]  # at rest, a number is an array of one
        found[name] = averaged(np.zeros_like(own), parts, fork.rows).astype(own.dtype)
    return found
