"""A learner whose state says exactly what it learned: rows -> [ledger] -> a sum that an oracle can work out, too.

Each learned (example, target) adds one 64-bit number to a sum (modulo 2^64); so the state is the same in whatever
order partitions came, and any loss or doubling shows in it.

    B rows
"""

import numpy as np
from numpy.typing import NDArray

from models.learner import Floats, Ints
from models.merging import Fork
from models.snapshot import Arrays
from models.spec import ModelSpec

Sums = NDArray[np.uint64]


def marks(who: Ints, target: Floats) -> Sums:
    """What each row adds (B,): its category's code and its target, mixed by splitmix64 (Steele et al. 2014)."""
    z = who.astype(np.uint64) << np.uint64(32)
    z ^= np.ascontiguousarray(target, np.float32).view(np.uint32)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class LedgerLearner:
    """Follows ``models.learner.Learner``. The first category of a row names its example.

    What it answers follows from what it has learned so far: two workers that say something of the same row, after
    different pasts, say different things.
    """

    learning_rate = 0.003
    half_life_events = 1000.0
    skipped_steps = 0
    share = 1.0

    def __init__(self, spec: ModelSpec) -> None:
        self._sum = np.zeros(2, np.uint64)
        """The sum, and how many."""

    def predict(self, x: Floats, categories: Ints) -> Floats:
        answer = np.float32(int(self._sum[0]) % 9973)
        return np.full((len(x), 1), answer, np.float32)

    def ask(self, x: Floats, categories: Ints) -> tuple[Floats, Floats]:
        said = self.predict(x, categories)
        return said, np.zeros((len(x), 0), np.float32)

    def learn(
        self,
        x: Floats,
        categories: Ints,
        target: Floats,
        weights: Floats | None = None,
        told: Floats | None = None,
    ) -> None:
        added = marks(categories[:, 0], target).sum(dtype=np.uint64)
        self._sum += np.array([added, len(target)], np.uint64)

    def members(self) -> dict[str, float]:
        return {}

    def set_reference(self, theta: Floats | None) -> None:
        assert theta is None

    def reference(self) -> Floats | None:
        return None

    def parameters(self) -> Floats:
        return np.zeros(0, np.float32)

    def set_parameters(self, theta: Floats) -> None:
        assert not len(theta)

    def serving_parameters(self) -> Floats:
        return self.parameters()

    def state(self) -> Arrays:
        return {"sum": self._sum.copy()}

    def merged(self, fork: Fork) -> Arrays:
        theirs, mine, base = (part["sum"].astype(np.uint64) for part in (fork.theirs, fork.mine, fork.base))
        return {"sum": theirs + mine - base}

    def load(self, state: Arrays) -> None:
        self._sum = state["sum"].astype(np.uint64)
