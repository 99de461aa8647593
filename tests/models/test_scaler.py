"""Standardisation: as numpy says over all rows at once, whatever the chunks and whatever is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.scaler import CLIP, DEVIATIONS_PER_MAD, FEWEST, TRUSTED, WINSOR, Scaler

Floats = NDArray[np.float32]


def rows_of(seed: int, rows: int, *, missing: float = 0.2) -> Floats:
    """(B, 3), far from zero, some missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal((1000.0, 0.0, -5.0), (3.0, 0.01, 50.0), (rows, 3))
    x[rng.random(x.shape) < missing] = np.nan
    return x.astype(np.float32)


def scaler_of(x: Floats, chunk: int = 1_000_000) -> Scaler:
    scaler = Scaler(x.shape[1])
    for a in range(0, len(x), chunk):
        scaler.observe(x[a : a + chunk])
    return scaler


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, TRUSTED), st.integers(1, FEWEST - 1))
def test_mean_and_deviation_are_numpys(seed: int, rows: int, chunk: int) -> None:
    x = rows_of(seed, rows)
    scaler = scaler_of(x, chunk)
    for column, mean, std, n in zip(x.T.astype(np.float64), scaler.mean, scaler.std, scaler.n, strict=True):
        there = column[~np.isnan(column)]
        assert n == len(there)
        if len(there):
            assert mean == pytest.approx(there.mean(), rel=1e-9, abs=1e-9)
        if len(there) > 1:
            assert std == pytest.approx(there.std(), rel=1e-6)


def test_scaled_rows_have_mean_0_and_deviation_1() -> None:
    x = rows_of(0, 5_000)
    z = scaler_of(x, 128).scale(x)
    there = ~np.isnan(x)
    for i in range(3):
        assert z[there[:, i], i].mean() == pytest.approx(0.0, abs=0.02)
        assert z[there[:, i], i].std() == pytest.approx(1.0, abs=0.02)


def test_missing_becomes_0_and_float32_stays() -> None:
    z = scaler_of(rows_of(0, 500)).scale(np.full((2, 3), np.nan, dtype=np.float32))
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, 0.0)


def test_before_any_row_values_pass_as_they_are_clipped() -> None:
    z = Scaler(2).scale(np.array([[0.5, 99.0]], dtype=np.float32))
    np.testing.assert_array_equal(z, [[0.5, CLIP]])


def test_a_constant_column_is_0() -> None:
    x = np.full((300, 1), 7.0, dtype=np.float32)
    np.testing.assert_array_equal(scaler_of(x).scale(x), 0.0)


@pytest.mark.parametrize("absurd", [1e9, -1e9, 3e38, -3e38])
def test_an_absurd_value_is_clipped_and_does_not_spoil_the_rest(absurd: float) -> None:
    x = rows_of(1, 2_000, missing=0.0)
    scaler = scaler_of(x)
    mean, std = scaler.mean.copy(), scaler.std.copy()
    row = np.full((1, 3), absurd, dtype=np.float32)
    np.testing.assert_array_equal(np.abs(scaler.scale(row)), CLIP)
    scaler.observe(row)
    assert (np.abs(scaler.mean - mean) <= 1.01 * WINSOR * std / 2_000).all()
    assert (scaler.std <= 1.05 * std).all()


@pytest.mark.parametrize("absurd", [1e9, -1e9, 3e38, -3e38])
def test_an_absurd_value_among_the_first_does_not_spoil_its_column(absurd: float) -> None:
    """Nothing is known of the column yet but its first batch."""
    x = rows_of(6, 128)
    wanted = scaler_of(x)
    x[7], x[:, 2] = absurd, np.nan  # a column of nothing but missing values beside them
    x[9, 2] = absurd
    scaler = scaler_of(x)
    for i in range(2):
        column = x[~np.isnan(x[:, i]), i].astype(np.float64)
        median = np.median(column)
        reach = WINSOR * DEVIATIONS_PER_MAD * np.median(np.abs(column - median))
        cut = np.clip(column, median - reach, median + reach)
        assert scaler.mean[i] == pytest.approx(cut.mean(), rel=1e-9)
        assert scaler.std[i] == pytest.approx(cut.std(), rel=1e-9)
    assert (scaler.std[:2] < 2 * wanted.std[:2]).all()
    assert np.abs(scaler.scale(rows_of(7, 500, missing=0.0))[:, :2]).mean() > 0.4


