from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.merging import Fork
from stream_app.score import Prequential
from stream_app.tally import BLOCK_ROWS, State

Floats = NDArray[np.float64]
Task = Literal["binary", "multiclass", "regression"]
TASKS: tuple[tuple[Task, int], ...] = (("binary", 2), ("multiclass", 4), ("multiclass", 40), ("regression", 0))


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def rows_of(task: Task, classes: int, rows: int, seed: int) -> tuple[Floats, ...]:
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


def fed(task: Task, classes: int, cuts: list[int], rows: int, seed: int, *, weighted: bool = False) -> Prequential:
    scored = Prequential(task, classes)
    columns = rows_of(task, classes, rows, seed)
    if weighted:
        columns = (*columns, np.random.default_rng(seed).gamma(2.0, 1.0, rows) + 1e-3)
    bounds = [0, *sorted(cuts), rows]
    for start, end in pairwise(bounds):
        scored.add(*(c[start:end] for c in columns))
    return scored


@settings(max_examples=25, deadline=None)
@given(
    which=st.sampled_from(TASKS),
    cuts=st.lists(st.integers(0, 25_000), max_size=12),
    seed=st.integers(0, 3),
    weighted=st.booleans(),
)
def test_chunks_do_not_matter(which: tuple[Task, int], cuts: list[int], seed: int, weighted: bool) -> None:
    at_once = fed(*which, [], 25_000, seed, weighted=weighted)
    in_chunks = fed(*which, cuts, 25_000, seed, weighted=weighted)
    assert same(at_once.state(), in_chunks.state())
    assert at_once.metrics() == in_chunks.metrics()
    assert at_once.classes() == in_chunks.classes()


@settings(max_examples=15, deadline=None)
@given(which=st.sampled_from(TASKS), stop=st.integers(0, 30_000), weighted=st.booleans())
def test_save_and_load_is_like_never_stopping(which: tuple[Task, int], stop: int, weighted: bool) -> None:
    columns = rows_of(*which, 30_000, 5)
    if weighted:
        columns = (*columns, np.random.default_rng(1).gamma(2.0, 1.0, 30_000) + 1e-3)
    whole, first, second = (Prequential(*which) for _ in range(3))
    whole.add(*columns)
    first.add(*(c[:stop] for c in columns))
    saved = first.state()
    second.load(saved)
    first.add(*(c[stop:] for c in columns))  # must not reach into what was saved or loaded
    second.add(*(c[stop:] for c in columns))
    assert same(second.state(), whole.state())
    assert second.metrics() == whole.metrics()


@pytest.mark.parametrize("rows", [(40, 60), (0, 60), (40, 0)])
def test_numbers_that_two_scored_from_nothing_are_those_of_one_who_scored_both(rows: tuple[int, int]) -> None:
    theirs, mine, one = (Prequential("regression", 0) for _ in range(3))
    base = one.state()
    for score, seed, count in ((theirs, 1, rows[0]), (mine, 2, rows[1])):
        columns = rows_of("regression", 0, count, seed)
        score.add(*columns)
        one.add(*columns)
    both = Prequential("regression", 0)
    both.load(both.merged(Fork(base, theirs.state(), mine.state(), *rows)))
    wanted = one.metrics()
    assert both.metrics().keys() == wanted.keys()
    for name, value in both.metrics().items():
        assert value == pytest.approx(wanted[name], nan_ok=True), name


def test_load_refuses_another_kind() -> None:
    with pytest.raises(ValueError, match=r"score state 'counts' is of shape \(4132,\), wanted shape \(4640,\)"):
        Prequential("binary", 2).load(Prequential("multiclass", 4).state())
    with pytest.raises(ValueError, match=r"score state 'rows' is missing, wanted shape \(1,\)"):
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
    names = ["log_loss", "calibration_error", "auc", "pr_auc", "accuracy", "macro_f1"]
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


def test_the_state_of_weighted_rows_is_exact_too() -> None:
    scored = Prequential("binary", 2)
    scored.add([[0.3]], [1], [-1], [[0.5]], [1 / 3])
    assert sorted(np.unique(np.asarray(scored.state()["counts"]))) == [0.0, 1 / 3]


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_weights_of_one_are_no_weights(task: Task, classes: int) -> None:
    columns = rows_of(task, classes, 3_000, 1)
    plain, weighted = Prequential(task, classes), Prequential(task, classes)
    plain.add(*columns)
    weighted.add(*columns, np.ones(3_000))
    assert same(plain.state(), weighted.state())
    assert repr(plain.metrics()) == repr(weighted.metrics())


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_a_row_of_weight_3_is_like_three_rows(task: Task, classes: int) -> None:
    columns = rows_of(task, classes, 2_000, 2)
    times = np.random.default_rng(0).integers(1, 4, 2_000)
    often, weighted = Prequential(task, classes), Prequential(task, classes)
    often.add(*(np.repeat(c, times, axis=0) for c in columns))
    weighted.add(*columns, times)
    got, wanted = weighted.metrics(), often.metrics()
    assert got["count"] == 2_000
    assert {k: v for k, v in got.items() if "count" not in k} == pytest.approx(
        {k: v for k, v in wanted.items() if "count" not in k}, rel=1e-9
    )
    assert weighted.classes() == often.classes()


def test_only_the_model_is_ranked_among_classes() -> None:
    got = fed("multiclass", 4, [], 100, 0).metrics()
    assert {n for n in got if "auc" in n} == {"auc", "window_auc"}
    assert not [n for n in fed("multiclass", 40, [], 100, 0).metrics() if "auc" in n]
