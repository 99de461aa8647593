"""What must be true of every version that counts, and at the end: [logs, disk] -> violations.

The oracle sits at the broker and sees each record as it is appended. It folds the models log by the rules as they are
written down, and asks of every version that becomes the head whether it is exactly what the join of the events log
says at its offsets, whether it is durable, and whether what it was scored on was said before.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from simulation.disk import Disk
from simulation.kafka import Record
from simulation.reference import WORD, Point, Reference
from stream_app import parts, stored
from stream_app.errors import RegistryError
from stream_app.events import DeadLetter
from stream_app.modellog import Announcement, Envelope, decode_record
from stream_app.predictions import decode_block

ROOT = "/registry"


class Violation(Exception):
    """The protocol was broken."""


class _Version(NamedTuple):
    """What the oracle knows of a version's state."""

    sum: int
    surplus: int
    """By which its sum differs from what the events log says: other than 0 only behind an adoption."""


class Files:
    """As much of a registry as reading a version of many parts takes; no time passes.

    Args:
        get: a path's bytes, or None.
    """

    url = "these files"

    def __init__(self, get: Callable[[str], bytes | None]) -> None:
        self._get = get

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        found = []
        for path, start, end in ranges:
            if (whole := self._get(f"{ROOT}/{path}")) is None:
                raise RegistryError(f"{path} is not there")
            found.append(whole[start:end])
        return found

    def whole(self, path: str, file: bytes) -> bytes:
        """The version that a file is.

        Raises:
            RegistryError: a part of it is missing or torn.
        """
        return parts.joined(self, path, file)  # type: ignore[arg-type]


