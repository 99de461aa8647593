"""The core of a worker, pure and synchronous: records -> predict -> join -> score -> learn -> snapshot.

No Kafka, no clock, no threads: the worker feeds it records and carries away what comes out; the tuner's
challenger and the simulation drive the same code.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import learners
from models.drift import Drift, DriftWatch, InputWatch
from models.explain import Importance
from models.features import FeatureEncoder, Raw
from models.hashes import HashedEncoder
from models.learner import Floats, Ints, Learner
from models.merging import Fork, MergeError
from models.references import Recall, References
from models.snapshot import Arrays, prefixed, under
from models.spec import ModelSpec
from models.standard import observe, standardise
from models.walk import walk
from stream_app import course
from stream_app.codecs.decoded import Decoded, joined
from stream_app.codecs.mixed import Codec
from stream_app.columns import ROW_BITS, BadRow, Columns
from stream_app.decode import Record
from stream_app.ids import Ids
from stream_app.join import NO_ROW, Joined, LabelJoin
from stream_app.modellog import ClassScore, Envelope, Hyper
from stream_app.predictions import Block, Said
from stream_app.score import Prequential
from stream_app.waiting import Waiting

log = logging.getLogger("stream_app.learn")

COUNTS = (
    *("events", "learned", "dead_letters", "expired", "orphans", "ignored"),
    *("drifts", "input_drifts", "recalls", "lost_predictions", "skipped_steps"),
)


MOST_CLASSES = 20
"""Every announcement carries their counts."""


class Version(NamedTuple):
    """A version, whole."""

    envelope: Envelope
    arrays: Arrays


class Step(NamedTuple):
    """The labelled examples that one step learned."""

    x: Floats
    """(n, D) as the network saw them."""
    dense: Floats
    """(n, N + R) unscaled."""
    categories: Ints
    target: Floats
    own: Floats
    said: Floats
    """(n, K) scores that count."""
    weights: Floats | None
    """(n,) what each counts for; None where all count 1."""
    told: Floats
    """(n, Q) what the learner wanted to know of them when their labels came."""


class Taken(NamedTuple):
    """What came out of a fetch."""

    predictions: list[Block]
    """Not yet in the predictions topic."""
    bad: list[BadRow]
    steps: list[Step]
    drifts: list[Drift]
    recalls: list[Recall]
    gap_at: int | None = None
    """The fetch began at this offset, beyond the expected one; nothing was taken."""


class _Asked(NamedTuple):
    """Rows before anything is said of them; as ``Rows`` has them."""

    dense: Floats
    categories: Ints
    nochange: Floats
    prior: Floats

    def take(self, rows: slice) -> "_Asked":
        return _Asked(self.dense[rows], self.categories[rows], self.nochange[rows], self.prior[rows])

    def recall(self, recalled: Sequence[Said | None]) -> None:
        """Put in what was known of some the first time."""
        for i, first in enumerate(recalled):
            if first is not None:
                if len(first.rates):
                    self.dense[i, -len(first.rates) :] = first.rates
                self.nochange[i], self.prior[i] = first.nochange, first.prior


@dataclass
class Partition:
    """One partition's share of the state."""

    join: LabelJoin
    next_offset: int
    recorded: dict[int, Said] = field(default_factory=dict)
    """What the predictions topic already says of rows from here on, by position."""
    held: list[Decoded] = field(default_factory=list)
    """Read, but their step is not full."""
    count: int = 0
    xor: int = 0

    @property
    def expected(self) -> int:
        """Offset of the next record to come."""
        return self.held[-1].last_offset + 1 if self.held else self.next_offset


