"""What every learner keeps, whatever is inside; a new learner is added to LEARNERS and passes, or is none."""

import numpy as np
import pytest

from models import learners
from models.learner import Floats, Ints, Learner
from models.shapes import parameter_count, parameter_shapes
from models.snapshot import pack, unpack
from models.spec import Blend, ModelSpec, Stage
from models.spec import Learner as LearnerSpec
from tests.models.test_torch_learner import TASKS, batch_of, spec_of

TREES = {"regression": "HoeffdingAdaptiveTreeRegressor"}
LINEAR = {"multiclass": "SoftmaxRegression", "regression": "LinearRegression"}


def specs_of(task: str) -> dict[str, LearnerSpec]:
    tree = f"river.tree.{TREES.get(task, 'HoeffdingAdaptiveTreeClassifier')}"
    linear = f"river.linear_model.{LINEAR.get(task, 'LogisticRegression')}"
    scaled = (Stage(estimator="river.preprocessing.StandardScaler"), Stage(estimator=linear))
    return {
        "mixture fast": LearnerSpec(kind="mixture", tier="fast"),
        "torch linear": LearnerSpec(kind="torch", network="linear"),
        "torch mlp": LearnerSpec(kind="torch", network="mlp", hidden=(8,)),
        "torch wide and deep": LearnerSpec(kind="torch", network="wide_deep", hidden=(8,)),
        "river tree": LearnerSpec(
            kind="river", estimator=tree, settings={"grace_period": 20}, nominal=task != "regression"
        ),
        "river pipeline": LearnerSpec(kind="river", pipeline=scaled, nominal=False),
    }


LEARNERS = tuple(specs_of("binary"))
WITH_THETA = tuple(name for name in LEARNERS if not name.startswith("river"))
"""Those that have parameters to pull."""
WITH_GRAPH = tuple(name for name in LEARNERS if name.startswith("torch"))
"""Those whose parameters a graph serves."""

every_task = pytest.mark.parametrize("task", TASKS)
every_learner = pytest.mark.parametrize("name", LEARNERS)
every_theta = pytest.mark.parametrize("name", WITH_THETA)


def spec_for(name: str, task: str) -> ModelSpec:
    blend = Blend() if name in WITH_THETA else Blend(kind="none")
    return spec_of(task, learner=specs_of(task)[name], blend=blend)


def fresh(name: str, task: str) -> Learner:
    return learners.make(spec_for(name, task))


def taught(name: str, task: str, steps: int = 10) -> Learner:
    learner = fresh(name, task)
    for i in range(steps):
        learner.learn(*batch_of(task, seed=i))
    return learner


def state_of(learner: Learner) -> bytes:
    return pack(learner.state(), {})


def said_by(learner: Learner, task: str) -> bytes:
    return learner.predict(*batch_of(task, 50, seed=99)[:2]).tobytes()


def frozen(*arrays: Floats | Ints) -> None:
    """Writing into one of them raises from here on."""
    for array in arrays:
        array.setflags(write=False)


@every_task
@every_learner
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_inputs_are_not_changed(name: str, task: str) -> None:
    learner, batch = taught(name, task), (*batch_of(task), np.full(16, 2.0, np.float32))
    before = [a.copy() for a in batch]
    frozen(*batch)
    learner.predict(*batch[:2])
    learner.learn(*batch)
    for array, was in zip(batch, before, strict=True):
        assert np.array_equal(array, was)


@every_task
@every_learner
def test_predicting_changes_nothing(name: str, task: str) -> None:
    learner, still = taught(name, task), taught(name, task)
    assert said_by(learner, task) == said_by(learner, task)
    for each in (learner, still):
        each.learn(*batch_of(task, seed=98))
    assert said_by(learner, task) == said_by(still, task)


@every_task
@every_learner
def test_answers_have_a_row_each_and_do_not_hang_on_their_neighbours(name: str, task: str) -> None:
    learner, (x, categories, _) = taught(name, task), batch_of(task)
    said = learner.predict(x, categories)
    assert said.dtype == np.float32
    assert said.shape == (len(x), spec_for(name, task).outputs)
    for i in (0, 7):
        alone = learner.predict(x[i : i + 1], categories[i : i + 1])
        assert alone == pytest.approx(said[i : i + 1], rel=1e-5, abs=1e-6)


@every_task
@every_learner
@pytest.mark.parametrize("steps", [0, 1, 10])
def test_probabilities_are_probabilities(name: str, task: str, steps: int) -> None:
    said = taught(name, task, steps).predict(*batch_of(task, 200, seed=99)[:2])
    assert np.isfinite(said).all()
    if task != "regression":
        assert said.min() >= 0.0
        assert said.max() <= 1.0
    if task == "multiclass":
        assert said.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


