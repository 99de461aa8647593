"""Re-tuning while the model runs: drift of time -> [search on replay -> shadow -> promote] -> new head.

    base        the version at the window's start, kept when it was the head
    window      the events after it that the head has learned; trials replay it from the base's parameters
    challenger  the best trial, standing at the window's end; it goes on over the events that came after,
                scored beside what was really said; it is promoted only if it wins there

The challenger drives the worker's own core, so a promoted version holds exactly what its offsets say
(rules 20, 21). Learning never stops meanwhile.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from kafka.errors import KafkaError

from models import learners
from models.learner import Learner
from models.measure import mean_loss
from models.search import RandomSearch, Search
from models.snapshot import Arrays, under
from models.spec import ModelSpec
from stream_app import replay, versions
from stream_app.decisions import DecisionWriter
from stream_app.errors import EpochError, StreamAppError, TopicError
from stream_app.events import Topics
from stream_app.learn import Core, Step
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope, Hyper
from stream_app.predictions import Trail
from stream_app.registry import Registry

log = logging.getLogger("stream_app.tuner")

CLOSE = 8192
"""Records that a challenger may lack when it is promoted: so many are learned again. Where it cannot come so
close, because the worker is as fast, it is promoted once the distance shrinks no more."""

RETRY_S = 2.0
"""Between two looks at a log that cannot be worked with."""


class Base(NamedTuple):
    """A version kept for the day its window is full."""

    envelope: Envelope
    arrays: Arrays


class Trial(NamedTuple):
    """One candidate and how it did over the window."""

    learning_rate: float
    half_life_events: float
    loss: float
    learner: Learner
    """Where it stands at the window's end."""


class Stopped(Exception):
    """The process was asked to end."""


class Challenger:
    """A core that walks behind the head, and what it and the champion lost on the same labels.

    Args:
        base: where it begins.
        reader: reads events and predictions back.
    """

    def __init__(self, spec: ModelSpec, base: Base, reader: replay.Reader) -> None:
        self._topics, self._reader = Topics.of(spec.name), reader
        self.core = Core(spec, _learner(spec, base.envelope))
        self.core.load(base.arrays, base.envelope)
        self.trails: dict[int, Trail] = replay.rebuild(self.core, base.envelope, reader, self._topics)
        for p, (start, _) in base.envelope.replay_from.items():
            self._check_whole(p, start)
        self._spec = spec
        self.labels = 0
        self._weight = self._own_loss = self._said_loss = 0.0

    def walk(self, offsets: dict[int, int]) -> Iterator[Step]:
        """Let the events before ``offsets`` take effect; the predictions of all of them are on record.

        Raises:
            TopicError: some of them were deleted; what would be promoted had never learned them.
        """
        for p, end in offsets.items():
            at = self.core.partitions[p].next_offset
            if at >= end:
                continue
            self._recall(p)
            for chunk in self._reader.read(self._topics.events, p, at, end):
                if chunk[-1].offset + 1 - at > len(chunk):  # asked after reading: what is there now was there then
                    self._check_whole(p, at)
                self.core.partitions[p].next_offset = chunk[0].offset  # what is left out is compaction's, or a marker
                yield from self.core.take(p, chunk).steps
                at = chunk[-1].offset + 1
            if at < end:
                self._check_whole(p, at)

    def _check_whole(self, partition: int, start: int) -> None:
        """Retention has not reached ``start`` yet."""
        begin = self._reader.begin(self._topics.events, partition)
        if begin > start:
            raise TopicError(
                f"{self._topics.events}/{partition}: offsets {start} to {begin - 1} were deleted before the tuner "
                "read them, wanted all of its window; is stream.retention_s too short for it, or for label.wait_s?"
            )

    def _recall(self, partition: int) -> None:
        """Learn from the predictions topic what has been said since."""
        trail = self.trails[partition]
        said, fresh = self._reader.said(self._topics.predictions, partition, trail.next_offset)
        state = self.core.partitions[partition]
        for offset, words in said.items():
            if offset >= state.next_offset:
                state.recorded.setdefault(offset, words)
        trail.extend(fresh)

    def compare(self, step: Step) -> None:
        """Count what both would have lost; ``said`` is what was answered at the time."""
        weight = _weight(step)
        self.labels += len(step.target)
        self._weight += weight
        self._own_loss += weight * mean_loss(self._spec.task, step.own, step.target, step.weights)
        self._said_loss += weight * mean_loss(self._spec.task, step.said, step.target, step.weights)

    def behind(self, offsets: dict[int, int]) -> int:
        """Records between it and ``offsets``."""
        return sum(end - self.core.partitions[p].next_offset for p, end in offsets.items())

    @property
    def losses(self) -> tuple[float, float]:
        """Mean loss of challenger and champion so far."""
        weight = self._weight or 1.0
        return self._own_loss / weight, self._said_loss / weight

    def wins(self, margin: float) -> bool:
        """By more than the margin; a loss that is not finite never does, but anything finite beats NaN."""
        own, said = self.losses
        return math.isfinite(own) and not said <= own + margin


