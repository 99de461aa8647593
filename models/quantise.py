"""A version in a third of the bytes: fp32 graph, calibration rows -> [to_int8] -> int8 graph.

    x_j    ~ r_j s (q_j - z)    input column j of a layer in uint8, r_j its range, see below;
                                s = 1/127, z = 128 for the first layer, else s = 1/255, z = 0
    V_ij   = W_ij r_j / r'_i    weights with the ranges of input j and of output i folded in
    V_ij   ~ v Q_ij             Q int8; one v per layer runs faster than one per row
    c_i    = b_i / (r'_i s v) - z sum_j Q_ij     int32; spares the kernel subtracting z

The first layer's ranges share the difficulty between column and weights: r_j ~ sqrt(max|x_j| /
max_i|W_ij|), SmoothQuant with alpha = 1/2 (arXiv 2211.10438). A hidden unit's range is that of its
own weights, r'_i ~ max_j|W_ij r_j|, enlarged until no unit leaves uint8 on the calibration rows: so
every row of V uses all of int8. relu(x / r) = relu(x) / r lets ranges pass (Nagel et al., arXiv
1906.04721). The last layer's r' is 1, its output float.

Static (nothing is measured while serving) and integers throughout: uint8 embedding tables and one
com.microsoft QGemm per layer, whose saturation at 0 is the Relu; rounding z saturates, which is the
clip. So the graph has no more nodes than the fp32 one, which decides at batch 1 (but onnxruntime
joins the fp32 one's last Sigmoid to its Gemm). Its own quantize_static reaches the same kernels with
more nodes and bytes; bench/quantise.py compares. What is wide stays in float: it reads x as rounded for the
first layer, its ranges folded into the weights; its tables keep 32 bits.
"""

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models.runtime import Session
from models.scaler import CLIP

WEIGHT_LEVELS = 63
"""7 bits: without VNNI, x86 adds two products in 16 bits, and 2 * 255 * 63 just fits. With 127 the
same bytes could score differently on another host, and the 8th bit gains next to nothing."""
IN_LEVELS, IN_ZERO = 127, 128
"""First layer: uint8 1..255 around 128."""
HIDDEN_LEVELS = 255
"""Hidden layers: uint8 0..255; what Relu lets through is not negative."""
HEADROOM = 1.5
"""How far later rows may exceed the calibration rows before they saturate."""
LEAST_REACH = 3.0
"""Deviations that every dense column may take: a calm hour's calibration must do for a storm."""
_BIAS_LIMIT = 2.0**30

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]


class Layer(NamedTuple):
    """One layer in integers."""

    weight: NDArray[np.int8]
    """Q, (in, out)"""
    bias: NDArray[np.int32]
    """c, (out,)"""
    scale: float
    """v"""


def to_int8(model: bytes, numeric: NDArray[np.float32], categories: NDArray[np.int64] | None) -> bytes:
    """The same network with int8 weights and integer kernels; same inputs, same output.

    Args:
        model: from ``models.export.to_onnx``.
        numeric: (B, N + R) calibration rows as the network gets them, raw.
        categories: (B, C), or None if there are none.

    Raises:
        ValueError: no calibration rows.
    """
    if len(numeric) == 0:
        raise ValueError("0 calibration rows, wanted at least 1")
    graph = onnx.load_from_string(model)
    floats = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    x = Session(_until_x(graph)).run(numeric, categories).astype(np.float64)  # (B, W)
    ranges = _in_ranges(floats, x)
    quantised = _preprocessing(floats, ranges)
    for i, layer in enumerate(_quantised_layers(floats, x, ranges)):
        quantised[f"layer{i}.weight"], quantised[f"layer{i}.bias"] = layer.weight, layer.bias
        quantised[f"layer{i}.scale"] = np.array(layer.scale, np.float32)
    return _assembled(graph, quantised)


def _until_x(graph: ModelProto) -> bytes:
    """The graph cut off before its first layer: raw rows in, x out."""
    cut = ModelProto()
    cut.CopyFrom(graph)
    del cut.graph.output[:]
    cut.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    data: bytes = cut.SerializeToString()
    return data


def _depth(floats: Arrays) -> int:
    return sum(name.endswith(".weight") for name in floats)