@every_task
@every_learner
def test_asking_changes_nothing_and_says_what_predicting_says(name: str, task: str) -> None:
    learner, (x, categories, _) = taught(name, task), batch_of(task, 50, seed=99)
    before = state_of(learner)
    frozen(x, categories)
    said, told = learner.ask(x, categories)
    assert said.tobytes() == learner.predict(x, categories).tobytes()
    assert state_of(learner) == before
    assert (told.dtype, told.ndim, len(told)) == (np.float32, 2, 50)
    assert np.isfinite(told).all()


@every_task
@every_learner
def test_what_was_told_is_learned_with_whether_it_is_there_or_lost(name: str, task: str) -> None:
    """A label that comes at once is the same with what was told just now and without."""
    learner, at_once, lost = (taught(name, task) for _ in range(3))
    x, categories, target = batch_of(task, rows=1, seed=98)
    _, told = learner.ask(x, categories)
    frozen(told)
    learner.learn(x, categories, target, None, told)
    at_once.learn(x, categories, target)
    lost.learn(x, categories, target, None, np.full_like(told, np.nan))
    assert np.frombuffer(said_by(learner, task), np.float32) == pytest.approx(
        np.frombuffer(said_by(at_once, task), np.float32), rel=1e-4
    )
    for each in (learner, lost):
        assert each.skipped_steps == at_once.skipped_steps
        assert said_by(each, task) != said_by(taught(name, task), task)


@every_task
@every_learner
def test_members_share_the_weight_or_there_are_none(name: str, task: str) -> None:
    members = taught(name, task).members()
    assert bool(members) == name.startswith("mixture")
    if members:
        assert sum(members.values()) == pytest.approx(1.0)
        assert min(members.values()) >= 0.0


@every_task
@every_learner
def test_what_is_taught_is_learned(name: str, task: str) -> None:
    """Above all that scores and targets mean the same class."""
    learner, (x, categories, target) = taught(name, task, 60), batch_of(task, 400, seed=99)
    said = learner.predict(x, categories)
    if task == "regression":
        assert np.mean((said[:, 0] - target) ** 2) < 0.8 * np.var(target)
    else:
        chosen = said.argmax(axis=1) if task == "multiclass" else said[:, 0] >= 0.5
        assert np.mean(chosen == target) > np.bincount(target.astype(np.int64)).max() / len(target) + 0.1


@every_task
@every_learner
def test_the_same_seed_takes_the_same_path(name: str, task: str) -> None:
    assert said_by(taught(name, task), task) == said_by(taught(name, task), task)


@every_task
@every_learner
@pytest.mark.parametrize("at", [0, 1, 5])
def test_saving_and_loading_equals_never_stopping(name: str, task: str, at: int) -> None:
    steady = taught(name, task, at)
    resumed = taught(name, task, 2)
    resumed.load(unpack(state_of(steady))[0])
    assert said_by(resumed, task) == said_by(steady, task)
    for i in range(at, 10):
        for learner in (steady, resumed):
            learner.learn(*batch_of(task, seed=i))
        assert said_by(resumed, task) == said_by(steady, task)


@every_task
@every_learner
def test_states_and_parameters_are_copies(name: str, task: str) -> None:
    learner = taught(name, task)
    before = said_by(learner, task)
    for array in (*learner.state().values(), learner.parameters(), learner.serving_parameters()):
        array[...] = 7
    assert said_by(learner, task) == before


@every_task
@every_learner
def test_weights_of_one_are_no_weights_and_wrong_ones_are_refused(name: str, task: str) -> None:
    weighted, plain = taught(name, task), taught(name, task)
    x, categories, target = batch_of(task, seed=98)
    weighted.learn(x, categories, target, np.ones(16, np.float32))
    plain.learn(x, categories, target)
    assert said_by(weighted, task) == said_by(plain, task)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"weight 0 is .*, wanted a finite number above 0"):
            plain.learn(x, categories, target, np.full(16, bad, np.float32))
    with pytest.raises(ValueError, match=r"weights have shape \(3,\), wanted \(16,\)"):
        plain.learn(x, categories, target, np.ones(3, np.float32))
    assert said_by(weighted, task) == said_by(plain, task)


@every_task
@every_learner
def test_weights_count(name: str, task: str) -> None:
    light, heavy = fresh(name, task), fresh(name, task)
    for i in range(5):
        x, categories, target = batch_of(task, seed=i)
        up = target > np.median(target)
        light.learn(x, categories, target)
        heavy.learn(x, categories, target, np.where(up, 20.0, 1.0).astype(np.float32))
    if name == "river pipeline" and task == "multiclass":  # river's softmax regression takes none
        assert said_by(light, task) == said_by(heavy, task)
    else:
        assert said_by(light, task) != said_by(heavy, task)


