"""What people decide about versions: command, call -> [operate] -> models log, decisions.

Learning goes on meanwhile. Whatever is decided is a record of the models log, whose order is the lock: of two who
decide at once, the second is told so. Each decision is on the decisions topic with its evidence.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Literal

import msgspec
from kafka.errors import KafkaError

from models.spec import Traffic
from stream_app import catalogue, holding, stored
from stream_app.catalogue import Listed
from stream_app.decisions import DecisionWriter, Evidence
from stream_app.errors import OvertakenError, VersionError
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Announcement, Challenger, Envelope, Route, adopted
from stream_app.registry import Registry

log = logging.getLogger("stream_app.operate")

LOSSES = ("log_loss", "rmse")
"""The metric that is a version's loss: of classes, of numbers."""
Mode = Literal["canary", "shadow", "guard"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How a challenger is tried."""

    mode: Mode
    percent: float = 100.0
    key: str = ""
    auto: bool = True
    labels: int
    margin: float
    most_s: float
    """After so long it is withdrawn, decided or not."""

    @classmethod
    def of(cls, traffic: Traffic, mode: Mode, *, percent: float = 100.0, key: str = "", auto: bool = True) -> "Trial":
        """One within the limits that a spec sets."""
        labels, margin, most_s = traffic.labels, traffic.margin, traffic.most_s
        return cls(mode=mode, percent=percent, key=key, auto=auto, labels=labels, margin=margin, most_s=most_s)


class Operator:
    """Looks at and decides about one model's versions. One thread at a time.

    Args:
        models: the models log; caught up at each call.
        registry: has the artefacts.
        decide: puts a kind, a version's number and the evidence on record.
        by: who decides.
        inline_bytes: artefacts up to this size travel in announcements.
    """

    def __init__(
        self,
        models: LogClient,
        registry: Registry,
        decide: Callable[[str, int, Evidence], None],
        *,
        by: str,
        inline_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._registry, self._decide = models, registry, decide
        self._by, self._inline_bytes, self._clock = by, inline_bytes, clock

    # --- looking ----------------------------------------------------------------------------------------

    def versions(self) -> list[Listed]:
        """All that can be named, the newest first. What lost its race to be the head may be among the old ones.

        Raises:
            ModelLogError: the log cannot be read.
        """
        self._log.catch_up()
        return catalogue.listed(self._log.fold, self._registry)

    def find(self, which: str) -> Envelope:
        """The version of that number, or whose id begins so.

        Raises:
            NoVersionError: there is none, or there are several.
        """
        return catalogue.find(self.versions(), which)

    def export(self, which: str) -> tuple[Envelope, bytes]:
        """A version as a file for elsewhere.

        Raises:
            VersionError: there is no such version, or it cannot be read any more.
        """
        envelope = self.find(which)
        return envelope, holding.exported(self._whole(envelope))

    # --- deciding ---------------------------------------------------------------------------------------

    def bring_in(self, name: str, data: bytes) -> Envelope:
        """Check and hold a file that ``export`` gave, here or elsewhere; nothing serves it yet.

        Raises:
            VersionError: it is torn or changed, or fits no head of this model.
        """
        envelope, whole = holding.imported(name, data)
        self._log.catch_up()
        head = self._head()
        holding.check(envelope, whole, head, self._head_data())
        envelope = holding.held(envelope, whole, self._registry)
        self._record("imported", head.number, {"id": envelope.id, "number": envelope.number, "bytes": len(whole)}, name)
        return envelope

    def adopt(
        self,
        which: str | Envelope,
        reason: str,
        *,
        kind: Literal["rolled_back", "promoted"] = "rolled_back",
        evidence: Evidence | None = None,
    ) -> Envelope:
        """Make what a version had learned the head, at the head's place in the stream; returns the new head.

        Args:
            which: its number or id; an envelope if it was found before.
            reason: goes on record.
            kind: of the decision.
            evidence: goes on record, too.

        Raises:
            VersionError: there is no such version, it does not fit, or it is the head.
            OvertakenError: the head changed its epoch meanwhile.
        """
        self._log.catch_up()
        source = which if isinstance(which, Envelope) else self.find(which)
        head = self._head()
        if source.id == head.id:
            raise VersionError(f"version {source.number} ({source.id}) is the head, wanted another one")
        data, head_data = self._whole(source), self._head_data()
        holding.check(source, data, head, head_data)
        wish, whole = self._adoption(source, data, head, head_data)
        announcement = Announcement(
            kind="adoption",
            envelope=wish,
            parent_envelope=head,
            parent_at=self._log.fold.head_at,
            inline=whole if len(whole) <= self._inline_bytes else None,
            route=self._log.fold.route,
            route_at=self._log.fold.route_at,
        )
        self._log.propose(announcement)
        # Looked up: by now the worker may have built on it.
        counted = next((e for _, e in self._log.fold.history if (e.id, e.epoch) == (wish.id, wish.epoch)), None)
        if counted is None:
            raise self._overtaken(f"epoch {self._head().epoch} has begun, wanted epoch {head.epoch} to be the head's")
        before: Evidence = {"to": source.number, "to_id": source.id, "from": counted.number - 1, "epoch": counted.epoch}
        losses: Evidence = {"loss": _loss(head), "loss_then": _loss(source)}
        self._record(kind, counted.number, before | losses | (evidence or {}), reason)
        return counted

    def pin(self, which: str, reason: str) -> Envelope:
        """Let servers answer with that version until ``unpin``; learning goes on.

        Raises:
            VersionError: there is no such version, it cannot answer, or a challenger is out.
            OvertakenError: someone else changed the route meanwhile.
        """
        envelope = self.find(which)
        if challenger := self._challenger():
            raise VersionError(f"version {challenger.envelope.number} is out as {challenger.mode}; withdraw it first")
        envelope = self._hold(envelope)
        self._reroute(reason, pinned=envelope)
        self._record("pinned", envelope.number, {"id": envelope.id, "head": self._head().number}, reason)
        return envelope

    def unpin(self, reason: str) -> Envelope:
        """Let servers follow the head again; returns what was pinned.

        Raises:
            VersionError: nothing is pinned.
            OvertakenError: someone else changed the route meanwhile.
        """
        self._log.catch_up()
        route = self._log.fold.route
        if route is None or route.pinned is None:
            raise VersionError("no version is pinned, wanted one to unpin")
        self._reroute(reason)
        evidence: Evidence = {"id": route.pinned.id, "head": self._head().number}
        self._record("unpinned", route.pinned.number, evidence, reason)
        return route.pinned

    def challenge(self, which: str | Envelope, trial: Trial, reason: str) -> Challenger:
        """Try a version beside the head.

        Raises:
            VersionError: there is no such version, it cannot answer, it is the head, or another one is out or pinned.
            OvertakenError: someone else changed the route meanwhile.
        """
        self._log.catch_up()
        envelope = which if isinstance(which, Envelope) else self.find(which)
        head, route = self._head(), self._log.fold.route
        if envelope.id == head.id:
            raise VersionError(f"version {envelope.number} ({envelope.id}) is the head, wanted another one")
        if route and route.pinned:
            raise VersionError(f"version {route.pinned.number} is pinned; unpin it first")
        if other := self._challenger():
            raise VersionError(f"version {other.envelope.number} is out as {other.mode}; withdraw it first")
        return self._send_out(self._hold(envelope), trial, head, reason)

    def take_up(self, challenger: Challenger, evidence: Evidence, reason: str, guard: Trial | None) -> Envelope:
        """Make a challenger that won the head, and let ``guard`` watch over it with what it replaces.

        Whoever dies in between finds the challenger still out, and takes it up again.

        Raises:
            VersionError: it cannot be.
            OvertakenError: the head changed its epoch, or someone else the route, meanwhile.
        """
        self._log.catch_up()
        before = self._hold(self._head()) if guard else None
        kind: Literal["rolled_back", "promoted"] = "rolled_back" if challenger.mode == "guard" else "promoted"
        head = self.adopt(challenger.envelope, reason, kind=kind, evidence=evidence)
        if before is not None and guard is not None:
            self._send_out(before, guard, head, f"watches over version {head.number}")
        else:
            self._reroute(reason)
        return head

    def withdraw(self, reason: str, evidence: Evidence | None = None) -> Challenger:
        """End a trial: servers answer with the head alone again. Returns the challenger that was out.

        Raises:
            VersionError: no challenger is out.
            OvertakenError: someone else changed the route meanwhile.
        """
        self._log.catch_up()
        challenger = self._challenger()
        if challenger is None:
            raise VersionError("no challenger is out, wanted one to withdraw")
        self._reroute(reason)
        found: Evidence = {"id": challenger.envelope.id, "mode": challenger.mode}
        self._record("withdrawn", challenger.envelope.number, found | (evidence or {}), reason)
        return challenger

    # --- parts of these ---------------------------------------------------------------------------------

    def _head(self) -> Envelope:
        head = self._log.head
        if head is None:
            raise VersionError("the models log has no version yet, wanted the worker to have begun")
        return head

    def _challenger(self) -> Challenger | None:
        return self._log.fold.route.challenger if self._log.fold.route else None

    def _whole(self, envelope: Envelope) -> bytes:
        fold = self._log.fold
        inline = fold.head_inline if fold.head and fold.head.id == envelope.id else None
        return holding.whole(envelope, inline, self._registry)

    def _head_data(self) -> bytes | None:
        try:
            return self._whole(self._head())
        except VersionError as error:
            log.warning("the head's scores are left out: %s", error)
            return None

    def _send_out(self, held: Envelope, trial: Trial, head: Envelope, reason: str) -> Challenger:
        challenger = Challenger(
            envelope=held,
            mode=trial.mode,
            percent=trial.percent,
            key=trial.key,
            auto=trial.auto,
            labels=trial.labels,
            margin=trial.margin,
            until_s=self._clock() + trial.most_s,
            offsets=head.offsets,
            replay_from=head.replay_from,
            predictions_from=head.predictions_from,
        )
        self._reroute(reason, challenger=challenger)
        evidence: Evidence = {"id": held.id, "percent": trial.percent, "key": trial.key, "head": head.number}
        self._record(trial.mode, held.number, evidence, reason)
        return challenger

    def _hold(self, envelope: Envelope) -> Envelope:
        data = self._whole(envelope)
        holding.check(envelope, data, self._head(), self._head_data())
        return holding.held(envelope, data, self._registry)

    def _adoption(
        self, source: Envelope, data: bytes, head: Envelope, head_data: bytes | None
    ) -> tuple[Envelope, bytes]:
        """Envelope and artefact, durable; not announced yet."""
        draft = msgspec.structs.replace(
            adopted(source, head), number=head.number + 1, epoch=head.epoch + 1, created_s=self._clock()
        )
        blank = msgspec.structs.replace(draft, id="", artefact="", sha256="", size_bytes=0)
        whole = holding.adoption(data, head_data, blank)
        artefact = self._registry.write(stored.FOLDER, stored.SUFFIX, whole)
        return (
            msgspec.structs.replace(
                draft,
                id=artefact.id,
                artefact=artefact.path,
                sha256=artefact.sha256,
                size_bytes=artefact.size_bytes,
            ),
            whole,
        )

    def _reroute(self, reason: str, *, pinned: Envelope | None = None, challenger: Challenger | None = None) -> None:
        route = Route(
            after=self._log.fold.route_at,
            pinned=pinned,
            challenger=challenger,
            reason=reason,
            by=self._by,
            created_s=self._clock(),
        )
        if not self._log.reroute(route):
            found = self._log.fold.route
            raise self._overtaken(f"{found.by!r} has changed the route ({found.reason!r})" if found else "it changed")

    def _overtaken(self, what: str) -> OvertakenError:
        return OvertakenError(f"someone else came first: {what}; look at `stream-app versions` and decide again")

    def judged(self, challenger: Challenger, evidence: Evidence, reason: str) -> None:
        """Put a finding on record that others act on."""
        found: Evidence = {"id": challenger.envelope.id}
        self._record("judged", challenger.envelope.number, found | evidence, reason)

    def _record(self, kind: str, version: int, evidence: Evidence, reason: str) -> None:
        try:
            self._decide(kind, version, evidence | {"reason": reason, "by": self._by})
        except KafkaError as error:  # the models log has it: it is done
            log.error("%s (version %d, %s) is not on the decisions topic: %s", kind, version, reason, error)


def _loss(envelope: Envelope) -> float | None:
    """Over the newest labels when it was made."""
    return next((envelope.metrics[n] for m in LOSSES if (n := f"window_{m}") in envelope.metrics), None)


@contextmanager
def operator(
    bootstrap_servers: str, topics: Topics, registry: Registry, by: str, inline_bytes: int
) -> Iterator[Operator]:
    """An operator with connections of its own, as long as it is needed.

    Args:
        by: in whose name it decides.
        inline_bytes: ``publish.inline_bytes`` of the spec.
    """
    with (
        closing(LogClient(bootstrap_servers, topics.models)) as models,
        closing(DecisionWriter(bootstrap_servers, topics.decisions)) as decisions,
    ):
        yield Operator(models, registry, decisions.decide, by=by, inline_bytes=inline_bytes)
