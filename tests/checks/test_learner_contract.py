"""What every learner keeps, whatever is inside; a new learner is added to LEARNERS and passes, or is none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.learner import Floats, Ints, Learner
from models.shapes import parameter_count, parameter_shapes
from models.snapshot import pack, unpack
from models.spec import Learner as LearnerSpec
from models.spec import ModelSpec
from models.torch_learner import TorchLearner
from tests.models.test_torch_learner import TASKS, batch_of, spec_of

LEARNERS: dict[str, tuple[Callable[[ModelSpec], Learner], LearnerSpec]] = {
    "torch linear": (TorchLearner, LearnerSpec(network="linear")),
    "torch mlp": (TorchLearner, LearnerSpec(network="mlp", hidden=(8,))),
    "torch wide and deep": (TorchLearner, LearnerSpec(network="wide_deep", hidden=(8,))),
}

pytestmark = [pytest.mark.parametrize("task", TASKS), pytest.mark.parametrize("name", LEARNERS)]


def spec_for(name: str, task: str, **changes: Any) -> ModelSpec:
    return spec_of(task, learner=LEARNERS[name][1], **changes)


def fresh(name: str, task: str) -> Learner:
    return LEARNERS[name][0](spec_for(name, task))


def taught(name: str, task: str, steps: int = 10) -> Learner:
    learner = fresh(name, task)
    for i in range(steps):
        learner.learn(*batch_of(task, seed=i))
    return learner


def state_of(learner: Learner) -> bytes:
    return pack(learner.state(), {})


def frozen(*arrays: Floats | Ints) -> None:
    """Writing into one of them raises from here on."""
    for array in arrays:
        array.setflags(write=False)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_inputs_are_not_changed(name: str, task: str) -> None:
    learner, batch = taught(name, task), batch_of(task)
    before = [a.copy() for a in batch]
    frozen(*batch)
    learner.predict(*batch[:2])
    learner.learn(*batch)
    reference = np.ones_like(learner.parameters())
    learner.set_reference(reference)
    learner.learn(*batch)
    for array, was in zip(batch, before, strict=True):
        assert np.array_equal(array, was)
    assert np.array_equal(reference, np.ones_like(reference))


def test_predicting_changes_nothing(name: str, task: str) -> None:
    learner, (x, categories, _) = taught(name, task), batch_of(task)
    before = state_of(learner)
    first = learner.predict(x, categories)
    assert learner.predict(x, categories).tobytes() == first.tobytes()
    assert state_of(learner) == before


def test_answers_have_a_row_each_and_do_not_hang_on_their_neighbours(name: str, task: str) -> None:
    learner, (x, categories, _) = taught(name, task), batch_of(task)
    said = learner.predict(x, categories)
    assert said.dtype == np.float32
    assert said.shape == (len(x), spec_for(name, task).outputs)
    for i in (0, 7):
        alone = learner.predict(x[i : i + 1], categories[i : i + 1])
        assert alone == pytest.approx(said[i : i + 1], rel=1e-5, abs=1e-6)


def test_probabilities_are_probabilities(name: str, task: str) -> None:
    said = taught(name, task).predict(*batch_of(task, 200, seed=99)[:2])
    assert np.isfinite(said).all()
    if task != "regression":
        assert said.min() >= 0.0
        assert said.max() <= 1.0
    if task == "multiclass":
        assert said.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_same_seed_takes_the_same_path(name: str, task: str) -> None:
    a, b = taught(name, task), taught(name, task)
    assert state_of(a) == state_of(b)
    assert a.parameters().tobytes() == b.parameters().tobytes()


def test_saving_and_loading_equals_never_stopping(name: str, task: str) -> None:
    steady = taught(name, task, 5)
    steady.set_reference(np.full_like(steady.parameters(), 0.1))
    steady.learn(*batch_of(task, seed=5))
    resumed = taught(name, task, 2)
    resumed.load(unpack(state_of(steady))[0])
    assert state_of(resumed) == state_of(steady)
    for learner in (steady, resumed):
        for i in range(6, 10):
            learner.learn(*batch_of(task, seed=i))
    x, categories, _ = batch_of(task, seed=99)
    assert state_of(resumed) == state_of(steady)
    assert resumed.predict(x, categories).tobytes() == steady.predict(x, categories).tobytes()


def test_states_and_parameters_are_copies(name: str, task: str) -> None:
    learner = taught(name, task)
    before = state_of(learner)
    for array in (*learner.state().values(), learner.parameters(), learner.serving_parameters()):
        array[...] = 7
    assert state_of(learner) == before


def test_parameters_are_a_vector_of_the_specs_length(name: str, task: str) -> None:
    learner = taught(name, task)
    shape = (parameter_count(parameter_shapes(spec_for(name, task))),)
    assert learner.parameters().shape == learner.serving_parameters().shape == shape
    assert learner.parameters().dtype == learner.serving_parameters().dtype == np.float32


def test_a_reference_pulls_and_can_be_released(name: str, task: str) -> None:
    free, pulled, released = (taught(name, task) for _ in range(3))
    reference = np.full_like(free.parameters(), 3.0)
    for learner in (pulled, released):
        learner.half_life_events = 16.0
        learner.set_reference(reference)
    released.set_reference(None)
    for learner in (free, pulled, released):
        learner.learn(*batch_of(task, seed=99))
    assert released.reference() is None
    assert pulled.reference() == pytest.approx(reference)
    distance = np.linalg.norm(free.parameters() - reference)
    assert np.linalg.norm(pulled.parameters() - reference) == pytest.approx(distance / 2, rel=0.05)
    assert np.array_equal(released.parameters(), free.parameters())


def test_it_goes_on_from_parameters_that_it_is_given(name: str, task: str) -> None:
    """What the model said there it says again; they are copied."""
    there, here = taught(name, task, 30), taught(name, task, 30)
    x, categories, _ = batch_of(task, seed=99)
    said, theta = there.predict(x, categories), there.parameters()
    for i in range(30, 40):
        here.learn(*batch_of(task, seed=i))
    here.set_parameters(theta)
    theta[...] = 7
    assert here.parameters().tobytes() == there.parameters().tobytes()
    if task != "regression":  # the label's own scale has moved on
        assert here.predict(x, categories).tobytes() == said.tobytes()


def test_weights_of_one_are_no_weights(name: str, task: str) -> None:
    plain, weighted = taught(name, task), taught(name, task)
    x, categories, target = batch_of(task, seed=99)
    plain.learn(x, categories, target)
    weighted.learn(x, categories, target, np.ones(len(target), np.float32))
    assert weighted.parameters() == pytest.approx(plain.parameters(), rel=1e-5, abs=1e-6)
    assert not np.array_equal(taught(name, task).parameters(), plain.parameters())


def test_a_heavy_example_counts_more(name: str, task: str) -> None:
    """The model comes closer to its label, where another's labels pull the other way."""
    x, categories, target = batch_of(task, rows=2, seed=3)
    x[1], categories[1] = x[0], categories[0]
    target[:] = (0, 1)
    said = []
    for weights in ((9, 1), (1, 9)):
        learner = fresh(name, task)
        for _ in range(30):
            learner.learn(x, categories, target, np.array(weights, np.float32))
        said.append(learner.predict(x[:1], categories[:1])[0, -1 if task != "multiclass" else 1])
    assert said[1] > said[0]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_weights_that_weigh_nothing_or_too_much_are_refused(name: str, task: str, bad: float) -> None:
    learner, batch = taught(name, task), batch_of(task)
    weights = np.ones(len(batch[2]), np.float32)
    weights[3] = bad
    before = state_of(learner)
    with pytest.raises(ValueError, match=rf"^weight 3 is {bad}, wanted a finite number above 0$"):
        learner.learn(*batch, weights)
    with pytest.raises(ValueError, match=r"^weights have shape \(1,\), wanted \(16,\)$"):
        learner.learn(*batch, weights[:1])
    assert state_of(learner) == before


def test_missing_features_and_unknown_categories_are_learned_from(name: str, task: str) -> None:
    """Missing: z is 0, its indicator 1, the category's row 0."""
    learner, (x, categories, target) = taught(name, task), batch_of(task)
    x[:, :2], x[:, 2:], categories[:] = 0.0, 1.0, 0
    before = learner.parameters()
    learner.learn(x, categories, target)
    assert np.isfinite(learner.predict(x, categories)).all()
    assert not np.array_equal(learner.parameters(), before)


def test_one_row_is_a_batch(name: str, task: str) -> None:
    learner, before = taught(name, task), taught(name, task).parameters()
    learner.learn(*batch_of(task, rows=1))
    assert np.isfinite(learner.parameters()).all()
    assert not np.array_equal(learner.parameters(), before)


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