@every_task
@every_learner
def test_missing_features_and_unknown_categories_are_learned_from(name: str, task: str) -> None:
    """Missing: z is 0, its indicator 1, the category's row 0."""
    learner, still = taught(name, task), taught(name, task)
    x, categories, target = batch_of(task)
    x[:, :2], x[:, 2:], categories[:] = 0.0, 1.0, 0
    for _ in range(5):
        learner.learn(x, categories, target)
    there = learner.predict(x, categories)
    assert np.isfinite(there).all()
    assert there.tobytes() != still.predict(x, categories).tobytes()


@every_task
@every_learner
def test_one_row_is_a_batch(name: str, task: str) -> None:
    learner = taught(name, task)
    for i in range(5):
        learner.learn(*batch_of(task, rows=1, seed=100 + i))
    assert said_by(learner, task) != said_by(taught(name, task), task)


@every_task
@every_learner
def test_numbers_that_are_not_finite_poison_nothing(name: str, task: str) -> None:
    learner = taught(name, task)
    for bad in (np.nan, np.inf):
        x, categories, target = batch_of(task)
        x[0, 0] = bad
        learner.learn(x, categories, target)
    assert learner.skipped_steps == 2
    for array in learner.state().values():
        assert np.isfinite(array.astype(np.float64)).all()
    assert np.isfinite(learner.predict(*batch_of(task)[:2])).all()


@every_task
@every_learner
def test_absurd_numbers_leave_answers_finite(name: str, task: str) -> None:
    learner = taught(name, task)
    x, categories, target = batch_of(task)
    x[0, :2] = 5.0
    target = target * 1e6 if task == "regression" else target
    for _ in range(20):
        learner.learn(x, categories, target)
    assert np.isfinite(learner.predict(*batch_of(task)[:2])).all()


# With parameters ----------------------------------------------------------------------------------


@every_task
@every_theta
def test_states_are_equal_bit_by_bit_where_paths_are(name: str, task: str) -> None:
    a, b, resumed = taught(name, task), taught(name, task), taught(name, task, 2)
    a.set_reference(np.full_like(a.parameters(), 0.1))
    b.set_reference(np.full_like(b.parameters(), 0.1))
    resumed.load(unpack(state_of(a))[0])
    assert state_of(a) == state_of(b) == state_of(resumed)
    a.predict(*batch_of(task)[:2])
    for learner in (a, resumed):
        learner.learn(*batch_of(task, seed=10))
    assert state_of(a) == state_of(resumed)


@every_task
@pytest.mark.parametrize("name", WITH_GRAPH)
def test_parameters_are_a_vector_of_the_specs_length(name: str, task: str) -> None:
    learner = taught(name, task)
    shape = (parameter_count(parameter_shapes(spec_for(name, task))),)
    assert learner.parameters().shape == learner.serving_parameters().shape == shape


@every_task
@every_theta
def test_going_on_from_parameters_is_going_on_from_them(name: str, task: str) -> None:
    learner, other = taught(name, task), taught(name, task, 3)
    theta = other.parameters()
    before = said_by(learner, task)
    learner.set_parameters(theta)
    assert said_by(learner, task) != before
    assert learner.parameters().tobytes() == theta.tobytes()
    learner.learn(*batch_of(task, seed=98))
    assert learner.parameters().tobytes() != theta.tobytes() == other.parameters().tobytes()
    assert learner.parameters().shape == theta.shape
    assert {a.dtype for a in (theta, learner.serving_parameters())} == {np.dtype(np.float32)}


@every_task
@every_theta
def test_a_reference_pulls_and_can_be_released(name: str, task: str) -> None:
    free, pulled, released = (taught(name, task) for _ in range(3))
    reference = np.full_like(free.parameters(), 3.0)
    for learner in (pulled, released):
        learner.half_life_events = 32.0
        learner.set_reference(reference)
    assert np.array_equal(reference, np.full_like(reference, 3.0))
    released.set_reference(None)
    for learner in (free, pulled, released):
        learner.learn(*batch_of(task, rows=32, seed=99))
    distance = np.linalg.norm(free.parameters() - reference)
    assert np.linalg.norm(pulled.parameters() - reference) == pytest.approx(distance / 2, rel=0.05)
    assert np.array_equal(released.parameters(), free.parameters())


@every_task
@pytest.mark.parametrize("name", sorted(set(LEARNERS) - set(WITH_THETA)))
def test_without_parameters_a_reference_is_refused_and_none_is_released(name: str, task: str) -> None:
    learner = taught(name, task)
    assert learner.parameters().size == learner.serving_parameters().size == 0
    assert learner.reference() is None
    learner.set_reference(None)
    for ask in (learner.set_reference, learner.set_parameters):
        with pytest.raises(ValueError, match=r"has 3 numbers.*a River estimator has no parameters"):
            ask(np.zeros(3, np.float32))
