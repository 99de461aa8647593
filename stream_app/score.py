"""How good what was said turned out to be: join -> [score] -> version, dashboard, decisions.

    B rows, K outputs, P predictors scored side by side: the model, and the baselines it must beat

Test-then-train: every row was predicted before its label was learned. All statistics add up, so
the totals of several workers are merged by adding them (R2's, once counted from one target). The
window is a ring of blocks cut by count alone: however the rows are split over calls, the same rows
give the same numbers, to the last bit.

AUC comes from a histogram of the probabilities; two rows in one bin count as a tie. Bins are 1.2e-3
wide at 0.5, four times that in the window, and ever finer toward 0 and 1. Where the probabilities
deviate by 0.05 (standard deviation) or more, it errs by less than 1e-4 against the exact AUC over all
rows and 1e-3 in the window, whose own sampling error is 4e-3 (on scores like those of the flights: 3e-6
and 7e-5). Narrower ones err more, up to those that share one bin: their AUC is 0.5 whatever their order.
A number that is not defined (no rows, or rows of one class only) is NaN.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
State = dict[str, NDArray[np.generic]]

BLOCK_ROWS = 2_000
BLOCKS = 10
"""The window holds the newest 18,001 to 20,000 rows: nine blocks and the one that is filling."""
BINS = 2_048
COARSER = 4
"""The window's histogram has so many times fewer bins: every version carries it once per block."""
CLIP = 1e-6
"""Log-loss takes no probability for smaller: one sure mistake costs 13.8, not infinity."""


