"""Measures against what numpy and river's metrics say of the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import metrics

from stream_app.measures import MOST_RANKED_CLASSES, BinaryScore, ClassCount, MulticlassScore, RegressionScore

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def exact_auc(p: Floats, y: Ints) -> float:
    """By comparing every distinct score, ties as a half."""
    _, bin_of = np.unique(p, return_inverse=True)
    positive = np.bincount(bin_of, weights=y)
    negative = np.bincount(bin_of, weights=1 - y)
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))


def exact_average_precision(p: Floats, y: Ints) -> float:
    """Sum of (recall gained) * precision over every distinct threshold."""
    _, where = np.unique(-p, return_inverse=True)  # thresholds fall
    positive, rows = np.bincount(where, weights=y), np.bincount(where)
    return float(positive @ (positive.cumsum() / rows.cumsum()) / positive.sum())


def exact_calibration_error(confidence: Floats, outcome: Ints, weights: Floats) -> float:
    """Guo et al. 2017, Eq. 3, bin by bin."""
    found = 0.0
    for b in range(15):
        inside = (confidence >= b / 15) & (confidence < (b + 1) / 15 + (b == 14))
        if inside.any():
            w = weights[inside]
            gap = np.average(confidence[inside], weights=w) - np.average(outcome[inside], weights=w)
            found += w.sum() / weights.sum() * abs(gap)
    return float(found)


def drawn(logit_mean: float, logit_deviation: float, rows: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Calibrated probabilities and their labels."""
    rng = np.random.default_rng(seed)
    p = 1.0 / (1.0 + np.exp(-rng.normal(logit_mean, logit_deviation, rows)))
    return p, (rng.random(rows) < p).astype(np.int64)


REALISTIC = [(-1.4, 0.9), (-7.0, 1.2), (0.0, 4.0), (-1.5, 0.15), (3.0, 1.0)]


@pytest.mark.parametrize(("mean", "deviation"), REALISTIC)
def test_binned_auc_is_within_1e_4_of_the_exact_one(mean: float, deviation: float) -> None:
    p, y = drawn(mean, deviation, 200_000)
    score = BinaryScore()
    score.add(p, y)
    assert score.summary()["auc"] == pytest.approx(exact_auc(p, y), abs=1e-4)


@pytest.mark.parametrize(("mean", "deviation"), [r for r in REALISTIC if r[0] > -5])
def test_windowed_auc_is_within_1e_3_of_the_exact_one(mean: float, deviation: float) -> None:
    p, y = drawn(mean, deviation, 45_000)
    score = BinaryScore()
    score.add(p, y)
    newest = slice(45_000 - 19_000, None)
    assert score.window()["count"] == 19_000
    assert score.window()["auc"] == pytest.approx(exact_auc(p[newest], y[newest]), abs=1e-3)


@pytest.mark.parametrize(("mean", "deviation"), REALISTIC)
def test_binned_average_precision_is_within_1e_3_of_the_exact_one(mean: float, deviation: float) -> None:
    p, y = drawn(mean, deviation, 200_000)
    score = BinaryScore()
    score.add(p, y)
    assert score.summary()["pr_auc"] == pytest.approx(exact_average_precision(p, y), abs=1e-3)


@pytest.mark.parametrize(("mean", "deviation"), REALISTIC)
def test_calibration_error_is_exact(mean: float, deviation: float) -> None:
    p, y = drawn(mean, deviation, 20_000)
    said, weights = p**1.3, np.random.default_rng(1).gamma(2.0, 1.0, len(p)) + 1e-3
    score = BinaryScore()
    score.add(said, y, weights)
    assert score.summary()["calibration_error"] == pytest.approx(exact_calibration_error(said, y, weights))


