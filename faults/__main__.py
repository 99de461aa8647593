"""Everything that can go wrong, many times over: seeds -> [faults] -> lost, duplicated, stuck, differing: 0.

    python -m faults                    200 runs; with KAFKA_HOME set, 90 of them on Apache Kafka
    python -m faults --seed 17          that run alone, with what happened in it
    python -m faults --runs 20 --first 100 --at-once 4

Every run is drawn from its seed (faults/scenario.py). docs/faults.md says which faults there are. The last line is one
JSON object; the exit code is 1 if anything was lost, learned twice, or stuck, or if a version, learned again from the
topics, is not the same to the bit.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

from faults import plain
from faults.nursery import warm
from faults.run import Outcome, run
from faults.scenario import Scenario, scenario
from stream_app.broker import die_with_parent
from tests.broker.apache_kafka import ApacheKafka

RUNS, AT_ONCE, PLAIN_RUNS = 200, 8, 3
WRONG = ("lost", "duplicated", "stuck", "differing")


def main() -> int:
    """Run the suite; 1 if it found something."""
    options = _parser().parse_args()
    home, began_s = os.environ.get("KAFKA_HOME"), time.monotonic()
    seeds = options.seed or range(options.first, options.first + options.runs)
    plain_runs = 0 if options.seed else options.plain
    scenarios = [scenario(seed, kafka=bool(home)) for seed in seeds]
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=options.folder))
    warm({s.learner for s in scenarios})
    with ExitStack() as stack:
        servers = ""
        if home and (plain_runs or any(s.broker == "kafka" for s in scenarios)):
            kafka = ApacheKafka(Path(home).resolve(), folder / "kafka", heap_mb=1024)
            servers = stack.enter_context(kafka).bootstrap_servers
        pool = stack.enter_context(_pool(options.at_once))
        plains = [plain.plain_scenario(seed, kafka=bool(home)) for seed in range(plain_runs)]
        ordinary = [pool.submit(plain.run, s, servers, folder / f"plain-{s.seed}") for s in plains]
        outcomes = list(_all(pool, scenarios, servers, folder))
        counted = [future.result() for future in ordinary]
    found = summary(outcomes) | {
        "plain_faust": {
            "runs": len(counted),
            "lost": sum(c.lost for c in counted),
            "duplicated": sum(c.duplicated for c in counted),
        },
        "seconds": round(time.monotonic() - began_s, 1),
    }
    wrong = any(found[what] for what in WRONG)
    if wrong:
        print(f"what those runs left is in {folder}")
    else:
        rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return int(wrong)


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """All runs in one."""
    fired: Counter[str] = Counter()
    for outcome in outcomes:
        fired.update(outcome.fired)
    return {
        "scenarios": len({o.said.partition(": ")[2] for o in outcomes}),
        "runs": len(outcomes),
        "kafka_runs": sum(o.kafka for o in outcomes),
        "records": sum(o.records for o in outcomes),
        "faults_fired": dict(sorted(fired.items())),
        "lost": sum(o.lost for o in outcomes),
        "duplicated": sum(o.duplicated for o in outcomes),
        "stuck": sum(o.stuck for o in outcomes),
        "learned_again": sum(o.same for o in outcomes),
        "differing": sum(o.differing for o in outcomes),
    }


def _pool(at_once: int) -> ProcessPoolExecutor:
    """Each run in a process of its own, so many at a time."""
    return ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), initializer=die_with_parent)


def _all(pool: Executor, scenarios: Sequence[Scenario], servers: str, folder: Path) -> Iterable[Outcome]:
    """The outcome of each run as it comes, printed."""
    running = [pool.submit(run, s, servers, folder / f"seed-{s.seed}") for s in scenarios]
    for done in as_completed(running):
        outcome = done.result()
        print(_line(outcome), flush=True)
        yield outcome


def _line(outcome: Outcome) -> str:
    """For people; what went wrong, with the way to have it again."""
    did = ", ".join(f"{kind} {n}" for kind, n in sorted(outcome.fired.items()))
    said = f"{outcome.said} -> {outcome.records} records, {outcome.versions} versions, {outcome.seconds:.0f} s ({did})"
    if outcome.good:
        return f"ok    {said}"
    found = ", ".join(f"{what} {getattr(outcome, what)}" for what in WRONG)
    return f"WRONG {said}\n  {found}; again: python -m faults --seed {outcome.seed}\n  " + "\n  ".join(outcome.notes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, action="append", help="this run only (or these)")
    parser.add_argument("--runs", type=int, default=RUNS, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first run (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="how many at a time (default: %(default)s)")
    parser.add_argument(
        "--plain", type=int, default=PLAIN_RUNS, help="runs of an ordinary Faust app (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where runs keep their files; those that went wrong stay (default: the system's)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
