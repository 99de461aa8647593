"""The compiled Adam is torch's, and whoever loads a state goes on as if nothing had been."""

import numpy as np
import pytest
import torch

from models.optimisers import Adam, Steps, Torchs, optimiser_of
from models.snapshot import Arrays
from models.spec import Optimiser


def steps_of(wanted: Optimiser, kind: type) -> tuple[torch.Tensor, Steps]:
    theta = torch.linspace(-1.0, 1.0, 50)
    theta.grad = torch.zeros_like(theta)
    made = optimiser_of(wanted, theta, 0.01) if kind is Adam else Torchs(wanted, theta, 0.01)
    assert isinstance(made, kind)
    return theta, made


def walk(theta: torch.Tensor, steps: Steps, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    assert theta.grad is not None
    for _ in range(length):
        theta.grad.numpy()[:] = rng.normal(size=len(theta)) * rng.choice([1e-6, 1.0, 50.0])
        steps.step()


def test_adam_is_torchs() -> None:
    mine, theirs = steps_of(Optimiser(name="adam"), Adam), steps_of(Optimiser(name="adam"), Torchs)
    for theta, steps in (mine, theirs):
        walk(theta, steps, 0, 30)
        steps.learning_rate = 0.1
        walk(theta, steps, 1, 30)
    assert mine[0].numpy() == pytest.approx(theirs[0].numpy(), abs=2e-5)
    wanted = theirs[1].state()
    assert mine[1].state().keys() == wanted.keys()
    for name, value in mine[1].state().items():
        assert value.dtype == wanted[name].dtype
        assert value == pytest.approx(wanted[name], rel=1e-4, abs=1e-9), name


def test_either_goes_on_from_the_others_state() -> None:
    theta, steps = steps_of(Optimiser(name="adam"), Torchs)
    walk(theta, steps, 0, 20)
    after, mine = steps_of(Optimiser(name="adam"), Adam)
    after.numpy()[:] = theta.numpy()
    mine.load(steps.state())
    walk(theta, steps, 1, 20)
    walk(after, mine, 1, 20)
    assert after.numpy() == pytest.approx(theta.numpy(), abs=2e-5)


@pytest.mark.parametrize("kind", [Adam, Torchs])
def test_a_state_is_a_copy_and_before_the_first_step_there_is_none(kind: type) -> None:
    theta, steps = steps_of(Optimiser(name="adam"), kind)
    assert steps.state() == {}
    walk(theta, steps, 0, 3)
    state: Arrays = steps.state()
    before = {name: value.copy() for name, value in state.items()}
    walk(theta, steps, 1, 3)
    assert all((state[name] == before[name]).all() for name in before)


def test_with_settings_of_its_own_adam_is_torchs_too() -> None:
    theta, _ = steps_of(Optimiser(name="adam"), Adam)
    assert isinstance(optimiser_of(Optimiser(name="adam", settings={"eps": 1e-6}), theta, 0.01), Torchs)