def test_who_says_the_truth_is_calibrated() -> None:
    p, y = drawn(0.0, 1.5, 200_000)
    honest, boastful = BinaryScore(), BinaryScore()
    honest.add(p, y)
    boastful.add(np.where(p > 0.5, 0.99, 0.01), y)
    assert honest.summary()["calibration_error"] < 0.005
    assert boastful.summary()["calibration_error"] > 0.2


@pytest.mark.parametrize("classes", [3, 5, MOST_RANKED_CLASSES])
def test_auc_of_classes_is_the_mean_of_each_against_the_rest(classes: int) -> None:
    rng = np.random.default_rng(classes)
    p = rng.dirichlet(np.full(classes, 0.3), 19_000)
    y = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1).clip(0, classes - 1)
    score = MulticlassScore(classes)
    score.add(p, y)
    aucs = [exact_auc(p[:, k], (y == k).astype(np.int64)) for k in range(classes)]
    assert score.summary()["auc"] == pytest.approx(np.mean(aucs), abs=1e-3)
    assert score.window()["auc"] == pytest.approx(np.mean(aucs), abs=1e-2)


def test_a_class_that_never_came_is_not_ranked() -> None:
    score = MulticlassScore(3)
    score.add([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [0, 1])
    assert score.summary()["auc"] == 1.0


def test_multiclass_measures_are_rivers() -> None:
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(4), 2_000)
    y, w = rng.integers(0, 4, 2_000), rng.integers(1, 5, 2_000)
    score = MulticlassScore(4)
    score.add(p, y, w)
    macro_f1, accuracy, loss = metrics.MacroF1(), metrics.Accuracy(), metrics.CrossEntropy()
    matrix = metrics.ConfusionMatrix()
    for said, label, weight in zip(p, y.tolist(), w.tolist(), strict=True):
        for metric in (macro_f1, accuracy, matrix):
            metric.update(label, int(said.argmax()), weight)
        for _ in range(weight):
            loss.update(label, dict(enumerate(said)))
    got = score.summary()
    assert got["macro_f1"] == pytest.approx(macro_f1.get())
    assert got["accuracy"] == pytest.approx(accuracy.get())
    assert got["log_loss"] == pytest.approx(loss.get())
    confidence, hit = p.max(axis=1), (p.argmax(axis=1) == y).astype(np.int64)
    assert got["calibration_error"] == pytest.approx(exact_calibration_error(confidence, hit, w.astype(np.float64)))
    wanted = [(matrix.support(k), matrix.sum_col[k], matrix.true_positives(k)) for k in range(4)]
    assert score.classes() == wanted


def test_binary_measures_are_rivers() -> None:
    p, y = drawn(-0.5, 1.5, 2_000)
    w = np.random.default_rng(4).integers(1, 5, len(p))
    score = BinaryScore()
    score.add(p, y, w)
    macro_f1, loss, matrix = metrics.MacroF1(), metrics.LogLoss(), metrics.ConfusionMatrix()
    for said, label, weight in zip(p.tolist(), y.tolist(), w.tolist(), strict=True):
        macro_f1.update(label, int(said >= 0.5), weight)
        matrix.update(label, int(said >= 0.5), weight)
        loss.update(bool(label), said, weight)
    got = score.summary()
    assert got["macro_f1"] == pytest.approx(macro_f1.get())
    assert got["log_loss"] == pytest.approx(loss.get())
    assert score.classes() == [(matrix.support(k), matrix.sum_col[k], matrix.true_positives(k)) for k in (0, 1)]


