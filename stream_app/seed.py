"""Where a worker begins, and how its versions join the log: head -> [core] -> version -> head.

Blocking calls, all made by one thread. Rules 14 to 19 of the protocol live here.
"""

import logging
import time
from collections.abc import Collection
from typing import Literal, NamedTuple, TypeVar

import msgspec

from models import learners
from models.snapshot import Arrays
from models.spec import ModelSpec, signature
from stream_app import course, failpoints, replay, stored, versions
from stream_app.errors import EpochError, ModelLogError, RegistryError, StreamAppError, TopicError
from stream_app.events import DeadLetter, Topics
from stream_app.learn import Core, Version
from stream_app.logclient import LogClient
from stream_app.modellog import HISTORY, Envelope, Hyper
from stream_app.parts import Parts
from stream_app.predictions import Trail
from stream_app.registry import Registry
from stream_app.topics import beginning_offsets, end_offsets, topic_ids

log = logging.getLogger("stream_app.seed")

T = TypeVar("T")
CHECK_HEAD_S = 30.0
PRUNE_S = 1.0
TRIM_S = 60.0
"""At most so often the registry is cleared, and the log trimmed: both take longer than a version."""
READ_BACK_S = 0.01
"""What was announced is asked for as often."""
OnMismatch = Literal["refuse", "keep", "fresh"]

CHOICE = (
    "; start again with --on-mismatch keep (a new epoch with what was learned, as far as it fits) "
    "or --on-mismatch fresh (a new epoch from nothing)"
)


class Written(NamedTuple):
    """What a dead letter is about."""

    partition: int
    offset: int
    row: int | None


class Seeded(NamedTuple):
    """A core that stands at the head."""

    core: Core
    head: Envelope
    arrays: Arrays
    """The head's."""
    trails: dict[int, Trail]
    letters: set[Written]
    """Dead letters already written."""