class _Tally:
    """Counts and sums per row, in all and over the newest rows.

    Args:
        cells: length of the counts.
        block_cells: length of the window's counts.
        sums: how many numbers are summed.
    """

    def __init__(self, cells: int, block_cells: int, sums: int) -> None:
        self.rows = 0
        self.counts = np.zeros(cells, np.int64)
        self.sums = np.zeros(sums, np.float64)
        self.block_counts = np.zeros((BLOCKS, block_cells), np.uint16)
        self.block_sums = np.zeros((BLOCKS, sums), np.float64)

    def add(self, cells: Ints, block_cells: Ints, terms: Floats) -> None:
        """Count (A, B) cells, add (S, B) terms."""
        np.add.at(self.counts, cells.ravel(), 1)
        self.sums = _run_on(self.sums, terms)
        start, rows = 0, terms.shape[1]
        while start < rows:
            slot, filled = self.rows // BLOCK_ROWS % BLOCKS, self.rows % BLOCK_ROWS
            end = min(rows, start + BLOCK_ROWS - filled)
            if filled == 0:
                self.block_counts[slot] = 0
                self.block_sums[slot] = 0.0
            np.add.at(self.block_counts[slot], block_cells[:, start:end].ravel(), _ONE)
            self.block_sums[slot] = _run_on(self.block_sums[slot], terms[:, start:end])
            self.rows += end - start
            start = end

    def total(self) -> tuple[int, Ints, Floats]:
        return self.rows, self.counts, self.sums

    def window(self) -> tuple[int, Ints, Floats]:
        older = (BLOCKS - 1) * BLOCK_ROWS
        filling = (self.rows - 1) % BLOCK_ROWS + 1
        rows = min(self.rows, older + filling)
        return rows, self.block_counts.sum(axis=0, dtype=np.int64), self.block_sums.sum(axis=0)

    def state(self) -> State:
        """Copies; ``load`` continues from them as if it had never stopped."""
        return {
            "rows": np.array([self.rows], np.int64),
            "counts": self.counts.copy(),
            "sums": self.sums.copy(),
            "block_counts": self.block_counts.copy(),
            "block_sums": self.block_sums.copy(),
        }

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from a ``state()``.

        Raises:
            ValueError: it belongs to another kind of score.
        """
        _check(state, self.state())
        self.rows = int(np.asarray(state["rows"], np.int64)[0])
        self.counts = np.array(state["counts"], np.int64)
        self.sums = np.array(state["sums"], np.float64)
        self.block_counts = np.array(state["block_counts"], np.uint16)
        self.block_sums = np.array(state["block_sums"], np.float64)


_ONE = np.ones(1, np.uint16)


def _check(state: Mapping[str, NDArray[np.generic]], mine: State) -> None:
    for name, array in mine.items():
        got = state.get(name)
        if got is None or got.shape != array.shape or got.dtype != array.dtype:
            found = "missing" if got is None else f"{got.dtype}{got.shape}"
            wanted = f"{array.dtype}{array.shape}"
            raise ValueError(f"score state {name!r} is {found}, wanted {wanted}")


def _run_on(sums: Floats, terms: Floats) -> Floats:
    """Sums (S,) and terms (S, B), added one by one: np.sum adds in pairs, so depends on B."""
    return np.add.accumulate(np.concatenate([sums[:, None], terms], axis=1), axis=1)[:, -1]


class BinaryScore:
    """AUC, accuracy and log-loss of probabilities of the positive class.

    Args:
        bins: of the histogram, per predictor; multiples of ``2 * COARSER``, so that 0.5 is an edge.
    """

    def __init__(self, bins: tuple[int, ...] = (BINS,)) -> None:
        self._bins = np.array(bins, np.int64)[:, None]  # (P, 1)
        self._first = np.cumsum(self._bins, axis=0) - self._bins  # (P, 1)
        self._edges = tuple(int(e) for e in self._first[1:, 0])
        cells = 2 * sum(bins)
        self._tally = _Tally(cells, cells // COARSER, len(bins))

    def add(self, p: ArrayLike, y: ArrayLike) -> None:
        """Score probabilities (B,), or (P, B), of the positive class against labels (B,) of 0 or 1.

        Raises:
            ValueError: a probability is not finite, or a label is neither 0 nor 1.
        """
        label = _labels(y, 2)  # (B,)
        said = _finite(p, "probability").reshape(len(self._bins), label.size)  # (P, B)
        said = said.clip(0.0, 1.0)
        bins = (_spread(said) * self._bins).astype(np.int64)
        bins = self._first + np.minimum(bins, self._bins - 1)
        loss = _log_loss(np.where(label, said, 1.0 - said))  # (P, B)
        self._tally.add(2 * bins + label, 2 * (bins // COARSER) + label, loss)

    def summaries(self, *, window: bool = False) -> list[dict[str, float]]:
        """One per predictor: count, auc, accuracy, log_loss."""
        rows, counts, sums = self._tally.window() if window else self._tally.total()
        edges = [e // (COARSER if window else 1) for e in self._edges]
        tables = np.split(counts.reshape(-1, 2), edges)  # P of (bins, 2)
        return [_binary_summary(t, loss, rows) for t, loss in zip(tables, sums, strict=True)]

    def summary(self) -> dict[str, float]:
        """Over all rows: count, auc, accuracy, log_loss."""
        return self.summaries()[0]

    def window(self) -> dict[str, float]:
        """The same over the newest rows, 20,000 at most."""
        return self.summaries(window=True)[0]

    def state(self) -> State:
        return self._tally.state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._tally.load(state)


def _spread(p: Floats) -> Floats:
    """[0, 1] -> [0, 1], rising, 0.5 stays: fine steps near 0 and 1 resolve rare classes.

    Roots are rounded alike on every machine (IEEE 754), logarithms are not.
    """
    return (1.0 + np.sqrt(np.sqrt(p)) - np.sqrt(np.sqrt(1.0 - p))) / 2.0


def _binary_summary(table: Ints, loss: float, rows: int) -> dict[str, float]:
    negative, positive = table[:, 0], table[:, 1]  # (bins,)
    half = len(table) // 2
    right = int(negative[:half].sum() + positive[half:].sum())
    return {
        "count": float(rows),
        "auc": _auc(negative.astype(np.float64), positive.astype(np.float64)),
        "accuracy": _ratio(right, rows),
        "log_loss": _ratio(loss, rows),
    }


def _auc(negative: Floats, positive: Floats) -> float:
    """Chance that a positive row scores above a negative one; equal scores count half."""
    below = np.cumsum(negative) - negative / 2
    return _ratio(float(positive @ below), float(positive.sum() * negative.sum()))


class MulticlassScore:
    """Accuracy, log-loss and macro-F1 of K probabilities.

    Args:
        classes: K.
        predictors: P.
    """

    def __init__(self, classes: int, predictors: int = 1) -> None:
        self._shape = (predictors, 3, classes)
        """A row counts twice: its class as said, and its true class as right or as missed."""
        cells = predictors * 3 * classes
        self._tally = _Tally(cells, cells, predictors)

    def add(self, p: ArrayLike, y: ArrayLike) -> None:
        """Score probabilities (B, K), or (P, B, K), against class indices (B,).

        Raises:
            ValueError: a probability is not finite, or a label is no class index.
        """
        predictors, _, classes = self._shape
        label = _labels(y, classes)  # (B,)
        given = _finite(p, "probability").reshape(predictors, label.size, classes)  # (P, B, K)
        said = given.argmax(axis=2)  # (P, B)
        first = 3 * classes * np.arange(predictors)[:, None]
        hit = np.where(said == label, classes, 2 * classes)
        cells = np.concatenate([first + said, first + hit + label])  # (2P, B)
        loss = _log_loss(given[:, np.arange(label.size), label])  # (P, B)
        self._tally.add(cells, cells, loss)

    def summaries(self, *, window: bool = False) -> list[dict[str, float]]:
        """One per predictor: count, accuracy, log_loss, macro_f1."""
        rows, counts, sums = self._tally.window() if window else self._tally.total()
        tables = counts.reshape(self._shape)
        return [_multiclass_summary(t, loss, rows) for t, loss in zip(tables, sums, strict=True)]

    def summary(self) -> dict[str, float]:
        """Over all rows: count, accuracy, log_loss, macro_f1."""
        return self.summaries()[0]

    def window(self) -> dict[str, float]:
        """The same over the newest rows, 20,000 at most."""
        return self.summaries(window=True)[0]

    def state(self) -> State:
        return self._tally.state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._tally.load(state)


def _multiclass_summary(table: Ints, loss: float, rows: int) -> dict[str, float]:
    """Macro-F1 is the mean over the classes that were there or were said."""
    said, right, missed = table  # (K,)
    either = said + right + missed
    f1 = 2.0 * right[either > 0] / either[either > 0]
    return {
        "count": float(rows),
        "accuracy": _ratio(int(right.sum()), rows),
        "log_loss": _ratio(loss, rows),
        "macro_f1": _ratio(float(f1.sum()), f1.size),
    }


class RegressionScore:
    """Mean absolute error, root of the mean squared error, and R2, of one number.

    Args:
        predictors: P.
    """

    def __init__(self, predictors: int = 1) -> None:
        self._predictors = predictors
        self._first = 0.0
        """The first target: R2 sums distances from it, since squares of large targets swallow their spread."""
        self._tally = _Tally(0, 0, 2 * predictors + 2)

    def add(self, said: ArrayLike, y: ArrayLike) -> None:
        """Score numbers (B,), or (P, B), against targets (B,).

        Raises:
            ValueError: a number is not finite.
        """
        target = _finite(y, "target").ravel()  # (B,)
        shape = (self._predictors, target.size)
        error = _finite(said, "prediction").reshape(shape) - target  # (P, B)
        if self._tally.rows == 0 and target.size:
            self._first = float(target[0])
        off = target[None] - self._first  # (1, B)
        none = np.empty((0, target.size), np.int64)
        terms = np.concatenate([np.abs(error), error**2, off, off**2])
        self._tally.add(none, none, terms)  # (2P + 2, B)

    def summaries(self, *, window: bool = False) -> list[dict[str, float]]:
        """One per predictor: count, mae, rmse, r2."""
        rows, _, sums = self._tally.window() if window else self._tally.total()
        total, squares = float(sums[-2]), float(sums[-1])
        spread = squares - _ratio(total * total, rows)
        errors = sums[:-2].reshape(2, self._predictors).T
        return [
            {
                "count": float(rows),
                "mae": _ratio(float(absolute), rows),
                "rmse": _ratio(float(squared), rows) ** 0.5,
                "r2": 1.0 - _ratio(float(squared), spread if spread > 1e-12 * squares else 0.0),
            }
            for absolute, squared in errors
        ]

    def summary(self) -> dict[str, float]:
        """Over all rows: count, mae, rmse, r2."""
        return self.summaries()[0]

    def window(self) -> dict[str, float]:
        """The same over the newest rows, 20,000 at most."""
        return self.summaries(window=True)[0]

    def state(self) -> State:
        return self._tally.state() | {"first": np.array([self._first], np.float64)}

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        _check(state, self.state())
        self._tally.load(state)
        self._first = float(np.asarray(state["first"], np.float64)[0])


Score = BinaryScore | MulticlassScore | RegressionScore

PREDICTORS = ("", "majority_", "nochange_")
"""Prefixes of the metrics, in the order of P: the model and the baselines it has to beat."""


class Prequential:
    """The model's score beside two baselines that need no model.

    majority: always the most frequent class so far, with its running share (regression: the mean).
    nochange: what the last label said that had arrived by then; while none had, what majority says.

    Args:
        task: binary, multiclass or regression.
        classes: how many; 0 for regression.
    """

    def __init__(self, task: Literal["binary", "multiclass", "regression"], classes: int) -> None:
        self._classes = classes if task == "multiclass" else 1
        self._quality = "mae" if task == "regression" else "accuracy"
        self._score: Score
        match task:
            case "binary":
                # The share moves slowly and nochange says 0 or 1: few bins hold them.
                self._score = BinaryScore((BINS, 256, 16))
            case "multiclass":
                self._score = MulticlassScore(classes, len(PREDICTORS))
            case "regression":
                self._score = RegressionScore(len(PREDICTORS))

    def add(self, scores: ArrayLike, target: ArrayLike, nochange: ArrayLike, prior: ArrayLike) -> None:
        """Score B rows, in the order in which their labels are learned.

        Args:
            scores: (B, K) what the model said; binary: the probability of the positive class.
                One that is not finite is scored as if it had said the prior.
            target: (B,) class index, or number.
            nochange: (B,) the last label that had arrived when it was said; -1 or NaN: none had
                (for regression only NaN).
            prior: (B, K) up to then, the shares of the classes (binary: of the positive one;
                regression: the mean).

        Raises:
            ValueError: a prior is not finite, a target is no class index, or shapes do not fit.
        """
        label = np.asarray(target, np.float64).ravel()  # (B,)
        shape = (label.size, self._classes)
        base = np.asarray(prior, np.float64).reshape(shape)  # (B, K)
        said = np.asarray(scores, np.float64).reshape(shape)
        rows = np.empty((len(PREDICTORS), *shape))  # (P, B, K)
        rows[0] = np.where(np.isfinite(said), said, base)
        rows[1] = base
        rows[2] = self._last_label(np.asarray(nochange, np.float64).ravel(), base)
        self._score.add(rows, label)

    def _last_label(self, last: Floats, base: Floats) -> Floats:
        """What nochange says, (B, K), of last labels (B,)."""
        known = np.isfinite(last) if self._quality == "mae" else last >= 0
        sure = last[:, None] if self._classes == 1 else last[:, None] == np.arange(self._classes)
        return np.where(known[:, None], sure, base)

    def metrics(self) -> dict[str, float]:
        """All of it, flat: ``auc``, ``nochange_auc``, ``window_auc``, ``window_nochange_auc`` ...

        ``kappa_temporal`` is the share of nochange's mistakes (regression: of its mean absolute
        error) that the model avoids: 0 is no better, 1 is perfect (Zliobaite et al. 2015,
        "Evaluation methods and decision theory for classification of streaming data with temporal
        dependence").
        """
        return self._flat("", window=False) | self._flat("window_", window=True)

    def _flat(self, prefix: str, *, window: bool) -> dict[str, float]:
        summaries = self._score.summaries(window=window)
        flat = {f"{prefix}count": summaries[0]["count"]}
        for predictor, summary in zip(PREDICTORS, summaries, strict=True):
            flat |= {f"{prefix}{predictor}{k}": v for k, v in summary.items() if k != "count"}
        mine, last = summaries[0][self._quality], summaries[2][self._quality]
        wrong = (mine, last) if self._quality == "mae" else (1.0 - mine, 1.0 - last)
        flat[f"{prefix}kappa_temporal"] = 1.0 - _ratio(*wrong)
        return flat

    def state(self) -> State:
        """Arrays that ``load`` continues from as if it had never stopped."""
        return self._score.state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from a ``state()`` of the same task and classes.

        Raises:
            ValueError: it is of another task, or of other classes.
        """
        self._score.load(state)


def _labels(y: ArrayLike, classes: int) -> Ints:
    label = np.asarray(y).astype(np.int64).ravel()
    if label.size and (label.min() < 0 or label.max() >= classes):
        wrong = int(label.min() if label.min() < 0 else label.max())
        raise ValueError(f"a label is {wrong}, wanted a class index from 0 to {classes - 1}")
    return label


def _finite(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(f"a {what} is {array[~finite][0]}, wanted a finite number")
    return array


def _log_loss(p: Floats) -> Floats:
    """Of the probabilities given to what was true."""
    clipped: Floats = p.clip(CLIP, 1.0 - CLIP)
    return -np.log(clipped)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
