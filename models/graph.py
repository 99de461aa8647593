"""What a graph has learned, read from its bytes without a library: ONNX -> [constants] -> [net_of] -> parameters.

    N numeric features   R rate columns   D = N + R   P pieces of G numbers each, all embeddings together   K outputs

Wire format: https://protobuf.dev/programming-guides/encoding/, fields: onnx.proto of https://github.com/onnx/onnx.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.shapes import dense_columns
from models.spec import ModelSpec

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Constants = Mapping[str, NDArray[Any]]

_GRAPH = 7  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # of TensorProto
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}


TASKS = ("binary", "multiclass", "regression")

_ENDS = {"binary": b"Sigmoid", "multiclass": b"Softmax"}
"""What kind of node makes scores of the last layer; none for numbers."""


class Net(NamedTuple):
    """A network's parameters, as ``models.forward`` reads them; it trusts every number that says where to look."""

    mean: Floats
    """(D,)"""
    std: Floats
    """(D,)"""
    table: Floats
    """(rows, G)"""
    pieces: Ints
    """(P, 3): which categorical feature, its first row in ``table``, and how many rows it has."""
    weights: Floats
    """Of one layer after the other: (inputs, outputs), then the bias."""
    widths: Ints
    """(L + 1,) of x, of each layer's units; the last is K. (1,) of a network that is none: there is nothing to run."""
    task: int
    """Index in TASKS."""


def no_net() -> Net:
    """What stands for a network where there is none."""
    none = np.zeros(0, np.float32)
    return Net(none, none, np.zeros((0, 1), np.float32), np.zeros((0, 3), np.int64), none, np.zeros(1, np.int64), 0)


def net_of(onnx: bytes, spec: ModelSpec) -> Net | None:
    """A graph's network; None if it is another one than ``models.export`` makes of this spec's ``mlp`` or ``linear``.

    Raises:
        ValueError: these are no bytes of a graph.
    """
    found, layers = constants(onnx), len(spec.learner.layers) + 1
    if spec.learner.network == "wide_deep" or any((end in onnx) != (task == spec.task) for task, end in _ENDS.items()):
        return None
    columns, sizes = len(spec.features.categorical), [f.size for f in spec.features.categorical.values()]
    first_row = found.get("first_row", np.zeros(0, np.int64))
    column = found.get("column", np.arange(len(first_row), dtype=np.int64))
    try:
        weights = [(found[f"layer{i}.weight"], found[f"layer{i}.bias"]) for i in range(layers)]
        if first_row.shape != column.shape or not all(0 <= c < columns for c in column.tolist()):
            return None
        pieces = [(c, row, sizes[c]) for c, row in zip(column.tolist(), first_row.tolist(), strict=True)]
        net = Net(
            mean=found["mean"].copy(),  # what is read-only would be another type to compiled code
            std=found["std"].copy(),
            table=np.array(found.get("table", np.zeros((0, 1), np.float32)), order="C"),
            pieces=np.array(pieces, np.int64).reshape(-1, 3),
            weights=np.concatenate([part.ravel() for w, b in weights for part in (w.T, b)]),
            widths=np.array([weights[0][0].shape[-1], *(len(b) for _, b in weights)], np.int64),
            task=TASKS.index(spec.task),
        )
    except KeyError:
        return None
    return net if _fits(net, weights, spec) else None


def _fits(net: Net, weights: list[tuple[NDArray[np.generic], NDArray[np.generic]]], spec: ModelSpec) -> bool:
    """Whether every part has the shape that the others want."""
    dense, width = dense_columns(spec), dense_columns(spec) + len(spec.features.numeric)
    if any(a.dtype != np.float32 for a in (net.mean, net.std, net.table, *(a for pair in weights for a in pair))):
        return False
    if net.mean.shape != (dense,) or net.std.shape != (dense,) or net.table.ndim != 2:
        return False
    if any(first < 0 or first + rows > len(net.table) for _, first, rows in net.pieces.tolist()):
        return False
    width += len(net.pieces) * net.table.shape[1]
    for (weight, bias), units in zip(weights, (*spec.learner.layers, spec.outputs), strict=True):
        if weight.shape != (units, width) or bias.shape != (units,):
            return False
        width = units
    return True


def constants(onnx: bytes) -> Constants:
    """The initialisers of a graph that are float32 or int64 and have raw data, as ``models.export`` writes them.

    Raises:
        ValueError: these are no such bytes.
    """
    found = {}
    try:
        for number, graph in _fields(memoryview(onnx)):
            if number == _GRAPH and isinstance(graph, memoryview):
                for inner, tensor in _fields(graph):
                    if inner == _INITIALIZER and isinstance(tensor, memoryview):
                        found.update(_constant(tensor))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{len(onnx)} bytes that are no graph, wanted ONNX") from error
    return found


def _constant(tensor: memoryview) -> dict[str, NDArray[np.generic]]:
    dims, kind, name, raw = [], 0, "", None
    for number, value in _fields(tensor):
        if isinstance(value, int):
            if number == _DIMS:
                dims.append(value)
            elif number == _TYPE:
                kind = value
        elif number == _NAME:
            name = bytes(value).decode()
        elif number == _RAW:
            raw = value
    if raw is None or kind not in _TYPES:
        return {}
    return {name: np.frombuffer(raw, _TYPES[kind]).reshape(dims)}


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case 2:
                size, at = _varint(data, at)
                if size > len(data) - at:
                    raise IndexError(size)
                yield tag >> 3, data[at : at + size]
                at += size
            case 1 | 5:
                at += 8 if tag & 7 == 1 else 4
            case _:
                raise IndexError(tag)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that stands there, and where it ends."""
    value, shift = 0, 0
    while data[at] > 127:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1
