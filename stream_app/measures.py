"""How good a predictor is at its task: probabilities or numbers, labels -> [sums] -> log-loss, AUC, MAE ...

    B rows, K outputs, P predictors scored side by side

All statistics are sums, each row weighted by its sample weight, so the totals of several workers are merged
by adding them (R2's, once counted from one target).

AUC comes from a histogram of the probabilities (``stream_app.curves``), four times coarser in the window.
Where the probabilities deviate by 0.05 (standard deviation) or more, ROC-AUC errs by less than 1e-4
against the exact one over all rows and 1e-3 in the window, whose own sampling error is 4e-3 (on scores like
those of the flights: 3e-6 and 7e-5). Narrower ones err more, up to those that share one bin: their AUC is
0.5 whatever their order. PR-AUC is too low, by less than 1e-3 and 2e-3. Several classes share the bins of two:
for 32 of them, the mean ROC-AUC errs by less than 1e-3 and 1e-2. A number that is not defined (no rows, or rows
of one class only) is NaN.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_app.curves import (
    CONFIDENCE_BINS,
    average_precision,
    bin_of,
    calibration_error,
    confidence_bin,
    ratio,
    roc_auc,
)
from stream_app.histograms import count
from stream_app.tally import Floats, Ints, State, Tally, check

BINS = 2_048
COARSER = 4
"""The window's histogram has so many times fewer bins: every version carries it once per block."""
CLIP = 1e-6
"""Log-loss takes no probability for smaller: one sure mistake costs 13.8, not infinity."""
MOST_RANKED_CLASSES = 32
"""With more classes there is no AUC: each row would count in so many histograms."""


class ClassCount(NamedTuple):
    """One class's share of the rows, each row counted by its weight."""

    support: float
    """Rows of this class."""
    said: float
    """Rows that were said to be of it."""
    right: float
    """Both."""


