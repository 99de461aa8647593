"""Who else learns these streams, and how well? (stream, peer, scaled or raw, seed) -> Result -> results/peers.json.

River's learners and CapyMOA's, as they are by default, measured once and slowly by `python -m bench.accuracy --peers`;
each result is written as soon as it is there, and what is there is not measured again. On a stream of fewer than
SHORT rows a peer that draws lots has SEEDS seeds, of which the median counts. Values that are missing are the last
ones seen (0 before that). Text is nominal to River's Hoeffding trees that tell classes, a column per value to others.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from river import dummy, ensemble, forest, linear_model, neighbors, preprocessing, stats, tree, utils

from bench._prequential import Answer, Learner, Score, per_event
from bench._streams import Row, Stream, Task

RESULTS = Path("bench/results/peers.json")
SHORT = 6_000
SEEDS = 5

Input = Literal["raw", "scaled"]


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of one peer over one stream."""

    stream: str
    peer: str
    input: Input
    seed: int
    label_delay: int = 0
    """In events."""
    rows: int
    accuracy: float | None = None
    """In %; None for a regression. This and the next two are None also where the peer diverged."""
    log_loss: float | None = None
    mae: float | None = None
    events_per_cpu_s: float
    version: str
    """The library's, as in "river 0.26.1"."""

    @property
    def run(self) -> tuple[str, str, str, int, int]:
        """What was measured, without what came out."""
        return self.stream, self.peer, self.input, self.seed, self.label_delay


@dataclass(frozen=True)
class Peer:
    """A learner of another library."""

    name: str
    library: str
    tasks: tuple[Task, ...]
    make: Callable[[Stream, int], Learner]
    """From the stream, for its classes and columns, and the seed."""
    inputs: tuple[Input, ...] = ("raw", "scaled")
    random: bool = True
    nominal: bool = False
    """Whether it takes text as it is, where it tells classes apart: the linear models in regression trees do not."""

    def seeds(self, stream: Stream) -> range:
        return range(SEEDS if self.random and len(stream.rows) < SHORT else 1)


class RiverLearner:
    """A River estimator as a Learner; ``binary`` ones take False and True."""

    def __init__(self, estimator: Any, task: Task, *, binary: bool = False) -> None:
        self._estimator, self._binary = estimator, binary
        self._predict = estimator.predict_one if task == "regression" else estimator.predict_proba_one

    def predict_one(self, x: Row) -> Answer:
        answer: Answer | None = self._predict(x)
        return 0.0 if answer is None else answer

    def learn_one(self, x: Row, y: float) -> None:
        self._estimator.learn_one(x, bool(y) if self._binary else y)


class LastValue:
    """The label before, which River has for classes only."""

    def __init__(self) -> None:
        self._last = 0.0

    def predict_one(self, x: Row) -> Answer:
        return self._last

    def learn_one(self, x: Row, y: float) -> None:
        self._last = y


class Scaled:
    """A learner whose numbers have mean 0 and deviation 1, by River's StandardScaler; text passes."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._scaler = learner, preprocessing.StandardScaler()

    def predict_one(self, x: Row) -> Answer:
        return self._learner.predict_one(x | self._scaler.transform_one(_numbers(x)))

    def learn_one(self, x: Row, y: float) -> None:
        numbers = _numbers(x)
        self._scaler.learn_one(numbers)
        self._learner.learn_one(x | self._scaler.transform_one(numbers), y)


def _numbers(x: Row) -> dict[str, float]:
    return {name: value for name, value in x.items() if not isinstance(value, str)}


class CapymoaLearner:
    """A CapyMOA learner as a Learner. Rows have all columns, in the order of the stream's first."""

    def __init__(self, kind: str, stream: Stream, seed: int) -> None:
        from capymoa import classifier, regressor
        from capymoa.core import LabeledInstance, RegressionInstance
        from capymoa.stream import Schema

        regression = stream.task == "regression"
        labels = {} if regression else {"y": [str(i) for i in range(len(stream.classes))]}
        schema = Schema.from_custom([*stream.rows[0], "y"], target="y", categories=labels)
        self._learner = getattr(regressor if regression else classifier, kind)(schema=schema, random_seed=seed)
        self._instance = functools.partial((RegressionInstance if regression else LabeledInstance).from_array, schema)
        self._regression = regression

    def predict_one(self, x: Row) -> Answer:
        instance = self._instance(np.fromiter(x.values(), np.float64, len(x)), 0)
        if self._regression:
            value = self._learner.predict(instance)
            return 0.0 if value is None else float(value)
        votes = self._learner.predict_proba(instance)
        return {} if votes is None else dict(enumerate(votes.tolist()))

    def learn_one(self, x: Row, y: float) -> None:
        self._learner.train(self._instance(np.fromiter(x.values(), np.float64, len(x)), y))


