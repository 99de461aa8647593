"""Does the pull toward the reference pay, and what does it cost? streams -> worker's core -> accuracy per form.

    python -m bench.blend [--events 24000] [--seeds 3] [--first-seed 1] [--streams NAME ...]

The core is the service's: labels come DELAY events late, drift is watched, the reference released and recalled by it.
The reference is found by the tuner's own search over a replay window; its challenger then walks behind the core and
takes its place if it lost less. Every form sees the same events and is tuned in the same rounds.

    none        tuned, no pull
    default     models.spec.Blend() as it is
    pull_only   the default, but no reference is kept once released
    explicit, literal   the other forms, else as the default

Accuracy is prequential, in %, of what was said before the label came; the median over the seeds. Gains are in points
against none, the median of the differences seed by seed; beside it the least of them.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, cycle, islice
from typing import Any, NamedTuple, cast

import numpy as np
from river.datasets import synth

from models.measure import mean_loss
from models.spec import Blend, Categorical, Features, Label, Learner, ModelSpec, Numeric, Optimiser, Tuning
from models.torch_learner import TorchLearner, use_one_thread
from stream_app.learn import Core, Step
from stream_app.modellog import Envelope
from stream_app.predictions import Block, Said, Trail
from stream_app.replay import Reader
from stream_app.tune import Base, Challenger, search
from stream_app.versions import snapshot

DELAY = 200
"""Events between features and their label."""
FETCH = 256
CONCEPT = 3_000
"""Events before a concept gives way to the next."""
TUNING = Tuning(every_labels=1_500, window_labels=1_000, trials=4, shadow_labels=250, learning_rate=(0.001, 0.02))
"""As the default, but for streams a hundredth as long."""
FORMS: dict[str, Blend] = {
    "none": Blend(kind="none"),
    "default": Blend(),
    "pull_only": Blend(remembered=0),
    "explicit": Blend(kind="explicit"),
    "literal": Blend(kind="literal"),
}

Sample = tuple[dict[str, Any], Any]
Stream = Iterator[Sample]


class Record(NamedTuple):
    """What the core needs of a Kafka record."""

    offset: int
    timestamp: int
    value: bytes


def agrawal(function: int, seed: int) -> Stream:
    return iter(synth.Agrawal(classification_function=function, seed=seed))  # type: ignore[no-untyped-call]


def sine(function: int, seed: int) -> Stream:
    return iter(synth.Sine(classification_function=function, seed=seed))  # type: ignore[no-untyped-call]


def in_turn(concepts: Iterable[Stream], events: int = CONCEPT) -> Stream:
    """So many of each, one concept after the other; a stream that comes again goes on."""
    return chain.from_iterable(islice(concept, events) for concept in concepts)


def recurring(seed: int) -> Stream:
    """Two concepts in turn."""
    return in_turn(cycle([agrawal(0, seed), agrawal(3, seed + 50)]))


def recurring_three(seed: int) -> Stream:
    """Three, of another kind."""
    return in_turn(cycle([sine(0, seed), sine(1, seed + 50), sine(2, seed + 100)]))


def sudden(seed: int) -> Stream:
    """Four concepts, none twice; the last stays."""
    return chain(in_turn([agrawal(0, seed), agrawal(2, seed + 50), agrawal(6, seed + 100)], 6_000), agrawal(4, seed))


def gradual(seed: int) -> Stream:
    """A plane that never stops turning."""
    return iter(synth.Hyperplane(seed=seed, n_features=8, n_drift_features=4, mag_change=0.001, noise_percentage=0.05))  # type: ignore[no-untyped-call]


def label_noise(seed: int) -> Stream:
    """A plane that stands still; every fifth label is wrong."""
    return iter(synth.Hyperplane(seed=seed, n_features=8, n_drift_features=0, noise_percentage=0.2))  # type: ignore[no-untyped-call]


def stationary(seed: int) -> Stream:
    return iter(synth.RandomRBF(seed_model=seed, seed_sample=seed + 1, n_features=8, n_centroids=20))  # type: ignore[no-untyped-call]


STREAMS: dict[str, Callable[[int], Stream]] = {
    f.__name__: f for f in (recurring, recurring_three, sudden, gradual, label_noise, stationary)
}
RECURRING = ("recurring", "recurring_three")


def spec_of(sample: Sample, blend: Blend) -> ModelSpec:
    """A small MLP over whatever features the sample has; Agrawal's three categories are whole numbers."""
    features = {str(name): value for name, value in sample[0].items()}
    nominal = {"elevel", "car", "zipcode"} & features.keys()
    return ModelSpec(
        name="bench",
        task="binary",
        label=Label(name="y", classes=(0, 1)),
        features=Features(
            numeric={name: Numeric() for name in features if name not in nominal},
            categorical={name: Categorical(size=32, dim=4) for name in sorted(nominal)},
        ),
        learner=Learner(kind="torch", hidden=(32,), batch_records=32),
        optimiser=Optimiser(learning_rate=0.005),
        blend=blend,
        tuning=TUNING,
    )