def test_weighted_regression_measures_are_rivers() -> None:
    rng = np.random.default_rng(5)
    y, w = rng.normal(40.0, 10.0, 3_000), rng.gamma(2.0, 1.0, 3_000) + 1e-3
    said = y + rng.normal(0.0, 3.0, 3_000)
    score = RegressionScore()
    score.add(said, y, w)
    wanted = {"mae": metrics.MAE(), "rmse": metrics.RMSE()}
    for label, answer, weight in zip(y.tolist(), said.tolist(), w.tolist(), strict=True):
        for metric in wanted.values():
            metric.update(label, answer, weight)
    got = score.summary()
    assert {k: got[k] for k in wanted} == pytest.approx({k: m.get() for k, m in wanted.items()})
    spread = (w * (y - np.average(y, weights=w)) ** 2).sum()
    assert got["r2"] == pytest.approx(1 - (w * (said - y) ** 2).sum() / spread)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_that_is_not_above_0_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"a weight is {weight}, wanted a number above 0"):
        BinaryScore().add([0.5, 0.5], [1, 0], [1.0, weight])
    with pytest.raises(ValueError, match="a weight is nan, wanted a finite number"):
        RegressionScore().add([0.5], [1.0], [np.nan])


@pytest.mark.parametrize("centre", [0.2, 0.5, 0.7])
def test_auc_needs_probabilities_that_deviate(centre: float) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 19_000)
    z = rng.normal(size=y.size) + y
    wide, narrow = BinaryScore(), BinaryScore()
    p = centre + 0.05 * z / z.std()
    wide.add(p, y)
    assert wide.summary()["auc"] == pytest.approx(exact_auc(p, y), abs=1e-4)
    assert wide.window()["auc"] == pytest.approx(exact_auc(p, y), abs=1e-3)
    narrow.add(centre + 1e-4 + 1e-6 * z, y)
    assert narrow.summary()["auc"] == pytest.approx(0.5)  # the exact one is 0.76: all share one bin


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=2, max_size=60))
def test_auc_of_well_separated_scores_is_exact(rows: list[tuple[int, int]]) -> None:
    p = np.array([r[0] / 20 for r in rows])
    y = np.array([r[1] for r in rows])
    score = BinaryScore()
    score.add(p, y)
    if 0 < y.sum() < len(y):
        assert score.summary()["auc"] == pytest.approx(exact_auc(p, y), abs=1e-12)
    else:
        assert np.isnan(score.summary()["auc"])


