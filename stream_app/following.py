"""The models log says what a server answers with: models log -> [follow -> read -> prepare -> swap] -> source.

A version is prepared beside the serving path and becomes live by the assignment of one reference:
whoever took the reference before keeps a whole, older version until it is done with it.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Literal

import msgspec
from kafka.errors import KafkaError

from stream_app import artefacts, kafka_clients
from stream_app.decisions import Evidence
from stream_app.errors import BrokerError, ModelLogError, RegistryError, StreamAppError, TopicError
from stream_app.live import LiveModel, check_loss, prepare
from stream_app.logclient import LogClient
from stream_app.modellog import HISTORY, Challenger, Envelope, Fold, Variant
from stream_app.registry import Registry
from stream_app.topics import connect

CONTACT_EVERY_S = 1.0
"""How often the broker is asked whether it, and the topic, are still there."""
ANSWER_S = 2.0
"""How long it may take to answer that."""
SILENT_S = 10.0
"""After so long without contact (a paused process) the log may have been trimmed: fold anew."""
LOOK_S = 0.02
"""A broker that does not tell at once what is new is asked as often."""
RETRY_S = 0.5
"""Between two attempts to reach the broker."""
PREPARE_AGAIN_S = 5.0
"""Between two attempts to prepare a refused version: its artefact may have been published anew."""
_STOP_S = 3.0

_log = logging.getLogger(__name__)


Role = Literal["version", "variant", "challenger"]
"""What may be refused."""


@dataclasses.dataclass(frozen=True, slots=True)
class Arms:
    """What answers, and what is tried beside it."""

    live: LiveModel | None = None
    challenger: LiveModel | None = None
    trial: Challenger | None = None
    """How the challenger is tried; None if there is none."""


class LiveFollower:
    """A thread that keeps ``live`` the newest version of the models log.

    Nothing is live before the log has been folded to the end it had when the thread reached it
    (DECISIONS.md, rule 17). ``live`` never goes back in number but to a version that is pinned. A version that
    cannot be prepared, or is much worse than the one before it, is refused and the one before stays. Without a
    broker the last version stays, ``log_age_s`` grows, and once the broker is back the log is folded anew: it may
    have been trimmed in between.

    Args:
        topic: the models topic; it may be created later.
        registry: where artefacts lie that do not travel inline; None if all do.
        changed: called in the thread after each swap.
        alarmed: called in the thread when something is refused, with the head's number and what is known; not again
            for what comes after it, until that kind of thing works again.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        registry: Registry | None = None,
        changed: Callable[[LiveModel], None] = lambda live: None,
        alarmed: Callable[[int, Evidence], None] = lambda number, evidence: None,
    ) -> None:
        self._bootstrap_servers, self._topic = bootstrap_servers, topic
        self._registry, self._changed, self._alarmed = registry, changed, alarmed
        self._arms = Arms()
        self._plain: LiveModel | None = None  # the live version's fp32 form
        self._pinned = False
        self._reached = 0  # the highest number that was live and not pinned
        self._alarms: dict[Role, str] = {}
        self._try_again_s: dict[str, float] = {}  # refused id -> monotonic time
        self._parts: dict[bytes, bytes] = {}  # of the version read last: the next needs only those that changed
        self._heard_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-follower", daemon=True)
        self.refused = 0
        """Versions and variants that could not be prepared."""
        self.swaps = 0
        """Times that ``arms`` has changed."""
        self.waiting_for = "the broker"
        """What stands between here and the newest version; empty if nothing does."""

    @property
    def live(self) -> LiveModel | None:
        """What answers now; take it once per call."""
        return self._arms.live

    @property
    def arms(self) -> "Arms":
        """The same, and what is tried beside it; take it once per call."""
        return self._arms

    @property
    def pinned(self) -> bool:
        """Whether what is live was pinned, so that newer versions wait."""
        return self._pinned

    @property
    def alarm(self) -> str:
        """What was refused, and has not been replaced by something that works; empty if nothing."""
        return "; ".join(self._alarms.values())

    def log_age_s(self, now_s: float) -> float:
        """Time since the broker last answered for the models topic; ``now_s`` is monotonic."""
        return max(now_s - self._heard_s, 0.0)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a request to a silent broker is left behind after 3 s."""
        self._stopping.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (StreamAppError, KafkaError) as error:
                self._wait_for(str(error))
            except Exception:  # a server that answers with an old version beats one that is gone
                _log.exception("%s: cannot be followed", self._topic)
                self._wait_for("an unexpected error, see the server's log")
            self._stopping.wait(RETRY_S)

    def _follow(self) -> None:
        """Fold the log from its beginning and go on until something is wrong with it.

        Raises:
            BrokerError: the broker is gone, or was not heard for too long.
            TopicError: the topic is missing, or is another one than it was.
        """
        with closing(_Contact(self._bootstrap_servers, self._topic)) as contact:
            self._heard_s = time.monotonic()
            with closing(LogClient(self._bootstrap_servers, self._topic, wait_s=LOOK_S)) as client:
                client.catch_up()
                self._settle(client.fold)
                while not self._stopping.is_set():
                    if client.follow():
                        self._heard_s = time.monotonic()
                        self._settle(client.fold)
                    self._listen(contact, client.fold)

    def _listen(self, contact: "_Contact", fold: Fold) -> None:
        silent_s = self.log_age_s(time.monotonic())
        if silent_s < CONTACT_EVERY_S:
            return
        contact.check()
        self._heard_s = time.monotonic()
        if silent_s > SILENT_S:
            raise BrokerError(f"broker: not heard for {silent_s:.1f} s, wanted {SILENT_S:g} at most")
        self._settle(fold)  # a refused version may be readable by now

    def _settle(self, fold: Fold) -> None:
        """Make live what the log says, as far as it can be prepared."""
        head = fold.head
        if head is None:
            self._wait_for(f"the first version on topic {self._topic!r}")
            return
        pinned = fold.route.pinned if fold.route else None
        if pinned is None:
            self._follow_head(fold, head)
        else:
            self._follow_pin(head, pinned)
        if self._plain is None:
            return
        if pinned is not None:
            refused = self._plain.envelope.id != pinned.id
            self.waiting_for = f"version {pinned.id}, pinned and refused so far" if refused else ""
        else:
            self._explain(fold, head, self._plain.envelope)
        self._settle_arms(fold, head, self._plain)

    def _follow_head(self, fold: Fold, head: Envelope) -> None:
        """The newest version that can be prepared; never an older one than was live before."""
        least = self._reached if self._pinned or self._plain is None else self._reached + 1
        found = self._newest(fold, head, least) if head.number >= least else None
        if found is not None:
            self._plain, self._pinned, self._reached = found, False, found.envelope.number
            if found.envelope.id == head.id:
                self._try_again_s.clear()

    def _follow_pin(self, head: Envelope, pinned: Envelope) -> None:
        """Backwards too: that is what a pin is for."""
        if self._plain is not None and self._plain.envelope.id == pinned.id:
            self._pinned = True
            return
        found = self._prepared(head, pinned, None, "version")
        if found is not None:
            self._plain, self._pinned = found, True

    def _newest(self, fold: Fold, head: Envelope, least: int) -> LiveModel | None:
        """The head; if it is refused, the newest before it of its epoch, down to number ``least``."""
        for _, envelope in reversed(fold.history):
            if (
                envelope.number < least or envelope.epoch != head.epoch
            ):  # higher epochs may be rollbacks from those before
                return None
            inline = fold.inline.data if fold.inline and envelope is fold.inline.envelope else None
            between = fold.inline is not None and envelope.number > fold.inline.envelope.number
            found = self._prepared(head, envelope, inline, "version", between=between)
            if found is not None:
                return found
        return None

    def _prepared(
        self, head: Envelope, envelope: Envelope, inline: bytes | None, role: "Role", *, between: bool = False
    ) -> LiveModel | None:
        """A version ready to answer; None if it is refused, now or lately, or lies ``between`` and cannot be read."""
        if time.monotonic() < self._try_again_s.get(envelope.id, 0.0):
            return None
        try:
            found = prepare(artefacts.read(envelope, inline, self._registry, self._parts), envelope)
            self._check(found, role)
        except StreamAppError as error:
            if between and isinstance(error, RegistryError):
                return None
            self._refuse(envelope.id, error, role, head.number)
            return None
        self._alarms.pop(role, None)
        return found

    def _check(self, found: LiveModel, role: "Role") -> None:
        """A version may not be much worse than the one before it; what a new epoch brings was decided by others."""
        before = self._plain
        if role == "challenger" and before is not None and found.envelope.signature != before.envelope.signature:
            raise ModelLogError(f"version {found.envelope.id}: does not fit the head, wanted to be tried beside it")
        if role == "version" and before is not None and before.envelope.epoch == found.envelope.epoch:
            check_loss(found, before, found.spec.traffic.check_budget)

    def _settle_arms(self, fold: Fold, head: Envelope, plain: LiveModel) -> None:
        """Swap if the live version, its form or what is tried beside it has changed."""
        attached = fold.variants if plain.envelope.id == head.id else {}
        bare = tuple(msgspec.structs.replace(v, inline=None) for v in attached.values())
        was = self._arms
        live = was.live
        if live is None or live.envelope is not plain.envelope or live.variants != bare:
            plain = dataclasses.replace(plain, variants=bare)
            live = self._compressed(head, plain, attached.get("int8")) or plain
        trial = fold.route.challenger if fold.route else None
        challenger = self._challenger(head, trial)
        if live is not was.live or challenger is not was.challenger:
            self._swap(Arms(live, challenger, trial if challenger else None))

    def _challenger(self, head: Envelope, trial: Challenger | None) -> LiveModel | None:
        if trial is None:
            self._alarms.pop("challenger", None)
            return None
        mine = self._arms.challenger
        if mine is not None and mine.envelope.id == trial.envelope.id:
            return mine
        return self._prepared(head, trial.envelope, None, "challenger")

    def _compressed(self, head: Envelope, plain: LiveModel, variant: Variant | None) -> LiveModel | None:
        if variant is None or not variant.served:
            return None
        try:
            found = plain.with_variant(variant, artefacts.read(variant, variant.inline, self._registry))
            check_loss(found, plain, plain.spec.traffic.check_budget)
        except StreamAppError as error:
            self._refuse(f"{variant.kind} of {variant.of_version}", error, "variant", head.number)
            return None
        self._alarms.pop("variant", None)
        return found

    def _refuse(self, name: str, error: StreamAppError, role: "Role" = "version", number: int = 0) -> None:
        if name not in self._try_again_s:
            self.refused += 1
            _log.error("refused %s: %s", name, error)
        self._try_again_s[name] = time.monotonic() + PREPARE_AGAIN_S
        if len(self._try_again_s) > 2 * HISTORY:  # versions and their variants; the oldest is in no fold any more
            del self._try_again_s[next(iter(self._try_again_s))]
        if role not in self._alarms:
            self._alarmed(number, {"what": role, "name": name, "error": str(error)})
        self._alarms[role] = f"refused {name}: {error}"
        if self._arms.live is None:
            self._wait_for(str(error))

    def _explain(self, fold: Fold, head: Envelope, mine: Envelope) -> None:
        if head.number < mine.number or (head.number == mine.number and head.id != mine.id):
            self._wait_for(
                f"the log's head is number {head.number} ({head.id}), wanted number {mine.number} "
                f"({mine.id}) or a later one: the topic was recreated; restart to follow it"
            )
        else:
            newest = (head.id, fold.inline.envelope.id if fold.inline else "")
            self.waiting_for = "" if mine.id in newest else f"version {head.id}, refused so far"

    def _wait_for(self, what: str) -> None:
        if what != self.waiting_for:
            _log.warning("waiting: %s", what)
        self.waiting_for = what

    def _swap(self, arms: "Arms") -> None:
        live = arms.live
        assert live is not None
        self._arms = arms
        self.swaps += 1
        beside = f", {arms.trial.mode}: {arms.trial.envelope.id}" if arms.trial else ""
        _log.info("live: %s number %d, %s%s", live.envelope.id, live.envelope.number, live.variant, beside)
        self._changed(live)


class _Contact:
    """Tells an idle topic from a dead broker or a recreated topic, which polling cannot.

    Args:
        topic: must exist.

    Raises:
        BrokerError: the broker does not answer.
        TopicError: the topic is missing.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        connect(bootstrap_servers)
        self._topic = topic
        with kafka_clients.broker_errors(bootstrap_servers):
            self._admin = kafka_clients.admin(
                bootstrap_servers,
                bootstrap_timeout_ms=int(ANSWER_S * 1000),
                request_timeout_ms=int(ANSWER_S * 1000),
            )
        self._bootstrap_servers = bootstrap_servers
        try:
            self._id = self._topic_id()
        except BrokerError:
            self.close()
            raise

    def check(self) -> None:
        """Ask whether broker and topic are still there.

        Raises:
            BrokerError: the broker does not answer.
            TopicError: the topic is gone, or another one has its name.
        """
        if (found := self._topic_id()) != self._id:
            raise TopicError(f"topic {self._topic!r}: has id {found}, wanted {self._id}; it was recreated")

    def _topic_id(self) -> str:
        with kafka_clients.broker_errors(self._bootstrap_servers):
            found = self._admin.describe_topics([self._topic])[0]
        if found["error_code"]:
            raise TopicError(f"topic {self._topic!r}: is not there, wanted the worker to create it")
        return str(found["topic_id"])

    def close(self) -> None:
        self._admin.close()
