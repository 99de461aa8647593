"""The mixture in the service: late labels judge what was told, and the pull hangs on rows, not on batches."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import learners
from models.blend import strength
from models.experts.mixture import Mixture
from models.learner import Floats, Ints
from models.mixture_learner import PULL_EVERY, USUAL_RATE, MixtureLearner
from models.snapshot import pack
from models.spec import Blend, Learner, Optimiser
from tests.models.test_torch_learner import TASKS, batch_of, spec_of

every_task = pytest.mark.parametrize("task", TASKS)


def fresh(task: str = "binary", *, blend: Blend | None = None, **changes: Any) -> MixtureLearner:
    learner = Learner(kind="mixture", tier="fast")
    spec = spec_of(task, learner=learner, blend=blend or Blend(), optimiser=Optimiser(learning_rate=USUAL_RATE))
    made = learners.make(spec, **changes)
    assert isinstance(made, MixtureLearner)
    return made


def taught(task: str = "binary", rows: int = 64, **changes: Any) -> MixtureLearner:
    learner = fresh(task, **changes)
    learner.learn(*batch_of(task, rows, seed=1))
    return learner


def state_of(learner: MixtureLearner) -> bytes:
    return pack(learner.state(), {})


def weights_of(learner: MixtureLearner) -> Floats:
    return np.array(list(learner.members().values()), np.float32)


def mixing_of(learner: MixtureLearner) -> Floats:
    """Shares and stacks."""
    state = learner.state()
    return np.concatenate([state[f"mixing.{name}"].ravel() for name in ("share", "stack")]).astype(np.float32)


def lost(learner: MixtureLearner, x: Floats, categories: Ints) -> Floats:
    return np.full_like(learner.ask(x, categories)[1], np.nan)


@every_task
def test_scores_are_as_the_spec_has_them(task: str) -> None:
    learner, (x, categories, _) = taught(task), batch_of(task, 5)
    said, told = learner.ask(x, categories)
    shown = {"binary": 2, "multiclass": 3, "regression": 1}[task]
    assert said.shape == (5, {"binary": 1, "multiclass": 3, "regression": 1}[task])
    assert (told.shape[1] - 1) % shown == 0
    assert (told.shape[1] - 1) // shown > len(learner.members())
    assert learner.ask(x[:0], categories[:0])[0].shape == (0, said.shape[1])


def test_the_score_of_two_classes_is_the_second_ones() -> None:
    learner = fresh()
    x, categories, _ = batch_of(rows=50)
    learner.learn(x, categories, np.ones(50, np.float32))
    assert learner.predict(x, categories).min() > 0.5


def test_at_the_usual_rate_it_is_the_mixture_of_its_tier() -> None:
    bare = Mixture(task="classification", columns=4, classes=2, category_sizes=(5, 4), tier="fast")
    x, categories, target = batch_of(rows=64, seed=1)
    bare.learn(x, categories, target)
    assert taught().predict(x, categories).tobytes() == bare.predict(x, categories)[:, 1:].tobytes()
    assert taught(learning_rate=USUAL_RATE).parameters().tobytes() == taught().parameters().tobytes()


def test_the_learning_rate_is_the_nets() -> None:
    """Linear models, the first parameters, have rates of their own."""
    usual, twice, still = (taught(learning_rate=rate) for rate in (USUAL_RATE, 2 * USUAL_RATE, 1e-12))
    begun = fresh().parameters()
    linear = np.flatnonzero(usual.parameters() != still.parameters())[0]
    assert linear > 0
    assert np.abs(still.parameters() - begun)[linear:].max() < 1e-6
    assert np.array_equal(twice.parameters()[:linear], usual.parameters()[:linear])
    for learner in (usual, twice):
        assert not np.array_equal(learner.parameters()[:linear], begun[:linear])
    far, farther = (np.abs(each.parameters() - begun)[linear:].sum() for each in (usual, twice))
    assert far < farther


# Late labels --------------------------------------------------------------------------------------------


@every_task
def test_members_are_judged_by_what_they_told_not_by_what_they_say_now(task: str) -> None:
    """One told the truth and all others a lie, whatever they would say by now; of the ways of mixing, the first did."""
    learner = fresh(task)
    names, (x, categories, target) = list(learner.members()), batch_of(task, 40, seed=2)
    told = learner.ask(x, categories)[1]
    answers = told[:, :-1].reshape(40, -1, {"binary": 2, "multiclass": 3, "regression": 1}[task])
    truth, lie = target[:, None], target[:, None] + 500.0
    if task != "regression":
        truth, lie = (0.9 * np.eye(answers.shape[2])[target.astype(int) - shift] + 0.03 for shift in (0, 1))
    for right in (2, len(names) - 1):
        other = fresh(task)
        answers[:] = lie[:, None]
        answers[:, right] = answers[:, len(names)] = truth
        other.learn(x, categories, target, None, told)
        members = other.members()
        assert max(members, key=members.__getitem__) == names[right]


@every_task
def test_a_lost_answer_judges_nobody_and_its_row_is_learned_all_the_same(task: str) -> None:
    learner, (x, categories, target) = taught(task), batch_of(task, 40, seed=2)
    before, theta = weights_of(learner), learner.parameters()
    learner.learn(x, categories, target, None, lost(learner, x, categories))
    assert np.array_equal(weights_of(learner), before)
    assert not np.array_equal(learner.parameters(), theta)
    now = taught(task)
    now.learn(x, categories, target)
    assert not np.array_equal(weights_of(now), before)
    assert now.parameters().tobytes() == learner.parameters().tobytes()


@every_task
def test_lost_answers_among_others_leave_the_others(task: str) -> None:
    some, all_ = taught(task), taught(task)
    x, categories, target = batch_of(task, 20, seed=2)
    told = some.ask(x, categories)[1]
    all_.learn(x[:12], categories[:12], target[:12], None, told[:12])
    told[12:, :3] = np.nan
    some.learn(x, categories, target, None, told)
    assert np.array_equal(weights_of(some), weights_of(all_))


def test_a_row_that_is_left_out_judges_nobody_either() -> None:
    learner, whole = taught(), taught()
    x, categories, target = batch_of(rows=20, seed=2)
    told = learner.ask(x, categories)[1]
    whole.learn(x[1:], categories[1:], target[1:], None, told[1:])
    x[0, 0] = np.nan
    learner.learn(x, categories, target, None, told)
    assert learner.skipped_steps == 1
    assert state_of(learner) == state_of(whole)


@every_task
def test_the_later_the_label_the_less_is_mixed_anew(task: str) -> None:
    moved = []
    x, categories, target = batch_of(task, 8, seed=2)
    for between in (0, 10, 1_000):
        learner = taught(task)
        before, told = mixing_of(learner), learner.ask(x, categories)[1]
        others = batch_of(task, between, seed=3)
        learner.learn(*others, None, lost(learner, *others[:2]))
        learner.learn(x, categories, target, None, told)
        moved.append(np.abs(mixing_of(learner) - before).sum())
    assert moved[0] > moved[1] > moved[2] > 0.0
    assert moved[2] < moved[0] / 2


# Rows, not batches --------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(1, 149), max_size=8), st.sampled_from(TASKS), st.booleans())
def test_rows_together_are_rows_one_by_one_with_a_pull_too(cuts: set[int], task: str, late: bool) -> None:
    """To the last bit, and over a stop."""
    x, categories, target = batch_of(task, 150, seed=4)
    weights = np.random.default_rng(5).uniform(0.5, 2.0, 150).astype(np.float32)
    whole, parts = taught(task, 20, half_life_events=50.0), taught(task, 20, half_life_events=50.0)
    told = whole.ask(x, categories)[1] if late else None
    for learner in (whole, parts):
        learner.set_reference(np.full_like(learner.parameters(), 0.5))
    whole.learn(x, categories, target, weights, told)
    for a, b in pairwise((0, *sorted(cuts), 150)):
        then = None if told is None else told[a:b]
        parts.learn(x[a:b], categories[a:b], target[a:b], weights[a:b], then)
        again = fresh(task, half_life_events=50.0)
        again.load(parts.state())
        parts = again
    assert state_of(parts) == state_of(whole)


# The pull -----------------------------------------------------------------------------------------------


@every_task
def test_nothing_pulls_where_the_reference_is_reached(task: str) -> None:
    rows = batch_of(task, PULL_EVERY, seed=2)
    free, pulled = taught(task), taught(task, half_life_events=10.0)
    free.learn(*rows)
    pulled.set_reference(free.parameters())
    pulled.learn(*rows)
    assert pulled.parameters().tobytes() == free.parameters().tobytes()


@every_task
@pytest.mark.parametrize("half_life_events", [8.0, 32.0, 1000.0])
def test_the_distance_to_the_reference_halves_in_a_half_life(task: str, half_life_events: float) -> None:
    rows = batch_of(task, PULL_EVERY, seed=2)
    free, pulled = taught(task), taught(task, half_life_events=half_life_events)
    reference = np.full_like(free.parameters(), 3.0)
    pulled.set_reference(reference)
    for learner in (free, pulled):
        learner.learn(*rows)
    left = 2.0 ** (-PULL_EVERY / half_life_events)
    assert 1.0 - left == strength(half_life_events, PULL_EVERY)
    assert pulled.parameters() - reference == pytest.approx(left * (free.parameters() - reference), rel=1e-4, abs=1e-5)


def test_it_pulls_whenever_so_many_rows_have_been_learned_since_the_first() -> None:
    free, pulled = taught(rows=PULL_EVERY + 5), taught(rows=PULL_EVERY + 5)
    pulled.set_reference(np.zeros_like(pulled.parameters()))
    x, categories, target = batch_of(rows=PULL_EVERY, seed=2)
    last = PULL_EVERY - 5
    for learner in (free, pulled):
        learner.learn(x[: last - 1], categories[: last - 1], target[: last - 1])
    assert np.array_equal(pulled.parameters(), free.parameters())
    for learner in (free, pulled):
        learner.learn(x[last - 1 : last], categories[last - 1 : last], target[last - 1 : last])
    assert not np.array_equal(pulled.parameters(), free.parameters())


def test_without_a_blend_a_reference_pulls_nothing() -> None:
    free, pulled = taught(blend=Blend(kind="none")), taught(blend=Blend(kind="none"))
    pulled.set_reference(np.zeros_like(pulled.parameters()))
    for learner in (free, pulled):
        learner.learn(*batch_of(rows=100, seed=2))
    assert np.array_equal(pulled.parameters(), free.parameters())


def test_what_pulls_is_a_copy_and_part_of_the_state() -> None:
    learner = taught()
    assert learner.reference() is None
    reference = np.full_like(learner.parameters(), 0.25)
    learner.set_reference(reference)
    reference[:] = 7.0
    found = learner.reference()
    assert found is not None
    assert set(found.tolist()) == {0.25}
    other = fresh()
    other.load(learner.state())
    assert np.array_equal(other.reference(), found)
    learner.set_reference(None)
    other.load(learner.state())
    assert other.reference() is None


def test_it_is_served_whole() -> None:
    learner = taught()
    assert learner.serving_parameters().shape == (0,)
    assert learner.parameters().size > 0


def test_rows_that_are_left_out_pull_nothing() -> None:
    learner = taught(rows=2 * PULL_EVERY)
    learner.set_reference(np.full_like(learner.parameters(), 3.0))
    x, categories, target = batch_of("binary", PULL_EVERY, seed=2)
    before = learner.parameters()
    learner.learn(np.full_like(x, np.nan), categories, target)
    assert np.array_equal(learner.parameters(), before)


def test_members_keep_their_names_whatever_the_rate_is_tuned_to() -> None:
    """A name is a label of a time series: a new one at every promotion would fill whoever stores them."""
    assert fresh(learning_rate=0.00517).members().keys() == fresh().members().keys()
