"""Recent label rates against a slow dictionary that says the same formula once per label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import walk
from models.rates import PSEUDO, RecentRates

HALF_LIVES_S = (60.0, 3600.0)
SLOTS = 7
Key = tuple[int, int]


class SlowRates:
    """All labels kept; every rate summed afresh. A slot's counters never run backwards in time."""

    def __init__(self, tracked: int, blank: float) -> None:
        self.labels: dict[Key, list[tuple[float, NDArray[np.float64]]]] = {}
        self.all: list[NDArray[np.float64]] = []
        self.tracked, self.blank = tracked, blank

    def learn(self, keys: list[int], target: NDArray[np.float64], time_s: float) -> None:
        self.all.append(target)
        for key in [(0, 0), *((k + 1, slot) for k, slot in enumerate(keys))]:
            self.labels.setdefault(key, []).append((time_s, target))

    def read(self, keys: list[int], time_s: float) -> list[float]:
        prior = (sum(self.all) + np.full(self.tracked, self.blank)) / (len(self.all) + 1)
        rates: list[float] = []
        for k, slot in enumerate(keys):
            for half_life_s in HALF_LIVES_S:
                overall = self._shrunk((0, 0), time_s, half_life_s, prior)
                rates.extend(map(float, self._shrunk((k + 1, slot), time_s, half_life_s, overall)))
        return rates

    def _shrunk(self, key: Key, time_s: float, half_life_s: float, parent: NDArray[np.float64]) -> NDArray[np.float64]:
        labels = self.labels.get(key, [])
        now_s = max([time_s, *(t for t, _ in labels)])
        w, s = 0.0, np.zeros(self.tracked)
        for label_time_s, target in labels:
            weight = 0.5 ** ((now_s - label_time_s) / half_life_s)
            w, s = w + weight, s + weight * target
        shrunk: NDArray[np.float64] = (s + PSEUDO * parent) / (w + PSEUDO)
        return shrunk


def rates_of(*, combinations: int = 2, tracked: int = 1, blank: float = 0.5) -> RecentRates:
    return RecentRates(
        combinations=combinations,
        slots=SLOTS,
        half_lives_s=HALF_LIVES_S,
        tracked=tracked,
        blank=blank,
    )


