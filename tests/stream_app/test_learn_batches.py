"""Records of many rows: each takes effect whole, and what is learned does not depend on how rows were packed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from stream_app import versions
from stream_app.codecs.batch import Batch, coded, pack
from stream_app.columns import split
from stream_app.events import CONTENT_TYPE, ContentType
from stream_app.learn import Core
from stream_app.registry import Registry
from tests.stream_app.test_learn import (
    BATCH,
    core_of,
    fingerprint,
    play,
    records_of,
    resumed,
    said_of,
    spec_of,
    stopped,
    stream,
)


class Sent(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


def packed(offset: int, examples: Sequence[dict[str, Any]]) -> Sent:
    """One record of many examples."""

    def numbers(name: str) -> Any:
        return np.array([np.nan if e.get(name) is None else e[name] for e in examples], np.float64)

    given = [e.get("features") or {} for e in examples]
    batch = Batch(
        ids=[e["id"] for e in examples],
        time_s=numbers("time"),
        numeric={n: np.array([np.nan if g.get(n) is None else g[n] for g in given], np.float64) for n in "ab"},
        categorical={"c": coded([g.get("c") for g in given])},
        classes=coded([e.get("label") for e in examples]),
        values=None,
        label_time_s=numbers("label_time"),
        weight=None,
    )
    header = (CONTENT_TYPE, str(ContentType.BATCH).encode())
    return Sent(offset, -1, pack(batch), [header])


def examples_of(seed: int = 0, length: int = 240) -> list[dict[str, Any]]:
    """The good ones of the core's own test stream."""
    found = [json.loads(r.value) for r in stream("binary", seed, length) if r.value and len(r.value) > 12]
    return [e for e in found if "time" in e or "label" in e]


def batches_of(examples: Sequence[dict[str, Any]], size: int) -> list[Sent]:
    return [packed(i, examples[at : at + size]) for i, at in enumerate(range(0, len(examples), size))]


def test_rows_of_a_record_make_the_steps_that_records_of_one_row_make() -> None:
    """Packed by a multiple of the step, nothing differs but what offsets are called."""
    examples = examples_of()
    single, many = core_of(spec_of()), core_of(spec_of())
    said = said_of(play(single, records_of(examples)))
    told = said_of([many.take(0, [record]) for record in batches_of(examples, 4 * BATCH)])
    assert [s.scores.tolist() for s in told.values()] == [s.scores.tolist() for s in said.values()]
    assert many.learner.parameters().tobytes() == single.learner.parameters().tobytes()
    assert many.partitions[0].xor == single.partitions[0].xor
    assert many.metrics() == pytest.approx(single.metrics(), nan_ok=True)


def test_ledger_and_rates_are_the_same_however_rows_are_packed() -> None:
    examples, ledgers, rates = examples_of(1), set(), []
    for size in (1, 3, 50, 1000):
        core = core_of(spec_of())
        play(core, batches_of(examples, size))  # type: ignore[arg-type]
        ledgers.add(str(versions.snapshot(core).ledger))
        rates.append(core.encoder.rates.s)
    assert len(ledgers) == 1
    assert all((r == rates[0]).all() for r in rates)


def test_a_record_is_cut_at_multiples_within_itself_and_ends_a_step() -> None:
    example = {"time": 1.0, "features": {}, "label": 1, "label_time": 1.0}
    rows = [{"id": f"e{i}", **example} for i in range(2 * BATCH + 8)]
    records = [*records_of([rows[0]]), packed(1, rows[1 : BATCH + 4]), packed(2, rows[BATCH + 4 :])]
    (out,) = [core_of(spec_of()).take(0, records, more=True)]
    assert [len(step.target) for step in out.steps] == [1, BATCH, 3, BATCH, 4]
    assert [split(p) for p in np.concatenate([b.positions for b in out.predictions]).tolist()][:3] == [
        (0, 0),
        (1, 0),
        (1, 1),
    ]


def test_stopping_between_batches_leaves_no_trace(tmp_path: Path) -> None:
    spec, registry = spec_of(), Registry(str(tmp_path))
    records = batches_of(examples_of(2), 7)
    steady, core = core_of(spec), core_of(spec)
    said = said_of(play(steady, records))  # type: ignore[arg-type]
    found: dict[int, Any] = {}
    for record in records:
        found |= said_of([core.take(0, [record])])
        core = resumed(spec, *stopped(core, registry), records, found)  # type: ignore[arg-type]
    assert fingerprint(core) == fingerprint(steady)
    assert repr(found) == repr(said)


def test_a_bad_row_of_a_batch_is_set_aside_alone() -> None:
    rows = [{"id": f"e{i}", "time": 1.0, "features": {"a": 1.0}, "label": 1, "label_time": 1.0} for i in range(5)]
    rows[3]["label"] = 7
    core: Core = core_of(spec_of())
    out = core.take(0, [packed(0, rows)])
    assert [(b.offset, b.row) for b in out.bad] == [(0, 3)]
    assert (core.counts["learned"], core.counts["dead_letters"], core.partitions[0].next_offset) == (4, 1, 1)
