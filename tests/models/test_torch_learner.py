"""The network that learns: its arithmetic against numpy, its memory across stops, its manners with bad numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import losses, nets
from models.learner import Floats, Ints
from models.scaler import Scaler
from models.shapes import parameter_count, parameter_shapes, split
from models.snapshot import pack, unpack
from models.spec import Blend, Categorical, Features, Label, Learner, ModelSpec, Numeric, Optimiser
from models.torch_learner import CLIP_NORM, TorchLearner

TASKS = ("binary", "multiclass", "regression")
OPTIMISERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad")
CLASSES: dict[str, tuple[int | str, ...]] = {"binary": (0, 1), "multiclass": ("x", "y", "z"), "regression": ()}

Batch = tuple[Floats, Ints, Floats]


def spec_of(task: str = "binary", **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "t",
        "task": task,
        "label": Label(name="y", classes=CLASSES[task]),
        "features": Features(
            numeric={"a": Numeric(), "b": Numeric()},
            categorical={"c": Categorical(size=5, dim=2), "weight": Categorical(size=4, dim=1)},
        ),
        "learner": Learner(hidden=(6, 5)),
        "optimiser": Optimiser(learning_rate=0.01),
    }
    return ModelSpec(**fields | changes)


def batch_of(task: str = "binary", rows: int = 16, seed: int = 0) -> Batch:
    """x (B, 4): two columns and their missing indicators; the label hangs on both and on a category."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 2))
    categories = np.stack([rng.integers(0, 5, rows), rng.integers(0, 4, rows)], axis=1)
    latent = z[:, 0] - z[:, 1] + (categories[:, 0] == 2)
    target = {"binary": latent > 0, "multiclass": np.digitize(latent, [-0.7, 0.7]), "regression": 500 + 20 * latent}[
        task
    ]
    x = np.concatenate([z, np.zeros((rows, 2))], axis=1).astype(np.float32)
    return x, categories.astype(np.int64), target.astype(np.float32)


def learned(spec: ModelSpec, batches: int = 20, **changes: Any) -> TorchLearner:
    learner = TorchLearner(spec, **changes)
    for i in range(batches):
        learner.learn(*batch_of(spec.task, seed=i))
    return learner


def same(a: TorchLearner, b: TorchLearner) -> bool:
    return pack(a.state(), {}) == pack(b.state(), {})


# Against numpy -------------------------------------------------------------------------------------------


def plain_scores(spec: ModelSpec, theta: Floats, x: Floats, categories: Ints) -> NDArray[np.float64]:
    """(B, K), in float64, straight from the definition."""
    parts = {name: part.astype(np.float64) for name, part in split(theta, parameter_shapes(spec)).items()}
    tables = [part for name, part in parts.items() if name.startswith("embed.")]
    h = np.concatenate([x, *(t[categories[:, i]] for i, t in enumerate(tables))], axis=1)
    layers = [name.removesuffix(".weight") for name in parts if name.startswith("layer") and name.endswith(".weight")]
    for name in layers:
        h = h @ parts[f"{name}.weight"].T + parts[f"{name}.bias"]
        h = h if name == layers[-1] else np.maximum(h, 0.0)
    if spec.task == "binary":
        return np.asarray(1 / (1 + np.exp(-h)))
    if spec.task == "multiclass":
        e = np.exp(h - h.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))
    return h


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("network", ["linear", "mlp"])
def test_predictions_are_what_numpy_says(task: str, network: Any) -> None:
    spec = spec_of(task, learner=Learner(network=network, hidden=(6, 5)))
    learner = learned(spec)
    x, categories, _ = batch_of(task, 50, seed=99)
    wanted = plain_scores(spec, learner.serving_parameters(), x, categories)
    got = learner.predict(x, categories)
    assert got.dtype == np.float32
    assert got.shape == (50, spec.outputs)
    assert got == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert np.ptp(got[:, 0]) > 0.1, "it must have learned something"