def keys_of(*rows: list[int]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


def random_labels(
    rng: np.random.Generator, n: int, tracked: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """keys (n, 2), targets (n, T) and times (n,), not in order."""
    keys = rng.integers(0, SLOTS, (n, 2))
    return keys, rng.normal(0.5, 1.0, (n, tracked)), 1.3e9 + rng.uniform(0, 7200, n)


LABELS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(1, 3))


@settings(deadline=None)
@given(LABELS, st.integers(1, 9))
def test_rates_are_those_of_the_slow_dictionary(given_: tuple[int, int, int], chunk: int) -> None:
    seed, n, tracked = given_
    rng = np.random.default_rng(seed)
    keys, targets, times_s = random_labels(rng, n, tracked)
    fast, slow = rates_of(tracked=tracked), SlowRates(tracked, 0.5)
    for a in range(0, n, chunk):
        part = slice(a, a + chunk)
        walk.learn(fast, keys[part], targets[part], times_s[part])
        for row, target, time_s in zip(keys[part], targets[part], times_s[part], strict=True):
            slow.learn(row.tolist(), target, float(time_s))
        asked, asked_s = keys_of([0, 1], [3, 3]), 1.3e9 + rng.uniform(0, 9000, 2)
        want = [slow.read(k, float(t)) for k, t in zip(asked.tolist(), asked_s, strict=True)]
        np.testing.assert_allclose(fast.read(asked, asked_s), want, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(LABELS, st.integers(1, 9))
def test_chunks_make_no_difference(given_: tuple[int, int, int], chunk: int) -> None:
    seed, n, tracked = given_
    keys, targets, times_s = random_labels(np.random.default_rng(seed), n, tracked)
    whole, chunked = rates_of(tracked=tracked), rates_of(tracked=tracked)
    walk.learn(whole, keys, targets, times_s)
    for a in range(0, n, chunk):
        part = slice(a, a + chunk)
        walk.learn(chunked, keys[part], targets[part], times_s[part])
    now_s = np.full(max(n, 1), 1.3e9 + 8000)
    asked = keys if n else keys_of([0, 0])
    np.testing.assert_allclose(whole.read(asked, now_s), chunked.read(asked, now_s), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("blank", [0.5, 1 / 3, 0.0])
def test_before_any_label_the_rate_is_the_blank(blank: float) -> None:
    rates = rates_of(blank=blank)
    assert rates.prior() == pytest.approx([blank])
    np.testing.assert_allclose(rates.read(keys_of([0, 1]), np.array([5.0])), [[blank] * 4])


def test_half_of_the_evidence_is_gone_after_a_half_life() -> None:
    rates = rates_of(combinations=1)
    walk.learn(rates, keys_of([1]), np.ones((1, 1)), np.array([0.0]))
    prior = 1.5 / 2
    overall = (0.5 + PSEUDO * prior) / (0.5 + PSEUDO)
    found = rates.read(keys_of([1]), np.array([60.0]))[0, 0]
    assert found == pytest.approx((0.5 + PSEUDO * overall) / (0.5 + PSEUDO))


def test_long_after_the_last_label_only_the_prior_is_left() -> None:
    rates = rates_of(combinations=1)
    walk.learn(rates, keys_of([1], [2]), np.array([[1.0], [0.0]]), np.zeros(2))
    found = rates.read(keys_of([1], [2]), np.full(2, 1e9))
    np.testing.assert_allclose(found, 0.5)


def test_a_label_moves_its_own_key_more_than_another() -> None:
    rates = rates_of(combinations=1)
    walk.learn(rates, keys_of([1]), np.ones((1, 1)), np.zeros(1))
    own, other = rates.read(keys_of([1], [2]), np.zeros(2))
    assert (own > other).all()


def test_time_running_backwards_never_adds_weight() -> None:
    rates = rates_of(combinations=1)
    walk.learn(rates, keys_of([1]), np.ones((1, 1)), np.array([1e6]))
    at, before = (rates.read(keys_of([1]), np.array([t])) for t in (1e6, 0.0))
    np.testing.assert_array_equal(at, before)


def test_reading_changes_nothing() -> None:
    rates = rates_of()
    walk.learn(rates, *random_labels(np.random.default_rng(0), 20, 1))
    before = rates.state()
    rates.read(keys_of([0, 1]), np.array([2e9]))
    after = rates.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@settings(deadline=None)
@given(LABELS)
def test_load_gives_back_what_was_saved(given_: tuple[int, int, int]) -> None:
    seed, n, tracked = given_
    rng = np.random.default_rng(seed)
    first, more = random_labels(rng, n, tracked), random_labels(rng, 10, tracked)
    saved, loaded = rates_of(tracked=tracked), rates_of(tracked=tracked)
    walk.learn(loaded, *random_labels(rng, 10, tracked))  # must all be forgotten
    walk.learn(saved, *first)
    loaded.load(saved.state())
    for rates in (saved, loaded):
        walk.learn(rates, *more)
    asked, now_s = rng.integers(0, SLOTS, (9, 2)), np.full(9, 1.3e9 + 8000)
    np.testing.assert_array_equal(saved.read(asked, now_s), loaded.read(asked, now_s))
    np.testing.assert_array_equal(saved.prior(), loaded.prior())


def test_state_is_a_copy_of_the_touched_slots_only() -> None:
    rates = rates_of()
    walk.learn(rates, keys_of([1, 2]), np.ones((1, 1)), np.zeros(1))
    state = rates.state()
    assert state["used"].tolist() == [0, SLOTS + 1, 2 * SLOTS + 2]
    kept = {name: array.copy() for name, array in state.items()}
    walk.learn(rates, keys_of([1, 2]), np.ones((1, 1)), np.ones(1))
    assert all(np.array_equal(state[name], kept[name]) for name in state)


@settings(deadline=None)
@given(LABELS)
def test_a_label_of_weight_3_is_like_three_labels(given_: tuple[int, int, int]) -> None:
    seed, n, tracked = given_
    rng = np.random.default_rng(seed)
    labels, times = random_labels(rng, n, tracked), rng.integers(1, 4, n)
    weighted, often = rates_of(tracked=tracked), rates_of(tracked=tracked)
    walk.learn(weighted, *labels, times.astype(np.float32))
    walk.learn(often, *(np.repeat(column, times, axis=0) for column in labels))
    asked, now_s = rng.integers(0, SLOTS, (9, 2)), np.full(9, 1.3e9 + 8000)
    np.testing.assert_allclose(weighted.read(asked, now_s), often.read(asked, now_s), rtol=1e-5)
    assert weighted.prior() == pytest.approx(often.prior())


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(1e-6, 1e6), max_size=40), max_size=9))
def test_weighted_labels_that_are_all_1_sum_up_to_their_count(batches: list[list[float]]) -> None:
    rates = rates_of()
    for weights in batches:
        ones, zeros = np.ones((len(weights), 1)), np.zeros(len(weights))
        walk.learn(rates, np.zeros((len(weights), 2), np.int64), ones, zeros, np.array(weights))
    state = rates.state()
    assert state["sum"].tolist() == state["count"].tolist()


def test_without_half_lives_there_are_no_columns_but_a_prior() -> None:
    rates = RecentRates(combinations=0, slots=SLOTS, half_lives_s=(), tracked=1, blank=0.5)
    none = np.zeros((3, 0), dtype=np.int64)
    walk.learn(rates, none, np.ones((3, 1)), np.zeros(3))
    assert rates.read(none, np.zeros(3)).shape == (3, 0)
    assert rates.prior() == pytest.approx([3.5 / 4])


def test_the_table_says_what_reading_says() -> None:
    for labels in (0, 40):
        rates = RecentRates(combinations=2, slots=8, half_lives_s=(60.0, 600.0), tracked=3, blank=1 / 3)
        rng = np.random.default_rng(0)
        if labels:
            keys, times_s = rng.integers(0, 5, (labels, 2)), rng.uniform(0.0, 900.0, labels)
            walk.learn(rates, keys, np.eye(3)[rng.integers(0, 3, labels)], times_s)
        every = np.stack([np.arange(8), np.arange(8)[::-1]], axis=1)
        table = rates.table(700.0)
        assert table is not None
        np.testing.assert_array_equal(rates.look_up(table, every), rates.read(every, np.full(8, 700.0)))


def test_a_table_of_very_many_classes_is_not_made() -> None:
    rates = RecentRates(combinations=1, slots=2048, half_lives_s=(60.0,), tracked=1000, blank=0.001)
    assert rates.table(0.0) is None
