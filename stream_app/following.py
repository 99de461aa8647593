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

import msgspec
from kafka.errors import KafkaError

from stream_app import artefacts, kafka_clients
from stream_app.errors import BrokerError, StreamAppError, TopicError
from stream_app.live import LiveModel, prepare
from stream_app.logclient import LogClient
from stream_app.modellog import HISTORY, Envelope, Fold, Variant
from stream_app.registry import Registry
from stream_app.topics import connect

CONTACT_EVERY_S = 1.0
"""How often the broker is asked whether it, and the topic, are still there."""
ANSWER_S = 2.0
"""How long it may take to answer that."""
SILENT_S = 10.0
"""After so long without contact (a paused process) the log may have been trimmed: fold anew."""
RETRY_S = 0.5
"""Between two attempts to reach the broker."""
PREPARE_AGAIN_S = 5.0
"""Between two attempts to prepare a refused version: its artefact may have been published anew."""
_STOP_S = 3.0

_log = logging.getLogger(__name__)


class LiveFollower:
    """A thread that keeps ``live`` the newest version of the models log.

    Nothing is live before the log has been folded to the end it had when the thread reached it
    (DECISIONS.md, rule 17). ``live`` never goes back in number. A version that cannot be prepared is
    refused and the one before stays. Without a broker the last version stays, ``log_age_s`` grows,
    and once the broker is back the log is folded anew: it may have been trimmed in between.

    Args:
        topic: the models topic; it may be created later.
        registry: where artefacts lie that do not travel inline; None if all do.
        changed: called in the thread after each swap.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        registry: Registry | None = None,
        changed: Callable[[LiveModel], None] = lambda live: None,
    ) -> None:
        self._bootstrap_servers, self._topic = bootstrap_servers, topic
        self._registry, self._changed = registry, changed
        self._live: LiveModel | None = None
        self._plain: LiveModel | None = None  # the live version's fp32 form
        self._try_again_s: dict[str, float] = {}  # refused id -> monotonic time
        self._parts: dict[bytes, bytes] = {}  # of the version read last: the next needs only those that changed
        self._heard_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-follower", daemon=True)
        self.refused = 0
        """Versions and variants that could not be prepared."""
        self.waiting_for = "the broker"
        """What stands between here and the newest version; empty if nothing does."""

    @property
    def live(self) -> LiveModel | None:
        """What answers now; take it once per call."""
        return self._live

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
            with closing(LogClient(self._bootstrap_servers, self._topic)) as client:
                client.catch_up()
                self._settle(client.fold)
                while not self._stopping.is_set():
                    if client.poll(0.1):
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
        """Make the newest version that can be prepared live, in the form that the log says."""
        head = fold.head
        if head is None:
            self._wait_for(f"the first version on topic {self._topic!r}")
            return
        if self._plain is None or head.number > self._plain.envelope.number:
            self._plain = self._newest(fold, head) or self._plain
        if self._plain is None:
            return
        self._explain(head, self._plain.envelope)
        if self._plain.envelope.id == head.id:
            self._try_again_s.clear()
        attached = fold.variants if self._plain.envelope.id == head.id else {}
        bare = tuple(msgspec.structs.replace(v, inline=None) for v in attached.values())
        live = self._live
        if live and live.envelope is self._plain.envelope and live.variants == bare:
            return
        plain = dataclasses.replace(self._plain, variants=bare)
        self._swap(self._compressed(plain, attached.get("int8")) or plain)

    def _newest(self, fold: Fold, head: Envelope) -> LiveModel | None:
        """The head; if it is refused, the newest before it of its epoch that is not live yet."""
        for _, envelope in reversed(fold.history):
            old = self._plain is not None and envelope.number <= self._plain.envelope.number
            if old or envelope.epoch != head.epoch:  # a higher epoch may be a rollback from those before
                return None
            if time.monotonic() < self._try_again_s.get(envelope.id, 0.0):
                continue
            inline = fold.head_inline if envelope is head else None
            try:
                return prepare(artefacts.read(envelope, inline, self._registry, self._parts), envelope)
            except StreamAppError as error:
                self._refuse(envelope.id, error)
        return None

    def _compressed(self, plain: LiveModel, variant: Variant | None) -> LiveModel | None:
        if variant is None or not variant.served:
            return None
        try:
            return plain.with_variant(variant, artefacts.read(variant, variant.inline, self._registry))
        except StreamAppError as error:
            self._refuse(f"{variant.kind} of {variant.of_version}", error)
            return None

    def _refuse(self, name: str, error: StreamAppError) -> None:
        if name not in self._try_again_s:
            self.refused += 1
            _log.error("refused %s: %s", name, error)
        self._try_again_s[name] = time.monotonic() + PREPARE_AGAIN_S
        if len(self._try_again_s) > 2 * HISTORY:  # versions and their variants; the oldest is in no fold any more
            del self._try_again_s[next(iter(self._try_again_s))]
        if self._live is None:
            self._wait_for(str(error))

    def _explain(self, head: Envelope, mine: Envelope) -> None:
        if head.number < mine.number or (head.number == mine.number and head.id != mine.id):
            self._wait_for(
                f"the log's head is number {head.number} ({head.id}), wanted number {mine.number} "
                f"({mine.id}) or a later one: the topic was recreated; restart to follow it"
            )
        else:
            self.waiting_for = "" if head.id == mine.id else f"version {head.id}, refused so far"

    def _wait_for(self, what: str) -> None:
        if what != self.waiting_for:
            _log.warning("waiting: %s", what)
        self.waiting_for = what

    def _swap(self, live: LiveModel) -> None:
        self._live = live
        _log.info("live: %s number %d, %s", live.envelope.id, live.envelope.number, live.variant)
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
