"""The core of a worker, pure and synchronous: records -> predict -> join -> score -> learn -> snapshot.

No Kafka, no clock, no threads: the worker feeds it records and carries away what comes out; the tuner's
challenger and the simulation drive the same code.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.drift import Drift, DriftWatch, InputWatch
from models.explain import Importance
from models.features import FeatureEncoder, Raw
from models.learner import Floats, Ints, Learner
from models.references import Recall, References
from models.snapshot import Arrays, prefixed, under
from models.spec import ModelSpec
from stream_app.decode import BadRecord, Decoder, Event, Record
from stream_app.join import LabelJoin, Pair
from stream_app.modellog import ClassScore, Envelope, Hyper
from stream_app.predictions import Block, Said
from stream_app.score import Prequential

log = logging.getLogger("stream_app.learn")

COUNTS = (
    *("events", "learned", "dead_letters", "expired", "orphans", "ignored"),
    *("drifts", "input_drifts", "recalls", "lost_predictions", "skipped_steps"),
)


MOST_CLASSES = 20
"""Every announcement carries their counts."""


class Rows(NamedTuple):
    """One step's rows with features; the join holds (Rows, i) until the label comes."""

    dense: Floats
    """(B, N + R) unscaled."""
    raw: Raw
    own: Floats
    """(B, K) what this model says."""
    told: Floats
    """(B, Q) what the learner will want to know of it when the label comes; NaN where it is lost."""
    said: Block
    """What counts as said: the first record in the predictions topic, else the same as ``own``."""


RowAt = tuple[Rows, int]


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
    bad: list[BadRecord]
    steps: list[Step]
    drifts: list[Drift]
    recalls: list[Recall]
    gap_at: int | None = None
    """The fetch began at this offset, beyond the expected one; nothing was taken."""


