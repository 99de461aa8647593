"""The live model a server answers with: models log -> [read -> prepare -> check -> swap] -> serve.

A version is prepared beside the serving path and becomes live by the assignment of one reference:
whoever took the reference before keeps a whole, older version until it is done with it.
"""

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Literal

import msgspec
import numpy as np
from kafka.errors import KafkaError
from numpy.typing import NDArray

from models import learners
from models.direct import Direct
from models.explain import Background, Explained, Explainer, remembered
from models.features import FeatureEncoder
from models.runtime import Runs, Session
from models.snapshot import Arrays, under, unpack
from models.spec import ModelSpec, from_json
from stream_app import artefacts, kafka_clients
from stream_app.errors import BrokerError, ModelLogError, StreamAppError, TopicError
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
_LONG_INTEGER = re.compile(r"-?[0-9]{16,300}")

Scores = NDArray[np.float32]
Codes = NDArray[np.int64]
Times = NDArray[np.float64]
Row = Mapping[str, object]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """One version, ready to answer. Use it from one thread at a time."""

    envelope: Envelope
    spec: ModelSpec
    encoder: FeatureEncoder
    session: Runs
    explainer: Explainer
    newest_s: float
    """Event time of the newest label it has learned from; 0 before the first."""
    prior_only: bool
    """Before two classes (one label, for regression) had been seen: the labels' all-time mean is all it says."""
    variant: Literal["fp32", "int8"] = "fp32"
    variants: tuple[Variant, ...] = ()
    """All that are attached to the version, without their bytes."""

    def predict(self, rows: Sequence[Row], times_s: Sequence[float | None] | None = None) -> Scores:
        """Scores of rows by feature name: (B, K) float32, as ``models.export`` defines them.

        Args:
            times_s: event times at which recent rates are read; None, also for single rows, is
                ``newest_s``.

        Raises:
            FeatureError: a name that the model does not have, or a value of the wrong type.
        """
        return self._said(*self._columns(rows, times_s or [None] * len(rows)))

    def predict_columns(self, numeric: Times, columns: Sequence[Sequence[object]], times_s: Times) -> Scores:
        """The same of whole columns in spec order, each value sound: numeric features (B, N) and C categorical ones.

        Args:
            times_s: (B,); NaN is ``newest_s``.
        """
        raw = self.encoder.raw_columns(numeric, columns)
        at_s = np.where(np.isnan(times_s), self.newest_s, times_s)
        return self._said(self.encoder.dense(raw, at_s), raw.categories)

    def _said(self, dense: Scores, categories: Codes) -> Scores:
        scores = self.session.run(dense, categories)
        return self.encoder.priors(len(dense)) if self.prior_only else scores

    def explain(self, row: Row, time_s: float | None = None, *, log_odds: bool = False) -> tuple[Explained, Scores]:
        """What moved a row's scores, and its dense columns (N + R,), recent rates included.

        Raises:
            FeatureError: as for ``predict``.
        """
        dense, categories = self._columns([row], [time_s])
        return self.explainer.explain(self.session.run, dense[0], categories[0], log_odds=log_odds), dense[0]

    def _columns(self, rows: Sequence[Row], times_s: Sequence[float | None]) -> tuple[Scores, Codes]:
        raw = self.encoder.raw_of([self._typed(row) for row in rows])
        at_s = np.array([self.newest_s if t is None else t for t in times_s], dtype=np.float64)
        return self.encoder.dense(raw, at_s), raw.categories

    def _typed(self, row: Row) -> Row:
        """A wire knows one kind of number: 3.0 for a categorical feature is the integer 3.

        Integers that no double holds come as text; for a numeric feature the nearest double will do.
        """
        typed: dict[str, object] = {
            name: int(value)
            for name in self.encoder.categorical_names
            if isinstance(value := row.get(name), float) and value.is_integer()
        }
        for name in self.encoder.numeric_names:
            if isinstance(value := row.get(name), str) and _LONG_INTEGER.fullmatch(value):
                typed[name] = float(value)
        return {**row, **typed} if typed else row

    def with_variant(self, variant: Variant, onnx: bytes) -> "LiveModel":
        """The same version, answered by a compressed form of it.

        Raises:
            ModelLogError: the form is of another version, or fails the self-check.
        """
        name = f"variant {variant.kind} of version {variant.of_version}"
        if variant.of_version != self.envelope.id:
            raise ModelLogError(f"{name}: given to version {self.envelope.id}, wanted its own")
        try:
            session = Session(onnx)
        except Exception as error:  # onnxruntime's errors share no base
            raise ModelLogError(f"{name}: {error!r}, wanted a loadable graph") from error
        model = dataclasses.replace(self, session=session, variant=variant.kind)
        _check(model, name)
        return model


