"""Dead letters, and their way back: [dead-letters, decisions] -> letters -> chosen -> redrive -> events, decisions.

A letter is sent again at most once, whoever asks and whoever dies: first a claim goes to the decisions topic, whose
order is the lock; only the first claim of a letter sends; what was sent is put on record with its new offset. A claim
without that record belongs to someone who is at it, or who died: whether the record arrived is then unknown. Both are
refused, unless the caller says ``again``.
"""

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

import msgspec
from kafka.errors import KafkaError

from stream_app import kafka_clients
from stream_app.decisions import Evidence
from stream_app.errors import DeliveryError, LetterError
from stream_app.events import CONTENT_TYPE, KEEP_LETTER_BYTES, ContentType, DeadLetter, Decision, Topics
from stream_app.logclient import LogClient
from stream_app.replay import Reader
from stream_app.topics import topic_ids

LETTER_HEADER = "dead-letter"
"""Header of a record that was sent again: the key of its letter."""
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\b\d[\w.+-]*")
_SENT_S = 30.0
_LARGEST_BYTES = 32 << 20

Headers = list[tuple[str, bytes]]
T = TypeVar("T")


class Place(NamedTuple):
    """What a letter is about; letters of one place are one letter, however often they were written."""

    topic_id: str
    partition: int
    offset: int
    row: int | None


