"""The whole is hardly worse than its best member, whichever that is now; members are as sure as they are right."""

import numpy as np
import pytest

from models.experts.mixing import (
    LEAST_SURE,
    MOST_NOISE,
    MOST_SURE,
    SWITCH,
    TINY,
    Mixing,
    median,
    reweigh,
    sure_of,
)
from tests.models.experts.made import assert_same


def binary(p: np.ndarray) -> np.ndarray:
    """Probabilities of the second class (M, B) -> (M, B, 2)."""
    return np.stack([1 - p, p], axis=2)


def learned(p: np.ndarray, y: np.ndarray) -> Mixing:
    mix = Mixing(len(p), p.shape[2])
    mix.learn(p, y.astype(np.float32), np.ones(len(y), np.float32))
    return mix


def labels(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(truth)) < truth).astype(float)


def over(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


# The whole ------------------------------------------------------------------------------------------


def one_knows(n: int) -> tuple[np.ndarray, np.ndarray]:
    truth = over(2 * np.random.default_rng(1).normal(size=n))
    guess = over(np.random.default_rng(2).normal(size=(4, n)))
    return np.concatenate([truth[None], guess]), labels(truth)


def the_best_changes(n: int) -> tuple[np.ndarray, np.ndarray]:
    p, y = one_knows(n)
    p[:2, n // 2 :] = p[1::-1, n // 2 :]
    return p, y


def all_alike(n: int) -> tuple[np.ndarray, np.ndarray]:
    p, y = one_knows(n)
    return np.repeat(p[:1], 5, axis=0), y


def nobody_knows(n: int) -> tuple[np.ndarray, np.ndarray]:
    p, _ = one_knows(n)
    p[0] = 0.5
    return p, labels(np.full(n, 0.5))


def all_know_a_part(n: int) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(1).normal(size=(5, n))
    return over(z), labels(over(z.sum(axis=0)))


@pytest.mark.parametrize("made", [one_knows, the_best_changes, all_alike, nobody_knows, all_know_a_part])
def test_the_whole_loses_hardly_more_than_the_best_member(made: object) -> None:
    p, y = made(4000)  # type: ignore[operator]
    mix = learned(binary(p), y)
    members, whole = mix.totals[: len(p)], mix.totals[-1]
    assert whole <= members.min() + 0.005 * len(y)


def test_when_the_best_changes_the_whole_beats_every_member() -> None:
    p, y = the_best_changes(4000)
    mix = learned(binary(p), y)
    assert mix.totals[-1] < mix.totals[: len(p)].min() - 0.05 * len(y)
    assert mix.weights().argmax() == 1


def test_parts_of_knowledge_are_added_up() -> None:
    p, y = all_know_a_part(4000)
    mix = learned(binary(p), y)
    truth = over(np.log(p / (1 - p)).sum(axis=0))
    best = -np.log(np.where(y == 1, truth, 1 - truth)).sum()
    assert mix.totals[-1] < best + 0.04 * len(y)


def values(n: int, *, change: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = 100 * rng.normal(size=n)
    p = y + np.array([[1.0], [30.0], [60.0]]) * rng.standard_t(3, size=(3, n))
    if change:
        p[:2, n // 2 :] = p[1::-1, n // 2 :]
    return p[..., None], y


@pytest.mark.parametrize("change", [False, True])
def test_of_values_too(change: bool) -> None:
    p, y = values(4000, change=change)
    mix = learned(p, y)
    assert mix.totals[-1] < mix.totals[:3].min() + 0.005 * 100 * len(y)
    assert mix.weights().argmax() == (1 if change else 0)


def test_a_member_gone_mad_is_not_listened_to() -> None:
    p, y = values(1000, change=False)
    p[2, 500:] = 1e20
    mix = learned(p, y)
    assert np.abs(mix.predict(p[:, -50:]) - y[-50:, None]).mean() < 5


# Calibration ----------------------------------------------------------------------------------------


def test_an_over_confident_member_is_toned_down() -> None:
    logits = np.random.default_rng(0).normal(size=4000)
    mix = learned(binary(over(3 * logits)[None]), labels(over(logits)))
    power, noise = mix.state()["sure"][:2, 0]
    assert 0.28 < power / (1 - noise) < 0.42


def test_a_timid_member_is_encouraged() -> None:
    logits = 3 * np.random.default_rng(0).normal(size=4000)
    mix = learned(binary(over(logits / 3)[None]), labels(over(logits)))
    assert mix.state()["sure"][0, 0] > 2.2


def test_label_noise_is_found() -> None:
    rng = np.random.default_rng(0)
    p = over(4 * rng.normal(size=80_000))  # it is found slowly: the power explains most of it at first
    told = np.where(rng.random(80_000) < 0.2, rng.integers(0, 2, 80_000), labels(p))
    mix = learned(binary(p[None]), told)
    assert mix.state()["sure"][1, 0] == pytest.approx(0.2, abs=0.05)
    assert mix.predict(binary(np.full((1, 1), 0.999)))[0, 1] == pytest.approx(0.9, abs=0.03)


def test_calibration_stays_within_its_bounds() -> None:
    y = np.random.default_rng(0).integers(0, 2, 3000)
    p = np.stack([np.where(y == 1, 0.6, 0.4), np.where(y == 1, 1e-9, 1.0)])
    sure = learned(binary(p), y).state()["sure"]
    assert LEAST_SURE <= sure[0].min() <= sure[0].max() <= MOST_SURE
    assert TINY <= sure[1].min() <= sure[1].max() <= MOST_NOISE


# Formulas -------------------------------------------------------------------------------------------


def test_weights_follow_the_losses_and_share_a_little() -> None:
    weights, losses = np.array([0.2, 0.5, 0.3]), np.array([1.0, 3.0, 0.5])
    wanted = weights * np.exp(-2 * losses)
    wanted = (1 - SWITCH) * wanted / wanted.sum() + SWITCH / 3
    reweigh(weights, losses, 2.0)
    np.testing.assert_allclose(weights, wanted)


def test_a_sure_answer_is_a_power_and_noise() -> None:
    p, logs, q = np.array([0.7, 0.2, 0.1]), np.empty(3), np.empty(3)
    sure_of(p, 2.0, 0.3, logs, q)
    wanted = 0.7 * p**2 / (p**2).sum() + 0.3 / 3
    np.testing.assert_allclose(q, wanted)
    np.testing.assert_allclose(logs, np.log(wanted))


def test_the_median_is_where_half_of_the_weight_is_reached() -> None:
    values = np.array([5.0, -1.0, 2.0])
    assert median(values, np.array([0.2, 0.2, 0.6])) == 2
    assert median(values, np.array([0.6, 0.2, 0.2])) == 5


def test_answers_are_probabilities_and_predicting_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(7, 0.1), (5, 200))
    p[0, :, 3] = 1e-300
    mix = learned(p, rng.integers(0, 7, 200))
    before, said = mix.state(), mix.predict(p)
    assert_same(mix.state(), before)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-9)
    assert ((said > 0) & (said < 1)).all()


def test_rest_keeps_all_and_new_classes_have_no_bias() -> None:
    p, y = one_knows(300)
    mix, again = learned(binary(p), y), Mixing(5, 2)
    mix.grow(3)
    assert not mix.state()["bias"][:, 2].any()
    again.load(mix.state())
    wide = np.random.default_rng(0).dirichlet(np.ones(3), (5, 100))
    for one in (mix, again):
        one.learn(wide, np.arange(100, dtype=np.float32) % 3, np.ones(100, np.float32))
    assert_same(again.state(), mix.state())
