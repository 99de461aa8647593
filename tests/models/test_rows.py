"""Columns and codes are given out as names and values come, and stay what they are."""

import logging
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import rows as under_test
from models.features import FeatureError
from models.rows import MAX_TEXT, RowEncoder
from models.snapshot import pack, unpack

NAN, INF = float("nan"), float("inf")


def taught(*rows: dict[object, object]) -> RowEncoder:
    encoder = RowEncoder()
    for row in rows:
        encoder.observe([encoder.take(row)])
    return encoder


def state_of(encoder: RowEncoder) -> bytes:
    arrays, text = encoder.state()
    return pack(arrays, {"rows": text})


def reloaded(encoder: RowEncoder) -> RowEncoder:
    arrays, texts = unpack(state_of(encoder))
    found = RowEncoder()
    found.load(arrays, texts["rows"])
    return found


# Columns ------------------------------------------------------------------------------------------


def test_numbers_get_columns_in_the_order_in_which_names_appear() -> None:
    encoder = taught({"b": 1.0, "a": 2}, {"c": 0.5, "a": 3.0, "b": 1.5})
    x, categories = encoder.look([{"b": 100.0}, {"a": 100.0}, {"c": 100.0}])
    assert categories.shape == (3, 0)
    a, b, c = (int(i) for i in np.argmax(x[[1, 0, 2]], axis=1))
    assert (a, b, c) == (0, 1, 2), "within a row by name, then as they came"


def test_the_order_of_keys_does_not_matter() -> None:
    one = taught({"b": 1.0, 3: 1.0, "s": "x", "a": 2}, {"t": "y", "q": 1, "b": 3})
    two = taught({"a": 2, "s": "x", 3: 1.0, "b": 1.0}, {"b": 3, "q": 1, "t": "y"})
    assert state_of(one) == state_of(two)


def test_looking_changes_nothing_and_takes_what_is_new_for_missing() -> None:
    encoder = taught({"a": 1.0, "s": "x"}, {"a": 2.0, "s": "y"})
    before = state_of(encoder)
    known, codes = encoder.look([{"a": 1.5}])
    odd, odd_codes = encoder.look([{"a": 1.5, "new": 7.0, "s": "unseen", "other": "text"}])
    assert np.array_equal(known, odd)
    assert codes.tolist() == odd_codes.tolist() == [[0]]
    assert state_of(encoder) == before


def test_a_bool_is_a_number() -> None:
    x, _ = taught({"a": True}, {"a": False}).look([{"a": True}, {"a": 1}, {"a": np.bool_(True)}])
    assert x[0, 0] == x[1, 0] == x[2, 0] > 0


@pytest.mark.parametrize("missing", [{}, {"a": None}, {"a": NAN}, {"a": np.float32(NAN)}])
def test_what_is_missing_is_zero_and_has_a_column_from_the_first_time_on(missing: dict[str, object]) -> None:
    encoder = taught({"a": 1.0}, {"a": 3.0})
    assert encoder.look([missing])[0].tolist() == [[0.0]]
    before, _ = encoder.look([{"a": 2.5}])
    encoder.observe([encoder.take(missing)])
    assert encoder.look([missing])[0].tolist() == [[0.0, 1.0]]
    assert encoder.look([{"a": 2.5}])[0].tolist() == [[float(before[0, 0]), 0.0]]


def test_a_feature_that_was_never_there_has_no_column() -> None:
    assert taught({"a": None, "b": NAN, "c": 1.0}, {"c": 2.0}).width == 1


