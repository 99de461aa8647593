"""What a soak holds against the service is what a core makes of the same records; growth is seen where it is."""

import msgspec
import pytest

from bench import _load, soak
from bench.ingest import Record
from examples.flights.data import Flight, FlightFeatures, stream
from models import learners
from models.spec import read_spec
from stream_app.learn import Core
from tests.stream_app.heads import head_of, metrics_of

SPEC = read_spec(str(soak.SPEC))
ANGLES = dict.fromkeys(("hour_sin", "hour_cos", "year_sin", "year_cos", "sched_arr_sin", "sched_arr_cos"), 0.5)


def flight(i: int, *, late: int | None) -> Flight:
    origin = ("EWR", "JFK", "LGA")[i % 3]
    features = FlightFeatures(
        distance=100.0 + i, carrier="UA", origin=origin, dest="IAH", hour="5", weekday="2", **ANGLES
    )
    at_s = 1_357_000_000 + 600 * i
    return Flight(f"f{i}-{origin}", at_s, None if late is None else at_s + 7_000, late, features)


PARTS = list(_load.encoded(stream([flight(i, late=(0, 1, None)[i % 5 % 3]) for i in range(60)]), 2))


def core_after(records: int) -> Core:
    core = Core(SPEC, learners.make(SPEC))
    core.start({0: 0, 1: 0})
    offsets = {0: 0, 1: 0}
    for i, (year, part) in enumerate(_load.repeated(PARTS)):
        if i == records:
            break
        core.take(part.partition, [Record(offsets[part.partition], -1, part.value(year))])
        offsets[part.partition] += 1
    return core


def test_a_core_makes_of_three_passes_what_is_owed() -> None:
    records = 3 * len(PARTS) - 7
    core, owed = core_after(records), _load.owed(PARTS, records)
    assert {p: (s.count, s.xor) for p, s in core.partitions.items()} == owed.ledger
    assert core.counts["events"] == owed.features
    assert {name: core.counts[name] for name in ("ignored", "orphans", "dead_letters")} == dict.fromkeys(
        ("ignored", "orphans", "dead_letters"), 0
    )


def test_memory_that_grows_is_told_from_memory_that_does_not() -> None:
    assert soak.growth([100.0 + i % 3 for i in range(100)]) == pytest.approx(0.0, abs=0.02)
    assert soak.growth([100.0 + i for i in range(100)]) > 0.5


def test_lag_that_grows_has_a_slope() -> None:
    seconds = [float(i) for i in range(40)]
    assert soak.slope(seconds, [10.0 * s for s in seconds]) == pytest.approx(10.0)


def test_a_moment_of_lag_is_no_growth() -> None:
    seconds = [float(i) for i in range(40)]
    assert soak.slope(seconds, [1e6 if 3 < s < 9 else 100.0 + s % 2 for s in seconds]) == pytest.approx(0.0, abs=0.1)


def test_what_a_version_lacks_is_lost_and_an_xor_shows_what_counts_do_not() -> None:
    sent = _load.Sent(records=14, features=8, ledger={0: (4, 77), 1: (2, 9)})
    whole = head_of(metrics=metrics_of(events=8), ledger={0: (4, 77), 1: (2, 9)})
    assert soak.lost(sent, whole) == 0
    assert soak.lost(sent, msgspec.structs.replace(whole, ledger={0: (4, 78), 1: (2, 9)})) == 1
    fewer = msgspec.structs.replace(whole, metrics=metrics_of(events=7), ledger={0: (3, 1), 1: (2, 9)})
    assert soak.lost(sent, fewer) == 3
