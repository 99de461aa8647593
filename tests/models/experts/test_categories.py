"""A code's column says how its labels have been going, against what is typical."""

import numpy as np
import pytest

from models.experts.categories import BELIEF, KEEP, LIVELY, MOST, REACH, Categories, columns_of
from tests.models.experts.made import assert_same


def learned(table: Categories, codes: np.ndarray, y: np.ndarray, prior: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """The columns of each row, before its label."""
    wide = columns_of(prior.shape[1])
    z = np.zeros((len(y), wide), np.float32)
    ones = np.ones(len(y), np.float32)
    at = np.arange(wide)[None]
    table.learn(z, codes[:, None], y.astype(np.float32), ones, prior, np.full(len(y), scale), at)
    return z


def test_a_codes_rate_is_a_decayed_mean_pulled_toward_the_typical() -> None:
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 3, 100), rng.integers(0, 3, 100)
    prior = rng.dirichlet(np.ones(3), 100)
    z = learned(Categories(3, 3), codes, y, prior)
    for b in (0, 5, 99):
        before = (codes[:b] == codes[b]).nonzero()[0]
        decayed = KEEP ** np.arange(len(before))[::-1]
        for t in (1, 2):
            rate = (decayed @ (y[before] == t) + BELIEF * prior[b, t]) / (decayed.sum() + BELIEF)
            assert z[b, t - 1] == pytest.approx(LIVELY * (rate - prior[b, t]), abs=1e-6)


def test_a_codes_value_is_counted_in_deviations() -> None:
    codes, y = np.arange(200) % 2, np.where(np.arange(200) % 2, 130.0, 70.0)
    z = learned(Categories(2, 1), codes, y, np.full((200, 1), 100.0), scale=30.0)
    np.testing.assert_allclose(z[-2:, 0], [-1, 1], atol=0.05)


def test_a_column_ends_at_its_reach() -> None:
    z = learned(Categories(1, 1), np.zeros(9, np.int64), np.full(9, 1e20), np.zeros((9, 1)))
    assert z.max() == REACH


def test_predicting_says_what_learning_would_and_changes_nothing() -> None:
    table, codes, prior = Categories(4, 2), np.array([0, 1, 2, 1]), np.full((4, 2), 0.5)
    learned(table, codes, np.array([1, 0, 1, 0]), prior)
    before, z = table.state(), np.zeros((1, 1), np.float32)
    table.predict(z, np.array([[1]]), prior[:1], np.ones(1), np.zeros((1, 1), np.int64))
    assert_same(table.state(), before)
    assert z[0, 0] == learned(table, np.array([1]), np.array([0]), prior[:1])[0, 0]


def test_many_classes_have_so_many_columns_at_most() -> None:
    assert [columns_of(k) for k in (1, 2, 5, 16, 100)] == [1, 1, 4, MOST, MOST]
    z = learned(Categories(2, 100), np.zeros(5, np.int64), np.full(5, 99), np.full((5, 100), 0.01))
    assert z.shape == (5, MOST)
    assert np.isfinite(z).all()


def test_growing_forgetting_and_rest() -> None:
    table, again = Categories(2, 2), Categories(2, 2)
    learned(table, np.array([0, 1]), np.array([1, 1]), np.full((2, 2), 0.5))
    table.grow(3, 3)
    state = table.state()
    np.testing.assert_array_equal(state["weight"], [1, 1, 0])
    np.testing.assert_array_equal(state["sums"], [[1, 0], [1, 0], [0, 0]])
    table.forget(np.array([1], np.int64))
    np.testing.assert_array_equal(table.state()["weight"], [1, 0, 0])
    np.testing.assert_array_equal(table.state()["sums"][1], [0, 0])
    again.load(table.state())
    assert_same(again.state(), table.state())
