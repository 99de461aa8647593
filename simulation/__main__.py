"""Deterministic simulation of worker, versions log, registry and join: ``python -m simulation``; the last line is JSON.

python -m simulation [--seeds 10000] [--first 0]      everything, and every planted bug
python -m simulation --seed 17 --trace                one seed, step by step
python -m simulation --planted NAME --seeds 200       in how many seeds a planted bug bites
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

from simulation import campaign
from simulation.patches import installed, loud, quiet
from simulation.planted import PLANTED
from simulation.shrink import shrink
from simulation.world import Result, World

SHOWN = 5
"""Failing seeds that are shrunk and shown."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000, metavar="N", help="how many")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first of them")
    parser.add_argument("--seed", type=int, metavar="N", help="this one only")
    parser.add_argument("--trace", action="store_true", help="with --seed: say what happens")
    parser.add_argument("--planted", choices=sorted(PLANTED), metavar="NAME", help="with this bug in the product")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    given = parser.parse_args()
    if given.seed is not None:
        return _one(given.seed, given.planted, trace=given.trace)
    if given.planted:
        print(json.dumps(campaign.find(given.planted, given.seeds, enough=given.seeds)._asdict()))
        return 0
    return _all(given.first, given.seeds, given.processes)


def _one(seed: int, planted: str | None, *, trace: bool) -> int:
    quiet()
    with installed():
        if trace:
            loud()
        if planted:
            with PLANTED[planted]():
                return _traced(seed, trace=trace)
        return _traced(seed, trace=trace)


def _traced(seed: int, *, trace: bool) -> int:
    found = World(seed, trace=_say if trace else None).run()
    print(json.dumps(found._asdict()))
    if found.failure and not trace:
        _show(found)
    return 1 if found.failure else 0


def _say(at_s: float, who: str, what: str) -> None:
    print(f"{at_s:9.3f}  {who:12}  {what}")


def _show(result: Result) -> None:
    """A failing seed, as small as it gets."""
    print(f"seed {result.seed}: {result.failure}")
    small = shrink(result.seed, result.failure)
    print(f"  with {small.records} records and {len(small.faults)} faults: {small.failure}")
    for fault in small.faults:
        print(f"    {fault.at_s:7.3f}  {fault.kind}  node {fault.node}  {fault.value:.3f}  {fault.point}")
    sys.stdout.flush()


def _all(first: int, seeds: int, processes: int) -> int:
    began_s = time.monotonic()
    step = max(1, min(250, seeds // processes))
    chunks = [range(at, min(at + step, first + seeds)) for at in range(first, first + seeds, step)]
    with campaign.pool(processes) as pool:
        planted = [pool.submit(campaign.find, name) for name in PLANTED]
        results = [r for found in pool.map(campaign.run_seeds, chunks) for r in found]
        bugs = [p.result() for p in planted]
    seconds = time.monotonic() - began_s
    failed = [r for r in results if r.failure]
    with installed():
        quiet()
        for result in failed[:SHOWN]:
            _show(result)
    for bug in bugs:
        print(f"planted {bug.name}: " + (bug.first if bug.failing else f"NOT FOUND in {bug.seeds} seeds"))
    found = sum(bug.failing > 0 for bug in bugs)
    print(json.dumps(_summary(results, len(failed), (len(bugs), found), seconds)))
    return 1 if failed or found < len(bugs) else 0


def _summary(results: Sequence[Result], failures: int, planted: tuple[int, int], seconds: float) -> dict[str, object]:
    return {
        "seeds": len(results),
        "events": sum(r.records for r in results),
        "faults": sum(r.faults for r in results),
        "versions": sum(r.versions for r in results),
        "failures": failures,
        "failed": [r.seed for r in results if r.failure][:50],
        "planted": planted[0],
        "planted_found": planted[1],
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
