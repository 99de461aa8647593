import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from models.export import to_onnx
from models.quantise import WEIGHT_LEVELS, quantised_layer, to_int8
from models.runtime import Session
from models.scaler import CLIP
from models.shapes import parameter_shapes, split
from models.spec import ModelSpec
from tests.models.test_export import Floats, Ints, parameters_of, rows_of, spec_of

SPECS = {
    "binary": spec_of(),
    "multiclass": spec_of("multiclass"),
    "regression": spec_of("regression"),
    "linear": spec_of(network="linear"),
    "no categoricals": spec_of(dims=()),
    "dims in turn": spec_of(dims=(2, 3, 2)),
    "no rates": spec_of(rates=False),
    "rates only": spec_of(numeric=0, dims=()),
    "categoricals only": spec_of(numeric=0, rates=False),
    "wide and deep": spec_of(network="wide_deep"),
    "wide and deep, multiclass": spec_of("multiclass", network="wide_deep", dims=(2, 3, 2)),
    "wide and deep, no categoricals": spec_of("regression", network="wide_deep", dims=()),
    "64-64": spec_of(numeric=12, dims=(4,) * 6, hidden=(64, 64)),
}


@pytest.fixture(params=list(SPECS.values()), ids=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    found: ModelSpec = request.param
    return found


def network(spec: ModelSpec, seed: int = 0, rows: int = 600) -> tuple[bytes, Floats, Ints]:
    rng = np.random.default_rng(seed)
    theta, mean, std = parameters_of(spec, rng)
    return to_onnx(spec, theta, mean, std), *rows_of(spec, rng, rows, mean, std)


def test_scores_stay_close_on_rows_it_was_not_calibrated_on(spec: ModelSpec) -> None:
    data, numeric, categories = network(spec)
    int8 = to_int8(data, numeric[:300], categories[:300])
    wanted = Session(data).run(numeric[300:], categories[300:])
    found = Session(int8).run(numeric[300:], categories[300:])
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    spread = wanted.std() if spec.task == "regression" else 0.2
    assert np.abs(found - wanted).mean() < 0.05 * spread


@pytest.mark.parametrize("rows", [0, 1, 33])
def test_any_number_of_rows_is_scored_and_each_alike(spec: ModelSpec, rows: int) -> None:
    data, numeric, categories = network(spec)
    session = Session(to_int8(data, numeric, categories))
    found = session.run(numeric[:rows], categories[:rows])
    assert found.shape == (rows, spec.outputs)
    np.testing.assert_allclose(found, session.run(numeric, categories)[:rows], rtol=1e-5, atol=1e-6)


def test_rows_of_missing_and_absurd_values_are_scored() -> None:
    spec = spec_of()
    data, numeric, categories = network(spec)
    int8 = Session(to_int8(data, numeric, categories))
    odd = np.array([np.nan, 1e30, -1e30], np.float32)[:, None].repeat(numeric.shape[1], axis=1)
    wanted, found = Session(data).run(odd, categories[:3]), int8.run(odd, categories[:3])
    np.testing.assert_allclose(found[0], wanted[0], atol=0.02)  # nothing but missing values
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("seed", range(3))
def test_values_that_are_clipped_are_clipped_alike(seed: int) -> None:
    """Columns of small weights too, whose range the difficulty that they share with their weights would widen."""
    spec = spec_of(numeric=12, dims=(4,) * 6, hidden=(64, 64))
    rng = np.random.default_rng(seed)
    theta, mean, std = parameters_of(spec, rng)
    columns = len(mean)
    split(theta, parameter_shapes(spec))["layer0.weight"][:, :columns] *= np.exp(rng.normal(0, 1, columns))
    data = to_onnx(spec, theta, mean, std)
    numeric, categories = rows_of(spec, rng, 2000, mean, std)
    z = np.abs(np.nan_to_num((numeric - mean) / std))
    far = (z > CLIP).any(axis=1) & (np.arange(2000) >= 1000)
    assert far.sum() > 100
    int8 = to_int8(data, numeric[:1000], categories[:1000])
    wanted = Session(data).run(numeric[far], categories[far])
    assert np.abs(Session(int8).run(numeric[far], categories[far]) - wanted).mean() < 0.01


def test_weights_and_tables_are_stored_in_eight_bits(spec: ModelSpec) -> None:
    data, numeric, categories = network(spec)
    graph = onnx.load_from_string(to_int8(data, numeric, categories)).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for name, tensor in tensors.items():
        if name.endswith(".weight"):
            assert tensor.dtype == np.int8
            assert np.abs(tensor.astype(int)).max() == WEIGHT_LEVELS
        if name == "table":
            assert tensor.dtype == np.uint8
    floats = sum(t.size for n, t in tensors.items() if t.dtype == np.float32 and not n.startswith("wide."))
    assert floats <= 2 * numeric.shape[1] + 2 + len(tensors)


def test_integer_kernels_run(tmp_path: Path) -> None:
    """By the runtime's own account of the kernels it ran; no float matrix product is left."""
    data, numeric, categories = network(SPECS["64-64"])
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(to_int8(data, numeric, categories), options)
    session.run(None, {"numeric": numeric, "categories": categories})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e["args"] for e in events if e["name"].endswith("_kernel_time")]
    products = [k for k in kernels if "Gemm" in k["op_name"] or "MatMul" in k["op_name"]]
    assert [k["op_name"] for k in products] == ["QGemm"] * 3
    for kernel in products:
        types = [next(iter(t)) for t in kernel["input_type_shape"]]
        assert types[0] == "uint8"
        assert "int8" in types


