"""One stream, we and our peers: Stream, the peers' results -> Versus | RegressionVersus -> summary of all streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import geometric_mean, mean, median
from typing import Any, Protocol

import msgspec

from bench import _peers
from bench._peers import LAST_VALUE, SEEDS, SHORT, Result, Standing, standings
from bench._prequential import Answer, BatchLearner, Score, batch_answers, batches, delayed_blocks, per_event, score
from bench._streams import DEVELOPMENT, HELD_BACK, Stream

BATCH = 32
TURN = 32 * BATCH
"""Events after which the forest and we take turns when speeds are measured."""
FEW_ROWS = 2_000
WITHIN, WITHIN_OF_FEW = 0.5, 1.0
"""Points below the best peer that are still allowed, and on a stream of fewer than FEW_ROWS rows."""


class Mixing(BatchLearner, Protocol):
    """What is compared with the peers."""

    def regret(self) -> float:
        """By how much its summed log-loss so far is above its best member's."""
        ...


MakeOurs = Callable[[Stream, int], Mixing]
"""From the stream and a seed."""


class Versus(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of classes. Accuracies in %, losses in nats; the median of the seeds, of ours as of a peer's."""

    rows: int
    accuracy: float
    """Per event, as is the log-loss."""
    log_loss: float
    best_peer: str | None
    """The one with the best accuracy; None where no peer was measured."""
    best_peer_accuracy: float | None
    best_log_loss_peer: str | None
    best_peer_log_loss: float | None
    batch32_accuracy: float
    batch32_delay_accuracy: float
    """Single steps that get their labels no sooner than batches do."""
    events_per_cpu_s: float
    """In batches of 32, all threads, learning included; in turns with the forest."""
    per_event_per_cpu_s: float
    arf_events_per_cpu_s: float
    mixture_regret: float
    """Mean log-loss above that of the best member, the largest of the seeds."""

    @property
    def margin(self) -> float | None:
        """Points of accuracy above the best peer."""
        return None if self.best_peer_accuracy is None else self.accuracy - self.best_peer_accuracy


class RegressionVersus(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of numbers: mean absolute errors, per event."""

    rows: int
    mae: float
    best_peer: str | None
    """Of all but the last value."""
    best_peer_mae: float | None
    last_value_mae: float | None
    wins: bool
    """At or below both; not if no peer was measured."""
    events_per_cpu_s: float


def versus(stream: Stream, results: Iterable[Result], ours: MakeOurs, *, label_delay: int = 0) -> Versus:
    """Play a stream of classes to fresh models of ours, and set them beside the peers' results on it."""
    singles, regrets = [], []
    for seed in _seeds(stream):
        learner = ours(stream, seed)
        singles.append(per_event(learner, stream, label_delay=label_delay))
        regrets.append(learner.regret() / len(stream.rows))
    in_turns, forest_per_s = batches_beside_forest(ours(stream, 0), stream)
    blocks = [in_turns] + [batches(ours(stream, seed), stream, size=BATCH) for seed in _seeds(stream)[1:]]
    delayed = [delayed_blocks(ours(stream, seed), stream, size=BATCH) for seed in _seeds(stream)]
    peers = standings(results)
    best = max(peers, key=lambda peer: peer.accuracy or 0.0, default=None)
    surest = min(peers, key=_log_loss, default=None)
    return Versus(
        rows=len(stream.rows),
        accuracy=_accuracy(singles),
        log_loss=round(median(s.log_loss for s in singles if s.log_loss is not None), 5),
        best_peer=best and best.peer,
        best_peer_accuracy=best and best.accuracy,
        best_log_loss_peer=surest and surest.peer,
        best_peer_log_loss=surest and surest.log_loss,
        batch32_accuracy=_accuracy(blocks),
        batch32_delay_accuracy=_accuracy(delayed),
        events_per_cpu_s=round(in_turns.events_per_cpu_s, 1),
        per_event_per_cpu_s=round(median(s.events_per_cpu_s for s in singles), 1),
        arf_events_per_cpu_s=round(forest_per_s, 1),
        mixture_regret=round(max(regrets), 5),
    )


def regression_versus(
    stream: Stream, results: Iterable[Result], ours: MakeOurs, *, label_delay: int = 0
) -> RegressionVersus:
    """As ``versus``, for a stream of numbers."""
    singles = [per_event(ours(stream, seed), stream, label_delay=label_delay) for seed in _seeds(stream)]
    mae = round(median(s.mae for s in singles if s.mae is not None), 5)
    peers = {peer.peer: peer.mae for peer in standings(results) if peer.mae is not None}
    last = peers.pop(LAST_VALUE, None)
    best = min(peers, key=peers.__getitem__, default=None)
    others = [other for other in (last, *peers.values()) if other is not None]
    return RegressionVersus(
        rows=len(stream.rows),
        mae=mae,
        best_peer=best,
        best_peer_mae=None if best is None else peers[best],
        last_value_mae=last,
        wins=bool(others) and mae <= min(others),
        events_per_cpu_s=round(median(s.events_per_cpu_s for s in singles), 1),
    )


def batches_beside_forest(learner: BatchLearner, stream: Stream) -> tuple[Score, float]:
    """How good we are in batches, and how many events River's ARF takes per CPU second, taking turns in one process.

    The forest, which has one thread, is charged with that thread; we with all else the process used meanwhile: a
    thread of ours that works on while the forest has its turn is ours to pay.
    """
    rows = _peers.prepared(stream, _peers.FOREST).rows
    forest = _peers.FOREST.make(stream, 0)
    answers: list[Answer] = []
    forest_s, start_s = 0.0, time.process_time()
    for at in range(0, len(rows), TURN):
        turn = range(at, min(at + TURN, len(rows)))
        answers += batch_answers(learner, stream, turn, size=BATCH)
        turn_s = time.thread_time()
        for i in turn:
            forest.predict_one(rows[i])
            forest.learn_one(rows[i], stream.labels[i])
        forest_s += time.thread_time() - turn_s
    ours_s = time.process_time() - start_s - forest_s
    return score(stream, answers, ours_s), len(rows) / max(forest_s, 1e-9)


def _seeds(stream: Stream) -> range:
    return range(SEEDS if len(stream.rows) < SHORT else 1)


def _accuracy(scores: Sequence[Score]) -> float:
    return round(median(s.accuracy for s in scores if s.accuracy is not None), 3)


def _log_loss(peer: Standing) -> float:
    return float("inf") if peer.log_loss is None else peer.log_loss


def summary(found: Mapping[str, Versus], regressions: Mapping[str, RegressionVersus]) -> dict[str, Any]:
    """What all the streams come to, ready for JSON. None where no stream tells."""
    speeds = [v.events_per_cpu_s / v.arf_events_per_cpu_s for v in found.values()]
    delays = [v.batch32_delay_accuracy - v.batch32_accuracy for v in found.values()]
    undelayed = [v.accuracy - v.batch32_accuracy for v in found.values()]
    return {
        "streams": {name: msgspec.to_builtins(v) for name, v in found.items()},
        "held_back": standing([found[name] for name in HELD_BACK if name in found]),
        "development": standing([found[name] for name in DEVELOPMENT if name in found]),
        "speed_geomean_vs_arf": _rounded(geometric_mean(speeds) if speeds else None),
        "speed_min_vs_arf": _rounded(min(speeds, default=None)),
        "batch_worst_loss": _rounded(max(delays, default=None)),
        "batch_worst_loss_undelayed": _rounded(max(undelayed, default=None)),
        "mixture_regret_max": max((v.mixture_regret for v in found.values()), default=None),
        "regression": {
            "streams": {name: msgspec.to_builtins(v) for name, v in regressions.items()},
            "wins": sum(v.wins for v in regressions.values()),
            "of": len(regressions),
        },
    }


def standing(found: Sequence[Versus]) -> dict[str, Any]:
    """Wins against the best peer, margins in points, and on how many streams we fell further behind than allowed."""
    pairs = [(v, v.margin) for v in found if v.margin is not None]
    margins = [margin for _, margin in pairs if margin is not None]
    behind = [m for v, m in pairs if m is not None and m < -(WITHIN_OF_FEW if v.rows < FEW_ROWS else WITHIN)]
    return {
        "wins": sum(margin >= 0 for margin in margins),
        "of": len(margins),
        "worst_margin": _rounded(min(margins, default=None)),
        "mean_margin": _rounded(mean(margins) if margins else None),
        "too_far_behind": len(behind),
        "log_loss_wins": sum(v.log_loss <= v.best_peer_log_loss for v, _ in pairs if v.best_peer_log_loss is not None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
