"""What compiled code says of a graph is what onnxruntime says of it, and where it cannot say so onnxruntime answers."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from models import forward, network
from models.export import to_onnx
from models.graph import constants, net_of
from models.network import MOST_ROWS, Network, compile_for
from models.quantise import to_int8
from models.runtime import Session
from models.spec import ModelSpec
from tests.models.test_export import parameters_of, rows_of, spec_of


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_forward", None)


def graph_of(spec: ModelSpec, seed: int = 0, rows: int = 40) -> tuple[bytes, NDArray[np.float32], NDArray[np.int64]]:
    """A graph, and rows of it, one of them all missing."""
    rng = np.random.default_rng(seed)
    theta, mean, std = parameters_of(spec, rng)
    numeric, categories = rows_of(spec, rng, rows, mean, std)
    numeric[0] = np.nan
    return to_onnx(spec, theta, mean, std), numeric, categories


SPECS = {
    "as in the docs": {"numeric": 16, "dims": (4, 2, 8, 4, 2), "hidden": (64, 64)},
    "one layer": {"hidden": (5,)},
    "a layer of one": {"hidden": (7, 1)},
    "linear": {"network": "linear"},
    "no categories": {"dims": ()},
    "one piece each": {"dims": (3, 3)},
    "no rates": {"rates": False},
    "no numbers": {"numeric": 0},
}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("given", SPECS.values(), ids=SPECS)
def test_compiled_code_says_what_onnxruntime_says(task: str, given: dict[str, object]) -> None:
    spec = spec_of(task, **given)  # type: ignore[arg-type]
    graph, numeric, categories = graph_of(spec)
    net = net_of(graph, spec)
    assert net is not None
    found = forward.run(net, numeric, categories)
    np.testing.assert_allclose(found, Session(graph).run(numeric, categories), rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(forward.run(net, numeric[7:8], categories[7:8]), found[7:8])


def test_extreme_numbers_are_clipped_alike() -> None:
    spec = spec_of()
    graph, numeric, categories = graph_of(spec)
    largest = np.finfo(np.float32).max
    numeric[1], numeric[2] = largest, -largest
    net = net_of(graph, spec)
    assert net is not None
    wanted = Session(graph).run(numeric, categories)
    np.testing.assert_allclose(forward.run(net, numeric, categories), wanted, rtol=2e-5, atol=2e-6)


def test_rows_of_any_layout_are_one_type_so_that_no_call_waits_for_a_compiler() -> None:
    spec = spec_of()
    graph, numeric, categories = graph_of(spec)
    net = net_of(graph, spec)
    assert net is not None
    wanted = forward.run(net, numeric, categories)
    kinds: Any = forward.forward
    compiled = len(kinds.overloads)
    wide = np.concatenate([categories, categories], axis=1)[:, : categories.shape[1]]
    fixed = np.frombuffer(numeric.tobytes(), np.float32).reshape(numeric.shape)
    for rows, codes in (
        (numeric, wide),
        (fixed, categories),
        (np.asfortranarray(numeric), categories.astype(np.int32)),
    ):
        np.testing.assert_array_equal(forward.run(net, rows, codes), wanted)
    assert len(kinds.overloads) == compiled


def test_a_category_beyond_its_table_is_refused() -> None:
    spec = spec_of()
    graph, numeric, categories = graph_of(spec)
    net = net_of(graph, spec)
    assert net is not None
    for wrong in (-1, 7):
        categories[3, 2] = wrong
        with pytest.raises(ValueError, match=r"row 3 has categories \[.*\], wanted rows of the embeddings"):
            forward.run(net, numeric, categories)


def test_other_graphs_are_none_of_these_networks() -> None:
    spec = spec_of()
    graph, numeric, categories = graph_of(spec)
    assert net_of(to_int8(graph, numeric, categories), spec) is None
    assert net_of(graph, spec_of(hidden=(16, 9))) is None
    assert net_of(graph, spec_of(hidden=(16,))) is None
    assert net_of(graph, spec_of(numeric=4)) is None
    assert net_of(graph, spec_of(dims=(2, 2))) is None
    wide = spec_of(network="wide_deep")
    assert net_of(graph_of(wide)[0], wide) is None


@pytest.mark.parametrize("name", ["table", "layer1.weight", "layer2.bias", "first_row", "mean"])
def test_a_graph_whose_parts_do_not_fit_is_none_of_these_networks(name: str) -> None:
    spec = spec_of()
    model = onnx.ModelProto.FromString(graph_of(spec)[0])
    for part in model.graph.initializer:
        if part.name == name:
            array = numpy_helper.to_array(part)
            part.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[:-1]), name))
    assert net_of(model.SerializeToString(), spec) is None


def test_constants_are_those_of_the_graph() -> None:
    graph, _, _ = graph_of(spec_of())
    wanted = {p.name: numpy_helper.to_array(p) for p in onnx.ModelProto.FromString(graph).graph.initializer}
    found = constants(graph)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    with pytest.raises(ValueError, match="10 bytes that are no graph, wanted ONNX"):
        constants(b"\x3a\x7f" + bytes(8))


def test_compiled_code_answers_once_it_has_agreed_with_onnxruntime() -> None:
    spec = spec_of()
    graph, numeric, categories = graph_of(spec, rows=MOST_ROWS + 1)
    answering = Network(graph, spec)
    assert not answering.compiled
    wanted = Session(graph).run(numeric, categories)
    np.testing.assert_array_equal(answering.run(numeric, categories), wanted)
    compile_for(answering, numeric, categories)
    assert answering.compiled
    few = slice(MOST_ROWS)
    net = answering.net
    assert net is not None
    np.testing.assert_array_equal(
        answering.run(numeric[few], categories[few]), forward.run(net, numeric[few], categories[few])
    )
    np.testing.assert_array_equal(answering.run(numeric, categories), wanted)  # more rows are onnxruntime's


def test_compiled_code_that_says_something_else_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of()
    graph, numeric, categories = graph_of(spec)
    monkeypatch.setattr(forward, "run", lambda net, numeric, categories: np.full((len(numeric), 1), np.nan))
    answering = Network(graph, spec)
    compile_for(answering, numeric, categories)
    assert not answering.compiled
    assert "beside onnxruntime's scores" in caplog.text
    np.testing.assert_array_equal(answering.run(numeric, categories), Session(graph).run(numeric, categories))


def test_a_network_too_large_for_the_caches_is_onnxruntimes() -> None:
    spec = spec_of(hidden=(300, 300))
    graph, numeric, categories = graph_of(spec)
    assert net_of(graph, spec) is not None
    answering = Network(graph, spec)
    compile_for(answering, numeric, categories)
    assert not answering.compiled
    np.testing.assert_array_equal(answering.run(numeric, categories), Session(graph).run(numeric, categories))


def test_a_graph_of_another_task_is_not_read() -> None:
    for mine, its in (("binary", "regression"), ("regression", "binary"), ("multiclass", "binary")):
        onnx, _, _ = graph_of(spec_of(its))
        assert net_of(onnx, spec_of(its)) is not None
        assert net_of(onnx, spec_of(mine)) is None
