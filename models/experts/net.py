"""One hidden layer, Adam at every row or every few, rows of the past learned again: several nets side by side.

D columns   H hidden units   K outputs   G nets   Q codes of all categorical features
first  (G, 1 + D + Q, H): the bias, a row for each column, a row for each code
last   (G, 1 + H, K)
Adam's moments have the same shapes (Kingma & Ba 2015), and so have slopes that wait for their step. Of nets that
step at every row, a code's moments rest while it is not seen.
"""

import math

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64, I64, U64
from models.experts.chance import below, seeded
from models.experts.scores import HEAVIEST, slope_of, squash
from models.experts.window import Rows, Window
from models.snapshot import Arrays

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-6
MOST_REPLAYS = 64


@compiled
def hidden_of(row: F32, codes: I64, first: F32, hidden: F32) -> None:
    """Rectified units of a row (D,) with codes (C,): hidden (H,)."""
    columns, units = len(row), first.shape[1]
    for h in range(units):
        hidden[h] = first[0, h]
    for d in range(columns):
        v = row[d]
        if v != 0.0:
            for h in range(units):
                hidden[h] += v * first[1 + d, h]
    for c in range(len(codes)):
        for h in range(units):
            hidden[h] += first[1 + columns + codes[c], h]
    for h in range(units):
        hidden[h] = max(hidden[h], np.float32(0.0))


@compiled
def answer(row: F32, codes: I64, first: F32, last: F32, hidden: F32, out: F32) -> None:
    """Probabilities, or the standardised value: out (K,)."""
    classes = last.shape[1]
    hidden_of(row, codes, first, hidden)
    for k in range(classes):
        out[k] = last[0, k]
    for h in range(len(hidden)):
        v = hidden[h]
        if v != 0.0:
            for k in range(classes):
                out[k] += v * last[1 + h, k]
    squash(out)


@compiled
def predict(z: F32, codes: I64, centre: F64, scale: F64, first: F32, last: F32, out: F64) -> None:
    """Answers for rows z (B, D), codes (B, C): out (G, B, K)."""
    hidden, said = np.empty(first.shape[2], np.float32), np.empty(last.shape[2], np.float32)
    for g in range(len(first)):
        for b in range(len(z)):
            answer(z[b], codes[b], first[g], last[g], hidden, said)
            out[g, b] = centre[b] + scale[b] * said


@compiled
def add_slopes(
    row: F32, codes: I64, y: float, w: float, first: F32, last: F32,
    hidden: F32, said: F32, slope: F32, slope_first: F32, slope_last: F32,
) -> None:  # fmt: skip
    """Answer one row into said (K,) and add its slopes, weighted by w."""
    columns, units, classes = len(row), len(hidden), len(said)
    answer(row, codes, first, last, hidden, said)
    slope_of(said, y, slope)
    for k in range(classes):
        slope[k] *= np.float32(w)
        slope_last[0, k] += slope[k]
    for h in range(units):
        back = np.float32(0.0)
        v = hidden[h]
        if v > 0.0:
            for k in range(classes):
                back += slope[k] * last[1 + h, k]
                slope_last[1 + h, k] += v * slope[k]
        hidden[h] = back
        slope_first[0, h] += back
    for d in range(columns):
        v = row[d]
        if v != 0.0:
            for h in range(units):
                slope_first[1 + d, h] += v * hidden[h]
    for c in range(len(codes)):
        for h in range(units):
            slope_first[1 + columns + codes[c], h] += hidden[h]


@compiled
def adam(weights: F32, slopes: F32, mean: F32, square: F32, rate: float, epsilon: float) -> None:
    """One step of Adam on a row of weights; its slopes are zero then."""
    for i in range(len(weights)):
        s = slopes[i]
        mean[i] += np.float32(1.0 - BETA1) * (s - mean[i])
        square[i] += np.float32(1.0 - BETA2) * (s * s - square[i])
        weights[i] -= np.float32(rate) * mean[i] / (math.sqrt(square[i]) + np.float32(epsilon))
        slopes[i] = np.float32(0.0)


