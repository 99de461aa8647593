"""How a flat vector of parameters is cut into a network's matrices. No torch here: servers read this too.

N numeric features, R rate columns, M = N missing indicators, E embedded numbers, K outputs
x = [clip(z), isnan(raw)]                    (B, N + R + M)
h = [x, embeddings]                          (B, N + R + M + E), what the layers take

wide_deep adds to the last layer's outputs a linear model: ``wide_x.weight`` over x, and for each
categorical feature a row of K weights per category, ``wide.<name>`` (size, K), as over one-hot columns.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # models.spec counts with these functions
    from models.spec import ModelSpec

Shapes = dict[str, tuple[int, ...]]


def rate_columns(spec: ModelSpec) -> int:
    """R: one column per key combination, time scale and tracked number (each class, if multiclass)."""
    rates = spec.features.rates
    return len(rates.keys) * len(rates.half_lives_s) * spec.outputs


def rate_cells(spec: ModelSpec) -> int:
    """Numbers in the tables of models.rates: each slot's time, and per time scale its count and sums."""
    rates = spec.features.rates
    per_slot = 1 + len(rates.half_lives_s) * (1 + spec.outputs)
    return (len(rates.keys) + 1) * rates.slots * per_slot if rates.keys else 0


def dense_columns(spec: ModelSpec) -> int:
    """N + R: columns of the network's ``numeric`` input."""
    return len(spec.features.numeric) + rate_columns(spec)


def parameter_shapes(spec: ModelSpec) -> Shapes:
    """Names and shapes, in the order in which they lie in the flat vector."""
    shapes: Shapes = {}
    width = dense_columns(spec) + len(spec.features.numeric)
    for name, feature in spec.features.categorical.items():
        shapes[f"embed.{name}"] = (feature.size, feature.dim)
        width += feature.dim
    if spec.learner.network == "wide_deep":
        shapes |= {f"wide.{name}": (f.size, spec.outputs) for name, f in spec.features.categorical.items()}
        shapes["wide_x.weight"] = (spec.outputs, dense_columns(spec) + len(spec.features.numeric))
    for i, out in enumerate((*spec.learner.layers, spec.outputs)):
        shapes[f"layer{i}.weight"] = (out, width)
        shapes[f"layer{i}.bias"] = (out,)
        width = out
    return shapes


def output_parts(shapes: Shapes) -> list[str]:
    """Names of the parts that the outputs are linear in: the last layer, and all that is wide."""
    names = list(shapes)
    return [*names[-2:], *(name for name in names if name.startswith(("wide.", "wide_x.")))]


def parameter_count(shapes: Shapes) -> int:
    return sum(prod(s) for s in shapes.values())


def split(theta: NDArray[np.float32], shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    """Views of ``theta`` (P,), one per name.

    Raises:
        ValueError: the vector has another length than the shapes want.
    """
    if theta.shape != (parameter_count(shapes),):
        raise ValueError(f"theta has shape {theta.shape}, wanted ({parameter_count(shapes)},)")
    views, at = {}, 0
    for name, shape in shapes.items():
        views[name] = theta[at : at + prod(shape)].reshape(shape)
        at += prod(shape)
    return views
