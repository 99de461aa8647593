"""What two learned apart, put together: as if one had learned it all where that can be; what they share where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import learners, scaler, walk
from models.learner import Learner
from models.merging import Fork, MergeError, picked
from models.rates import RecentRates
from models.scaler import Scaler
from models.snapshot import Arrays
from models.spec import ModelSpec, parse_spec
from tests import streams

SEEDS = st.integers(0, 2**32 - 1)


# Statistics ---------------------------------------------------------------------------------------


def scaled(state: Arrays, x: np.ndarray) -> Arrays:
    found = Scaler(3)
    found.load(state)
    found.observe(x.astype(np.float32))
    return found.state()


@settings(deadline=None)
@given(SEEDS, st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_means_and_deviations_are_those_of_all_rows(seed: int, before: int, theirs: int, mine: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal((1000.0, 0.0, -5.0), (3.0, 0.01, 50.0), (before + theirs + mine, 3))
    x[rng.random(x.shape) < 0.2] = np.nan
    base = scaled(Scaler(3).state(), x[:before])
    fork = Fork(base, scaled(base, x[before : before + theirs]), scaled(base, x[before + theirs :]), theirs, mine)
    found, n = scaler.merged(fork), (~np.isnan(x)).sum(axis=0)
    np.testing.assert_array_equal(found["n"], n)
    for column in np.flatnonzero(n > 0):
        there = x[~np.isnan(x[:, column]), column].astype(np.float32).astype(np.float64)
        assert found["mean"][column] == pytest.approx(there.mean(), rel=1e-6, abs=1e-6)
        assert found["m2"][column] == pytest.approx(((there - there.mean()) ** 2).sum(), rel=1e-3, abs=1e-4)


def counted(state: Arrays, rows: list[tuple[int, int, float]]) -> Arrays:
    found = rates()
    found.load(state)
    if rows:
        keys, targets, times_s = (np.array(column) for column in zip(*rows, strict=True))
        walk.learn(found, keys[:, None].astype(np.int64), targets[:, None].astype(np.float64), times_s)
    return found.state()


def rates() -> RecentRates:
    return RecentRates(combinations=1, slots=5, half_lives_s=(60.0, 3600.0), tracked=1, blank=0.5)


ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.floats(0, 5000)), max_size=20)


@settings(deadline=None)
@given(ROWS, ROWS, ROWS)
def test_recent_rates_are_those_of_all_labels(
    before: list[tuple[int, int, float]], theirs: list[tuple[int, int, float]], mine: list[tuple[int, int, float]]
) -> None:
    base = counted(rates().state(), before)
    fork = Fork(base, counted(base, theirs), counted(base, mine), len(theirs), len(mine))
    found, wanted = rates(), rates()
    found.load(rates().merged(fork))
    wanted.load(counted(rates().state(), before + theirs + mine))
    keys, times_s = np.arange(5)[:, None], np.full(5, 6000.0)
    np.testing.assert_allclose(found.read(keys, times_s), wanted.read(keys, times_s), atol=1e-5)
    assert found.seen()[1] == len(before + theirs + mine)


# What cannot be mixed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "theirs", "mine", "wanted"),
    [
        (0, 0, 0, 0),
        (0, 1, 0, 1),
        (0, 0, 2, 2),
        (0, 1, 2, 2),
        (None, 1, None, 1),
        (0, 0, None, None),
        (0, None, 0, None),
    ],
)
def test_what_has_changed_is_picked_and_mine_if_both_have(
    base: int | None, theirs: int | None, mine: int | None, wanted: int | None
) -> None:
    states: list[Arrays] = [{} if v is None else {"it": np.array([v])} for v in (base, theirs, mine)]
    found = picked(Fork(states[0], states[1], states[2], 1, 1), "it")
    assert (None if found is None else int(found[0])) == wanted


# Learners -------------------------------------------------------------------------------------------

KINDS = {
    "network": streams.NETWORK,
    "balanced": streams.NETWORK + '\nclass_weights = "balanced"',
    "mixture": streams.MIXTURE,
}


def spec_of(kind: str) -> ModelSpec:
    return parse_spec(streams.spec_text("merging", learner=KINDS[kind]), "test")


def batch(spec: ModelSpec, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = 2 + 2 * 2 + 2  # numeric, rates, indicators
    x = rng.normal(size=(rows, columns)).astype(np.float32)
    categories = rng.integers(0, 16, (rows, 1))
    return x, categories, (x[:, 0] - x[:, 1] + rng.normal(0, 0.5, rows) > 0).astype(np.float32)


def trained(spec: ModelSpec, state: Arrays | None, *batches: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Learner:
    learner = learners.make(spec)
    if state is not None:
        learner.load(state)
    for x, categories, target in batches:
        learner.learn(x, categories, target)
    return learner


def log_loss(learner: Learner, x: np.ndarray, categories: np.ndarray, target: np.ndarray) -> float:
    p = np.clip(learner.predict(x, categories)[:, 0], 1e-6, 1 - 1e-6)
    return float(-np.where(target == 1, np.log(p), np.log(1 - p)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_together_they_know_more_than_either(kind: str) -> None:
    spec = spec_of(kind)
    base = trained(spec, None, batch(spec, 64, 0)).state()
    theirs = trained(spec, base, *(batch(spec, 64, s) for s in range(1, 9)))
    mine = trained(spec, base, *(batch(spec, 64, s) for s in range(11, 19)))
    both = trained(spec, base)
    both.load(both.merged(Fork(base, theirs.state(), mine.state(), 512, 512)))
    unseen = batch(spec, 4_000, 99)
    one = trained(spec, base, *(batch(spec, 64, s) for s in (*range(1, 9), *range(11, 19))))
    assert log_loss(both, *unseen) < max(log_loss(theirs, *unseen), log_loss(mine, *unseen)) + 0.005
    assert log_loss(both, *unseen) < log_loss(one, *unseen) + 0.05
    both.learn(*batch(spec, 64, 20))  # and goes on


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_that_one_was_given_or_released_is_both_s(kind: str) -> None:
    spec = spec_of(kind)
    base = trained(spec, None, batch(spec, 64, 0))
    theta = base.parameters()
    free = base.state()
    base.set_reference(theta)
    pulled = base.state()
    for was, now in ((free, pulled), (pulled, free)):
        theirs, mine = trained(spec, now, batch(spec, 64, 1)), trained(spec, was, batch(spec, 64, 2))
        merged = mine.merged(Fork(was, theirs.state(), mine.state(), 64, 64))
        assert ("reference" in merged) == ("reference" in now)


def test_of_two_that_moved_alike_both_count_as_one_step_of_sqrt_two() -> None:
    """The first steps, too: the base's optimiser remembers nothing yet."""
    spec = spec_of("network")
    base = learners.make(spec)
    theirs, mine = (trained(spec, base.state(), batch(spec, 64, 1)) for _ in (1, 2))
    both = trained(spec, mine.merged(Fork(base.state(), theirs.state(), mine.state(), 64, 64)))
    moved = mine.parameters() - base.parameters()
    np.testing.assert_allclose(both.parameters() - base.parameters(), np.sqrt(2) * moved, atol=1e-6)
    both.learn(*batch(spec, 64, 2))
    assert np.isfinite(both.parameters()).all()


def test_an_estimator_of_river_is_not_merged() -> None:
    river = 'kind = "river"\nestimator = "river.linear_model.LogisticRegression"\nnominal = false'
    spec = parse_spec(streams.spec_text("merging", learner=river) + '[blend]\nkind = "none"\n', "test")
    state = learners.make(spec).state()
    with pytest.raises(MergeError, match="River"):
        learners.make(spec).merged(Fork(state, state, state, 1, 1))
