"""Where a worker begins, and how its versions join the log: head -> [core] -> version -> head.

Blocking calls, all made by one thread. Rules 14 to 19 of the protocol live here.
"""

import time
from typing import Literal, NamedTuple

import msgspec

from models.snapshot import Arrays
from models.spec import ModelSpec, fit_problem, from_json, signature
from models.torch_learner import TorchLearner
from stream_app import failpoints, replay, versions
from stream_app.errors import EpochError, RegistryError
from stream_app.events import DeadLetter, Topics
from stream_app.learn import Core
from stream_app.logclient import LogClient
from stream_app.modellog import HISTORY, Envelope, Hyper
from stream_app.predictions import Trail
from stream_app.registry import Registry
from stream_app.topics import beginning_offsets, end_offsets, topic_ids

OnMismatch = Literal["refuse", "keep", "fresh"]

CHOICE = (
    "; start again with --on-mismatch keep (a new epoch with what was learned, as far as it fits) "
    "or --on-mismatch fresh (a new epoch from nothing)"
)


class Seeded(NamedTuple):
    """A core that stands at the head."""

    core: Core
    head: Envelope
    trails: dict[int, Trail]
    letters: set[tuple[int, int]]
    """(partition, offset) of dead letters already written."""


class Seeder:
    """Brings cores to the head of one model's log, and makes their snapshots the head.

    Args:
        spec: of the model; the head must fit it.
        bootstrap_servers: of the broker that has the model's topics.
        registry: holds the artefacts.
        on_mismatch: what to do if the head fits neither spec nor topics.
    """

    def __init__(self, spec: ModelSpec, *, bootstrap_servers: str, registry: Registry, on_mismatch: OnMismatch) -> None:
        self.spec, self._registry, self._on_mismatch = spec, registry, on_mismatch
        self._topics = Topics.of(spec.name)
        self._bootstrap_servers = bootstrap_servers
        self._log = LogClient(bootstrap_servers, self._topics.models)
        self._reader = replay.Reader(bootstrap_servers)
        self._ids = topic_ids(bootstrap_servers, (self._topics.events, self._topics.predictions))
        self._checked_head = ""
        self._published = 0

    def close(self) -> None:
        self._log.close()
        self._reader.close()

    # --- the head, and a core that stands there ----------------------------------------------------------

    def seed(self) -> Seeded:
        """A core at the head; begins the log if it is empty, mends it if the head cannot be read.

        Raises:
            EpochError: head, spec and topics do not fit together, and nobody chose what to do.
        """
        self._log.catch_up()
        head = self._log.head or self._begin()
        problem = self._problem(head)
        if problem:
            if self._on_mismatch == "refuse":
                raise EpochError(problem + CHOICE)
            head = self._new_epoch(head, keep=self._on_mismatch == "keep")
        arrays = self._head_arrays()
        head = self._log.head or head
        core = self._core(head.hyper)
        core.load(arrays, head)
        trails = replay.rebuild(core, head, self._reader, self._topics)
        return Seeded(core, head, trails, self._written_letters(head))

    def _core(self, hyper: Hyper | None = None) -> Core:
        rates = (hyper.learning_rate, hyper.half_life_events) if hyper else (None, None)
        return Core(self.spec, TorchLearner(self.spec, learning_rate=rates[0], half_life_events=rates[1]))

    def _problem(self, head: Envelope) -> str:
        """Why the head cannot go on here; empty if it can."""
        name = f"version {head.number} of {self.spec.name!r}"
        if head.signature != signature(self.spec):
            return f"{name} does not fit the spec: {self._unfit(head)}"
        for topic, id_ in head.topic_ids.items():
            if self._ids[topic] != id_:
                return (
                    f"topic {topic} was created anew since {name} (its id was {id_}, is {self._ids[topic]}): "
                    "its offsets mean nothing there"
                )
        ends = end_offsets(self._bootstrap_servers, self._topics.events)
        begins = beginning_offsets(self._bootstrap_servers, self._topics.events)
        if head.offsets.keys() != ends.keys():
            return f"{name} knows partitions {sorted(head.offsets)}, {self._topics.events} has {sorted(ends)}"
        for p, wanted in head.offsets.items():
            if wanted > ends[p]:
                topic = f"{self._topics.events}/{p}"
                return f"{name} has seen {topic} up to {wanted}, but it ends at {ends[p]}: it lost its log"
            if wanted < begins[p]:
                return (
                    f"{self._topics.events}/{p}: offsets {wanted} to {begins[p] - 1} were deleted before {name} "
                    "could learn them"
                )
        return ""

    def _unfit(self, head: Envelope) -> str:
        try:
            _, texts = versions.read_head(self._log.fold, self._registry)
        except RegistryError:
            return f"its signature is {head.signature}, wanted {signature(self.spec)}"
        return fit_problem(self.spec, from_json(texts["spec"]))

    def _head_arrays(self) -> Arrays:
        """The head's arrays; if they cannot be read, the newest readable version becomes the head (rule 18)."""
        try:
            return versions.read_head(self._log.fold, self._registry)[0]
        except RegistryError as error:
            found = versions.newest_readable(self._registry, signature(self.spec))
            if found is None:
                raise RegistryError(f"{error}; and the registry holds no version that can be read") from error
        return found[1] if self._restore(found[0]) else self._head_arrays()

    def _restore(self, envelope: Envelope) -> bool:
        """Announce an old version, with its own offsets, as the head's child in a new epoch; False if a rival won."""
        head = self._log.head
        assert head is not None
        copy = msgspec.structs.replace(envelope, parent=head.id, epoch=head.epoch + 1)
        return self._announce("epoch", copy, b"")

    # --- beginnings ---------------------------------------------------------------------------------------

    def _begin(self) -> Envelope:
        """The first version of an empty log."""
        if self._log.fold.log_start:
            raise EpochError(
                f"{self._topics.models} was trimmed past its head: it begins at offset {self._log.fold.log_start}, "
                "and what is left does not say which version that was; delete the topic" + CHOICE
            )
        found = versions.newest_readable(self._registry)
        if found is not None and self._on_mismatch == "refuse":
            raise EpochError(
                f"the log of {self.spec.name!r} is empty, but {self._registry.url} holds version {found[0].number}: "
                "the broker lost its log (an embedded one keeps it in memory only), or this is another broker" + CHOICE
            )
        core = self._core()
        if found is not None and self._on_mismatch == "keep" and found[0].signature == signature(self.spec):
            core.load(found[1], found[0])
        core.start(beginning_offsets(self._bootstrap_servers, self._topics.events))
        return self._publish_core(core, None, "version", epoch=1)

    def _new_epoch(self, head: Envelope, *, keep: bool) -> Envelope:
        """Begin anew behind ``head``: with what it learned if that fits, at its offsets if they still mean anything."""
        core = self._core(head.hyper)
        fits = head.signature == signature(self.spec)
        if keep and fits:
            core.load(self._head_arrays(), head)
        core.start(self._usable(head if keep else None))
        return self._publish_core(core, head, "epoch", epoch=head.epoch + 1)

    def _usable(self, head: Envelope | None) -> dict[int, int]:
        begins = beginning_offsets(self._bootstrap_servers, self._topics.events)
        ends = end_offsets(self._bootstrap_servers, self._topics.events)
        same = head is not None and head.topic_ids.get(self._topics.events) == self._ids[self._topics.events]
        if head is None or not same:
            return begins
        wanted = {p: head.offsets.get(p, b) for p, b in begins.items()}
        return {p: o if begins[p] <= o <= ends[p] else begins[p] for p, o in wanted.items()}

    def _publish_core(
        self, core: Core, parent: Envelope | None, kind: Literal["version", "epoch"], *, epoch: int
    ) -> Envelope:
        predictions = end_offsets(self._bootstrap_servers, self._topics.predictions)
        envelope, data = self._write(versions.snapshot(core), parent, epoch, predictions)
        self._announce(kind, envelope, data)
        head = self._log.head
        assert head is not None
        return head

    # --- versions -----------------------------------------------------------------------------------------

    def publish(
        self, taken: versions.Snapshot, parent: Envelope, predictions_from: dict[int, int]
    ) -> tuple[Envelope, bool]:
        """Make a snapshot durable and announce it; returns the head then, and whether that is it."""
        envelope, data = self._write(taken, parent, parent.epoch, predictions_from)
        failpoints.reach("written")
        won = self._announce("version", envelope, data)
        head = self._log.head
        assert head is not None
        self._prune()
        return head, won

    def _write(
        self, taken: versions.Snapshot, parent: Envelope | None, epoch: int, predictions_from: dict[int, int]
    ) -> tuple[Envelope, bytes]:
        return versions.write(
            self.spec,
            taken,
            self._registry,
            parent=parent,
            epoch=epoch,
            predictions_from=predictions_from,
            topic_ids=self._ids,
            created_s=time.time(),
        )

    def _announce(self, kind: Literal["version", "epoch"], envelope: Envelope, data: bytes) -> bool:
        return self._log.announce(kind, envelope, data, inline_bytes=self.spec.publish.inline_bytes)

    def _prune(self) -> None:
        """Keep the newest versions, and whatever head and parent need; trim the log to them now and then."""
        needed = {e.artefact for _, e in list(self._log.fold.history)[-2:]}
        keep = self.spec.publish.keep
        self._registry.prune(versions.FOLDER, keep=keep, always=frozenset(needed))
        self._registry.prune("variants", keep=keep)
        self._published += 1
        if self._published % HISTORY == 0:
            self._log.trim()

    # --- questions ----------------------------------------------------------------------------------------

    def newest(self) -> Envelope | None:
        self._log.poll(0.0)
        return self._log.head

    def mend_head(self) -> bool:
        """While idle: see that the head's artefact can be read; if not, restore (rule 19).

        Returns:
            True if another version had to become the head.
        """
        head = self._log.head
        if head is None or head.id == self._checked_head:
            return False
        try:
            versions.read_version(head, self._registry)
        except RegistryError:
            inline = self._log.fold.head_inline
            if inline is None:
                self._head_arrays()
                return True
            self._registry.write(versions.FOLDER, versions.SUFFIX, inline)  # the same content, so the same name
        self._checked_head = head.id
        return False

    def look(self, partition: int, offset: int) -> tuple[int, int | None]:
        """First offset that the events partition still has, and that of the first record from ``offset`` on."""
        topic = self._topics.events
        return self._reader.begin(topic, partition), self._reader.first(topic, partition, offset)

    def lag(self, positions: dict[int, int]) -> int:
        """Offsets up to the ends of those partitions where a record waits; a transaction's marker is none.

        Raises:
            EpochError: a topic was recreated meanwhile.
        """
        self.check_ids()
        topic = self._topics.events
        ends = end_offsets(self._bootstrap_servers, topic)
        waiting = (p for p, o in positions.items() if self._reader.first(topic, p, o) is not None)
        return sum(ends[p] - positions[p] for p in waiting)

    def check_ids(self) -> None:
        """A topic recreated under a running consumer looks as if only old offsets came again.

        Raises:
            EpochError: one was.
        """
        found = topic_ids(self._bootstrap_servers, self._ids)
        for topic, id_ in self._ids.items():
            if found[topic] != id_:
                raise EpochError(f"topic {topic} was created anew (its id was {id_}, is {found[topic]})" + CHOICE)

    def _written_letters(self, head: Envelope) -> set[tuple[int, int]]:
        """Those about records that ``head`` has not seen: only these may be met again."""
        topic = self._topics.dead_letters
        found = set()
        for batch in self._reader.read(topic, 0, self._reader.begin(topic, 0), self._reader.end(topic, 0)):
            letters = (_letter(r.value) for r in batch)
            found |= {(d.partition, d.offset) for d in letters if d and d.offset >= head.offsets.get(d.partition, 0)}
        return found


def _letter(value: bytes | None) -> DeadLetter | None:
    """None for what someone else wrote there."""
    try:
        return msgspec.json.decode(value or b"", type=DeadLetter)
    except ValueError:  # msgspec's decode and validation errors
        return None
