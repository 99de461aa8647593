"""The stream stops being what the model learned: errors, inputs -> [watch] -> release the pull, tune.

    n0, m0    older part of the window: how many values, their mean
    n1, m1    newer part
    n         n0 + n1, the window: all since the last change
    delta     chance of a false alarm

Three detectors of river, told apart by what they take and what they find; all restart after a change:

    adwin         numbers in [0, 1]: two parts of the window whose means differ by more than chance allows
                  (Bifet and Gavalda 2007). Rises and falls.
    page_hinkley  numbers in [0, 1]: the sum of x - mean -+ TOLERANCE has moved by more than a threshold (Page
                  1954). Rises and falls of more than TOLERANCE. For independent numbers the chance that it does is
                  at most exp(-8 TOLERANCE threshold) (Lundberg, with Hoeffding's lemma): so delta gives the
                  threshold. river's fading sum is not used: it wanders off by itself (an alarm or two in 50,000).
    ddm           0 or 1: the mistakes' share is above the lowest so far by more deviations than a normal one
                  would be with chance delta (Gama et al. 2004). Rises only. Its share is over the whole window, so
                  late changes are found late; and it needs mistakes to count: of very rare ones it raises alarms.

None says where the change was; so that is measured, alike for all, at the likeliest cut of the window:
argmax (m1 - m0)^2 n0 n1 / n.

Errors come one by one, not as means of steps: after 20,000 errors with mean 0.2 ADWIN finds a rise to 0.4 after 160
more, to 0.3 after 450; fed with means of 128 errors, the first after 8,700, the second not after 20,000.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from math import log
from statistics import NormalDist
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from river.drift import ADWIN, PageHinkley
from river.drift.binary import DDM

from models.snapshot import Arrays

Kind = Literal["adwin", "page_hinkley", "ddm"]

CHECK_EVERY = 32
"""Values between two checks of ADWIN."""
SHORTEST = 5
"""Values that a part must have."""
BLOCK = 8
"""Values are remembered as sums of so many, to find the cut in."""
NEWEST = 4_096
"""Values remembered; a cut further back is put here."""
TOLERANCE = 0.025
"""Page-Hinkley: changes of the mean below it are not looked for."""
WARM = 1_000
"""DDM: values before the first check. A lucky start would be the lowest share for ever: with 100, one rise of two from
0.2 to 0.4 was found after 7,000."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a mean. Counts and widths are in values, of an input in its known ones."""

    watched: str
    """``error``, an input's name, or ``NAME missing``: how often that input is missing."""
    mean_before: float
    """Of the window's older part. Inputs: in their own unit, each value cut at REACH deviations; of a categorical
    one, of the hashed codes, which says only that shares have moved."""
    mean_after: float
    """Of its newer part."""
    width: int
    """How many values the newer part holds: about so long ago it began."""
    worse: bool
    """The mean of the error rose. A fall is a change too, worth recording, but no reason to release anything; nor is
    a change of an input, which the model may know how to answer."""
    at_count: int
    """Values watched when it was found."""
    detector: Kind

    def evidence(self) -> dict[str, float | int | str | bool | None]:
        """The fields by name, for the record of a decision."""
        return msgspec.structs.asdict(self)


class Kept(msgspec.Struct, kw_only=True):
    """All that a watch knows."""

    made_with: str
    """A state of another detector, delta or river says nothing here: the watch then begins anew."""
    detector: bytes | tuple[float | None, ...]
    count: int
    older_n: int
    older_sum: float
    blocks: list[float]
    open: list[float]


