"""Past optima: kept when released, weighed while they wait, recalled on evidence and no sooner."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learner import Floats, Ints
from models.references import CUT, EVIDENCE, SLACK, References
from models.snapshot import pack, unpack

NO_CATEGORIES = np.zeros((0, 0), np.int64)


class Says:
    """A learner that says its only parameter of every row: the probability, or the value."""

    def __init__(self, theta: float) -> None:
        self._theta = np.array([theta], np.float32)

    def predict(self, x: Floats, categories: Ints) -> Floats:
        return np.repeat(self._theta[None], len(x), axis=0)

    def parameters(self) -> Floats:
        return self._theta.copy()

    def set_parameters(self, theta: Floats) -> None:
        self._theta = theta.copy()


def pool_of(*thetas: float, task: Any = "binary", most: int = 3) -> References:
    references = References(task, most)
    for theta in thetas:
        references.keep(np.array([theta], np.float32))
    return references


def recall(references: References, learner: Says, target: list[float]) -> float | None:
    found = references.recall(learner, np.zeros((len(target), 0), np.float32), NO_CATEGORIES, np.float32(target))
    return None if found is None else float(found.theta[0])


def evidence(references: References) -> list[float]:
    return [float(e) for e in references.state()["evidence"]]


def test_evidence_is_the_log_likelihood_ratio_less_the_slack() -> None:
    references = pool_of(0.7, 0.1)
    assert recall(references, Says(0.5), [1.0, 1.0, 0.0]) is None
    better = 2 * np.log(0.7 / 0.5) + np.log(0.3 / 0.5) - 3 * SLACK
    assert evidence(references) == pytest.approx([better, np.log(0.9 / 0.5) - SLACK], rel=1e-5)


def test_what_does_clearly_better_is_recalled_once_there_is_evidence() -> None:
    """ln(0.9 / 0.5) = 0.59 nats each, less the slack: after 30 examples, not 29."""
    needed = int(EVIDENCE / (np.log(0.9 / 0.5) - SLACK)) + 1
    references = pool_of(0.1, 0.9)
    for _ in range(needed - 1):
        assert recall(references, Says(0.5), [1.0]) is None
    assert recall(references, Says(0.5), [1.0]) == pytest.approx(0.9)
    assert len(references) == 1
    assert evidence(references) == [0.0], "it spoke about parameters that are gone"


def test_a_recall_says_why() -> None:
    found = pool_of(0.9, 0.5).recall(Says(0.5), np.zeros((40, 0), np.float32), NO_CATEGORIES, np.ones(40, np.float32))
    assert found is not None
    assert found.evidence() == {"nats": pytest.approx(40 * (np.log(0.9 / 0.5) - SLACK), rel=1e-5), "left": 1}


def test_the_clearest_of_several_is_recalled() -> None:
    assert recall(pool_of(0.7, 0.9, 0.6), Says(0.5), [1.0] * 100) == pytest.approx(0.9)


def test_a_few_sure_mistakes_prove_nothing() -> None:
    references = pool_of(0.5)
    assert recall(references, Says(1e-6), [1.0]) is None
    assert evidence(references) == pytest.approx([CUT - SLACK])


def test_what_does_as_well_or_worse_never_comes_back() -> None:
    references, rng = pool_of(0.5, 0.52, 0.3), np.random.default_rng(0)
    for _ in range(2_000):
        assert recall(references, Says(0.5), [float(t) for t in rng.random(32) < 0.5]) is None


@pytest.mark.parametrize("batch", [1, 32])
def test_regression_weighs_squared_errors_against_their_own_size(batch: int) -> None:
    references, rng = pool_of(100.0, 103.0, task="regression"), np.random.default_rng(0)
    learner, found, taken = Says(103.0), None, 0
    while found is None and taken < 2_000:
        found = recall(references, learner, list(100.0 + rng.normal(0, 1, batch)))
        taken += batch
    assert found == pytest.approx(100.0)
    steady = pool_of(100.1, 99.0, task="regression")
    for _ in range(1_000):
        assert recall(steady, Says(100.0), list(100.0 + rng.normal(0, 1, batch))) is None


def test_the_learner_is_left_as_it_was() -> None:
    learner = Says(0.25)
    recall(pool_of(0.9, 0.1), learner, [1.0] * 64)
    assert learner.parameters().tobytes() == np.float32([0.25]).tobytes()


def test_scores_that_are_no_numbers_are_no_evidence() -> None:
    references = pool_of(float("nan"), 0.9, task="regression")
    assert recall(references, Says(float("inf")), [1.0, 2.0]) is None
    assert np.isfinite(evidence(references)).all()


def test_the_oldest_is_forgotten_first() -> None:
    references = pool_of(0.1, 0.2, 0.3, most=2)
    assert references.state()["pool"].ravel() == pytest.approx([0.2, 0.3])
    assert len(evidence(references)) == 2
    assert len(pool_of(0.1, most=0)) == 0
    assert pool_of(0.1, most=0).state() == {}


def test_evidence_stays_with_its_reference_when_another_joins() -> None:
    references = pool_of(0.9, 0.8)
    recall(references, Says(0.5), [1.0] * 4)
    first, second = evidence(references)
    references.keep(np.float32([0.1]))
    assert evidence(references) == [first, second, 0.0]
    references.keep(np.float32([0.1]))
    assert evidence(references) == [second, 0.0, 0.0]


def test_what_is_kept_is_a_copy() -> None:
    references, theta = References("binary", 3), np.float32([0.9])
    references.keep(theta)
    theta[0] = 0.0
    state = references.state()
    assert state["pool"][0, 0] == np.float32(0.9)
    state["pool"][...] = 0.0
    assert references.state()["pool"][0, 0] == np.float32(0.9)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), max_size=12), st.integers(0, 12))
def test_a_stop_leaves_no_trace(steps: list[list[bool]], stop: int) -> None:
    """Through the bytes of a file."""
    steady, stopping = pool_of(0.9, 0.4), pool_of(0.9, 0.4)
    for i, step in enumerate(steps):
        if i == stop:
            resumed = pool_of(0.3, 0.3, 0.3)
            resumed.load(unpack(pack(stopping.state(), {}))[0])
            stopping = resumed
        target = [float(t) for t in step]
        assert recall(steady, Says(0.5), target) == recall(stopping, Says(0.5), target)
        assert pack(steady.state(), {}) == pack(stopping.state(), {})


def test_an_empty_state_empties_the_pool() -> None:
    references = pool_of(0.9)
    references.load({})
    assert len(references) == 0
    assert recall(references, Says(0.5), [1.0] * 100) is None


def test_a_smaller_pool_loads_the_newest_of_a_larger_one() -> None:
    references = pool_of(most=1)
    references.load(pool_of(0.1, 0.2).state())
    assert references.state()["pool"].ravel() == pytest.approx([0.2])


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=40))
def test_a_step_weighs_as_its_examples_one_by_one(chances: list[float]) -> None:
    """Page's sum is cut at 0 example by example, however the steps are cut."""
    target = [float(c > 0.5) for c in chances]
    together, apart = pool_of(0.6), pool_of(0.6)
    recall(together, Says(0.5), target)
    for t in target:
        recall(apart, Says(0.5), [t])
    assert evidence(together) == pytest.approx(evidence(apart), abs=1e-6)