def _linear(stream: Stream, seed: int) -> Learner:
    if stream.task == "regression":
        model = preprocessing.TargetStandardScaler(linear_model.LinearRegression())
        return RiverLearner(model, stream.task)
    if len(stream.classes) == 2:
        return RiverLearner(linear_model.LogisticRegression(), stream.task, binary=True)
    return RiverLearner(linear_model.SoftmaxRegression(), stream.task)


def _knn(stream: Stream, seed: int) -> Learner:
    """The default engine, with a seed: without one no two runs are alike."""
    engine = neighbors.SWINN(dist_func=functools.partial(utils.math.minkowski_distance, p=2), seed=seed)
    kind = neighbors.KNNRegressor if stream.task == "regression" else neighbors.KNNClassifier
    return RiverLearner(kind(engine=engine), stream.task)


def _river(classifier: Callable[..., Any], regressor: Callable[..., Any] | None = None) -> Callable[..., Learner]:
    def make(stream: Stream, seed: int) -> Learner:
        kind = classifier if stream.task == "classification" else regressor
        assert kind is not None
        return RiverLearner(kind(seed=seed), stream.task)

    return make


def _last(stream: Stream, seed: int) -> Learner:
    return LastValue() if stream.task == "regression" else RiverLearner(dummy.NoChangeClassifier(), stream.task)


def _constant(stream: Stream, seed: int) -> Learner:
    mean = stream.task == "regression"
    return RiverLearner(dummy.StatisticRegressor(stats.Mean()) if mean else dummy.PriorClassifier(), stream.task)


def _leveraging(seed: int) -> Any:
    return ensemble.LeveragingBaggingClassifier(tree.HoeffdingTreeClassifier(), seed=seed)


def _capymoa(name: str, kind: str, task: Task, *, inputs: tuple[Input, ...] = ("raw",)) -> Peer:
    return Peer(name, "capymoa", (task,), functools.partial(CapymoaLearner, kind), inputs)


BOTH: tuple[Task, ...] = ("classification", "regression")
LAST_VALUE, MAJORITY = "NoChange", "Majority"
"""Their names; the second is the mean in a regression."""
FOREST = Peer("ARF", "river", BOTH, _river(forest.ARFClassifier, forest.ARFRegressor), nominal=True)
PEERS = (
    Peer(LAST_VALUE, "river", BOTH, _last, ("raw",), random=False),
    Peer(MAJORITY, "river", BOTH, _constant, ("raw",), random=False),
    Peer("LR", "river", BOTH, _linear, random=False),
    Peer(
        "HAT",
        "river",
        BOTH,
        _river(tree.HoeffdingAdaptiveTreeClassifier, tree.HoeffdingAdaptiveTreeRegressor),
        nominal=True,
    ),
    FOREST,
    Peer("AMF", "river", BOTH, _river(forest.AMFClassifier, forest.AMFRegressor)),
    Peer("kNN", "river", BOTH, _knn),
    _capymoa("CapyMOA HAT", "HoeffdingAdaptiveTree", "classification"),
    _capymoa("CapyMOA SAMkNN", "SAMkNN", "classification", inputs=("raw", "scaled")),
    _capymoa("CapyMOA LB", "LeveragingBagging", "classification"),
    _capymoa("CapyMOA ARF", "AdaptiveRandomForestClassifier", "classification"),
    _capymoa("CapyMOA SRP", "StreamingRandomPatches", "classification"),
    _capymoa("CapyMOA SOKNL", "SOKNL", "regression"),
    _capymoa("CapyMOA ARF regressor", "AdaptiveRandomForestRegressor", "regression"),
    _capymoa("CapyMOA SGBR", "StreamingGradientBoostedRegression", "regression"),
    Peer("LB", "river", ("classification",), _river(_leveraging), nominal=True),
    Peer("SRP", "river", BOTH, _river(ensemble.SRPClassifier, ensemble.SRPRegressor), nominal=True),
)
"""The cheap ones first. CapyMOA's streaming gradient boosting of classes (SGBT, 100 trees for each class) is left out:
it takes hours for a stream of many classes."""


