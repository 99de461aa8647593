"""Contributions add up and are right where the right answer is known; importance finds what matters."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.explain import KEPT, Background, Explainer, Importance, ScoresOf, grouping, remembered
from models.spec import Categorical, Explain, Features, Label, ModelSpec, Numeric, Rates

NAMES = ("a", "b", "rates()", "rates(c, d)", "c", "d")


def spec_of(task: str = "binary", **explain: Any) -> ModelSpec:
    classes: dict[str, tuple[int | str, ...]] = {"binary": (0, 1), "multiclass": ("x", "y", "z"), "regression": ()}
    return ModelSpec(
        name="t",
        task=task,
        label=Label(name="y", classes=classes[task]),
        features=Features(
            numeric={"a": Numeric(), "b": Numeric()},
            categorical={"c": Categorical(size=8), "d": Categorical(size=8)},
            rates=Rates(half_lives_s=(60.0, 600.0), keys=((), ("c", "d"))),
        ),
        explain=Explain(**explain),
    )


def rows_of(count: int, seed: int = 0, columns: int = 6) -> Background:
    rng = np.random.default_rng(seed)
    return Background(rng.normal(size=(count, columns)).astype(np.float32), rng.integers(0, 8, (count, 2)))


def tangled(dense: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """A probability with every kind of interaction."""
    z = dense[:, 0] * dense[:, 1] + np.where(categories[:, 0] > 3, dense[:, 2], -dense[:, 5]) + 0.3 * categories[:, 1]
    p: np.ndarray = 1.0 / (1.0 + np.exp(-z[:, None]))
    return p.astype(np.float32)


def exact(scores_of: ScoresOf, row: Background, background: Background) -> np.ndarray:
    """Shapley values (F, K) by all subsets, Eq. 4 of Lundberg & Lee 2017."""
    groups, f = grouping(spec_of()), len(NAMES)

    def value(subset: tuple[int, ...]) -> np.ndarray:
        turned = np.isin(np.arange(f), subset)
        of_dense, of_category = groups.turned(turned)
        mixed = np.where(of_dense, row.dense, background.dense)
        mean: np.ndarray = scores_of(mixed, np.where(of_category, row.categories, background.categories)).mean(axis=0)
        return mean

    found = []
    for i in range(f):
        rest = [j for j in range(f) if j != i]
        phi = 0.0
        for size in range(f):
            weight = math.factorial(size) * math.factorial(f - size - 1) / math.factorial(f)
            phi += sum(weight * (value((*s, i)) - value(s)) for s in itertools.combinations(rest, size))
        found.append(phi)
    return np.array(found)


# One prediction -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "columns"), [("binary", 6), ("multiclass", 14), ("regression", 6)])
def test_every_column_belongs_to_a_feature(task: str, columns: int) -> None:
    found = grouping(spec_of(task))
    wide = (columns - 2) // 2
    assert found.names == NAMES
    assert found.dense.tolist() == [0, 1, *[2] * wide, *[3] * wide]
    assert found.categories.tolist() == [4, 5]
    assert found.rate_columns == {2: 2, 3: 2 + wide}


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 20), st.booleans(), st.integers(0, 2**32 - 1))
def test_contributions_add_up_however_few_walks(pairs: int, count: int, log_odds: bool, seed: int) -> None:
    row = rows_of(1, seed)
    found = Explainer(spec_of(pairs=pairs), rows_of(count, seed + 1)).explain(
        tangled, row.dense[0], row.categories[0], log_odds=log_odds
    )
    p = float(tangled(*row)[0, 0])
    said = np.clip(p, 1e-6, 1 - 1e-6)
    assert found.said == pytest.approx([math.log(said / (1 - said)) if log_odds else p], rel=1e-5)
    assert found.base + found.contributions.sum(axis=0) == pytest.approx(found.said, abs=1e-9)
    assert found.contributions.shape == (len(NAMES), 1)


def test_what_adds_up_is_explained_exactly_by_a_single_pair() -> None:
    """w (x - b) of a linear model: its walks all say the same."""
    w = np.array([2.0, -1.0, 0.5, 0.25, 0.0, 3.0])

    def linear(dense: np.ndarray, categories: np.ndarray) -> np.ndarray:
        value: np.ndarray = (dense @ w + categories[:, 0] - 2.0 * categories[:, 1])[:, None]
        return value

    row, background = rows_of(1), rows_of(2, 1)
    found = Explainer(spec_of("regression", pairs=1), background).explain(linear, row.dense[0], row.categories[0])
    moved = w * (row.dense[0] - background.dense.mean(axis=0))
    code = row.categories[0] - background.categories.mean(axis=0)
    wanted = [moved[0], moved[1], moved[2] + moved[3], moved[4] + moved[5], code[0], -2.0 * code[1]]
    assert found.contributions[:, 0] == pytest.approx(wanted, abs=1e-5)


def test_many_walks_come_close_to_the_shapley_values() -> None:
    row, background = rows_of(1, 5), rows_of(4, 6)
    wanted = exact(tangled, row, background)
    errors = []
    for pairs in (2, 500):
        found = Explainer(spec_of(pairs=pairs), background).explain(tangled, row.dense[0], row.categories[0])
        errors.append(float(np.abs(found.contributions - wanted).max()))
    assert errors[1] < 0.02 < np.abs(wanted).max()
    assert errors[1] < errors[0]


def test_a_feature_that_the_model_does_not_look_at_has_none() -> None:
    row = rows_of(1, 7)
    found = Explainer(spec_of(), rows_of(30, 8)).explain(
        lambda dense, _: dense[:, 1:2] ** 2, row.dense[0], row.categories[0]
    )
    assert np.flatnonzero(found.contributions).tolist() == [1]


@pytest.mark.parametrize(
    "features", [Features(numeric={"a": Numeric()}), Features(categorical={"a": Categorical(), "b": Categorical()})]
)
def test_a_model_may_have_one_kind_of_features_only(features: Features) -> None:
    spec = ModelSpec(name="t", task="regression", label=Label(name="y"), features=features)
    n, c = len(features.numeric), len(features.categorical)
    background = Background(np.zeros((1, n), np.float32), np.zeros((1, c), np.int64))
    found = Explainer(spec, background).explain(
        lambda dense, codes: np.concatenate([dense, codes], axis=1)[:, :1], np.full(n, 3.0, np.float32), np.full(c, 3)
    )
    assert found.contributions[:, 0].tolist() == [3.0, 0.0][: n + c]


def test_the_same_row_is_explained_alike_and_left_alone() -> None:
    row, background = rows_of(1, 9), rows_of(20, 10)
    before = row.dense.copy(), background.dense.copy()
    first, second = (
        Explainer(spec_of(), background).explain(tangled, row.dense[0], row.categories[0]) for _ in range(2)
    )
    assert first.contributions.tobytes() == second.contributions.tobytes()
    assert row.dense.tobytes() == before[0].tobytes()
    assert background.dense.tobytes() == before[1].tobytes()


def test_rows_are_predicted_in_calls_of_bounded_size() -> None:
    sizes = []

    def counted(dense: np.ndarray, categories: np.ndarray) -> np.ndarray:
        sizes.append(len(dense))
        return tangled(dense, categories)

    row = rows_of(1)
    Explainer(spec_of(pairs=200), rows_of(20)).explain(counted, row.dense[0], row.categories[0])
    assert sum(sizes) == 400 * (len(NAMES) + 1)
    assert max(sizes) <= 1_024


def test_each_class_of_several_is_explained() -> None:
    def softmax(dense: np.ndarray, categories: np.ndarray) -> np.ndarray:
        z = np.exp(dense[:, :3] * (1 + categories[:, :1]))
        p: np.ndarray = z / z.sum(axis=1, keepdims=True)
        return p

    row = rows_of(1, columns=14)
    found = Explainer(spec_of("multiclass"), rows_of(20, 1, 14)).explain(softmax, row.dense[0], row.categories[0])
    assert found.contributions.shape == (len(NAMES), 3)
    assert found.contributions.sum() == pytest.approx(0.0, abs=1e-6)  # probabilities add up to 1 on both ends
    assert found.base + found.contributions.sum(axis=0) == pytest.approx(found.said)


# All predictions ----------------------------------------------------------------------------------


def fed(importance: Importance, steps: int, scores_of: ScoresOf = tangled, *, start: int = 0, size: int = 64) -> None:
    """Labels drawn from what ``tangled`` says."""
    for step in range(start, start + steps):
        rows = rows_of(size, 1_000 + step)
        target = np.random.default_rng(step).random(size) < tangled(*rows)[:, 0]
        importance.take(scores_of, *rows, target.astype(np.float32))


def test_what_matters_comes_first_and_what_does_not_is_zero() -> None:
    importance = Importance(spec_of(rows_per_label=8.0))
    fed(importance, 300, lambda dense, _: (1.0 / (1.0 + np.exp(-dense[:, :1] * dense[:, 1:2]))).astype(np.float32))
    found = importance.largest(9)
    assert list(found)[:2] in (["a", "b"], ["b", "a"])
    assert min(found["a"], found["b"]) > 0.05
    assert {name: found[name] for name in NAMES[2:]} == dict.fromkeys(NAMES[2:], 0.0)
    assert importance.largest(1).keys() == {next(iter(found))}


def test_it_follows_a_model_that_changes() -> None:
    importance = Importance(spec_of("regression", rows_per_label=8.0))
    for feature in (0, 1):
        for step in range(400):
            rows = rows_of(64, step)
            importance.take(lambda dense, _, f=feature: dense[:, f : f + 1], *rows, rows.dense[:, feature])
        found = importance.largest(9)
        # Var(x - x') = 2 Var(y): all of the label's variance is lost, and as much again.
        assert found["ab"[feature]] == pytest.approx(2.0, rel=0.2)
        assert found["ba"[feature]] < 0.05


@pytest.mark.parametrize("share", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("size", [1, 20, 500])
def test_it_predicts_no_more_rows_than_it_may(share: float, size: int) -> None:
    asked = 0

    def counted(dense: np.ndarray, categories: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(dense)
        return tangled(dense, categories)

    fed(Importance(spec_of(rows_per_label=share)), 200, counted, size=size)
    assert asked <= share * 200 * size
    assert bool(asked) == bool(share)


def test_of_many_features_some_are_measured_at_a_time_and_each_gets_its_turn() -> None:
    names = {f"n{i}": Numeric() for i in range(150)}
    spec = ModelSpec(
        name="t",
        task="regression",
        label=Label(name="y"),
        features=Features(numeric=names),
        explain=Explain(rows_per_label=100.0),
    )
    importance, most = Importance(spec), 0

    def ask(dense: np.ndarray, _: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, len(dense))
        return dense[:, 149:150]

    none = np.zeros((32, 0), np.int64)
    for step in range(6):
        dense = np.random.default_rng(step).normal(size=(32, 150)).astype(np.float32)
        importance.take(ask, dense, none, dense[:, 149])
    assert len(importance.largest(200)) == 150
    assert next(iter(importance.largest(1))) == "n149"
    assert most == 32 * 65


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("stop", [0, 1, 13, 60])
def test_stopping_leaves_no_trace(task: str, stop: int) -> None:
    outputs = 3 if task == "multiclass" else 1

    def scores_of(dense: np.ndarray, categories: np.ndarray) -> np.ndarray:
        return np.repeat(tangled(dense, categories), outputs, axis=1) / outputs

    spec = spec_of(task, rows_per_label=1.0)
    steady, first, second = (Importance(spec) for _ in range(3))
    columns = 14 if task == "multiclass" else 6
    for step in range(80):
        rows = rows_of(50, step, columns)
        target = (np.arange(50) % 2).astype(np.float32)
        if step == stop:
            second.load(first.state())
        for one in (steady, second if step >= stop else first):
            one.take(scores_of, *rows, target)
    mine, wanted = second.state(), steady.state()
    assert {name: a.tobytes() for name, a in mine.items()} == {name: a.tobytes() for name, a in wanted.items()}
    assert len(remembered(mine).dense) == KEPT
    assert steady.largest(1)


def test_a_state_is_a_copy_and_an_old_version_has_none() -> None:
    importance = Importance(spec_of(rows_per_label=8.0))
    fed(importance, 20)
    state = importance.state()
    before = {name: a.tobytes() for name, a in state.items()}
    fed(importance, 20, start=20)
    assert {name: a.tobytes() for name, a in state.items()} == before
    importance.load({})
    assert importance.largest(9) == {}


def test_a_model_that_says_nan_leaves_no_trace_in_it() -> None:
    importance = Importance(spec_of(rows_per_label=8.0))
    fed(importance, 20)
    before = importance.largest(9)
    fed(importance, 20, lambda dense, _: np.full((len(dense), 1), np.nan, np.float32), start=20)
    assert importance.largest(9) == before


def test_one_absurd_label_spoils_nothing() -> None:
    importance = Importance(spec_of("regression", rows_per_label=8.0))
    for step in range(60):
        rows = rows_of(64, step)
        target = rows.dense[:, 0].copy()
        target[0] = 3e38 if step == 30 else target[0]
        importance.take(lambda dense, _: dense[:, :1], *rows, target)
    assert importance.largest(1)["a"] == pytest.approx(2.0, rel=0.3)
