"""What was an optimum may be one again: error rises -> reference released -> [pool] -> recalled when it fits again.

    theta     the model's parameters          theta_i   reference i of the pool, each (P,)
    d_i       nats that a labelled example costs theta more than it would cost theta_i, cut to [-CUT, CUT];
              of a squared error e: e / 2 v, v the step's mean of theta's own, as if errors were normal
    S_i       evidence for theta_i in nats: S_i <- max(0, S_i + d_i - SLACK), example by example

A drift releases the reference, since a stale one is a bias; it goes into the pool. From then on every step
asks, before it learns, what each of the pool would have said. For log-loss d_i is a log-likelihood ratio and
S_i Page's cumulative sum (Biometrika 41, 1954), the test that finds a change soonest for its false alarms.
The first S_i beyond EVIDENCE recalls theta_i: parameters and reference become it. Without a drift the pool is
empty and costs nothing; with K in it, a step predicts K + 1 times more.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.learner import Floats, Ints
from models.measure import Task, row_losses
from models.scaler import TINIEST
from models.snapshot import Arrays

Doubles = NDArray[np.float64]

CUT = 1.0
"""Nats one example may speak for or against: a single sure mistake proves nothing."""
SLACK = 0.05
"""Nats per example by which a past optimum must be better to count as better."""
EVIDENCE = 16.0
"""Nats that recall: at least 17 examples; about 60 where it is better by 0.3 each."""


class Recall(NamedTuple):
    """What to go back to, and why."""

    theta: Floats
    """(P,)"""
    nats: float
    """Its evidence."""
    left: int
    """How many stay in the pool."""

    def evidence(self) -> dict[str, float | int | str | bool | None]:
        """For the record of a decision."""
        return {"nats": self.nats, "left": self.left}


class Predictor(Protocol):
    """What is needed of a learner (models.learner) to try past parameters on."""

    def predict(self, x: Floats, categories: Ints) -> Floats: ...
    def parameters(self) -> Floats: ...
    def set_parameters(self, theta: Floats) -> None: ...


class References:
    """At most ``most`` released references, oldest first.

    Args:
        task: says what an example costs.
        most: the oldest beyond so many are forgotten; 0 keeps none.
    """

    def __init__(self, task: Task, most: int) -> None:
        self._task, self._most = task, most
        self._pool: list[Floats] = []
        self._evidence = np.zeros(0)

    def __len__(self) -> int:
        return len(self._pool)

    def keep(self, theta: Floats) -> None:
        """Take a released reference (P,) in; it is copied."""
        pool = [*self._pool, theta.copy()]
        self._pool = pool[max(0, len(pool) - self._most) :]
        self._evidence = np.append(self._evidence, 0.0)[len(self._evidence) + 1 - len(self._pool) :]

    def recall(self, learner: Predictor, x: Floats, categories: Ints, target: Floats) -> Recall | None:
        """Weigh the pool against ``learner`` on a step not learned yet; what to go back to, or None.

        What is recalled leaves the pool. The learner is left as it was.
        """
        if not self._pool:
            return None
        for i, gains in enumerate(self._gains(learner, x, categories, target)):
            self._evidence[i] = _cumulated(self._evidence[i], gains - SLACK)
        best = int(np.argmax(self._evidence))
        if self._evidence[best] <= EVIDENCE:
            return None
        found = Recall(self._pool.pop(best), nats=float(self._evidence[best]), left=len(self._pool))
        self._evidence = np.zeros(len(self._pool))  # it spoke about parameters that are gone now
        return found

    def _gains(self, learner: Predictor, x: Floats, categories: Ints, target: Floats) -> Iterator[Doubles]:
        """d_i (B,) of each in the pool."""
        theta = learner.parameters()
        ours = row_losses(self._task, learner.predict(x, categories), target)
        unit = max(2.0 * float(ours.mean()), TINIEST) if self._task == "regression" else 1.0
        for past in self._pool:
            learner.set_parameters(past)
            theirs = row_losses(self._task, learner.predict(x, categories), target)
            learner.set_parameters(theta)
            with np.errstate(invalid="ignore"):  # infinite errors of both speak for neither
                gains = np.clip((ours - theirs) / unit, -CUT, CUT)
            yield np.nan_to_num(gains, nan=0.0)

    def state(self) -> Arrays:
        """Pool (K, P) and evidence (K,), copied; nothing if the pool is empty."""
        return {"pool": np.stack(self._pool), "evidence": self._evidence.copy()} if self._pool else {}

    def load(self, state: Arrays) -> None:
        """Back to a state; a pool larger than ``most`` loses its oldest."""
        pool = list(state["pool"]) if "pool" in state else []
        first = max(0, len(pool) - self._most)
        self._pool = [theta.astype(np.float32) for theta in pool[first:]]
        self._evidence = state["evidence"].astype(np.float64)[first:] if pool else np.zeros(0)


def _cumulated(start: float, gains: Doubles) -> float:
    """max(0, S + gain), one after the other; closed form: the sum above its lowest point."""
    path = start + np.cumsum(gains)  # (B,)
    return float(path[-1] - min(0.0, path.min()))