def prepared(stream: Stream, peer: Peer) -> Stream:
    """The stream as the peer takes it: without gaps, rows with all columns in one order, text or a column per value."""
    texts = stream.texts
    names = dict.fromkeys(name for row in stream.rows for name in row)
    last: Row = {name: "" if name in texts else 0.0 for name in names}
    rows = [last := {name: row.get(name, last[name]) for name in names} for row in stream.rows]
    if texts and not (peer.nominal and stream.task == "classification"):
        values = {name: sorted({row[name] for row in rows}) for name in texts}
        rows = [_one_hot(row, values) for row in rows]
    return dataclasses.replace(stream, rows=rows)


def _one_hot(row: Row, values: Mapping[str, Sequence[Any]]) -> Row:
    columns = {f"{name}={v}": float(row[name] == v) for name, known in values.items() for v in known}
    return {**_numbers(row), **columns}


def measure(peer: Peer, stream: Stream, *, input_: Input, seed: int, label_delay: int = 0) -> Result:
    """Play the `prepared` stream to a new learner. One that overflows has no accuracy, loss or error."""
    learner = peer.make(stream, seed)
    try:
        found = per_event(Scaled(learner) if input_ == "scaled" else learner, stream, label_delay=label_delay)
    except (ArithmeticError, ValueError):
        found = Score(None, None, None, 0.0)
    return Result(
        stream=stream.name,
        peer=peer.name,
        input=input_,
        seed=seed,
        label_delay=label_delay,
        rows=len(stream.rows),
        accuracy=_rounded(found.accuracy, 3),
        log_loss=_rounded(found.log_loss, 5),
        mae=_rounded(found.mae, 5),
        events_per_cpu_s=round(found.events_per_cpu_s, 1),
        version=f"{peer.library} {importlib.metadata.version(peer.library)}",
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def runs(stream: Stream, peers: Iterable[Peer]) -> list[tuple[Peer, Input, int]]:
    """What there is to measure on a stream."""
    of_task = [peer for peer in peers if stream.task in peer.tasks]
    return [(peer, input_, seed) for peer in of_task for input_ in peer.inputs for seed in peer.seeds(stream)]


def installed(library: str) -> bool:
    """CapyMOA runs on Java."""
    return find_spec(library) is not None and (library != "capymoa" or shutil.which("java") is not None)


def read(path: Path = RESULTS) -> list[Result]:
    """What was measured; nothing if there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=list[Result]) if path.exists() else []


def add(result: Result, path: Path = RESULTS) -> None:
    """Put a result in its place in the file, instead of an older one of the same run: one line each, sorted."""
    kept = [known for known in read(path) if known.run != result.run]
    lines = [msgspec.json.encode(known).decode() for known in sorted([*kept, result], key=lambda known: known.run)]
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    new.replace(path)


class Standing(NamedTuple):
    """A peer on a stream: the median of its seeds, on the better of its inputs for each figure by itself."""

    peer: str
    accuracy: float | None
    log_loss: float | None
    mae: float | None
    events_per_cpu_s: float
    """With the input of the better accuracy (or MAE)."""


def standings(results: Iterable[Result]) -> list[Standing]:
    """The peers of one stream. One that diverged on all its inputs is not among them."""
    by_run: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_run.setdefault((result.peer, result.input), []).append(result)
    by_peer: dict[str, list[Standing]] = {}
    for (peer, _), seeds in by_run.items():
        if all(r.accuracy is not None or r.mae is not None for r in seeds):
            by_peer.setdefault(peer, []).append(_median(peer, seeds))
    return [_better(inputs) for inputs in by_peer.values()]


def _median(peer: str, seeds: Sequence[Result]) -> Standing:
    def of(values: Iterable[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        return median(present) if present else None

    speed = median(r.events_per_cpu_s for r in seeds)
    return Standing(peer, of(r.accuracy for r in seeds), of(r.log_loss for r in seeds), of(r.mae for r in seeds), speed)


def _better(inputs: Sequence[Standing]) -> Standing:
    if inputs[0].mae is not None:
        return min(inputs, key=lambda s: s.mae if s.mae is not None else math.inf)
    best = max(inputs, key=lambda s: s.accuracy or 0.0)
    return best._replace(log_loss=min(s.log_loss for s in inputs if s.log_loss is not None))
