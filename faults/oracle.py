"""What a run should have come to, against what the service says: events log, head -> [oracle] -> verdict.

The reference is made of the log alone, by the definition (docs/events.md), not by the service's code: per id the first
features and the first label count, and are a pair if their times are no further apart than the label wait. Per
partition the ledger of the head holds the number of pairs and the XOR of their hashes, so a pair that is lost, or
learned twice, shows.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from faults.load import POISON_HEADER, WAIT_S, rows_of
from stream_app.columns import split
from stream_app.events import CONTENT_TYPE, ContentType, DeadLetter, Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.predictions import decode_block
from stream_app.registry import Registry
from stream_app.replay import Reader
from stream_app.reproduce import Reproducer
from tests.streams import ledger_hash

BATCH = ContentType.BATCH.encode()


class Verdict(NamedTuple):
    """What is wrong; nothing, if all is 0."""

    lost: int
    duplicated: int
    notes: tuple[str, ...]


class Again(NamedTuple):
    """Of the versions of a run, how many were learned again from the topics."""

    same: int
    """To the bit."""
    differing: int
    notes: tuple[str, ...]


class Reference(NamedTuple):
    """Of one partition."""

    pairs: int
    xor: int
    events: int
    """Rows with features, repeated ones too."""
    asked: tuple[tuple[int, int], ...]
    """Offset and row of the features that count."""
    poison: tuple[int, ...]
    """Offsets of what is no event."""


def reference(records: Iterable[Any]) -> Reference:
    """What the records of one partition, in their order, should come to."""
    features: dict[str, tuple[float, tuple[int, int]]] = {}
    labels: dict[str, tuple[float, float]] = {}
    events, poison = 0, []
    for record in records:
        if any(name == POISON_HEADER for name, _ in record.headers):
            poison.append(record.offset)
            continue
        rows = rows_of(record.value) if (CONTENT_TYPE, BATCH) in record.headers else [json.loads(record.value)]
        for i, said in enumerate(rows):
            if "features" in said:
                events += 1
                features.setdefault(said["id"], (said["time"], (record.offset, i)))
            if "label" in said:
                labels.setdefault(said["id"], (said["label_time"], float(said["label"])))
    pairs = xor = 0
    for id_, (label_s, target) in labels.items():
        if id_ in features and abs(label_s - features[id_][0]) <= WAIT_S:
            pairs, xor = pairs + 1, xor ^ ledger_hash(id_, target)
    return Reference(pairs, xor, events, tuple(place for _, place in features.values()), tuple(poison))


def judge(reader: Reader, topics: Topics, head: Envelope) -> Verdict:
    """The head, the predictions and the dead letters against the events log."""
    wanted = {}
    for p in head.offsets:
        wanted[p] = reference(reader.range(topics.events, p, 0, reader.end(topics.events, p)))
    lost, duplicated, notes = 0, 0, list[str]()

    def count(what: str, got: int, due: int) -> None:
        nonlocal lost, duplicated
        lost, duplicated = lost + max(0, due - got), duplicated + max(0, got - due)
        if got != due:
            notes.append(f"{what}: got {got}, wanted {due}")

    for p, due in wanted.items():
        pairs, xor = head.ledger.get(p, (0, 0))
        count(f"pairs of partition {p}", pairs, due.pairs)
        if pairs == due.pairs and xor != due.xor:
            lost, duplicated = lost + 1, duplicated + 1
            notes.append(f"partition {p}: as many pairs as wanted, but others")
        said = _said(reader, topics.predictions, p)
        count(f"predictions of partition {p}", sum(place in said for place in due.asked), len(due.asked))
    count("events", int(head.metrics["events"]), sum(r.events for r in wanted.values()))
    letters = _letters(reader, topics.dead_letters)
    poison = {(p, o) for p, r in wanted.items() for o in r.poison}
    count("dead letters", len(letters & poison), len(poison))
    count("dead letters of what are events", len(letters - poison), 0)
    return Verdict(lost, duplicated, tuple(notes))


def learned_again(log: LogClient, registry: Registry, reader: Reader, topics: Topics) -> Again:
    """Every version again, by the service's own means: each must be what its parent and the log make of it."""
    same, wrong = 0, list[str]()
    for found in Reproducer(log, registry, reader, topics).run():
        same += found.result == "same"
        if found.result == "differs":
            wrong.append(f"version {found.number} was learned otherwise: {found.why}")
    return Again(same, len(wrong), tuple(wrong))


def _said(reader: Reader, topic: str, partition: int) -> set[tuple[int, int]]:
    """Offset and row of events that have a prediction."""
    found = set[tuple[int, int]]()
    for record in reader.range(topic, partition, 0, reader.end(topic, partition)):
        found |= {split(position) for position in decode_block(record.value)[0].positions.tolist()}
    return found


def _letters(reader: Reader, topic: str) -> set[tuple[int, int]]:
    letters = (msgspec.json.decode(r.value, type=DeadLetter) for r in reader.range(topic, 0, 0, reader.end(topic, 0)))
    return {(letter.partition, letter.offset) for letter in letters}
