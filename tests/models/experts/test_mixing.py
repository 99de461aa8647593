"""The whole is hardly worse than its best member, whichever that is now; members are as sure as they are right."""

import numpy as np
import pytest

from models.experts.mixing import (
    LEAST_SURE,
    MOST_NOISE,
    MOST_SURE,
    PATIENCE,
    SWITCH,
    TINY,
    USUAL,
    Mixing,
    median,
    paced,
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


def with_usual(p: np.ndarray) -> np.ndarray:
    """Members (M, B), and in front of them the one that says what is usual: both classes come equally often."""
    return np.insert(p, USUAL, 0.5, axis=0)


def labels(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(truth)) < truth).astype(float)


def over(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


# The whole ------------------------------------------------------------------------------------------


def one_knows(n: int) -> tuple[np.ndarray, np.ndarray]:
    truth = over(2 * np.random.default_rng(1).normal(size=n))
    guess = over(np.random.default_rng(2).normal(size=(4, n)))
    return with_usual(np.concatenate([truth[None], guess])), labels(truth)


def the_best_changes(n: int) -> tuple[np.ndarray, np.ndarray]:
    p, y = one_knows(n)
    p[1:3, n // 2 :] = p[2:0:-1, n // 2 :]
    return p, y


def all_alike(n: int) -> tuple[np.ndarray, np.ndarray]:
    p, y = one_knows(n)
    return with_usual(np.repeat(p[1:2], 5, axis=0)), y


def nobody_knows(n: int) -> tuple[np.ndarray, np.ndarray]:
    p, _ = one_knows(n)
    p[1] = 0.5
    return p, labels(np.full(n, 0.5))


def all_know_a_part(n: int) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(1).normal(size=(5, n))
    return with_usual(over(z)), labels(over(z.sum(axis=0)))


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
    assert mix.weights().argmax() == 2


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
    assert np.abs(mix.predict(p[:, -50:])[0] - y[-50:, None]).mean() < 5


# Calibration ----------------------------------------------------------------------------------------


def test_an_over_confident_member_is_toned_down() -> None:
    logits = np.random.default_rng(0).normal(size=4000)
    mix = learned(binary(with_usual(over(3 * logits)[None])), labels(over(logits)))
    power, noise = mix.state()["sure"][:2, 1]
    assert 0.28 < power / (1 - noise) < 0.42


def test_a_timid_member_is_encouraged() -> None:
    logits = 3 * np.random.default_rng(0).normal(size=4000)
    mix = learned(binary(with_usual(over(logits / 3)[None])), labels(over(logits)))
    assert mix.state()["sure"][0, 1] > 2.2


def test_label_noise_is_found() -> None:
    rng = np.random.default_rng(0)
    p = over(4 * rng.normal(size=80_000))  # it is found slowly: the power explains most of it at first
    told = np.where(rng.random(80_000) < 0.2, rng.integers(0, 2, 80_000), labels(p))
    mix = learned(binary(with_usual(p[None])), told)
    assert mix.state()["sure"][1, 1] == pytest.approx(0.2, abs=0.05)
    assert mix.predict(binary(with_usual(np.full((1, 1), 0.999))))[0][0, 1] == pytest.approx(0.9, abs=0.03)


def test_calibration_stays_within_its_bounds() -> None:
    y = np.random.default_rng(0).integers(0, 2, 3000)
    p = np.stack([np.where(y == 1, 0.6, 0.4), np.where(y == 1, 1e-9, 1.0)])
    sure = learned(binary(with_usual(p)), y).state()["sure"]
    assert LEAST_SURE <= sure[0].min() <= sure[0].max() <= MOST_SURE
    assert TINY <= sure[1].min() <= sure[1].max() <= MOST_NOISE


def test_what_is_usual_has_no_power() -> None:
    rates = np.stack([np.full(500, 0.2), over(np.random.default_rng(0).normal(size=500))])
    sure = learned(binary(rates), labels(np.full(500, 0.2))).state()["sure"]
    assert sure[0, USUAL] == 1  # no power makes the usual more or less sure than it is


def test_where_nothing_is_told_the_usual_is_the_answer() -> None:
    rates = np.full((3, 2000), 0.03)
    said, _ = learned(binary(rates), labels(np.full(2000, 0.03))).predict(binary(rates[:, :1]))
    assert said[0, 1] == pytest.approx(0.03, abs=0.01)


# Late labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 1])
def test_ways_are_judged_by_what_they_told(classes: int) -> None:
    rng = np.random.default_rng(0)
    p, y = (binary(over(rng.normal(size=(3, 40)))), np.ones(40)) if classes == 2 else values(40, change=False)
    right = np.stack([1 - y, y], axis=1) if classes == 2 else y[:, None]
    for best in range(3):
        mix = Mixing(3, classes)
        told = np.repeat((1 - right if classes == 2 else right + 500)[None], mix.ways, axis=0)
        told[best] = right
        mix.learn(p, y.astype(np.float32), np.ones(40, np.float32), told)
        final, losses = mix.state()["final"], mix.state()["totals"][3:-1].astype(float)
        assert final.argmax() == best
        assert final[best] > 0.99
        assert losses.argmin() == best
        assert losses[best] < 0.01 * np.delete(losses, best).min()


@pytest.mark.parametrize("classes", [2, 1])
def test_told_now_is_as_not_told(classes: int) -> None:
    p, y = values(60, change=True) if classes == 1 else the_best_changes(60)
    p = p if classes == 1 else binary(p)
    told, not_told = Mixing(len(p), classes), Mixing(len(p), classes)
    for b in range(60):
        row, label, one = p[:, b : b + 1], y[b : b + 1].astype(np.float32), np.ones(1, np.float32)
        _, ways = told.predict(row)
        told.learn(row, label, one, ways, np.zeros(1))
        not_told.learn(row, label, one)
    assert_same(told.state(), not_told.state())


def test_the_typical_lateness_is_a_mean_of_late() -> None:
    lateness = np.zeros(2)
    paces = [paced(lateness, late) for late in (6.0, 0.0, 3.0)]
    np.testing.assert_allclose(paces, [1 / (1 + mean / PATIENCE) for mean in (6, 3, 3)])
    for _ in range(5000):
        paced(lateness, 10.0)
    assert lateness[1] == pytest.approx(10, abs=0.01)
    for _ in range(5000):
        at_once = paced(lateness, 0.0)
    assert at_once == pytest.approx(1, abs=0.01)  # it forgets


@pytest.mark.parametrize("classes", [2, 1])
def test_late_labels_move_the_mixing_by_smaller_steps(classes: int) -> None:
    p, y = values(1, change=False) if classes == 1 else one_knows(1)
    p, label, one = p if classes == 1 else binary(p), y.astype(np.float32), np.ones(1, np.float32)
    late, light = Mixing(len(p), classes), Mixing(len(p), classes)
    late.learn(p, label, one, late=np.full(1, 9.0 * PATIENCE))
    light.learn(p, label, one / 10)
    for name in ("stack", "bias", "sure"):
        np.testing.assert_allclose(late.state()[name], light.state()[name], rtol=1e-6)
    drift, wanted = (np.ptp(np.log(mix.share)) for mix in (late, light))
    assert drift == pytest.approx(wanted, rel=0.01)  # but for what is dealt out anew
    np.testing.assert_array_equal(late.state()["lateness"], [1, 9 * PATIENCE])
    everything = Mixing(len(p), classes)
    everything.learn(p, label, one)
    np.testing.assert_array_equal(late.totals, everything.totals)


# Formulas -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [1.0, 0.25])
def test_weights_follow_the_losses_and_share_a_little(pace: float) -> None:
    weights, losses = np.array([0.2, 0.5, 0.3]), np.array([1.0, 3.0, 0.5])
    wanted = weights * np.exp(-2 * pace * losses)
    wanted = (1 - SWITCH * pace) * wanted / wanted.sum() + SWITCH * pace / 3
    reweigh(weights, losses, 2.0, pace)
    np.testing.assert_allclose(weights, wanted)


@pytest.mark.parametrize("usual", [np.full(3, 1 / 3), np.array([0.1, 0.3, 0.6])])
def test_a_sure_answer_is_a_power_against_the_usual_and_noise(usual: np.ndarray) -> None:
    p, (evidence, logs, q) = np.array([0.7, 0.2, 0.1]), np.empty((3, 3))
    sure_of(p, usual, np.log(usual), 2.0, 0.3, evidence, logs, q)
    raised = usual * (p / usual) ** 2
    wanted = 0.7 * raised / raised.sum() + 0.3 * usual
    np.testing.assert_allclose(q, wanted)
    np.testing.assert_allclose(logs, np.log(wanted))
    np.testing.assert_allclose(evidence, np.log(p / usual))


def test_the_median_is_where_half_of_the_weight_is_reached() -> None:
    values = np.array([5.0, -1.0, 2.0])
    assert median(values, np.array([0.2, 0.2, 0.6])) == 2
    assert median(values, np.array([0.6, 0.2, 0.2])) == 5


def test_answers_are_probabilities_and_predicting_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(7, 0.1), (5, 200))
    p[USUAL], p[1, :, 3] = rng.dirichlet(np.full(7, 5.0)), 1e-300
    mix = learned(p, rng.integers(0, 7, 200))
    before, (said, told) = mix.state(), mix.predict(p)
    assert_same(mix.state(), before)
    assert told.shape == (mix.ways, *said.shape)
    np.testing.assert_allclose(np.einsum("a,abk->bk", mix.state()["final"], told), said)
    for answers in (said, *told):
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-9)
        assert ((answers > 0) & (answers < 1)).all()


def test_rest_keeps_all_and_new_classes_have_no_bias() -> None:
    p, y = one_knows(300)
    mix, again = learned(binary(p), y), Mixing(6, 2)
    mix.grow(3)
    assert not mix.state()["bias"][:, 2].any()
    again.load(mix.state())
    wide = np.random.default_rng(0).dirichlet(np.ones(3), (6, 100))
    for one in (mix, again):
        one.learn(wide, np.arange(100, dtype=np.float32) % 3, np.ones(100, np.float32))
    assert_same(again.state(), mix.state())
