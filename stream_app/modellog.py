"""A version becomes the head: durable artefact -> announce -> [fold] -> worker, server, tuner, monitor.

The models topic has one partition and its order is the lock: the head is whatever folding it yields.
The rules are numbered in DECISIONS.md ("The protocol").
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

HISTORY = 64
"""How many counted envelopes a fold remembers; the tuner starts its replay from one of them."""


class Hyper(msgspec.Struct, frozen=True, kw_only=True):
    """What re-tuning may change."""

    learning_rate: float
    half_life_events: float


class ClassScore(msgspec.Struct, frozen=True, kw_only=True):
    """How one class has fared over all labels, each counted by its weight."""

    name: str
    support: float
    """Labels of this class."""
    said: float
    """How many were said to be of it."""
    right: float
    """How many were both."""

    @property
    def precision(self) -> float:
        """Of what was said to be of this class, the share that was; NaN if nothing was said to be."""
        return self.right / self.said if self.said else math.nan

    @property
    def recall(self) -> float:
        """Of this class, the share that was said to be; NaN before its first label."""
        return self.right / self.support if self.support else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN if the class was neither there nor said."""
        either = self.said + self.support
        return 2.0 * self.right / either if either else math.nan


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What an announcement says of a version; everything but its parameters. Keys of dicts are partitions."""

    id: str
    """First 16 hex digits of sha256."""
    number: int
    """1, 2, 3 ... along the lineage, given by the fold; a server never goes backwards in it."""
    epoch: int
    """Raised by promotion, rollback, restoration and a new epoch; plain versions keep their parent's."""
    parent: str | None
    offsets: dict[int, int]
    """The next offset to take effect: the version has seen exactly the records before it."""
    replay_from: dict[int, tuple[int, float]]
    """Offset of the oldest remembered example's first record, and the join's clock just before it."""
    predictions_from: dict[int, int]
    """Where in the predictions topic the remembered examples' predictions begin."""
    artefact: str
    """Path inside the registry."""
    sha256: str
    """Of the file at ``artefact``, which has those of all its parts."""
    size_bytes: int
    """Of the whole version."""
    signature: str
    """models.spec.signature of the spec it was made with."""
    topic_ids: dict[str, str]
    """Broker's ids of the events and predictions topics the offsets belong to."""
    labels: int
    """Learned (features, label) pairs so far."""
    hyper: Hyper
    reference: str | None
    """Which re-tuning found theta_ref; None while there is none, or since drift released it."""
    ledger: dict[int, tuple[int, int]]
    """Per partition: learned pairs, and the XOR of their 64-bit hashes. Any loss or doubling shows."""
    metrics: dict[str, float]
    """Flat; see stream_app.score for the names."""
    classes: tuple[ClassScore, ...] = ()
    """The 20 classes with the most labels, the most first; none for regression."""
    created_s: float
    """Wall clock, seconds since the epoch."""
    importance: dict[str, float] = {}
    """Per feature, the largest first, at most 50: models.explain.Importance."""
    members: dict[str, float] = {}
    """Weights of a mixture's members; empty for a single network."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True, tag="announcement"):
    """A writer's wish that ``envelope`` be the head."""

    kind: Literal["version", "promotion", "epoch", "adoption"]
    """version: learned on its parent. promotion: the tuner's challenger. epoch: restored, or begun anew.
    adoption: what another version had learned, at the head's offsets: a rollback, or a canary that won."""
    envelope: Envelope
    parent_envelope: Envelope | None
    """The head that the writer read, whole, so that a trimmed log can be folded (rule 16)."""
    parent_at: int
    """Offset where the writer read it; -1 for none."""
    inline: bytes | None = None
    """The artefact, if it is small."""
    between: bool = False
    """Small, but not inline: one that is follows within ``publish.every_s``, and who cannot read the registry waits."""
    route: "Route | None" = None
    """The route that counted when the writer last read, so that a trimmed log does not forget it."""
    route_at: int = -1
    """Its offset; -1 for none."""


