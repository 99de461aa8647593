"""A torch network that learns from micro-batches: rows -> gradient -> optimiser -> [blend] -> rows' scores.

theta (P,)   all parameters in one flat tensor; the layers' matrices are views of it
ref   (P,)   the reference optimum, or none
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import losses, nets
from models.blend import blended, strength
from models.learner import Floats, Ints
from models.scaler import Scaler
from models.shapes import parameter_shapes
from models.snapshot import Arrays, prefixed, under
from models.spec import ModelSpec

CLIP_NORM = 10.0
"""Longer gradients are cut to this length; a non-finite one is skipped, not learned."""

_OPTIMISERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def use_one_thread() -> None:
    """Micro-batches of small networks are slower on many threads than on one, several times where cores are shared."""
    torch.set_num_threads(1)


class TorchLearner:
    """A linear model or an MLP of the spec.

    Args:
        spec: says the shapes, the optimiser and the blend.
        learning_rate: overrides the spec's, as re-tuning does.
        half_life_events: overrides the blend's.
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
        self.skipped_steps = 0
        shapes = parameter_shapes(spec)
        self._theta = nets.initial(shapes, torch.Generator().manual_seed(spec.learner.seed))
        self._theta.grad = torch.zeros_like(self._theta)
        self._parameters = _views(self._theta, shapes)
        self._reference: Tensor | None = None
        self._target_scaler = Scaler(1)
        self._optimiser = self._fresh_optimiser()

    def _fresh_optimiser(self) -> Any:
        return _OPTIMISERS[self._spec.optimiser.name]([self._theta], lr=self.learning_rate)

    def predict(self, x: Floats, categories: Ints) -> Floats:
        with torch.inference_mode():
            outputs = nets.forward(self._parameters, torch.from_numpy(x), torch.from_numpy(categories))
            found: Floats = losses.scores(self._spec.task, outputs).numpy()
        if self._spec.task == "regression":
            found = (found * self._target_scaler.std + self._target_scaler.mean).astype(np.float32)
        return found

    def learn(self, x: Floats, categories: Ints, target: Floats, weights: Floats | None = None) -> None:
        gradient = self._gradient(x, categories, target, weights)
        norm = float(gradient.norm())
        if not np.isfinite(norm):
            self.skipped_steps += 1
            return
        if norm > CLIP_NORM:
            gradient.mul_(CLIP_NORM / norm)
        kind, reference = self._spec.blend.kind, self._reference
        before = self._theta.detach().clone() if kind == "explicit" else self._theta
        self._optimiser.step()
        if reference is not None and kind != "none":
            lam = strength(self.half_life_events, len(target))
            with torch.no_grad():
                pulled = blended(kind, before=before, stepped=self._theta, reference=reference, lam=lam)
                self._theta.copy_(pulled)

    def _gradient(self, x: Floats, categories: Ints, target: Floats, weights: Floats | None) -> Tensor:
        if self._spec.task == "regression":
            self._target_scaler.observe(target[:, None])
            target = self._target_scaler.scale(target[:, None])[:, 0]
        gradient = self._theta.grad
        assert gradient is not None
        gradient.zero_()
        outputs = nets.forward(self._parameters, torch.from_numpy(x), torch.from_numpy(categories))
        each = None if weights is None else torch.from_numpy(weights)
        value = losses.loss(self._spec.task, outputs, torch.from_numpy(target), each)
        value.backward()  # type: ignore[no-untyped-call]
        return gradient

    def set_reference(self, theta: Floats | None) -> None:
        self._reference = None if theta is None else torch.from_numpy(theta.copy())

    def set_learning_rate(self, learning_rate: float) -> None:
        """From the next step on; what the optimiser remembers stays."""
        self.learning_rate = learning_rate
        self._optimiser.param_groups[0]["lr"] = learning_rate

    def parameters(self) -> Floats:
        theta: Floats = self._theta.detach().numpy().copy()
        return theta

    def serving_parameters(self) -> Floats:
        theta = self.parameters()
        if self._spec.task == "regression":
            std, mean = self._target_scaler.std[0], self._target_scaler.mean[0]
            last = parameter_shapes(self._spec)[list(parameter_shapes(self._spec))[-2]][1]
            theta[-last - 1 :] *= std
            theta[-1] += mean
        return theta

    def state(self) -> Arrays:
        arrays: Arrays = {"theta": self.parameters()}
        if self._reference is not None:
            arrays["reference"] = self._reference.numpy().copy()
        optimiser = self._optimiser.state.get(self._theta, {})
        slots = {k: v.numpy().copy() for k, v in optimiser.items() if v is not None}
        name = f"optimiser.{self._spec.optimiser.name}"
        return arrays | prefixed(name, slots) | prefixed("target", self._target_scaler.state())

    def load(self, state: Arrays) -> None:
        with torch.no_grad():
            self._theta.copy_(torch.from_numpy(np.array(state["theta"])))
        self.set_reference(state["reference"].astype(np.float32) if "reference" in state else None)
        mine = under(f"optimiser.{self._spec.optimiser.name}", state)  # another optimiser's would not fit
        slots = {k: torch.from_numpy(np.array(v)) for k, v in mine.items()}
        self._optimiser = self._fresh_optimiser()
        if slots:
            self._optimiser.state[self._theta] = slots
        self._target_scaler.load(under("target", state))


def _views(theta: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Leaves that share theta's and its gradient's memory, so that one optimiser step moves them all."""
    assert theta.grad is not None
    views, at = {}, 0
    for name, shape in shapes.items():
        end = at + int(np.prod(shape))
        leaf = theta[at:end].view(shape).detach().requires_grad_()
        leaf.grad = theta.grad[at:end].view(shape)
        views[name] = leaf
        at = end
    return views
