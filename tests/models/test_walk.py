"""Rates event by event: a walk over many is as reading and counting one at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rates import RecentRates
from models.walk import learn, walk

SLOTS = 5


def rates_of(tracked: int, *, half_lives_s: tuple[float, ...] = (60.0, 3600.0), combinations: int = 2) -> RecentRates:
    return RecentRates(
        combinations=combinations, slots=SLOTS, half_lives_s=half_lives_s, tracked=tracked, blank=1 / (1 + tracked)
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 3), st.integers(0, 30), st.integers(0, 2**31))
def test_a_walk_reads_and_counts_in_the_order_of_the_events(tracked: int, events: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    has_row, has_label = rng.random(events) < 0.7, rng.random(events) < 0.6
    n, labels = int(has_row.sum()), int(has_label.sum())
    row = np.where(has_row, np.cumsum(has_row) - 1, -1)
    keys, learned_keys = rng.integers(0, SLOTS, (n, 2)), rng.integers(0, SLOTS, (labels, 2))
    times_s = rng.uniform(0.0, 500.0, n)
    targets, label_times_s = rng.random((labels, tracked)), rng.uniform(-100.0, 500.0, labels)
    weights = rng.choice([1.0, 0.5, 3.0], labels)
    whole, slow = rates_of(tracked), rates_of(tracked)

    found, priors = walk(
        whole, row, keys, times_s, np.flatnonzero(has_label), learned_keys, targets, label_times_s, weights
    )

    label = 0
    for b in range(events):
        if has_row[b]:
            i = row[b]
            assert priors[i] == pytest.approx(slow.prior(), rel=1e-12)
            assert found[i] == pytest.approx(slow.read(keys[i : i + 1], times_s[i : i + 1])[0], rel=1e-6)
        if has_label[b]:
            one = slice(label, label + 1)
            learn(slow, learned_keys[one], targets[one], label_times_s[one], weights[one])
            label += 1
    for name, value in slow.state().items():
        assert whole.state()[name] == pytest.approx(value, rel=1e-12), name


def test_a_row_does_not_know_its_own_label() -> None:
    rates = rates_of(1)
    both = np.array([0]), np.zeros((1, 2), np.int64), np.zeros(1)
    label = np.array([0]), np.zeros((1, 2), np.int64), np.ones((1, 1)), np.zeros(1), np.ones(1)
    found, priors = walk(rates, *both, *label)
    assert found.tolist() == [[0.5] * 4]
    assert priors.tolist() == [[0.5]]
    assert rates.prior()[0] > 0.5


def test_without_time_scales_the_labels_mean_is_still_counted() -> None:
    rates = rates_of(1, half_lives_s=(), combinations=0)
    none = np.zeros((2, 0), np.int64)
    found, priors = walk(
        rates, np.array([0, 1]), none, np.zeros(2), np.array([0]), none[:1], np.ones((1, 1)), np.zeros(1), np.ones(1)
    )
    assert found.shape == (2, 0)
    assert priors[:, 0].tolist() == [0.5, 0.75]