def test_an_ordinary_first_batch_is_taken_as_it_is() -> None:
    x = rows_of(8, 128, missing=0.0).astype(np.float64)
    scaler = scaler_of(x.astype(np.float32))
    assert scaler.mean == pytest.approx(x.mean(axis=0), rel=1e-9)
    assert scaler.std == pytest.approx(x.std(axis=0), rel=1e-9)


def test_a_first_batch_of_mostly_equal_values_shows_no_spread_to_cut_at() -> None:
    x = np.zeros((128, 1), dtype=np.float32)
    x[:40, 0] = 1000.0
    assert scaler_of(x).mean == pytest.approx(1000.0 * 40 / 128)
    few = np.array([[1.0], [2.0], [1e6]], dtype=np.float32)
    assert scaler_of(few).mean == pytest.approx(few.mean())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1e-7), (0.0, 1e-20), (1e-3, 1e-8), (1e6, 10.0), (0.0, 1e20)])
def test_any_scale_is_standardised(mean: float, std: float) -> None:
    x = np.random.default_rng(0).normal(mean, std, (3_000, 1)).astype(np.float32)
    z = scaler_of(x, 128).scale(x)
    assert z.std() == pytest.approx(1.0, abs=0.05)


def test_what_float32_rounds_is_no_spread() -> None:
    x = np.full((300, 1), 1e6, dtype=np.float32)
    x[::2] = np.nextafter(x[0], np.float32(2e6))
    assert scaler_of(x).std == 1.0


def test_a_lasting_shift_is_followed() -> None:
    scaler = scaler_of(rows_of(2, 1_000, missing=0.0))
    moved = rows_of(3, 20_000, missing=0.0) + np.float32(100.0)
    for a in range(0, len(moved), 100):
        scaler.observe(moved[a : a + 100])
    assert scaler.mean == pytest.approx([1100.0, 100.0, 95.0], rel=0.1)


def test_a_batch_of_nothing_but_missing_changes_nothing() -> None:
    scaler = scaler_of(rows_of(4, 300))
    before = scaler.state()
    scaler.observe(np.full((5, 3), np.nan, dtype=np.float32))
    scaler.observe(np.zeros((0, 3), dtype=np.float32))
    assert all(np.array_equal(before[name], scaler.state()[name]) for name in before)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_load_gives_back_what_was_saved(seed: int, rows: int) -> None:
    saved, loaded = scaler_of(rows_of(seed, rows)), scaler_of(rows_of(seed + 1, 50))
    loaded.load(saved.state())
    more = rows_of(seed + 2, 200)
    for scaler in (saved, loaded):
        scaler.observe(more)
    np.testing.assert_array_equal(saved.scale(more), loaded.scale(more))


def test_state_is_a_copy_and_rows_are_not_touched() -> None:
    x = rows_of(5, 300)
    kept = x.copy()
    scaler = scaler_of(x)
    state = scaler.state()
    n = state["n"].copy()
    scaler.observe(x)
    scaler.scale(x)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(state["n"], n)


def test_growing_adds_columns_that_have_seen_nothing_and_leaves_the_others() -> None:
    x, scaler = rows_of(0, 200), scaler_of(rows_of(0, 200))
    grown = scaler_of(x)
    grown.grow(5)
    wide = np.concatenate([x, np.full((200, 2), np.nan, np.float32)], axis=1)
    assert np.array_equal(grown.scale(wide)[:, :3], scaler.scale(x))
    assert grown.n[3:].tolist() == [0.0, 0.0]
    wide[:, 3:] = x[:, :2]
    grown.observe(wide)
    assert grown.mean[3:] == pytest.approx(scaler.mean[:2])
    with pytest.raises(ValueError, match="columns is 2, wanted at least the 5 there are"):
        grown.grow(2)
