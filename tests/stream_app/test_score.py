from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.score import (
    BLOCK_ROWS,
    BinaryScore,
    MulticlassScore,
    Prequential,
    RegressionScore,
    State,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Task = Literal["binary", "multiclass", "regression"]
TASKS: tuple[tuple[Task, int], ...] = (("binary", 2), ("multiclass", 4), ("regression", 0))


def exact_auc(p: Floats, y: Ints) -> float:
    """By comparing every distinct score, ties as a half."""
    _, bin_of = np.unique(p, return_inverse=True)
    positive = np.bincount(bin_of, weights=y)
    negative = np.bincount(bin_of, weights=1 - y)
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))


def drawn(logit_mean: float, logit_deviation: float, rows: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Calibrated probabilities and their labels."""
    rng = np.random.default_rng(seed)
    p = 1.0 / (1.0 + np.exp(-rng.normal(logit_mean, logit_deviation, rows)))
    return p, (rng.random(rows) < p).astype(np.int64)


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


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
    assert list(got) == ["count", "auc", "accuracy", "log_loss"]
    assert got["count"] == 4
    assert got["accuracy"] == 0.5  # 0.5 says the positive class
    assert got["auc"] == 0.75
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
    assert list(got) == ["count", "accuracy", "log_loss", "macro_f1"]
    assert got["accuracy"] == 0.75
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


def rows_of(task: Task, classes: int, rows: int, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Scores (B, K), targets, last labels (some unknown), priors (B, K)."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        target = rng.normal(0.0, 2.0, rows)
        last = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(0.0, 2.0, rows))
        return (
            target[:, None] + rng.normal(size=(rows, 1)),
            target,
            last,
            rng.normal(size=(rows, 1)),
        )
    target = rng.integers(0, classes, rows).astype(np.float64)
    last = rng.integers(-1, classes, rows).astype(np.float64)
    if task == "binary":
        return rng.random((rows, 1)), target, last, rng.random((rows, 1))
    concentration = np.ones(classes)
    return rng.dirichlet(concentration, rows), target, last, rng.dirichlet(concentration, rows)


def fed(task: Task, classes: int, cuts: list[int], rows: int, seed: int) -> Prequential:
    scored = Prequential(task, classes)
    columns = rows_of(task, classes, rows, seed)
    bounds = [0, *sorted(cuts), rows]
    for start, end in pairwise(bounds):
        scored.add(*(c[start:end] for c in columns))
    return scored


@settings(max_examples=25, deadline=None)
@given(
    which=st.sampled_from(TASKS),
    cuts=st.lists(st.integers(0, 25_000), max_size=12),
    seed=st.integers(0, 3),
)
def test_chunks_do_not_matter(which: tuple[Task, int], cuts: list[int], seed: int) -> None:
    at_once = fed(*which, [], 25_000, seed)
    in_chunks = fed(*which, cuts, 25_000, seed)
    assert same(at_once.state(), in_chunks.state())
    assert at_once.metrics() == in_chunks.metrics()


@settings(max_examples=15, deadline=None)
@given(which=st.sampled_from(TASKS), stop=st.integers(0, 30_000))
def test_save_and_load_is_like_never_stopping(which: tuple[Task, int], stop: int) -> None:
    columns = rows_of(*which, 30_000, 5)
    whole, first, second = (Prequential(*which) for _ in range(3))
    whole.add(*columns)
    first.add(*(c[:stop] for c in columns))
    saved = first.state()
    second.load(saved)
    first.add(*(c[stop:] for c in columns))  # must not reach into what was saved or loaded
    second.add(*(c[stop:] for c in columns))
    assert same(second.state(), whole.state())
    assert second.metrics() == whole.metrics()


def test_load_refuses_another_kind() -> None:
    with pytest.raises(ValueError, match=r"score state 'counts' is int64\(36,\), wanted int64\(4640,\)"):
        Prequential("binary", 2).load(Prequential("multiclass", 4).state())
    with pytest.raises(ValueError, match="score state 'rows' is missing, wanted int64"):
        Prequential("binary", 2).load({})


def test_binary_metrics_have_flat_names_and_the_baselines() -> None:
    scored = Prequential("binary", 2)
    scored.add(
        scores=[[0.9], [0.2], [0.8], [0.4]],
        target=[1, 0, 1, 1],
        nochange=[-1, 1, 0, 1],
        prior=[[0.3], [0.9], [0.4], [0.6]],
    )
    got = scored.metrics()
    names = ["auc", "accuracy", "log_loss"]
    wanted = ["count", "kappa_temporal"]
    wanted += [p + n for p in ("", "majority_", "nochange_") for n in names]
    assert set(got) == set(wanted) | {f"window_{n}" for n in wanted}
    assert got["accuracy"] == 0.75
    assert got["majority_accuracy"] == 0.25
    assert got["majority_log_loss"] == pytest.approx(-np.log([0.3, 0.1, 0.4, 0.6]).mean())
    assert got["nochange_accuracy"] == 0.25  # knew nothing at first and said what the prior said
    assert got["kappa_temporal"] == pytest.approx((0.75 - 0.25) / (1 - 0.25))
    assert got["window_kappa_temporal"] == got["kappa_temporal"]
    assert got["window_count"] == 4


def test_multiclass_and_regression_baselines() -> None:
    many = Prequential("multiclass", 3)
    many.add([[0.1, 0.8, 0.1]] * 2, [1, 2], [1, -1], [[0.2, 0.3, 0.5]] * 2)
    got = many.metrics()
    assert got["accuracy"] == 0.5
    assert got["majority_accuracy"] == 0.5
    assert got["nochange_accuracy"] == 1.0
    assert np.isnan(got["kappa_temporal"])
    number = Prequential("regression", 0)
    number.add([[1.0], [2.0]], [1.5, 2.5], [np.nan, 1.5], [[0.5], [1.0]])
    got = number.metrics()
    assert got["mae"] == 0.5
    assert got["majority_mae"] == 1.25
    assert got["nochange_mae"] == 1.0
    assert got["kappa_temporal"] == 0.5


def test_a_score_that_is_not_finite_counts_as_the_prior() -> None:
    scored = Prequential("binary", 2)
    scored.add([[np.nan], [np.inf]], [0, 0], [-1, -1], [[0.2], [0.3]])
    got = scored.metrics()
    assert got["log_loss"] == got["majority_log_loss"]


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


def test_no_rows_change_nothing() -> None:
    for task, classes in TASKS:
        scored = fed(task, classes, [], 10, 0)
        before = scored.state()
        scored.add(*(c[:0] for c in rows_of(task, classes, 10, 0)))
        assert same(before, scored.state())


def test_inputs_are_left_alone_and_the_state_is_small() -> None:
    columns = rows_of("binary", 2, 3 * BLOCK_ROWS, 0)
    before = [c.copy() for c in columns]
    scored = Prequential("binary", 2)
    scored.add(*columns)
    assert all(np.array_equal(a, b) for a, b in zip(before, columns, strict=True))
    assert sum(a.nbytes for a in scored.state().values()) < 61_000
