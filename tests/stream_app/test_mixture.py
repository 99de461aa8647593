"""The mixture through the service: learned by a worker, written, announced, followed, answered, tuned, stopped."""

import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models import learners
from models.snapshot import pack, unpack
from models.spec import Learner, ModelSpec
from stream_app import artefacts, live, metrics, tune
from stream_app.learn import Core
from stream_app.modellog import Envelope
from stream_app.registry import Registry
from tests import streams
from tests.line import Line
from tests.stream_app import test_tasks
from tests.stream_app.heads import status_of
from tests.stream_app.servers import number, serving
from tests.stream_app.test_learn import TASKS, Record, play, records_of, said_of, spec_of, stopped, stream
from tests.stream_app.test_tune import EVERY_LABELS, EXAMPLES, decisions, drive
from tests.stream_app.test_tune import Tuning as Running
from tests.stream_app.versions import until

FAST = Learner(kind="mixture", tier="fast", batch_records=8)
ROWS: list[dict[str, Any]] = [{"a": 1.0, "c": "p"}, {"a": -4.0, "b": 1e6, "c": 7}, {}]


def mixture_spec(task: str = "binary", **changes: Any) -> ModelSpec:
    return spec_of(task, learner=FAST, **changes)


def mixture_core(spec: ModelSpec) -> Core:
    core = Core(spec, learners.make(spec))
    core.start({0: 0})
    return core


def answers_of(core: Core, time_s: float) -> np.ndarray:
    """What the worker's own learner says of ROWS."""
    raw = core.encoder.raw_of(ROWS)
    dense = core.encoder.dense(raw, np.full(len(ROWS), time_s))
    return core.learner.predict(core.encoder.standardise(dense), raw.categories)


# Versions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_version_answers_what_the_workers_learner_answers_to_the_last_bit(task: str, tmp_path: Path) -> None:
    core = mixture_core(mixture_spec(task))
    play(core, stream(task))
    envelope, data = stopped(core, Registry(str(tmp_path)))
    assert artefacts.SERVING not in unpack(data)[0]
    assert envelope.members == core.learner.members()
    assert sum(envelope.members.values()) == pytest.approx(1.0)
    model = live.prepare(data, envelope)
    assert model.predict(ROWS, [2000.0] * 3).tobytes() == answers_of(core, 2000.0).tobytes()
    assert model.variant == "fp32"


def test_a_version_is_written_before_the_first_row_too(tmp_path: Path) -> None:
    envelope, data = stopped(mixture_core(mixture_spec()), Registry(str(tmp_path)))
    model = live.prepare(data, envelope)
    assert model.prior_only
    assert model.predict(ROWS).tolist() == [[0.5]] * 3


def test_answering_loads_neither_torch_nor_faust_nor_river(tmp_path: Path) -> None:
    core = mixture_core(mixture_spec())
    play(core, stream("binary"))
    envelope, data = stopped(core, Registry(str(tmp_path)))
    (tmp_path / "version").write_bytes(data)
    (tmp_path / "envelope").write_bytes(msgspec.msgpack.encode(envelope))
    code = """
import sys, pathlib, msgspec, stream_app.serve
from stream_app import live, modellog
data, envelope = (pathlib.Path(path).read_bytes() for path in sys.argv[1:])
assert "numba" not in sys.modules
model = live.prepare(data, msgspec.msgpack.decode(envelope, type=modellog.Envelope))
model.predict([{"a": 1.0, "c": "p"}])
print(*sorted(sys.modules.keys() & {"torch", "faust", "river", "numba"}))
"""
    paths = (str(tmp_path / "version"), str(tmp_path / "envelope"))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "numba"


# Stops --------------------------------------------------------------------------------------------------


def resumed(spec: ModelSpec, stop: tuple[Envelope, bytes], records: tuple[Record, ...], said: Any) -> Core:
    envelope, data = stop
    core = Core(spec, learners.make(spec))
    core.load(unpack(data)[0], envelope)
    core.rebuild(0, [records[envelope.replay_from[0][0] : envelope.offsets[0]]], said)
    return core


def ledger_of(core: Core) -> list[tuple[int, int]]:
    return [(p.count, p.xor) for p in core.partitions.values()]


def late(task: str) -> tuple[ModelSpec, tuple[Record, ...]]:
    """A stream whose labels come up to a minute or two after their examples."""
    if task == "binary":
        return streams.spec("t", learner=streams.MIXTURE), tuple(records_of(streams.records(400)))
    return test_tasks.spec_of(task, learner=FAST), test_tasks.records(task)[:700]


@pytest.mark.parametrize("task", TASKS)
def test_after_a_stop_members_learn_on_and_only_the_mixing_has_lost_what_waited(task: str, tmp_path: Path) -> None:
    spec, records = late(task)
    steady = mixture_core(spec)
    said = said_of(play(steady, records[:400], range(0, 400, 64)))
    again = resumed(spec, stopped(steady, Registry(str(tmp_path))), records, said)
    assert pack(again.learner.state(), {}) == pack(steady.learner.state(), {})
    assert len(again.waiting) == len(steady.waiting) > 20
    for core in (steady, again):
        play(core, records[400:], range(0, 700, 64))
    assert ledger_of(again) == ledger_of(steady)
    mine, theirs = again.learner.state(), steady.learner.state()
    assert mine["mixing.share"].tobytes() != theirs["mixing.share"].tobytes()
    for name in mine:
        if not name.startswith("mixing."):
            assert mine[name].tobytes() == theirs[name].tobytes(), name
    assert again.counts["skipped_steps"] == again.counts["lost_predictions"] == 0


