"""How far the newest version is behind: end offsets - [lag] <- models log.

    model_offset      next event to take effect, as the newest durable version says; lag counts from here
    committed_offset  what the consumer group told the broker; only a lower bound, shown beside it

Faust's own figure counts what was *read*: a stuck worker that has read ahead looks healthy there.
"""

import json
import time
from contextlib import closing
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError
from rich.console import Console, Group, RenderableType
from rich.table import Table

from stream_app import kafka_clients
from stream_app.errors import BrokerError, TopicError
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.topics import beginning_offsets, connect, end_offsets, topic_ids

_ANSWER_S = 15.0


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of the events topic."""

    partition: int
    end_offset: int
    """The offset that the next record will get."""
    model_offset: int
    """The newest version has seen exactly the records before it."""
    committed_offset: int | None
    """What the worker's group committed; None before its first commit."""
    lag_events: int
    """Records that are in no version yet."""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """All partitions of the events topic, against one version."""

    topic: str
    group: str
    version: int
    """Number of the head; 0 while there is none, then everything in the topic is lag."""
    created_s: float | None
    """When that version was made; wall clock."""
    partitions: tuple[PartitionLag, ...]

    @property
    def lag_events(self) -> int:
        """Over all partitions."""
        return sum(p.lag_events for p in self.partitions)


def worker_group(name: str) -> str:
    """The consumer group of the model's workers."""
    return f"{name}.worker"


def lag(bootstrap_servers: str, topics: Topics, head: Envelope | None, group: str) -> Lag:
    """The events topic's end against what ``head``, read before this call, has seen.

    Raises:
        TopicError: the two do not belong together (missing, recreated, shorter, trimmed): a number
            would mean nothing.
        BrokerError: the broker does not answer.
    """
    topic = topics.events
    if head is not None:
        _check_same(bootstrap_servers, topic, head)
    ends = end_offsets(bootstrap_servers, topic)
    begins = beginning_offsets(bootstrap_servers, topic)
    seen = begins if head is None else head.offsets
    if head is not None:
        _check_offsets(topic, head, begins, ends)
    committed = committed_offsets(bootstrap_servers, topic, group)
    return Lag(
        topic=topic,
        group=group,
        version=head.number if head else 0,
        created_s=head.created_s if head else None,
        partitions=tuple(
            PartitionLag(
                partition=p,
                end_offset=ends[p],
                model_offset=seen[p],
                committed_offset=committed.get(p),
                lag_events=ends[p] - seen[p],
            )
            for p in sorted(ends)
        ),
    )


def committed_offsets(bootstrap_servers: str, topic: str, group: str) -> dict[int, int]:
    """What the group committed, per partition of the topic; partitions without a commit are absent.

    Raises:
        BrokerError: the broker does not answer.
    """
    try:
        with closing(kafka_clients.admin(bootstrap_servers, bootstrap_timeout_ms=int(_ANSWER_S * 1000))) as client:
            found: dict[TopicPartition, Any] = client.list_group_offsets(group)[group]
    except KafkaError as error:
        raise BrokerError(f"broker {bootstrap_servers!r}: {error}, wanted an answer") from error
    return {tp.partition: o.offset for tp, o in found.items() if tp.topic == topic and o.offset >= 0}


def _check_same(bootstrap_servers: str, topic: str, head: Envelope) -> None:
    got, wanted = topic_ids(bootstrap_servers, [topic])[topic], head.topic_ids.get(topic)
    if wanted is not None and got != wanted:
        raise TopicError(
            f"topic {topic!r}: has id {got}, wanted {wanted} as version {head.number} knows it; it "
            "was created anew, so the version's offsets mean nothing in it"
        )


def _check_offsets(topic: str, head: Envelope, begins: dict[int, int], ends: dict[int, int]) -> None:
    if head.offsets.keys() != ends.keys():
        raise TopicError(
            f"topic {topic!r}: has partitions {sorted(ends)}, wanted {sorted(head.offsets)} as "
            f"version {head.number} knows it"
        )
    for p, seen in sorted(head.offsets.items()):
        if seen > ends[p]:
            raise TopicError(
                f"topic {topic!r} partition {p}: ends at offset {ends[p]}, wanted at least {seen}, "
                f"which version {head.number} has seen; the broker lost its log"
            )
        if seen < begins[p]:
            raise TopicError(
                f"topic {topic!r} partition {p}: begins at offset {begins[p]}, wanted at most "
                f"{seen}, the next one for version {head.number}; {begins[p] - seen} records were "
                "deleted before they were learned"
            )


# The command --------------------------------------------------------------------------------------


def run(name: str, *, bootstrap_servers: str, as_json: bool, watch_s: float | None) -> int:
    """``stream-app lag``: print it once, or every ``watch_s`` seconds until Ctrl-C.

    Raises:
        TopicError: as for ``lag``; while watching it is printed, and the watch goes on.
        BrokerError: likewise.
    """
    if watch_s is None:
        _show(_current(name, bootstrap_servers), as_json)
        return 0
    while True:
        try:
            _show(_current(name, bootstrap_servers), as_json)
        except BrokerError as error:
            print(json.dumps({"error": str(error)}) if as_json else f"lag: {error}", flush=True)
        time.sleep(watch_s)


def _current(name: str, bootstrap_servers: str) -> Lag:
    topics = Topics.of(name)
    connect(bootstrap_servers)
    topic_ids(bootstrap_servers, [topics.events, topics.models])  # a missing one is named
    with closing(LogClient(bootstrap_servers, topics.models)) as log:
        log.catch_up()
        head = log.head
    return lag(bootstrap_servers, topics, head, worker_group(name))


def _show(found: Lag, as_json: bool) -> None:
    now_s = time.time()
    if as_json:
        print(json.dumps(as_dict(found, now_s)), flush=True)
    else:
        Console().print(as_table(found, now_s))


def as_dict(found: Lag, now_s: float) -> dict[str, Any]:
    """What ``--json`` prints."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    age_s = None if found.created_s is None else round(max(now_s - found.created_s, 0.0), 3)
    return plain | {"lag_events": found.lag_events, "version_age_s": age_s}


def as_table(found: Lag, now_s: float) -> RenderableType:
    """What people see."""
    table = Table("partition", "end", "model", "committed", "lag", show_footer=True)
    for column, footer in zip(table.columns, ("all", "", "", "", f"{found.lag_events:,}"), strict=True):
        column.justify, column.footer = "right", footer
    for p in found.partitions:
        committed = "-" if p.committed_offset is None else f"{p.committed_offset:,}"
        offsets = (f"{p.end_offset:,}", f"{p.model_offset:,}", committed, f"{p.lag_events:,}")
        table.add_row(str(p.partition), *offsets)
    return Group(f"{found.topic}: {_version(found, now_s)}", table)


def _version(found: Lag, now_s: float) -> str:
    if found.created_s is None:
        return "no version yet"
    return f"version {found.version}, {max(now_s - found.created_s, 0.0):,.1f} s old"