class Tuner:
    """Searches, shadows, promotes; one round at a time.

    Args:
        topic_ids: of the events and predictions topics that ``reader`` reads.
        stop: set when the process is to end; a round is left where it is.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        models: LogClient,
        registry: Registry,
        reader: replay.Reader,
        decisions: DecisionWriter,
        topic_ids: dict[str, str],
        stop: threading.Event,
    ) -> None:
        self._spec, self._log, self._registry, self._reader = spec, models, registry, reader
        self._decisions, self._topic_ids, self._stop = decisions, topic_ids, stop
        self._base: Base | None = None
        self._next_base_labels = self._pause_labels
        self.rounds = 0

    def step(self) -> bool:
        """Look at the head; run a round if one is due. True if it ran.

        A round that fails is not tried again: the next begins with a new base, at the head of then.

        Raises:
            EpochError: the head fits neither spec nor topics.
        """
        self._log.poll(0.2)
        head, tuning = self._fitting_head(), self._spec.tuning
        if head is None or tuning.every_labels == 0:
            return False
        if self._base is not None and self._base.envelope.epoch != head.epoch:
            self._base = None  # its line was left
        if self._base is None:
            # After a new beginning (--on-mismatch fresh) the labels count from 0 again.
            self._next_base_labels = min(self._next_base_labels, head.labels + self._pause_labels)
            if head.labels >= self._next_base_labels:
                self._base = Base(head, versions.read_head(self._log.fold, self._registry)[0])
                log.info("window begins at version %d, %d labels", head.number, head.labels)
            return False
        if head.labels - self._base.envelope.labels < tuning.window_labels:
            return False
        try:
            self._round(self._base, head)
        finally:  # a failed round too: its window would only grow
            self._base = None
        self._next_base_labels = head.labels + self._pause_labels
        return True

    @property
    def _pause_labels(self) -> int:
        """Between a round and the next one's base."""
        return max(0, self._spec.tuning.every_labels - self._spec.tuning.window_labels)

    def _fitting_head(self) -> Envelope | None:
        """The head as last read; while it does not fit, nothing is tuned or promoted."""
        head = self._log.head
        if head is not None:
            versions.check_fit(self._spec, self._log.fold, self._registry)
            for topic, id_ in head.topic_ids.items():
                if self._topic_ids.get(topic) != id_:
                    raise EpochError(
                        f"topic {topic}: its id is {id_} for the head, was {self._topic_ids.get(topic)} when the tuner "
                        "started; if it was created anew since, start the tuner again"
                    )
        return head

    def _left(self, epoch: int) -> bool:
        """Whether the champion's line is no longer the log's."""
        head = self._fitting_head()
        assert head is not None
        if head.epoch != epoch:
            self._decisions.decide("kept", head.number, {"reason": "the champion's line was left"})
        return head.epoch != epoch

    def _round(self, base: Base, head: Envelope) -> None:
        started_s = time.monotonic()
        challenger = Challenger(self._spec, base, self._reader)
        full = base.envelope.labels + self._spec.tuning.window_labels
        end = next((e for _, e in self._log.fold.history if e.epoch == head.epoch and e.labels >= full), head)
        window = self._walked(challenger, end)  # not to the head: every trial replays it
        log.info("round %d: trials replay %d labels", self.rounds + 1, sum(len(s.target) for s in window))
        best, losses = search(
            self._spec, base.arrays, base.envelope.hyper, window, round_=self.rounds, mind_stop=self._mind_stop
        )
        self.rounds += 1
        log.info("round %d: best loss %.5f, incumbent's %.5f; its shadow begins", self.rounds, best.loss, losses[0])
        self._decisions.decide(
            "tuned",
            head.number,
            {
                "trials": len(losses),
                "window_labels": sum(len(s.target) for s in window),
                "learning_rate": best.learning_rate,
                "half_life_events": best.half_life_events,
                "loss": best.loss,
                "incumbent_loss": losses[0],
                "seconds": time.monotonic() - started_s,
            },
        )
        best.learner.set_reference(best.learner.parameters())
        challenger.core.adopt(best.learner)
        challenger.core.reference = f"tuned-at-{challenger.core.counts['learned']}"
        if self._shadow(challenger, head.epoch):
            self._promote(challenger, head.epoch)

    def _walked(self, challenger: Challenger, head: Envelope) -> list[Step]:
        steps = []
        for step in challenger.walk(head.offsets):
            self._mind_stop()
            steps.append(step)
        return steps

    def _shadow(self, challenger: Challenger, epoch: int) -> bool:
        """Walk behind the head until enough labels were compared; True if the challenger won."""
        before = math.inf
        while True:
            self._mind_stop()
            self._log.poll(0.2)
            head = self._log.head
            assert head is not None
            if self._left(epoch):
                return False
            if challenger.labels >= self._spec.tuning.shadow_labels:
                if not challenger.wins(self._spec.tuning.margin):
                    self._decisions.decide("kept", head.number, _duel(challenger))
                    return False
                behind = challenger.behind(head.offsets)
                if behind <= CLOSE or behind > 0.8 * before:
                    return True
                before = behind
            for step in self._walked(challenger, head):
                challenger.compare(step)
            log.info("shadow: %d labels, %d records behind", challenger.labels, challenger.behind(head.offsets))

    def _promote(self, challenger: Challenger, epoch: int) -> None:
        self._log.catch_up()
        if self._left(epoch):
            return
        head = self._log.head
        assert head is not None
        taken = versions.snapshot(challenger.core)
        envelope, data = versions.write(
            self._spec,
            taken,
            self._registry,
            parent=head,
            epoch=epoch + 1,  # should the line be left only now, the log will not count it (rule 20)
            predictions_from={p: t.start(taken.replay_from[p][0]) for p, t in challenger.trails.items()},
            topic_ids=self._topic_ids,
            created_s=time.time(),
        )
        self._log.announce("promotion", envelope, data, inline_bytes=self._spec.publish.inline_bytes)
        # Looked up: by now the worker may have built on it.
        counted = next((e for _, e in self._log.fold.history if e.id == envelope.id), None)
        number = counted.number if counted else head.number
        self._decisions.decide("promoted" if counted else "kept", number, _duel(challenger))

    def _mind_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


