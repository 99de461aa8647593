"""How the flat vector is cut."""

import msgspec
import numpy as np
import pytest

from models.features import FeatureEncoder
from models.shapes import (
    dense_columns,
    output_parts,
    parameter_count,
    parameter_shapes,
    rate_cells,
    rate_columns,
    split,
)
from models.spec import Categorical, Features, Label, Learner, ModelSpec, Numeric, Rates


def spec_of(task: str = "binary", network: str = "mlp", hidden: tuple[int, ...] = (5, 4)) -> ModelSpec:
    classes = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}[task]
    return ModelSpec(
        name="t",
        task=task,  # type: ignore[arg-type]
        label=Label(name="y", classes=classes),
        features=Features(
            numeric={"a": Numeric(), "b": Numeric()},
            categorical={"c": Categorical(size=8, dim=3), "d": Categorical(size=4, dim=1)},
            rates=Rates(half_lives_s=(1.0, 2.0), keys=((), ("c",), ("c", "d"))),
        ),
        learner=Learner(kind="torch", network=network, hidden=hidden),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_cells_of_the_rates_are_those_of_their_tables(task: str) -> None:
    spec = spec_of(task)
    rates = FeatureEncoder(spec).rates
    assert rate_cells(spec) == rates.w.size + rates.s.size + rates.last_s.size
    assert rate_cells(msgspec.structs.replace(spec, features=Features(numeric={"a": Numeric()}))) == 0


@pytest.mark.parametrize(("task", "rates"), [("binary", 6), ("multiclass", 18), ("regression", 6)])
def test_columns_are_counted_per_key_scale_and_tracked_number(task: str, rates: int) -> None:
    assert rate_columns(spec_of(task)) == rates
    assert dense_columns(spec_of(task)) == 2 + rates


def test_an_mlp_has_a_layer_per_width_and_one_for_the_outputs() -> None:
    # 2 numeric, 18 rates, 2 missing indicators, 3 + 1 embedded numbers
    assert list(parameter_shapes(spec_of("multiclass")).items()) == [
        ("embed.c", (8, 3)),
        ("embed.d", (4, 1)),
        ("layer0.weight", (5, 26)),
        ("layer0.bias", (5,)),
        ("layer1.weight", (4, 5)),
        ("layer1.bias", (4,)),
        ("layer2.weight", (3, 4)),
        ("layer2.bias", (3,)),
    ]


def test_a_linear_model_has_one_layer_whatever_is_hidden() -> None:
    shapes = parameter_shapes(spec_of(network="linear"))
    assert [n for n in shapes if n.startswith("layer")] == ["layer0.weight", "layer0.bias"]
    assert shapes["layer0.weight"] == (1, 14)
    assert parameter_count(shapes) == 8 * 3 + 4 * 1 + 14 + 1


def test_wide_and_deep_has_a_weight_per_category_and_column_beside_the_layers() -> None:
    shapes = parameter_shapes(spec_of("multiclass", network="wide_deep"))
    wide = {name: shape for name, shape in shapes.items() if name.startswith("wide")}
    assert wide == {"wide.c": (8, 3), "wide.d": (4, 3), "wide_x.weight": (3, 22)}
    assert {n: s for n, s in shapes.items() if n not in wide} == parameter_shapes(spec_of("multiclass"))


@pytest.mark.parametrize("network", ["linear", "mlp", "wide_deep"])
def test_outputs_are_linear_in_the_last_layer_and_in_what_is_wide(network: str) -> None:
    found = output_parts(parameter_shapes(spec_of(network=network)))
    last = 0 if network == "linear" else 2
    wide = ["wide.c", "wide.d", "wide_x.weight"] if network == "wide_deep" else []
    assert found == [f"layer{last}.weight", f"layer{last}.bias", *wide]


def test_parts_lie_one_after_the_other_and_share_memory() -> None:
    shapes = parameter_shapes(spec_of())
    theta = np.arange(parameter_count(shapes), dtype=np.float32)
    views = split(theta, shapes)
    assert {n: v.shape for n, v in views.items()} == shapes
    assert np.array_equal(np.concatenate([v.ravel() for v in views.values()]), theta)
    assert all(np.shares_memory(v, theta) for v in views.values())


@pytest.mark.parametrize("shape", [(0,), (60,), (1, 61)])
def test_a_vector_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    shapes = parameter_shapes(spec_of(network="linear"))
    with pytest.raises(ValueError, match=r"theta has shape \(.*\), wanted \(43,\)"):
        split(np.zeros(shape, np.float32), shapes)