def test_features_may_be_of_one_kind_only() -> None:
    x, categories, target = batch_of()
    numeric = TorchLearner(spec_of(features=Features(numeric={"a": Numeric(), "b": Numeric()})))
    numeric.learn(x, categories[:, :0], target)
    assert numeric.predict(x, categories[:, :0]).shape == (16, 1)
    categorical = TorchLearner(spec_of(features=Features(categorical={"c": Categorical(size=5)})))
    categorical.learn(x[:, :0], categories[:, :1], target)
    assert categorical.predict(x[:, :0], categories[:, :1]).shape == (16, 1)


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_what_numpy_says(task: str) -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(20, 3 if task == "multiclass" else 1)).astype(np.float32)
    target = (rng.random(20) * 3).astype(np.float32) if task == "regression" else batch_of(task, 20)[2]
    if task == "binary":
        p = 1 / (1 + np.exp(-outputs[:, 0].astype(np.float64)))
        wanted = -np.mean(np.where(target == 1, np.log(p), np.log(1 - p)))
    elif task == "multiclass":
        logits = outputs.astype(np.float64)
        wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), target.astype(int)])
    else:
        wanted = np.mean((outputs[:, 0].astype(np.float64) - target) ** 2)
    assert float(losses.loss(task, torch.from_numpy(outputs), torch.from_numpy(target))) == pytest.approx(
        wanted, rel=1e-5
    )


def test_one_step_of_sgd_is_what_the_gradient_says() -> None:
    """The gradient, in turn, by finite differences in float64."""
    spec = spec_of("binary", optimiser=Optimiser(name="sgd", learning_rate=0.1))
    learner, (x, categories, target) = learned(spec, 5), batch_of(rows=8, seed=50)
    before = learner.parameters().astype(np.float64)

    def loss(theta: NDArray[np.float64]) -> float:
        p = plain_scores(spec, theta, x, categories)[:, 0]  # type: ignore[arg-type]
        return float(-np.mean(np.where(target == 1, np.log(p), np.log(1 - p))))

    steps = np.eye(len(before)) * 1e-6
    gradient = np.array([(loss(before + s) - loss(before - s)) / 2e-6 for s in steps])
    learner.learn(x, categories, target)
    assert learner.parameters() == pytest.approx(before - 0.1 * gradient, abs=1e-6)


@pytest.mark.parametrize("network", ["linear", "mlp"])
@pytest.mark.parametrize(("task", "first"), [("binary", 0.5), ("multiclass", 1 / 3), ("regression", 0.0)])
def test_the_first_answer_is_neutral(task: str, first: float, network: Any) -> None:
    """Whatever a feature is called: 'weight' must not pass for a layer's."""
    learner = TorchLearner(spec_of(task, learner=Learner(network=network, hidden=(6,))))
    x, categories, _ = batch_of()
    assert learner.predict(x, categories) == pytest.approx(first)


def test_hidden_weights_are_random_and_biases_zero() -> None:
    shapes = parameter_shapes(spec_of())
    theta = nets.initial(shapes, torch.Generator().manual_seed(1))
    parts = split(theta.numpy(), shapes)
    for name, part in parts.items():
        assert np.all(part == 0) == (name.endswith(".bias") or name == "layer2.weight"), name
    assert np.abs(parts["layer0.weight"]).max() <= np.sqrt(6 / parts["layer0.weight"].shape[1])