def _in_ranges(floats: Arrays, x: Floats) -> Floats:
    """r_j of the first layer, (W,).

    Dense columns may reach LEAST_REACH whatever the calibration rows did, and never pass CLIP;
    indicators are 0 or 1, both levels of the range 1; embeddings reach what their tables do.
    """
    dense = len(floats["mean"])
    embedded = _embedded_reach(floats)
    reach = np.ones(x.shape[1])
    reach[:dense] = np.clip(np.abs(x[:, :dense]).max(axis=0) * HEADROOM, LEAST_REACH, CLIP)
    reach[x.shape[1] - len(embedded) :] = embedded
    weights = np.abs(floats["layer0.weight"].astype(np.float64)).max(axis=0)  # (W,)
    weights = np.maximum(weights, max(float(weights.max()) / 1000, 1e-9))
    ranges: Floats = np.sqrt(reach / weights)
    flags = np.zeros(len(ranges), bool)
    flags[dense : len(ranges) - len(embedded)] = True
    ranges *= (reach / ranges)[~flags].max()
    ranges[:dense] = np.minimum(ranges[:dense], CLIP)  # what saturates there is clipped there
    ranges[flags] = 1.0
    return ranges


def _pieces(floats: Arrays) -> list[Floats]:
    """The embedding table's pieces, each (size, G); none without categorical features."""
    if "table" not in floats:
        return []
    return np.split(floats["table"].astype(np.float64), floats["first_row"][1:])


def _embedded_reach(floats: Arrays) -> Floats:
    """Largest number of each embedded column, (E,)."""
    each = [np.abs(piece).max(axis=0) for piece in _pieces(floats)]
    reach: Floats = np.maximum(np.concatenate([np.empty(0), *each]), 1e-6)
    return reach


def _preprocessing(floats: Arrays, ranges: Floats) -> Arrays:
    """Initialisers of everything before the first layer."""
    dense, pieces = len(floats["mean"]), _pieces(floats)
    first = len(ranges) - sum(piece.shape[1] for piece in pieces)
    made: Arrays = {"wide.x": (floats["wide.x"] * ranges).astype(np.float32)} if "wide.x" in floats else {}
    made |= {
        "in.scale": np.array(1 / IN_LEVELS, np.float32),
        "in.zero": np.array(IN_ZERO, np.uint8),
        "in.one": np.array(IN_ZERO + IN_LEVELS, np.uint8),
        "out.scale": np.array(1 / HIDDEN_LEVELS, np.float32),
        "zero.uint8": np.array(0, np.uint8),
        "zero.int8": np.array(0, np.int8),
        "std": (floats["std"] * ranges[:dense]).astype(np.float32),
    }
    if pieces:
        columns = ranges[first:].reshape(len(pieces), 1, -1)  # (pieces, 1, G)
        levels = [np.rint(p / r * IN_LEVELS) for p, r in zip(pieces, columns, strict=True)]
        made["table"] = (np.concatenate(levels) + IN_ZERO).astype(np.uint8)
    return {**floats, **made}


def _quantised_layers(floats: Arrays, x: Floats, ranges: Floats) -> list[Layer]:
    """All layers; the rows ``x`` (B, W) go through them twice, in floats and in levels.

    In floats they show what the hidden units reach; in levels how far rounding has moved each unit's
    mean, which its bias then takes back (a column that hardly varies is always rounded the same way).
    """
    depth = _depth(floats)
    layers = []
    levels = np.clip(np.rint(x / ranges * IN_LEVELS), -IN_ZERO, IN_LEVELS)  # (B, W)
    for i in range(depth):
        weight = floats[f"layer{i}.weight"].astype(np.float64)  # (out, in)
        bias = floats[f"layer{i}.bias"].astype(np.float64)  # (out,)
        out = x @ weight.T + bias  # (B, out)
        mine = np.ones(len(bias))
        if i < depth - 1:
            reach = np.maximum(out, 0.0).max(axis=0) * HEADROOM
            mine = _hidden_ranges(weight * ranges, bias, reach)
        step, zero = (1 / IN_LEVELS, IN_ZERO) if i == 0 else (1 / HIDDEN_LEVELS, 0)
        folded = weight * ranges / mine[:, None]
        rounded = quantised_layer(folded, bias / mine, step=step, zero=zero)
        product = levels @ rounded.weight.astype(np.float64) * (step * rounded.scale)  # (B, out)
        corrected = (out / mine - product).mean(axis=0)
        layers.append(quantised_layer(folded, corrected, step=step, zero=zero))
        levels = np.clip(np.rint((product + corrected) * HIDDEN_LEVELS), 0, HIDDEN_LEVELS)
        x, ranges = np.maximum(out, 0.0), mine
    return layers


