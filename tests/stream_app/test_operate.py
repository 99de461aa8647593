"""What people decide about versions: on record, exactly once, taken up by the worker; who comes second is told."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.snapshot import pack, unpack
from models.spec import Traffic, parse_spec
from stream_app import holding, stored, versions
from stream_app.errors import OvertakenError, VersionError
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope, Fold, decode_record
from stream_app.operate import Operator, Trial
from stream_app.seed import Seeded, Seeder
from tests import streams
from tests.line import Line

NOW_S = 1_700_000_000.0


class Made:
    """A line with a few versions, and an operator."""

    def __init__(self, bootstrap_servers: str, name: str, folder: Path, learner: str = streams.NETWORK) -> None:
        self.line = Line(bootstrap_servers, streams.spec(name, learner=learner), folder)
        self.decisions: list[tuple[str, int, dict[str, Any]]] = []
        self.stream = streams.records(400)
        streams.produce(bootstrap_servers, self.line.topics.events, self.stream)
        self.seeder = self.line.seeder()
        self.seeded = self.seeder.seed()
        self.heads: list[Envelope] = [self.seeded.head]
        self._logs: list[LogClient] = []
        for end in (200, 400):
            self.publish(end)

    def publish(self, end: int | None = None) -> tuple[Envelope, bool]:
        self.line.learn(self.seeded, {0: end} if end else None)
        head, won = self.line.publish(self.seeder, self.seeded)
        if won:
            self.seeded = self.seeded._replace(head=head)
            self.heads.append(head)
        return head, won

    def seed(self) -> tuple[Seeder, Seeded]:
        seeder = self.line.seeder()
        return seeder, seeder.seed()

    def operator(self, by: str = "ann") -> Operator:
        log = LogClient(self.line.bootstrap_servers, self.line.topics.models)
        self._logs.append(log)

        def decide(kind: str, version: int, evidence: dict[str, Any]) -> None:
            self.decisions.append((kind, version, evidence))

        return Operator(log, self.line.registry, decide, by=by, inline_bytes=500_000, clock=lambda: NOW_S)

    def fold(self) -> Fold:
        log = LogClient(self.line.bootstrap_servers, self.line.topics.models)
        log.catch_up()
        log.close()
        return log.fold

    def close(self) -> None:
        for log in self._logs:
            log.close()
        self.line.close()


@pytest.fixture
def made(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Made]:
    made = Made(embedded, app_name, tmp_path)
    yield made
    made.close()


def theta(envelope: Envelope, made: Made) -> Any:
    return stored.read_version(envelope, made.line.registry)[0]["learner.theta"]


# Looking ------------------------------------------------------------------------------------------


def test_versions_are_listed_the_newest_first_and_found_by_number_or_id(made: Made) -> None:
    operator = made.operator()
    listed = operator.versions()
    assert [v.envelope.number for v in listed] == [3, 2, 1]
    assert [v.roles for v in listed] == [("head",), (), ()]
    assert {v.where for v in listed} == {"log"}
    assert operator.find("2").id == operator.find(made.heads[1].id[:8]).id == made.heads[1].id
    with pytest.raises(VersionError, match=r"there is no version 9, .* \(1 to 3, not each of them\)"):
        operator.find("9")
    with pytest.raises(VersionError, match="version is 'abc', wanted a number or at least 6 characters of an id"):
        operator.find("abc")


def test_a_file_of_the_registry_that_the_log_has_forgotten_can_be_named_by_its_id(made: Made) -> None:
    core = made.seeded.core
    lost, _ = versions.write(
        made.line.spec,
        versions.snapshot(core),
        made.line.registry,
        parent=made.heads[0],
        epoch=1,
        predictions_from={0: 0},
        topic_ids=made.heads[0].topic_ids,
        created_s=5.0,
    )
    operator = made.operator()
    assert [v.where for v in operator.versions() if v.envelope.id == lost.id] == ["registry"]
    assert operator.find("2").id == made.heads[1].id  # of the same number, but not on record
    assert operator.find(lost.id[:10]).id == lost.id


# Rolling back -------------------------------------------------------------------------------------


def test_a_rollback_has_the_old_parameters_and_the_heads_place_in_the_stream(
    bootstrap_servers: str, app_name: str, tmp_path: Path
) -> None:
    made = Made(bootstrap_servers, app_name, tmp_path)
    old, last = made.heads[1], made.heads[2]
    head = made.operator().adopt("2", "labels were wrong")
    assert (head.number, head.epoch, head.parent) == (4, last.epoch + 1, last.id)
    assert (head.offsets, head.ledger, head.replay_from, head.labels) == (
        *(last.offsets, last.ledger, last.replay_from, last.labels),
    )
    assert np.array_equal(theta(head, made), theta(old, made))
    assert not np.array_equal(theta(head, made), theta(last, made))
    _, won = made.publish()
    assert not won  # what the worker learned on the head of before is void

    seeder, seeded = made.seed()
    assert seeded.head.id == head.id
    made.line.learn(seeded)
    final, won = made.line.publish(seeder, seeded)
    assert won
    assert streams.total_ledger(final.ledger) == streams.expected_ledger(made.stream)
    assert final.metrics["events"] == 400
    assert final.metrics["count"] == final.labels
    ((kind, number, evidence),) = made.decisions
    assert (kind, number) == ("rolled_back", 4)
    assert evidence["to"] == 2
    assert evidence["from"] == 3
    assert (evidence["reason"], evidence["by"]) == ("labels were wrong", "ann")
    assert evidence["loss"] == last.metrics["window_log_loss"]
    made.close()


def test_a_rollback_counts_though_the_worker_has_published_meanwhile(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = made.operator()
    check = holding.check

    def slow(*args: Any) -> None:
        check(*args)
        made.publish(600)

    monkeypatch.setattr(holding, "check", slow)
    head = operator.adopt("2", "r")
    assert (head.number, head.offsets) == (5, {0: 600})
    assert np.array_equal(theta(head, made), theta(made.heads[1], made))


def test_of_two_rollbacks_at_once_the_second_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = made.operator("ann"), made.operator("bob")
    check, once = holding.check, threading.Event()

    def overtaken(*args: Any) -> None:
        check(*args)
        if not once.is_set():
            once.set()
            second.adopt("1", "me first")

    monkeypatch.setattr(holding, "check", overtaken)
    with pytest.raises(OvertakenError, match="someone else came first: epoch 2 has begun, wanted epoch 1"):
        first.adopt("2", "r")
    assert made.fold().head is not None
    assert [d[0] for d in made.decisions] == ["rolled_back"]


def test_what_cannot_be_rolled_back_to_is_said(made: Made) -> None:
    operator = made.operator()
    with pytest.raises(VersionError, match=r"version 3 \([0-9a-f]{16}\) is the head"):
        operator.adopt("3", "r")
    Path(made.line.registry.url, made.heads[1].artefact).unlink()
    with pytest.raises(VersionError, match=r"version 2 .* cannot be read any more: cannot read"):
        operator.adopt("2", "r")
    assert made.decisions == []


def test_a_mixture_is_rolled_back_too(embedded: str, app_name: str, tmp_path: Path) -> None:
    made = Made(embedded, app_name, tmp_path, streams.MIXTURE)
    head = made.operator().adopt("2", "r")
    _, seeded = made.seed()
    assert seeded.head.id == head.id
    assert seeded.core.learner.members() == pytest.approx(made.heads[1].members)
    made.close()


def test_a_rollback_whose_head_cannot_be_read_keeps_the_scores_of_then(
    embedded: str, app_name: str, tmp_path: Path
) -> None:
    made = Made(embedded, app_name, tmp_path)
    operator = made.operator()
    operator.versions()
    operator._log.fold.head_inline = None
    Path(made.line.registry.url, made.heads[2].artefact).unlink()
    head = operator.adopt("2", "r")
    arrays, _ = stored.read_version(head, made.line.registry)
    then, _ = stored.read_version(made.heads[1], made.line.registry)
    assert np.array_equal(arrays["score.rows"], then["score.rows"])
    made.close()


# Pinning ------------------------------------------------------------------------------------------


def test_a_pin_holds_its_version_and_is_ended_by_unpin(bootstrap_servers: str, app_name: str, tmp_path: Path) -> None:
    made = Made(bootstrap_servers, app_name, tmp_path)
    operator = made.operator()
    pinned = operator.pin("2", "demo")
    route = made.fold().route
    assert route is not None
    assert route.pinned is not None
    assert (route.pinned.id, route.pinned.number, route.reason, route.by) == (made.heads[1].id, 2, "demo", "ann")
    assert pinned.artefact.startswith("held/")
    assert stored.read_version(pinned, made.line.registry)
    _, won = made.publish()
    assert won  # learning goes on
    assert {v.envelope.number: v.roles for v in operator.versions()} == {4: ("head",), 3: (), 2: ("pinned",), 1: ()}
    assert operator.unpin("enough").number == 2
    assert made.fold().route.pinned is None  # type: ignore[union-attr]
    with pytest.raises(VersionError, match="no version is pinned"):
        operator.unpin("again")
    assert [d[:2] for d in made.decisions] == [("pinned", 2), ("unpinned", 2)]
    made.close()


def test_of_two_pins_at_once_the_second_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = made.operator("ann"), made.operator("bob")
    hold, once = holding.held, threading.Event()

    def overtaken(*args: Any) -> Envelope:
        if not once.is_set():
            once.set()
            second.pin("1", "me first")
        return hold(*args)

    monkeypatch.setattr(holding, "held", overtaken)
    with pytest.raises(OvertakenError, match=r"someone else came first: 'bob' has changed the route \('me first'\)"):
        first.pin("2", "r")
    assert made.fold().route.pinned.number == 1  # type: ignore[union-attr]


def test_a_pin_outlives_the_trimming_of_its_record(bootstrap_servers: str, app_name: str, tmp_path: Path) -> None:
    """Every announcement says which route counts."""
    made = Made(bootstrap_servers, app_name, tmp_path)
    made.operator().pin("2", "demo")
    log = LogClient(bootstrap_servers, made.line.topics.models)
    log.catch_up()
    at = log.fold.route_at
    made.publish()
    made.publish()
    whole = made.fold()
    later = Fold(at + 2)
    records = made.line.reader.range(made.line.topics.models, 0, at + 2, log.position() + 2)
    for record in records:
        later.apply(record.offset, decode_record(record.value))
    assert later.route == whole.route
    assert (later.route_at, later.head) == (at, whole.head)
    log.close()
    made.close()


# Trying -------------------------------------------------------------------------------------------


def test_a_challenger_is_out_until_it_is_withdrawn_and_excludes_pins_and_others(made: Made) -> None:
    operator = made.operator()
    out = operator.challenge("2", Trial.of(Traffic(most_s=60.0), "canary", percent=5.0, key="c"), "better?")
    assert (out.percent, out.key, out.until_s) == (5.0, "c", NOW_S + 60.0)
    assert out.offsets == made.heads[2].offsets
    assert operator.versions()[1].roles == ("canary",)
    with pytest.raises(VersionError, match="version 2 is out as canary; withdraw it first"):
        operator.challenge("1", Trial.of(Traffic(), "shadow"), "r")
    with pytest.raises(VersionError, match="version 2 is out as canary; withdraw it first"):
        operator.pin("1", "r")
    assert operator.withdraw("no", {"labels": 7}).envelope.number == 2
    with pytest.raises(VersionError, match="no challenger is out"):
        operator.withdraw("again")
    operator.pin("1", "r")
    with pytest.raises(VersionError, match="version 1 is pinned; unpin it first"):
        operator.challenge("2", Trial.of(Traffic(), "shadow"), "r")
    with pytest.raises(VersionError, match="is the head"):
        operator.challenge("3", Trial.of(Traffic(), "shadow"), "r")
    kinds = [(kind, evidence.get("labels")) for kind, _, evidence in made.decisions]
    assert kinds == [("canary", None), ("withdrawn", 7), ("pinned", None)]


# Files for elsewhere ------------------------------------------------------------------------------


def test_what_is_exported_comes_in_elsewhere_and_can_be_promoted(
    made: Made, embedded: str, app_name: str, tmp_path: Path
) -> None:
    envelope, data = made.operator().export("2")
    other = Made(embedded, f"{app_name}o", tmp_path / "other")
    operator = other.operator()
    brought = operator.bring_in("file", data)
    assert brought.id == envelope.id  # the same bytes
    assert [v.where for v in operator.versions() if v.envelope.id == brought.id] == ["held"]
    head = operator.adopt(brought.id, "from elsewhere", kind="promoted")
    assert (head.offsets, head.topic_ids) == (other.heads[2].offsets, other.heads[2].topic_ids)
    assert np.array_equal(theta(head, other), theta(made.heads[1], made))
    _, seeded = other.seed()
    assert seeded.head.id == head.id
    assert [d[0] for d in other.decisions] == ["imported", "promoted"]
    other.close()


def test_a_file_that_was_changed_anywhere_is_refused(made: Made) -> None:
    operator = made.operator()
    _, data = operator.export("2")
    arrays, texts = unpack(data)
    theta = arrays["learner.theta"].copy()
    theta[0] += 1
    wrongs = {
        "wanted a file that `stream-app export` wrote": data[:-1],
        r"array learner\.theta is \['float32'": pack(arrays | {"learner.theta": theta}, texts),
        r"array learner\.theta is missing, wanted \['float32'": pack(
            {n: a for n, a in arrays.items() if n != "learner.theta"}, texts
        ),
        "array extra is .*, wanted nothing of that name": pack(arrays | {"extra": theta}, texts),
        "text spec is": pack(arrays, texts | {"spec": texts["spec"].replace("0.003", "0.004")}),
    }
    for text, wrong in wrongs.items():
        with pytest.raises(VersionError, match=text):
            operator.bring_in("file", wrong)
    assert made.decisions == []


def test_a_version_of_another_model_is_refused_by_what_differs(
    made: Made, embedded: str, app_name: str, tmp_path: Path
) -> None:
    text = streams.spec_text(f"{app_name}o").replace("size = 16", "size = 17")
    line = Line(embedded, parse_spec(text, "test"), tmp_path / "other")
    seeder = line.seeder()
    seeded = seeder.seed()
    data = holding.exported(holding.whole(seeded.head, None, line.registry))
    with pytest.raises(
        VersionError, match=r"does not fit the head: features\.categorical: head has .*16.* spec has .*17"
    ):
        made.operator().bring_in("file", data)
    line.close()


def test_a_network_that_could_not_go_on_learning_is_refused(made: Made) -> None:
    operator = made.operator()
    envelope, data = operator.export("2")
    arrays, texts = unpack(data)
    texts.pop(holding.CONTENTS)
    arrays["learner.theta"] = arrays["learner.theta"][:-1]
    wrong = holding.exported(pack(arrays, texts))
    assert envelope.number == 2
    with pytest.raises(
        VersionError, match=r"learner\.theta is float32 \(\d+,\), wanted float32 \(\d+,\) as the head's"
    ):
        operator.bring_in("file", wrong)


def test_a_version_that_cannot_answer_is_neither_pinned_nor_tried(made: Made) -> None:
    broken = stored.self_described(made.line.registry, made.heads[1].artefact)
    arrays = broken[1] | {"serving.onnx": np.zeros(9, np.uint8)}
    data = pack(arrays, unpack(Path(made.line.registry.url, made.heads[1].artefact).read_bytes())[1])
    artefact = made.line.registry.write("versions", ".safetensors", data)
    operator = made.operator()
    for act in (operator.pin, lambda v, r: operator.challenge(v, Trial.of(Traffic(), "shadow"), r), operator.adopt):
        with pytest.raises(VersionError, match=r"is refused: .* wanted a loadable artefact"):
            act(artefact.id, "r")
    assert made.decisions == []
