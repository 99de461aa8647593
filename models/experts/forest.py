"""Extremely randomised trees over the newest rows, one rebuilt every few rows: row -> [walk] -> leaf's counts.

    T trees   N nodes a tree may have   L leaves a tree may have   W rows of the window   K classes (1: regression)

    feature    (T, N)     column that a node splits at; -1 in a leaf
    threshold  (T, N)     rows at or below it go to the left child
    child      (T, N)     left child, the right one follows it; in a leaf its row of ``leaf``
    leaf       (T, L, K)  weight of each class (sum of targets for regression)
    mass       (T, L)     weight of all rows

Geurts, Ernst & Wehenkel 2006. A tree is grown on the window as it is; then its leaves count new rows until
its turn comes again. So no moment is a refit: every state is a whole one.
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.experts.arrays import F32, F64, I32, I64, U64, Scalar
from models.experts.chance import below, seeded, uniform
from models.experts.window import Rows, Window
from models.snapshot import Arrays

SMALLEST = 4
"""Rows that a node must have to be split."""
DEEPEST = 64
"""Nodes that wait to be split; the smaller half is split first, so 2^31 rows need no more."""
LOOKED_AT = 256
"""Rows of a node, evenly spread, by which its cut is chosen."""
BELIEF = 0.5
"""Rows' worth of belief in what is typical of late, in every leaf."""
MOST_TRIES = 16
"""Columns tried at a node at most, or the square root of all if that is more."""
SOONEST = 4
"""Rows between two rebuildings at least."""


