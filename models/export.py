"""The newest parameters become what servers run: theta, scaling -> [one ONNX graph] -> version.

    B rows   N numeric features   R rate columns   C categorical features   K outputs
    E embedded numbers, of all categorical features
    z      = clip((numeric - mean) / std, -5, 5), 0 where missing        (B, N + R)
    x      = [z, isnan(numeric[:, :N]), embeddings]                      (B, N + R + N + E)
    scores = squash(W_L relu(... relu(W_0 x + b_0)) + b_L + wide)        (B, K)
    wide   = W x + sum_i T_i[categories_i]       wide_deep only; W is 0 where x is embedded

All embeddings are cut into pieces of G numbers, G the largest that divides every dim, and lie in
one table, piece after piece: categories -> column and first row of each piece -> one Gather for
all features. A graph this small costs by the node, not by the multiplication.
"""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.scaler import CLIP
from models.shapes import Shapes, dense_columns, parameter_shapes, split
from models.spec import ModelSpec

OPSET = 17
IR_VERSION = 8


class Plan(NamedTuple):
    """All that the graph's skeleton depends on; hashable, which a spec is not."""

    task: str
    numeric: int
    """N"""
    dense: int
    """N + R"""
    embeddings: tuple[tuple[int, int], ...]
    """Size and dim of each categorical feature."""
    layers: int
    outputs: int
    wide: bool

    @property
    def piece(self) -> int:
        """G, numbers to a row of the table."""
        return gcd(*(dim for _, dim in self.embeddings))


def plan_of(spec: ModelSpec) -> Plan:
    """What of a spec decides the graph."""
    return Plan(
        task=spec.task,
        numeric=len(spec.features.numeric),
        dense=dense_columns(spec),
        embeddings=tuple((f.size, f.dim) for f in spec.features.categorical.values()),
        layers=len(spec.learner.layers) + 1,
        outputs=spec.outputs,
        wide=spec.learner.network == "wide_deep",
    )


