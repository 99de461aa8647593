"""What the scaling bench says of many workers follows from what one version costs."""

import pytest

from bench.scaling import MANY, PARTITIONS, Cost, ruled, scaled
from models.spec import read_spec
from tests.streams import ledger_hash

COST = Cost(merge_ms=1.0, copy_ms=1.0, write_ms=2.0, read_back_ms=1.0, bytes=100_000)


def test_a_few_publish_as_often_as_one_and_many_take_turns() -> None:
    spec = read_spec("examples/flights/model.toml")
    rows = {n: scaled(COST, spec, n) for n in MANY}
    assert rows[1].period_s == rows[8].period_s == spec.publish.least_s
    assert rows[1000].period_s == pytest.approx(1000 * 0.005 / 0.5)
    assert all(row.log_use <= 0.5 + 1e-9 for n, row in rows.items() if n > 1)
    periods = [row.period_s for row in rows.values()]
    assert periods == sorted(periods)


def test_the_stationary_streams_ledger_is_that_of_its_labels() -> None:
    values, ledger = ruled(40)
    assert len(values) == sum(count for count, _ in ledger.values()) == 40
    wanted = 0
    for i in range(0, 40, PARTITIONS):
        wanted ^= ledger_hash(f"e{i}", 1.0 if b'"label":1' in values[i] else 0.0)
    assert ledger[0] == (10, wanted)