class Core:
    """One replica of the model.

    Args:
        spec: what is served.
        learner: learns; its state is part of every snapshot.
    """

    def __init__(self, spec: ModelSpec, learner: Learner) -> None:
        self.spec = spec
        self.learner = learner
        self.encoder = FeatureEncoder(spec)
        self.score = Prequential(spec.task, len(spec.label.classes))
        self.drift = DriftWatch(spec.drift.delta, detector=spec.drift.detector)
        self.references = References(spec.task, spec.blend.remembered if spec.blend.kind != "none" else 0)
        self.inputs = InputWatch(spec.drift.inputs, spec.drift.delta, detector=spec.drift.input_detector)
        self.importance = Importance(spec)
        self.partitions: dict[int, Partition] = {}
        self.counts = dict.fromkeys(COUNTS, 0)
        self.reference: str | None = None
        self._codec = Codec(spec)
        self._hashed = HashedEncoder(spec)
        self.waiting = Waiting()
        self._last_target = float("nan")
        self.course: course.Log | None = None
        """Kept where versions say how they came about."""

    # --- taking records -------------------------------------------------------------------------------

    def take(self, partition: int, records: Sequence[Record] | Decoded, *, more: bool = False) -> Taken:
        """Let the records take effect, each exactly once (rule 6: only at exactly the expected offset).

        Args:
            partition: of the events topic.
            records: in the order of their offsets; as they came, or decoded.
            more: further ones follow at once. The last step, if it is not full, waits for them: so the steps are the
                same whatever the size of the fetches.
        """
        out = Taken([], [], [], [], [])
        state = self.partitions.get(partition)
        if state is None:
            return out
        given = records if isinstance(records, Decoded) else self._codec.read(records) if records else None
        _, due = given.split(state.expected) if given else (None, None)
        if due is not None:
            if due.offsets[0] > state.expected:
                return out._replace(gap_at=int(due.offsets[0]))
            state.held.append(due)
        ready = self._ready(state, more)
        if ready is not None:
            out.bad.extend(ready.bad)
            self.counts["dead_letters"] += len(ready.bad)
            self._take_steps(state, ready.columns, out)
            state.next_offset = ready.last_offset + 1
            if self.course is not None:
                self.course.took(partition, state.next_offset)
            self._count_join(state.join)
        return out

    def skip(self, partition: int, next_offset: int) -> Taken:
        """Go on at a later offset: what lies between holds nothing. What was held takes effect first."""
        out = self.take(partition, ())
        self.partitions[partition].next_offset = next_offset
        if self.course is not None:
            self.course.took(partition, next_offset)
        return out

    def _ready(self, state: Partition, more: bool) -> Decoded | None:
        """The records whose steps are full, or all."""
        if not state.held:
            return None
        size, held = self.spec.learner.batch_records, joined(state.held)
        full = state.expected // size * size if more and not held.many else state.expected
        ready, left = held.split(full)
        state.held = [] if left is None else [left]
        return ready

    def _step_ends(self, columns: Columns) -> Ints:
        """Steps end at multiples of batch_records at the latest, and where the records in hand end.

        A record of many rows is cut for itself, at multiples of batch_records counted within it.
        """
        size, offsets = self.spec.learner.batch_records, columns.offsets
        first = columns.rows == 0
        alone = first & np.append(first[1:], True)  # a record of one row
        of = np.where(alone, offsets // size, columns.rows // size)
        ends = (np.diff(of) != 0) | (alone[1:] != alone[:-1]) | (~alone[1:] & (np.diff(offsets) != 0))
        return np.flatnonzero(np.append(ends, True)[: len(offsets)]) + 1

    def _count_join(self, join: LabelJoin) -> None:
        for name in ("expired", "orphans", "ignored"):
            self.counts[name] += getattr(join, name)
            setattr(join, name, 0)

    def _take_steps(self, state: Partition, columns: Columns, out: Taken) -> None:
        """Step after step. What does not ask the learner is done of all of them at once."""
        ends, start = self._step_ends(columns), 0
        while len(ends):
            # Until there is something to tell apart, each step must look whether there is by now.
            together = 1 if self.encoder.prior_only else len(ends)
            part = columns.take(slice(start, int(ends[together - 1])))
            self._steps(state, part, ends[:together] - start, out)
            start, ends = int(ends[together - 1]), ends[together:]

    def _steps(self, state: Partition, columns: Columns, ends: Ints, out: Taken) -> None:
        """Say something of every row of a step before any of the step's labels is learned by the learner."""
        at, raw, places = self._entered(columns)
        row = np.full(len(columns.ids), NO_ROW)
        row[at] = places
        self.waiting.put(places, keys=raw.keys)
        pairs = state.join.take(columns, row)
        nochange, prior_only = self._last_targets(columns)[at], self.encoder.prior_only
        row[at] = np.arange(len(at))
        rates, prior = walk(
            self.encoder.rates,
            row,
            raw.keys,
            columns.time_s[at],
            pairs.at,
            self.waiting.column("keys", pairs.rows),
            self._tracked(pairs.target),
            pairs.label_time_s,
            pairs.weight,
        )
        positions = columns.positions[at]
        recalled = [state.recorded.pop(p, None) for p in positions.tolist()] if state.recorded else []
        dense = np.concatenate([raw.numeric, rates], axis=1)
        new = _Asked(dense, raw.categories, nochange, prior.astype(np.float32))
        new.recall(recalled)
        self.waiting.put(places, **new._asdict())
        said = np.empty_like(new.prior)
        row_start = pair_start = 0
        for row_end, pair_end in zip(np.searchsorted(at, ends), np.searchsorted(pairs.at, ends), strict=True):
            rows, learned = slice(row_start, row_end), slice(pair_start, pair_end)
            if row_start < row_end:
                said[rows] = self._say(new.take(rows), places[rows], recalled[rows], prior_only=prior_only)
                observe(self.encoder.scaler, dense[rows])
                self._watch_inputs(raw, rows, out)
            if pair_start < pair_end:
                self._learn(pairs.take(learned), out)
            row_start, pair_start = row_end, pair_end
        self.counts["events"] += len(at)
        self._record(Block(positions, dense[:, raw.numeric.shape[1] :], said, nochange, new.prior), recalled, out)
        self._enter(state, columns.ids[pairs.at], pairs.target)
        self.waiting.give_back(np.concatenate([pairs.rows, pairs.dropped]))

    def _entered(self, columns: Columns) -> tuple[NDArray[np.intp], Raw, Ints]:
        """Which rows have features, what these are, and places for them among those that wait."""
        at = np.flatnonzero(~np.isnan(columns.time_s))
        numeric, hashes = columns.numeric.take(at, axis=0), columns.hashes.take(at, axis=0)
        raw = self._hashed.raw(numeric, hashes, columns.lengths.take(at, axis=0))
        return at, raw, self.waiting.reserve(len(at))

    def _watch_inputs(self, raw: Raw, rows: slice, out: Taken) -> None:
        """What changes there may not trouble the model: it goes on record and releases nothing."""
        if names := self.spec.drift.inputs:
            found = self.inputs.add(self.encoder.named(raw.take(rows), names))
            out.drifts.extend(found)
            self.counts["input_drifts"] += len(found)

    def _last_targets(self, columns: Columns) -> Floats:
        """For each row (B,), the last label that had arrived before it; NaN before the first."""
        targets = np.concatenate([[self._last_target], columns.target])
        labelled = np.where(np.isnan(targets), 0, np.arange(len(targets)))
        last: Floats = targets[np.maximum.accumulate(labelled)].astype(np.float32)
        self._last_target = float(last[-1])
        return last[:-1]

    def _say(
        self, new: "_Asked", places: Ints, recalled: Sequence[Said | None], *, prior_only: bool
    ) -> NDArray[np.float32]:
        """What is said of rows (n, K), now or, where it is recalled, the first time."""
        own, told = self.learner.ask(standardise(self.encoder, new.dense), new.categories)
        said = new.prior if prior_only else own
        if any(recalled):
            said = said.copy()
            for i, first in enumerate(recalled):
                if first is not None:
                    said[i] = first.scores
        self.waiting.put(places, own=own, told=told, said=said)
        return said

    def _record(self, block: Block, recalled: Sequence[Said | None], out: Taken) -> None:
        """What was said now for the first time is for the predictions topic."""
        if recalled:
            block = block.take(np.array([i for i, first in enumerate(recalled) if first is None], np.intp))
        if len(block.positions):
            out.predictions.append(block)

    # --- learning ---------------------------------------------------------------------------------------

    def _learn(self, pairs: Joined, out: Taken) -> None:
        rows = self.waiting.rows(pairs.rows)
        target = pairs.target.astype(np.float32)
        weights = None if (pairs.weight == 1.0).all() else pairs.weight.astype(np.float32)
        self.score.add(rows.said, target, rows.nochange, rows.prior, weights)
        self._watch(rows.said, target, out)
        self.importance.take(self._scores_of, rows.dense, rows.categories, target)
        x = standardise(self.encoder, rows.dense)
        self._recall(x, rows.categories, target, out)
        skipped = self.learner.skipped_steps
        self.learner.learn(x, rows.categories, target, weights, rows.told)
        self.counts["skipped_steps"] += self.learner.skipped_steps - skipped
        self.counts["learned"] += len(target)
        out.steps.append(Step(x, rows.dense, rows.categories, target, rows.own, rows.said, weights, rows.told))

    def _scores_of(self, dense: Floats, categories: Ints) -> Floats:
        return self.learner.predict(standardise(self.encoder, dense), categories)

    def _watch(self, said: Floats, target: Floats, out: Taken) -> None:
        drift = self.drift.add(_errors(self.spec.task, said, target, self.score.unit()))
        if drift is not None:
            out.drifts.append(drift)
            self.counts["drifts"] += 1
            if drift.worse:  # a stale reference is a bias: released until a fresh one exists
                self._release()

    def _release(self) -> None:
        """Nothing pulls any more; what did is kept, should its stream come back."""
        theta = self.learner.reference()
        if theta is not None:
            self.references.keep(theta)
        self.learner.set_reference(None)
        self.reference = None

    def _recall(self, x: Floats, categories: Ints, target: Floats, out: Taken) -> None:
        """Go back to a past reference that does clearly better on what is about to be learned."""
        recall = self.references.recall(self.learner, x, categories, target)
        if recall is None:
            return
        self._release()
        self.learner.set_parameters(recall.theta)
        self.learner.set_reference(recall.theta)
        out.recalls.append(recall)
        self.counts["recalls"] += 1
        self.reference = f"recalled-at-{self.counts['learned']}"
        self.drift = DriftWatch(self.spec.drift.delta)  # the errors before it were another model's

    def _tracked(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.spec.task == "multiclass":
            return np.eye(self.spec.outputs)[target.astype(np.intp)]
        return target[:, None]

    def _enter(self, state: Partition, ids: Ids, target: NDArray[np.float64]) -> None:
        """Enter each learned pair into the ledger."""
        state.xor ^= ledger_hash(ids, target)
        state.count += len(ids)

    def adopt(self, learner: Learner) -> None:
        """Go on with another learner; what waits for labels is its to answer, too, as far as ``own`` counts."""
        self.learner = learner
        places = self.waiting.places()
        if len(places):
            rows = self.waiting.rows(places)
            own = learner.predict(standardise(self.encoder, rows.dense), rows.categories)
            told = np.full_like(rows.told, np.nan)  # by now it knows more than when they came
            self.waiting.put(places, own=own, told=told)

    # --- at rest ----------------------------------------------------------------------------------------

    def start(self, offsets: dict[int, int]) -> None:
        """Begin further partitions at these offsets, with nothing remembered."""
        for p, offset in offsets.items():
            self.partitions[p] = Partition(LabelJoin(self.spec.label.wait_s), offset)

    def stand(self, envelope: Envelope, mine: Collection[int] | None = None) -> None:
        """Stand where a version stands, having learned nothing of it; what it remembers comes by ``rebuild``.

        Args:
            mine: partitions that this replica learns; None is all.
        """
        self.partitions, self.waiting = {}, Waiting()
        mine = envelope.offsets.keys() if mine is None else envelope.offsets.keys() & mine
        self.learner.share = len(mine) / len(envelope.offsets) if mine else 1.0
        for p, next_offset in envelope.offsets.items():
            if p not in mine:
                continue
            _, clock_s = envelope.replay_from.get(p, (next_offset, float("-inf")))
            count, xor = envelope.ledger.get(p, (0, 0))
            join = LabelJoin(self.spec.label.wait_s, clock_s)
            self.partitions[p] = Partition(join, next_offset, count=count, xor=xor)

    def state(self) -> Arrays:
        """All learned state as arrays, copied; what waits for labels is in the events topic already."""
        return (
            prefixed("features", self.encoder.state())
            | prefixed("score", self.score.state())
            | prefixed("learner", self.learner.state())
            | prefixed("references", self.references.state())
            | prefixed("drift", self.drift.state() | self.inputs.state())
            | prefixed("importance", self.importance.state())
            | {"core.last_target": np.array([self._last_target])}
        )

    def load(self, arrays: Arrays, envelope: Envelope, mine: Collection[int] | None = None) -> None:
        """Back to a version; each partition then needs ``rebuild`` if it remembers anything.

        Args:
            mine: partitions that this replica learns; None is all.
        """
        self._load_learned(arrays)
        self.references.load(under("references", arrays))
        self.drift.load(under("drift", arrays))
        self.inputs.load(under("drift", arrays))
        self.importance.load(under("importance", arrays))
        self._last_target = float(arrays["core.last_target"].astype(np.float64)[0])
        self.reference = envelope.reference
        self.counts = _counts(envelope)
        self.stand(envelope, mine)

    def _load_learned(self, arrays: Arrays) -> None:
        self.encoder.load(under("features", arrays))
        self._load_score(under("score", arrays))
        self.learner.load(under("learner", arrays))

    def rebase(self, base: Version, head: Version) -> None:
        """Go on from ``head``, of which others have learned the most, with what was learned here since ``base``.

        What watches and remembers this replica's own rows stays: detectors, past references, importances, what waits.

        Raises:
            MergeError: the learner is of a kind that cannot be merged, or another program wrote ``head`` in a layout of
                its own; nothing has changed.
        """
        mine, was, theirs = self.state(), base.envelope, head.envelope
        counts = {name: n - _counts(was)[name] for name, n in self.counts.items()}
        fork = Fork(base.arrays, head.arrays, mine, theirs.labels - was.labels, counts["learned"])
        try:
            merged = (
                prefixed("features", self.encoder.merged(fork.under("features")))
                | prefixed("score", self.score.merged(fork.under("score")))
                | prefixed("learner", _merged(self.learner, fork.under("learner")))
            )
        except (KeyError, ValueError) as error:
            raise MergeError(f"version {theirs.number} cannot be merged: {error}") from error
        self._load_learned(merged)
        self.counts = {name: n + counts[name] for name, n in _counts(theirs).items()}
        if self.reference == was.reference:
            self.reference = theirs.reference
        if self.course is not None:
            self.course.merged(theirs.number)

    def forget(self, partition: int) -> None:
        """Another replica learns it from now on."""
        self.waiting.give_back(self.partitions.pop(partition).join.rows())

    def _load_score(self, arrays: Arrays) -> None:
        """What an older program kept of its score may be laid out otherwise: no reason to lose what it learned."""
        try:
            self.score.load(arrays)
        except ValueError as error:
            log.warning("the score begins anew: %s", error)
            self.score = Prequential(self.spec.task, len(self.spec.label.classes))

    def rebuild(self, partition: int, batches: Iterable[Sequence[Record]], recorded: dict[int, Said]) -> None:
        """Remember again what waited: run the join over [replay_from, next_offset) and drop what comes out.

        Args:
            partition: as loaded.
            batches: the events topic from ``replay_from`` up to ``next_offset``.
            recorded: what the predictions topic says, from ``predictions_from`` to its end.
        """
        state = self.partitions[partition]
        for records in batches:
            columns, _ = self._codec.decode(records)
            if len(columns.ids):
                self._remember(state, columns, recorded)
        state.join.expired = state.join.orphans = state.join.ignored = 0
        state.recorded = {p: said for p, said in recorded.items() if p >= state.next_offset << ROW_BITS}

    def _remember(self, state: Partition, columns: Columns, recorded: dict[int, Said]) -> None:
        at, raw, places = self._entered(columns)
        row = np.full(len(columns.ids), NO_ROW)
        row[at] = places
        if len(at):
            recalled = [recorded.get(p) for p in columns.positions[at].tolist()]
            dense, nochange = self.encoder.dense(raw, columns.time_s[at]), np.full(len(at), np.nan, np.float32)
            new = _Asked(dense, raw.categories, nochange, self.encoder.priors(len(at)))
            new.recall(recalled)
            self.waiting.put(places, keys=raw.keys, **new._asdict())
            self._say(new, places, recalled, prior_only=self.encoder.prior_only)
            self.waiting.put(places, told=np.full_like(self.waiting.column("told", places), np.nan))
            self.counts["lost_predictions"] += recalled.count(None)
        pairs = state.join.take(columns, row)
        self.waiting.give_back(np.concatenate([pairs.rows, pairs.dropped]))

    def metrics(self) -> dict[str, float]:
        return self.score.metrics() | self.counts | {"waiting": len(self.waiting)}

    def classes(self) -> tuple[ClassScore, ...]:
        """The MOST_CLASSES with the most labels, the most first; none for regression."""
        counts = sorted(enumerate(self.score.classes()), key=lambda c: -c[1].support)[:MOST_CLASSES]
        return tuple(ClassScore(name=self.spec.score_names[i], **c._asdict()) for i, c in counts)

    def hyper(self) -> Hyper:
        return Hyper(learning_rate=self.learner.learning_rate, half_life_events=self.learner.half_life_events)


def _counts(envelope: Envelope) -> dict[str, int]:
    return {name: int(envelope.metrics.get(name, 0)) for name in COUNTS}


def _merged(learner: Learner, fork: Fork) -> Arrays:
    """The learner's part of a fork; where only one has learned anything, it is its own."""
    if not fork.my_rows:
        return fork.theirs
    return learner.merged(fork) if fork.their_rows else fork.mine


def warm(spec: ModelSpec) -> None:
    """Have all that a core runs compiled: a fresh installation takes up to a minute, later processes a moment.

    Raises:
        SpecError: no learner takes the spec.
    """
    learners.warm(spec)
    core = Core(spec, learners.make(spec))
    core.start({0: 0})
    label = spec.label.classes[0] if spec.label.classes else 0.0
    features = msgspec.json.encode({"id": "e", "time": 0.0, "features": {}})
    labelled = msgspec.json.encode({"id": "e", "label": label, "label_time": 0.0})
    core.take(0, [_Record(0, -1, features), _Record(1, -1, labelled)])


class _Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes


def ledger_hash(ids: Ids, target: NDArray[np.float64]) -> int:
    """XOR of one 64-bit hash per pair of id and target (P,)."""
    crc = ids.crcs().astype(np.uint64)
    mixed = _mixed(crc ^ _mixed(target.astype(np.float64).view(np.uint64)))
    return int(np.bitwise_xor.reduce(mixed)) if len(ids) else 0


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each 64-bit word made into another, all bits of it depending on all (splitmix64's finaliser)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _errors(task: str, said: Floats, target: Floats, unit: float) -> NDArray[np.generic]:
    """Per example, what drift is watched on: wrong or not; the absolute error, in units, for regression."""
    wrong: NDArray[np.generic]
    if task == "binary":
        wrong = (said[:, 0] >= 0.5) != (target == 1.0)
    elif task == "multiclass":
        wrong = said.argmax(axis=1) != target.astype(np.intp)
    else:
        missed = np.abs(said[:, 0].astype(np.float64) - target)
        wrong = missed / (unit + missed)  # bounded: heavy tails would raise false alarms
    return wrong