def records(samples: list[Sample]) -> list[Record]:
    """The events topic: features, and each label DELAY events later."""
    values = []
    for i in range(len(samples) + DELAY):
        if i < len(samples):
            features = {str(name): value for name, value in samples[i][0].items()}
            values.append({"id": str(i), "time": float(i), "features": features})
        if i >= DELAY:
            values.append({"id": str(i - DELAY), "label": int(samples[i - DELAY][1]), "label_time": float(i)})
    return [Record(offset, 0, json.dumps(value).encode()) for offset, value in enumerate(values)]


class Memory:
    """Both topics in memory; what the challenger needs of a ``stream_app.replay.Reader``."""

    def __init__(self, events: list[Record]) -> None:
        self.events = events
        self._blocks: list[Block] = []
        self.trail = Trail()

    def add(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self.trail.add(len(self._blocks), int(block.offsets[-1]))
            self._blocks.append(block)

    def begin(self, topic: str, partition: int) -> int:
        return 0

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Record]]:
        for at in range(start, end, FETCH):
            yield self.events[at : min(at + FETCH, end)]

    def said(self, topic: str, partition: int, start: int) -> tuple[dict[int, Said], Trail]:
        recorded = dict(chain.from_iterable(block.rows() for block in self._blocks[start:]))
        trail = Trail(start)
        for at, block in enumerate(self._blocks[start:], start):
            trail.add(at, int(block.offsets[-1]))
        return recorded, trail