class Seeder:
    """Brings cores to the head of one model's log, and makes their snapshots the head.

    Args:
        spec: of the model; the head must fit it.
        bootstrap_servers: of the broker that has the model's topics.
        registry: holds the artefacts.
        on_mismatch: what to do if the head does not fit the spec or the topics.
    """

    def __init__(self, spec: ModelSpec, *, bootstrap_servers: str, registry: Registry, on_mismatch: OnMismatch) -> None:
        self.spec, self._registry, self._on_mismatch = spec, registry, on_mismatch
        self._parts = Parts(registry, stored.FOLDER)
        self._topics = Topics.of(spec.name)
        self._bootstrap_servers = bootstrap_servers
        self._log = LogClient(bootstrap_servers, self._topics.models, wait_s=READ_BACK_S)
        self._reader = replay.Reader(bootstrap_servers)
        names = (self._topics.events, self._topics.predictions, self._topics.models)
        self._ids = topic_ids(bootstrap_servers, names)
        self._models_id = self._ids.pop(self._topics.models)
        self._checked = ("", 0.0)
        self._prune_due_s = self._trim_due_s = 0.0
        self._untrimmed = 0

    def close(self) -> None:
        self._log.close()
        self._reader.close()

    # --- the head, and a core that stands there ----------------------------------------------------------

    def seed(self, mine: Collection[int] | None = None) -> Seeded:
        """A core at the head; begins the log if it is empty, mends it if the head cannot be read.

        Args:
            mine: partitions that it will learn; None is all.

        Raises:
            EpochError: head, spec and topics do not fit together, and nobody chose what to do.
        """
        self._log.catch_up()
        head, arrays = self._fitting_head()
        self._say_hyper(head)
        core = core_of(self.spec, head.hyper)
        core.load(arrays, head, mine)
        trails = replay.rebuild(core, head, self._reader, self._topics)
        core.course = course.Log(head.number, core.partitions, self.spec.learner.batch_records)
        return Seeded(core, head, arrays, trails, self._written_letters(head))

    def version(self, head: Envelope) -> Version | None:
        """The newest head, whole; None if ``head`` is not that any more, or cannot be read."""
        try:
            arrays = versions.read_head(self._log.fold, self._registry)[0]
        except RegistryError as error:
            log.warning("version %d is passed over: %s", head.number, error)
            return None
        return Version(head, arrays) if self._log.head is not None and self._log.head.id == head.id else None

    def _fitting_head(self) -> tuple[Envelope, Arrays]:
        """The head, once it fits and can be read; a rival may move it meanwhile, which begins the search anew."""
        while True:
            head = self._log.head or self._begin()
            if problem := self._problem(head):
                if self._on_mismatch == "refuse":
                    raise EpochError(problem + CHOICE)
                log.warning("a new epoch begins (--on-mismatch %s): %s", self._on_mismatch, problem)
                self._new_epoch(head, keep=self._on_mismatch == "keep")
                continue
            arrays = self._head_arrays()
            if self._log.head is not None and self._log.head.id == head.id:
                return self._log.head, arrays

    def _say_hyper(self, head: Envelope) -> None:
        optimiser, blend, mine = self.spec.optimiser, self.spec.blend, head.hyper
        given = Hyper(learning_rate=optimiser.learning_rate, half_life_events=blend.half_life_events)
        if mine != given:
            log.info("version %d goes on with its own %s; the spec's %s is for fresh epochs", head.number, mine, given)

    def _problem(self, head: Envelope) -> str:
        """Why the head cannot go on here; empty if it can."""
        name = f"version {head.number} of {self.spec.name!r}"
        if problem := versions.unfit(self.spec, self._log.fold, self._registry):
            return f"{name} does not fit the spec: {problem}"
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

    def _head_arrays(self) -> Arrays:
        """The head's arrays; if they cannot be read, the newest readable version becomes the head (rule 18)."""
        try:
            return versions.read_head(self._log.fold, self._registry)[0]
        except RegistryError as error:
            self._parts.forget()
            found = stored.newest_readable(self._registry, signature(self.spec))
            if found is None:
                raise RegistryError(f"{error}; and the registry holds no version that can be read") from error
        return found[1] if self._restore(found[0]) else self._head_arrays()

    def _restore(self, envelope: Envelope) -> bool:
        """Announce an old version, with its own offsets, as the head's child in a new epoch; False if a rival won."""
        head = self._log.head
        assert head is not None
        copy = msgspec.structs.replace(envelope, parent=head.id, epoch=head.epoch + 1)
        self._make_durable(envelope)
        return self._announce("epoch", copy, b"")

    def _make_durable(self, envelope: Envelope) -> None:
        """Whoever wrote a version that was found may have died before it was synced: the same bytes, the same name."""
        _, _, suffix = envelope.artefact.rpartition(".")
        data = self._registry.read(envelope.artefact, envelope.sha256)
        self._registry.write(stored.FOLDER, f".{suffix}", data)

    # --- beginnings ---------------------------------------------------------------------------------------

    def _begin(self) -> Envelope:
        """The first version of an empty log.

        Whoever died between making it durable and announcing it is followed: then the registry holds a version of
        these very topics.
        """
        if self._log.fold.log_start:
            raise EpochError(
                f"{self._topics.models} was trimmed past its head: it begins at offset {self._log.fold.log_start}, "
                "and what is left does not say which version that was; delete the topic" + CHOICE
            )
        found = stored.newest_readable(self._registry)
        if found is not None and found[0].topic_ids == self._ids:
            self._make_durable(found[0])
            self._announce("version", msgspec.structs.replace(found[0], parent=None), b"")
            return self._read_head()
        if found is not None and self._on_mismatch == "refuse":
            raise EpochError(
                f"the log of {self.spec.name!r} is empty, but {self._registry.url} holds version {found[0].number}: "
                "the broker lost its log (an embedded one keeps it in memory only), or this is another broker" + CHOICE
            )
        if found is not None and self._on_mismatch == "keep":
            core, trails = self._kept(found[0], found[1] if self._fits(found[0]) else None)
        else:
            core, trails = core_of(self.spec), {}
        self._publish_core(core, trails, None, "version", epoch=1)
        return self._read_head()

    def _read_head(self) -> Envelope:
        head = self._log.head
        assert head is not None, "what was announced was read back, or a rival's was"
        return head

    def _new_epoch(self, head: Envelope, *, keep: bool) -> None:
        """Begin anew behind ``head``, from what can be kept of it or from nothing."""
        if keep:
            core, trails = self._kept(head, self._head_arrays() if self._fits(head) else None)
        else:
            core, trails = core_of(self.spec), {}
        self._publish_core(core, trails, head, "epoch", epoch=head.epoch + 1)

    def _fits(self, head: Envelope) -> bool:
        return head.signature == signature(self.spec)

    def _kept(self, head: Envelope, arrays: Arrays | None) -> tuple[Core, dict[int, Trail]]:
        """What ``head`` learned, if its arrays fit, and what waits, wherever its offsets still mean something."""
        usable = self._usable(head)
        if arrays is not None:
            core = core_of(self.spec, head.hyper)
            core.load(arrays, usable)
            return core, replay.rebuild(core, usable, self._reader, self._topics)
        core = core_of(self.spec)
        core.stand(usable)
        for p in usable.offsets:  # what another model said of them is not what this one says
            core.rebuild(p, replay.remembered(self._reader, self._topics, usable, p), {})
        return core, {}

    def _usable(self, head: Envelope) -> Envelope:
        """``head`` without the partitions that were recreated, lost records it has seen, or lost some it has not."""
        events, predictions = self._topics.events, self._topics.predictions
        begins = beginning_offsets(self._bootstrap_servers, events)
        ends = end_offsets(self._bootstrap_servers, events)
        same = {t for t, id_ in head.topic_ids.items() if self._ids.get(t) == id_}
        usable = {p for p, b in begins.items() if events in same and b <= head.offsets.get(p, -1) <= ends[p]}

        def cut(values: dict[int, T]) -> dict[int, T]:
            return {p: value for p, value in values.items() if p in usable}

        return msgspec.structs.replace(
            head,
            offsets=cut(head.offsets),
            replay_from=cut(head.replay_from),
            ledger=cut(head.ledger),
            predictions_from=cut(head.predictions_from) if predictions in same else {},
        )

    def _publish_core(
        self,
        core: Core,
        trails: dict[int, Trail],
        parent: Envelope | None,
        kind: Literal["version", "epoch"],
        *,
        epoch: int,
    ) -> None:
        """Announce a core as a beginning; partitions that it does not know yet begin at their first record."""
        begins = beginning_offsets(self._bootstrap_servers, self._topics.events)
        core.start({p: begin for p, begin in begins.items() if p not in core.partitions})
        taken = versions.snapshot(core)
        ends = end_offsets(self._bootstrap_servers, self._topics.predictions)
        said_from = {p: trails[p].start(taken.replay_from[p][0]) if p in trails else end for p, end in ends.items()}
        envelope, data = self._write(taken, parent, epoch, said_from)
        self._announce(kind, envelope, data)

    # --- versions -----------------------------------------------------------------------------------------

    def publish(
        self, taken: versions.Snapshot, parent: Envelope, predictions_from: dict[int, int], *, between: bool = False
    ) -> tuple[Envelope, bool]:
        """Make a snapshot durable and announce it; returns it as it counts and True, or the rival and False.

        Args:
            between: by reference, even if it is small; one that is not must follow within ``publish.every_s``.
        """
        envelope, data = self._write(taken, parent, parent.epoch, predictions_from, between=between)
        after = self._log.fold.head_at
        self._announce("version", envelope, data, between=between)
        counted = self._log.fold.counted(envelope.id, after)
        self._prune()
        return counted or self._read_head(), counted is not None

    def _write(
        self,
        taken: versions.Snapshot,
        parent: Envelope | None,
        epoch: int,
        predictions_from: dict[int, int],
        *,
        between: bool = False,
    ) -> tuple[Envelope, bytes]:
        made = versions.write(
            self.spec,
            taken,
            self._registry,
            parent=parent,
            epoch=epoch,
            predictions_from=predictions_from,
            topic_ids=self._ids,
            created_s=time.time(),
            parts=self._parts,
            between=between,
        )
        failpoints.reach("written")
        return made

    def _announce(
        self, kind: Literal["version", "epoch"], envelope: Envelope, data: bytes, *, between: bool = False
    ) -> bool:
        inline_bytes = self.spec.publish.inline_bytes
        return self._log.announce(kind, envelope, data, inline_bytes=inline_bytes, between=between)

    def _prune(self) -> None:
        """Now and then, keep the newest versions and whatever head and parent need; trim the log to its history."""
        now_s = time.monotonic()
        self._untrimmed += 1
        if now_s < self._prune_due_s:
            return
        self._prune_due_s = now_s + PRUNE_S
        needed = {e.artefact for _, e in list(self._log.fold.history)[-2:]}
        keep = self.spec.publish.keep
        self._parts.prune(keep=keep, always=frozenset(needed))
        self._registry.prune("variants", keep=keep)
        if self._untrimmed >= HISTORY and now_s >= self._trim_due_s:
            self._untrimmed, self._trim_due_s = 0, now_s + TRIM_S
            self._log.trim()

    # --- questions ----------------------------------------------------------------------------------------

    def newest(self) -> Envelope | None:
        self._log.poll(0.0)
        return self._log.head

    @property
    def between(self) -> bool:
        """Whether the head was announced as one that another, inline, follows."""
        return self._log.fold.between

    @property
    def inline_id(self) -> str | None:
        """Of the newest version that travelled inline, where those since lie between it and another one."""
        inline = self._log.fold.inline
        return inline.envelope.id if inline else None

    def mend_head(self) -> bool:
        """While idle: see now and then that the head's artefact can be read; if not, restore (rule 19).

        Returns:
            True if another version had to become the head.
        """
        head, now_s = self._log.head, time.monotonic()
        checked, at_s = self._checked
        if head is None or (head.id == checked and now_s - at_s < CHECK_HEAD_S):
            return False
        try:
            stored.read_version(head, self._registry)
        except RegistryError:
            inline = self._log.fold.head_inline
            if inline is None:
                self._head_arrays()
                return True
            self._registry.write(stored.FOLDER, stored.SUFFIX, inline)  # the same content, so the same name
        self._checked = (head.id, now_s)
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

    def unlearned(self) -> int:
        """Records that the newest head has not learned; all, while there is none.

        Raises:
            EpochError: a topic was recreated meanwhile.
        """
        head = self.newest()
        begins = beginning_offsets(self._bootstrap_servers, self._topics.events)
        return self.lag({p: max(begin, head.offsets.get(p, begin)) if head else begin for p, begin in begins.items()})

    def check_ids(self) -> None:
        """A topic recreated under a running consumer looks as if only old offsets came again.

        Raises:
            EpochError: that of the events or the predictions was.
            ModelLogError: the models topic was.
            TopicError: one is gone.
        """
        models = self._topics.models
        try:
            found = topic_ids(self._bootstrap_servers, (*self._ids, models))
        except TopicError as error:
            error.exit_code = 1  # a new start creates what is missing, and then knows what to refuse
            raise
        if found[models] != self._models_id:
            raise ModelLogError(
                f"topic {models} was created anew (its id was {self._models_id}, is {found[models]}); a new start "
                "follows the newest version in the registry"
            )
        for topic, id_ in self._ids.items():
            if found[topic] != id_:
                text = f"topic {topic} was created anew (its id was {id_}, is {found[topic]})"
                raise self.refusal(EpochError(text + CHOICE))

    def refusal(self, error: StreamAppError) -> StreamAppError:
        """As it is while nobody has chosen; where someone has, a restart goes by that choice."""
        if self._on_mismatch != "refuse":
            error.exit_code = 1
        return error

    @property
    def events_id(self) -> str:
        """The broker's id of the events topic."""
        return self._ids[self._topics.events]

    def _written_letters(self, head: Envelope) -> set[Written]:
        """Those about records that ``head`` has not seen: only these may be met again."""
        topic = self._topics.dead_letters
        found = set()
        for batch in self._reader.read(topic, 0, self._reader.begin(topic, 0), self._reader.end(topic, 0)):
            letters = (d for r in batch if (d := _letter(r.value)) and d.topic_id == self.events_id)
            found |= {
                Written(d.partition, d.offset, d.row) for d in letters if d.offset >= head.offsets.get(d.partition, 0)
            }
        return found


def core_of(spec: ModelSpec, hyper: Hyper | None = None) -> Core:
    """A core that has learned nothing yet.

    Args:
        spec: of the model.
        hyper: instead of the spec's own.
    """
    rates = (hyper.learning_rate, hyper.half_life_events) if hyper else (None, None)
    return Core(spec, learners.make(spec, learning_rate=rates[0], half_life_events=rates[1]))


def _letter(value: bytes | None) -> DeadLetter | None:
    """None for what someone else wrote there."""
    try:
        return msgspec.json.decode(value or b"", type=DeadLetter)
    except ValueError:  # msgspec's decode and validation errors
        return None
