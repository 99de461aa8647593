"""A small campaign: no seed fails, every planted bug is found, and a seed is the same wherever it runs."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

import pytest

from simulation import campaign
from simulation.faults import Fault
from simulation.patches import installed, quiet
from simulation.planted import PLANTED
from simulation.shrink import shrink
from simulation.world import Result, World

SEEDS = 150


class Campaign(NamedTuple):
    results: "list[Future[list[Result]]]"
    bugs: "dict[str, Future[campaign.Found]]"


@pytest.fixture(scope="module")
def run() -> Iterator[Campaign]:
    with campaign.pool(2) as pool:
        halves = [pool.submit(campaign.run_seeds, range(first, SEEDS, 2)) for first in (0, 1)]
        yield Campaign(halves, {name: pool.submit(campaign.find, name) for name in PLANTED})


def test_no_seed_breaks_the_protocol(run: Campaign) -> None:
    results = [r for half in run.results for r in half.result()]
    assert [f"seed {r.seed}: {r.failure}" for r in results if r.failure] == []
    assert len(results) == SEEDS
    assert all(r.records >= 500 and r.faults >= 3 for r in results)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(run: Campaign, name: str) -> None:
    found = run.bugs[name].result()
    assert found.failing, f"{found.seeds} seeds"


def test_a_seed_is_the_same_in_every_process(run: Campaign) -> None:
    there = {r.seed: r for half in run.results for r in half.result()}
    quiet()
    with installed():
        for seed in (3, 4):
            assert World(seed).run() == there[seed]


def test_a_failing_seed_shrinks() -> None:
    quiet()
    with installed(), PLANTED["done_ids_forgotten"]():
        seed = next(s for s in range(20) if World(s).run().failure)
        small = shrink(seed, "failed")
        again = World(seed, records=small.records, faults=small.faults).run()
    assert again.failure == small.failure != ""
    assert (small.records, len(small.faults)) < (500, 3)


def test_faults_can_be_given() -> None:
    quiet()
    told = list[str]()
    with installed():
        faults = [Fault(1.0, "kill", 0, 0.5)]
        result = World(1, faults=faults, records=50, trace=lambda at_s, who, what: told.append(what)).run()
    assert (result.failure, result.faults, result.records) == ("", 1, 50)
    assert any(text.startswith("kill ") for text in told)