@compiled
def learn(
    z: F32, codes: I64, y: F32, w: F32, centre: F64, scale: F64,
    past_z: F32, past_codes: I64, past_y: F32, past_w: F32, start: int, window: int,
    replays: I64, rates: F64, words: U64, steps: I64, every: int, slope_first: F32, slope_last: F32,
    first: F32, last: F32, mean_first: F32, mean_last: F32, square_first: F32, square_last: F32, out: F64,
) -> None:  # fmt: skip
    """Row by row: answer into out (G, B, K), then one step on the row and ``replays`` (G,) rows of the past.

    Args:
        past_z: (C, D) rows learned so far and these, row i at i % C; past_codes, past_y, past_w alike.
        start: rows learned before these.
        steps: (G,) Adam's steps so far.
        every: rows to a step, counted from the first ever learned; its slopes (G, ...) add up until then.
    """
    room, columns = len(past_z), z.shape[1]
    hidden, said = np.empty(first.shape[2], np.float32), np.empty(last.shape[2], np.float32)
    slope, other = np.empty_like(said), np.empty_like(said)
    picked = np.empty(MOST_REPLAYS, np.int64)
    for g in range(len(first)):
        for b in range(len(z)):
            seen = min(start + b, window)
            n = min(replays[g], seen)
            share = 1.0 / (1 + n) / every
            add_slopes(
                z[b], codes[b], (y[b] - centre[b]) / scale[b], min(w[b], HEAVIEST) * share,
                first[g], last[g], hidden, said, slope, slope_first[g], slope_last[g],
            )  # fmt: skip
            out[g, b] = centre[b] + scale[b] * said
            for i in range(n):
                at = (start + b - 1 - below(words[g], seen)) % room
                picked[i] = at
                add_slopes(
                    past_z[at], past_codes[at], (past_y[at] - centre[b]) / scale[b], min(past_w[at], HEAVIEST) * share,
                    first[g], last[g], hidden, other, slope, slope_first[g], slope_last[g],
                )  # fmt: skip
            if (start + b + 1) % every != 0:
                continue
            steps[g] += 1
            late = math.sqrt(1.0 - BETA2 ** steps[g])
            rate, epsilon = rates[g] * late / (1.0 - BETA1 ** steps[g]), EPSILON * late
            for d in range(1 + columns if every == 1 else first.shape[1]):
                adam(first[g, d], slope_first[g, d], mean_first[g, d], square_first[g, d], rate, epsilon)
            for c in range(codes.shape[1] if every == 1 else 0):
                q = 1 + columns + codes[b, c]
                adam(first[g, q], slope_first[g, q], mean_first[g, q], square_first[g, q], rate, epsilon)
                for i in range(n):  # a code met twice has slope 0 the second time: its moments decay once more
                    q = 1 + columns + past_codes[picked[i], c]
                    adam(first[g, q], slope_first[g, q], mean_first[g, q], square_first[g, q], rate, epsilon)
            for h in range(1 + len(hidden)):
                adam(last[g, h], slope_last[g, h], mean_last[g, h], square_last[g, h], rate, epsilon)