class Redrive(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest fact about a letter's way back."""

    at_s: float
    """Wall clock."""
    by: str
    sent_to: int | None = None
    """Its new offset, in the letter's partition; None: begun, and never put on record as sent."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter as people see it."""

    said: DeadLetter
    at_s: float
    """When the broker got it; wall clock."""
    redriven: Redrive | None = None

    @property
    def key(self) -> str:
        said = self.said
        return "/".join(str(p) for p in (said.topic, said.partition, said.offset, said.row) if p is not None)

    @property
    def place(self) -> Place:
        return Place(self.said.topic_id, self.said.partition, self.said.offset, self.said.row)

    @property
    def order(self) -> tuple[int, int, int]:
        """As the originals lay in the log."""
        return self.said.partition, self.said.offset, self.said.row or 0

    @property
    def truncated(self) -> bool:
        """Whether the letter may hold only the beginning."""
        return len(self.said.value) >= KEEP_LETTER_BYTES


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters; what is left out does not matter."""

    topic: str | None = None
    partition: int | None = None
    reason: str | None = None
    """A part of it, in any case."""
    since_s: float | None = None
    """Wall clock."""
    keys: frozenset[str] = frozenset()

    def takes(self, letter: Letter) -> bool:
        said = letter.said
        return (
            self.topic in (None, said.topic)
            and self.partition in (None, said.partition)
            and (self.reason is None or self.reason.lower() in said.reason.lower())
            and (self.since_s is None or letter.at_s >= self.since_s)
            and (not self.keys or letter.key in self.keys)
        )


class Parcel(NamedTuple):
    """What is sent in a letter's stead."""

    letter: Letter
    value: bytes
    key: bytes | None
    headers: Headers
    repaired: bool


def by_reason(letters: Iterable[Letter]) -> list[tuple[str, int]]:
    """How many letters of each reason, the most frequent first; what they quote, and numbers, make no other reason."""
    return Counter(_QUOTED.sub("…", letter.said.reason) for letter in letters).most_common()


class Letters:
    """One model's dead letters.

    Args:
        bootstrap_servers: of the broker.
        topics: of the model.
        by: who asks.

    Raises:
        TopicError: the topics are not there.
    """

    def __init__(
        self, bootstrap_servers: str, topics: Topics, *, by: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._bootstrap_servers, self._topics, self._by, self._clock = bootstrap_servers, topics, by, clock
        self._events_id = topic_ids(bootstrap_servers, [topics.events])[topics.events]
        self._reader = Reader(bootstrap_servers)

    def close(self) -> None:
        self._reader.close()

    def found(self, choice: Choice = Choice()) -> list[Letter]:  # noqa: B008, a frozen value
        """The letters that are chosen, each once, the oldest first."""
        redriven, found = self._redriven(), dict[Place, Letter]()
        for record in self._records(self._topics.dead_letters):
            if (said := _decoded(record.value, DeadLetter)) is not None:
                letter = Letter(said=said, at_s=record.timestamp / 1000)
                found.setdefault(letter.place, letter)
        known = (msgspec.structs.replace(x, redriven=redriven.get(place)) for place, x in found.items())
        return [letter for letter in known if choice.takes(letter)]

    # --- the way back -------------------------------------------------------------------------------------

    def parcel(self, letter: Letter, value: bytes | None = None, content_type: str | None = None) -> Parcel:
        """What would be sent: the record as it lies on the events topic, or of one row what the letter keeps.

        Args:
            value: sent instead, if someone repaired it.
            content_type: of ``value``; by default as the original's, which of a row is JSON.

        Raises:
            LetterError: the original is gone, or the letter keeps only its beginning.
        """
        original = self._original(letter) if letter.said.row is None else None
        whole = value if value is not None else self._whole(letter, original)
        headers = list(original.headers) if original is not None else [(CONTENT_TYPE, ContentType.JSON.encode())]
        if content_type is not None:
            headers = [h for h in headers if h[0].lower() != CONTENT_TYPE] + [(CONTENT_TYPE, content_type.encode())]
        headers = [h for h in headers if h[0] != LETTER_HEADER] + [(LETTER_HEADER, letter.key.encode())]
        key = original.key if original is not None else None
        return Parcel(letter, whole, key, headers, repaired=value is not None)

    def _whole(self, letter: Letter, original: Any | None) -> bytes:
        if letter.said.row is None:
            if original is None or original.value is None:
                gone = "its record is no longer on the events topic" if original is None else "its record is empty"
                raise LetterError(f"letter {letter.key}: {gone}, wanted a value (--value FILE)")
            return bytes(original.value)
        if letter.truncated:
            raise LetterError(
                f"letter {letter.key}: only the first {KEEP_LETTER_BYTES} bytes of the row were kept, which cannot be "
                "sent again; wanted a whole value (--value FILE)"
            )
        return letter.said.value

    def refusal(self, letter: Letter) -> str:
        """Why a letter is not to be sent again; empty if nothing speaks against it."""
        before = letter.redriven
        if before is None:
            return ""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(before.at_s))
        if before.sent_to is not None:
            return f"letter {letter.key} was sent again at {at} by {before.by}, as offset {before.sent_to}"
        return f"letter {letter.key}: {before.by} began to send it again at {at}; whether it arrived is not on record"

    def redrive(self, parcels: Sequence[Parcel], *, again: bool = False) -> list[tuple[Letter, int]]:
        """Send parcels to the events topic, in the order of the originals, each to the partition it came from.

        Args:
            again: also those that were sent, or begun to be, before.

        Returns:
            Each letter and its new offset.

        Raises:
            LetterError: one was sent before, and nothing of this call is sent; or someone else began with one at the
                same time, and the others are sent.
            DeliveryError: the broker did not take one; those before it are sent and on record.
        """
        for parcel in parcels:
            if not again and (why := self.refusal(parcel.letter)):
                raise LetterError(f"{why}; --again sends it another time")
        claim, head, sent = secrets.token_hex(8), self._head_number(), []
        with closing(kafka_clients.producer(self._bootstrap_servers, max_request_size=_LARGEST_BYTES)) as producer:
            self._record(producer, "redriving", head, [self._fact(p, claim) for p in parcels])
            theirs = {} if again else self._claimed_by_others([p.letter.place for p in parcels], claim)
            for parcel in sorted(parcels, key=lambda p: p.letter.order):
                if parcel.letter.place not in theirs:
                    offset = self._send(producer, parcel)
                    self._record(producer, "redriven", head, [self._fact(parcel, claim) | {"sent_to": offset}])
                    sent.append((parcel.letter, offset))
        if theirs:
            said = ", ".join(f"{p.letter.key} by {theirs[p.letter.place]}" for p in parcels if p.letter.place in theirs)
            raise LetterError(f"sent again at this moment by someone else: {said}; the other {len(sent)} are sent")
        return sent

    def _send(self, producer: Any, parcel: Parcel) -> int:
        said = parcel.letter.said
        try:
            sent = producer.send(
                self._topics.events, parcel.value, parcel.key, headers=parcel.headers, partition=said.partition
            )
            producer.flush(timeout=_SENT_S)
            return int(sent.get(timeout=_SENT_S).offset)
        except KafkaError as error:
            raise DeliveryError(f"letter {parcel.letter.key}: {error!r}, wanted it on {self._topics.events}") from error

    def _fact(self, parcel: Parcel, claim: str) -> Evidence:
        said = parcel.letter.said
        return {
            "letter": parcel.letter.key,
            "topic_id": said.topic_id,
            "partition": said.partition,
            "offset": said.offset,
            "row": said.row,
            "repaired": parcel.repaired,
            "by": self._by,
            "claim": claim,
        }

    def _record(self, producer: Any, kind: str, version: int, facts: Iterable[Evidence]) -> None:
        decisions = [Decision(kind=kind, at_s=self._clock(), version=version, evidence=fact) for fact in facts]
        sent = [
            producer.send(
                self._topics.decisions,
                msgspec.json.encode(d),
                headers=[(LETTER_HEADER, str(d.evidence["letter"]).encode())],
            )
            for d in decisions
        ]
        producer.flush(timeout=_SENT_S)
        for s in sent:
            s.get(timeout=_SENT_S)

    def _claimed_by_others(self, places: Sequence[Place], claim: str) -> dict[Place, str]:
        """Of the letters that someone else claimed between our look and our claim: who."""
        first: dict[Place, Decision] = {}
        for decision in self._decisions():
            if (place := _place(decision)) is not None:
                first.setdefault(place, decision)
        return {p: str(e.get("by")) for p in places if (e := first[p].evidence).get("claim") != claim}

    # --- what the topics say ------------------------------------------------------------------------------

    def _original(self, letter: Letter) -> Any | None:
        """The record that the letter is about, if it is still there."""
        said = letter.said
        if said.topic != self._topics.events or said.topic_id != self._events_id:
            return None
        begin = self._reader.begin(said.topic, said.partition)
        if said.offset < begin:
            return None
        batch = self._reader.range(said.topic, said.partition, said.offset, said.offset + 1)
        return batch[0] if batch else None

    def _redriven(self) -> dict[Place, Redrive]:
        found: dict[Place, Redrive] = {}
        for decision in self._decisions():
            if (place := _place(decision)) is None:
                continue
            by, sent_to = str(decision.evidence.get("by")), decision.evidence.get("sent_to")
            before = found.get(place)
            if sent_to is not None:
                found[place] = Redrive(at_s=decision.at_s, by=by, sent_to=int(sent_to))
            elif before is None or before.sent_to is None:
                found[place] = Redrive(at_s=decision.at_s, by=by)
        return found

    def _decisions(self) -> Iterable[Decision]:
        for record in self._records(self._topics.decisions):
            if (decision := _decoded(record.value, Decision)) is not None:
                yield decision

    def _records(self, topic: str) -> Iterable[Any]:
        begin, end = self._reader.begin(topic, 0), self._reader.end(topic, 0)
        for batch in self._reader.read(topic, 0, begin, end):
            yield from batch

    def _head_number(self) -> int:
        with closing(LogClient(self._bootstrap_servers, self._topics.models)) as models:
            models.catch_up()
            return models.head.number if models.head else 0


def _place(decision: Decision) -> Place | None:
    """Which letter a decision is about; None if about none."""
    e: Any = decision.evidence
    if decision.kind not in ("redriving", "redriven"):
        return None
    return Place(e.get("topic_id"), e.get("partition"), e.get("offset"), e.get("row"))


def _decoded(value: bytes | None, kind: type[T]) -> T | None:
    """None for what someone else wrote there."""
    try:
        return msgspec.json.decode(value or b"", type=kind)
    except ValueError:  # msgspec's decode and validation errors
        return None