def to_onnx(
    spec: ModelSpec,
    theta: NDArray[np.float32],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> bytes:
    """The whole network as one ONNX graph; equal arguments give equal bytes.

    Inputs ``numeric`` (B, N + R) float32, raw, NaN is missing, and ``categories`` (B, C) int64,
    absent if C == 0. Output ``scores`` (B, K) float32: probability of the second class (binary), of
    every class (multiclass), or the value itself (regression).

    Args:
        theta: (P,), laid out as ``models.shapes.parameter_shapes`` says.
        mean: (N + R,)
        std: (N + R,), above 0.

    Raises:
        ValueError: a vector has another length than the spec wants.
    """
    plan, shapes = plan_of(spec), parameter_shapes(spec)
    for name, vector in (("mean", mean), ("std", std)):
        if vector.shape != (plan.dense,):
            raise ValueError(f"{name} has shape {vector.shape}, wanted ({plan.dense},)")
    model = onnx.ModelProto()
    model.CopyFrom(_skeleton(plan))
    for name, array in _constants(plan, shapes, theta, mean, std).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _constants(
    plan: Plan,
    shapes: Shapes,
    theta: NDArray[np.float32],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> dict[str, NDArray[np.float32]]:
    """What changes from version to version, by initialiser name."""
    parts = split(np.asarray(theta, np.float32), shapes)
    found = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
    if plan.embeddings:
        embeddings = (parts[name] for name in parts if name.startswith("embed."))
        found["table"] = np.concatenate([p for e in embeddings for p in _pieces(e, plan.piece)])
    for i in range(plan.layers):
        for kind in ("weight", "bias"):
            found[f"layer{i}.{kind}"] = parts[f"layer{i}.{kind}"]
    if plan.wide:
        embedded = sum(dim for _, dim in plan.embeddings)
        found["wide.x"] = np.pad(parts["wide_x.weight"], [(0, 0), (0, embedded)])
        if plan.embeddings:
            found["wide.table"] = np.concatenate([parts[name] for name in parts if name.startswith("wide.")])
    return found


def _pieces(embedding: NDArray[np.float32], piece: int) -> list[NDArray[np.float32]]:
    """(size, dim) -> dim / G times (size, G)."""
    return np.split(embedding, embedding.shape[1] // piece, axis=1)


@lru_cache(maxsize=8)
def _skeleton(plan: Plan) -> onnx.ModelProto:
    """The graph without what changes from version to version."""
    nodes, fixed, joined = _numeric_nodes(plan)
    embedding_nodes, embedding_fixed, embedded = _embedding_nodes(plan)
    nodes += embedding_nodes
    nodes.append(helper.make_node("Concat", [*joined, *embedded], ["x"], "x", axis=1))
    nodes += _layer_nodes(plan)
    if plan.wide:
        wide_nodes, wide_fixed, _ = _wide_nodes(plan)
        nodes += wide_nodes
        fixed |= wide_fixed
    nodes += _squash_nodes(plan)
    graph = helper.make_graph(
        nodes,
        "network",
        _inputs(plan),
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", plan.outputs])],
        [numpy_helper.from_array(a, n) for n, a in (fixed | embedding_fixed).items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="stream-app")


def _inputs(plan: Plan) -> list[onnx.ValueInfoProto]:
    numeric = helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", plan.dense])
    if not plan.embeddings:
        return [numeric]
    columns = len(plan.embeddings)
    return [
        numeric,
        helper.make_tensor_value_info("categories", TensorProto.INT64, ["B", columns]),
    ]


Part = tuple[list[NodeProto], dict[str, NDArray[np.generic]], list[str]]
"""Nodes, their fixed initialisers, and what of theirs is joined to x."""


def _numeric_nodes(plan: Plan) -> Part:
    node = helper.make_node
    fixed: dict[str, NDArray[np.generic]] = {
        "clip.low": np.full((), -CLIP, np.float32),
        "clip.high": np.full((), CLIP, np.float32),
        "zero": np.zeros((), np.float32),
    }
    nodes = [
        node("IsNaN", ["numeric"], ["missing"], "missing"),
        node("Sub", ["numeric", "mean"], ["centred"], "centred"),
        node("Div", ["centred", "std"], ["scaled"], "scaled"),
        node("Where", ["missing", "zero", "scaled"], ["known"], "known"),
        node("Clip", ["known", "clip.low", "clip.high"], ["z"], "z"),
    ]
    if plan.numeric == 0:
        return nodes, fixed, ["z"]
    flags = "missing"
    if plan.numeric < plan.dense:
        flags = "missing.numeric"
        fixed["first"], fixed["axis"] = np.array([0]), np.array([1])
        fixed["last"] = np.array([plan.numeric])
        nodes.append(node("Slice", ["missing", "first", "last", "axis"], [flags], flags))
    nodes.append(node("Cast", [flags], ["indicators"], "indicators", to=TensorProto.FLOAT))
    return nodes, fixed, ["z", "indicators"]


def _embedding_nodes(plan: Plan) -> Part:
    if not plan.embeddings:
        return [], {}, []
    node = helper.make_node
    pieces = [dim // plan.piece for _, dim in plan.embeddings]
    sizes = np.repeat([size for size, _ in plan.embeddings], pieces)
    fixed: dict[str, NDArray[np.generic]] = {
        "first_row": np.cumsum([0, *sizes[:-1]], dtype=np.int64),
        "flat": np.array([-1, len(sizes) * plan.piece], np.int64),
    }
    nodes, ids = [], "categories"
    if max(pieces) > 1:
        fixed["column"] = np.repeat(np.arange(len(pieces), dtype=np.int64), pieces)
        nodes.append(node("Gather", [ids, "column"], ["repeated"], "repeated", axis=1))
        ids = "repeated"
    nodes += [
        node("Add", [ids, "first_row"], ["rows"], "rows"),
        node("Gather", ["table", "rows"], ["pieces"], "pieces"),
        node("Reshape", ["pieces", "flat"], ["embedded"], "embedded"),
    ]
    return nodes, fixed, ["embedded"]


def _layer_nodes(plan: Plan) -> list[NodeProto]:
    node = helper.make_node
    nodes: list[NodeProto] = []
    x, last = "x", plan.layers - 1
    for i in range(plan.layers):
        out = _outputs(plan) if i == last and not plan.wide else f"layer{i}"
        inputs = [x, f"layer{i}.weight", f"layer{i}.bias"]
        nodes.append(node("Gemm", inputs, [out], f"layer{i}", transB=1))
        x = f"relu{i}"
        if i < last:
            nodes.append(node("Relu", [f"layer{i}"], [x], x))
    return nodes


def _outputs(plan: Plan) -> str:
    """What comes before the squashing; for regression that is the answer."""
    return "scores" if plan.task == "regression" else "outputs"


def _wide_nodes(plan: Plan) -> Part:
    """The linear model beside the layers, and the sum of both."""
    node = helper.make_node
    fixed: dict[str, NDArray[np.generic]] = {}
    nodes, linear = [], ["x", "wide.x"]
    if plan.embeddings:
        fixed["wide.first_row"] = np.cumsum([0, *(size for size, _ in plan.embeddings[:-1])], dtype=np.int64)
        fixed["wide.axis"] = np.array([1])
        nodes += [
            node("Add", ["categories", "wide.first_row"], ["wide.rows"], "wide.rows"),
            node("Gather", ["wide.table", "wide.rows"], ["wide.each"], "wide.each"),  # (B, C, K)
            node("ReduceSum", ["wide.each", "wide.axis"], ["wide.sum"], "wide.sum", keepdims=0),
        ]
        linear.append("wide.sum")
    nodes += [
        node("Gemm", linear, ["wide"], "wide", transB=1),
        node("Add", [f"layer{plan.layers - 1}", "wide"], [_outputs(plan)], "sum"),
    ]
    return nodes, fixed, []


def _squash_nodes(plan: Plan) -> list[NodeProto]:
    if plan.task == "binary":
        return [helper.make_node("Sigmoid", ["outputs"], ["scores"], "scores")]
    if plan.task == "multiclass":
        return [helper.make_node("Softmax", ["outputs"], ["scores"], "scores", axis=1)]
    return []
