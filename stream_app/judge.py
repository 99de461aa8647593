"""Which version loses less on the labels that come: events, predictions, challenger -> [judge] -> take up, withdraw.

The judge reads what the worker has learned: each label, in the order in which they came, is held against what the
champion said of its example (the predictions topic: what counts as said) and what the challenger, frozen, says of it
at the example's time. So it measures on all labelled examples, whoever was answered by whom, in one place; servers
only carry out the route. A judge that starts again reads again from where the trial began, and finds the same.

    d_i = loss of the challenger - loss of the champion on label i, weighted by w_i
    better   after ``labels`` of them, mean(d) + 2 standard errors < -margin
    worse    at any time from FEWEST on, mean(d) - 4 standard errors > 0
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from kafka.errors import KafkaError
from numpy.typing import NDArray

from models.features import Raw
from models.hashes import HashedEncoder
from models.measure import row_losses
from models.spec import ModelSpec
from stream_app import artefacts
from stream_app.codecs.mixed import Codec
from stream_app.columns import split
from stream_app.decisions import Evidence
from stream_app.errors import OvertakenError, StreamAppError, TopicError, VersionError
from stream_app.events import Topics
from stream_app.join import NO_ROW, Joined, LabelJoin
from stream_app.live import LiveModel, prepare
from stream_app.logclient import LogClient
from stream_app.modellog import Challenger, Envelope
from stream_app.operate import Operator, Trial
from stream_app.predictions import Said
from stream_app.registry import Registry
from stream_app.replay import Reader
from stream_app.waiting import Waiting

log = logging.getLogger("stream_app.judge")

FEWEST = 200
"""Labels before anything is said, unless fewer decide anyway."""
BETTER_ERRORS, WORSE_ERRORS = 2.0, 4.0
"""Standard errors: the one look that promotes, and the many that may withdraw early."""
EVERY_S = 2.0
"""Between two looks at what was learned."""

Verdict = Literal["better", "not better", "worse"]


class Duel:
    """Paired losses of two models, as sums."""

    def __init__(self) -> None:
        self.labels = 0
        self._weight = self._own = self._said = 0.0
        self._w2 = self._w2d = self._w2d2 = 0.0

    def add(self, own: NDArray[np.float64], said: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Losses (n,) of challenger and champion on the same labels; ``weights`` (n,)."""
        d, w2 = own - said, weights**2
        self.labels += len(own)
        self._weight += float(weights.sum())
        self._own += float(weights @ own)
        self._said += float(weights @ said)
        self._w2 += float(w2.sum())
        self._w2d += float(w2 @ d)
        self._w2d2 += float(w2 @ d**2)

    @property
    def losses(self) -> tuple[float, float]:
        """Mean loss of challenger and champion."""
        weight = self._weight or 1.0
        return self._own / weight, self._said / weight

    @property
    def error(self) -> float:
        """Standard error of the weighted mean difference: sqrt(sum w^2 (d - mean)^2) / sum w."""
        own, said = self.losses
        mean = own - said
        squares = self._w2d2 - 2.0 * mean * self._w2d + mean**2 * self._w2
        return math.sqrt(max(squares, 0.0)) / (self._weight or 1.0)

    def verdict(self, labels: int, margin: float) -> Verdict | None:
        """What can be said by now; None: not yet."""
        own, said = self.losses
        mean = own - said
        if self.labels and not math.isfinite(own):
            return "worse"
        if self.labels >= labels:
            return "better" if mean + BETTER_ERRORS * self.error < -margin else "not better"
        if self.labels >= FEWEST and mean - WORSE_ERRORS * self.error > 0.0:
            return "worse"
        return None

    def evidence(self) -> Evidence:
        own, said = self.losses
        return {"labels": self.labels, "challenger_loss": own, "champion_loss": said, "standard_error": self.error}


