"""The networks of ``models.nets`` by hand: outputs and gradients of a micro-batch in one compiled call.

    theta, slope (P,)   parameters and the loss's gradient, cut as ``models.shapes`` says
    x (B, D) standardised columns   codes (B, C) rows of the embeddings   K outputs

On networks this small, autograd's bookkeeping takes twenty times as long as the arithmetic (64 rows, one hidden
layer of 64: 0.6 ms against 0.03 ms). The products are BLAS's, and the GIL is free meanwhile. ``models.nets`` with
autograd remains for what torch itself must see, and says in the tests what is right.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.shapes import Shapes

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TASKS = ("binary", "multiclass", "regression")


class Layout(NamedTuple):
    """Where the parts of theta lie."""

    embed_at: Ints
    """(C,)"""
    embed_dims: Ints
    """(C,)"""
    wide_at: Ints
    """(C,); (0,) if nothing is wide."""
    wide_x_at: int
    """-1 if nothing is wide."""
    layers_at: int
    """Weights and bias of one layer after the other."""
    widths: Ints
    """(L + 1,) of what goes in, of each layer's units; the last is K."""


def layout(shapes: Shapes) -> Layout:
    """Of a network with these parts."""
    at, embed, dims, wide, layers = 0, [], [], [], []
    wide_x_at = layers_at = -1
    for name, shape in shapes.items():
        if name.startswith("embed."):
            embed.append(at)
            dims.append(shape[1])
        elif name.startswith("wide."):
            wide.append(at)
        elif name == "wide_x.weight":
            wide_x_at = at
        elif name.endswith(".weight"):
            layers_at = at if layers_at < 0 else layers_at
            layers.append(shape)
        at += int(np.prod(shape))
    return Layout(
        embed_at=np.array(embed, np.int64),
        embed_dims=np.array(dims, np.int64),
        wide_at=np.array(wide, np.int64),
        wide_x_at=wide_x_at,
        layers_at=layers_at,
        widths=np.array([layers[0][1], *(out for out, _ in layers)], np.int64),
    )


def outputs(theta: Floats, cut: Layout, x: Floats, codes: Ints) -> Floats:
    """Logits, or standardised values, (B, K)."""
    return _forward(theta, *cut, np.ascontiguousarray(x), np.ascontiguousarray(codes))[-1]


def scores(task: str, outputs: Floats) -> Floats:
    """What is answered, (B, K), as ``models.losses.scores`` has it."""
    if task == "regression":
        return outputs
    found = np.empty_like(outputs)
    (_sigmoid if task == "binary" else _softmax)(outputs, found)
    return found


def gradient(
    theta: Floats, slope: Floats, cut: Layout, task: str, x: Floats, codes: Ints, target: Floats, weights: Floats | None
) -> None:
    """The gradient of ``models.losses.loss`` into slope (P,).

    Args:
        theta: (P,)
        slope: (P,), overwritten.
        cut: of theta.
        task: one of TASKS.
        x: (B, D)
        codes: (B, C)
        target: (B,) class index (binary: 1.0 is the second class), or the standardised value.
        weights: (B,); None is 1 each.
    """
    each = _ALIKE if weights is None else weights
    _gradient(theta, slope, *cut, TASKS.index(task), np.ascontiguousarray(x), codes, target, each)


_ALIKE = np.empty(0, np.float32)


