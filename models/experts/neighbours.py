"""The nearest of the newest rows: row -> [distances to the window] -> the labels of the k nearest.

D columns   C room of the ring   W rows of the window   K classes (1: regression)   J sizes of neighbourhood
across (D, C)   the window's columns, so that distances are summed many rows at a time; derived from it
"""

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64, I64
from models.experts.window import CHUNK, Rows, Window
from models.snapshot import Arrays

BLOCK = 512
"""Rows of the window at a time, so that their sums stay in the fastest memory."""
BELIEF = 0.5
"""Neighbours' worth of belief in what is typical of late."""


@compiled
def add_squares(column: F32, v: float, found: F32) -> None:
    """found (n,) += (column - v) squared; apart, and over whole arrays, so that it is vectorised."""
    for i in range(len(column)):
        off = column[i] - v
        found[i] += off * off


@compiled
def distances(row: F32, across: F32, found: F32) -> None:
    """Squared distances of a row (D,) to the whole ring: found (C,)."""
    columns, room = across.shape
    found[:] = 0.0
    for start in range(0, room, BLOCK):
        end = min(start + BLOCK, room)
        for f in range(columns):
            add_squares(across[f, start:end], row[f], found[start:end])


@compiled
def keep_nearest(found: F32, first: int, last: int, held: int, near: F32, where: I64) -> int:
    """The nearest of found[first:last] join ``near``, rising; returns how many are held."""
    most = len(near)
    worst = near[most - 1] if held == most else np.float32(np.inf)
    for at in range(first, last):
        far = found[at]
        if far >= worst:
            continue
        held = min(held + 1, most)
        j = held - 1
        while j > 0 and near[j - 1] > far:
            near[j], where[j] = near[j - 1], where[j - 1]
            j -= 1
        near[j], where[j] = far, at
        if held == most:
            worst = near[most - 1]
    return held


@compiled
def answer(
    found: F32,
    past_y: F32,
    past_w: F32,
    seen: int,
    window: int,
    sizes: I64,
    prior: F64,
    near: F32,
    where: I64,
    out: F64,
) -> None:
    """Shares of the labels of the ``sizes`` (J,) nearest, weighted by nearness: out (J, K).

    Args:
        found: (C,) distances to the ring's rows.
        seen: rows that may be looked at; the newest stands at (seen - 1) % C.
    """
    room, classes = len(found), out.shape[1]
    n = min(seen, window)
    first = (seen - n) % room
    split = min(first + n, room)
    held = keep_nearest(found, first, split, 0, near, where)
    held = keep_nearest(found, 0, n - (split - first), held, near, where)
    for j in range(len(sizes)):
        within = min(sizes[j], held)
        out[j] = BELIEF * prior
        total = BELIEF
        for i in range(within):
            weight = past_w[where[i]] * (1.0 - 0.9 * near[i] / (near[within - 1] + 1e-9))
            total += weight
            if classes == 1:
                out[j, 0] += weight * past_y[where[i]]
            else:
                out[j, int(past_y[where[i]])] += weight
        out[j] /= total


@compiled
def answers(
    z: F32,
    across: F32,
    past_y: F32,
    past_w: F32,
    seen: int,
    further: int,
    window: int,
    sizes: I64,
    prior: F64,
    out: F64,
) -> None:
    """Answers for rows z (B, D): out (J, B, K). Row b may look at ``seen + further * b`` rows."""
    found, said = np.empty(across.shape[1], np.float32), np.empty((len(sizes), prior.shape[1]))
    near, where = np.empty(sizes.max(), np.float32), np.empty(sizes.max(), np.int64)
    for b in range(len(z)):
        distances(z[b], across, found)
        answer(found, past_y, past_w, seen + further * b, window, sizes, prior[b], near, where, said)
        out[:, b] = said


class Neighbours:
    """As many members as sizes of neighbourhood. All of its state is the window.

    Args:
        sizes: how many neighbours are asked.
        window: W, the rows among which they are sought.
    """

    def __init__(self, sizes: tuple[int, ...], *, window: int, columns: int) -> None:
        self.names = tuple(f"nearest_{size}" for size in sizes)
        self._sizes, self._window = np.array(sizes, np.int64), window
        room = window + CHUNK
        self._across = np.zeros((columns, room), np.float32)
        self._y, self._w = np.zeros(room, np.float32), np.zeros(room, np.float32)

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        self._answer(rows, window, 0, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        at = (window.count + np.arange(len(rows.y))) % len(self._y)
        self._across[:, at], self._y[at], self._w[at] = rows.z.T, rows.y, rows.w
        self._answer(rows, window, 1, out)

    def _answer(self, rows: Rows, window: Window, further: int, out: F64) -> None:
        answers(
            rows.z, self._across, self._y, self._w, window.count, further, self._window, self._sizes, rows.prior, out
        )  # fmt: skip

    def vectors(self) -> tuple[F32, ...]:
        return ()

    def grow(self, columns: int, classes: int, codes: int) -> None:
        more = columns - len(self._across)
        self._across = np.pad(self._across, ((0, more), (0, 0)))

    def state(self) -> Arrays:
        return {}

    def load(self, state: Arrays) -> None:
        """Its rows come by ``derive``, once the window is there."""

    def derive(self, window: Window) -> None:
        """Stand as if the rows of the window had been learned here."""
        n = min(window.count, self._window)
        rows = np.arange(window.count - n, window.count)
        here, there = rows % len(self._y), rows % len(window.y)
        self._across = np.zeros((window.z.shape[1], len(self._y)), np.float32)
        self._across[:, here] = window.z[there].T
        self._y[here], self._w[here] = window.y[there], window.w[there]
