"""What a record of the events topic says, and what the topics of a model are called.

One Kafka record carries one JSON object: features, a label, or both (or the same in another encoding, which its
content-type header names: docs/events.md). All times are seconds since the
epoch and belong to the event; the Kafka timestamp stays wall clock, because brokers delete by it.

    features  {"id": "a1", "key": "EWR", "time": 1357034100, "features": {"distance": 1400, "carrier": "UA"}}
    label     {"id": "a1", "key": "EWR", "label": 1, "label_time": 1357049220}
    both      {"id": "a1", "key": "EWR", "time": 1357034100, "features": {...}, "label": 1,
               "label_time": 1357049220}
    weighted  {"id": "a1", "key": "EWR", "label": 1, "label_time": 1357049220, "weight": 0.5}

``id`` names the example and joins the label to its features. ``key`` chooses the partition (it is the
Kafka key too), so features and label of one id must carry the same key; without one, the id is the key.
A feature that is absent or null is missing. Fields that nobody declared are ignored.

``weight`` says how much the example counts, where it is learned and where it is scored; 1 if it is absent or
null, never below 1e-6 or above 1e6. It may stand on either record; the label's wins.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

WEIGHTS = (1e-6, 1e6)
"""The least and the most that one example may count for."""


LONGEST_ID = 512
"""Characters."""

KEEP_LETTER_BYTES = 65_536
"""A dead letter keeps so much of the record; one that is as long may be only the beginning."""

CONTENT_TYPE = "content-type"
"""Header of a record that says what it is, as a ContentType; a record without one is JSON."""


class ContentType(StrEnum):
    """How a record of the events topic may be written; docs/events.md has examples of each."""

    JSON = "application/json"
    """One example, as above."""
    PROTOBUF = "application/x-protobuf"
    """One example: ``Example`` of protos/events.proto."""
    BATCH = "application/vnd.stream-app.examples"
    """Many examples in columns: ``Examples`` of protos/events.proto."""


class Topics(NamedTuple):
    """The topics of one model."""

    events: str
    """Features and labels, keyed; what waits for a label is read again from here."""
    predictions: str
    """What was said of each event, columnar; same partitions as events."""
    dead_letters: str
    """What could not be an event, with reason and offset."""
    models: str
    """Announcements of versions; one partition, its order is the lock; never compacted."""
    decisions: str
    """Drift (of the error, of an input), tuning, promotion, quantisation, what people decided: with the evidence."""

    @classmethod
    def of(cls, name: str) -> "Topics":
        return cls(*(f"{name}.{t}" for t in ("events", "predictions", "dead-letters", "models", "decisions")))


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the decisions topic (JSON)."""

    kind: str
    """drift | recalled | tuned | promoted | kept | quantised | reseeded | rolled_back | pinned | unpinned | imported |
    canary | shadow | guard | judged | withdrawn | refused | redriving | redriven"""
    at_s: float
    """Wall clock, seconds since the epoch."""
    version: int
    """Number of the head when it was decided."""
    evidence: dict[str, float | int | str | bool | None] = {}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the dead-letters topic (JSON); its Kafka key is ``topic/partition/offset``, and ``/row`` if any.

    After a crash the same letter may be written twice: readers know it by that key.
    """

    topic: str
    partition: int
    offset: int
    row: int | None = None
    """Place within a record of many examples; None: the record as a whole."""
    topic_id: str = ""
    """The id that the broker gave the topic: one that is created anew counts from 0 again."""
    reason: str
    value: bytes
    """The record as it came (base64 in the JSON); if ``row`` is given, that example as JSON."""