def test_where_nothing_waits_a_stop_leaves_no_trace(tmp_path: Path) -> None:
    values = [
        {
            "id": f"e{i}",
            "time": 1000.0 + i,
            "label_time": 1000.0 + i,
            "label": i % 3 == 0,
            "features": {"a": float(i % 7)},
        }
        for i in range(80)
    ]
    records = tuple(records_of(values))
    spec = mixture_spec()
    steady = mixture_core(spec)
    said = said_of(play(steady, records[:40]))
    again = resumed(spec, stopped(steady, Registry(str(tmp_path))), records, said)
    for core in (steady, again):
        play(core, records[40:])
    assert pack(again.state(), {}) == pack(steady.state(), {})


def test_another_learner_adopted_begins_with_answers_lost() -> None:
    spec, records = late("binary")
    core = mixture_core(spec)
    play(core, records[:400])
    assert np.isfinite(core.waiting.rows(core.waiting.places()).told).all()
    other = learners.make(core.spec)
    other.load(core.learner.state())
    core.adopt(other)
    assert np.isnan(core.waiting.rows(core.waiting.places()).told).all()
    assert len(core.waiting)
    play(core, records[400:])
    assert core.counts["skipped_steps"] == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_size_of_fetches_does_not_matter_to_a_mixture_either(task: str) -> None:
    spec, records = late(task)
    states = set()
    for size in (1, 7, 64, 1000):
        core = mixture_core(spec)
        for at in range(0, 300, size):
            core.take(0, records[at : min(at + size, 300)], more=True)
        core.take(0, ())
        states.add(pack(core.state(), {}))
    assert len(states) == 1


# Served -------------------------------------------------------------------------------------------------


def line_of(embedded: str, name: str, folder: Path, **changes: Any) -> Line:
    return Line(embedded, streams.spec(name, learner=streams.MIXTURE, **changes), folder)


def test_a_server_answers_as_the_worker_and_the_members_weights_arrive(
    embedded: str, app_name: str, tmp_path: Path
) -> None:
    line = line_of(embedded, app_name, tmp_path)
    streams.produce(embedded, line.topics.events, streams.records(600))
    seeder = line.seeder()
    seeded = seeder.seed()
    with serving(embedded, app_name, registry_url=line.registry.url) as client:
        until(lambda: number(client) == seeded.head.number)
        line.learn(seeded)
        head, _ = line.publish(seeder, seeded)
        until(lambda: number(client) == head.number)
        answer = client.predict(ROWS, times_s=[1_000_600.0] * 3)
        model = client.model()
    assert [row.scores["1"] for row in answer.rows] == answers_of(seeded.core, 1_000_600.0)[:, 0].tolist()
    members = seeded.core.learner.members()
    assert model.members == members
    status = status_of(head=head)
    with metrics.serve_metrics("127.0.0.1:0", lambda: status) as server:
        text = urllib.request.urlopen(server.url, timeout=5).read().decode()
    for name, weight in members.items():
        assert f'stream_app_member_weight{{member="{name}"}} {weight}' in text
    line.close()


def test_a_trial_with_what_is_in_use_goes_through_what_the_worker_went_through() -> None:
    """Its members, too, are judged by what was told when the rows were answered."""
    spec, records = late("binary")
    core = mixture_core(spec)
    play(core, records[:300])
    core.learner.set_reference(core.learner.parameters())
    base = core.state()
    window = [step for out in play(core, records[300:], range(0, 700, 64)) for step in out.steps]
    tuning = msgspec.structs.replace(spec.tuning, trials=1)
    best, _ = tune.search(
        msgspec.structs.replace(spec, tuning=tuning), base, core.hyper(), window, round_=0, mind_stop=lambda: None
    )
    assert core.counts["drifts"] == 0
    assert pack(best.learner.state(), {}) == pack(core.learner.state(), {})


def test_re_tuning_moves_the_rate_of_the_nets_and_the_pull_and_promotes(
    embedded: str, app_name: str, tmp_path: Path
) -> None:
    line = line_of(embedded, app_name, tmp_path, every_labels=EVERY_LABELS)
    tuning = msgspec.structs.replace(line.spec.tuning, margin=-10.0)  # whoever comes wins
    sleepy = msgspec.structs.replace(line.spec.optimiser, learning_rate=1e-7)
    line.spec = msgspec.structs.replace(line.spec, tuning=tuning, optimiser=sleepy)
    seeder = line.seeder()
    seeded = seeder.seed()
    running = Running(line)
    drive(line, seeder, seeded, {"promoted"})
    running.close()

    promoted = line.seeder().seed()
    line.learn(promoted)
    assert promoted.head.epoch == 2
    found = {d.kind: d.evidence for d in decisions(line)}
    assert found["tuned"]["trials"] == 3
    assert promoted.head.hyper.learning_rate == found["tuned"]["learning_rate"] > 1e-7
    assert promoted.head.hyper.half_life_events == found["tuned"]["half_life_events"]
    assert promoted.core.learner.learning_rate == promoted.head.hyper.learning_rate
    reference = promoted.core.learner.reference()
    assert reference is not None
    assert reference.shape == promoted.core.learner.parameters().shape
    ledger = dict(enumerate(ledger_of(promoted.core)))
    assert streams.total_ledger(ledger) == streams.expected_ledger(streams.records(EXAMPLES))
    line.close()
