"""A softmax regression's step as the formula has it, and what it learns."""

import numpy as np
import pytest

from models.experts.linear import Linear
from models.experts.scores import HEAVIEST
from models.experts.window import Window
from tests.models.experts.made import asked, assert_same, play, right, rows_of

WINDOW = Window(1, 0, 0)


def line(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(seed).normal(size=(n, 2))
    return z, z @ [1.0, -2.0] > 0.5


def test_steps_are_those_of_the_gradient() -> None:
    rng = np.random.default_rng(0)
    z, y, w = rng.normal(size=(5, 3)), np.array([0, 2, 1, 2, 2]), np.array([1, 0.5, 3, 1, 100], np.float32)
    member = Linear((0.1,), columns=3, classes=3)
    out = play(member, rows_of(z, y, classes=3)._replace(w=w), Window(10, 3, 0))
    weights = np.zeros((4, 3))
    for b in range(5):
        row = np.append(z[b].astype(np.float32), 1)
        p = np.exp(row @ weights)
        p /= p.sum()
        np.testing.assert_allclose(out[0, b], p, rtol=1e-5)
        weights -= 0.1 * min(w[b], HEAVIEST) / 4 * np.outer(row, p - np.eye(3)[y[b]])
    np.testing.assert_allclose(member.state()["weights"][0], weights, atol=1e-6)


def test_a_line_is_learned_at_every_rate() -> None:
    z, y = line(3000)
    out = play(Linear((0.02, 0.1, 0.5), columns=2, classes=2), rows_of(z, y, classes=2), Window(1, 2, 0))
    assert right(out[:, -1000:], y[-1000:]).min() > 0.93


def test_the_faster_rate_follows_a_change_sooner() -> None:
    z, y = line(1200)
    y = np.where(np.arange(1200) < 1000, y, ~y)
    out = play(Linear((0.02, 0.5), columns=2, classes=2), rows_of(z, y, classes=2), Window(1, 2, 0))
    slow, fast = right(out[:, 1050:], y[1050:])
    assert fast > slow + 0.1


def test_values_are_learned_in_units_of_their_deviation() -> None:
    z = np.random.default_rng(0).normal(size=(2000, 2))
    y = 1000 + 50 * (z @ [1.0, -2.0])
    rows = rows_of(z, y, classes=1)._replace(centre=np.full(2000, 1000.0), scale=np.full(2000, 100.0))
    out = play(Linear((0.1,), columns=2, classes=1), rows, Window(1, 2, 0))
    assert np.abs(out[0, -500:, 0] - y[-500:]).mean() < 2


def test_of_change_begins_at_the_last_value() -> None:
    rows = rows_of(np.zeros((1, 2)), np.zeros(1), classes=1)._replace(last=np.array([7.0]))
    assert asked(Linear((0.1,), columns=2, classes=1, of_change=True), rows, WINDOW)[0, 0, 0] == 7


@pytest.mark.parametrize(("columns", "classes"), [(4, 2), (2, 3), (5, 4)])
def test_growing_keeps_what_was_learned(columns: int, classes: int) -> None:
    z, y = line(200)
    member = Linear((0.1, 0.5), columns=2, classes=2)
    play(member, rows_of(z, y, classes=2), Window(1, 2, 0))
    before = asked(member, rows_of(z, y, classes=2), WINDOW)
    member.grow(columns, classes, 0)
    wide = rows_of(np.pad(z, ((0, 0), (0, columns - 2))), y, classes=classes)
    after = asked(member, wide, WINDOW)
    np.testing.assert_allclose(after[..., 1] / after[..., 0], before[..., 1] / before[..., 0], rtol=1e-4)
    again = Linear((0.1, 0.5), columns=2, classes=2)
    again.load(member.state())
    assert_same(again.state(), member.state())