def prepare(data: bytes, envelope: Envelope) -> LiveModel:
    """Turn a version's artefact into a model that has answered once already.

    Args:
        data: the artefact; its hash has been checked.

    Raises:
        ModelLogError: it cannot be loaded, or fails the self-check.
    """
    name = f"version {envelope.id} (number {envelope.number})"
    try:
        model = _load(data, envelope)
    except Exception as error:  # broken bytes break anything: safetensors, msgspec, numpy, onnxruntime
        raise ModelLogError(f"{name}: {error!r}, wanted a loadable artefact") from error
    _check(model, name)
    return model


def _load(data: bytes, envelope: Envelope) -> LiveModel:
    arrays, texts = unpack(data)
    spec = from_json(texts["spec"])
    encoder = FeatureEncoder(spec)
    learned = under("features", arrays)
    encoder.load(learned)
    return LiveModel(
        envelope=envelope,
        spec=spec,
        encoder=encoder,
        session=_session(spec, encoder, arrays),
        explainer=Explainer(spec, _background(encoder, arrays)),
        newest_s=_newest_s(learned, envelope),
        prior_only=encoder.prior_only,
    )


def _session(spec: ModelSpec, encoder: FeatureEncoder, arrays: Arrays) -> Runs:
    """What answers: the version's graph, or the learner itself where there is none."""
    if artefacts.SERVING in arrays:
        return Session(arrays[artefacts.SERVING].tobytes())
    learner = learners.make(spec)  # imports what it needs: numba, River
    learner.load(under("learner", arrays))
    return Direct(encoder, learner)


def _background(encoder: FeatureEncoder, arrays: Arrays) -> Background:
    """Rows that the version remembers; while it has none, one of means, its categories missing."""
    kept = under("importance", arrays)
    if "dense" in kept and len(kept["dense"]):
        return remembered(kept)
    codes = np.zeros((1, len(encoder.categorical_names)), np.int64)
    return Background(encoder.scaler.mean.astype(np.float32)[None], codes)


def _newest_s(learned: Arrays, envelope: Envelope) -> float:
    """Newest label time in the rates; without rates nothing depends on it: the newest clock."""
    times_s = learned["rates.last_s"]
    if times_s.size:
        return float(times_s.astype(np.float64).max())
    return max((clock_s for _, clock_s in envelope.replay_from.values()), default=0.0)


def _check(model: LiveModel, name: str) -> None:
    """Answer one row whose features are all missing; the session is warm afterwards.

    Raises:
        ModelLogError: it fails, or the answer has a wrong shape or is no probability.
    """
    try:
        scores = dataclasses.replace(model, prior_only=False).predict([{}])  # the graph's, whatever it will say
    except Exception as error:  # onnxruntime's errors share no base
        raise ModelLogError(f"{name}: self-check failed with {error!r}") from error
    wanted = (1, model.spec.outputs)
    if scores.shape != wanted:
        raise ModelLogError(f"{name}: self-check gave shape {scores.shape}, wanted {wanted}")
    possible = np.isfinite(scores)
    if model.spec.task != "regression":
        possible &= (scores >= 0.0) & (scores <= 1.0)
    if not possible.all():
        kind = "a finite number" if model.spec.task == "regression" else "probabilities"
        raise ModelLogError(f"{name}: self-check gave {scores.tolist()}, wanted {kind}")


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
