"""Three lines give a model; what it hands its learner is complete, in order, and the same after a restart."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import online as under_test
from models import rows as rows_under_test
from models.features import FeatureError
from models.online import LabelError, OnlineModel
from models.snapshot import SnapshotError, pack
from tests.models.growing import Means

Row = dict[Any, object]


def model_of(task: str = "classification", **given: Any) -> OnlineModel:
    return OnlineModel(task, learner=Means, **given)  # type: ignore[arg-type]


def learner_of(model: OnlineModel) -> Means:
    learner = model._learner
    assert isinstance(learner, Means)
    return learner


def stream(seed: int, rows: int = 60) -> tuple[list[Row], list[object]]:
    """Names, strings and classes that come later; a rule to learn."""
    rng = random.Random(seed)
    found, labels = [], []
    for i in range(rows):
        label = rng.choice(["a", "b", "c"] if i > rows // 2 else ["a", "b"])
        row: Row = {"n": rng.gauss("abc".index(label), 0.2), "s": f"{label}{rng.randrange(1 + i)}"}
        if rng.random() < 0.3:
            row[f"late{i // 20}"] = rng.random()
        if rng.random() < 0.2:
            row["n"] = None
        found.append(row)
        labels.append(label)
    return found, labels


# Answers ------------------------------------------------------------------------------------------


def test_before_two_classes_were_seen_answers_are_the_prior() -> None:
    model = model_of()
    assert (model.predict_proba_one({"n": 1}), model.predict_one({"n": 1}), model.prior_only) == ({}, None, True)
    model.learn_one({"n": 1}, "a")
    assert (model.predict_proba_one({"n": 1}), model.predict_one({"n": 1}), model.prior_only) == ({"a": 1.0}, "a", True)
    model.learn_one({"n": 2}, "b")
    assert set(model.predict_proba_one({"n": 1})) == {"a", "b"}
    assert not model.prior_only


def test_named_classes_are_answered_from_the_beginning() -> None:
    model = model_of(classes=["x", "y", "z"])
    assert model.predict_proba_one({}) == pytest.approx({"x": 1 / 3, "y": 1 / 3, "z": 1 / 3})
    model.learn_one({}, "y")
    assert model.predict_proba_one({}) == pytest.approx({"x": 1 / 4, "y": 2 / 4, "z": 1 / 4})
    model.learn_one({}, "new")
    assert model.classes == ("x", "y", "z", "new")


def test_regression_is_zero_before_the_first_label() -> None:
    model = model_of("regression")
    assert (model.predict_one({"a": 1}), model.prior_only) == (0.0, True)
    model.learn_one({"a": 1}, 3)
    model.learn_one({"a": 1}, np.float32(5))
    assert (model.predict_one({"a": 1}), model.prior_only) == (4.0, False)
    with pytest.raises(TypeError, match="regression has no probabilities"):
        model.predict_proba_one({"a": 1})


def test_it_learns_and_probabilities_sum_to_one() -> None:
    model, (rows, labels) = model_of(), stream(0, 300)
    right = 0
    for x, y in zip(rows, labels, strict=True):
        p = model.predict_proba_one(x)
        assert not p or sum(p.values()) == pytest.approx(1.0, abs=1e-12)
        assert set(p) == set(model.classes)
        right += model.predict_one(x) == y
        model.learn_one(x, y)
    assert right > 240
    assert model.predict_many(rows) == [model.predict_one(x) for x in rows]
    for together, x in zip(model.predict_proba_many(rows), rows, strict=True):
        assert together == pytest.approx(model.predict_proba_one(x), abs=1e-6)


def test_predicting_changes_nothing() -> None:
    model, (rows, labels) = model_of(), stream(1)
    model.learn_many(rows, labels)
    before = model.save()
    model.predict_proba_many([*rows, {"unseen": 1.0, "s": "unseen", "other": "x"}])
    assert model.save() == before
    assert model.predict_proba_many([]) == []


@pytest.mark.parametrize("y", [np.int64(3), np.bool_(True), np.str_("a"), True, 3, "a"])
def test_a_class_is_a_string_an_integer_or_a_bool(y: Any) -> None:
    model = model_of()
    model.learn_one({}, y)
    assert model.classes == (y,)
    assert type(model.classes[0]) in (str, int, bool)


# What the learner gets ----------------------------------------------------------------------------


def test_the_learner_is_made_with_the_models_own_settings() -> None:
    model = model_of(tier="fast", seed=7)
    model.learn_one({"a": 1.0, "s": "x"}, "c")
    learner = learner_of(model)
    assert (learner.task, learner.tier, learner.seed) == ("classification", "fast", 7)


def test_it_grows_with_names_strings_and_classes() -> None:
    model = model_of()
    model.learn_one({"a": 1.0}, "x")
    assert learner_of(model).total.shape == (2, 1)
    model.learn_one({"a": 1.0, "b": 1.0, "s": "t"}, "y")
    model.learn_one({"a": 1.0, "b": 1.0}, "z")
    assert learner_of(model).total.shape == (3, 2)
    assert [a.shape for a in learner_of(model).counts] == [(3, 8)]
    model.learn_many([{"s": f"t{i}"} for i in range(20)], ["x"] * 20)
    assert [a.shape for a in learner_of(model).counts] == [(3, 32)]


def test_weights_and_targets_arrive_in_order() -> None:
    model = model_of()
    model.learn_many([{"a": 1}, {"a": 2}, {"a": 3}], ["x", "y", "x"], [1.0, 0.5, 3.0])
    model.learn_one({"a": 1}, "y", 2.0)
    model.learn_one({"a": 1}, "y")
    (_, _, target, weights), (_, _, _, two), (_, _, _, none) = learner_of(model).seen
    assert target.tolist() == [0.0, 1.0, 0.0]
    assert weights is not None
    assert weights.tolist() == [1.0, 0.5, 3.0]
    assert two is not None
    assert two.tolist() == [2.0]
    assert none is None


def test_codes_that_change_their_meaning_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_under_test, "MAX_CODES", 8)
    monkeypatch.setattr(under_test, "STEP_ROWS", 2)
    model = model_of()
    model.learn_many([{"n": 1.0, "s": f"t{i % 7}"} for i in range(70)], ["x", "y"] * 35)
    assert learner_of(model).forgotten == []
    model.learn_one({"s": "new"}, "y")
    assert learner_of(model).forgotten == [(0, [1, 2])]
    assert learner_of(model).counts[0][:, 1].tolist() == [0.0, 1.0], "only of the new value"
    assert learner_of(model).counts[0][:, 2].sum() == 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 30), min_size=1))
def test_rows_together_are_as_rows_one_by_one(seed: int, sizes: list[int]) -> None:
    rows, labels = stream(seed)
    one, many = model_of(), model_of()
    for x, y in zip(rows, labels, strict=True):
        one.learn_one(x, y)
    at = 0
    for size in [*sizes, len(rows)]:
        many.learn_many(rows[at : at + size], labels[at : at + size])
        at += size
    assert many.save() == one.save()


def test_steps_are_cut_so_that_no_code_changes_its_meaning_within(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_under_test, "MAX_CODES", 16)
    monkeypatch.setattr(under_test, "STEP_ROWS", 4)
    rows: list[Row] = [{"s": f"t{i}"} for i in range(200)]
    one, many = model_of(), model_of()
    for x in rows:
        one.learn_one(x, "a")
    many.learn_many(rows, ["a"] * 200)
    assert many.save() == one.save()


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "y", "message"),
    [
        ("classification", None, "label is None, a NoneType; wanted a class: a string, an integer or a bool"),
        ("classification", 1.5, "label is 1.5, a float; wanted a class"),
        ("regression", "high", "label is 'high', wanted a finite number that a float32 holds"),
        ("regression", float("nan"), "label is nan, wanted a finite number"),
        ("regression", 1e300, r"label is 1e\+300, wanted a finite number"),
        ("regression", None, "label is None, wanted a finite number"),
    ],
)
def test_a_refused_label_changes_nothing(task: str, y: object, message: str) -> None:
    model = model_of(task)
    model.learn_one({"a": 1.0}, 1)
    before = model.save()
    with pytest.raises(LabelError, match=f"^{message}"):
        model.learn_one({"a": 2.0, "new": 1.0}, y)
    assert model.save() == before


@pytest.mark.parametrize("w", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_refused_weight_changes_nothing(w: float) -> None:
    model = model_of()
    with pytest.raises(LabelError, match=r"weight is .*, wanted a finite number above 0"):
        model.learn_one({"a": 2.0}, "x", w)
    assert model.save() == model_of().save()


def test_classes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_CLASSES", 2)
    model = model_of()
    model.learn_many([{}, {}], ["a", "b"])
    with pytest.raises(LabelError, match="label 'c' would be one more than the 2 classes that a model takes"):
        model.learn_one({}, "c")


def test_rows_before_a_refused_one_have_been_learned() -> None:
    some, model = model_of(), model_of()
    some.learn_many([{"a": 1.0}, {"b": 2.0}], ["x", "y"])
    with pytest.raises(FeatureError, match="feature 'a' is 'text', a string"):
        model.learn_many([{"a": 1.0}, {"b": 2.0}, {"a": "text"}, {"a": 5.0}], ["x", "y", "x", "y"])
    assert model.save() == some.save()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="task is 'ranking', wanted 'classification' or 'regression'"):
        model_of("ranking")
    with pytest.raises(ValueError, match=r"classes is \['a'\], wanted none for regression"):
        model_of("regression", classes=["a"])
    with pytest.raises(ValueError, match="ys has 1 entries, wanted 2, as rows has"):
        model_of().learn_many([{}, {}], ["a"])


# At rest ------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), at=st.integers(0, 60))
def test_saving_and_loading_at_any_row_equals_never_stopping(seed: int, at: int) -> None:
    rows, labels = stream(seed)
    steady = model_of(seed=3, classes=["z"])
    resumed = OnlineModel.load(steady.save(), learner=Means)
    for i, (x, y) in enumerate(zip(rows, labels, strict=True)):
        if i == at:
            resumed = OnlineModel.load(resumed.save(), learner=Means)
            assert resumed.prior_only == steady.prior_only
        assert resumed.predict_proba_one(x) == steady.predict_proba_one(x)
        for model in (steady, resumed):
            model.learn_one(x, y)
    assert resumed.save() == steady.save()
    assert (resumed.classes, resumed.seed, resumed.tier) == (steady.classes, 3, "standard")


def test_regression_is_resumed_too() -> None:
    steady = model_of("regression")
    steady.learn_many([{"a": 1.0}, {"a": 2.0}], [1.0, 2.0])
    resumed = OnlineModel.load(steady.save(), learner=Means)
    assert resumed.save() == steady.save()
    assert resumed.predict_one({"a": 1.0}) == steady.predict_one({"a": 1.0})


@pytest.mark.parametrize("data", [b"", b"torn", pack({"a": np.zeros(1)}, {}), pack({}, {"model": "{}", "rows": "{}"})])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError, match=r"not a snapshot|of no OnlineModel"):
        OnlineModel.load(data, learner=Means)


def test_inputs_are_not_changed() -> None:
    rows: Sequence[Row] = [{"a": 1.0, "s": "x", "n": None}, {"b": 2}]
    labels, weights = ["x", "y"], [1.0, 2.0]
    model = model_of()
    model.learn_many(rows, labels, weights)
    model.predict_many(rows)
    assert (rows, labels, weights) == ([{"a": 1.0, "s": "x", "n": None}, {"b": 2}], ["x", "y"], [1.0, 2.0])
