"""Many seeds, and every planted bug: seeds -> [processes] -> one summary."""

import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from simulation.patches import installed, quiet
from simulation.planted import PLANTED
from simulation.world import Result, World

CHUNK = 25
"""Seeds between two collections of garbage."""
BUDGET = 400
"""Seeds within which each planted bug must be found."""


class Found(NamedTuple):
    """How a planted bug fared."""

    name: str
    seeds: int
    """Tried."""
    failing: int
    first: str
    """What the first failing seed said; empty if none failed."""


def run_seeds(seeds: Iterable[int]) -> list[Result]:
    """All of them, in this process."""
    quiet()
    with installed():
        return list(_each(seeds))


def _each(seeds: Iterable[int]) -> Iterator[Result]:
    """Without garbage being collected while a seed runs, which takes a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for i, seed in enumerate(seeds, 1):
            yield World(seed).run()
            if i % CHUNK == 0:
                gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()


def find(name: str, most: int = BUDGET, *, enough: int = 1) -> Found:
    """Run seeds with a planted bug until so many have failed."""
    quiet()
    failing, first, seeds = 0, "", 0
    with installed(), PLANTED[name]():
        for result in _each(range(most)):
            seeds += 1
            if result.failure:
                first = first or f"seed {result.seed}: {result.failure}"
                failing += 1
                if failing >= enough:
                    break
    return Found(name, seeds, failing, first)


def pool(processes: int) -> ProcessPoolExecutor:
    """Processes that begin afresh, so that they all begin alike."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