class Service:
    """Worker and tuner in turn: the core takes fetches; rounds begin, shadow and promote between them."""

    def __init__(self, spec: ModelSpec, events: list[Record]) -> None:
        self.spec, self.memory = spec, Memory(events)
        self.core = Core(spec, TorchLearner(spec))
        self.core.start({0: 0})
        self.rounds = self.promotions = 0
        self._next_base_labels = self._pause_labels
        self._base: Base | None = None
        self._challenger: Challenger | None = None

    @property
    def _pause_labels(self) -> int:
        return self.spec.tuning.every_labels - self.spec.tuning.window_labels

    def fetches(self) -> Iterator[Step]:
        """All events, a fetch at a time."""
        for at in range(0, len(self.memory.events), FETCH):
            taken = self.core.take(0, self.memory.events[at : at + FETCH])
            self.memory.add(taken.predictions)
            yield from taken.steps
            self._tune()

    def _tune(self) -> None:
        """What ``Tuner.step`` does, without a log in between."""
        labels = self.core.counts["learned"]
        if self._challenger is not None:
            self._shadow(self._challenger)
        elif self._base is None:
            if labels >= self._next_base_labels:
                self._base = self._version()
        elif labels - self._base.envelope.labels >= self.spec.tuning.window_labels:
            self._challenger = self._found(self._base)

    def _version(self) -> Base:
        taken = snapshot(self.core)
        start = {0: self.memory.trail.start(taken.replay_from[0][0])}
        envelope = Envelope(
            **dict.fromkeys(("id", "artefact", "sha256", "signature"), ""),
            **dict.fromkeys(("number", "epoch", "size_bytes", "created_s"), 0),
            **{name: getattr(taken, name) for name in ("offsets", "replay_from", "labels", "hyper", "reference")},
            **{name: getattr(taken, name) for name in ("ledger", "metrics")},
            parent=None,
            predictions_from=start,
            topic_ids={},
        )
        return Base(envelope, taken.arrays)

    def _found(self, base: Base) -> Challenger:
        """As in ``Tuner._round``."""
        challenger = Challenger(self.spec, base, cast(Reader, self.memory))
        window = list(challenger.walk(self._offsets))
        best, _ = search(
            self.spec, base.arrays, base.envelope.hyper, window, round_=self.rounds, mind_stop=lambda: None
        )
        self.rounds += 1
        best.learner.set_reference(best.learner.parameters())
        challenger.core.adopt(best.learner)
        challenger.core.reference = f"tuned-at-{challenger.core.counts['learned']}"
        return challenger

    def _shadow(self, challenger: Challenger) -> None:
        for step in challenger.walk(self._offsets):
            challenger.compare(step)
        if challenger.labels >= self.spec.tuning.shadow_labels:
            if challenger.wins(self.spec.tuning.margin):
                self.core = challenger.core
                self.promotions += 1
            self._base = self._challenger = None
            self._next_base_labels = self.core.counts["learned"] + self._pause_labels

    @property
    def _offsets(self) -> dict[int, int]:
        return {0: self.core.partitions[0].next_offset}


def run(samples: list[Sample], blend: Blend) -> dict[str, float]:
    """One pass over a stream."""
    service = Service(spec_of(samples[0], blend), records(samples))
    said, target = zip(*((step.said, step.target) for step in service.fetches()), strict=True)
    scores, labels = np.concatenate(said), np.concatenate(target)
    counts = service.core.counts
    return {
        "accuracy": 100.0 * float(np.mean((scores[:, 0] >= 0.5) == (labels == 1.0))),
        "log_loss": mean_loss("binary", scores, labels),
        "norm": float(np.linalg.norm(service.core.learner.parameters())),
        "drifts": counts["drifts"],
        "recalls": counts["recalls"],
        "promotions": service.promotions,
    }


def measure(stream: Callable[[int], Stream], events: int, seeds: Sequence[int]) -> dict[str, Any]:
    """One stream's row of the answer: medians over the seeds."""
    runs: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for seed in seeds:
        samples = list(islice(stream(seed), events))
        for form, blend in FORMS.items():
            runs[form].append(run(samples, blend))
    row: dict[str, Any] = {form: _medians(found) for form, found in runs.items()}
    for form in FORMS:
        gains = [a["accuracy"] - b["accuracy"] for a, b in zip(runs[form], runs["none"], strict=True)]
        row[form]["gain_points"] = round(statistics.median(gains), 3)
        row[form]["worst_seed_points"] = round(min(gains), 3)
    return row | {"gain_points": row["default"]["gain_points"]}


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(f[name] for f in found), 3) for name in found[0]}


def show(name: str, row: dict[str, Any]) -> None:
    for form in FORMS:
        cells = "  ".join(f"{key} {value:g}" for key, value in row[form].items())
        print(f"{name:16} {form:10} {cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="the pull's gain and cost, by stream and form")
    parser.add_argument("--events", type=int, default=24_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS))
    arguments = parser.parse_args()
    use_one_thread()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    rows = {}
    for name in arguments.streams:
        rows[name] = measure(STREAMS[name], arguments.events, seeds)
        show(name, rows[name])
    answer = {
        "bench": "blend",
        "events": arguments.events,
        "seeds": list(seeds),
        "streams": rows,
        "worst_cost_points": round(max(0.0, *(-row["gain_points"] for row in rows.values())), 3),
        "recurring_gain_points": min((rows[name]["gain_points"] for name in RECURRING if name in rows), default=None),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