class Variant(msgspec.Struct, frozen=True, kw_only=True, tag="variant"):
    """A compressed form of one version; attached to it, never a version itself."""

    of_version: str
    kind: Literal["int8"]
    artefact: str
    sha256: str
    size_bytes: int
    fp32_bytes: int
    runtime: str
    """Such as onnxruntime-1.31.1-cpu."""
    batch: int
    """Rows per call in the timing."""
    latency_us: float
    fp32_latency_us: float
    """Median per call, both timed alternately in the same process."""
    loss: float
    fp32_loss: float
    rows: int
    """Examples that both losses were measured on."""
    served: bool
    """Within the loss budget and faster than fp32: servers use it while its version is the head."""
    created_s: float
    inline: bytes | None = None


class Challenger(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is held and tried beside the head, and what decides about it."""

    envelope: Envelope
    """Its artefact lies in the registry's folder of held versions."""
    mode: Literal["canary", "shadow", "guard"]
    """canary: answers a share of the calls. shadow: is asked beside the head, never answers. guard: a shadow of the
    head that a canary has replaced; if it does better after all, it is taken up again."""
    percent: float
    """Share of the calls that a canary answers, 0 to 100; of a shadow, share of the calls that it is asked, too."""
    key: str
    """The feature whose value decides who answers, so that the same value always gets the same; "": chance."""
    auto: bool
    """Whether the judge takes it up, or withdraws it; else it only puts its finding on record."""
    labels: int
    """So many labels decide."""
    margin: float
    """Loss that it must win by."""
    until_s: float
    """Wall clock; undecided by then, it is withdrawn."""
    offsets: dict[int, int]
    """The head's when it began: labels from here on are counted."""
    replay_from: dict[int, tuple[int, float]]
    predictions_from: dict[int, int]


class Route(msgspec.Struct, frozen=True, kw_only=True, tag="route"):
    """What servers answer with, if not with the head alone. It replaces the route before it, whole."""

    after: int
    """Offset of the route that its writer had read last, -1 for none: behind any other it does not count."""
    pinned: Envelope | None = None
    """What they answer with instead of the head; learning goes on."""
    challenger: Challenger | None = None
    reason: str = ""
    by: str = ""
    created_s: float


LogRecord = Announcement | Variant | Route

encode_record: Callable[[LogRecord], bytes] = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(LogRecord).decode


class Change(msgspec.Struct, frozen=True):
    """What one counted record did to the fold."""

    at: int
    """Offset in the models topic."""
    record: LogRecord
    head: Envelope
    """The head after it."""


class Inline(NamedTuple):
    """A version whose bytes came with its announcement."""

    envelope: Envelope
    data: bytes


class Fold:
    """The log's meaning so far: which version is the head, and its variants. Pure; no I/O.

    Args:
        log_start: first offset that the log still has; announcements before it were trimmed.
    """

    def __init__(self, log_start: int = 0) -> None:
        self.log_start = log_start
        self.head: Envelope | None = None
        self.head_at = -1
        self.head_inline: bytes | None = None
        self.inline: Inline | None = None
        """The newest version that travelled inline, if all heads since lie between it and another one."""
        self.variants: dict[str, Variant] = {}
        self.route: Route | None = None
        self.route_at = -1
        self.history: deque[tuple[int, Envelope]] = deque(maxlen=HISTORY)
        """The newest counted versions, each with its offset in the log."""
        self.ignored = 0
        self._unsure: list[tuple[int, LogRecord]] = []
        """What a trimmed log says before it is known who was the head."""

    @property
    def between(self) -> bool:
        """Whether the head is announced as one that another, inline, follows."""
        return self.inline is not None and self.inline.envelope is not self.head

    def apply(self, at: int, record: LogRecord) -> Change | None:
        """Take the record at offset ``at``; returns what changed, or None if it does not count."""
        if self.head is None and self.log_start:
            self._adopt_parent(record)
            if self.head is None:
                self._unsure.append((at, record))
        if isinstance(record, Variant):
            return self._attach(at, record)
        if isinstance(record, Route):
            return self._reroute(at, record)
        if not self.counts(record):
            self.ignored += 1
            return None
        # A log that had to begin anew goes on counting where the version it begins with was: servers never go back.
        number = self.head.number + 1 if self.head else max(1, record.envelope.number)
        wish = record.envelope
        if record.kind == "adoption" and self.head is not None:
            wish = adopted(wish, self.head)
        self.head = msgspec.structs.replace(wish, number=number)
        self.head_at = at
        self.head_inline = record.inline
        if record.inline is not None:
            self.inline = Inline(self.head, record.inline)
        elif not record.between:
            self.inline = None
        self.variants = {}
        self.history.append((at, self.head))
        return Change(at, record, self.head)

    def _attach(self, at: int, variant: Variant) -> Change | None:
        if self.head is None or variant.of_version != self.head.id:
            self.ignored += 1
            return None
        self.variants[variant.kind] = variant
        return Change(at, variant, self.head)

    def _reroute(self, at: int, route: Route) -> Change | None:
        if self.head is None or route.after != self.route_at:
            self.ignored += 1
            return None
        self.route, self.route_at = route, at
        return Change(at, route, self.head)

    def _adopt_parent(self, record: LogRecord) -> None:
        """A trimmed log begins in the middle: its first sure announcement says what the head was (rule 16).

        What came after that head is folded again: a promotion among it counts, whatever head its writer had read.
        """
        if not isinstance(record, Announcement) or not record.parent_envelope or record.parent_at + 1 < self.log_start:
            return
        self.head = record.parent_envelope
        self.head_at = record.parent_at
        self.route, self.route_at = record.route, record.route_at
        self.history.append((self.head_at, self.head))
        later = [(at, r) for at, r in self._unsure if at > record.parent_at]
        self.ignored -= len(later)
        self._unsure = []
        for at, earlier in later:
            self.apply(at, earlier)

    def counted(self, id_: str, after: int) -> Envelope | None:
        """The version of this id that became the head after offset ``after``, if it did, and not very many since."""
        return next((e for at, e in self.history if e.id == id_ and at > after), None)

    def counts(self, record: Announcement) -> bool:
        """Whether it would become the head if it were the next record."""
        wish, head = record.envelope, self.head
        if head is None:
            return wish.parent is None and self.log_start == 0
        if record.kind == "version":
            return wish.parent == head.id and wish.epoch == head.epoch
        if record.kind == "epoch":
            return wish.parent == head.id and wish.epoch == head.epoch + 1
        if record.kind == "adoption":
            return wish.epoch == head.epoch + 1 and wish.signature == head.signature
        return wish.epoch == head.epoch + 1 and _not_beyond(wish.offsets, head.offsets)


def adopted(wish: Envelope, head: Envelope) -> Envelope:
    """The parameters of ``wish`` at the head's place in the stream: the past is not learned a second time."""
    return msgspec.structs.replace(
        wish,
        parent=head.id,
        offsets=head.offsets,
        replay_from=head.replay_from,
        predictions_from=head.predictions_from,
        topic_ids=head.topic_ids,
        labels=head.labels,
        ledger=head.ledger,
        metrics=head.metrics,
        classes=head.classes,
    )


def _not_beyond(wish: dict[int, int], head: dict[int, int]) -> bool:
    """A challenger may lag behind the head (what it has not seen is learned), never lead it (rule 21)."""
    return all(offset <= head.get(p, 0) for p, offset in wish.items()) and wish.keys() == head.keys()


def fold(records: Iterable[tuple[int, LogRecord]], log_start: int = 0) -> Fold:
    """Fold a whole log at once."""
    folded = Fold(log_start)
    for at, record in records:
        folded.apply(at, record)
    return folded
