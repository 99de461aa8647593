"""The topics of a model, made before anything flows, and how long they are: [topics] -> produce.

Auto-creation is off on well-run clusters, and would give the wrong settings: the models topic is
the lock (one partition, never compacted, never expired), predictions mirror the events' partitions.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError

from stream_app import kafka_clients
from stream_app.errors import BrokerError, TopicError
from stream_app.events import Topics

_WAIT_S = 15.0
_CONNECT_S = 1.0
_KAFKA_DEFAULT_BYTES = 1_048_588
"""Kafka's own max.message.bytes. It bounds a *batch*: below it ordinary producers are refused."""
_BATCH_MARGIN_BYTES = 4_096
"""Key, headers and batch header around the largest record."""
_MODELS_BYTES = 2_097_152 + _BATCH_MARGIN_BYTES
_UNKNOWN_TOPIC = 3  # UNKNOWN_TOPIC_OR_PARTITION, Kafka protocol guide


def connect(bootstrap_servers: str) -> None:
    """Try whether any of the brokers accepts a connection; Kafka's clients would try for long.

    Raises:
        BrokerError: none does.
    """
    said = ""
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
            return
        except (OSError, ValueError, OverflowError) as error:
            said = str(error)
    raise BrokerError(f"broker {bootstrap_servers!r}: {said}, wanted a connection")


def create_topics(
    bootstrap_servers: str,
    name: str,
    *,
    partitions: int,
    retention_s: int,
    max_record_bytes: int,
) -> None:
    """Create the topics of model ``name`` that are missing, and check those that are there.

    Several processes may call it at once. Settings of existing topics are left as their owner made
    them, but for what would lose data: the number of partitions, and compaction, are refused.

    Args:
        partitions: of events and predictions; the other topics have one.
        retention_s: how long the broker keeps events, predictions and dead letters; wall clock.
        max_record_bytes: largest event the broker must take.

    Raises:
        TopicError: an existing topic has other partitions, or is compacted.
        BrokerError: the broker does not answer or refuses.
    """
    wanted = _layout(Topics.of(name), partitions, retention_s, max_record_bytes)
    with _admin(bootstrap_servers) as admin:
        there = _describe(admin, wanted)
        for topic in wanted.keys() - there.keys():
            # One request each: of several, one that exists would fail them all.
            try:
                admin.create_topics({topic: wanted[topic]})
            except TopicAlreadyExistsError:
                pass  # another process was first; checked below like any other
        admin.wait_for_topics(list(wanted), timeout_ms=int(_WAIT_S * 1000))
        found = _describe(admin, wanted)
        for topic, settings in wanted.items():
            _check_partitions(topic, len(found[topic]["partitions"]), settings["num_partitions"])
        _check_not_compacted(admin, list(wanted))


def topic_ids(bootstrap_servers: str, topics: Iterable[str]) -> dict[str, str]:
    """The id each topic got when it was created: a topic recreated under its name has another one.

    Raises:
        TopicError: a topic is missing.
        BrokerError: the broker does not answer.
    """
    with _admin(bootstrap_servers) as admin:
        names = list(topics)
        found = _describe(admin, names)
    _check_there(names, found)
    return {n: str(found[n]["topic_id"]) for n in names}


def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """Per partition the offset that the next record will get.

    ListOffsets(latest) is not enough: the embedded broker answers it with the *first* offset of the
    last batch. The high watermark of a fetch response is right on every broker, so one fetch per
    partition follows, and the larger of the two counts.

    Raises:
        TopicError: the topic is missing.
        BrokerError: the broker does not answer.
    """
    with _assigned(bootstrap_servers, topic) as (consumer, tps):
        listed = consumer.end_offsets(tps, timeout_ms=int(_WAIT_S * 1000))
        marks = _high_watermarks(consumer, listed)
    return {tp.partition: max(listed[tp], marks[tp]) for tp in tps}


def beginning_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """Per partition the offset of the oldest record that is still there.

    Raises:
        TopicError: the topic is missing.
        BrokerError: the broker does not answer.
    """
    with _assigned(bootstrap_servers, topic) as (consumer, tps):
        first = consumer.beginning_offsets(tps, timeout_ms=int(_WAIT_S * 1000))
    return {tp.partition: first[tp] for tp in tps}


