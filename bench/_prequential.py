"""Each event is predicted, scored, then learned: Stream, learner -> [per event | late labels | batches] -> Score.

    N   events of the stream
    p   what a learner gives the true class, after its answer is scaled to sum to 1, at least FLOOR
    accuracy   100 / N x the events whose likeliest class is the true one; log-loss: mean of -ln p; MAE: mean |error|

A class that the answer lacks has FLOOR, and an empty answer is wrong: all pay alike for what they have not seen.
CPU seconds are those of the whole process (all threads), over predicting and learning alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from bench._streams import Row, Stream, StreamError

FLOOR = 1e-6

Answer = Mapping[int, float] | float
"""Class -> probability, or the value of a regression."""


class Learner(Protocol):
    """What is measured. A class is an int; a value that is missing is not in the row."""

    def predict_one(self, x: Row) -> Answer: ...

    def learn_one(self, x: Row, y: float) -> None: ...


class BatchLearner(Learner, Protocol):
    """What can also take rows by the batch."""

    def predict_many(self, rows: Sequence[Row]) -> Sequence[Answer]: ...

    def learn_many(self, rows: Sequence[Row], labels: Sequence[float]) -> None: ...


class Score(NamedTuple):
    """How well a stream was predicted; what does not belong to its task is None."""

    accuracy: float | None
    """In %."""
    log_loss: float | None
    """Mean, in nats."""
    mae: float | None
    events_per_cpu_s: float


def per_event(learner: Learner, stream: Stream, *, label_delay: int = 0) -> Score:
    """Each label is learned once ``label_delay`` more events have been predicted; 0: before the next event.

    As many events at the start are not scored: no label was there that one could have learned.
    """
    answers, waiting = [], deque[tuple[Row, float]]()
    start_s = time.process_time()
    for x, y in zip(stream.rows, stream.labels, strict=True):
        answers.append(learner.predict_one(x))
        waiting.append((x, y))
        if len(waiting) > label_delay:
            learner.learn_one(*waiting.popleft())
    return score(stream, answers, time.process_time() - start_s, skip=label_delay)


def delayed_blocks(learner: Learner, stream: Stream, *, size: int) -> Score:
    """Single steps with the label delay of batches: no label of a block is learned before its last row is predicted."""
    answers = []
    start_s = time.process_time()
    for at in range(0, len(stream.rows), size):
        rows, labels = stream.rows[at : at + size], stream.labels[at : at + size]
        answers += [learner.predict_one(x) for x in rows]
        for x, y in zip(rows, labels, strict=True):
            learner.learn_one(x, y)
    return score(stream, answers, time.process_time() - start_s)


def batches(learner: BatchLearner, stream: Stream, *, size: int) -> Score:
    """Whole blocks are predicted, then learned."""
    start_s = time.process_time()
    answers = batch_answers(learner, stream, range(0, len(stream.rows)), size=size)
    return score(stream, answers, time.process_time() - start_s)


def batch_answers(learner: BatchLearner, stream: Stream, events: range, *, size: int) -> list[Answer]:
    """What the learner answers to these events, in blocks."""
    answers: list[Answer] = []
    for at in range(events.start, events.stop, size):
        block = slice(at, min(at + size, events.stop))
        answers += learner.predict_many(stream.rows[block])
        learner.learn_many(stream.rows[block], stream.labels[block])
    return answers


def score(stream: Stream, answers: Sequence[Answer], cpu_s: float, *, skip: int = 0) -> Score:
    """How good the answers to all events of the stream were but the first ``skip``.

    Raises:
        StreamError: there are no others.
    """
    if len(answers) <= skip:
        raise StreamError(
            f"stream {stream.name!r} has {len(answers)} events, wanted more than the label delay of {skip}"
        )
    speed = len(answers) / max(cpu_s, 1e-9)
    pairs = list(zip(answers, stream.labels, strict=True))[skip:]
    if stream.task == "regression":
        return Score(None, None, _mean([abs(answer - y) for answer, y in pairs]), speed)
    hits = [_likeliest(answer) == y for answer, y in pairs]
    return Score(100 * _mean(hits), _mean([-math.log(_probability(answer, y)) for answer, y in pairs]), None, speed)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _likeliest(answer: Mapping[int, float]) -> int | None:
    return max(answer, key=answer.__getitem__) if answer else None


def _probability(answer: Mapping[int, float], label: int) -> float:
    total = math.fsum(answer.values())
    share = answer.get(label, 0.0) / total if 0 < total < math.inf else 0.0
    return min(max(share, FLOOR), 1.0)
