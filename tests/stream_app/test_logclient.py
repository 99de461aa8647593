"""The models topic through a real broker: propose, rivals, catching up, trimming."""

from collections.abc import Iterator
from contextlib import closing
from typing import NoReturn

import msgspec
import pytest
from kafka.errors import KafkaTimeoutError

from stream_app import kafka_clients
from stream_app.errors import BrokerError
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.modellog import HISTORY, Announcement, Envelope, Hyper
from stream_app.topics import beginning_offsets, create_topics
from tests.broker.apache_kafka import ApacheKafka
from tests.stream_app.versions import until


@pytest.fixture
def topic(bootstrap_servers: str, app_name: str) -> str:
    create_topics(bootstrap_servers, app_name, partitions=1, retention_s=86_400, max_record_bytes=65_536)
    return Topics.of(app_name).models


@pytest.fixture
def log(bootstrap_servers: str, topic: str) -> Iterator[LogClient]:
    client = LogClient(bootstrap_servers, topic)
    yield client
    client.close()


def envelope(id_: str, parent: Envelope | None, offset: int = 0) -> Envelope:
    return Envelope(
        id=id_,
        number=0,
        epoch=1,
        parent=parent.id if parent else None,
        offsets={0: offset},
        replay_from={0: (0, 0.0)},
        predictions_from={0: 0},
        artefact=f"versions/{id_}",
        sha256="",
        size_bytes=0,
        signature="",
        topic_ids={},
        labels=offset,
        hyper=Hyper(learning_rate=0.1, half_life_events=1.0),
        reference=None,
        ledger={},
        metrics={},
        created_s=0.0,
    )


def wish(client: LogClient, id_: str, offset: int = 0) -> Announcement:
    head = client.head
    return Announcement(
        kind="version", envelope=envelope(id_, head, offset), parent_envelope=head, parent_at=client.fold.head_at
    )


def test_a_version_is_the_head_once_it_is_read_back(bootstrap_servers: str, topic: str, log: LogClient) -> None:
    assert log.propose(wish(log, "a"))
    assert log.propose(wish(log, "b"))

    reader = LogClient(bootstrap_servers, topic)
    reader.catch_up()
    assert reader.head == log.head
    assert reader.head is not None
    assert (reader.head.id, reader.head.number) == ("b", 2)
    reader.close()


def test_of_two_children_of_one_parent_the_first_counts(bootstrap_servers: str, topic: str, log: LogClient) -> None:
    rival = LogClient(bootstrap_servers, topic)
    assert log.propose(wish(log, "a"))
    rival.catch_up()
    mine, theirs = wish(log, "mine"), wish(rival, "theirs")

    assert rival.propose(theirs)
    assert not log.propose(mine)
    assert log.head == rival.head
    rival.close()


def test_a_record_that_is_no_announcement_is_passed_over(bootstrap_servers: str, topic: str, log: LogClient) -> None:
    from tests.streams import produce_raw

    log.propose(wish(log, "a"))
    produce_raw(bootstrap_servers, topic, 0, [b"not msgpack", b"\x80"])

    assert log.propose(wish(log, "b"))
    assert log.fold.ignored == 2


def test_a_trimmed_log_folds_to_the_same_head(bootstrap_servers: str, topic: str, log: LogClient) -> None:
    for i in range(HISTORY + 6):
        assert log.propose(wish(log, f"v{i}", i))
    trimmed = log.trim()

    reader = LogClient(bootstrap_servers, topic)
    reader.catch_up()
    assert reader.head == log.head
    assert beginning_offsets(bootstrap_servers, topic)[0] == (6 if trimmed else 0)
    assert log.propose(wish(log, "next", 1000))  # the trimming client itself goes on
    reader.close()


def test_a_trim_that_failed_once_is_tried_again(
    apache_kafka: ApacheKafka, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = apache_kafka.bootstrap_servers
    create_topics(servers, app_name, partitions=1, retention_s=86_400, max_record_bytes=65_536)
    log = LogClient(servers, Topics.of(app_name).models)
    assert log.propose(wish(log, "v", 1))
    with monkeypatch.context() as patched:
        patched.setattr(kafka_clients, "admin", _refuses)
        assert not log.trim()

    assert log.trim()
    log.close()


def _refuses(bootstrap_servers: str) -> NoReturn:
    raise KafkaTimeoutError("no answer")


def test_a_follower_that_slept_through_a_trim_folds_what_is_left(
    bootstrap_servers: str, topic: str, log: LogClient
) -> None:
    sleeper = LogClient(bootstrap_servers, topic)
    for i in range(HISTORY + 6):
        log.propose(wish(log, f"v{i}", i))
    log.trim()

    sleeper.catch_up()

    assert msgspec.structs.replace(sleeper.head, number=0) == msgspec.structs.replace(log.head, number=0)  # type: ignore[type-var]
    sleeper.close()


def test_a_follower_of_a_topic_that_was_created_anew_folds_the_new_one(
    bootstrap_servers: str, app_name: str, topic: str, log: LogClient
) -> None:
    for i in range(3):
        assert log.propose(wish(log, f"v{i}", i))
    with kafka_clients.admin(bootstrap_servers) as client:
        client.delete_topics([topic])
    create_topics(bootstrap_servers, app_name, partitions=1, retention_s=86_400, max_record_bytes=65_536)
    writer = LogClient(bootstrap_servers, topic)
    assert writer.propose(wish(writer, "anew", 0))

    log.catch_up()

    assert log.head == writer.head
    writer.close()


def test_a_missing_topic_is_named(bootstrap_servers: str) -> None:
    with pytest.raises(BrokerError, match="nowhere"):
        LogClient(bootstrap_servers, "nowhere.models")


def test_who_follows_learns_what_who_polls_does(bootstrap_servers: str, topic: str, log: LogClient) -> None:
    assert log.propose(wish(log, "a"))
    with closing(LogClient(bootstrap_servers, topic, wait_s=0.02)) as reader:
        reader.catch_up()
        assert reader.follow() == []
        large = msgspec.structs.replace(wish(log, "b"), inline=bytes(300_000))
        assert log.propose(large)
        until(lambda: bool(reader.follow()) and reader.head == log.head)
        assert reader.fold.inline is not None
        assert reader.fold.inline.data == bytes(300_000)
        for id_ in "cd":
            assert log.propose(wish(log, id_))
        until(lambda: bool(reader.follow()) and reader.head == log.head)
        assert reader._tail is not None  # kafka-python had nothing to do


def test_who_follows_goes_on_where_the_connection_breaks(
    bootstrap_servers: str, topic: str, log: LogClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(LogClient(bootstrap_servers, topic, wait_s=0.02)) as reader:
        reader.catch_up()
        reader.follow()
        for id_ in "ab":
            assert reader._tail is not None
            reader._tail.close()
            assert log.propose(wish(log, id_))
            until(lambda: bool(reader.follow()) and reader.head == log.head)
            assert reader._tail is None  # kafka-python has read it
            monkeypatch.setattr(reader, "_tail_again_s", 0.0)
            assert reader.follow() == []


def test_who_follows_folds_what_is_left_of_a_log_that_was_trimmed_meanwhile(
    bootstrap_servers: str, topic: str, log: LogClient
) -> None:
    with closing(LogClient(bootstrap_servers, topic, wait_s=0.02)) as reader:
        reader.catch_up()
        for i in range(HISTORY + 6):
            assert log.propose(wish(log, f"v{i}", i))
        log.trim()
        until(lambda: bool(reader.follow()) and reader.head == log.head)