def search(
    spec: ModelSpec,
    arrays: Arrays,
    incumbent: Hyper,
    window: Sequence[Step],
    *,
    round_: int,
    mind_stop: Callable[[], None],
) -> tuple[Trial, list[float]]:
    """The trial that the search calls best, and the losses of all, that of what is in use now first.

    Args:
        spec: its ``tuning`` says what is tried.
        arrays: the core's state from which every trial begins.
        incumbent: what is in use there; the first trial.
        window: what it replays.
        round_: another one draws other candidates.
        mind_stop: called between steps; what it raises leaves the search.
    """
    tuning = spec.tuning
    searched: Search = RandomSearch(
        {"learning_rate": tuning.learning_rate, "half_life_events": tuning.half_life_events},
        tuning.seed + round_,
        incumbent={
            "learning_rate": incumbent.learning_rate,
            "half_life_events": incumbent.half_life_events,
        },
    )
    best: Trial | None = None
    losses = []
    for _ in range(tuning.trials):
        candidate = searched.ask()
        learner = learners.make(spec, **candidate)
        trial = _tried(spec, learner, arrays, window, mind_stop)
        searched.tell(candidate, trial.loss)
        losses.append(trial.loss)
        if best is None or searched.best == (candidate, trial.loss):
            best = trial  # the others' networks are let go
    assert best is not None
    return best, losses


def _tried(
    spec: ModelSpec, learner: Learner, arrays: Arrays, window: Sequence[Step], mind_stop: Callable[[], None]
) -> Trial:
    learner.load(under("learner", arrays))
    if "learner.reference" not in arrays:
        learner.set_reference(learner.parameters())
    loss, weight = 0.0, 0.0
    for step in window:
        mind_stop()
        said = learner.predict(step.x, step.categories)
        loss += _weight(step) * mean_loss(spec.task, said, step.target, step.weights)
        weight += _weight(step)
        learner.learn(step.x, step.categories, step.target, step.weights, step.told)  # late, as labels come
    mean = loss / (weight or 1.0)
    return Trial(learner.learning_rate, learner.half_life_events, mean if math.isfinite(mean) else math.inf, learner)


def _weight(step: Step) -> float:
    return float(len(step.target)) if step.weights is None else float(step.weights.sum(dtype=np.float64))


def _duel(challenger: Challenger) -> dict[str, float | int | str | bool | None]:
    own, said = challenger.losses
    hyper = challenger.core.hyper()
    return {
        "challenger_loss": own,
        "champion_loss": said,
        "labels": challenger.labels,
        "learning_rate": hyper.learning_rate,
        "half_life_events": hyper.half_life_events,
    }


def _learner(spec: ModelSpec, envelope: Envelope) -> Learner:
    hyper = envelope.hyper
    return learners.make(spec, learning_rate=hyper.learning_rate, half_life_events=hyper.half_life_events)


def run(tuner: Tuner, stop: threading.Event) -> None:
    """Rounds until ``stop``; a broker that goes away is waited for.

    So is a head that fits: a worker may be about to begin a new epoch, and ending here would end it too where
    ``stream-app up`` watches both.
    """
    unfit = ""
    while not stop.is_set():
        try:
            tuner.step()
            unfit = ""
        except Stopped:
            return
        except EpochError as error:
            if str(error) != unfit:
                log.warning("waiting for another head: %s", error)
            unfit = str(error)
            stop.wait(RETRY_S)
        except (StreamAppError, KafkaError) as error:
            log.warning("round left: %s", error)
            stop.wait(RETRY_S)
