"""Which settings to try next: space -> [ask] -> replay -> [tell] -> best.

Ask and tell are apart, so whoever replays may do several at once, in any order, or give one up.
"""

from collections.abc import Mapping
from math import exp, isfinite, log
from random import Random
from typing import Protocol

Candidate = dict[str, float]
"""A value for every name of the space."""


class Search(Protocol):
    """Random below; a grid, Bayesian, swarm or genetic search has the same three."""

    def ask(self) -> Candidate:
        """What to try next; the first is always what is in use now."""
        ...

    def tell(self, candidate: Candidate, loss: float) -> None:
        """What came of it; a loss that is not finite has lost."""
        ...

    @property
    def best(self) -> tuple[Candidate, float]:
        """Lowest loss so far, the earliest told of equals; at first what is in use and infinity."""
        ...


class RandomSearch:
    """Each value log-uniform in its range, independently of what was told.

    Args:
        space: name -> (low, high), both above 0.
        seed: same seed, same candidates, on every machine with the same C library.
        incumbent: what is in use now, asked first; it may lie outside the ranges.

    Raises:
        ValueError: a range is not 0 < low <= high, or the incumbent has other names than the space.
    """

    def __init__(self, space: Mapping[str, tuple[float, float]], seed: int, *, incumbent: Mapping[str, float]) -> None:
        for name, (low, high) in space.items():
            if not (0.0 < low <= high and isfinite(high)):
                raise ValueError(f"range of {name} is ({low}, {high}), wanted 0 < low <= high")
        self._space = dict(space)
        self._rng = Random(seed)
        self._check(incumbent)
        self._first: Candidate | None = dict(incumbent)
        self._best = (dict(incumbent), float("inf"))

    def ask(self) -> Candidate:
        """The incumbent, then random ones without end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return {name: self._drawn(low, high) for name, (low, high) in self._space.items()}

    def _drawn(self, low: float, high: float) -> float:
        value = exp(self._rng.uniform(log(low), log(high)))
        return min(max(value, low), high)  # exp(log(x)) may miss x by a rounding

    def tell(self, candidate: Mapping[str, float], loss: float) -> None:
        """Remember it if it is better than all before.

        Raises:
            ValueError: the candidate has other names than the space.
        """
        self._check(candidate)
        if isfinite(loss) and loss < self._best[1]:
            self._best = (dict(candidate), loss)

    def _check(self, candidate: Mapping[str, float]) -> None:
        if candidate.keys() != self._space.keys():
            got, wanted = sorted(candidate), sorted(self._space)
            raise ValueError(f"candidate has {got}, wanted {wanted}")

    @property
    def best(self) -> tuple[Candidate, float]:
        """Lowest loss so far, the earliest told of equals; at first the incumbent and infinity."""
        candidate, loss = self._best
        return dict(candidate), loss