class BinaryScore:
    """Log-loss, calibration error, ROC-AUC, PR-AUC, accuracy and macro-F1 of probabilities of the positive class.

    The calibration error compares the probability of the positive class with how often it came true.

    Args:
        bins: of the histogram, per predictor; multiples of ``2 * COARSER``, so that 0.5 is an edge.
    """

    def __init__(self, bins: tuple[int, ...] = (BINS,)) -> None:
        self._bins = np.array(bins, np.int64)  # (P,)
        self._edges = tuple(int(e) for e in np.cumsum(self._bins)[:-1])
        cells = 2 * sum(bins)
        self._sums = _ProbabilitySums(len(bins))
        self._tally = Tally(cells, cells // COARSER, self._sums.count)

    def add(self, p: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Score probabilities (B,), or (P, B), of the positive class against labels (B,) of 0 or 1.

        Args:
            weights: (B,) what each row counts for; None is 1 each.

        Raises:
            ValueError: a probability is not finite, a label is neither 0 nor 1, or a weight is not above 0.
        """
        label, w = _labels(y, 2), _weights(weights)  # (B,)
        said = _finite(p, "probability").reshape(len(self._bins), label.size)  # (P, B)
        count(self._tally, said.clip(0.0, 1.0), label, w, bins=self._bins, coarser=COARSER, clip=CLIP)

    def summaries(self, *, window: bool = False) -> list[dict[str, float]]:
        """One per predictor: count, log_loss, calibration_error, auc, pr_auc, accuracy, macro_f1."""
        rows, counts, sums = self._tally.window() if window else self._tally.total()
        tables = self._tables(counts, COARSER if window else 1)
        return [
            self._sums.summary(i, rows, sums)
            | {"auc": roc_auc(t), "pr_auc": average_precision(t)}
            | _of_classes(_binary_counts(t))
            for i, t in enumerate(tables)
        ]

    def classes(self) -> list[ClassCount]:
        """Of the first predictor, over all rows: the negative class, the positive one."""
        return _class_counts(_binary_counts(self._tables(self._tally.counts, 1)[0]))

    def _tables(self, counts: Floats, coarser: int) -> list[Floats]:
        return np.split(counts.reshape(-1, 2), [e // coarser for e in self._edges])  # P of (bins, 2)

    def summary(self) -> dict[str, float]:
        """The first of ``summaries``, over all rows."""
        return self.summaries()[0]

    def window(self) -> dict[str, float]:
        """The same over the newest rows, 20,000 at most."""
        return self.summaries(window=True)[0]

    def state(self) -> State:
        return self._tally.state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._tally.load(state)


def _binary_counts(table: Floats) -> Floats:
    """Said, right and missed of both classes, (3, 2), from a histogram (bins, 2): its upper half was said positive."""
    half = len(table) // 2
    true_negative, missed = table[:half].sum(axis=0)
    false_alarm, hit = table[half:].sum(axis=0)
    return np.array([[true_negative + missed, hit + false_alarm], [true_negative, hit], [false_alarm, missed]])


class MulticlassScore:
    """Log-loss, calibration error, accuracy and macro-F1 of K probabilities; ROC-AUC if the classes are few.

    The calibration error compares the probability of the class that was said with how often it came true.
    ROC-AUC is the mean over the classes that were there, each against the rest, and only of the first predictor.

    Args:
        classes: K.
        predictors: P.
    """

    def __init__(self, classes: int, predictors: int = 1) -> None:
        self._shape = (predictors, 3, classes)
        """A row counts twice: its class as said, and its true class as right or as missed."""
        self._counted = predictors * 3 * classes
        step = 2 * COARSER
        self._bins = BINS // classes // step * step if classes <= MOST_RANKED_CLASSES else 0
        ranked = 2 * classes * self._bins
        self._sums = _ProbabilitySums(predictors)
        self._tally = Tally(self._counted + ranked, self._counted + ranked // COARSER, self._sums.count)

    def add(self, p: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Score probabilities (B, K), or (P, B, K), against class indices (B,).

        Args:
            weights: (B,) what each row counts for; None is 1 each.

        Raises:
            ValueError: a probability is not finite, a label is no class index, or a weight is not above 0.
        """
        predictors, _, classes = self._shape
        label, w = _labels(y, classes), _weights(weights)  # (B,)
        given = _finite(p, "probability").reshape(predictors, label.size, classes)  # (P, B, K)
        given = given.clip(0.0, 1.0)
        said = given.argmax(axis=2)  # (P, B)
        first = 3 * classes * np.arange(predictors)[:, None]
        hit = said == label  # (P, B)
        cells = np.concatenate([first + said, first + np.where(hit, classes, 2 * classes) + label])  # (2P, B)
        into, terms = self._sums.terms(given[:, np.arange(label.size), label], given.max(axis=2), hit, w)
        fine, coarse = self._ranked(given[0], label)
        self._tally.add(np.concatenate([cells, fine]), np.concatenate([cells, coarse]), into, terms, w)

    def _ranked(self, given: Floats, label: Ints) -> tuple[Ints, Ints]:
        """Cells (K, B) of the histograms of each class against the rest, and those of the window."""
        if not self._bins:
            none = np.empty((0, label.size), np.int64)
            return none, none
        of = np.arange(self._shape[2])[:, None]  # (K, 1)
        bins = of * self._bins + bin_of(given.T, self._bins)  # (K, B)
        positive = (label == of).astype(np.int64)  # (K, B)
        return self._counted + 2 * bins + positive, self._counted + 2 * (bins // COARSER) + positive

    def summaries(self, *, window: bool = False) -> list[dict[str, float]]:
        """One per predictor: count, log_loss, calibration_error, accuracy, macro_f1; the first has auc, too."""
        rows, counts, sums = self._tally.window() if window else self._tally.total()
        tables = counts[: self._counted].reshape(self._shape)
        found = [self._sums.summary(i, rows, sums) | _of_classes(t) for i, t in enumerate(tables)]
        if self._bins:
            ranked = counts[self._counted :].reshape(self._shape[2], -1, 2)  # (K, bins, 2)
            areas = [roc_auc(t) for t in ranked if t[:, 1].any()]
            found[0]["auc"] = ratio(sum(areas), len(areas))
        return found

    def classes(self) -> list[ClassCount]:
        """Of the first predictor, over all rows."""
        return _class_counts(self._tally.counts[: self._counted].reshape(self._shape)[0])

    def summary(self) -> dict[str, float]:
        """The first of ``summaries``, over all rows."""
        return self.summaries()[0]

    def window(self) -> dict[str, float]:
        """The same over the newest rows, 20,000 at most."""
        return self.summaries(window=True)[0]

    def state(self) -> State:
        return self._tally.state()

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._tally.load(state)


def _class_counts(table: Floats) -> list[ClassCount]:
    said, right, missed = table  # (K,)
    return [ClassCount(*row) for row in np.stack([right + missed, said, right], axis=1).tolist()]


def _of_classes(table: Floats) -> dict[str, float]:
    """Macro-F1 is the mean over the classes that were there or were said."""
    said, right, missed = table  # (K,)
    either = said + right + missed
    f1 = 2.0 * right[either > 0.0] / either[either > 0.0]
    return {
        "accuracy": ratio(float(right.sum()), float((right + missed).sum())),
        "macro_f1": ratio(float(f1.sum()), f1.size),
    }


class _ProbabilitySums:
    """What is summed of probabilities: the weight, and per predictor the log-loss and the calibration's gaps."""

    def __init__(self, predictors: int) -> None:
        self._predictors = predictors
        self._dense = np.arange(1 + predictors)[:, None]  # (1 + P, 1)
        self._gaps = 1 + predictors + CONFIDENCE_BINS * np.arange(predictors)[:, None]  # (P, 1)
        self.count = 1 + predictors * (1 + CONFIDENCE_BINS)

    def terms(
        self, true: Floats, confidence: Floats, outcome: Ints | NDArray[np.bool_], w: Floats | None
    ) -> tuple[Ints, Floats]:
        """Which sums each row adds to, and what: (1 + 2P, B) both.

        Args:
            true: (P, B) the probability given to what was true.
            confidence: (P, B) a probability, and
            outcome: (B,) or (P, B) 1 where what it was given to came true.
        """
        p, rows = true.shape
        into = np.empty((1 + 2 * p, rows), np.int64)
        into[: 1 + p] = self._dense
        into[1 + p :] = self._gaps + confidence_bin(confidence)
        terms = np.empty((1 + 2 * p, rows))
        terms[0] = 1.0
        terms[1 : 1 + p] = _log_loss(true)
        terms[1 + p :] = confidence - outcome
        return into, terms if w is None else terms * w

    def summary(self, predictor: int, rows: int, sums: Floats) -> dict[str, float]:
        gaps = sums[1 + self._predictors :].reshape(self._predictors, CONFIDENCE_BINS)[predictor]
        return {
            "count": float(rows),
            "log_loss": ratio(float(sums[1 + predictor]), float(sums[0])),
            "calibration_error": calibration_error(gaps, float(sums[0])),
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
        self._tally = Tally(0, 0, 2 * predictors + 3)

    def add(self, said: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Score numbers (B,), or (P, B), against targets (B,).

        Args:
            weights: (B,) what each row counts for; None is 1 each.

        Raises:
            ValueError: a number is not finite, or a weight is not above 0.
        """
        target, w = _finite(y, "target").ravel(), _weights(weights)  # (B,)
        shape = (self._predictors, target.size)
        error = _finite(said, "prediction").reshape(shape) - target  # (P, B)
        if self._tally.rows == 0 and target.size:
            self._first = float(target[0])
        off = target[None] - self._first  # (1, B)
        none = np.empty((0, target.size), np.int64)
        terms = np.concatenate([np.abs(error), error**2, off, off**2, np.ones_like(off)])  # (2P + 3, B)
        into = np.broadcast_to(np.arange(len(terms))[:, None], terms.shape)
        self._tally.add(none, none, into, terms if w is None else terms * w, w)

    def summaries(self, *, window: bool = False) -> list[dict[str, float]]:
        """One per predictor: count, mae, rmse, r2."""
        rows, _, sums = self._tally.window() if window else self._tally.total()
        total, squares, weight = map(float, sums[-3:])
        spread = squares - ratio(total * total, weight)
        errors = sums[:-3].reshape(2, self._predictors).T
        return [
            {
                "count": float(rows),
                "mae": ratio(float(absolute), weight),
                "rmse": ratio(float(squared), weight) ** 0.5,
                "r2": 1.0 - ratio(float(squared), spread if spread > 1e-12 * squares else 0.0),
            }
            for absolute, squared in errors
        ]

    def mae(self, predictor: int) -> float:
        """Over all rows; NaN before the first."""
        _, _, sums = self._tally.total()
        return ratio(float(sums[predictor]), float(sums[-1]))

    def classes(self) -> list[ClassCount]:
        """None."""
        return []

    def summary(self) -> dict[str, float]:
        """Over all rows: count, mae, rmse, r2."""
        return self.summaries()[0]

    def window(self) -> dict[str, float]:
        """The same over the newest rows, 20,000 at most."""
        return self.summaries(window=True)[0]

    def state(self) -> State:
        return self._tally.state() | {"first": np.array([self._first], np.float64)}

    def load(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        check(state, self.state())
        self._tally.load(state)
        self._first = float(np.asarray(state["first"], np.float64)[0])


def counted_from(state: Mapping[str, NDArray[np.generic]], first: NDArray[np.generic]) -> State:
    """A RegressionScore's state as if its first target had been ``first`` (1,): y - f' = (y - f) + (f - f')."""
    by = float(np.asarray(state["first"], np.float64)[0]) - float(np.asarray(first, np.float64)[0])
    found = {**state, "first": first.copy()}
    for name in ("sums", "block_sums"):
        sums = np.array(state[name], np.float64)  # (..., 2P + 3)
        off, squares, weight = sums[..., -3], sums[..., -2], sums[..., -1]
        squares += 2 * by * off + by * by * weight
        off += by * weight
        found[name] = sums
    return found


Score = BinaryScore | MulticlassScore | RegressionScore


def _labels(y: ArrayLike, classes: int) -> Ints:
    label = np.asarray(y).astype(np.int64).ravel()
    if label.size and (label.min() < 0 or label.max() >= classes):
        wrong = int(label.min() if label.min() < 0 else label.max())
        raise ValueError(f"a label is {wrong}, wanted a class index from 0 to {classes - 1}")
    return label


def _weights(weights: ArrayLike | None) -> Floats | None:
    if weights is None:
        return None
    found = _finite(weights, "weight").ravel()
    if not (found > 0.0).all():
        raise ValueError(f"a weight is {found[~(found > 0.0)][0]}, wanted a number above 0")
    return found


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
