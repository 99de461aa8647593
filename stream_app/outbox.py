"""What a worker says on its way to the topics: [predictions, dead letters, decisions] -> producer -> acknowledged."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiokafka
import msgspec

from stream_app import failpoints
from stream_app.columns import BadRow, split
from stream_app.events import KEEP_LETTER_BYTES, DeadLetter, Decision, Topics
from stream_app.learn import Taken
from stream_app.modellog import Envelope
from stream_app.predictions import Trail, encode_blocks
from stream_app.seed import Written

log = logging.getLogger("stream_app.worker")

KEEP_REASON_CHARACTERS = 1_000
"""A reason may quote the record: whole, it would not fit into a letter, and no restart would help."""


class Sent(NamedTuple):
    """A predictions record under way."""

    partition: int
    last_event: int
    ack: "asyncio.Future[Any]"


class UnderWay(NamedTuple):
    """What has been sent up to some moment; a version that covers it waits for it."""

    sent: tuple[Sent, ...]
    letters: "tuple[asyncio.Future[Any], ...]"
    trails: dict[int, Trail]


class Outbox:
    """One worker's producer.

    Args:
        topics: of the model.
        events_id: the broker's id of the events topic.
        bootstrap_servers: of the broker.
    """

    def __init__(self, topics: Topics, events_id: str, bootstrap_servers: str) -> None:
        self._topics, self._events_id, self._bootstrap_servers = topics, events_id, bootstrap_servers
        self._producer: Any = None
        self._trails: dict[int, Trail] = {}
        self._written: set[Written] = set()
        self._sent: list[Sent] = []
        self._letters: list[asyncio.Future[Any]] = []

    async def start(self) -> None:
        # Not idempotent (the embedded broker refuses aiokafka's request for an id). A retry may write a record
        # twice: it then looks like a stranger's between ours, and the worker begins again from the head.
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers.split(","), acks="all", linger_ms=0
        )
        await self._producer.start()

    async def stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    def begin(self, trails: dict[int, Trail], written: set[Written]) -> None:
        """Go on behind what the topics have: predictions per partition, and dead letters of what may be met again."""
        self._trails, self._written = trails, written

    async def settle(self) -> None:
        """Wait for what is still under way, so that reading the predictions to their end sees it."""
        await asyncio.gather(*(s.ack for s in self._sent), *self._letters, return_exceptions=True)
        self._sent, self._letters = [], []

    # --- saying -----------------------------------------------------------------------------------------

    async def say(self, partition: int, taken: Taken, head: Envelope) -> None:
        """All that came out of a chunk; ``head`` was the newest version then."""
        for value in encode_blocks(taken.predictions, head.id):
            ack = await self._producer.send(self._topics.predictions, value, partition=partition)
            last_event, _ = split(int(taken.predictions[-1].positions[-1]))
            self._sent.append(Sent(partition, last_event, ack))
        failpoints.reach("said")
        for bad in taken.bad:
            await self._send_letter(partition, bad)
        for drift in taken.drifts:
            await self.decide("drift", head.number, drift.evidence())
        for recall in taken.recalls:
            await self.decide("recalled", head.number, recall.evidence())

    async def _send_letter(self, partition: int, bad: BadRow) -> None:
        topic, reason, value = self._topics.events, bad.reason[:KEEP_REASON_CHARACTERS], bad.value[:KEEP_LETTER_BYTES]
        written = Written(partition, bad.offset, bad.row)
        place = "/".join(str(part) for part in (topic, *written) if part is not None)
        log.warning("dead letter: %s: %s", place, reason)
        if written in self._written:
            return
        letter = DeadLetter(
            topic=topic,
            topic_id=self._events_id,
            partition=partition,
            offset=bad.offset,
            row=bad.row,
            reason=reason,
            value=value,
        )
        sent = self._producer.send(self._topics.dead_letters, msgspec.json.encode(letter), key=place.encode())
        self._letters.append(await sent)
        self._written.add(written)

    async def decide(self, kind: str, version: int, evidence: dict[str, Any]) -> None:
        """Put a decision on record; ``version`` is the head's number."""
        decision = Decision(kind=kind, at_s=time.time(), version=version, evidence=evidence)
        await self._producer.send(self._topics.decisions, msgspec.json.encode(decision))

    # --- waiting for it ---------------------------------------------------------------------------------

    def under_way(self) -> UnderWay:
        return UnderWay(tuple(self._sent), tuple(self._letters), self._trails)

    def done(self, under_way: UnderWay) -> None:
        """All of it is acknowledged."""
        del self._sent[: len(under_way.sent)]
        del self._letters[: len(under_way.letters)]

    def covered(self, offsets: Mapping[int, int]) -> None:
        """A version is the head that has learned up to these: what lies before will not be met again."""
        self._written = {w for w in self._written if w.offset >= offsets[w.partition]}

    def leave(self, partition: int) -> None:
        """Another worker says what is to say of it from now on."""
        del self._trails[partition]


async def acknowledged(under_way: UnderWay) -> str | None:
    """Wait until all of it is in the log (rule 8); says so if a stranger's predictions lie between ours (rule 9)."""
    await asyncio.gather(*under_way.letters)
    for s in under_way.sent:
        at, trail = (await s.ack).offset, under_way.trails[s.partition]
        if at != trail.next_offset:
            return f"predictions/{s.partition} has a stranger's records before offset {at}"
        trail.add(at, s.last_event)
    return None