# Paths and stops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("blend", ["proximal", "explicit"])
def test_a_stop_leaves_no_trace(task: str, optimiser: Any, blend: Any) -> None:
    """At any step, through the bytes of a file, with and without a reference."""
    spec = spec_of(task, optimiser=Optimiser(name=optimiser, learning_rate=0.02), blend=Blend(kind=blend))
    steady, stopping = TorchLearner(spec), TorchLearner(spec)
    for i in range(10):
        if i == 4:
            for learner in (steady, stopping):
                learner.set_reference(np.full(len(learner.parameters()), 0.1, np.float32))
        resumed = TorchLearner(spec)
        resumed.learn(*batch_of(task, seed=1000))  # a load wipes whatever was there
        resumed.load(unpack(pack(stopping.state(), {}))[0])
        stopping = resumed
        steady.learn(*batch_of(task, seed=i))
        stopping.learn(*batch_of(task, seed=i))
        assert same(steady, stopping)
    x, categories, _ = batch_of(task, seed=77)
    assert steady.predict(x, categories).tobytes() == stopping.predict(x, categories).tobytes()


@pytest.mark.parametrize("before", OPTIMISERS)
@pytest.mark.parametrize("after", OPTIMISERS)
def test_a_change_of_optimiser_keeps_what_was_learned(before: Any, after: Any) -> None:
    """The signature allows it, so a head made with another optimiser may be loaded."""
    old = learned(spec_of(optimiser=Optimiser(name=before)))
    new = TorchLearner(spec_of(optimiser=Optimiser(name=after)))
    new.load(old.state())
    assert np.array_equal(new.parameters(), old.parameters())
    new.learn(*batch_of(seed=99))
    assert np.isfinite(new.parameters()).all()
    assert not np.array_equal(new.parameters(), old.parameters())


def test_a_load_forgets_the_reference_if_the_state_has_none() -> None:
    learner = learned(spec_of())
    state = learner.state()
    learner.set_reference(learner.parameters() + 1)
    learner.load(state)
    assert "reference" not in learner.state()


def test_a_state_is_a_copy() -> None:
    learner = learned(spec_of("regression"))
    learner.set_reference(learner.parameters())
    state = learner.state()
    before = pack(state, {})
    learner.learn(*batch_of("regression", seed=99))
    assert pack(state, {}) == before
    other = TorchLearner(spec_of("regression"))
    other.load(state)
    other.learn(*batch_of("regression", seed=99))
    assert pack(state, {}) == before


def test_settings_of_a_tuning_override_the_specs() -> None:
    learner = TorchLearner(spec_of(), learning_rate=0.5, half_life_events=7.0)
    assert (learner.learning_rate, learner.half_life_events) == (0.5, 7.0)
    assert (TorchLearner(spec_of()).learning_rate, TorchLearner(spec_of()).half_life_events) == (0.01, 200_000.0)


def test_the_learning_rate_counts_and_can_be_changed() -> None:
    sgd = Optimiser(name="sgd", learning_rate=0.1)
    moved = {}
    for rate in (0.1, 0.2):
        learner = learned(spec_of(optimiser=sgd))
        before = learner.parameters()
        learner.set_learning_rate(rate)
        learner.learn(*batch_of(seed=99))
        moved[rate] = learner.parameters() - before
        assert learner.learning_rate == rate
    assert moved[0.2] == pytest.approx(2 * moved[0.1], abs=1e-6)


# Bad numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_skipped(bad: float) -> None:
    learner = learned(spec_of())
    learner.set_reference(np.zeros_like(learner.parameters()))
    before = pack(learner.state(), {})
    x, categories, target = batch_of()
    x[3, 1] = bad
    learner.learn(x, categories, target)
    assert learner.skipped_steps == 1
    assert pack(learner.state(), {}) == before
    learner.learn(*batch_of())
    assert np.isfinite(learner.parameters()).all()
    assert pack(learner.state(), {}) != before


def test_no_rows_no_answers() -> None:
    assert learned(spec_of()).predict(*batch_of(rows=0)[:2]).shape == (0, 1)


def test_long_gradients_are_cut() -> None:
    spec = spec_of(optimiser=Optimiser(name="sgd", learning_rate=1.0), learner=Learner(network="linear"))
    learner, (x, categories, target) = TorchLearner(spec), batch_of()
    learner.learn(x * 1e6, categories, target)
    assert np.linalg.norm(learner.parameters() - TorchLearner(spec).parameters()) == pytest.approx(CLIP_NORM, rel=1e-4)


