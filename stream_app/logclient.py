"""One process's eyes and hands on the models topic: consume -> [fold] -> head; announce -> read back."""

import logging
import time
from typing import Literal

import kafka

from stream_app import failpoints, kafka_clients
from stream_app.errors import ModelLogError
from stream_app.modellog import (
    Announcement,
    Change,
    Envelope,
    Fold,
    LogRecord,
    Route,
    decode_record,
    encode_record,
)
from stream_app.tail import Tail, TailError
from stream_app.topics import beginning_offsets, end_offsets

FETCH_BYTES = 16 << 20
TAIL_AGAIN_S = 5.0
"""After the broker did not simply answer; until then kafka-python asks it."""

log = logging.getLogger("stream_app.logclient")


class LogClient:
    """Follows and extends the models topic. One thread at a time.

    Args:
        bootstrap_servers: ``host:port`` of the broker, or several with commas.
        topic: the models topic; it must exist.
        wait_s: how long the broker may hold an answer back until there is something to tell. The embedded one may
            tell it only then.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, wait_s: float = 0.05) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._tp = kafka.TopicPartition(topic, 0)
        self._producer: kafka.KafkaProducer | None = None
        self._wait_s = wait_s
        self._tail: Tail | None = None
        self._tail_again_s = 0.0  # monotonic
        start = beginning_offsets(bootstrap_servers, topic).get(0)
        if start is None:
            raise ModelLogError(f"topic {topic!r} does not exist; `stream-app worker` creates it")
        self._consumer = kafka_clients.consumer(
            bootstrap_servers,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=int(wait_s * 1000),
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_bytes=2 * FETCH_BYTES,
        )
        self._begin(start)

    def _begin(self, start: int) -> None:
        self._consumer.assign([self._tp])
        self._consumer.seek(self._tp, start)
        self._next = start
        self.fold = Fold(start)

    @property
    def head(self) -> Envelope | None:
        return self.fold.head

    def position(self) -> int:
        """The next offset this client will read."""
        return int(self._consumer.position(self._tp))

    def poll(self, timeout_s: float = 0.1) -> list[Change]:
        """Fold what has arrived; returns the changes that count, waiting up to ``timeout_s`` for the first."""
        batches = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [c for r in batches.get(self._tp, ()) if (c := self._apply(r.offset, r.value))]

    def follow(self, timeout_s: float = 0.1) -> list[Change]:
        """As ``poll``, for a tenth of the work, if this client has caught up and does nothing but follow."""
        if time.monotonic() < self._tail_again_s:
            return self.poll(timeout_s)
        try:
            if self._tail is None:
                self._tail = self._tailing()
            records = self._tail.read(self._next)
        except TailError as error:
            log.info("%s: %s", self._topic, error)
            self._let_go()
            self._tail_again_s = time.monotonic() + TAIL_AGAIN_S
            self._consumer.seek(self._tp, self._next)
            return self.poll(timeout_s)
        return [c for offset, value in records if (c := self._apply(offset, value))]

    def _tailing(self) -> Tail:
        """At the partition's leader, as kafka-python knows it."""
        cluster = self._consumer._client.cluster
        leader = cluster.broker_metadata(cluster.leader_for_partition(self._tp))
        if leader is None:
            raise TailError("broker: nobody leads, wanted a leader")
        return Tail(leader.host, leader.port, self._topic, wait_s=self._wait_s, most_bytes=FETCH_BYTES)

    def _let_go(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    def catch_up(self, silence_s: float = 30.0) -> list[Change]:
        """Fold to the end offset that the log has now (rule 17); returns the changes that count.

        Args:
            silence_s: how long the broker may deliver nothing, though more is there.

        Raises:
            ModelLogError: it delivered nothing for longer.
        """
        end = end_offsets(self._bootstrap_servers, self._topic)[0]
        if end < self.position():
            log.warning("%s: ends at %d, was read up to %d: created anew", self._topic, end, self.position())
            self._begin(beginning_offsets(self._bootstrap_servers, self._topic)[0])
        at, moved_s, changes = self.position(), time.monotonic(), list[Change]()
        while at < end:
            changes += self.poll(0.1)
            if self.position() > at:
                at, moved_s = self.position(), time.monotonic()
            elif time.monotonic() - moved_s > silence_s:
                raise ModelLogError(
                    f"{self._topic}: nothing came for {silence_s:g} s at offset {at}, wanted up to {end}"
                )
        return changes

    def append(self, record: LogRecord, timeout_s: float = 10.0) -> int:
        """Write one record and return its offset, once the broker has acknowledged it."""
        if self._producer is None:
            self._producer = kafka_clients.producer(self._bootstrap_servers, max_request_size=8 << 20)
        sent = self._producer.send(self._topic, encode_record(record), partition=0)
        self._producer.flush(timeout=timeout_s)
        return int(sent.get(timeout=timeout_s).offset)

    def announce(
        self,
        kind: Literal["version", "promotion", "epoch", "adoption"],
        envelope: Envelope,
        data: bytes,
        *,
        inline_bytes: int,
        between: bool = False,
    ) -> bool:
        """Propose a durable version behind the head as read here; ``data``, its artefact, goes along if it is small.

        Args:
            between: but not now: the next one's will.
        """
        small = 0 < len(data) <= inline_bytes
        return self.propose(
            Announcement(
                kind=kind,
                envelope=envelope,
                parent_envelope=self.fold.head,
                parent_at=self.fold.head_at,
                inline=data if small and not between else None,
                between=small and between,
                route=self.fold.route,
                route_at=self.fold.route_at,
            )
        )

    def propose(self, wish: Announcement, timeout_s: float = 30.0) -> bool:
        """Announce until the log shows that ``wish`` has become the head, or a rival (rules 14, 15).

        Returns:
            True if it has, whatever has come after it; False if the log has moved on without it.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            at = self._try_append(wish)
            failpoints.reach("announced")
            while at is not None and self.position() <= at and time.monotonic() < deadline:
                self.poll(0.05)
            if self.fold.counted(wish.envelope.id, wish.parent_at):
                return True
            if at is not None or not self.fold.counts(wish):
                return False
        raise ModelLogError(f"version {wish.envelope.id} was not acknowledged in {timeout_s:g} s")

    def reroute(self, route: Route, timeout_s: float = 30.0) -> bool:
        """Append a route behind the one read here, until the log shows what became of it; whether it counts.

        Raises:
            ModelLogError: it was not acknowledged.
        """
        deadline = time.monotonic() + timeout_s
        written = encode_record(decode_record(encode_record(route)))  # as bytes: NaN equals no NaN
        while time.monotonic() < deadline:
            at = self._try_append(route)
            while at is not None and self.position() <= at and time.monotonic() < deadline:
                self.poll(0.05)
            if self.fold.route and encode_record(self.fold.route) == written:
                return True
            if self.fold.route_at != route.after:
                return False
        raise ModelLogError(f"{self._topic}: the route was not acknowledged in {timeout_s:g} s")

    def _try_append(self, wish: Announcement | Route) -> int | None:
        try:
            return self.append(wish)
        except kafka.errors.KafkaError:
            self.poll(0.5)
            return None

    def trim(self) -> bool:
        """Delete what lies before the oldest version in the fold's history; the topic is never compacted (rule 16).

        Returns:
            False if the broker cannot (the embedded one cannot, and its log is gone with it anyway).
        """
        if not self.fold.history:
            return False
        oldest, _ = self.fold.history[0]
        try:
            with kafka_clients.admin(self._bootstrap_servers) as client:
                client.delete_records({self._tp: oldest})
        except kafka.errors.KafkaError as error:
            log.info("%s is not trimmed: %s", self._topic, error)
            return False
        return True

    def _apply(self, at: int, value: bytes) -> Change | None:
        if at != self._next:  # trimmed past our position, or created anew: fold what is there
            log.warning("%s: offset %d came, wanted %d; folding anew", self._topic, at, self._next)
            self.fold = Fold(at)
        self._next = at + 1
        try:
            return self.fold.apply(at, decode_record(value))
        except ValueError:  # msgspec's decode and validation errors
            self.fold.ignored += 1
            return None

    def close(self) -> None:
        self._let_go()
        self._consumer.close()
        if self._producer is not None:
            self._producer.close(timeout=5)
