"""The newest version that works becomes live, and stays when something breaks."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
    artefact,
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