@compiled
def _forward(
    theta: Floats, embed_at: Ints, embed_dims: Ints, wide_at: Ints, wide_x_at: int, layers_at: int, widths: Ints,
    x: Floats, codes: Ints,
) -> list[Floats]:  # fmt: skip
    """What goes into each layer, and what comes out of the last."""
    b, columns = x.shape
    h = np.empty((b, widths[0]), np.float32)
    h[:, :columns] = x
    left = columns
    for c in range(len(embed_at)):
        dim = embed_dims[c]
        for i in range(b):
            row = embed_at[c] + codes[i, c] * dim
            for d in range(dim):
                h[i, left + d] = theta[row + d]
        left += dim
    hs = [h]
    at = layers_at
    for layer in range(len(widths) - 1):
        into, out = widths[layer], widths[layer + 1]
        weight = theta[at : at + out * into].reshape((out, into))
        bias = theta[at + out * into : at + out * into + out]
        at += out * into + out
        z = np.dot(hs[layer], weight.T)
        inner = layer < len(widths) - 2
        for i in range(b):
            for k in range(out):
                value = z[i, k] + bias[k]
                z[i, k] = value if not inner or value > 0.0 or np.isnan(value) else np.float32(0.0)
        hs.append(z)
    if wide_x_at >= 0:
        outs = widths[-1]
        z = hs[-1]
        z += np.dot(x, theta[wide_x_at : wide_x_at + outs * columns].reshape((outs, columns)).T)
        for c in range(len(wide_at)):
            for i in range(b):
                for k in range(outs):
                    z[i, k] += theta[wide_at[c] + codes[i, c] * outs + k]
    return hs


@compiled
def _sigmoid(z: Floats, found: Floats) -> None:
    for i in range(len(z)):
        for k in range(z.shape[1]):
            found[i, k] = np.float32(1.0) / (np.float32(1.0) + np.exp(-z[i, k]))


@compiled
def _softmax(z: Floats, found: Floats) -> None:
    for i in range(len(z)):
        found[i] = np.exp(z[i] - z[i].max())
        found[i] /= found[i].sum()


@compiled
def _output_slope(task: int, z: Floats, target: Floats, weights: Floats) -> Floats:
    """Of the loss by the outputs (B, K)."""
    b, outs = z.shape
    found = np.empty((b, outs), np.float32)
    for i in range(b):
        scale = (weights[i] if len(weights) else np.float32(1.0)) / np.float32(b)
        if task == 0:
            found[i, 0] = (np.float32(1.0) / (np.float32(1.0) + np.exp(-z[i, 0])) - target[i]) * scale
        elif task == 1:
            most = z[i].max()
            found[i] = np.exp(z[i] - most)
            found[i] /= found[i].sum()
            found[i, int(target[i])] -= np.float32(1.0)
            found[i] *= scale
        else:
            found[i, 0] = np.float32(2.0) * (z[i, 0] - target[i]) * scale
    return found


@compiled
def _gradient(
    theta: Floats, slope: Floats, embed_at: Ints, embed_dims: Ints, wide_at: Ints, wide_x_at: int, layers_at: int,
    widths: Ints, task: int, x: Floats, codes: Ints, target: Floats, weights: Floats,
) -> None:  # fmt: skip
    hs = _forward(theta, embed_at, embed_dims, wide_at, wide_x_at, layers_at, widths, x, codes)
    b, columns = x.shape
    slope[:] = np.float32(0.0)
    back = _output_slope(task, hs[-1], target, weights)  # (B, K)
    if wide_x_at >= 0:
        outs = widths[-1]
        np.dot(back.T, x, slope[wide_x_at : wide_x_at + outs * columns].reshape((outs, columns)))
        for c in range(len(wide_at)):
            for i in range(b):
                for k in range(outs):
                    slope[wide_at[c] + codes[i, c] * outs + k] += back[i, k]
    at = len(theta)
    for layer in range(len(widths) - 2, -1, -1):
        into, out = widths[layer], widths[layer + 1]
        at -= out * into + out
        weight = theta[at : at + out * into].reshape((out, into))
        np.dot(back.T, hs[layer], slope[at : at + out * into].reshape((out, into)))
        for i in range(b):
            for k in range(out):
                slope[at + out * into + k] += back[i, k]
        if layer > 0:
            before, after = np.dot(back, weight), hs[layer]  # (B, into)
            for i in range(b):
                for k in range(into):
                    before[i, k] = np.float32(0.0) if after[i, k] <= 0.0 else before[i, k]
            back = before
        elif len(embed_at):
            back = np.dot(back, np.ascontiguousarray(weight[:, columns:]))  # (B, into - D): x has no slope
    left = 0
    for c in range(len(embed_at)):
        dim = embed_dims[c]
        for i in range(b):
            row = embed_at[c] + codes[i, c] * dim
            for d in range(dim):
                slope[row + d] += back[i, left + d]
        left += dim