class Nets:
    """As many members as settings.

    Args:
        settings: Adam's rate and the rows replayed with every row, of each net.
        pace: what the rates are multiplied by; names keep the rates as they are given.
        every: rows to a step.
        hidden: H.
        window: rows back to which the past is replayed.
        seed: of the first weights and of what is replayed.
    """

    def __init__(
        self,
        settings: tuple[tuple[float, int], ...],
        *,
        hidden: int,
        window: int,
        columns: int,
        classes: int,
        codes: int,
        seed: int,
        pace: float = 1.0,
        every: int = 1,
    ) -> None:
        kind = "net" if every == 1 else "slow"
        self.names = tuple(f"{kind}_{rate:g}_{replays}" for rate, replays in settings)
        self._every = every
        self._rates = np.array([rate * pace for rate, _ in settings])
        self._replays = np.array([replays for _, replays in settings], np.int64)
        self._window, self._seed = window, seed
        self._columns = 0
        self._first = np.zeros((len(settings), 1, hidden), np.float32)
        self._first[:, 0] = np.random.default_rng([seed, every - 1]).uniform(-0.5, 0.5, (len(settings), hidden))
        self._last = np.zeros((len(settings), 1 + hidden, classes), np.float32)
        self._moments = [np.zeros_like(self._first if name.endswith("first") else self._last) for name in MOMENTS]
        self.grow(columns, classes, codes)
        self._steps = np.zeros(len(settings), np.int64)
        self._words = np.array([seeded(seed, 1000 * every + g) for g in range(len(settings))], np.uint64).reshape(-1, 1)

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        predict(rows.z, rows.codes, rows.centre, rows.scale, self._first, self._last, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        learn(
            rows.z, rows.codes, rows.y, rows.w, rows.centre, rows.scale,
            window.z, window.codes, window.y, window.w, window.count, self._window,
            self._replays, self._rates, self._words, self._steps, self._every, self._moments[4], self._moments[5],
            self._first, self._last,
            self._moments[0], self._moments[1], self._moments[2], self._moments[3], out,
        )  # fmt: skip

    def vectors(self) -> tuple[F32, ...]:
        return (self._first, self._last)

    def grow(self, columns: int, classes: int, codes: int) -> None:
        """New columns get weights by chance, new codes none, new classes start out unlikely."""
        old, was = self._first, self._columns
        self._first = _with_columns(old, was, columns, codes)
        for i, name in enumerate(MOMENTS):
            if name.endswith("first"):
                self._moments[i] = _with_columns(self._moments[i], was, columns, codes)
        chance = np.random.default_rng([self._seed, self._every, was])
        shape = (len(old), columns - was, old.shape[2])
        self._first[:, 1 + was : 1 + columns] = chance.uniform(-1, 1, shape) * np.sqrt(3.0 / max(columns, 1))
        self._columns = columns
        more = classes - self._last.shape[2]
        if more > 0:
            wider = ((0, 0), (0, 0), (0, more))
            self._last = np.pad(self._last, wider)
            self._last[:, 0, -more:] = NEW_CLASS
            self._moments = [
                m if name.endswith("first") else np.pad(m, wider)
                for name, m in zip(MOMENTS, self._moments, strict=True)
            ]

    def forget(self, codes: I64) -> None:
        """These codes are as codes never met."""
        waiting = (m for name, m in zip(MOMENTS, self._moments, strict=True) if name.endswith("first"))
        for array in (self._first, *waiting):
            array[:, 1 + self._columns + codes] = 0.0

    def state(self) -> Arrays:
        moments: Arrays = {name: m.copy() for name, m in zip(MOMENTS, self._moments, strict=True)}
        return moments | {
            "first": self._first.copy(),
            "last": self._last.copy(),
            "columns": np.array([self._columns]),
            "steps": self._steps.copy(),
            "words": self._words.copy(),
        }

    def load(self, state: Arrays) -> None:
        self._first, self._last = state["first"].astype(np.float32), state["last"].astype(np.float32)
        self._moments = [state[name].astype(np.float32) for name in MOMENTS]
        self._columns = int(state["columns"].astype(np.int64)[0])
        self._steps, self._words = state["steps"].astype(np.int64), state["words"].astype(np.uint64)


MOMENTS = ("mean_first", "mean_last", "square_first", "square_last", "slope_first", "slope_last")
NEW_CLASS = -3.0
"""Logit at which a class begins that was not there when the others began."""


def _with_columns(array: F32, was: int, columns: int, codes: int) -> F32:
    """(G, 1 + was + q, H) -> (G, 1 + columns + codes, H), zeros between and behind."""
    found = np.zeros((len(array), 1 + columns + codes, array.shape[2]), np.float32)
    found[:, : 1 + was] = array[:, : 1 + was]
    found[:, 1 + columns : 1 + columns + array.shape[1] - 1 - was] = array[:, 1 + was :]
    return found
