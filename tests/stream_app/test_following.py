"""The newest version that works becomes live, and stays when something breaks."""

import os
import re
import signal
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_app import following as under_test
from stream_app import kafka_clients
from stream_app.broker import EmbeddedBroker, free_port
from stream_app.errors import ModelLogError
from stream_app.following import LiveFollower
from stream_app.live import LiveModel, prepare
from stream_app.modellog import HISTORY, Envelope
from stream_app.registry import Registry
from tests.stream_app.versions import (
    Writer,
    artefact,
    challenger_of,
    envelope_of,
    onnx,
    spec_of,
    until,
    variant_of,
    writing,
)


def score(model: LiveModel | None) -> float | None:
    return None if model is None else round(float(model.predict([{}])[0, -1]), 4)


@contextmanager
def following(bootstrap_servers: str, name: str, registry: Registry | None = None) -> Iterator[LiveFollower]:
    follower = LiveFollower(bootstrap_servers, f"{name}.models", registry=registry)
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


def number(follower: LiveFollower) -> int:
    return follower.live.envelope.number if follower.live else 0


def test_only_the_newest_of_a_backlog_is_prepared(
    bootstrap_servers: str, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(data: bytes, envelope: Envelope) -> LiveModel:
        seen.append(envelope.number)
        return prepare(data, envelope)

    monkeypatch.setattr(under_test, "prepare", counted)
    with writing(bootstrap_servers, spec_of(app_name)) as writer:
        for percent in range(10, 15):
            writer.version(percent / 100)
        with following(bootstrap_servers, app_name) as follower:
            until(lambda: follower.live)
            assert (number(follower), score(follower.live)) == (5, 0.14)
            writer.version(0.2)
            until(lambda: number(follower) == 6)
    assert seen == [5, 6]


def test_waits_for_topic_and_version(bootstrap_servers: str, app_name: str) -> None:
    with following(bootstrap_servers, app_name) as follower:
        until(lambda: "is not there" in follower.waiting_for)
        assert follower.live is None
        with writing(bootstrap_servers, spec_of(app_name)) as writer:
            until(lambda: follower.waiting_for.startswith("the first version on topic"))
            writer.version(0.3)
            until(lambda: score(follower.live) == 0.3)
            until(lambda: follower.waiting_for == "")


def test_a_broken_version_is_refused(embedded: str, app_name: str) -> None:
    with ExitStack() as stack:
        writer = stack.enter_context(writing(embedded, spec_of(app_name)))
        writer.version(0.3)
        follower = stack.enter_context(following(embedded, app_name))
        until(lambda: number(follower) == 1)
        broken = writer.broken(0.4)
        until(lambda: follower.refused == 1)
        assert (number(follower), score(follower.live)) == (1, 0.3)
        until(lambda: follower.waiting_for == f"version {broken.id}, refused so far")
        writer.version(0.5)
        until(lambda: number(follower) == 3)
        assert (follower.refused, follower.waiting_for) == (1, "")


def test_what_was_refused_long_ago_is_forgotten() -> None:
    follower = LiveFollower("127.0.0.1:1", "m.models")
    for n in range(1_000):
        for _ in range(2):
            follower._refuse(f"{n:016x}", ModelLogError("cannot be loaded"))
    assert follower.refused == 1_000
    assert [*follower._try_again_s] == [f"{n:016x}" for n in range(1_000 - 2 * HISTORY, 1_000)]


def test_bytes_that_are_not_the_announced_ones_are_refused(embedded: str, app_name: str) -> None:
    with (
        writing(embedded, spec_of(app_name)) as writer,
        following(embedded, app_name) as follower,
    ):
        writer.version(0.3, sha256="0" * 64)
        until(lambda: follower.refused)
        assert "sha256" in follower.waiting_for
        assert follower.live is None


def test_artefacts_by_reference(embedded: str, app_name: str, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    data = artefact(spec_of(app_name), 0.6)
    kept = registry.write("versions", ".safetensors", data)
    with (
        writing(embedded, spec_of(app_name)) as writer,
        following(embedded, app_name, registry) as follower,
    ):
        writer.announce(data, inline=False, artefact=kept.path)
        until(lambda: score(follower.live) == 0.6)


def test_without_a_registry_versions_between_two_inline_ones_are_passed_over(embedded: str, app_name: str) -> None:
    spec = spec_of(app_name)
    with writing(embedded, spec) as writer, following(embedded, app_name) as follower:
        writer.version(0.6)
        writer.announce(artefact(spec, 0.7), inline=False, between=True)
        until(lambda: follower.live is not None)
        writer.announce(artefact(spec, 0.8), inline=False, between=True)
        writer.version(0.9)
        until(lambda: score(follower.live) == 0.9)
        assert (follower.refused, follower.alarm, follower.waiting_for) == (0, "", "")


def test_with_a_registry_versions_between_two_inline_ones_are_taken_too(
    embedded: str, app_name: str, tmp_path: Path
) -> None:
    registry, spec = Registry(str(tmp_path)), spec_of(app_name)
    with writing(embedded, spec, registry) as writer, following(embedded, app_name, registry) as follower:
        writer.version(0.6)
        writer.announce(artefact(spec, 0.7), inline=False, between=True)
        until(lambda: score(follower.live) == 0.7)


def test_an_artefact_that_appears_later_is_taken(
    embedded: str, app_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "PREPARE_AGAIN_S", 0.1)
    monkeypatch.setattr(under_test, "CONTACT_EVERY_S", 0.1)
    registry = Registry(str(tmp_path))
    data = artefact(spec_of(app_name), 0.6)
    with (
        writing(embedded, spec_of(app_name)) as writer,
        following(embedded, app_name, registry) as follower,
    ):
        writer.announce(data, inline=False)
        until(lambda: follower.refused)
        registry.write("versions", ".safetensors", data)
        until(lambda: score(follower.live) == 0.6)
        assert follower.refused == 1


def test_a_start_at_a_broken_head_takes_the_one_before(embedded: str, app_name: str, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    sound = artefact(spec_of(app_name), 0.6)
    registry.write("versions", ".safetensors", sound)
    with writing(embedded, spec_of(app_name)) as writer:
        writer.announce(sound)
        writer.broken(0.7)
        with following(embedded, app_name, registry) as follower:
            until(lambda: number(follower) == 1)
        # A higher epoch may be a rollback from what was before: nothing of that may be taken.
        writer.announce(b"broken too", epoch=1)
        with following(embedded, app_name, registry) as follower:
            until(lambda: follower.refused)
            assert follower.live is None


def test_variants_come_and_go(embedded: str, app_name: str) -> None:
    with (
        writing(embedded, spec_of(app_name)) as writer,
        following(embedded, app_name) as follower,
    ):
        first = writer.version(0.3)
        until(lambda: score(follower.live) == 0.3)
        graph = onnx(writer.spec, 0.31)
        small = variant_of(first, graph)
        writer.client.append(small)
        until(lambda: score(follower.live) == 0.31)
        assert follower.live is not None
        assert follower.live.variant == "int8"
        assert follower.live.variants == (msgspec.structs.replace(small, inline=None),)
        writer.client.append(variant_of(first, graph, served=False))
        until(lambda: score(follower.live) == 0.3)
        writer.client.append(msgspec.structs.replace(small, sha256="0" * 64))
        until(lambda: follower.refused == 1)
        assert score(follower.live) == 0.3
        writer.client.append(small)
        until(lambda: score(follower.live) == 0.31)
        writer.version(0.4)
        until(lambda: score(follower.live) == 0.4)
        assert follower.live.variant == "fp32"


def test_a_variant_is_found_at_start(embedded: str, app_name: str) -> None:
    with writing(embedded, spec_of(app_name)) as writer:
        writer.client.append(variant_of(writer.version(0.3), onnx(writer.spec, 0.31)))
        with following(embedded, app_name) as follower:
            until(lambda: follower.live)
            assert score(follower.live) == 0.31


def test_the_broker_goes_and_comes_back(app_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "CONTACT_EVERY_S", 0.1)
    monkeypatch.setattr(under_test, "RETRY_S", 0.05)
    port = free_port()
    with EmbeddedBroker(port) as broker:
        servers = broker.bootstrap_servers
        with writing(servers, spec_of(app_name)) as writer:
            writer.version(0.2)
            writer.version(0.3)
        with following(servers, app_name) as follower:
            until(lambda: number(follower) == 2)
            os.kill(broker.pid, signal.SIGKILL)  # a polite end waits 5 s for open connections
            broker.stop()
            until(lambda: "wanted a connection" in follower.waiting_for)
            age_s = follower.log_age_s(time.monotonic())
            until(lambda: follower.log_age_s(time.monotonic()) > age_s + 0.3)
            assert score(follower.live) == 0.3
            broker.start()  # empty: it held everything in memory
            with writing(servers, spec_of(app_name)) as writer:
                writer.version(0.4)
                until(lambda: "the topic was recreated" in follower.waiting_for)
                assert (number(follower), score(follower.live)) == (2, 0.3)
                assert follower.log_age_s(time.monotonic()) < 5.0
                writer.version(0.5)
                writer.version(0.6)
                until(lambda: (number(follower), score(follower.live)) == (3, 0.6))


def test_a_topic_that_is_deleted(embedded: str, app_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "CONTACT_EVERY_S", 0.05)
    with writing(embedded, spec_of(app_name)) as writer:
        writer.version(0.3)
    with following(embedded, app_name) as follower:
        until(lambda: number(follower) == 1)
        with kafka_clients.admin(embedded) as admin:
            admin.delete_topics([f"{app_name}.models"])
        until(lambda: re.search("is not there|was recreated", follower.waiting_for))
        assert score(follower.live) == 0.3


def test_a_silent_broker_is_noticed(app_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTACT_EVERY_S", "RETRY_S"):
        monkeypatch.setattr(under_test, name, 0.05)
    monkeypatch.setattr(under_test, "ANSWER_S", 0.2)
    with EmbeddedBroker() as broker:
        with writing(broker.bootstrap_servers, spec_of(app_name)) as writer:
            writer.version(0.2)
            with following(broker.bootstrap_servers, app_name) as follower:
                until(lambda: number(follower) == 1)
                os.kill(broker.pid, signal.SIGSTOP)
                until(lambda: "wanted an answer" in follower.waiting_for)
                assert score(follower.live) == 0.2
                os.kill(broker.pid, signal.SIGCONT)
                writer.version(0.3)
                until(lambda: score(follower.live) == 0.3)
        os.kill(broker.pid, signal.SIGKILL)


# Pins and what is tried ---------------------------------------------------------------------------


class Held:
    """A registry and a writer whose versions lie in it, too."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.writer, self.registry = writer, Registry(str(folder))

    def version(self, score: float, targets: list[float] | None = None, **changes: Any) -> Envelope:
        data = artefact(self.writer.spec, score, targets=targets)
        kept = self.registry.write("versions", ".safetensors", data)
        return self.writer.announce(data, artefact=kept.path, **changes)


@pytest.fixture
def held(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Held]:
    with writing(embedded, spec_of(app_name)) as writer:
        yield Held(writer, tmp_path)


@pytest.fixture
def alarms() -> list[tuple[int, dict[str, Any]]]:
    return []


@pytest.fixture
def follower(
    held: Held, embedded: str, app_name: str, alarms: list[tuple[int, dict[str, Any]]]
) -> Iterator[LiveFollower]:
    follower = LiveFollower(
        embedded, f"{app_name}.models", registry=held.registry, alarmed=lambda n, e: alarms.append((n, dict(e)))
    )
    follower.start()
    yield follower
    follower.stop()


def test_a_pinned_version_answers_until_it_is_unpinned(held: Held, follower: LiveFollower) -> None:
    first = held.version(0.3)
    held.version(0.4)
    until(lambda: number(follower) == 2)
    held.writer.route(pinned=first)
    until(lambda: score(follower.live) == 0.3)
    held.version(0.5)
    time.sleep(0.2)
    assert (number(follower), follower.waiting_for, follower.alarm) == (1, "", "")
    held.writer.route()
    until(lambda: score(follower.live) == 0.5)


def test_after_a_pin_of_what_came_from_elsewhere_the_head_answers_again_whatever_the_numbers(
    held: Held, follower: LiveFollower
) -> None:
    held.version(0.3)
    until(lambda: number(follower) == 1)
    data = artefact(held.writer.spec, 0.9)
    kept = held.registry.write("held", ".safetensors", data)
    elsewhere = msgspec.structs.replace(envelope_of(held.writer.spec, data), number=500, artefact=kept.path)
    held.writer.route(pinned=elsewhere)
    until(lambda: (number(follower), score(follower.live)) == (500, 0.9))
    held.writer.route()
    until(lambda: (number(follower), score(follower.live)) == (1, 0.3))


def test_a_server_that_starts_answers_with_the_pinned_version(held: Held, embedded: str, app_name: str) -> None:
    first = held.version(0.3)
    held.version(0.4)
    held.writer.route(pinned=first)
    with following(embedded, app_name, held.registry) as follower:
        until(lambda: follower.live)
        assert number(follower) == 1


def test_a_pin_that_cannot_be_read_leaves_what_is_live_and_raises_an_alarm(
    held: Held, follower: LiveFollower, alarms: list[tuple[int, dict[str, Any]]]
) -> None:
    first = held.version(0.3)
    held.version(0.4)
    until(lambda: number(follower) == 2)
    held.writer.route(pinned=msgspec.structs.replace(first, artefact="held/gone.safetensors"))
    until(lambda: follower.waiting_for == f"version {first.id}, pinned and refused so far")
    assert number(follower) == 2
    assert "cannot read held/gone.safetensors" in follower.alarm
    ((at, evidence),) = alarms
    assert (at, evidence["what"], evidence["name"]) == (2, "version", first.id)
    held.writer.route()
    held.version(0.5)
    until(lambda: number(follower) == 3)
    assert follower.alarm == ""


def test_a_challenger_stands_beside_the_live_version_through_swaps(held: Held, follower: LiveFollower) -> None:
    first = held.version(0.3)
    held.version(0.4)
    held.writer.route(challenger=challenger_of(first, percent=5.0))
    until(lambda: follower.arms.challenger)
    challenger = follower.arms.challenger
    assert (score(challenger), score(follower.live)) == (0.3, 0.4)
    assert follower.arms.trial is not None
    assert follower.arms.trial.percent == 5.0
    held.version(0.5)
    until(lambda: score(follower.live) == 0.5)
    assert follower.arms.challenger is challenger
    held.writer.route()
    until(lambda: follower.arms.challenger is None)
    assert (score(follower.live), follower.arms.trial) == (0.5, None)


def test_a_challenger_that_cannot_answer_or_means_something_else_is_refused(
    held: Held, follower: LiveFollower, alarms: list[tuple[int, dict[str, Any]]]
) -> None:
    head = held.version(0.4)
    other = msgspec.structs.replace(head, id="f" * 16, signature="other")
    held.writer.route(challenger=challenger_of(other))
    until(lambda: follower.alarm)
    wanted = f"version {'f' * 16}: does not fit the head, wanted to be tried beside it"
    assert follower.alarm == f"refused {'f' * 16}: {wanted}"
    for percent in range(41, 44):
        held.version(percent / 100)
    until(lambda: number(follower) == 4)
    assert follower.arms.challenger is None
    assert [evidence["what"] for _, evidence in alarms] == ["challenger"]
    held.writer.route()
    until(lambda: not follower.alarm)


# What is much worse -------------------------------------------------------------------------------


LATE = [1.0] * 32


def test_a_version_that_is_much_worse_on_what_it_remembers_is_refused(
    held: Held, follower: LiveFollower, alarms: list[tuple[int, dict[str, Any]]]
) -> None:
    """The loss of 0.7 where all were late is 0.36, that of 0.2 is 1.61."""
    held.version(0.75)
    until(lambda: number(follower) == 1)
    held.version(0.2, LATE[:31])  # too few rows to say so
    until(lambda: number(follower) == 2)
    held.version(0.7, LATE)
    until(lambda: number(follower) == 3)
    worse = held.version(0.2, LATE)
    until(lambda: follower.alarm)
    held.version(0.21, LATE)
    until(lambda: follower.refused == 2)
    assert (number(follower), score(follower.live)) == (3, 0.7)
    ((at, evidence),) = alarms
    assert (at, evidence["name"]) == (4, worse.id)
    wanted = r"\(number 4\): self-check lost 1\.6094 on 32 rows, wanted at most 0\.5 more than the 0\.3567 of version"
    assert re.search(wanted, str(evidence["error"]))
    held.version(0.72, LATE)
    until(lambda: number(follower) == 6)
    assert follower.alarm == ""


def test_what_a_new_epoch_brings_was_decided_by_others(held: Held, follower: LiveFollower) -> None:
    held.version(0.75)
    until(lambda: number(follower) == 1)
    held.version(0.2, LATE, epoch=1)
    until(lambda: number(follower) == 2)
    assert follower.refused == 0


def test_a_compressed_form_that_is_much_worse_is_refused(held: Held, follower: LiveFollower) -> None:
    first = held.version(0.75, LATE)
    until(lambda: number(follower) == 1)
    held.writer.client.append(variant_of(first, onnx(held.writer.spec, 0.2)))
    until(lambda: "int8 of version" in follower.alarm)
    assert (score(follower.live), follower.live.variant) == (0.75, "fp32")  # type: ignore[union-attr]
    held.writer.client.append(variant_of(first, onnx(held.writer.spec, 0.74)))
    until(lambda: score(follower.live) == 0.74)
    assert follower.alarm == ""


def test_regression_is_checked_in_variances_of_the_label(embedded: str, app_name: str, tmp_path: Path) -> None:
    with writing(embedded, spec_of(app_name, "regression")) as writer:
        held = Held(writer, tmp_path)
        with following(embedded, app_name, held.registry) as follower:
            held.version(100.0)
            until(lambda: number(follower) == 1)
            held.version(105.0, [90.0, 110.0] * 16)  # 1.25 variances, 1.0 before
            until(lambda: number(follower) == 2)
            held.version(125.0, [90.0, 110.0] * 16)
            until(lambda: follower.refused)
            assert number(follower) == 2


def test_an_older_version_is_freed_after_its_last_call(held: Held, follower: LiveFollower) -> None:
    held.version(0.3)
    until(lambda: number(follower) == 1)
    call = follower.live
    assert call is not None
    old = weakref.ref(call.session)
    held.version(0.4)
    until(lambda: number(follower) == 2)
    assert score(call) == 0.3  # whoever has it keeps a whole one
    del call
    until(lambda: old() is None)