class Oracle:
    """Watches one model.

    Args:
        disk: has the artefacts.
        partitions: of the events topic.
    """

    def __init__(self, disk: Disk, partitions: int) -> None:
        self._disk, self._archive = disk, Files(disk.archive.get)
        self.references = [Reference() for _ in range(partitions)]
        self.said: list[dict[int, float]] = [{} for _ in range(partitions)]
        """Per partition and position, the first answer in the predictions topic."""
        self._asked = [0] * partitions
        """How many of the rows with features have an answer, without a gap."""
        self.letters: dict[str, DeadLetter] = {}
        self.head: Envelope | None = None
        self.heads: dict[int, Envelope] = {}
        """Every version that counted, by its offset in the models log."""
        self._known: dict[str, _Version] = {}
        self.blind = False
        """Whether some version was adopted without the scores of its parent."""
        self.violation: Violation | None = None

    # --- what is appended -------------------------------------------------------------------------------

    def on_prediction(self, partition: int, record: Record) -> None:
        said = self.said[partition]
        block, _ = decode_block(record.value)
        for position, score in zip(block.positions.tolist(), block.scores[:, 0].tolist(), strict=True):
            said.setdefault(position, score)
        asked, i = self.references[partition].asked, self._asked[partition]
        while i < len(asked) and asked[i] in said:
            i += 1
        self._asked[partition] = i

    def on_letter(self, partition: int, record: Record) -> None:
        assert record.key is not None
        self.letters[record.key.decode()] = msgspec.json.decode(record.value, type=DeadLetter)

    def on_model(self, partition: int, record: Record) -> None:
        said = decode_record(record.value)
        if isinstance(said, Announcement) and self._counts(said):
            try:
                self._counted(record.offset, said)
            except Violation as violation:
                self.violation = self.violation or violation

    def _counts(self, wish: Announcement) -> bool:
        """Rules 14, 18, 20 and 21."""
        new, head = wish.envelope, self.head
        if head is None:
            return new.parent is None
        match wish.kind:
            case "version":
                return new.parent == head.id and new.epoch == head.epoch
            case "epoch":
                return new.parent == head.id and new.epoch == head.epoch + 1
            case "adoption":
                return new.epoch == head.epoch + 1
            case "promotion":
                return new.epoch == head.epoch + 1 and all(o <= head.offsets[p] for p, o in new.offsets.items())

    def _counted(self, at: int, wish: Announcement) -> None:
        before, new = self.head, wish.envelope
        if wish.kind == "adoption" and before is not None:
            new = msgspec.structs.replace(
                new, offsets=before.offsets, ledger=before.ledger, metrics=before.metrics, labels=before.labels
            )
        self.head = self.heads[at] = msgspec.structs.replace(new, number=before.number + 1 if before else new.number)
        arrays = self._durable(wish.envelope)
        found = int(arrays["learner.sum"][0])
        surplus = (found - self._wanted(new.offsets).sum) & WORD
        name = f"version {self.head.number} ({wish.kind}, {new.id})"
        self._check_state(name, wish, before, found, surplus)
        self._known[new.id] = _Version(found, surplus)
        self._check_ledger(name, new)
        self._check_said(name, new)
        if wish.kind == "version" and before is not None:
            back = {p: o for p, o in new.offsets.items() if o < before.offsets[p]}
            if back:
                raise Violation(f"{name} goes back to {back} from {before.offsets}")
        if wish.kind == "adoption" and before is not None:
            scored = int(arrays["score.rows"][0])
            self.blind |= scored != before.labels

    def _durable(self, envelope: Envelope) -> Mapping[str, Sequence[int]]:
        """Rule 14."""
        path = envelope.artefact
        data = self._disk.durable(f"{ROOT}/{path}", envelope.sha256)
        if data is None:
            raise Violation(f"{path} was announced, and is not durable")
        try:
            return stored.unpacked(path, self._archive.whole(path, data))[0]  # type: ignore[return-value]
        except RegistryError as error:
            raise Violation(f"{path} was announced, and is not durable: {error}") from error

    def _check_state(self, name: str, wish: Announcement, before: Envelope | None, found: int, surplus: int) -> None:
        if wish.kind == "version" and before is not None:
            wanted = self._known[before.id].surplus if before.id in self._known else 0
            if surplus != wanted:
                raise Violation(f"{name} has not learned what the log says up to {wish.envelope.offsets}")
        elif wish.kind == "adoption":
            if found not in {v.sum for v in self._known.values()}:
                raise Violation(f"{name} adopts what no version had learned")
        elif surplus not in {0, *(v.surplus for v in self._known.values())} and found not in {
            v.sum for v in self._known.values()
        }:
            raise Violation(f"{name} has not learned what the log says up to {wish.envelope.offsets}")

    def _check_ledger(self, name: str, new: Envelope) -> None:
        for p, offset in new.offsets.items():
            point = self._point(p, offset)
            got = new.ledger.get(p, (0, 0))
            if tuple(got) != (point.count, point.xor):
                raise Violation(f"{name}: partition {p} at {offset}: the ledger has {got}, wanted {point[:2]}")

    def _check_said(self, name: str, new: Envelope) -> None:
        """Rule 8: whatever a version has seen was answered before."""
        for p, offset in new.offsets.items():
            asked, i = self.references[p].asked, self._asked[p]
            if i < len(asked) and asked[i] >> 16 < offset:
                raise Violation(f"{name} has seen {p}/{asked[i] >> 16}, of which nothing was said yet")

    def _point(self, partition: int, offset: int) -> Point:
        if not 0 <= partition < len(self.references):
            raise Violation(f"there is no partition {partition}")
        points = self.references[partition].points
        if offset >= len(points):
            raise Violation(f"partition {partition}: offset {offset} is beyond the log's end")
        return points[offset]

    def _wanted(self, offsets: Mapping[int, int]) -> Point:
        found = [self._point(p, o) for p, o in offsets.items()]
        return Point(*(sum(column) for column in zip(*found, strict=True)))

    # --- the end ----------------------------------------------------------------------------------------

    def drained(self) -> bool:
        """Whether the head has seen all there is."""
        return self.head is not None and all(
            o == len(self.references[p].points) - 1 for p, o in self.head.offsets.items()
        )

    def check_end(self, topic: str) -> None:
        """Once everything is learned.

        Raises:
            Violation: something is missing, or too much.
        """
        head = self.head
        assert head is not None
        wanted = self._wanted(head.offsets)
        for p, reference in enumerate(self.references):
            if missing := [x for x in reference.asked if x not in self.said[p]]:
                raise Violation(f"partition {p}: {len(missing)} rows were never answered, as at {missing[0] >> 16}")
        self._check_letters(topic)
        for name, value in (("dead_letters", wanted.bad), ("events", wanted.events), ("learned", wanted.count)):
            if head.metrics[name] != value:
                raise Violation(f"the head counts {head.metrics[name]:g} {name}, wanted {value}")
        if head.labels != wanted.count:
            raise Violation(f"the head has {head.labels} labels, wanted {wanted.count}")
        self._check_score(head, wanted)

    def _check_letters(self, topic: str) -> None:
        wanted = {
            "/".join(str(x) for x in (topic, p, offset, row) if x is not None)
            for p, reference in enumerate(self.references)
            for offset, row in reference.bad
        }
        if self.letters.keys() != wanted:
            raise Violation(
                f"dead letters: {sorted(wanted - self.letters.keys())[:3]} are missing, "
                f"{sorted(self.letters.keys() - wanted)[:3]} are too much"
            )

    def _check_score(self, head: Envelope, wanted: Point) -> None:
        """Rule 9: the first answer is what is scored."""
        if self.blind or not wanted.count:
            return
        errors = [
            abs(self.said[p][pair.features_at] - pair.target)
            for p, reference in enumerate(self.references)
            for pair in reference.pairs
        ]
        mae = sum(errors) / len(errors)
        if head.metrics["count"] != len(errors) or not math.isclose(head.metrics["mae"], mae, rel_tol=1e-6):
            raise Violation(
                f"the head scores {head.metrics['count']:g} answers with a mean error of {head.metrics['mae']!r}; "
                f"the first answers, {len(errors)}, have {mae!r}"
            )

    def digest(self) -> str:
        """Of everything that counted, in its order: two runs of one seed have the same."""
        return hashlib.sha256(repr([(a, e.id, e.created_s) for a, e in self.heads.items()]).encode()).hexdigest()[:16]
