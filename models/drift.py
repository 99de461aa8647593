"""The stream stops being what the model learned: error -> [watch] -> release the pull, tune.

    n0, m0    older part of the window: how many errors, their mean
    n1, m1    newer part
    n         n0 + n1, the window

ADWIN (Bifet and Gavalda 2007) keeps as many of the newest errors as look alike. When the means of
two parts differ by more than chance allows, it drops old errors until the rest looks alike again: a
change. What is left then is often under 100 errors, too few to tell rise from fall when the change
is small; so it is measured anew, at the likeliest cut of the window: argmax (m1 - m0)^2 n0 n1 / n.

Errors come one by one, not as means of steps. One costs 0.6 us (river's ADWIN is compiled), and
after 20,000 errors with mean 0.2 a rise to 0.4 is found after 160 more, to 0.3 after 450; fed with
means of 128 errors, the first after 8,700, the second not after 20,000.
"""

from collections import deque
from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgspec
import numpy as np
from river.drift import ADWIN

CHECK_EVERY = 32
"""Errors between two checks."""
SHORTEST = 5
"""Errors that a part must have."""
NEWEST = 4_096
"""Errors remembered to find the cut in; one further back is put here."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the error's mean."""

    at_count: int
    """Errors seen when it was found."""
    mean_before: float
    """Of the window's older part."""
    mean_after: float
    """Of its newer part."""
    width: int
    """How many errors the newer part holds: about so long ago it began."""
    worse: bool
    """The mean rose. A fall is a change too, worth recording, but no reason to release anything."""

    def evidence(self) -> dict[str, float | int | str | bool | None]:
        """The fields by name, for the record of a decision."""
        return msgspec.structs.asdict(self)


class DriftWatch:
    """Finds changes in a stream of errors, better or worse.

    Errors should lie between 0 and 1, such as ``|y - p|``, or 1 for a wrong class: ADWIN's bound
    assumes it. Changes of much smaller ones are found late; heavy tails raise false alarms (squares
    of Student's t: 30 in 50,000), so bound what has no bound, as in ``e / (1 + e)``.

    Args:
        delta: chance of a false alarm, as ADWIN bounds it; lower is later and surer.

    Raises:
        ValueError: delta is not between 0 and 1.
    """

    def __init__(self, delta: float = 0.002) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta is {delta}, wanted a number between 0 and 1")
        self.count = 0
        """Errors seen; those that are not finite are left out."""
        self._adwin: Any = ADWIN(  # type: ignore[no-untyped-call]
            delta=delta, clock=CHECK_EVERY, min_window_length=SHORTEST
        )
        self._newest: deque[float] = deque(maxlen=NEWEST)

    def add(self, errors: Sequence[float]) -> Drift | None:
        """Take the errors of a step, in order; returns what changed, or None.

        Several changes within one call are one, found where the first was.
        """
        adwin, found_at = self._adwin, 0
        known = [float(error) for error in errors if isfinite(error)]
        total, width = adwin.total + sum(known), int(adwin.width) + len(known)
        for i, error in enumerate(known, start=1):
            adwin.update(error)
            if adwin.drift_detected and not found_at:
                found_at = self.count + i
        self.count += len(known)
        self._newest.extend(known)
        return self._cut(found_at, total, width) if found_at else None

    def _cut(self, at_count: int, total: float, width: int) -> Drift:
        """The likeliest cut of the window as it was before anything was dropped."""
        newer = np.cumsum(list(self._newest)[::-1])[SHORTEST - 1 : width - SHORTEST]
        n1 = SHORTEST + np.arange(len(newer))
        n0 = width - n1
        m0, m1 = (total - newer) / n0, newer / n1
        cut = int(np.argmax((m1 - m0) ** 2 * n0 * n1))
        return Drift(
            at_count=at_count,
            mean_before=float(m0[cut]),
            mean_after=float(m1[cut]),
            width=int(n1[cut]),
            worse=bool(m1[cut] > m0[cut]),
        )