def _hidden_ranges(weight: Floats, bias: Floats, reach: Floats) -> Floats:
    """r' of hidden units, (out,): as their weights (out, in), none below its reach (out,)."""
    own = np.maximum(np.abs(weight).max(axis=1), np.abs(bias))
    own = np.maximum(own, max(float(own.max()) / 1000, 1e-9))
    ranges: Floats = own * max(float((reach / own).max()), 1e-9)
    return ranges


def quantised_layer(weight: Floats, bias: Floats, *, step: float, zero: int) -> Layer:
    """Round one layer to integers; every weight is off by at most half of the layer's ``scale``.

    Args:
        weight: V, (out, in), the ranges folded in.
        bias: (out,), likewise.
        step: s, what one level of the input is worth.
        zero: z, the input's zero point; it goes into the bias.
    """
    largest = float(np.abs(weight).max(initial=0.0)) / WEIGHT_LEVELS
    needed = float(np.abs(bias).max(initial=0.0)) / (step * _BIAS_LIMIT)  # else c leaves int32
    scale = float(np.float32(max(largest, needed, 1e-12)))
    rounded = np.clip(np.rint(weight / scale), -WEIGHT_LEVELS, WEIGHT_LEVELS)
    shifted = np.rint(bias / (step * scale)) - zero * rounded.sum(axis=1)
    return Layer(np.ascontiguousarray(rounded.T.astype(np.int8)), shifted.astype(np.int32), scale)


def _assembled(graph: ModelProto, arrays: Arrays) -> bytes:
    """The int8 graph: the fp32 nodes up to x, one QGemm per layer, the fp32 last node."""
    depth = _depth(arrays)
    nodes = [new for old in graph.graph.node for new in _quantised_nodes(old, depth)]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(a, n) for n, a in sorted(arrays.items()) if n in used]
    made = helper.make_graph(nodes, "int8", graph.graph.input, graph.graph.output, tensors)
    model = helper.make_model(
        made,
        opset_imports=[*graph.opset_import, helper.make_opsetid("com.microsoft", 1)],
        ir_version=graph.ir_version,
        producer_name=graph.producer_name,
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _quantised_nodes(old: NodeProto, depth: int) -> list[NodeProto]:
    """What becomes of one fp32 node; NaN is rounded to whatever it may be, then replaced by 0."""
    node = helper.make_node
    match old.name:
        case "known":
            scaled = ["scaled", "in.scale", "in.zero"]
            return [node("QuantizeLinear", scaled, ["rounded"], "rounded")]
        case "z":
            return [node("Where", ["missing", "in.zero", "rounded"], ["z"], "z")]
        case "indicators":
            flags = [old.input[0], "in.one", "in.zero"]
            return [node("Where", flags, ["indicators"], "indicators")]
        case "wide":
            x = node("DequantizeLinear", ["x", "in.scale", "in.zero"], ["wide.levels"], "wide.levels")
            return [x, node("Gemm", ["wide.levels", *old.input[1:]], old.output, old.name, transB=1)]
    if old.op_type == "Gemm":
        return [_layer_node(old, depth)]
    return [] if old.op_type == "Relu" else [old]


def _layer_node(old: NodeProto, depth: int) -> NodeProto:
    i = int(old.name.removeprefix("layer"))
    x, scale = ("x", "in.scale") if i == 0 else (f"layer{i - 1}", "out.scale")
    inputs = [x, scale, "zero.uint8", f"layer{i}.weight", f"layer{i}.scale", "zero.int8"]
    inputs.append(f"layer{i}.bias")
    if i < depth - 1:
        inputs += ["out.scale", "zero.uint8"]
    return helper.make_node("QGemm", inputs, old.output, old.name, domain="com.microsoft")
