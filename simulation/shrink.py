"""A failing seed with fewer faults and fewer records, as long as it fails: [shrink] -> what a person can read."""

from typing import NamedTuple

from simulation.faults import Fault
from simulation.world import RECORDS, World

TRIES = 60


class Shrunk(NamedTuple):
    records: int
    faults: list[Fault]
    failure: str


def shrink(seed: int, failure: str) -> Shrunk:
    """Leave out one thing after another, and keep each smaller plan that still fails, in whatever way."""
    found = Shrunk(RECORDS, World(seed).faults, failure)
    tries, again = 0, True
    while again and tries < TRIES:
        again = False
        for smaller in _smaller(found):
            tries += 1
            failure = World(seed, records=smaller.records, faults=smaller.faults).run().failure
            if failure:
                found, again = smaller._replace(failure=failure), True
                break
            if tries >= TRIES:
                break
    return found


def _smaller(plan: Shrunk) -> list[Shrunk]:
    fewer = [plan._replace(records=n) for n in (plan.records // 4, plan.records // 2) if n]
    faults = plan.faults
    return fewer + [plan._replace(faults=faults[:i] + faults[i + 1 :]) for i in range(len(faults))]