class DriftWatch:
    """Finds changes in a stream of numbers between 0 and 1, such as errors: better or worse.

    Errors are ``|y - p|``, or 1 for a wrong class. Changes of much smaller ones are found late; heavy tails raise
    false alarms (squares of Student's t: 30 in 50,000), so bound what has no bound, as in ``e / (1 + e)``.

    Args:
        delta: chance of a false alarm, as the detector bounds it; lower is later and surer.
        detector: which; ddm takes only 0 and 1.
        watched: what the numbers are; goes into the evidence.
        grain: each number is the mean of so many values; the evidence counts values.

    Raises:
        ValueError: delta is not between 0 and 1.
    """

    def __init__(
        self, delta: float = 0.002, *, detector: Kind = "adwin", watched: str = "error", grain: int = 1
    ) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta is {delta}, wanted a number between 0 and 1")
        self.count = 0
        """Numbers watched; those that are not finite are left out."""
        self._delta, self._kind, self._watched, self._grain = delta, detector, watched, grain
        self._made_with = f"{detector} {delta!r} {grain} river {version('river')}"
        self.restart()

    def restart(self) -> None:
        """Forget the window, as after a change."""
        self._detector = _fresh(self._kind, self._delta, self._grain)
        self._older_n, self._older_sum = 0, 0.0
        self._blocks: deque[float] = deque()
        self._open: list[float] = []

    def add(self, values: ArrayLike) -> Drift | None:
        """Take the values (n,) of a step, in order; returns what changed, or None.

        Several changes within one call are one, the first.
        """
        given = np.asarray(values, np.float64)
        known = given[np.isfinite(given)].tolist()
        found, start = None, 0
        while (end := _first_change(self._detector, known[start:])) is not None:
            self._remember(known[start : start + end])
            found, start = found or self._found(), start + end
            self.restart()
        self._remember(known[start:])
        return found

    def _remember(self, values: list[float]) -> None:
        self.count += len(values)
        self._open += values
        full = len(self._open) // BLOCK * BLOCK
        self._blocks += np.array(self._open[:full]).reshape(-1, BLOCK).sum(axis=1).tolist()
        del self._open[:full]
        while len(self._blocks) * BLOCK * self._grain > NEWEST:
            self._older_n += BLOCK
            self._older_sum += self._blocks.popleft()

    def _found(self) -> Drift:
        """The change, at the likeliest cut of the window."""
        sums = np.array([*self._open[::-1], *reversed(self._blocks)])  # the newest first
        n1 = np.cumsum(np.repeat((1, BLOCK), (len(self._open), len(self._blocks))))
        newer = np.cumsum(sums)
        n, total = self._older_n + int(n1[-1]), self._older_sum + float(newer[-1])
        allowed = (n1 >= min(SHORTEST, n // 2)) & (n - n1 >= min(SHORTEST, n // 2)) & (n1 < n)
        n1, newer = n1[allowed], newer[allowed]
        n0 = n - n1
        m0, m1 = (total - newer) / n0, newer / n1
        cut = int(np.argmax((m1 - m0) ** 2 * n0 * n1))
        return Drift(
            watched=self._watched,
            mean_before=float(m0[cut]),
            mean_after=float(m1[cut]),
            width=int(n1[cut]) * self._grain,
            worse=self._watched == "error" and bool(m1[cut] > m0[cut]),
            at_count=self.count * self._grain,
            detector=self._kind,
        )

    def kept(self) -> Kept:
        """All that it knows; what follows ``keep`` equals never having stopped."""
        return Kept(
            made_with=self._made_with,
            detector=_state(self._detector),
            count=self.count,
            older_n=self._older_n,
            older_sum=self._older_sum,
            blocks=list(self._blocks),
            open=list(self._open),
        )

    def keep(self, kept: Kept) -> None:
        """Go on from ``kept``, if a watch like this one made it; else begin anew."""
        self.count = 0
        self.restart()
        if kept.made_with != self._made_with:
            return
        _restore_(self._detector, kept.detector)
        self.count, self._older_n, self._older_sum = kept.count, kept.older_n, kept.older_sum
        self._blocks.extend(kept.blocks)
        self._open = list(kept.open)

    def state(self) -> Arrays:
        return {"error": _packed(self.kept())}

    def load(self, state: Arrays) -> None:
        """Go on from a ``state``; versions made before the watch was part of them begin it anew."""
        self.count = 0
        self.restart()
        if "error" in state:
            self.keep(msgspec.msgpack.decode(state["error"].tobytes(), type=Kept))


def _packed(kept: object) -> NDArray[np.uint8]:
    """msgpack, in an array as versions hold them: data only, nothing in it is executed."""
    return np.frombuffer(msgspec.msgpack.encode(kept), np.uint8)


# Detectors ----------------------------------------------------------------------------------------


def _fresh(kind: Kind, delta: float, grain: int) -> Any:
    match kind:
        case "adwin":
            return ADWIN(delta=delta, clock=CHECK_EVERY, min_window_length=SHORTEST)  # type: ignore[no-untyped-call]
        case "page_hinkley":
            threshold = -log(delta) / (8.0 * TOLERANCE * grain)
            return PageHinkley(delta=TOLERANCE, threshold=threshold, alpha=1.0)
        case "ddm":
            return DDM(warm_start=WARM, drift_threshold=-NormalDist().inv_cdf(delta))


def _first_change(detector: Any, values: list[float]) -> int | None:
    """How many of the values it took until a change was found; None if all were taken and there is none."""
    if isinstance(detector, ADWIN):  # its own ``update`` takes twice as long to do nothing else
        update = detector._helper.update
        for i, changed in enumerate(map(update, values), start=1):
            if changed:
                return i
        return None
    for i, value in enumerate(values, start=1):
        detector.update(value)
        if detector.drift_detected:
            return i
    return None


# river has no public way to put a detector at rest but pickle, which would execute what a version holds.


def _state(detector: Any) -> bytes | tuple[float | None, ...]:
    if isinstance(detector, ADWIN):
        compiled: bytes = detector._helper.__getstate__()
        return compiled
    mean = _mean(detector)
    return (mean.n, mean._mean, *(getattr(detector, name) for name in _NUMBERS[type(detector)]))


def _restore_(detector: Any, state: bytes | tuple[float | None, ...]) -> None:
    if isinstance(state, bytes):
        detector._helper.__setstate__(state)
        return
    mean = _mean(detector)
    mean.n, mean._mean = state[:2]
    for name, number in zip(_NUMBERS[type(detector)], state[2:], strict=True):
        setattr(detector, name, number)


def _mean(detector: Any) -> Any:
    return detector._p if isinstance(detector, DDM) else detector._x_mean


_NUMBERS: dict[type, tuple[str, ...]] = {
    PageHinkley: ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease"),
    DDM: ("_p_min", "_s_min", "_ps_min"),
}


# Inputs -------------------------------------------------------------------------------------------

GRAIN = 16
"""Values of an input are watched as means of so many: a sixteenth of the cost, for changes that are found up to
some hundred values later."""
AT_ONCE = 256
"""Rows are looked at so many at once, in whatever steps they come: a third of the cost, found up to so many later."""
REFERENCE = 256
"""Known values from which an input's usual place and spread are taken, again after each change."""
REACH = 2.0
"""Deviations at which a value is cut."""
_SPREAD = 3.29
"""Deviations of a normal distribution between its 5th and 95th percentile."""


class KeptInput(msgspec.Struct, kw_only=True):
    """All that the watch of one input knows."""

    name: str
    value: Kept
    missing: Kept
    place: tuple[float, float] | None
    """Centre and deviation; None until REFERENCE values are known."""
    rest: list[float]
    rest_missing: list[float]


class _Input:
    """One input: where its values lie, and how often it is missing."""

    def __init__(self, name: str, delta: float, detector: Kind) -> None:
        self._name = name
        self._value = DriftWatch(delta, detector=detector, watched=name, grain=GRAIN)
        self._missing = DriftWatch(delta, detector=detector, watched=f"{name} missing", grain=GRAIN)
        self._place: tuple[float, float] | None = None  # (centre, deviation)
        self._rest: list[float] = []
        self._rest_missing: list[float] = []

    def add(self, values: NDArray[np.float64]) -> Iterator[Drift]:
        """Changes found with further values (B,); NaN is missing."""
        there = np.isfinite(values)
        if (drift := self._missing.add(_grains_(self._rest_missing, ~there))) is not None:
            yield drift
        if self._place is None:
            self._rest += values[there].tolist()
            if len(self._rest) < REFERENCE:
                return
            values, self._rest = np.array(self._rest), []
            self._place = _place(values[:REFERENCE])
        else:
            values = values[there]
        centre, deviation = self._place
        bounded = np.clip((values - centre) / deviation, -REACH, REACH) / (2.0 * REACH) + 0.5
        if (drift := self._value.add(_grains_(self._rest, bounded))) is not None:
            yield _in_units(drift, centre - REACH * deviation, 2.0 * REACH * deviation)
            self._value.restart()
            self._place, self._rest = None, []

    def kept(self) -> KeptInput:
        return KeptInput(
            name=self._name,
            value=self._value.kept(),
            missing=self._missing.kept(),
            place=self._place,
            rest=list(self._rest),
            rest_missing=list(self._rest_missing),
        )

    def keep(self, kept: KeptInput) -> None:
        self._value.keep(kept.value)
        self._missing.keep(kept.missing)
        self._place, self._rest, self._rest_missing = kept.place, list(kept.rest), list(kept.rest_missing)


class InputWatch:
    """Finds changes in chosen inputs: of where their values lie, and of how often they are missing.

    A value is standardised by the median and the spread (5th to 95th percentile) of REFERENCE values and cut at
    REACH deviations, so that few absurd ones move nothing. Both bounds suppose independence: an input with a
    rhythm (the hour, the weather) changes all the time, truly, and is better not watched.

    Args:
        names: of the inputs, W.
        delta: as for ``DriftWatch``, for each input and each missing rate.
        detector: not ddm, which takes only 0 and 1.
    """

    def __init__(self, names: Sequence[str], delta: float = 0.002, *, detector: Kind = "adwin") -> None:
        self._inputs = {name: _Input(name, delta, detector) for name in names}
        self._waiting = np.zeros((0, len(self._inputs)), np.float32)

    def add(self, values: NDArray[np.float32]) -> list[Drift]:
        """Take the inputs of a step (B, W); NaN is missing. Returns what changed."""
        waiting = np.concatenate([self._waiting, values.astype(np.float32)])
        full = len(waiting) // AT_ONCE * AT_ONCE
        self._waiting, rows = waiting[full:].copy(), waiting[:full].astype(np.float64)
        return [
            drift
            for i in range(0, full, AT_ONCE)
            for column, watched in zip(rows[i : i + AT_ONCE].T, self._inputs.values(), strict=True)
            for drift in watched.add(column)
        ]

    def state(self) -> Arrays:
        kept = [watched.kept() for watched in self._inputs.values()]
        return {"inputs": _packed(kept), "waiting": self._waiting.copy()}

    def load(self, state: Arrays) -> None:
        """Go on from a ``state``; inputs that were not watched then begin anew."""
        if "inputs" not in state:
            return
        found = msgspec.msgpack.decode(state["inputs"].tobytes(), type=list[KeptInput])
        for kept in found:
            if kept.name in self._inputs:
                self._inputs[kept.name].keep(kept)
        if [kept.name for kept in found] == list(self._inputs):
            self._waiting = state["waiting"].astype(np.float32)


def _grains_(rest: list[float], values: NDArray[np.generic]) -> list[float]:
    """Means of GRAIN values each; what is left over stays in ``rest`` for the next time."""
    rest += values.astype(np.float64).tolist()
    full = len(rest) // GRAIN * GRAIN
    means: list[float] = np.array(rest[:full], np.float64).reshape(-1, GRAIN).mean(axis=1).tolist()
    del rest[:full]
    return means


def _place(values: NDArray[np.float64]) -> tuple[float, float]:
    """Centre and deviation; where nine in ten are equal the farthest counts, and of a constant its own size."""
    low, centre, high = (float(q) for q in np.quantile(values, (0.05, 0.5, 0.95)))
    return centre, (high - low) / _SPREAD or float(np.abs(values - centre).max()) / REACH or abs(centre) or 1.0


def _in_units(drift: Drift, zero: float, unit: float) -> Drift:
    """From [0, 1] to the input's own unit."""
    return msgspec.structs.replace(
        drift, mean_before=zero + unit * drift.mean_before, mean_after=zero + unit * drift.mean_after
    )
