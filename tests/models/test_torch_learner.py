"""The network that learns: its arithmetic against numpy, its memory across stops, its manners with bad numbers."""

import inspect
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import losses, nets
from models.learner import Floats, Ints
from models.measure import mean_loss
from models.scaler import Scaler
from models.shapes import parameter_count, parameter_shapes, split
from models.snapshot import pack, unpack
from models.spec import Blend, Categorical, Features, Label, Learner, ModelSpec, Numeric, Optimiser, SpecError
from models.torch_learner import CLASS_WEIGHT_CAP, CLIP_NORM, TorchLearner

NETWORKS = ("linear", "mlp", "wide_deep")
TASKS = ("binary", "multiclass", "regression")
OPTIMISERS: tuple[str, ...] = get_args(get_type_hints(Optimiser)["name"])
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
        "learner": Learner(kind="torch", hidden=(6, 5)),
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
    if spec.learner.network == "wide_deep":
        h = h + x @ parts["wide_x.weight"].T
        for i, feature in enumerate(spec.features.categorical):
            h = h + np.eye(len(parts[f"wide.{feature}"]))[categories[:, i]] @ parts[f"wide.{feature}"]  # one-hot
    if spec.task == "binary":
        return np.asarray(1 / (1 + np.exp(-h)))
    if spec.task == "multiclass":
        e = np.exp(h - h.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))
    return h


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("network", NETWORKS)
def test_predictions_are_what_numpy_says(task: str, network: Any) -> None:
    spec = spec_of(task, learner=Learner(kind="torch", network=network, hidden=(6, 5)))
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


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("task", "first"), [("binary", 0.5), ("multiclass", 1 / 3), ("regression", 0.0)])
def test_the_first_answer_is_neutral(task: str, first: float, network: Any) -> None:
    """Whatever a feature is called: 'weight' must not pass for a layer's."""
    learner = TorchLearner(spec_of(task, learner=Learner(kind="torch", network=network, hidden=(6,))))
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


# Any optimiser -------------------------------------------------------------------------------------------


def test_all_of_torchs_optimisers_are_offered_that_take_one_step_on_a_dense_vector() -> None:
    found = set()
    for name, kind in vars(torch.optim).items():
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer:
            theta = torch.zeros(5)
            theta.grad = torch.ones(5)
            try:
                kind([theta], lr=0.01).step()  # type: ignore[call-arg]
            except (TypeError, ValueError, RuntimeError):
                continue  # wants a closure (LBFGS), matrices (Muon), sparse gradients (SparseAdam)
            found.add(name.lower())
    assert found == set(OPTIMISERS)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("adam", {"amsgrad": True, "betas": (0.8, 0.99)}),
        ("rmsprop", {"centered": True, "momentum": 0.5}),
        ("adagrad", {"initial_accumulator_value": 0.1}),
        ("nadam", {"momentum_decay": 0.01, "weight_decay": 0.1}),
    ],
)
def test_settings_reach_the_optimiser_and_its_memory_survives_a_stop(name: Any, settings: Any) -> None:
    plain, spec = (
        spec_of(optimiser=Optimiser(name=name, learning_rate=0.02, settings=given)) for given in ({}, settings)
    )
    steady, stopping = TorchLearner(spec), TorchLearner(spec)
    for i in range(6):
        resumed = TorchLearner(spec)
        resumed.load(unpack(pack(stopping.state(), {}))[0])
        stopping = resumed
        steady.learn(*batch_of(seed=i))
        stopping.learn(*batch_of(seed=i))
        assert same(steady, stopping)
    assert not np.array_equal(steady.parameters(), learned(plain, 6).parameters())


