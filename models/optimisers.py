"""How a gradient moves the parameters: slope -> [optimiser] -> theta. Any of torch's, and Adam compiled.

theta, slope (P,)   the parameters and the loss's gradient, changed in place by others
"""

import inspect
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.compiled import compiled
from models.learner import Floats
from models.snapshot import Arrays
from models.spec import Optimiser, SpecError

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""torch's defaults."""

_NOT_SETTINGS = ("self", "params", "lr", "maximize", "foreach", "fused", "capturable", "differentiable")
"""Arguments of torch's optimisers that say how, not what, or would undo what the learner does."""


class Steps(Protocol):
    """An optimiser of one vector."""

    learning_rate: float

    def step(self) -> None: ...

    def state(self) -> Arrays: ...

    def load(self, state: Arrays) -> None: ...


def optimiser_of(wanted: Optimiser, theta: Tensor, learning_rate: float) -> Steps:
    """The optimiser of that name over theta (P,), whose gradient is ``theta.grad``.

    Raises:
        SpecError: it knows no such setting, or refuses its value.
    """
    if wanted.name == "adam" and not wanted.settings:
        assert theta.grad is not None
        return Adam(theta.numpy(), theta.grad.numpy(), learning_rate)
    return Torchs(wanted, theta, learning_rate)


class Adam:
    """Adam as torch's defaults have it (Kingma & Ba 2015), a third of the time of torch's fused one; the same state.

    Args:
        theta: (P,)
        slope: (P,)
        learning_rate: may be set later.
    """

    def __init__(self, theta: Floats, slope: Floats, learning_rate: float) -> None:
        self._theta, self._slope, self.learning_rate = theta, slope, learning_rate
        self._mean, self._square, self._step = np.zeros_like(theta), np.zeros_like(theta), 0

    def step(self) -> None:
        self._step += 1
        _adam(self._theta, self._slope, self._mean, self._square, self.learning_rate, self._step)

    def state(self) -> Arrays:
        if not self._step:
            return {}
        step = np.array(self._step, np.float32)
        return {"step": step, "exp_avg": self._mean.copy(), "exp_avg_sq": self._square.copy()}

    def load(self, state: Arrays) -> None:
        if state:
            self._step = int(state["step"].reshape(()))
            self._mean, self._square = (state[name].astype(np.float32) for name in ("exp_avg", "exp_avg_sq"))


@compiled
def _adam(theta: Floats, slope: Floats, mean: Floats, square: Floats, rate: float, step: int) -> None:
    size = np.float32(rate / (1.0 - BETA1**step))
    late, epsilon = np.float32(1.0 / np.sqrt(1.0 - BETA2**step)), np.float32(EPSILON)
    keep, keep_square = np.float32(BETA1), np.float32(BETA2)
    for i in range(len(theta)):
        s = slope[i]
        mean[i] += (np.float32(1.0) - keep) * (s - mean[i])
        square[i] = keep_square * square[i] + (np.float32(1.0) - keep_square) * s * s
        theta[i] -= size * mean[i] / (np.sqrt(square[i]) * late + epsilon)


class Torchs:
    """Any of torch's.

    Raises:
        SpecError: as ``optimiser_of``.
    """

    def __init__(self, wanted: Optimiser, theta: Tensor, learning_rate: float) -> None:
        self._theta, self._optimiser = theta, _torchs(wanted, theta, learning_rate)

    @property
    def learning_rate(self) -> float:
        return float(self._optimiser.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, learning_rate: float) -> None:
        self._optimiser.param_groups[0]["lr"] = learning_rate

    def step(self) -> None:
        self._optimiser.step()

    def state(self) -> Arrays:
        slots = self._optimiser.state.get(self._theta, {})
        return {k: v.numpy().copy() for k, v in slots.items() if v is not None}

    def load(self, state: Arrays) -> None:
        if state:
            self._optimiser.state[self._theta] = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}


def _torchs(wanted: Optimiser, theta: Tensor, learning_rate: float) -> Any:
    kind = next(c for c in vars(torch.optim).values() if getattr(c, "__name__", "").lower() == wanted.name)
    known = [name for name in inspect.signature(kind).parameters if name not in _NOT_SETTINGS]
    for name in wanted.settings.keys() - set(known):
        near = get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(known)}"
        raise SpecError(f"optimiser.settings.{name} is unknown to {wanted.name}, {meant}")
    quick = {"fused": True} if "fused" in inspect.signature(kind).parameters else {}
    try:
        return kind([theta], lr=learning_rate, **quick, **wanted.settings)
    except (ValueError, TypeError, IndexError) as error:
        raise SpecError(f"optimiser.settings: {wanted.name} refuses {dict(wanted.settings)}: {error}") from error
