"""The fault suite: its seeds cover every kind, its oracle sees, and a few of its runs find nothing."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from faults.load import POISON_HEADER, columnar, records, rows_of
from faults.oracle import reference
from faults.scenario import BROKER_KINDS, WORKER_KINDS, scenario
from tests.streams import ledger_hash

QUICK = (23, 29, 31, 33)
"""Seeds of runs with rollbacks, a torn artefact, a full disk, deaths within a merge and within a version."""


def test_a_seed_is_a_scenario() -> None:
    assert scenario(7, kafka=True) == scenario(7, kafka=True)
    assert len({str(scenario(seed, kafka=True)) for seed in range(200)}) == 200
    assert list(islice(records(scenario(7, kafka=True)), 3000)) == list(islice(records(scenario(7, kafka=True)), 3000))


def test_two_hundred_seeds_cover_every_fault_on_both_brokers() -> None:
    scenarios = [scenario(seed, kafka=True) for seed in range(200)]
    brokers = Counter(s.broker for s in scenarios)
    assert brokers["kafka"] + brokers["own kafka"] >= 60
    assert 8 <= brokers["own kafka"] <= 16
    for broker, kinds in (
        ("kafka", (*WORKER_KINDS, "die at merged")),
        ("embedded", WORKER_KINDS),
        ("own kafka", BROKER_KINDS),
    ):
        seen = {fault.kind for s in scenarios if s.broker == broker for fault in s.faults}
        assert set(kinds) <= seen, broker


def test_without_kafka_no_run_wants_a_broker_that_finds_its_log_again() -> None:
    kinds = {(s.broker, f.kind) for s in (scenario(seed, kafka=False) for seed in range(200)) for f in s.faults}
    assert {broker for broker, _ in kinds} == {"embedded", "own embedded"}
    assert not {kind for _, kind in kinds} & {"kill broker", "restart broker"}


def record(offset: int, poison: bool = False, **said: Any) -> SimpleNamespace:
    headers = [(POISON_HEADER, b"")] if poison else []
    return SimpleNamespace(offset=offset, headers=headers, value=json.dumps(said).encode())


def test_the_reference_counts_first_features_and_first_labels_within_the_wait() -> None:
    found = reference(
        [
            record(0, id="a", time=0, features={}),
            record(1, id="a", label=1, label_time=500),
            record(2, id="a", label=0, label_time=500),
            record(3, id="b", label=0, label_time=10),
            record(4, id="b", time=9, features={}),
            record(5, id="b", time=10, features={}),
            record(6, id="late", time=0, features={}),
            record(7, id="late", label=1, label_time=501),
            record(9, poison=True),
            record(10, id="never", time=0, features={}, other=1),
        ]
    )
    assert (found.pairs, found.xor) == (2, ledger_hash("a", 1.0) ^ ledger_hash("b", 0.0))
    assert (found.events, found.asked, found.poison) == (5, ((0, 0), (4, 0), (6, 0), (10, 0)), (9,))


def test_a_few_runs_lose_nothing_and_double_nothing() -> None:
    seeds = [flag for seed in QUICK for flag in ("--seed", str(seed))]
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_HOME"}
    argv = [sys.executable, "-m", "faults", *seeds, "--at-once", str(len(QUICK))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["runs"], found["kafka_runs"], found["lost"], found["duplicated"], found["stuck"]) == (4, 0, 0, 0, 0)
    assert sum(found["faults_fired"].values()) >= len(QUICK)


@pytest.mark.parametrize("kind", ["early", "late", "duplicates", "poison"])
def test_what_is_wrong_in_a_stream_is_in_it(kind: str) -> None:
    wanted = next(s for seed in range(200) if getattr(s := scenario(seed, kafka=False), kind))
    found, without = (reference(_logged(s, 6_000)) for s in (wanted, wanted._replace(**{kind: 0.0})))
    assert found != without
    assert found.pairs > 1_000


def _logged(wanted: Any, count: int) -> list[SimpleNamespace]:
    """One partition's log."""
    return [
        SimpleNamespace(offset=i, headers=r.headers, value=r.value)
        for i, r in enumerate(islice(records(wanted), count))
    ]


def test_a_columnar_record_says_what_its_rows_would_have_said_alone() -> None:
    wanted = scenario(0, kafka=False)._replace(columnar=0.0, poison=0.0)
    alone = list(islice(records(wanted), 1_000, 1_040))
    said = [json.loads(r.value) for r in alone]
    together = columnar(alone)
    for one in said:
        del one["key"]
        if "features" in one:
            one["features"] = {}
    assert rows_of(together.value) == said


def test_columnar_records_are_among_the_others() -> None:
    wanted = next(s for seed in range(200) if (s := scenario(seed, kafka=False)).columnar)
    found = reference(_logged(wanted, 6_000))
    assert any(row for _, row in found.asked)
    assert found.pairs > 2_000