def test_a_change_of_settings_keeps_what_was_learned() -> None:
    """Adam without amsgrad remembers no maximum; what it remembers would not fit."""
    old = learned(spec_of())
    new = TorchLearner(spec_of(optimiser=Optimiser(settings={"amsgrad": True})))
    new.load(old.state())
    new.learn(*batch_of(seed=99))
    assert np.isfinite(new.parameters()).all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sgd", {"momentun": 0.9}, "optimiser.settings.momentun is unknown to sgd, did you mean momentum?"),
        ("sgd", {"zz": 1.0}, "optimiser.settings.zz is unknown to sgd, wanted one of momentum, dampening, "),
        ("adam", {"lr": 0.9}, "optimiser.settings.lr is unknown to adam, "),
        ("adam", {"maximize": True}, "optimiser.settings.maximize is unknown to adam, "),
        ("sgd", {"momentum": -1.0}, "optimiser.settings: sgd refuses {'momentum': -1.0}: Invalid momentum value: -1.0"),
        ("adam", {"betas": (0.9,)}, "optimiser.settings: adam refuses {'betas': (0.9,)}: "),
        ("adam", {"betas": 3.0}, "optimiser.settings: adam refuses {'betas': 3.0}: "),
    ],
)
def test_settings_that_the_optimiser_does_not_take_are_named(name: Any, settings: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        TorchLearner(spec_of(optimiser=Optimiser(name=name, settings=settings)))
    assert str(caught.value).startswith(message)


# Weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_weight_of_two_is_a_gradient_twice_as_long(task: str) -> None:
    spec = spec_of(task, optimiser=Optimiser(name="sgd", learning_rate=1e-3))
    moved = []
    for weight in (1.0, 2.0):
        learner, batch = learned(spec, 5), batch_of(task, seed=99)
        before = learner.parameters()
        learner.learn(*batch, np.full(16, weight, np.float32))
        moved.append(learner.parameters() - before)
    assert moved[1] == pytest.approx(2 * moved[0], rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_an_example_of_weight_three_is_that_example_three_times(task: str) -> None:
    """Up to the mean: four rows' sum is divided by two, so the loss is twice as large."""
    spec = spec_of(task, optimiser=Optimiser(name="sgd", learning_rate=0.01))
    x, categories, target = batch_of(task, rows=2, seed=1)
    weighted, repeated = learned(spec, 5), learned(spec, 5)
    weighted.learn(x, categories, target, np.array([3.0, 1.0], np.float32))
    repeated.set_learning_rate(0.02)
    rows = [0, 0, 0, 1]
    repeated.learn(x[rows], categories[rows], target[rows])
    assert weighted.parameters() == pytest.approx(repeated.parameters(), abs=1e-6)


def rare_of(task: str, rows: int, seed: int) -> Batch:
    """Few of the last class, at a known chance: sigmoid(2 a - 4)."""
    rng = np.random.default_rng(seed)
    x, categories, target = batch_of(task, rows, seed)
    chance = 1 / (1 + np.exp(4 - 2 * x[:, 0].astype(np.float64)))
    last = 1 if task == "binary" else 2
    target[:] = np.where(rng.random(rows) < chance, last, 0 if task == "binary" else rng.integers(0, 2, rows))
    return x, categories, target


def of_rare(task: str, class_weights: Any, batches: int = 400) -> TorchLearner:
    learner = TorchLearner(spec_of(task, learner=Learner(kind="torch", network="linear", class_weights=class_weights)))
    for i in range(batches):
        learner.learn(*rare_of(task, 32, i))
    return learner


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_balanced_classes_weigh_inversely_to_their_counts_up_to_the_cap(task: str) -> None:
    weights = of_rare(task, "balanced", 50).class_weights()
    counts = np.ones(len(weights)) + sum(
        np.bincount(rare_of(task, 32, i)[2].astype(int), minlength=len(weights)) for i in range(50)
    )
    assert weights == pytest.approx(counts.sum() / len(counts) / counts, rel=0.1)
    learner = TorchLearner(spec_of(task, learner=Learner(kind="torch", network="linear", class_weights="balanced")))
    x, categories, target = batch_of(task, 500)
    target[:] = 0.0
    learner.learn(x, categories, target)
    assert learner.class_weights()[1:] == pytest.approx(CLASS_WEIGHT_CAP)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_of_a_balanced_learner_are_those_of_the_stream(task: str) -> None:
    """The rare class weighs about ten times as much; left uncorrected it would be said five times too often."""
    x, categories, _ = rare_of(task, 4_000, 9_999)
    chance = 1 / (1 + np.exp(4 - 2 * x[:, 0].astype(np.float64)))
    learner = of_rare(task, "balanced")
    said = learner.predict(x, categories)[:, -1]
    assert learner.class_weights()[-1] > 4
    assert said.mean() == pytest.approx(chance.mean(), rel=0.25)
    assert np.abs(said - chance).mean() < 0.03


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize(("optimiser", "rate"), [("adam", 0.003), ("sgd", 0.05)])
def test_balanced_learning_answers_better_from_the_first_labels_on(task: str, optimiser: Any, rate: float) -> None:
    """By log-loss, said before learning: how rare a class is need not be learned."""
    losses_of = {}
    for class_weights in ("balanced", "none"):
        network: Any = Learner(kind="torch", hidden=(16,), class_weights=class_weights)  # type: ignore[arg-type]
        spec = spec_of(task, learner=network, optimiser=Optimiser(name=optimiser, learning_rate=rate))
        learner, loss = TorchLearner(spec), 0.0
        for i in range(100):
            x, categories, target = rare_of(task, 32, i)
            loss += mean_loss(spec.task, learner.predict(x, categories), target) / 100
            learner.learn(x, categories, target)
        losses_of[class_weights] = loss
    assert losses_of["balanced"] < losses_of["none"]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_class_counts_survive_a_stop(task: str) -> None:
    steady = of_rare(task, "balanced", 20)
    resumed = of_rare(task, "balanced", 3)
    resumed.load(unpack(pack(steady.state(), {}))[0])
    for learner in (steady, resumed):
        for i in range(20, 25):
            learner.learn(*rare_of(task, 32, i))
    assert same(steady, resumed)


def test_weights_and_class_weights_multiply() -> None:
    """An example's weight of 1 / w_c undoes its class's."""
    sgd = Optimiser(name="sgd", learning_rate=0.1)
    plain = TorchLearner(spec_of(optimiser=sgd))
    both = TorchLearner(spec_of(optimiser=sgd, learner=Learner(kind="torch", hidden=(6, 5), class_weights="balanced")))
    batch = rare_of("binary", 64, 5)
    counts = 1 + np.bincount(batch[2].astype(int), minlength=2)
    ours = counts.sum() / (2 * counts)
    plain.learn(*batch)
    both.learn(*batch, (1 / ours[batch[2].astype(int)]).astype(np.float32))
    assert both.parameters() == pytest.approx(plain.parameters(), abs=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_what_is_served_says_what_is_answered(task: str) -> None:
    learner = of_rare(task, "balanced", 50)
    x, categories, _ = rare_of(task, 50, 9)
    wanted = plain_scores(learner._spec, learner.serving_parameters(), x, categories)
    assert learner.predict(x, categories) == pytest.approx(wanted, abs=1e-5)


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
    spec = spec_of(optimiser=Optimiser(name="sgd", learning_rate=1.0), learner=Learner(kind="torch", network="linear"))
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
    [*((t, n, "adam") for t in TASKS for n in NETWORKS), *(("binary", "mlp", o) for o in OPTIMISERS if o != "adam")],
)
def test_what_can_be_separated_is_learned(task: str, network: Any, optimiser: Any) -> None:
    rate = {"sgd": 0.2, "asgd": 0.2, "adagrad": 0.1, "adadelta": 1.0}.get(optimiser, 0.02)
    spec = spec_of(
        task,
        learner=Learner(kind="torch", network=network, hidden=(16,)),
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


# With others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minibatch", "share", "wanted"), [(64, 1.0, 64), (64, 0.5, 32), (64, 0.01, 16), (4, 0.5, 4)])
def test_who_learns_a_share_of_the_stream_takes_steps_as_much_smaller(
    minibatch: int, share: float, wanted: int
) -> None:
    taken, expected = (
        TorchLearner(spec_of(learner=Learner(kind="torch", hidden=(6, 5), minibatch=n))) for n in (minibatch, wanted)
    )
    taken.share = share
    for learner in (taken, expected):
        learner.learn(*batch_of(rows=200))
    assert same(taken, expected)
