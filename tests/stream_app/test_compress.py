import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka.errors import KafkaConnectionError

from models.export import to_onnx
from models.measure import Examples
from models.runtime import Session
from models.snapshot import pack
from models.spec import LONGEST_S, Compression, ModelSpec, Publish, signature, to_json
from stream_app.compress import FEWEST_ROWS, Compressor, run
from stream_app.errors import EpochError, ModelLogError, RegistryError
from stream_app.events import Decision, Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Announcement, Change, Envelope, Fold, Hyper, LogRecord, Variant
from stream_app.registry import Registry
from stream_app.topics import create_topics
from tests.models.test_export import parameters_of, rows_of, spec_of

LOOSE = Compression(loss_budget=0.1)
SPEC = msgspec.structs.replace(spec_of(hidden=(16,)), compression=LOOSE)


class MemoryLog:
    """A models topic in memory; ``between`` runs just before a record is appended."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.fold = Fold()
        self.between: Callable[[], object] = lambda: None
        self._position = 0

    def catch_up(self) -> None:
        self.poll(0)

    def position(self) -> int:
        return self._position

    def poll(self, timeout_s: float) -> list[Change]:
        new = list(enumerate(self.records))[self._position :]
        self._position = len(self.records)
        return [c for at, record in new if (c := self.fold.apply(at, record))]

    def append(self, record: LogRecord) -> int:
        self.between()
        self.records.append(record)
        return len(self.records) - 1


def version_of(spec: ModelSpec, seed: int, parent: Envelope | None) -> tuple[Announcement, Examples]:
    """An announcement whose artefact travels inline, and rows labelled by its own network."""
    rng = np.random.default_rng(seed)
    theta, mean, std = parameters_of(spec, rng)
    graph = to_onnx(spec, theta, mean, std)
    data = pack({"serving.onnx": np.frombuffer(graph, np.uint8)}, {"spec": to_json(spec)})
    numeric, categories = rows_of(spec, rng, 400, mean, std)
    scores = Session(graph).run(numeric, categories)
    target = (rng.random(400) < scores[:, 0]).astype(np.float32)
    digest = hashlib.sha256(data).hexdigest()
    envelope = Envelope(
        id=digest[:16],
        number=0,
        epoch=1,
        parent=parent.id if parent else None,
        offsets={0: 0},
        replay_from={},
        predictions_from={},
        artefact=f"versions/{digest[:16]}.safetensors",
        sha256=digest,
        size_bytes=len(data),
        signature=signature(spec),
        topic_ids={},
        labels=0,
        hyper=Hyper(learning_rate=0.1, half_life_events=1.0),
        reference=None,
        ledger={},
        metrics={},
        created_s=0.0,
    )
    wish = Announcement(kind="version", envelope=envelope, parent_envelope=parent, parent_at=-1, inline=data)
    return wish, Examples(numeric, categories, target)


class Stage:
    """A log with one version in it, and a compressor that follows it."""

    def __init__(self, folder: Path, spec: ModelSpec = SPEC) -> None:
        self.log = MemoryLog()
        self.registry = Registry(str(folder))
        self.decisions: list[Decision] = []
        self.asked: list[str] = []
        self.first, self.rows = version_of(spec, 0, None)
        self.log.append(self.first)
        self.spec = spec
        self.compressor = Compressor(spec, self.log, self.registry, self.examples, self.decisions.append, lambda: 7.0)

    def examples(self, head: Envelope) -> Examples | None:
        self.asked.append(head.id)
        return self.rows

    def publish(self, seed: int) -> Announcement:
        self.log.poll(0)
        wish, _ = version_of(self.spec, seed, self.log.fold.head)
        self.log.records.append(wish)
        return wish


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_head_gets_an_int8_variant_that_anyone_can_run(stage: Stage) -> None:
    variant = stage.compressor.run_once()
    assert variant is not None
    assert stage.log.fold.variants == {"int8": variant}
    data = stage.registry.read(variant.artefact, variant.sha256)
    assert variant.inline == data
    assert variant.size_bytes == len(data) < variant.fp32_bytes
    assert (variant.of_version, variant.batch) == (stage.first.envelope.id, 1)
    assert (variant.rows, variant.created_s) == (200, 7.0)
    assert Session(data).run(stage.rows.numeric, stage.rows.categories).shape == (400, 1)
    assert variant.served == (variant.latency_us < variant.fp32_latency_us)


def test_the_decision_carries_the_evidence(stage: Stage) -> None:
    variant = stage.compressor.run_once()
    assert variant is not None
    assert stage.decisions == [
        Decision(
            kind="quantised",
            at_s=7.0,
            version=1,
            evidence={
                "kind": "int8",
                "of_version": 1,
                "bytes": variant.size_bytes,
                "fp32_bytes": variant.fp32_bytes,
                "batch": 1,
                "latency_us": variant.latency_us,
                "fp32_latency_us": variant.fp32_latency_us,
                "loss_delta": variant.loss - variant.fp32_loss,
                "rows": 200,
                "runtime": variant.runtime,
                "attached": True,
                "served": variant.served,
            },
        )
    ]


def test_each_head_is_compressed_once(stage: Stage) -> None:
    assert stage.compressor.run_once() is not None
    assert stage.compressor.run_once() is None
    assert len(stage.asked) == len(stage.decisions) == 1
    stage.publish(1)
    assert stage.compressor.run_once() is not None
    assert [d.version for d in stage.decisions] == [1, 2]


def test_a_restarted_compressor_sees_in_the_log_what_is_done(stage: Stage) -> None:
    stage.compressor.run_once()
    again = Compressor(SPEC, stage.log, stage.registry, stage.examples, stage.decisions.append, lambda: 8.0)
    assert again.run_once() is None
    assert len(stage.asked) == 1


def test_a_variant_over_the_budget_is_reported_but_not_attached(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, compression=Compression(loss_budget=-1.0))
    stage = Stage(tmp_path, spec)
    assert stage.compressor.run_once() is None
    assert stage.registry.list("variants") == []
    assert len(stage.log.records) == 1
    (decision,) = stage.decisions
    assert (decision.evidence["attached"], decision.evidence["served"]) == (False, False)
    assert stage.compressor.run_once() is None
    assert len(stage.decisions) == 1
    assert stage.compressor.late == 0


def test_a_head_that_came_while_rows_were_read_is_compressed_at_once(stage: Stage) -> None:
    rows, newer = stage.rows, []

    def slow(head: Envelope) -> Examples:
        newer.append(stage.publish(1))
        return rows

    stage.compressor._examples = slow
    variant = stage.compressor.run_once()
    assert variant is not None
    assert variant.of_version == newer[0].envelope.id


def test_a_variant_of_an_old_head_is_late(stage: Stage) -> None:
    stage.log.between = lambda: stage.publish(1)
    assert stage.compressor.run_once() is None
    assert stage.compressor.late == 1
    assert stage.log.fold.variants == {}
    (decision,) = stage.decisions
    assert (decision.version, decision.evidence["of_version"]) == (2, 1)
    assert decision.evidence["attached"] is False


def test_without_enough_rows_it_waits(stage: Stage) -> None:
    rows = stage.rows
    for few in (None, rows.part(slice(FEWEST_ROWS - 1))):
        stage.compressor._examples = lambda head, few=few: few  # type: ignore[misc]
        assert stage.compressor.run_once() is None
    assert stage.decisions == []
    stage.compressor._examples = lambda head: rows
    assert stage.compressor.run_once() is not None


def test_an_empty_log_is_nothing_to_do(stage: Stage) -> None:
    stage.log.records.clear()
    assert stage.compressor.run_once() is None
    assert stage.asked == []


def test_large_artefacts_are_read_from_and_left_in_the_registry(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, publish=Publish(inline_bytes=10))
    stage = Stage(tmp_path, spec)
    assert stage.first.inline is not None
    stage.registry.write("versions", ".safetensors", stage.first.inline)
    stage.log.records[0] = msgspec.structs.replace(stage.first, inline=None)
    variant = stage.compressor.run_once()
    assert variant is not None
    assert variant.inline is None
    assert len(stage.registry.read(variant.artefact, variant.sha256)) == variant.size_bytes


def test_an_artefact_without_a_graph_is_named(stage: Stage) -> None:
    data = pack({"theta": np.zeros(1, np.float32)}, {})
    digest = hashlib.sha256(data).hexdigest()
    envelope = msgspec.structs.replace(stage.first.envelope, sha256=digest)
    stage.log.records[0] = msgspec.structs.replace(stage.first, envelope=envelope, inline=data)
    with pytest.raises(RegistryError, match=r"has no array 'serving.onnx', got \['theta'\]$"):
        stage.compressor.run_once()


def test_a_torn_inline_artefact_is_refused(stage: Stage) -> None:
    stage.log.records[0] = msgspec.structs.replace(stage.first, inline=b"torn")
    with pytest.raises(RegistryError, match=r"^versions/.*: sha256 is .* \(4 bytes\)$"):
        stage.compressor.run_once()


def test_old_variants_are_deleted(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, publish=Publish(keep=2))
    stage = Stage(tmp_path, spec)
    for seed in (1, 2, 3):
        assert stage.compressor.run_once() is not None
        stage.publish(seed)
    assert len(stage.registry.list("variants")) == 2


def test_a_variant_that_is_never_read_back_is_an_error(stage: Stage) -> None:
    seconds = iter(range(0, 10_000, 10))
    stage.compressor._clock = lambda: next(seconds)
    stage.log.append = lambda record: 99  # type: ignore[method-assign]
    with pytest.raises(ModelLogError, match=r"^variant at offset 99 was not read back in 30 s"):
        stage.compressor.run_once()


def test_the_loop_survives_broker_trouble(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stop, calm = threading.Event(), stage.log.catch_up
    failures = iter([KafkaConnectionError("gone"), ModelLogError("slow")])

    def shaky() -> None:
        if error := next(failures, None):
            raise error
        calm()

    stage.log.catch_up = shaky  # type: ignore[method-assign]
    stage.compressor._announce_decision = lambda decision: stop.set()
    with caplog.at_level(logging.WARNING, "stream_app.compress"):
        run(stage.compressor, stop, every_s=0.001)
    assert len(caplog.messages) == 2
    assert caplog.messages[1] == "compression failed, next try in 0.001 s: slow"
    assert [type(r) for r in stage.log.records] == [Announcement, Variant]


def test_without_a_kind_nothing_is_quantised_and_the_process_waits_for_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(tmp_path, msgspec.structs.replace(SPEC, compression=Compression(kinds=(), loss_budget=0.1)))
    assert stage.compressor.run_once() is None
    stop = threading.Event()
    running = threading.Thread(target=run, args=(stage.compressor, stop), kwargs={"every_s": 0.001})
    with caplog.at_level(logging.INFO, "stream_app.compress"):
        running.start()
        running.join(0.2)
        assert running.is_alive()
        stop.set()
        running.join(10)
    assert not running.is_alive()
    assert caplog.messages == ["the spec wants no compressed forms: nothing to do until the end"]
    assert (stage.asked, stage.decisions, len(stage.log.records)) == ([], [], 1)


def test_any_pause_that_the_spec_allows_can_be_waited(stage: Stage) -> None:
    stop = threading.Event()
    ending = threading.Timer(0.1, stop.set)
    ending.start()
    run(stage.compressor, stop, every_s=LONGEST_S)
    ending.join()
    assert stage.asked == []


def test_a_head_of_another_spec_is_left_alone(stage: Stage) -> None:
    spec = msgspec.structs.replace(SPEC, label=msgspec.structs.replace(SPEC.label, name="early"))
    compressor = Compressor(spec, stage.log, stage.registry, stage.examples, stage.decisions.append, lambda: 7.0)
    wanted = f"does not fit the spec: label.name: head has {SPEC.label.name}, spec has early$"
    with pytest.raises(EpochError, match=wanted):
        compressor.run_once()
    assert (stage.asked, stage.decisions, len(stage.log.records)) == ([], [], 1)


def test_an_unfit_head_is_told_of_once_and_waited_out(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    fitting, calm, stop = stage.first.envelope, stage.log.catch_up, threading.Event()
    unfit = msgspec.structs.replace(fitting, signature="other")
    stage.log.records[0] = msgspec.structs.replace(stage.first, envelope=unfit)
    looks = iter(range(1_000))

    def catch_up() -> None:
        if next(looks) == 3:  # meanwhile a worker begins a new epoch
            envelope = msgspec.structs.replace(fitting, epoch=2, parent=unfit.id)
            stage.log.records.append(msgspec.structs.replace(stage.first, kind="epoch", envelope=envelope))
        calm()

    stage.log.catch_up = catch_up  # type: ignore[method-assign]
    stage.compressor._announce_decision = lambda decision: stop.set()
    with caplog.at_level(logging.WARNING, "stream_app.compress"):
        run(stage.compressor, stop, every_s=0.001)
    (told,) = caplog.messages
    assert told.startswith("waiting for another head: the head of ")
    assert [type(r) for r in stage.log.records] == [Announcement, Announcement, Variant]


def test_it_compresses_through_a_real_broker(bootstrap_servers: str, app_name: str, tmp_path: Path) -> None:
    create_topics(bootstrap_servers, app_name, partitions=1, retention_s=3600, max_record_bytes=65536)
    topic = Topics.of(app_name).models
    writer, follower = LogClient(bootstrap_servers, topic), LogClient(bootstrap_servers, topic)
    wish, rows = version_of(SPEC, 0, None)
    assert writer.propose(wish)
    decisions: list[Decision] = []
    compressor = Compressor(SPEC, follower, Registry(str(tmp_path)), lambda head: rows, decisions.append, lambda: 7.0)
    variant = compressor.run_once()
    assert variant is not None
    writer.catch_up()
    assert writer.fold.variants == {"int8": variant}
    assert decisions[0].evidence["attached"] is True
    writer.close()
    follower.close()