class Measured:
    """One trial: reads what the worker has learned since it began, and compares.

    Args:
        challenger: as the route says.
        model: the challenger, ready to answer.
        reader: reads events and predictions back.
    """

    def __init__(self, spec: ModelSpec, challenger: Challenger, model: LiveModel, reader: Reader) -> None:
        self._spec, self._model, self._reader = spec, model, reader
        self._topics, self._codec, self._hashed = Topics.of(spec.name), Codec(spec), HashedEncoder(spec)
        self._counted_from = challenger.offsets
        self._at = {p: challenger.replay_from.get(p, (at, 0.0))[0] for p, at in challenger.offsets.items()}
        clocks = {p: challenger.replay_from.get(p, (0, -math.inf))[1] for p in challenger.offsets}
        self._waiting = Waiting()
        self._joins = {p: LabelJoin(spec.label.wait_s, c) for p, c in clocks.items()}
        self._said: dict[int, dict[int, Said]] = {p: {} for p in challenger.offsets}
        self._said_at = {p: challenger.predictions_from.get(p, 0) for p in challenger.offsets}
        self.duel = Duel()

    def read(self, head: Envelope) -> None:
        """Count the labels up to what ``head`` has learned; the predictions of all these examples are on record.

        Raises:
            TopicError: some of them were deleted, or the topic has other partitions than when the trial began.
        """
        if head.offsets.keys() != self._at.keys():
            raise TopicError(f"{self._topics.events}: has other partitions than when the trial began")
        for p, end in head.offsets.items():
            if self._at[p] < end:
                self._recall(p)
                self._read(p, end)

    def _recall(self, partition: int) -> None:
        found, trail = self._reader.said(self._topics.predictions, partition, self._said_at[partition])
        for position, said in found.items():
            self._said[partition].setdefault(position, said)
        self._said_at[partition] = trail.next_offset

    def _read(self, partition: int, end: int) -> None:
        at, topic = self._at[partition], self._topics.events
        if (begin := self._reader.begin(topic, partition)) > at:
            raise TopicError(f"{topic}/{partition}: offsets {at} to {begin - 1} were deleted before they were judged")
        for records in self._reader.read(topic, partition, at, end):
            self._take(partition, records)
        self._at[partition] = end
        first, _ = self._joins[partition].replay_from(end)
        self._said[partition] = {p: said for p, said in self._said[partition].items() if split(p)[0] >= first}

    def _take(self, partition: int, records: Sequence[Any]) -> None:
        columns, _ = self._codec.decode(records)
        at = np.flatnonzero(~np.isnan(columns.time_s))
        raw = self._hashed.raw(columns.numeric[at], columns.hashes[at], columns.lengths[at])
        places = self._waiting.reserve(len(at))
        self._waiting.put(places, **raw._asdict(), time_s=columns.time_s[at], position=columns.positions[at])
        rows = np.full(len(columns.ids), NO_ROW)
        rows[at] = places
        pairs = self._joins[partition].take(columns, rows)
        self._compare(partition, pairs, columns.offsets[pairs.at] >= self._counted_from[partition])
        self._waiting.give_back(np.concatenate([pairs.rows, pairs.dropped]))

    def _compare(self, partition: int, pairs: Joined, counted: NDArray[np.bool_]) -> None:
        said = self._said[partition]
        positions = self._waiting.column("position", pairs.rows).tolist()
        counted &= np.array([p in said for p in positions], np.bool_)
        if not counted.any():
            return
        rows, target = pairs.rows[counted], pairs.target[counted].astype(np.float32)
        raw = Raw(*(self._waiting.column(name, rows) for name in Raw._fields))
        own = self._model.score(raw, self._waiting.column("time_s", rows))  # (n, K)
        found = [said.pop(p) for p, c in zip(positions, counted.tolist(), strict=True) if c]
        scores, priors = np.stack([s.scores for s in found]), np.stack([s.prior for s in found])
        champion = np.where(np.isfinite(scores), scores, priors)  # as it is scored
        task = self._spec.task
        self.duel.add(row_losses(task, own, target), row_losses(task, champion, target), pairs.weight[counted])


class Judge:
    """Minds whichever challenger is out; one thread.

    Args:
        models: the models log; ``operator``'s, too.
        operator: carries out what is found.
        clock: wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        models: LogClient,
        registry: Registry,
        reader: Reader,
        operator: Operator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spec, self._log, self._registry, self._reader = spec, models, registry, reader
        self._operator, self._clock = operator, clock
        self._measured: tuple[int, Measured] | None = None
        self._told = -1

    def step(self) -> Verdict | None:
        """Look once; returns what was found and acted on, if anything."""
        self._log.poll(0.2)
        fold = self._log.fold
        challenger = fold.route.challenger if fold.route else None
        if challenger is None or fold.head is None:
            self._measured = None
            return None
        if self._told == fold.route_at:
            return None
        try:
            return self._judge(fold.route_at, challenger, fold.head)
        except (TopicError, VersionError) as error:  # it can never be measured, or never be the head
            self._operator.withdraw(f"cannot be tried: {error}")
            return None

    def _judge(self, at: int, challenger: Challenger, head: Envelope) -> Verdict | None:
        if challenger.envelope.signature != head.signature:
            raise VersionError(f"version {challenger.envelope.number} does not fit the head any more")
        if self._measured is None or self._measured[0] != at:
            self._measured = at, Measured(self._spec, challenger, self._ready(challenger), self._reader)
        measured = self._measured[1]
        measured.read(head)
        verdict = measured.duel.verdict(challenger.labels, challenger.margin)
        if verdict is not None:
            self._act(at, challenger, verdict, measured.duel.evidence())
        elif self._clock() > challenger.until_s:
            self._operator.withdraw("its time is over, too few labels came", measured.duel.evidence())
        return verdict

    def _ready(self, challenger: Challenger) -> LiveModel:
        envelope = challenger.envelope
        try:
            return prepare(artefacts.read(envelope, None, self._registry), envelope)
        except StreamAppError as error:
            raise VersionError(str(error)) from error

    def _act(self, at: int, challenger: Challenger, verdict: Verdict, evidence: Evidence) -> None:
        reason = f"{verdict} than the champion on {evidence['labels']} labels"
        log.info("version %d, %s: %s", challenger.envelope.number, challenger.mode, reason)
        if not challenger.auto:
            self._operator.judged(challenger, evidence | {"verdict": verdict}, reason)
            self._told = at
        elif verdict == "better":
            guarding = challenger.mode == "guard"
            guard = None if guarding else Trial.of(self._spec.traffic, "guard", percent=0.0)
            self._operator.take_up(challenger, evidence, reason, guard)
        else:
            self._operator.withdraw(reason, evidence)


def run(judge: Judge, stop: threading.Event, *, every_s: float = EVERY_S) -> None:
    """Look until ``stop``; trouble is logged and tried again."""
    while not stop.wait(every_s):
        try:
            judge.step()
        except OvertakenError as error:
            log.info("%s", error)
        except (StreamAppError, KafkaError) as error:
            log.warning("not judged now: %s", error)