def test_standardised_rows_have_mean_zero_and_deviation_one() -> None:
    values = np.random.default_rng(0).normal(50.0, 9.0, 2000)
    encoder = taught(*({"a": v} for v in values))
    x, _ = encoder.look([{"a": v} for v in values])
    assert float(x.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(x.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("at", [0, 3, 19, 20, 500])
def test_one_absurd_value_does_not_spoil_a_column(at: int) -> None:
    values = np.random.default_rng(0).normal(50.0, 9.0, 1000)
    values[at] = 1e300
    x, _ = taught(*({"a": v} for v in values)).look([{"a": 59.0}, {"a": 41.0}])
    assert x[:, 0] == pytest.approx([1.0, -1.0], abs=0.1)


def test_a_column_grows_out_of_a_quiet_beginning() -> None:
    values = [0.0] * 300 + list(np.random.default_rng(0).normal(1e6, 1e5, 3000))
    x, _ = taught(*({"a": v} for v in values)).look([{"a": 1e6}, {"a": 1.2e6}])
    assert 0.2 < x[1, 0] - x[0, 0] < 4.0


def test_what_comes_beyond_the_limits_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(under_test, "MAX_COLUMNS", 3)
    monkeypatch.setattr(under_test, "MAX_CATEGORICAL", 1)
    with caplog.at_level(logging.WARNING):
        encoder = taught({"a": 1.0, "b": 1.0}, {"c": 1.0, "s": "x"}, {"d": 1.0, "t": "x", "a": 2.0})
    assert encoder.left_out == 2
    assert (encoder.width, encoder.category_sizes) == (3, (8,))
    assert [r.getMessage() for r in caplog.records] == [
        "feature 'd' is left out: there is no room for another numeric one; no more is said"
    ]


def test_only_so_many_indicators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_INDICATORS", 2)
    encoder = taught({"a": 1.0, "b": 1.0, "c": 1.0}, {})
    assert encoder.look([{}])[0][0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


# Codes --------------------------------------------------------------------------------------------


def codes(encoder: RowEncoder, *texts: str) -> list[int]:
    return encoder.look([{"s": t} for t in texts])[1][:, 0].tolist()


def test_codes_stay_and_tables_double() -> None:
    encoder, texts = RowEncoder(), [f"t{i}" for i in range(100)]
    given_out: dict[str, int] = {}
    for i, text in enumerate(texts):
        given_out[text] = encoder.take({"s": text}).codes[0]
        assert codes(encoder, *texts[: i + 1]) == list(given_out.values())
    assert list(given_out.values()) == list(range(1, 101))
    assert encoder.category_sizes == (128,)
    assert encoder.expired() == {}


def test_values_unseen_for_long_make_room_before_a_table_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "UNSEEN_ROWS", 20)
    encoder = taught(*({"s": f"t{i}"} for i in range(7)), *[{"s": "t0"}] * 20)
    encoder.take({"s": "new"})
    assert encoder.category_sizes == (8,)
    assert encoder.expired() == {0: [2, 3, 4, 5, 6, 7]}
    assert encoder.expired() == {}
    assert codes(encoder, "t0", "t1", "new") == [1, 0, 2]


def test_a_table_at_its_limit_lets_the_oldest_quarter_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_CODES", 8)
    encoder = taught(*({"s": f"t{i}"} for i in range(7)), {"s": "t0"}, {"s": "new"})
    assert encoder.category_sizes == (8,)
    assert encoder.expired() == {0: [2, 3]}
    assert codes(encoder, "t0", "t1", "t2", "t3", "new") == [1, 0, 0, 4, 2]


def test_long_strings_are_told_apart_but_not_kept() -> None:
    long = "x" * 100_000
    encoder = taught({"s": long}, {"s": long + "y"})
    assert codes(encoder, long, long + "y") == [1, 2]
    assert len(state_of(encoder)) < 20 * MAX_TEXT


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "old"}, "feature 'a' is 'old', a string; it has been a number so far"),
        ({"s": 1}, "feature 's' is 1, a int; it has been a string so far"),
        ({"s": True}, "feature 's' is True, a bool; it has been a string so far"),
        ({"a": INF}, r"feature 'a' is inf, wanted a finite number \(NaN means missing\)"),
        ({"new": -INF}, r"feature 'new' is -inf, wanted a finite number \(NaN means missing\)"),
        ({"a": 10**400}, "feature 'a' is 1000000.*, wanted a finite number"),
        ({"a": [1]}, r"feature 'a' is \[1\], a list; wanted a number or a string"),
        ({"new": b"x"}, "feature 'new' is b'x', a bytes; wanted a number or a string"),
        ({1.5: 1.0}, "feature name 1.5 is a float, wanted a string or an integer"),
    ],
)
def test_what_no_model_takes_is_refused_with_a_reason_and_changes_nothing(
    row: dict[object, object], message: str
) -> None:
    encoder = taught({"a": 1.0, "s": "x"})
    before = state_of(encoder)
    for ask in (lambda: encoder.look([row]), lambda: encoder.take({"fresh": 1.0, "more": "x", **row})):
        with pytest.raises(FeatureError, match=f"^{message}"):
            ask()
    assert state_of(encoder) == before


# In all -------------------------------------------------------------------------------------------


def stream(seed: int, rows: int = 120) -> list[dict[object, object]]:
    """Names come and go, values are missing, strings are new all the time."""
    rng = random.Random(seed)

    def row(i: int) -> dict[object, object]:
        numbers = {f"n{j}": rng.gauss(j, 1 + j) for j in range(1 + i // 20) if rng.random() < 0.8}
        texts = {f"s{j}": f"t{rng.randrange(1 + i)}" for j in range(1 + i // 50) if rng.random() < 0.9}
        return {**numbers, **texts}

    return [row(i) for i in range(rows)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 40), min_size=1))
def test_rows_together_are_as_rows_one_by_one(seed: int, sizes: list[int]) -> None:
    rows, one, many = stream(seed), RowEncoder(), RowEncoder()
    single = [one.observe([one.take(row)]) for row in rows]
    at = 0
    for size in [*sizes, len(rows)]:
        batch = rows[at : at + size]
        if not batch:
            break
        x, categories = many.observe([many.take(row) for row in batch])
        for i in range(len(batch)):
            alone, codes = single[at + i]
            assert np.array_equal(x[i, : alone.shape[1]], alone[0])
            assert not x[i, alone.shape[1] :].any(), "what was not there yet is 0"
            assert np.array_equal(categories[i, : codes.shape[1]], codes[0])
        at += size
    assert state_of(one) == state_of(many)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), at=st.integers(0, 120))
def test_saving_and_loading_equals_never_stopping(seed: int, at: int) -> None:
    rows, steady = stream(seed), RowEncoder()
    resumed = reloaded(steady)
    for i, row in enumerate(rows):
        if i == at:
            resumed = reloaded(resumed)
            assert state_of(resumed) == state_of(steady)
        for encoder in (steady, resumed):
            encoder.observe([encoder.take(row)])
    assert state_of(resumed) == state_of(steady)
    assert np.array_equal(resumed.look(rows)[0], steady.look(rows)[0])


def test_inputs_are_not_changed() -> None:
    row: dict[object, object] = {"a": 1.0, "s": "x", "n": None}
    taught(row, row).look([row])
    assert row == {"a": 1.0, "s": "x", "n": None}
