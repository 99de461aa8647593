"""The inverse is numpy's, the logits Fisher's; classes of one shape are told apart along any direction."""

import numpy as np
import pytest

from models.experts.discriminant import KEEP, RIDGE, WIDEST, Discriminant
from models.experts.scores import HEAVIEST
from models.experts.window import Window
from tests.models.experts.made import asked, assert_same, play, right, rows_of

WINDOW = Window(1, 0, 0)


def leaning(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes apart by one deviation of a direction along which both hardly spread."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    z = rng.normal(size=(n, 3))
    z[:, 1] = 0.95 * z[:, 0] + 0.1 * z[:, 1] + 0.3 * y
    return z, y


def played(z: np.ndarray, y: np.ndarray, w: np.ndarray, classes: int) -> Discriminant:
    member = Discriminant(z.shape[1], classes)
    play(member, rows_of(z, y, classes=classes)._replace(w=w.astype(np.float32)), Window(1, z.shape[1], 0))
    return member


def test_the_inverse_and_the_means_are_those_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    z, y, w = rng.normal(size=(80, 4)).astype(np.float32), rng.integers(0, 3, 80), rng.uniform(0.5, 15, 80)
    state = played(z, y, w, 3).state()
    matrix, sums, count = RIDGE * np.eye(4), np.zeros((4, 3)), np.zeros(3)
    for row, k, weight in zip(z.astype(np.float64), y, np.minimum(w.astype(np.float32), HEAVIEST), strict=True):
        off = row - sums[:, k] / max(count[k], 1e-9)
        matrix += weight * np.outer(off, off)
        count[k], sums[:, k] = KEEP * count[k] + weight, KEEP * sums[:, k] + weight * row
    np.testing.assert_allclose(state["inverse"], np.linalg.inv(matrix), rtol=1e-8)
    np.testing.assert_allclose(state["mean"], sums / count, rtol=1e-8)
    np.testing.assert_allclose(state["pull"], np.linalg.inv(matrix) @ (sums / count), rtol=1e-7)
    np.testing.assert_allclose(state["count"], count)


def test_answers_are_fishers() -> None:
    z, y = leaning(300)
    member = played(z, y, np.ones(300), 2)
    state, x = member.state(), z[:5].astype(np.float32).astype(np.float64)
    precision = state["seen"] * state["inverse"]
    logits = np.stack(
        [
            -0.5 * np.einsum("bi,ij,bj->b", x - m, precision, x - m) + np.log(n + 1)
            for m, n in zip(state["mean"].T, state["count"], strict=True)
        ],
        axis=1,
    )
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(asked(member, rows_of(x, y[:5], classes=2), WINDOW)[0], wanted, rtol=1e-6)


def test_the_inverse_stays_that_of_a_positive_matrix() -> None:
    z, y = leaning(20_000)
    z[:, 2] = 1e-3 * z[:, 2] + 5  # hardly spreads
    inverse = played(z, y, np.ones(len(y)), 2).state()["inverse"]
    np.testing.assert_allclose(inverse, inverse.T, rtol=1e-9)
    assert np.linalg.eigvalsh(inverse.astype(np.float64)).min() > 0


def test_classes_of_one_shape_are_told_apart() -> None:
    z, y = leaning(1500)
    out = play(Discriminant(3, 2), rows_of(z, y, classes=2), Window(1, 3, 0))
    assert right(out[:, -500:], y[-500:])[0] > 0.9  # 0.93 is the best possible


def test_beyond_the_widest_it_says_what_is_typical_and_takes_no_room() -> None:
    member = Discriminant(WIDEST + 1, 2)
    rows = rows_of(np.ones((3, WIDEST + 1)), np.ones(3), classes=2)
    rows = rows._replace(prior=np.tile([0.25, 0.75], (3, 1)))
    np.testing.assert_array_equal(play(member, rows, Window(1, WIDEST + 1, 0))[0], rows.prior)
    np.testing.assert_array_equal(asked(member, rows, WINDOW)[0], rows.prior)
    assert member.state()["inverse"].size == 0


@pytest.mark.parametrize(("columns", "classes"), [(5, 2), (3, 4), (WIDEST + 2, 3)])
def test_growing_and_rest(columns: int, classes: int) -> None:
    z, y = leaning(200)
    member, again = played(z, y, np.ones(200), 2), Discriminant(3, 2)
    before = asked(member, rows_of(z, y, classes=2), WINDOW)
    member.grow(columns, classes, 0)
    wide = rows_of(np.pad(z, ((0, 0), (0, columns - 3))), y, classes=classes)
    after = asked(member, wide, WINDOW)
    if columns <= WIDEST:
        np.testing.assert_allclose(after[..., 1] / after[..., 0], before[..., 1] / before[..., 0], rtol=1e-9)
    again.load(member.state())
    for one in (member, again):
        play(one, wide, Window(1, columns, 0))
    assert_same(again.state(), member.state())