@compiled
def grow(
    x: F32,
    y: F32,
    w: F32,
    rows: I64,
    tries: int,
    word: U64,
    feature: I32,
    threshold: F32,
    child: I32,
    leaf: F32,
    mass: F32,
) -> tuple[int, int]:  # fmt: skip
    """Grow one tree over ``rows`` (indices into x (C, D), reordered in place); returns nodes and leaves used.

    At each node some columns that vary there are cut once, at random between their ends: ``tries``, or half as many as
    the node has rows if that is less. The cut that leaves the purest halves (Gini; variance for regression) stays.
    """
    columns, classes = x.shape[1], leaf.shape[1]
    stack = np.empty((DEEPEST, 3), np.int64)  # node, its first row, one after its last
    left, total = np.zeros(classes), np.zeros(classes)
    most = min(len(rows), LOOKED_AT)
    here, label = np.empty(most, np.int64), np.empty(most, np.int64)
    weight_of, value = np.empty(most), np.empty(most, np.float32)
    order = np.arange(columns)
    nodes, leaves, top = 1, 0, 1
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, len(rows)
    while top > 0:
        top -= 1
        node, first, last = stack[top, 0], stack[top, 1], stack[top, 2]
        n = last - first
        seen = min(n, LOOKED_AT)
        total[:] = 0.0
        weight, squares = 0.0, 0.0
        for i in range(seen):
            r = rows[first + i * n // seen]
            here[i] = r
            weight += w[r]
            if classes == 1:
                weight_of[i] = w[r] * y[r]
                total[0] += weight_of[i]
                squares += weight_of[i] * y[r]
            else:
                label[i], weight_of[i] = int(y[r]), w[r]
                total[label[i]] += w[r]
        pure = squares - total[0] * total[0] / weight <= 1e-9 * squares
        if classes > 1:
            pure = False
            for k in range(classes):
                pure = pure or total[k] >= weight
        best, best_gain, best_cut = -1, -1.0, np.float32(0.0)
        found, asked = 0, 0
        while not pure and n >= SMALLEST and top + 2 <= DEEPEST and found < min(tries, 1 + n // 2) and asked < columns:
            pick = asked + below(word, columns - asked)
            f = order[pick]
            order[pick] = order[asked]
            order[asked] = f
            asked += 1
            low = high = x[here[0], f]
            for i in range(seen):
                v = x[here[i], f]
                value[i] = v
                low, high = min(low, v), max(high, v)
            if not high > low:
                continue
            found += 1
            cut = np.float32(low + uniform(word) * (high - low))
            if cut >= high:
                cut = low
            left[:] = 0.0
            left_weight = 0.0
            if classes == 1:
                for i in range(seen):
                    if value[i] <= cut:
                        left[0] += weight_of[i]
                        left_weight += w[here[i]]
            else:
                for i in range(seen):
                    if value[i] <= cut:
                        left[label[i]] += weight_of[i]
                for k in range(classes):
                    left_weight += left[k]
            right_weight = weight - left_weight
            if left_weight <= 0.0 or right_weight <= 0.0:
                continue
            gain = 0.0
            for k in range(classes):
                gain += left[k] * left[k] / left_weight + (total[k] - left[k]) ** 2 / right_weight
            if gain > best_gain:
                best, best_gain, best_cut = f, gain, cut
        if best < 0:
            feature[node], threshold[node], child[node] = -1, 0.0, leaves
            leaf[leaves] = 0.0
            mass[leaves] = 0.0
            for i in range(first, last):
                r = rows[i]
                mass[leaves] += w[r]
                if classes == 1:
                    leaf[leaves, 0] += w[r] * y[r]
                else:
                    leaf[leaves, int(y[r])] += w[r]
            leaves += 1
            continue
        i, j = first, last - 1
        while i <= j:
            if x[rows[i], best] <= best_cut:
                i += 1
            else:
                rows[i], rows[j] = rows[j], rows[i]
                j -= 1
        feature[node], threshold[node], child[node] = best, best_cut, nodes
        larger = 0 if i - first >= last - i else 1  # the smaller is split first, so the stack stays short
        for side in (larger, 1 - larger):
            stack[top, 0], stack[top, 1], stack[top, 2] = nodes + side, i, last
            if side == 0:
                stack[top, 1], stack[top, 2] = first, i
            top += 1
        nodes += 2
    return nodes, leaves


@compiled
def leaf_of(row: F32, feature: I32, threshold: F32, child: I32) -> int:
    """Where one tree puts a row (D,)."""
    node = 0
    while feature[node] >= 0:
        node = child[node] + (0 if row[feature[node]] <= threshold[node] else 1)
    return int(child[node])


@compiled
def answer(
    row: F32, built: int, feature: I32, threshold: F32, child: I32, leaf: F32, mass: F32, prior: F64, at: I64, out: F64
) -> None:
    """Mean over the trees of each leaf's shares, shrunk to prior (K,): out (K,); each tree's leaf: at (T,)."""
    if built == 0:
        out[:] = prior
        return
    out[:] = 0.0
    for t in range(built):
        at[t] = leaf_of(row, feature[t], threshold[t], child[t])
        scale = 1.0 / (mass[t, at[t]] + BELIEF) / built
        for k in range(len(out)):
            out[k] += (leaf[t, at[t], k] + BELIEF * prior[k]) * scale


@compiled
def predict(
    z: F32, counters: I64, feature: I32, threshold: F32, child: I32, leaf: F32, mass: F32, prior: F64, out: F64
) -> None:
    """Answers for rows z (B, D): out (1, B, K)."""
    at = np.empty(len(feature), np.int64)
    for b in range(len(z)):
        answer(z[b], counters[0], feature, threshold, child, leaf, mass, prior[b], at, out[0, b])


@compiled
def learn(
    z: F32, y: F32, w: F32, past_z: F32, past_y: F32, past_w: F32, start: int, window: int, pace: int, tries: int,
    counters: I64, word: U64, feature: I32, threshold: F32, child: I32, leaf: F32, mass: F32, used: I64,
    prior: F64, out: F64,
) -> None:  # fmt: skip
    """Row by row: answer into out (1, B, K), count the row, and rebuild a tree when its turn comes.

    Args:
        past_z: (C, D) rows learned so far and these, row i at i % C; past_y, past_w alike.
        start: rows learned before these.
        pace: a tree is rebuilt every n / pace rows, n the rows there are to grow it over.
        counters: (3,) trees built, the next to rebuild, the row at which.
        used: (T, 2) nodes and leaves of each tree.
    """
    trees, room, classes = len(feature), len(past_z), leaf.shape[2]
    at = np.empty(trees, np.int64)
    for b in range(len(z)):
        answer(z[b], counters[0], feature, threshold, child, leaf, mass, prior[b], at, out[0, b])
        for t in range(counters[0]):
            mass[t, at[t]] += w[b]
            if classes == 1:
                leaf[t, at[t], 0] += w[b] * y[b]
            else:
                leaf[t, at[t], int(y[b])] += w[b]
        seen = start + b + 1
        if seen < counters[2]:
            continue
        n, t = min(seen, window), counters[1]
        rows = (np.arange(n) + (seen - n)) % room
        used[t, 0], used[t, 1] = grow(
            past_z, past_y, past_w, rows, tries, word, feature[t], threshold[t], child[t], leaf[t], mass[t]
        )
        counters[0] = max(counters[0], t + 1)
        counters[1] = (t + 1) % trees
        counters[2] = seen + max(SOONEST, n // pace)


def tries_of(columns: int) -> int:
    """Columns tried at a node."""
    return min(columns, max(MOST_TRIES, int(columns**0.5)))


class Forest:
    """One member: T trees, each in its turn grown anew over the window.

    Args:
        trees: T.
        window: W, the newest rows that a tree is grown over.
        pace: trees grown while the window is filled once.
        seed: of the cuts.
    """

    def __init__(self, trees: int, *, window: int, pace: int, columns: int, classes: int, seed: int) -> None:
        self.names: tuple[str, ...] = (f"forest_{window}",)
        self._window, self._pace, self._columns = window, pace, columns
        self._word, self._counters = seeded(seed, window), np.zeros(3, np.int64)
        self._used = np.zeros((trees, 2), np.int64)
        self._feature, self._child = (np.zeros((trees, 2 * window), np.int32) for _ in range(2))
        self._threshold = np.zeros((trees, 2 * window), np.float32)
        self._leaf = np.zeros((trees, window, classes), np.float32)
        self._mass = np.zeros((trees, window), np.float32)

    @property
    def _trees(self) -> tuple[I32, F32, I32, F32, F32]:
        return self._feature, self._threshold, self._child, self._leaf, self._mass

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        predict(rows.z, self._counters, *self._trees, rows.prior, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        learn(
            rows.z, rows.y, rows.w, window.z, window.y, window.w, window.count, self._window, self._pace,
            tries_of(self._columns), self._counters, self._word, *self._trees, self._used, rows.prior, out,
        )  # fmt: skip

    def vectors(self) -> tuple[F32, ...]:
        return ()

    def grow(self, columns: int, classes: int, codes: int) -> None:
        self._columns = columns
        trees, room, had = self._leaf.shape
        if classes > had:
            old, self._leaf = self._leaf, np.zeros((trees, room, classes), np.float32)
            for t, n in enumerate(self._used[:, 1]):  # what is not used is not touched, and takes no memory
                self._leaf[t, :n, :had] = old[t, :n]

    def state(self) -> Arrays:
        """Only the nodes and leaves in use, tree after tree."""
        nodes, leaves = self._used[:, 0], self._used[:, 1]
        return {
            "columns": np.array([self._columns]),
            "window": np.array([self._window]),
            "counters": self._counters.copy(),
            "word": self._word.copy(),
            "used": self._used.copy(),
            "feature": _cut(self._feature, nodes).astype(np.int16),
            "threshold": _cut(self._threshold, nodes),
            "child": _cut(self._child, nodes),
            "leaf": _cut(self._leaf, leaves),
            "mass": _cut(self._mass, leaves),
        }

    def load(self, state: Arrays) -> None:
        self._columns = int(state["columns"].astype(np.int64)[0])
        self._counters, self._word = state["counters"].astype(np.int64), state["word"].astype(np.uint64)
        self._used = state["used"].astype(np.int64)
        nodes, leaves = self._used[:, 0], self._used[:, 1]
        self._leaf = np.zeros((*self._leaf.shape[:2], state["leaf"].shape[1]), np.float32)
        _paste(self._feature, state["feature"].astype(np.int32), nodes)
        _paste(self._threshold, state["threshold"].astype(np.float32), nodes)
        _paste(self._child, state["child"].astype(np.int32), nodes)
        _paste(self._leaf, state["leaf"].astype(np.float32), leaves)
        _paste(self._mass, state["mass"].astype(np.float32), leaves)


def _cut(array: NDArray[Scalar], used: I64) -> NDArray[Scalar]:
    """(T, N, ...) -> (sum of used, ...)."""
    return np.concatenate([tree[:n] for tree, n in zip(array, used, strict=True)])


def _paste(array: NDArray[Scalar], flat: NDArray[Scalar], used: I64) -> None:
    ends = np.cumsum(used)
    for tree, n, end in zip(array, used, ends, strict=True):
        tree[:n] = flat[end - n : end]