@dataclass
class Partition:
    """One partition's share of the state."""

    join: LabelJoin[RowAt]
    next_offset: int
    recorded: dict[int, Said] = field(default_factory=dict)
    """What the predictions topic already says of events from here on."""
    count: int = 0
    xor: int = 0


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
        self._decoder = Decoder(spec)
        self._last_target = float("nan")

    # --- taking records -------------------------------------------------------------------------------

    def take(self, partition: int, records: Sequence[Record]) -> Taken:
        """Let the records take effect, each exactly once (rule 6: only at exactly the expected offset)."""
        out = Taken([], [], [], [], [])
        state = self.partitions.get(partition)
        if state is None:
            return out
        records = [r for r in records if r.offset >= state.next_offset]
        if not records:
            return out
        if records[0].offset > state.next_offset:
            return out._replace(gap_at=records[0].offset)
        for step in self._cut(records):
            self._step(state, step, out)
        return out

    def _cut(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """Steps end at multiples of batch_records at the latest, and where the records in hand end."""
        size = self.spec.learner.batch_records
        return (list(step) for _, step in groupby(records, key=lambda r: r.offset // size))

    def _step(self, state: Partition, records: Sequence[Record], out: Taken) -> None:
        events, bad = self._decoder.decode(records)
        rows = self._predict(state, events, out)
        pairs = self._join(state, events, rows)
        if pairs:
            self._learn(state, pairs, out)
        state.next_offset = records[-1].offset + 1
        out.bad.extend(bad)
        self.counts["dead_letters"] += len(bad)
        for name in ("expired", "orphans", "ignored"):
            self.counts[name] += getattr(state.join, name)
            setattr(state.join, name, 0)

    def _predict(self, state: Partition, events: Sequence[Event], out: Taken) -> Rows | None:
        """Say something of every row before anything is learned from it."""
        nochange = self._last_targets(events)
        events = [e for e in events if e.row is not None]
        if not events:
            return None
        rows, fresh = self._rows(events, [state.recorded.pop(e.offset, None) for e in events], nochange)
        self.encoder.scaler.observe(rows.dense)
        self._watch_inputs(rows, out)
        self.counts["events"] += len(events)
        if len(fresh):
            out.predictions.append(rows.said.take(fresh))
        return rows

    def _watch_inputs(self, rows: Rows, out: Taken) -> None:
        """What changes there may not trouble the model: it goes on record and releases nothing."""
        if names := self.spec.drift.inputs:
            found = self.inputs.add(self.encoder.named(rows.raw, names))
            out.drifts.extend(found)
            self.counts["input_drifts"] += len(found)

    def _last_targets(self, events: Sequence[Event]) -> list[float]:
        """For each row, the last label that had arrived before it; NaN before the first."""
        found = []
        for event in events:
            if event.row is not None:
                found.append(self._last_target)
            if event.target is not None:
                self._last_target = event.target
        return found

    def _rows(
        self, events: Sequence[Event], recalled: Sequence[Said | None], nochange: Sequence[float]
    ) -> tuple[Rows, NDArray[np.intp]]:
        """What is known and said of each row, and which of them were said now for the first time."""
        raw = self.encoder.raw([e.row for e in events if e.row is not None])
        dense = self.encoder.dense(raw, np.array([e.time_s for e in events], dtype=np.float64))
        fresh = _overwrite(dense, recalled)
        own, told = self.learner.ask(self.encoder.standardise(dense), raw.categories)
        prior = self.encoder.priors(len(own))
        said_now = prior if self.encoder.prior_only else own
        offsets = np.array([e.offset for e in events], dtype=np.int64)
        rates = dense[:, len(self.encoder.numeric_names) :]
        said = Block(offsets, rates, said_now.copy(), np.array(nochange, dtype=np.float32), prior)
        _recount(said, recalled)
        return Rows(dense, raw, own, told, said), fresh

    def _join(self, state: Partition, events: Sequence[Event], rows: Rows | None) -> list[Pair[RowAt]]:
        pairs, i = [], 0
        for event in events:
            row = None
            if event.row is not None:
                assert rows is not None
                row, i = (rows, i), i + 1
            pair = state.join.take(event, row)
            if pair is not None:
                pairs.append(pair)
        return pairs

    # --- learning ---------------------------------------------------------------------------------------

    def _learn(self, state: Partition, pairs: Sequence[Pair[RowAt]], out: Taken) -> None:
        target = np.array([p.target for p in pairs], dtype=np.float32)
        dense = np.stack([rows.dense[i] for rows, i in (p.row for p in pairs)])
        categories = np.stack([rows.raw.categories[i] for rows, i in (p.row for p in pairs)])
        keys = np.stack([rows.raw.keys[i] for rows, i in (p.row for p in pairs)])
        own = np.stack([rows.own[i] for rows, i in (p.row for p in pairs)])
        weights = _weights(pairs)
        said = self._score(pairs, target, weights)
        self._watch(said, target, out)
        self.importance.take(self._scores_of, dense, categories, target)
        x = self.encoder.standardise(dense)
        self._recall(x, categories, target, out)
        told = np.stack([rows.told[i] for rows, i in (p.row for p in pairs)])
        skipped = self.learner.skipped_steps
        self.learner.learn(x, categories, target, weights, told)
        self.counts["skipped_steps"] += self.learner.skipped_steps - skipped
        label_times_s = np.array([p.label_time_s for p in pairs])
        self.encoder.rates.learn(keys, self._tracked(target), label_times_s, weights)
        self._enter(state, pairs)
        out.steps.append(Step(x, dense, categories, target, own, said, weights, told))

    def _scores_of(self, dense: Floats, categories: Ints) -> Floats:
        return self.learner.predict(self.encoder.standardise(dense), categories)

    def _score(self, pairs: Sequence[Pair[RowAt]], target: Floats, weights: Floats | None) -> Floats:
        """Each label against what was said when its features came."""
        blocks = [(rows.said, i) for rows, i in (p.row for p in pairs)]
        said = np.stack([b.scores[i] for b, i in blocks])
        nochange = np.array([b.nochange[i] for b, i in blocks], dtype=np.float32)
        self.score.add(said, target, nochange, np.stack([b.prior[i] for b, i in blocks]), weights)
        return said

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

    def _tracked(self, target: Floats) -> NDArray[np.float64]:
        if self.spec.task == "multiclass":
            return np.eye(self.spec.outputs)[target.astype(np.intp)]
        return target.astype(np.float64)[:, None]

    def _enter(self, state: Partition, pairs: Iterable[Pair[RowAt]]) -> None:
        """Enter each learned pair into the ledger."""
        for pair in pairs:
            digest = blake2b(f"{pair.id}\x1f{pair.target!r}".encode(), digest_size=8).digest()
            state.xor ^= int.from_bytes(digest, "big")
            state.count += 1
            self.counts["learned"] += 1

    def adopt(self, learner: Learner) -> None:
        """Go on with another learner; what waits for labels is its to answer, too, as far as ``own`` counts."""
        self.learner = learner
        waiting = {id(rows): rows for state in self.partitions.values() for rows, _ in state.join.rows()}
        for rows in waiting.values():
            rows.own[:] = learner.predict(self.encoder.standardise(rows.dense), rows.raw.categories)
            rows.told[:] = np.nan  # by now it knows more than when they came

    # --- at rest ----------------------------------------------------------------------------------------

    def start(self, offsets: dict[int, int]) -> None:
        """Begin further partitions at these offsets, with nothing remembered."""
        for p, offset in offsets.items():
            self.partitions[p] = Partition(LabelJoin(self.spec.label.wait_s), offset)

    def stand(self, envelope: Envelope) -> None:
        """Stand where a version stands, having learned nothing of it; what it remembers comes by ``rebuild``."""
        self.partitions = {}
        for p, next_offset in envelope.offsets.items():
            _, clock_s = envelope.replay_from.get(p, (next_offset, float("-inf")))
            count, xor = envelope.ledger.get(p, (0, 0))
            join: LabelJoin[RowAt] = LabelJoin(self.spec.label.wait_s, clock_s)
            self.partitions[p] = Partition(join, next_offset, {}, count, xor)

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

    def load(self, arrays: Arrays, envelope: Envelope) -> None:
        """Back to a version; each partition then needs ``rebuild`` if it remembers anything."""
        self.encoder.load(under("features", arrays))
        self._load_score(under("score", arrays))
        self.learner.load(under("learner", arrays))
        self.references.load(under("references", arrays))
        self.drift.load(under("drift", arrays))
        self.inputs.load(under("drift", arrays))
        self.importance.load(under("importance", arrays))
        self._last_target = float(arrays["core.last_target"].astype(np.float64)[0])
        self.reference = envelope.reference
        self.counts = {name: int(envelope.metrics.get(name, 0)) for name in COUNTS}
        self.stand(envelope)

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
        for step in (step for records in batches for step in self._cut(records)):
            events, _ = self._decoder.decode(step)
            self._join(state, events, self._remember(recorded, [e for e in events if e.row is not None]))
        state.join.expired = state.join.orphans = state.join.ignored = 0
        state.recorded = {o: said for o, said in recorded.items() if o >= state.next_offset}

    def _remember(self, recorded: dict[int, Said], events: Sequence[Event]) -> Rows | None:
        if not events:
            return None
        recalled = [recorded.get(e.offset) for e in events]
        rows, lost = self._rows(events, recalled, [float("nan")] * len(events))
        rows.told[:] = np.nan
        self.counts["lost_predictions"] += len(lost)
        return rows

    def metrics(self) -> dict[str, float]:
        waiting = sum(p.join.waiting() for p in self.partitions.values())
        return self.score.metrics() | self.counts | {"waiting": waiting}

    def classes(self) -> tuple[ClassScore, ...]:
        """The MOST_CLASSES with the most labels, the most first; none for regression."""
        counts = sorted(enumerate(self.score.classes()), key=lambda c: -c[1].support)[:MOST_CLASSES]
        return tuple(ClassScore(name=self.spec.score_names[i], **c._asdict()) for i, c in counts)

    def hyper(self) -> Hyper:
        return Hyper(learning_rate=self.learner.learning_rate, half_life_events=self.learner.half_life_events)


def _overwrite(dense: Floats, recalled: Sequence[Said | None]) -> NDArray[np.intp]:
    """Put recorded rates in place of fresh ones; returns the rows that had none."""
    fresh = [i for i, said in enumerate(recalled) if said is None]
    for i, said in enumerate(recalled):
        if said is not None and len(said.rates):
            dense[i, -len(said.rates) :] = said.rates
    return np.array(fresh, dtype=np.intp)


def _recount(said: Block, recalled: Sequence[Said | None]) -> None:
    """What was said first is what counts."""
    for i, first in enumerate(recalled):
        if first is not None:
            said.scores[i], said.nochange[i], said.prior[i] = first.scores, first.nochange, first.prior


def _weights(pairs: Sequence[Pair[RowAt]]) -> Floats | None:
    weights = [p.weight for p in pairs]
    return None if weights.count(1.0) == len(weights) else np.array(weights, dtype=np.float32)


def _errors(task: str, said: Floats, target: Floats, unit: float) -> list[float]:
    """Per example, what drift is watched on: wrong or not; the absolute error, in units, for regression."""
    if task == "binary":
        wrong = (said[:, 0] >= 0.5) != (target == 1.0)
    elif task == "multiclass":
        wrong = said.argmax(axis=1) != target.astype(np.intp)
    else:
        wrong = np.abs(said[:, 0].astype(np.float64) - target)
        wrong = wrong / (unit + wrong)  # bounded: heavy tails would raise false alarms
    return [float(e) for e in wrong]
