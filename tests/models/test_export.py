"""The graph says what the network says; also the small specs and rows that other tests use."""

import time
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from models.export import to_onnx
from models.features import FeatureEncoder
from models.runtime import Session
from models.shapes import dense_columns, parameter_shapes, split
from models.spec import Categorical, Features, Label, Learner, ModelSpec, Numeric, Rates
from models.torch_learner import TorchLearner

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def spec_of(
    task: str = "binary",
    *,
    numeric: int = 3,
    dims: tuple[int, ...] = (2, 2, 3),
    rates: bool = True,
    hidden: tuple[int, ...] = (16, 8),
    network: str = "mlp",
) -> ModelSpec:
    """A spec; ``dims`` has one embedding dim per categorical feature."""
    classes = {"binary": (0, 1), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    keys: tuple[tuple[str, ...], ...] = ((), ("c0",)) if dims else ((),)
    return ModelSpec(
        name="t",
        task=task,  # type: ignore[arg-type]
        label=Label(name="y", classes=classes),
        features=Features(
            numeric={f"n{i}": Numeric() for i in range(numeric)},
            categorical={f"c{i}": Categorical(size=5 + i, dim=d) for i, d in enumerate(dims)},
            rates=Rates(half_lives_s=(60.0, 3600.0), keys=keys) if rates else Rates(),
        ),
        learner=Learner(kind="torch", hidden=hidden, network=network),  # type: ignore[arg-type]
    )


def parameters_of(spec: ModelSpec, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """theta (P,), mean and std (N + R,)."""
    parts = []
    for name, shape in parameter_shapes(spec).items():
        size = 1.0 / np.sqrt(max(1, shape[1])) if name.endswith(".weight") else 0.3
        parts.append(rng.normal(0, size, shape).astype(np.float32).ravel())
    columns = dense_columns(spec)
    mean = rng.normal(0, 10, columns).astype(np.float32)
    return np.concatenate(parts), mean, rng.uniform(0.5, 20, columns).astype(np.float32)


def rows_of(spec: ModelSpec, rng: np.random.Generator, rows: int, mean: Floats, std: Floats) -> tuple[Floats, Ints]:
    """Raw rows: numeric (B, N + R), a tenth missing, some far outside; categories (B, C)."""
    z = rng.standard_t(3, (rows, dense_columns(spec)))
    z[rng.random(z.shape) < 0.1] = np.nan
    sizes = [f.size for f in spec.features.categorical.values()]
    columns = [rng.integers(0, size, rows) for size in sizes]
    categories = np.array(columns, dtype=np.int64).reshape(len(sizes), rows).T
    return (mean + std * z).astype(np.float32), np.ascontiguousarray(categories)


def plain_forward(
    spec: ModelSpec, theta: Floats, mean: Floats, std: Floats, numeric: Floats, categories: Ints
) -> NDArray[np.float64]:
    """Scores (B, K) in float64, straight from the docstring of models.shapes."""
    p = {k: v.astype(np.float64) for k, v in split(theta, parameter_shapes(spec)).items()}
    z = np.clip((numeric.astype(np.float64) - mean) / std, -5, 5)
    missing = np.isnan(numeric[:, : len(spec.features.numeric)])
    embedded = [p[f"embed.{n}"][categories[:, i]] for i, n in enumerate(spec.features.categorical)]
    h = np.concatenate([np.nan_to_num(z, nan=0.0), missing, *embedded], axis=1)
    depth = sum(name.startswith("layer") for name in p) // 2
    for i in range(depth):
        h = h @ p[f"layer{i}.weight"].T + p[f"layer{i}.bias"]
        h = np.maximum(h, 0) if i < depth - 1 else h
    if spec.learner.network == "wide_deep":
        h = h + np.concatenate([np.nan_to_num(z, nan=0.0), missing], axis=1) @ p["wide_x.weight"].T
        h = h + sum(p[f"wide.{n}"][categories[:, i]] for i, n in enumerate(spec.features.categorical))
    if spec.task == "binary":
        return np.asarray(1 / (1 + np.exp(-h)))
    if spec.task == "multiclass":
        e = np.exp(h - h.max(axis=1, keepdims=True)) if len(h) else h
        return np.asarray(e / e.sum(axis=1, keepdims=True))
    return h


SPECS = {
    "binary": spec_of(),
    "multiclass": spec_of("multiclass"),
    "regression": spec_of("regression"),
    "linear": spec_of(network="linear"),
    "no categoricals": spec_of(dims=()),
    "one categorical": spec_of(dims=(3,)),
    "dims in turn": spec_of(dims=(2, 3, 2)),
    "no rates": spec_of(rates=False),
    "no rates, no categoricals": spec_of(rates=False, dims=()),
    "rates only": spec_of(numeric=0, dims=()),
    "categoricals only": spec_of(numeric=0, rates=False),
    "no hidden layer": spec_of(hidden=()),
    "wide and deep": spec_of(network="wide_deep"),
    "wide and deep, multiclass": spec_of("multiclass", network="wide_deep", dims=(2, 3, 2)),
    "wide and deep, regression": spec_of("regression", network="wide_deep"),
    "wide and deep, one categorical": spec_of(network="wide_deep", dims=(3,)),
    "wide and deep, no categoricals": spec_of(network="wide_deep", dims=()),
    "wide and deep, categoricals only": spec_of(network="wide_deep", numeric=0, rates=False),
}


@pytest.fixture(params=list(SPECS.values()), ids=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    found: ModelSpec = request.param
    return found


@pytest.mark.parametrize("rows", [0, 1, 7, 64])
def test_scores_equal_a_plain_forward_pass(spec: ModelSpec, rows: int) -> None:
    rng = np.random.default_rng(1)
    theta, mean, std = parameters_of(spec, rng)
    numeric, categories = rows_of(spec, rng, rows, mean, std)
    scores = Session(to_onnx(spec, theta, mean, std)).run(numeric, categories)
    assert scores.dtype == np.float32
    assert scores.shape == (rows, spec.outputs)
    wanted = plain_forward(spec, theta, mean, std, numeric, categories)
    np.testing.assert_allclose(scores, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("network", ["linear", "mlp", "wide_deep"])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_scores_equal_those_of_the_learner(task: str, network: Any, class_weights: Any) -> None:
    """What is served is what the worker answers, whatever was folded into the parameters."""
    network = Learner(
        kind="torch", hidden=(8,), network=network, class_weights="none" if task == "regression" else class_weights
    )
    spec, rng = msgspec.structs.replace(spec_of(task), learner=network), np.random.default_rng(1)
    learner, encoder = TorchLearner(spec), FeatureEncoder(spec)
    columns = dense_columns(spec)
    for _ in range(20):
        numeric, categories = rows_of(spec, rng, 32, np.full(columns, 7, np.float32), np.full(columns, 3, np.float32))
        encoder.scaler.observe(numeric)
        x = encoder.standardise(numeric)
        target = {"binary": x[:, 0] > 1, "multiclass": np.digitize(x[:, 0], [0, 1]), "regression": 50 + 9 * x[:, 0]}
        learner.learn(x, categories, target[task].astype(np.float32))
    mean, std = (a.astype(np.float32) for a in (encoder.scaler.mean, encoder.scaler.std))
    session = Session(to_onnx(spec, learner.serving_parameters(), mean, std))
    np.testing.assert_allclose(session.run(numeric, categories), learner.predict(x, categories), rtol=1e-4, atol=1e-5)


def test_a_row_of_nothing_but_missing_values_is_scored() -> None:
    spec = spec_of()
    theta, mean, std = parameters_of(spec, np.random.default_rng(2))
    numeric = np.full((1, len(mean)), np.nan, np.float32)
    categories = np.zeros((1, 3), np.int64)
    scores = Session(to_onnx(spec, theta, mean, std)).run(numeric, categories)
    wanted = plain_forward(spec, theta, mean, std, numeric, categories)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_the_graph_is_valid_and_its_bytes_are_the_same_every_time(spec: ModelSpec) -> None:
    arguments = parameters_of(spec, np.random.default_rng(3))
    first = to_onnx(spec, *arguments)
    onnx.checker.check_model(onnx.load_from_string(first), full_check=True)
    assert to_onnx(spec, *arguments) == first


def test_versions_do_not_leak_into_each_other() -> None:
    spec, rng = spec_of(), np.random.default_rng(4)
    one, two = parameters_of(spec, rng), parameters_of(spec, rng)
    first = to_onnx(spec, *one)
    assert to_onnx(spec, *two) != first
    assert to_onnx(spec, *one) == first


def test_categories_are_no_input_when_there_are_none() -> None:
    spec = spec_of(dims=())
    data = to_onnx(spec, *parameters_of(spec, np.random.default_rng(5)))
    assert [i.name for i in onnx.load_from_string(data).graph.input] == ["numeric"]


def test_wrong_lengths_are_named() -> None:
    spec = spec_of()
    theta, mean, std = parameters_of(spec, np.random.default_rng(6))
    with pytest.raises(ValueError, match=r"^mean has shape \(6,\), wanted \(7,\)$"):
        to_onnx(spec, theta, mean[1:], std)
    with pytest.raises(ValueError, match=r"^theta has shape \(1,\), wanted \("):
        to_onnx(spec, theta[:1], mean, std)


def test_an_export_is_quick_enough_for_every_publish() -> None:
    spec = spec_of(numeric=12, dims=(4,) * 6, hidden=(64, 64))
    arguments = parameters_of(spec, np.random.default_rng(7))
    taken_s = []
    for _ in range(20):
        start_s = time.perf_counter()
        to_onnx(spec, *arguments)
        taken_s.append(time.perf_counter() - start_s)
    assert np.median(taken_s) < 0.003
