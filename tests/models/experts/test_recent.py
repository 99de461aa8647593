"""Rates are decayed counts, moments are Welford's, and a chain's next label is known from its last."""

import numpy as np
import pytest

from models.experts.recent import BELIEF, CHANGE_KEEP, FOLLOWS_KEEP, KEEPS, LATE, Recent, prior_of
from tests.models.experts.made import assert_same


def learned(member: Recent, y: np.ndarray, w: np.ndarray | None = None, *, classes: int) -> tuple[np.ndarray, ...]:
    """Answers (N, B, K) and units (4, B), each before its label."""
    out = np.empty((len(member.names), len(y), classes))
    weights = np.ones(len(y)) if w is None else w
    return out, member.learn(y.astype(np.float32), weights.astype(np.float32), out)


def test_rates_and_transitions_are_decayed_counts() -> None:
    rng = np.random.default_rng(0)
    y, w = rng.integers(0, 3, 200), rng.uniform(0.5, 3, 200).astype(np.float32)
    member = Recent(3)
    learned(member, y, w, classes=3)
    state = member.state()
    ages = np.arange(200)[::-1]
    for s, keep in enumerate(KEEPS):
        np.testing.assert_allclose(state["rates"][s], [(w * keep**ages)[y == k].sum() for k in range(3)])
    follows = np.zeros((3, 3))
    for before, k, weight in zip(y, y[1:], w[1:], strict=False):
        follows[before] *= FOLLOWS_KEEP
        follows[before, k] += weight
    np.testing.assert_allclose(state["follows"], follows)


def test_a_faster_rate_believes_in_the_slower() -> None:
    member = Recent(2)
    learned(member, np.array([1.0]), classes=2)
    out = np.empty((4, 1, 2))
    member.predict(1, out)
    slow = (1 + BELIEF * 0.5) / (1 + BELIEF)
    np.testing.assert_allclose(out[:2, 0, 1], [slow, (1 + BELIEF * slow) / (1 + BELIEF)])
    np.testing.assert_array_equal(prior_of(out), out[LATE])


@pytest.mark.parametrize("classes", [2, 4])
def test_the_next_of_a_chain_is_known_from_the_last(classes: int) -> None:
    rng = np.random.default_rng(0)
    y, chance = np.zeros(600), rng.random(600)
    for i in range(1, 600):
        y[i] = (y[i - 1] + 1) % classes if chance[i] < 0.9 else y[i - 1]
    out, _ = learned(Recent(classes), y, classes=classes)
    assert (out[3, 100:].argmax(axis=1) == y[100:]).mean() > 0.87


def test_answers_before_any_label_are_even() -> None:
    out = np.empty((4, 2, 3))
    Recent(3).predict(2, out)
    np.testing.assert_allclose(out, 1 / 3)


def test_units_are_the_moments_of_the_values_so_far() -> None:
    rng = np.random.default_rng(0)
    y, w = 50 + 3 * rng.normal(size=90), rng.uniform(0.5, 3, 90)
    _, units = learned(Recent(1), y, w, classes=1)
    y, w = y.astype(np.float32).astype(np.float64), w.astype(np.float32).astype(np.float64)
    for b in (2, 10, 89):
        mean = np.average(y[:b], weights=w[:b])
        decayed = w[1:b] * CHANGE_KEEP ** np.arange(b - 1)[::-1]
        wanted = [
            mean,
            np.sqrt(np.average((y[:b] - mean) ** 2, weights=w[:b])),
            y[b - 1],
            np.sqrt(np.average(np.diff(y[:b]) ** 2, weights=decayed)),
        ]
        np.testing.assert_allclose(units[:, b], wanted, rtol=1e-6)


def test_an_absurd_value_hardly_moves_the_units() -> None:
    member, rng = Recent(1), np.random.default_rng(0)
    learned(member, rng.normal(size=500), classes=1)
    learned(member, np.array([1e20]), classes=1)
    units = member.predict(1, np.empty((5, 1, 1)))
    assert abs(units[0, 0]) < 0.2
    assert 0.8 < units[1, 0] < 1.5


def test_a_trend_is_repeated() -> None:
    rng = np.random.default_rng(0)
    changes = np.zeros(3000)
    for i in range(1, 3000):
        changes[i] = 0.9 * changes[i - 1] + rng.normal()
    y = np.cumsum(changes)
    out, _ = learned(Recent(1), y, classes=1)
    last, trend = (np.abs(out[i, -1000:, 0] - y[-1000:]).mean() for i in (3, 4))
    assert trend < 0.75 * last


def test_a_new_class_has_never_come_and_rest_keeps_all() -> None:
    member, again = Recent(2), Recent(2)
    learned(member, np.array([0, 1, 1.0]), classes=2)
    member.grow(3)
    assert not member.state()["rates"][:, 2].any()
    again.load(member.state())
    for one in (member, again):
        learned(one, np.array([2, 0, 2.0]), classes=3)
    assert_same(again.state(), member.state())
