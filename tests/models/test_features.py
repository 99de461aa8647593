"""Rows become numbers: equal in every process, whatever is missing, and nothing absurd gets through."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models.features
from models import walk
from models.features import CACHED_CHARACTERS, CACHED_CODES, LARGEST, FeatureEncoder, FeatureError
from models.shapes import dense_columns
from models.spec import Categorical, Features, Label, ModelSpec, Numeric, Rates

ROOT = Path(models.features.__file__).parents[1]
Row = tuple[float | int | str | None, ...]

SPEC = ModelSpec(
    name="t",
    task="binary",
    label=Label(name="late", classes=(0, 1)),
    features=Features(
        numeric={"distance": Numeric(), "temp": Numeric()},
        categorical={"carrier": Categorical(size=64), "dest": Categorical(size=512)},
        rates=Rates(half_lives_s=(60.0, 3600.0), keys=((), ("carrier",), ("dest", "carrier")), slots=256),
    ),
)

VALUES = st.none() | st.text(max_size=5) | st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.none() | st.floats(width=64) | st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, VALUES, VALUES), max_size=12)


def test_long_values_are_told_apart_but_not_remembered() -> None:
    encoder = FeatureEncoder(SPEC)
    values = [f"{'x' * 300}{i}" for i in range(50)]
    raw = encoder.raw([(1.0, 2.0, value, value) for value in values])
    assert len(np.unique(raw.categories[:, 1])) > 25
    coder = encoder._coder
    remembered = [value for codes in (coder, *coder.codes, *(slots for _, slots in coder.slots)) for value in codes]
    assert max(len(str(value)) for value in remembered) < CACHED_CHARACTERS


def learned(seed: int, rows: int = 50) -> FeatureEncoder:
    """An encoder that has seen rows and labels."""
    encoder, rng = FeatureEncoder(SPEC), np.random.default_rng(seed)
    raw = encoder.raw([(float(rng.normal()), None, "UA", int(rng.integers(9))) for _ in range(rows)])
    times_s = np.sort(rng.uniform(0, 3600, rows))
    encoder.scaler.observe(encoder.dense(raw, times_s))
    walk.learn(encoder.rates, raw.keys, rng.integers(0, 2, (rows, 1)).astype(np.float64), times_s)
    return encoder


@settings(deadline=None)
@given(ROWS)
def test_any_row_becomes_finite_numbers_within_the_tables(rows: list[Row]) -> None:
    encoder = FeatureEncoder(SPEC)
    raw = encoder.raw(rows)
    dense = encoder.dense(raw, np.zeros(len(rows)))
    x = encoder.standardise(dense)
    assert raw.numeric.dtype == np.float32
    assert not np.isinf(raw.numeric).any()
    assert dense.shape == (len(rows), dense_columns(SPEC))
    assert x.shape == (len(rows), dense_columns(SPEC) + 2)
    assert np.isfinite(x).all()
    assert ((raw.categories >= 0) & (raw.categories < (64, 512))).all()
    assert ((raw.keys >= 0) & (raw.keys < 256)).all()


@settings(deadline=None)
@given(ROWS)
def test_a_row_is_encoded_alike_alone_and_among_others(rows: list[Row]) -> None:
    whole, encoder = FeatureEncoder(SPEC).raw(rows), FeatureEncoder(SPEC)
    for i, row in enumerate(rows):
        among, alone = whole.take(np.array([i])), encoder.raw([row])
        np.testing.assert_array_equal(among.numeric, alone.numeric)
        np.testing.assert_array_equal(among.categories, alone.categories)
        np.testing.assert_array_equal(among.keys, alone.keys)


def test_missing_is_row_0_and_nan_and_an_indicator() -> None:
    encoder = FeatureEncoder(SPEC)
    raw = encoder.raw([(None, 3.0, None, "IAH")])
    assert np.isnan(raw.numeric[0, 0])
    assert raw.categories[0, 0] == 0
    assert raw.categories[0, 1] > 0
    x = encoder.standardise(encoder.dense(raw, np.zeros(1)))
    assert x[0, 0] == 0.0
    assert x[0, -2:].tolist() == [1.0, 0.0]


def test_a_rate_is_missing_to_nobody() -> None:
    encoder = FeatureEncoder(SPEC)
    dense = encoder.dense(encoder.raw([(None, None, None, None)]), np.zeros(1))
    np.testing.assert_allclose(dense[0, 2:], 0.5)


def test_infinity_and_huge_numbers_are_cut_to_the_largest_float32() -> None:
    raw = FeatureEncoder(SPEC).raw([(math.inf, -1e300, "UA", "IAH")])
    assert raw.numeric[0].tolist() == [LARGEST, -LARGEST]


def test_a_number_and_its_text_are_the_same_category() -> None:
    raw = FeatureEncoder(SPEC).raw([(0.0, 0.0, 7, "8"), (0.0, 0.0, "7", 8)])
    np.testing.assert_array_equal(raw.categories[0], raw.categories[1])
    np.testing.assert_array_equal(raw.keys[0], raw.keys[1])


def test_the_parts_of_a_combination_do_not_run_together() -> None:
    raw = FeatureEncoder(SPEC).raw([(0.0, 0.0, "b", "a1"), (0.0, 0.0, "1b", "a")])
    assert raw.keys[0, 2] != raw.keys[1, 2]


def test_more_values_than_are_remembered_change_no_code() -> None:
    encoder = FeatureEncoder(SPEC)
    before = encoder.raw([(0.0, 0.0, None, "IAH")])
    encoder.raw([(0.0, 0.0, None, i) for i in range(CACHED_CODES + 10)])
    after = encoder.raw([(0.0, 0.0, None, "IAH")])
    np.testing.assert_array_equal(before.categories, after.categories)
    np.testing.assert_array_equal(before.keys, after.keys)
    assert len(encoder._coder.codes[1]) <= CACHED_CODES + 2


def test_codes_are_equal_in_every_process() -> None:
    script = (
        "import json, tests.models.test_features as t\n"
        "raw = t.FeatureEncoder(t.SPEC).raw([(0., 0., 'UA', 'IAH'), (0., 0., 'é', 12)])\n"
        "print(json.dumps([raw.categories.tolist(), raw.keys.tolist()]))"
    )
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", script],
                cwd=ROOT,
                env={"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    raw = FeatureEncoder(SPEC).raw([(0.0, 0.0, "UA", "IAH"), (0.0, 0.0, "é", 12)])
    assert found == [[raw.categories.tolist(), raw.keys.tolist()]] * 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_load_gives_back_what_was_saved(seed: int) -> None:
    saved, loaded = learned(seed), learned(seed + 1)
    loaded.load(saved.state())
    rows: list[Row] = [(0.5, None, "UA", 3), (None, 1.0, None, None)]
    found = []
    for encoder in (saved, loaded):
        dense = encoder.dense(encoder.raw(rows), np.full(2, 4000.0))
        found.append((dense, encoder.standardise(dense)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_asking_changes_no_state() -> None:
    encoder = learned(0)
    before = encoder.state()
    encoder.standardise(encoder.dense(encoder.raw([(1.0, 2.0, "B6", "BOS")]), np.array([9e9])))
    after = encoder.state()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_take_picks_rows() -> None:
    raw = FeatureEncoder(SPEC).raw([(float(i), 0.0, i, i) for i in range(4)])
    some = raw.take(np.array([3, 1]))
    assert some.numeric[:, 0].tolist() == [3.0, 1.0]
    np.testing.assert_array_equal(some.keys, raw.keys[[3, 1]])


def test_named_columns_are_numbers_and_codes_with_nan_for_missing() -> None:
    encoder = FeatureEncoder(SPEC)
    raw = encoder.raw([(1.0, None, "UA", None), (None, 2.0, None, "IAH")])
    code = float(raw.categories[0, 0])
    columns = encoder.named(raw, ("carrier", "temp"))
    np.testing.assert_array_equal(columns, [[code, np.nan], [np.nan, 2.0]])


def test_rows_by_name_are_rows_in_order() -> None:
    encoder = FeatureEncoder(SPEC)
    named = encoder.raw_of([{"dest": "IAH", "temp": 3, "distance": math.nan}, {}])
    ordered = encoder.raw([(None, 3.0, None, "IAH"), (None, None, None, None)])
    for ours, theirs in zip(named, ordered, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"distanse": 1.0}, "the model has no feature 'distanse'; did you mean 'distance'?"),
        ({"zzz": 1.0}, "the model has no feature 'zzz'; it has distance, temp, carrier, dest"),
        ({"temp": "hot"}, "feature 'temp' is 'hot', wanted a number"),
        ({"temp": True}, "feature 'temp' is True, wanted a number"),
        ({"temp": math.inf}, "feature 'temp' is inf, wanted a finite number (NaN means missing)"),
        ({"carrier": 1.5}, "feature 'carrier' is 1.5, wanted a string or an integer"),
        ({"carrier": False}, "feature 'carrier' is False, wanted a string or an integer"),
    ],
)
def test_a_wrong_row_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureError) as caught:
        FeatureEncoder(SPEC).raw_of([row])
    assert str(caught.value) == message


def test_an_integer_beyond_all_floats_is_refused() -> None:
    with pytest.raises(FeatureError, match="wanted a finite number"):
        FeatureEncoder(SPEC).raw_of([{"temp": 10**400}])


@pytest.mark.parametrize(("task", "blank"), [("binary", 0.5), ("multiclass", 1 / 3), ("regression", 0)])
def test_rates_before_any_label(task: str, blank: float) -> None:
    classes = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}[task]
    spec = ModelSpec(
        name="t",
        task=task,  # type: ignore[arg-type]
        label=Label(name="y", classes=classes),
        features=SPEC.features,
    )
    encoder = FeatureEncoder(spec)
    dense = encoder.dense(encoder.raw([(1.0, 1.0, "a", "b")]), np.zeros(1))
    assert dense.shape == (1, dense_columns(spec))
    np.testing.assert_allclose(dense[0, 2:], blank, rtol=1e-6)
