"""The graph of ``models.export`` as compiled code, for few rows at once: raw row -> [standardise -> layers] -> scores.

    B rows   N numeric features   R rate columns   D = N + R   C categorical features   K outputs
    P pieces of G numbers each, all embeddings together
    x = [clip((raw - mean) / std), isnan(raw[:N]), pieces]   what the first layer takes, D + N + P * G numbers

One row is some ten thousand multiplications, 1 us. In onnxruntime it takes 12 us in a loop and 80 between two calls of
a server, where what it touches has left the caches; this touches its weights and little else. Rows are answered one by
one, so that a row's scores do not depend on those beside it.
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.graph import Net
from models.scaler import CLIP

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def room_of(net: Net) -> Floats:
    """(2, most) where a row's numbers stand between layers; ``forward`` reads a row's D raw ones from its first."""
    return np.zeros((2, int(net.widths.max())), np.float32)


def run(net: Net, numeric: Floats, categories: Ints) -> Floats:
    """Scores (B, K) of numeric (B, D), raw, NaN is missing, and categories (B, C).

    Raises:
        ValueError: a category has no row in its table.
    """
    # Other layouts, and what is read-only, would be other types, each of which is compiled when it first comes.
    numeric = np.require(numeric, np.float32, ("C", "W"))
    categories = np.require(categories, np.int64, ("C", "W"))
    scores = np.empty((len(numeric), int(net.widths[-1])), np.float32)
    wrong = forward(net, room_of(net), numeric, categories, scores)
    if wrong >= 0:
        raise ValueError(f"row {wrong} has categories {categories[wrong].tolist()}, wanted rows of the embeddings")
    return scores


@compiled
def forward(net: Net, room: Floats, numeric: Floats, categories: Ints, scores: Floats) -> int:
    """Scores (B, K) of numeric (B, D) and categories (B, C), of as many rows as there are scores.

    Returns:
        The first row that has a category beyond its table; -1 if none has.
    """
    for row in range(len(scores)):
        for p in range(len(net.pieces)):
            if not 0 <= categories[row, net.pieces[p, 0]] < net.pieces[p, 2]:
                return row
        for i in range(len(net.mean)):
            room[0, i] = numeric[row, i]
        _standardise(net, room[0], categories[row])
        at, side = 0, 0
        for layer in range(len(net.widths) - 1):
            into, out = net.widths[layer], net.widths[layer + 1]
            _layer(room[side], into, net.weights[at:], out, room[1 - side], layer < len(net.widths) - 2)
            at += (into + 1) * out
            side = 1 - side
        _squash(net.task, room[side], scores[row])
    return -1


@compiled
def _standardise(net: Net, x: Floats, categories: Ints) -> None:
    """Raw numbers become x."""
    dense, groups, size = len(net.mean), len(net.pieces), net.table.shape[1]
    flags = net.widths[0] - dense - groups * size
    low, high, zero, one = np.float32(-CLIP), np.float32(CLIP), np.float32(0.0), np.float32(1.0)
    for i in range(flags):
        x[dense + i] = one if x[i] != x[i] else zero
    for i in range(dense):
        z = (x[i] - net.mean[i]) / net.std[i]
        z = high if z > high else z
        z = low if z < low else z
        x[i] = zero if x[i] != x[i] else z
    at = dense + flags
    for p in range(groups):
        place = net.pieces[p, 1] + categories[net.pieces[p, 0]]
        for g in range(size):
            x[at + g] = net.table[place, g]
        at += size


@compiled
def _layer(x: Floats, into: int, weights: Floats, out: int, made: Floats, inner: bool) -> None:
    """made = x W + b, four inputs at once, so that ``made`` is read and written a quarter as often; relu within."""
    if out == 1:
        total = weights[into]
        for i in range(into):
            total += x[i] * weights[i]
        made[0] = np.float32(0.0) if inner and total < 0 else total
        return
    for k in range(out):
        made[k] = weights[into * out + k]
    i = 0
    while i + 4 <= into:
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        a = weights[i * out : (i + 1) * out]
        b = weights[(i + 1) * out : (i + 2) * out]
        c = weights[(i + 2) * out : (i + 3) * out]
        d = weights[(i + 3) * out : (i + 4) * out]
        for k in range(out):
            made[k] += (x0 * a[k] + x1 * b[k]) + (x2 * c[k] + x3 * d[k])
        i += 4
    while i < into:
        for k in range(out):
            made[k] += x[i] * weights[i * out + k]
        i += 1
    if inner:
        for k in range(out):
            made[k] = np.float32(0.0) if made[k] < 0 else made[k]


@compiled
def _squash(task: int, z: Floats, scores: Floats) -> None:
    one = np.float32(1.0)
    if task == 0:
        scores[0] = one / (one + np.exp(-z[0]))
        return
    if task == 2:
        scores[0] = z[0]
        return
    most, total = z[0], np.float32(0.0)
    for k in range(1, len(scores)):
        most = z[k] if z[k] > most else most
    for k in range(len(scores)):
        scores[k] = np.exp(z[k] - most)
        total += scores[k]
    for k in range(len(scores)):
        scores[k] /= total
