"""Outputs and gradients by hand against torch's own of the same networks."""

from typing import Any

import numpy as np
import pytest
import torch

from models import fused, losses, nets
from models.shapes import parameter_count, parameter_shapes, split
from models.spec import Categorical, Features, Label, Learner, ModelSpec, Numeric, Rates

TASKS = ("binary", "multiclass", "regression")
CLASSES: dict[str, tuple[int, ...]] = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}


def spec_of(task: Any, network: Any, hidden: tuple[int, ...], *, categories: bool) -> ModelSpec:
    sizes = {"c": Categorical(size=8, dim=2), "d": Categorical(size=5, dim=3)} if categories else {}
    keys: tuple[tuple[str, ...], ...] = ((), ("c",)) if categories else ((),)
    features = Features(
        numeric={"a": Numeric(), "b": Numeric()},
        categorical=sizes,
        rates=Rates(half_lives_s=(5.0,), keys=keys, slots=16),
    )
    learner = Learner(kind="torch", network=network, hidden=hidden)
    return ModelSpec(
        name="t",
        task=task,
        label=Label(name="y", classes=CLASSES[task], wait_s=1.0),
        features=features,
        learner=learner,
    )


@pytest.mark.parametrize("categories", [True, False])
@pytest.mark.parametrize(("network", "hidden"), [("linear", (9,)), ("mlp", (6,)), ("mlp", (7, 4)), ("wide_deep", (5,))])
@pytest.mark.parametrize("task", TASKS)
def test_outputs_and_gradients_are_torchs(task: str, network: str, hidden: tuple[int, ...], categories: bool) -> None:
    spec = spec_of(task, network, hidden, categories=categories)
    shapes = parameter_shapes(spec)
    width = shapes["layer0.weight"][1] - sum(f.dim for f in spec.features.categorical.values())
    rng = np.random.default_rng(len(shapes))
    theta = rng.normal(size=parameter_count(shapes)).astype(np.float32)
    x = rng.normal(size=(11, width)).astype(np.float32)
    codes = np.zeros((11, len(spec.features.categorical)), np.int64)
    for c, feature in enumerate(spec.features.categorical.values()):
        codes[:, c] = rng.integers(0, feature.size, 11)
    target = rng.integers(0, 2, 11).astype(np.float32) if task != "regression" else x[:, 0] * 3
    cut = fused.layout(shapes)
    parts = {name: torch.from_numpy(part.copy()).requires_grad_() for name, part in split(theta, shapes).items()}
    for weights in (None, rng.uniform(0.5, 2.0, 11).astype(np.float32)):
        given = None if weights is None else torch.from_numpy(weights)
        out = nets.forward(parts, torch.from_numpy(x), torch.from_numpy(codes))
        for part in parts.values():
            part.grad = None
        losses.loss(task, out, torch.from_numpy(target), given).backward()  # type: ignore[no-untyped-call]
        slope = np.full_like(theta, np.nan)
        fused.gradient(theta, slope, cut, task, x, codes, target, weights)
        assert fused.outputs(theta, cut, x, codes) == pytest.approx(out.detach().numpy(), abs=1e-5)
        for name, part in split(slope, shapes).items():
            wanted = parts[name].grad
            assert wanted is not None
            assert part == pytest.approx(wanted.numpy(), abs=2e-5, rel=1e-4), name


def test_columns_that_are_not_contiguous_are_taken_too() -> None:
    spec = spec_of("binary", "mlp", (4,), categories=False)
    shapes = parameter_shapes(spec)
    cut, theta = fused.layout(shapes), np.ones(parameter_count(shapes), np.float32)
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(5, cut.widths[0])).astype(np.float32))
    none = np.zeros((5, 0), np.int64)
    assert (fused.outputs(theta, cut, x, none) == fused.outputs(theta, cut, np.ascontiguousarray(x), none)).all()


def test_what_is_not_finite_shows_in_the_gradient() -> None:
    spec = spec_of("binary", "mlp", (4,), categories=False)
    shapes = parameter_shapes(spec)
    cut, theta = fused.layout(shapes), np.ones(parameter_count(shapes), np.float32)
    x = np.full((2, int(cut.widths[0])), np.nan, np.float32)
    slope = np.zeros_like(theta)
    fused.gradient(theta, slope, cut, "binary", x, np.zeros((2, 0), np.int64), np.ones(2, np.float32), None)
    assert np.isnan(slope).any()


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_torchs(task: str) -> None:
    k = 3 if task == "multiclass" else 1
    outputs = np.random.default_rng(0).normal(scale=30.0, size=(200, k)).astype(np.float32)
    wanted = losses.scores(task, torch.from_numpy(outputs)).numpy()
    np.testing.assert_allclose(fused.scores(task, outputs), wanted, rtol=1e-5, atol=1e-30)


def test_one_layout_is_compiled_for_whatever_the_rows_layout() -> None:
    spec = spec_of("binary", "mlp", (6,), categories=True)
    shapes = parameter_shapes(spec)
    theta = np.zeros(parameter_count(shapes), np.float32)
    width = shapes["layer0.weight"][1] - sum(f.dim for f in spec.features.categorical.values())
    x, codes = np.zeros((4, width), np.float32), np.zeros((4, 2), np.int64)
    compiled: Any = fused._forward
    fused.outputs(theta, fused.layout(shapes), x, codes)
    before = len(compiled.signatures)
    fused.outputs(theta, fused.layout(shapes), np.asfortranarray(x), np.asfortranarray(codes))
    assert len(compiled.signatures) == before
