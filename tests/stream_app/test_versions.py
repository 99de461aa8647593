"""A core at rest: what a version holds, what comes back, and which file is trusted when the log is not enough."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models import learners
from models.runtime import Session
from models.snapshot import pack, unpack
from models.spec import Blend, Learner, ModelSpec, signature, to_json
from stream_app import artefacts
from stream_app.errors import EpochError, RegistryError
from stream_app.learn import Core
from stream_app.live import prepare
from stream_app.modellog import Announcement, Envelope, Fold
from stream_app.registry import Registry
from stream_app.stored import FOLDER, SUFFIX, newest_readable, read_version, self_described
from stream_app.versions import check_fit, read_head, snapshot, write
from tests.stream_app.test_learn import TASKS, core_of, play, spec_of, stream


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def written(core: Core, registry: Registry, *, parent: Envelope | None = None, created_s: float = 5.0) -> Envelope:
    return written_with_data(core, registry, parent=parent, created_s=created_s)[0]


def written_with_data(
    core: Core, registry: Registry, *, parent: Envelope | None = None, created_s: float = 5.0
) -> tuple[Envelope, bytes]:
    return write(
        core.spec,
        snapshot(core),
        registry,
        parent=parent,
        epoch=3,
        predictions_from={0: 11},
        topic_ids={"t.events": "u"},
        created_s=created_s,
    )


def tear(registry: Registry, path: str, data: bytes | None = None) -> None:
    file = Path(registry.url, path)
    file.write_bytes(file.read_bytes()[:-1] if data is None else data)


def trained(task: str = "binary", records: int = 60) -> Core:
    core = core_of(spec_of(task))
    play(core, stream(task)[:records])
    return core


def test_an_envelope_says_what_the_core_was(registry: Registry) -> None:
    core = trained()
    envelope, data = written_with_data(core, registry)
    taken = snapshot(core)
    assert envelope.id == envelope.sha256[:16]
    assert envelope.artefact == f"{FOLDER}/{envelope.id}{SUFFIX}"
    assert registry.read(envelope.artefact, envelope.sha256) == data
    assert envelope.size_bytes == len(data)
    assert (envelope.number, envelope.parent, envelope.epoch, envelope.created_s) == (1, None, 3, 5.0)
    assert (envelope.offsets, envelope.replay_from) == ({0: 60}, taken.replay_from)
    assert (envelope.predictions_from, envelope.topic_ids) == ({0: 11}, {"t.events": "u"})
    assert (envelope.labels, envelope.ledger) == (core.counts["learned"], taken.ledger)
    assert envelope.labels > 0
    assert (envelope.signature, envelope.reference, envelope.hyper) == (signature(core.spec), "r", core.hyper())
    child = written(core, registry, parent=msgspec.structs.replace(envelope, number=7))
    assert (child.number, child.parent) == (8, envelope.id)


def test_the_same_core_at_the_same_time_is_the_same_version(registry: Registry) -> None:
    assert {written(trained(), registry).id for _ in range(4)} == {written(trained(), registry).id}
    assert written(trained(), registry, created_s=6.0).id != written(trained(), registry).id


def test_what_is_read_back_is_what_was_learned(registry: Registry) -> None:
    core = trained()
    arrays, texts = read_version(written(core, registry), registry)
    state = core.state()
    assert arrays.keys() == state.keys() | {"serving.onnx"}
    for name, array in state.items():
        assert np.array_equal(arrays[name].ravel(), array.ravel(), equal_nan=True), name
    assert texts["spec"] == to_json(core.spec)


@pytest.mark.parametrize("task", TASKS)
def test_the_graph_answers_as_the_learner(task: str, registry: Registry) -> None:
    core = trained(task)
    arrays, _ = read_version(written(core, registry), registry)
    raw = core.encoder.raw([(1.0, None, "p"), (-4.0, 1e6, 7), (None, None, None)])
    dense = core.encoder.dense(raw, np.full(3, 2000.0))
    wanted = core.learner.predict(core.encoder.standardise(dense), raw.categories)
    got = Session(arrays["serving.onnx"].tobytes()).run(dense, raw.categories)
    assert got == pytest.approx(wanted, rel=1e-4, abs=1e-5)


TREES = {"regression": "river.tree.HoeffdingAdaptiveTreeRegressor"}


def river_spec(task: str) -> ModelSpec:
    tree = TREES.get(task, "river.tree.HoeffdingAdaptiveTreeClassifier")
    learner = Learner(kind="river", estimator=tree, settings={"grace_period": 10}, batch_records=8, nominal=False)
    return spec_of(task, learner=learner, blend=Blend(kind="none"))


def river_core(task: str) -> Core:
    core = Core(river_spec(task), learners.make(river_spec(task)))
    core.start({0: 0})
    return core


@pytest.mark.parametrize("task", TASKS)
def test_a_river_estimator_travels_in_its_version_and_answers_itself(task: str, registry: Registry) -> None:
    core = river_core(task)
    play(core, stream(task))
    envelope, data = written_with_data(core, registry)
    assert artefacts.SERVING not in unpack(data)[0]
    rows = [{"a": 1.0, "c": "p"}, {"a": -4.0, "b": 1e6, "c": 7}, {}]
    raw = core.encoder.raw_of(rows)
    dense = core.encoder.dense(raw, np.full(3, 2000.0))
    wanted = core.learner.predict(core.encoder.standardise(dense), raw.categories)
    live = prepare(data, envelope)
    assert np.array_equal(live.predict(rows, [2000.0] * 3), wanted)
    assert live.prior_only == (core.counts["learned"] == 0)


@pytest.mark.parametrize("at", [0, 8, 120])
def test_a_river_core_that_stopped_goes_on_as_if_it_had_not(at: int, registry: Registry) -> None:
    steady, records = river_core("binary"), stream("binary")
    play(steady, records[:120])
    stopped = river_core("binary")
    if at:
        play(stopped, records[:at])
    envelope = written(stopped, registry)
    resumed = river_core("binary")
    resumed.load(read_version(envelope, registry)[0], envelope)
    resumed.rebuild(0, [records[:at]] if at else [], {})
    if at < 120:
        play(resumed, records[at:120])
    for core in (steady, resumed):
        play(core, records[120:])
    raw = steady.encoder.raw_of([{"a": a / 4, "c": "p"} for a in range(-20, 20)])
    x = steady.encoder.standardise(steady.encoder.dense(raw, np.full(40, 2000.0)))
    assert np.array_equal(resumed.learner.predict(x, raw.categories), steady.learner.predict(x, raw.categories))
    assert resumed.counts["learned"] == steady.counts["learned"] > 0


def head_of(envelope: Envelope, inline: bytes | None = None) -> Fold:
    fold = Fold()
    root = msgspec.structs.replace(envelope, parent=None)
    fold.apply(0, Announcement(kind="version", envelope=root, parent_envelope=None, parent_at=-1, inline=inline))
    return fold


def test_an_inline_head_needs_no_registry(registry: Registry, tmp_path: Path) -> None:
    envelope, data = written_with_data(trained(), registry)
    nowhere = Registry(str(tmp_path / "nowhere"))
    assert read_head(head_of(envelope, data), nowhere)[1] == unpack(data)[1]
    assert read_head(head_of(envelope), registry)[1] == unpack(data)[1]
    with pytest.raises(RegistryError, match="cannot read"):
        read_head(head_of(envelope), nowhere)
    with pytest.raises(RegistryError, match="sha256 is"):
        read_head(head_of(envelope, data[:-1]), registry)


def test_a_head_of_another_spec_is_named_by_what_differs_or_by_its_signature(registry: Registry) -> None:
    core = trained()
    envelope, data = written_with_data(core, registry)
    check_fit(core.spec, Fold(), registry)
    check_fit(core.spec, head_of(envelope, data), registry)
    other = msgspec.structs.replace(core.spec, label=msgspec.structs.replace(core.spec.label, name="z"))
    name = core.spec.label.name
    with pytest.raises(EpochError, match=f"does not fit the spec: label.name: head has {name}, spec has z$"):
        check_fit(other, head_of(envelope, data), registry)
    wanted = f"signature: head has {envelope.signature}, spec has {signature(other)}$"
    with pytest.raises(EpochError, match=wanted):
        check_fit(other, head_of(envelope, b"torn"), registry)


def test_a_right_hash_of_wrong_bytes_is_an_error_too(registry: Registry) -> None:
    artefact = registry.write(FOLDER, SUFFIX, b"no snapshot at all")
    wrong = msgspec.structs.replace(written(trained(), registry), artefact=artefact.path, sha256=artefact.sha256)
    with pytest.raises(RegistryError, match=rf"{artefact.path}: not a snapshot \(18 bytes\)"):
        read_version(wrong, registry)


# What the registry says by itself (rule 18) -----------------------------------------------------------------


@pytest.mark.parametrize("records", [0, 3, 60])
def test_a_file_describes_itself_whole(records: int, registry: Registry) -> None:
    """Before the first record, too: the clock stands at minus infinity, most metrics are undefined."""
    core = core_of(spec_of())
    if records:
        play(core, stream("binary")[:records])
    envelope = written(core, registry)
    found, arrays = self_described(registry, envelope.artefact)
    floats = {name: float(value) for name, value in envelope.metrics.items()}
    assert repr(found) == repr(msgspec.structs.replace(envelope, metrics=floats))  # NaN equals NaN as text
    assert arrays.keys() == core.state().keys() | {"serving.onnx"}
    if not records:
        assert found.replay_from == {0: (0, -math.inf)}
        assert math.isnan(found.metrics["auc"])


def test_an_empty_registry_holds_no_version(registry: Registry) -> None:
    assert newest_readable(registry) is None


def test_the_newest_whole_version_is_found(registry: Registry) -> None:
    core = trained()
    versions = [written(core, registry, created_s=float(s)) for s in (1, 2, 3)]
    assert _newest(registry) == versions[2]
    tear(registry, versions[2].artefact)
    assert _newest(registry) == versions[1]
    tear(registry, versions[1].artefact, b"")
    assert _newest(registry) == versions[0]
    tear(registry, versions[0].artefact, b"else")
    assert newest_readable(registry) is None


def _newest(registry: Registry) -> Envelope:
    found = newest_readable(registry)
    assert found is not None
    return found[0]


def test_what_counts_is_when_it_was_made_not_when_its_file_was_copied(registry: Registry) -> None:
    core = trained()
    young, old = written(core, registry, created_s=9.0), written(core, registry, created_s=1.0)
    assert registry.list(FOLDER)[-1] == old.artefact
    assert _newest(registry) == young


def test_files_that_are_no_versions_are_passed_over(registry: Registry) -> None:
    version = written(trained(), registry)
    strangers: list[dict[str, Any]] = [{}, {"envelope": "{"}, {"envelope": "{}"}, {"envelope": json.dumps([1])}]
    for texts in strangers:
        path = registry.write(FOLDER, SUFFIX, pack({"a": np.zeros(1)}, texts)).path
        with pytest.raises(RegistryError, match=f"{path}: holds no envelope: "):
            self_described(registry, path)
    registry.write(FOLDER, SUFFIX, b"no snapshot")
    assert _newest(registry) == version