def _layout(topics: Topics, partitions: int, retention_s: int, max_record_bytes: int) -> dict[str, dict[str, Any]]:
    """Topic -> what ``KafkaAdminClient.create_topics`` takes."""
    largest = max_record_bytes + _BATCH_MARGIN_BYTES
    kept_ms = retention_s * 1000
    rows = (
        (topics.events, partitions, kept_ms, max(_KAFKA_DEFAULT_BYTES, largest)),
        (topics.predictions, partitions, kept_ms, _KAFKA_DEFAULT_BYTES),
        # Base64 makes 4 bytes of 3.
        (topics.dead_letters, 1, kept_ms, max(_KAFKA_DEFAULT_BYTES, largest * 4 // 3)),
        (topics.models, 1, -1, _MODELS_BYTES),
        (topics.decisions, 1, -1, _KAFKA_DEFAULT_BYTES),
    )
    return {
        topic: {
            "num_partitions": count,
            "replication_factor": -1,  # the cluster's default
            "configs": {
                "cleanup.policy": "delete",
                "retention.ms": str(retention_ms),
                "max.message.bytes": str(message_bytes),
                # Whatever a producer stamps (a replay may say 2013), retention and clock checks go by the broker's
                # clock. The embedded broker passes over this.
                "message.timestamp.type": "LogAppendTime",
            },
        }
        for topic, count, retention_ms, message_bytes in rows
    }


def _check_partitions(topic: str, got: int, wanted: int) -> None:
    if got != wanted:
        raise TopicError(
            f"topic {topic!r}: has {got} partition{'s' * (got != 1)}, wanted {wanted}; "
            "set stream.partitions to what is there, or use another model name"
        )


def _check_not_compacted(admin: KafkaAdminClient, topics: list[str]) -> None:
    """Compaction drops announcements and events that a fold or a replay needs."""
    reported = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, t) for t in topics])
    for topic, configs in reported.get("topic", {}).items():
        policy = configs.get("cleanup.policy", {}).get("value")  # the embedded broker reports none
        if policy and "compact" in str(policy):
            raise TopicError(
                f"topic {topic!r}: cleanup.policy is {policy!r}, wanted 'delete'; "
                "compaction removes records that recovery reads"
            )


def _check_there(topics: Iterable[str], found: dict[str, Any]) -> None:
    missing = [t for t in topics if t not in found]
    if missing:
        raise TopicError(f"topic {missing[0]!r}: is not there, wanted it created (the worker does so when it starts)")


def _describe(admin: KafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Those of the topics that exist."""
    rows = admin.describe_topics(list(topics))
    return {r["name"]: r for r in rows if r["error_code"] != _UNKNOWN_TOPIC}


def _high_watermarks(consumer: KafkaConsumer, listed: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
    """One fetch per partition at its listed end; the records in it (if any) are thrown away."""
    waiting = set(listed)
    for tp in waiting:
        consumer.seek(tp, listed[tp])
    deadline_s = time.monotonic() + _WAIT_S
    while waiting:
        consumer.poll(timeout_ms=5)
        seen = {tp for tp in waiting if consumer.highwater(tp) is not None}
        consumer.pause(*seen)
        waiting -= seen
        if waiting and time.monotonic() > deadline_s:
            raise BrokerError(f"broker: no answer to a fetch from {min(waiting)} in {_WAIT_S:g} s, wanted one")
    return {tp: int(consumer.highwater(tp)) for tp in listed}


@contextmanager
def _admin(bootstrap_servers: str) -> Iterator[KafkaAdminClient]:
    with kafka_clients.broker_errors(bootstrap_servers):
        client = kafka_clients.admin(bootstrap_servers, bootstrap_timeout_ms=int(_WAIT_S * 1000))
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _assigned(bootstrap_servers: str, topic: str) -> Iterator[tuple[KafkaConsumer, list[TopicPartition]]]:
    """A consumer without a group that owns every partition of the topic."""
    with _admin(bootstrap_servers) as admin:
        found = _describe(admin, [topic])
    _check_there([topic], found)
    tps = [TopicPartition(topic, p["partition_index"]) for p in found[topic]["partitions"]]
    with kafka_clients.broker_errors(bootstrap_servers):
        consumer = kafka_clients.consumer(
            bootstrap_servers,
            bootstrap_timeout_ms=int(_WAIT_S * 1000),
            fetch_max_wait_ms=10,  # an empty answer carries the high watermark too
            max_partition_fetch_bytes=1,  # brokers send one whole batch all the same
        )
        try:
            consumer.assign(tps)
            yield consumer, tps
        finally:
            consumer.close(autocommit=False)