def test_the_file_shrinks_more_the_wider_the_network() -> None:
    for hidden, factor in (((64, 64), 3.0), ((256, 256), 3.7)):
        data, numeric, categories = network(spec_of(numeric=12, dims=(4,) * 6, hidden=hidden))
        assert len(data) > factor * len(to_int8(data, numeric, categories))


def test_equal_input_gives_equal_bytes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data, numeric, categories = network(spec_of())
    assert to_int8(data, numeric, categories) == to_int8(data, numeric, categories)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_it_wants_rows() -> None:
    data, numeric, categories = network(spec_of())
    with pytest.raises(ValueError, match=r"^0 calibration rows, wanted at least 1$"):
        to_int8(data, numeric[:0], categories[:0])


def test_a_fresh_network_whose_last_layer_is_zero_stays_neutral() -> None:
    spec = spec_of()
    theta, mean, std = parameters_of(spec, np.random.default_rng(0))
    theta[-9:] = 0.0  # layer2: 8 weights and a bias
    numeric, categories = rows_of(spec, np.random.default_rng(1), 50, mean, std)
    int8 = Session(to_int8(to_onnx(spec, theta, mean, std), numeric, categories))
    assert np.array_equal(int8.run(numeric, categories), np.full((50, 1), 0.5, np.float32))


@pytest.mark.parametrize("network_kind", ["mlp", "linear"])
def test_a_network_of_zeros_is_quantised(network_kind: str) -> None:
    spec = spec_of(network=network_kind)
    theta, mean, std = parameters_of(spec, np.random.default_rng(0))
    numeric, categories = rows_of(spec, np.random.default_rng(1), 50, mean, std)
    data = to_onnx(spec, np.zeros_like(theta), mean, std)
    int8 = Session(to_int8(data, numeric, categories))
    assert np.array_equal(int8.run(numeric, categories), np.full((50, 1), 0.5, np.float32))


magnitudes = st.floats(1e-6, 1e6)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), magnitudes, magnitudes)
def test_every_weight_comes_back_within_half_a_step(seed: int, width: int, weights: float, biases: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, weights, (5, width))
    bias = rng.normal(0, biases, 5)
    layer = quantised_layer(weight, bias, step=1 / 127, zero=128)
    back = layer.weight.T.astype(np.float64) * layer.scale
    assert np.abs(back - weight).max() <= 0.5 * layer.scale * (1 + 1e-4)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), magnitudes, magnitudes)
def test_the_bias_cancels_the_zero_point_without_leaving_int32(
    seed: int, width: int, weights: float, biases: float
) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(0, weights, (5, width)), rng.normal(0, biases, 5)
    layer = quantised_layer(weight, bias, step=1 / 127, zero=128)
    at_zero = np.full(width, 128) @ layer.weight.astype(np.int64) + layer.bias.astype(np.int64)
    step = layer.scale / 127
    np.testing.assert_allclose(at_zero * step, bias, atol=step * 0.51, rtol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0.01, 100), min_size=16, max_size=16))
def test_units_of_very_different_size_do_not_spoil_each_other(seed: int, sizes: list[float]) -> None:
    """Rows of layer 0 times s, columns of layer 1 by s: the same function, as good in int8."""
    spec = spec_of(hidden=(16,), dims=(), rates=False)
    rng = np.random.default_rng(seed)
    theta, mean, std = parameters_of(spec, rng)
    numeric, categories = rows_of(spec, rng, 200, mean, std)
    scaled = theta.copy()
    scales = np.array(sizes, np.float32)
    scaled[:96] *= np.repeat(scales, 6)
    scaled[96:112] *= scales
    scaled[112:128] /= scales
    data = to_onnx(spec, scaled, mean, std)
    wanted = Session(data).run(numeric, categories)
    found = Session(to_int8(data, numeric, categories)).run(numeric, categories)
    assert np.abs(found - wanted).mean() < 0.04  # of some 0.003; 0.025 where one unit alone is large