# The reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_reference_pulls_after_the_optimisers_step(optimiser: Any) -> None:
    """Not within it, where Adam would rescale it."""
    spec = spec_of(optimiser=Optimiser(name=optimiser), blend=Blend(half_life_events=16.0))
    free, pulled = learned(spec), learned(spec)
    reference = np.linspace(-1, 1, len(free.parameters()), dtype=np.float32)
    pulled.set_reference(reference)
    free.learn(*batch_of(seed=99))
    pulled.learn(*batch_of(seed=99))
    assert pulled.parameters() == pytest.approx((free.parameters() + reference) / 2, abs=1e-6)
    pulled.set_reference(None)
    free.load(pulled.state())
    free.learn(*batch_of(seed=98))
    pulled.learn(*batch_of(seed=98))
    assert same(free, pulled)


def test_explicit_pulls_from_where_the_gradient_was() -> None:
    spec = spec_of(blend=Blend(kind="explicit", half_life_events=16.0))
    free, pulled = learned(spec), learned(spec)
    before, reference = free.parameters(), np.ones_like(free.parameters())
    pulled.set_reference(reference)
    free.learn(*batch_of(seed=99))
    pulled.learn(*batch_of(seed=99))
    assert pulled.parameters() == pytest.approx(free.parameters() + (reference - before) / 2, abs=1e-6)


def test_without_a_blend_there_is_no_pull() -> None:
    spec = spec_of(blend=Blend(kind="none", half_life_events=1.0))
    free, pulled = learned(spec), learned(spec)
    pulled.set_reference(np.ones_like(free.parameters()))
    free.learn(*batch_of(seed=99))
    pulled.learn(*batch_of(seed=99))
    assert np.array_equal(free.parameters(), pulled.parameters())


def test_a_reference_is_copied() -> None:
    learner = TorchLearner(spec_of(blend=Blend(half_life_events=1.0)))
    reference = np.zeros(parameter_count(parameter_shapes(spec_of())), np.float32)
    learner.set_reference(reference)
    reference[:] = 1e6
    learner.learn(*batch_of())
    assert np.abs(learner.parameters()).max() < 10


# Learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "network", "optimiser"),
    [*((t, n, "adam") for t in TASKS for n in ("linear", "mlp")), *(("binary", "mlp", o) for o in OPTIMISERS[1:])],
)
def test_what_can_be_separated_is_learned(task: str, network: Any, optimiser: Any) -> None:
    rate = {"sgd": 0.2, "adagrad": 0.1}.get(optimiser, 0.02)
    spec = spec_of(
        task,
        learner=Learner(network=network, hidden=(16,)),
        optimiser=Optimiser(name=optimiser, learning_rate=rate),
    )
    learner = TorchLearner(spec)
    for i in range(150):
        learner.learn(*batch_of(task, 32, seed=i))
    x, categories, target = batch_of(task, 500, seed=9999)
    said = learner.predict(x, categories)
    if task == "regression":
        assert np.mean((said[:, 0] - target) ** 2) < 0.1 * target.var()
    else:
        right = (said[:, 0] > 0.5) == (target == 1) if task == "binary" else said.argmax(axis=1) == target
        assert right.mean() > (0.9 if task == "binary" else 0.75)


def test_regression_answers_in_the_labels_own_units_at_once() -> None:
    """The label's mean and deviation are learned beside the network."""
    learner, (x, categories, target) = TorchLearner(spec_of("regression")), batch_of("regression")
    learner.learn(x, categories, target)
    scaler = Scaler(1)
    scaler.observe(target[:, None])
    assert np.abs(learner.predict(x, categories) - target.mean()).max() < scaler.std[0]