def test_binary_summary_of_a_hand_counted_case() -> None:
    score = BinaryScore()
    score.add([0.9, 0.5, 0.4, 0.0], [1, 0, 1, 0])
    got = score.summary()
    assert list(got) == ["count", "log_loss", "calibration_error", "auc", "pr_auc", "accuracy", "macro_f1"]
    assert got["count"] == 4
    assert got["accuracy"] == 0.5  # 0.5 says the positive class
    assert got["auc"] == 0.75
    assert got["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert got["macro_f1"] == 0.5
    assert score.classes() == [ClassCount(2, 2, 1), ClassCount(2, 2, 1)]
    assert got["calibration_error"] == pytest.approx((0.1 + 0.5 + 0.6 + 0.0) / 4)  # each in a bin of its own
    wanted = -(np.log(0.9) + np.log(0.5) + np.log(0.4) + np.log(1 - 1e-6)) / 4
    assert got["log_loss"] == pytest.approx(wanted, rel=1e-12)


def test_log_loss_is_clipped_and_float32_overshoot_is_cut() -> None:
    score = BinaryScore()
    score.add(np.array([1.0000001, -1e-8], np.float32), [0, 1])
    assert score.summary()["log_loss"] == pytest.approx(-np.log(1e-6), rel=1e-9)


def test_tiny_probabilities_are_told_apart() -> None:
    score = BinaryScore()
    score.add([1e-9, 1e-8, 1e-7, 1e-6], [0, 0, 1, 1])
    assert score.summary()["auc"] == 1.0


def test_nothing_scored_is_nan() -> None:
    for score in (BinaryScore(), MulticlassScore(3), RegressionScore()):
        for summary in (score.summary(), score.window()):
            assert summary.pop("count") == 0
            assert all(np.isnan(v) for v in summary.values())


def test_one_sure_false_positive_is_not_lost_in_the_last_bin() -> None:
    score = BinaryScore()
    score.add([1.0, 0.0], [0, 0])
    assert score.summary()["accuracy"] == 0.5


def test_the_window_forgets() -> None:
    score = BinaryScore()
    score.add(np.full(30_000, 0.9), np.zeros(30_000, np.int64))
    score.add(np.full(20_000, 0.9), np.ones(20_000, np.int64))
    assert score.window()["accuracy"] == 1.0
    assert score.summary()["accuracy"] == 0.4
    assert score.window()["count"] == 20_000
    score.add([0.9], [1])
    assert score.window()["count"] == 18_001


def test_multiclass_against_hand_counts() -> None:
    score = MulticlassScore(3)
    p = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]
    score.add(p, [0, 1, 1, 1])
    got = score.summary()
    assert list(got) == ["count", "log_loss", "calibration_error", "accuracy", "macro_f1", "auc"]
    assert got["accuracy"] == 0.75
    assert got["calibration_error"] == pytest.approx((0.3 + 0.2 + 0.6 + 0.5) / 4)  # each in a bin of its own
    assert score.classes() == [ClassCount(1, 2, 1), ClassCount(3, 2, 2), ClassCount(0, 0, 0)]
    assert got["log_loss"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.5]).mean())
    assert got["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)  # class 2 never came up


def test_regression_against_numpy() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(40.0, 10.0, 5_000)
    said = y + rng.normal(0.0, 3.0, 5_000)
    score = RegressionScore()
    score.add(said, y)
    got = score.summary()
    assert list(got) == ["count", "mae", "rmse", "r2"]
    assert got["mae"] == pytest.approx(np.abs(said - y).mean())
    assert got["rmse"] == pytest.approx(np.sqrt(((said - y) ** 2).mean()))
    assert got["r2"] == pytest.approx(1 - ((said - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert score.window()["mae"] == pytest.approx(got["mae"])


def test_r2_of_a_constant_target_is_not_defined() -> None:
    score = RegressionScore()
    score.add([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    assert np.isnan(score.summary()["r2"])


@pytest.mark.parametrize("mean", [0.0, 1e7, -1e7, 1e12])
def test_r2_of_targets_far_from_zero(mean: float) -> None:
    rng = np.random.default_rng(2)
    y = mean + rng.normal(0.0, 1.0, 30_000)
    said = y + rng.normal(0.0, 0.5, 30_000)
    score = RegressionScore()
    score.add(said, y)
    for got, part in ((score.summary(), slice(None)), (score.window(), slice(30_000 - 20_000, None))):
        wanted = 1 - ((said - y)[part] ** 2).sum() / ((y - y[part].mean())[part] ** 2).sum()
        assert got["r2"] == pytest.approx(wanted, rel=1e-6)


def test_totals_of_two_workers_add_up() -> None:
    p, y = drawn(-1.4, 0.9, 5_000)
    whole, left, right = BinaryScore(), BinaryScore(), BinaryScore()
    whole.add(p, y)
    left.add(p[:3_000], y[:3_000])
    right.add(p[3_000:], y[3_000:])
    a, b, both = left.state(), right.state(), whole.state()
    assert np.array_equal(np.add(a["counts"], b["counts"]), both["counts"])
    assert np.allclose(np.add(a["sums"], b["sums"]), np.asarray(both["sums"], np.float64))


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="a label is 2, wanted a class index from 0 to 1"):
        BinaryScore().add([0.5], [2])
    with pytest.raises(ValueError, match="a label is -1, wanted a class index from 0 to 2"):
        MulticlassScore(3).add([[0.5, 0.3, 0.2]], [-1])
    with pytest.raises(ValueError, match="a probability is nan, wanted a finite number"):
        BinaryScore().add([0.5, np.nan], [1, 1])
    with pytest.raises(ValueError, match="a target is inf, wanted a finite number"):
        RegressionScore().add([0.5], [np.inf])
    with pytest.raises(ValueError, match="cannot reshape"):
        BinaryScore().add([0.5, 0.5, 0.5], [1, 1])
