"""What a served model is: one TOML file -> [ModelSpec] -> everything else.

The structs below are the documentation of the file: a field without a default must be given.
"""

import difflib
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from models.shapes import parameter_count, parameter_shapes, rate_cells


class SpecError(ValueError):
    """A wrong spec: names the file, the line, the key, the value it got and what was wanted."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """What the label means; for people. A model has one label; several are as many models."""
    classes: tuple[int | str, ...] = ()
    """binary: two, the second is the positive one; multiclass: all; regression: none."""
    wait_s: float = 86400.0
    """How long, in event time, an example waits for its label (and a label for its example)."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    partitions: int = 1
    retention_s: int = 604800
    """Wall clock; how long the broker keeps events and predictions."""
    max_record_bytes: int = 65536
    """A larger event is a dead letter; it would have to be read again for as long as its label is waited for."""
    ahead_s: float = 60.0
    """Event time may lie this far ahead of the record's Kafka timestamp; else: dead letter. The clock of the
    join never turns back: a record that is so far ahead takes as much from ``label.wait_s`` for all that wait.
    The timestamp is the broker's clock where the service made the topic (LogAppendTime), but the producer's own
    on the embedded broker; and of a stream of the past, replayed, all times lie behind it."""


class Numeric(msgspec.Struct, frozen=True, kw_only=True):
    """A number; absent, null or NaN is missing. Standardised online, clipped at 5 deviations."""


class Categorical(msgspec.Struct, frozen=True, kw_only=True):
    """A string or integer, hashed into ``size`` rows of ``dim`` numbers; row 0 means missing.

    The table never grows, and nothing in it expires: the graph that servers run keeps its shapes. Values that meet in
    a row are one to the model; with D distinct ones, about D / size meet each, so let ``size`` be several times D.
    """

    size: int = 64
    dim: int = 4


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How labels have been going lately, overall and per key: the model's view of today."""

    half_lives_s: tuple[float, ...] = ()
    """Time scales, event time."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Each a combination of categorical features; the empty one is overall."""
    slots: int = 2048
    """Keys are hashed into so many counters, per combination."""


class Features(msgspec.Struct, frozen=True, kw_only=True):
    numeric: dict[str, Numeric] = {}
    categorical: dict[str, Categorical] = {}
    rates: Rates = Rates()


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One estimator of a River pipeline."""

    estimator: str
    settings: dict[str, Any] = {}


class Learner(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["mixture", "torch", "river"] = "mixture"
    """mixture: cheap and different members, mixed by how they do; torch: one network; river: an estimator of River."""
    tier: Literal["fast", "standard", "full"] = "standard"
    """kind mixture: how many members, and how large; docs/learners.md has what each costs."""
    network: Literal["linear", "mlp", "wide_deep"] = "mlp"
    """kind torch. wide_deep: an MLP, and beside it a linear model with a weight per category (arXiv 1606.07792)."""
    hidden: tuple[int, ...] = (64, 64)
    batch_records: int = 128
    """Records to a step, of which all rows are predicted before any is learned; steps are cut at multiples of this
    offset, so a replay cuts alike."""
    minibatch: int = 64
    """kind torch: labelled examples to a step of the optimiser, at most."""
    seed: int = 0
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: rare classes weigh as much as frequent ones in learning; probabilities stay those of the stream."""
    estimator: str = ""
    """kind river: import path of a classifier or regressor, such as river.tree.HoeffdingAdaptiveTreeClassifier. It is
    neither blended, tuned nor compressed: blend.kind "none", tuning.every_labels 0, compression.kinds []."""
    settings: dict[str, Any] = {}
    """Its arguments; one that is an estimator itself is a table of estimator and settings."""
    pipeline: tuple[Stage, ...] = ()
    """kind river, instead of estimator: transformers, the last one learns."""
    nominal: bool = True
    """kind river: categories as texts, as its classification trees take them; false: as one-hot numbers, as all do."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Widths of the hidden layers that there are."""
        return () if self.network == "linear" else self.hidden


class Optimiser(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal[
        "adadelta",
        "adafactor",
        "adagrad",
        "adam",
        "adamax",
        "adamw",
        "asgd",
        "nadam",
        "radam",
        "rmsprop",
        "rprop",
        "sgd",
    ] = "adam"
    """A class of torch.optim in lower case; those that take dense vectors and need no closure."""
    learning_rate: float = 0.003
    settings: dict[str, bool | float | tuple[float, ...]] = {}
    """Further arguments of that class, such as ``momentum = 0.9``. When they change, its memory begins anew."""


class Blend(msgspec.Struct, frozen=True, kw_only=True):
    """theta = theta' + lam * (theta_ref - theta'), lam = 1 - 2^(-1 / half_life_events)."""

    kind: Literal["none", "proximal", "explicit", "literal"] = "proximal"
    half_life_events: float = 200_000.0
    remembered: int = 3
    """Released references kept for the day their stream comes back; each adds P numbers to a version. 0: none."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    every_labels: int = 60_000
    """A search starts after so many newly learned labels; 0: never."""
    window_labels: int = 20_000
    """How many of the newest labelled examples the search replays."""
    trials: int = 8
    shadow_labels: int = 5_000
    """How many labelled examples after the window decide between champion and challenger."""
    margin: float = 0.0
    """Loss (log-loss; for regression the squared error) the challenger must win by."""
    seed: int = 0
    learning_rate: tuple[float, float] = (0.0005, 0.02)
    """Searched log-uniformly."""
    half_life_events: tuple[float, float] = (20_000.0, 2_000_000.0)


class Compression(msgspec.Struct, frozen=True, kw_only=True):
    kinds: tuple[Literal["int8"], ...] | None = None
    """Unless given: int8 for learner.kind torch, none for the others, which have no graph to compress."""
    every_s: float = 5.0
    calibration_rows: int = 2048
    loss_budget: float = 0.002
    """Loss (log-loss; for regression the squared error, as a share of the label's variance) a variant may cost
    against fp32."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of the error and of inputs. A rise of the error releases the pull toward a reference gone stale."""

    detector: Literal["adwin", "page_hinkley", "ddm"] = "adwin"
    """What watches the error; models/drift.py compares them. ddm counts mistakes: not for regression."""
    delta: float = 0.00001
    """Chance of a false alarm, were the errors independent; smaller is later and surer."""
    inputs: tuple[str, ...] = ()
    """Features watched for a change of their mean and of how often they are missing; a change goes on record and
    releases nothing. What has a rhythm (the hour, the weather) changes all the time."""
    input_detector: Literal["adwin", "page_hinkley"] = "adwin"


class Explain(msgspec.Struct, frozen=True, kw_only=True):
    """Which features matter: for single predictions on request, and over all of them (models/explain.py)."""

    pairs: int = 16
    """Pairs of walks that explain a prediction: more is finer, and costs 2 (features + 1) rows predicted each."""
    rows_per_label: float = 0.4
    """Rows predicted besides, per label learned, to measure the features' importance; 0: never."""


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    every_s: float = 1.0
    """The longest between two versions, if there is something new; one this often travels inline."""
    least_s: float = 0.1
    """The shortest; ``every_s`` where that is shorter. Each version costs every server some milliseconds."""
    share: float = 0.1
    """Of a processor's time, what making versions may take: so often are they made, within the two above."""
    keep: int = 20
    """How many versions the registry keeps."""
    inline_bytes: int = 524_288
    """Versions up to this size travel inside the announcement (Kafka refuses more than 1 MB), one every ``every_s``; of
    the others, what has changed goes to the registry."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about a version that is tried beside the head, and about each new version on a server."""

    labels: int = 5_000
    """So many labels decide between a canary (or a shadow) and the head."""
    margin: float = 0.0
    """Loss (log-loss; for regression the squared error) that the challenger must win by."""
    most_s: float = 604_800.0
    """Wall clock; undecided after so long, a challenger is withdrawn."""
    check_budget: float = 0.5
    """Loss (for regression as a share of the label's variance) that a version may have more than the one it replaces,
    on the labelled rows that both can be asked about; worse, it is refused and the other goes on answering."""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    task: Literal["binary", "multiclass", "regression"]
    label: Label
    features: Features
    stream: Stream = Stream()
    learner: Learner = Learner()
    optimiser: Optimiser = Optimiser()
    blend: Blend = Blend()
    drift: Drift = Drift()
    tuning: Tuning = Tuning()
    compression: Compression = Compression()
    explain: Explain = Explain()
    publish: Publish = Publish()
    traffic: Traffic = Traffic()

    @property
    def outputs(self) -> int:
        """Numbers the network gives per row: K logits for multiclass, else 1."""
        return len(self.label.classes) if self.task == "multiclass" else 1

    @property
    def variants(self) -> tuple[str, ...]:
        """Compressed forms that are made of a version."""
        if self.compression.kinds is None:
            return ("int8",) if self.learner.kind == "torch" else ()
        return self.compression.kinds

    @property
    def score_names(self) -> tuple[str, ...]:
        """What the answer's columns mean: the classes, or the label itself for regression."""
        return tuple(map(str, self.label.classes)) if self.label.classes else (self.label.name,)


def read_spec(path: str) -> ModelSpec:
    """Read and check a model.toml.

    Raises:
        SpecError: naming file, line where known, key, what it got and what was wanted.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: byte {error.start} is not UTF-8") from error
    return parse_spec(text, path)


def parse_spec(text: str, source: str) -> ModelSpec:
    """The spec that a TOML text says; ``source`` is what errors call it.

    Raises:
        SpecError: as for ``read_spec``.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: endless digits, depth
        raise SpecError(_syntax(str(error), text, source)) from error
    return _checked(table, source, text)


def to_json(spec: ModelSpec) -> str:
    """One line, every field written out; it travels inside a version."""
    return msgspec.json.encode(spec).decode()


def from_json(text: str) -> ModelSpec:
    """The spec that ``to_json`` wrote. Its values were checked then; a limit set since must not orphan a version.

    Raises:
        SpecError: it is no spec, or one of a newer program.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"spec: not JSON: {error}") from error
    return _checked(table, "spec", "", limits=False)


def signature(spec: ModelSpec) -> str:
    """Hash of what parameters mean: task, classes, features, network. Equal hash, equal meaning."""
    return hashlib.sha256(json.dumps(_fit(spec)).encode()).hexdigest()[:16]


def fit_problem(spec: ModelSpec, other: ModelSpec) -> str:
    """Why parameters learned with ``other`` (the head's) do not fit ``spec``; "" if they do."""
    ours, theirs = _fit(spec), _fit(other)
    differing = [key for key in theirs | ours if ours.get(key, "none") != theirs.get(key, "none")]
    return "; ".join(
        f"{key}: head has {theirs.get(key, 'none')}, spec has {ours.get(key, 'none')}" for key in differing
    )


def _fit(spec: ModelSpec) -> dict[str, object]:
    """What is "none" is left out, so that a new key moves no signature."""
    features, learner = spec.features, spec.learner
    weights = {} if learner.class_weights == "none" else {"learner.class_weights": learner.class_weights}
    return {
        "task": spec.task,
        "label.name": spec.label.name,
        "label.classes": list(spec.label.classes),
        "features.numeric": list(features.numeric),
        "features.categorical": [[n, c.size, c.dim] for n, c in features.categorical.items()],
        "features.rates.half_lives_s": list(features.rates.half_lives_s),
        "features.rates.keys": [list(k) for k in features.rates.keys],
        "features.rates.slots": features.rates.slots,
        "learner.kind": learner.kind,
        **_fit_members(learner),
        **weights,
        **_fit_river(learner),
    }


def _fit_members(learner: Learner) -> dict[str, object]:
    """River's estimators, too, have the keys of a network: they always had."""
    if learner.kind == "mixture":
        return {"learner.tier": learner.tier}
    return {"learner.network": learner.network, "learner.hidden": list(learner.layers)}


def _fit_river(learner: Learner) -> dict[str, object]:
    """A River estimator keeps the settings that it was made with; others do not have these keys."""
    if learner.kind != "river":
        return {}
    return {
        "learner.stages": [list(stage) for stage in river_stages(learner)],
        "learner.nominal": learner.nominal,
        "learner.seed": learner.seed,
    }


def river_stages(learner: Learner) -> list[tuple[str, dict[str, Any]]]:
    """Import path and settings of each estimator, the one that learns last."""
    if learner.pipeline:
        return [(stage.estimator, stage.settings) for stage in learner.pipeline]
    return [(learner.estimator, learner.settings)]


Keys = tuple[str, ...]


class _Wrong(Exception):
    """``where`` says ``what`` is wrong there."""

    def __init__(self, where: Keys, what: str) -> None:
        super().__init__(what)
        self.where = where
        self.what = what


def _checked(table: object, source: str, text: str, *, limits: bool = True) -> ModelSpec:
    try:
        _refuse_several_labels(table)
        spec: ModelSpec = _built(ModelSpec, table, ())
        for where, value, wanted in _wrongs(spec) if limits else ():
            raise _Wrong(where, f"is {_shown(value)}, wanted {wanted}")
    except _Wrong as wrong:
        line = _line_of(text, wrong.where)
        place = f"{source} line {line}" if line else source
        raise SpecError(f"{place}: {_dotted(wrong.where) or 'all'} {wrong.what}") from None
    return spec


_SEVERAL = {"names", "labels", "outputs", "targets"}
_SEVERAL_TASKS = {f"multi{what}" for what in ("label", "output", "target", "task")}


def _refuse_several_labels(table: object) -> None:
    """Multi-output is not there; whoever looks for it is told what to do instead."""
    if not isinstance(table, dict):
        return
    label, task = table.get("label"), table.get("task")
    wished: dict[Keys, object] = {(k,): v for k, v in table.items() if k in _SEVERAL}
    if isinstance(task, str) and task.lower().replace("-", "").replace("_", "") in _SEVERAL_TASKS:
        wished[("task",)] = task
    if isinstance(label, list):
        wished[("label",)] = label
    if isinstance(label, dict):
        wished |= {("label", k): v for k, v in label.items() if k in _SEVERAL or (k == "name" and isinstance(v, list))}
    for where, value in wished.items():
        raise _Wrong(where, f"is {_shown(value)}, wanted one label: {_ONE_EACH}")


_ONE_EACH = (
    "multi-output is not supported; write one model.toml for each label, each with a name of its own, "
    "and send each event to the topic <name>.events of all of them"
)


# From the table to structs ------------------------------------------------------------------------


def _built(kind: Any, value: Any, where: Keys) -> Any:
    """``value`` as ``kind``, field by field, so that an error knows its key and value."""
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    if (is_struct or get_origin(kind) is dict) and not isinstance(value, dict):
        raise _Wrong(where, f"is {_shown(value)}, wanted a table")
    if is_struct:
        return _built_struct(kind, value, where)
    if get_origin(kind) is dict:
        entry = get_args(kind)[1]
        return {k: _built(entry, v, (*where, k)) for k, v in value.items()}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise _Wrong(where, f"is {_shown(value)}, wanted {_kind(kind)}") from None


def _built_struct(kind: type[msgspec.Struct], table: dict[str, object], where: Keys) -> Any:
    fields = {f.name: f for f in msgspec.structs.fields(kind)}
    for key in table:
        if key not in fields:
            raise _Wrong((*where, key), _unknown(key, list(fields)))
    for name, field in fields.items():
        if field.required and name not in table:
            raise _Wrong((*where, name), f"is missing, wanted {_kind(field.type)}")
    return kind(**{k: _built(fields[k].type, v, (*where, k)) for k, v in table.items()})


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"is unknown, did you mean {near[0]}?"
    return f"is unknown, wanted one of {', '.join(known)}" if known else "is unknown, wanted nothing"


def _kind(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) in (Union, UnionType) and type(None) in get_args(kind):
        kind = get_args(kind)[0]  # TOML has no null
    if kind in _WORDS:
        return _WORDS[kind]
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(arguments)}" if len(arguments) > 1 else str(arguments[0])
    if get_origin(kind) is tuple:
        if arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)} numbers"
        return f"a list, each {_kind(arguments[0])}"
    return "a table"


_WORDS: dict[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | str: "a whole number or a text",
    bool | float | tuple[float, ...]: "a number, a list of numbers, true or false",
    Union[int, str]: "a whole number or a text",  # noqa: UP007, what msgspec makes of int | str
}


# What types cannot say ----------------------------------------------------------------------------

MAX_CLASSES = 1_000
MAX_PARAMETERS = 50_000_000
"""200 MB of float32; learning holds them four times (Adam), and again while a version is written."""
UNITS = {"fast": 64, "standard": 320, "full": 768}
"""Hidden units of a mixture's nets, by tier; each has a weight per code."""
MAX_RATE_CELLS = 20_000_000
"""160 MB of float64."""
LONGEST_S = 1e8
"""Three years; timers overflow beyond a few centuries."""
_TINY, _HUGE = sys.float_info.min, sys.float_info.max
_LIMITS: dict[str, tuple[float, float]] = {
    "label.wait_s": (_TINY, _HUGE),
    "stream.partitions": (1, 10_000),
    "stream.retention_s": (1, 10**10),
    "stream.max_record_bytes": (1, 1_000_000),
    "stream.ahead_s": (0.0, _HUGE),
    "features.rates.slots": (2, 2**24),
    "learner.batch_records": (1, 65_536),
    "learner.minibatch": (1, 65_536),
    "learner.seed": (0, 2**63 - 1),
    "optimiser.learning_rate": (_TINY, _HUGE),
    "drift.delta": (_TINY, 0.5),
    "blend.half_life_events": (_TINY, _HUGE),
    "blend.remembered": (0, 16),
    "tuning.every_labels": (0, 10**12),
    "tuning.window_labels": (1, 10**8),
    "tuning.trials": (1, 10_000),
    "tuning.shadow_labels": (1, 10**8),
    "tuning.margin": (0.0, _HUGE),
    "tuning.seed": (0, 2**63 - 1),
    "compression.every_s": (_TINY, LONGEST_S),
    "compression.calibration_rows": (200, 10**6),  # fewer are never compressed with: compress.FEWEST_ROWS
    "compression.loss_budget": (0.0, _HUGE),
    "explain.pairs": (1, 1_000),
    "explain.rows_per_label": (0.0, 1_000.0),
    "publish.every_s": (_TINY, LONGEST_S),
    "publish.least_s": (_TINY, LONGEST_S),
    "publish.share": (_TINY, 1.0),
    "publish.keep": (2, 10**6),
    "publish.inline_bytes": (0, 900_000),
    "traffic.labels": (1, 10**8),
    "traffic.margin": (0.0, _HUGE),
    "traffic.most_s": (_TINY, LONGEST_S),
    "traffic.check_budget": (0.0, _HUGE),
}
_SIZE_LIMITS = (2, 2**24)
"""Of a hashed feature: row 0 is the missing value's, so one row would leave none."""
_DIM_LIMITS = (1, 4_096)
_WIDTH_LIMITS = (1, 65_536)
_NAME = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,99}")


class _Found(NamedTuple):
    where: Keys
    value: object
    wanted: str


def _wrongs(spec: ModelSpec) -> Iterator[_Found]:
    if not _NAME.fullmatch(spec.name):
        wanted = "1 to 100 letters, digits, dots, dashes or underscores, with no dot first"
        yield _Found(("name",), spec.name, wanted)
    for dotted, limits in _LIMITS.items():
        value: Any = spec
        for key in dotted.split("."):
            value = getattr(value, key)
        yield from _outside(tuple(dotted.split(".")), value, limits)
    if spec.stream.ahead_s > spec.label.wait_s:
        yield _Found(("stream", "ahead_s"), spec.stream.ahead_s, f"at most label.wait_s ({spec.label.wait_s})")
    yield from _wrong_label(spec)
    yield from _wrong_features(spec.features)
    yield from _wrong_rates(spec.features)
    yield from _wrong_learner(spec)
    yield from _wrong_kind(spec)
    yield from _wrong_river(spec)
    yield from _wrong_drift(spec)
    yield from _too_large(spec)


def _outside(where: Keys, value: float, limits: tuple[float, float]) -> Iterator[_Found]:
    low, high = limits
    if low <= value <= high:
        return
    if isinstance(high, int):
        yield _Found(where, value, f"a whole number from {low} to {high}")
    else:
        most = f" and at most {high:.0f}" if high < _HUGE else ""
        yield _Found(where, value, f"a number {'above 0' if low else 'of at least 0'}{most}")


def _wrong_label(spec: ModelSpec) -> Iterator[_Found]:
    classes, where = spec.label.classes, ("label", "classes")
    if not spec.label.name:
        yield _Found(("label", "name"), "", "a text that is not empty")
    if "" in classes:
        yield _Found(where, classes, "classes that are no empty texts")
    if any(isinstance(c, int) and not -(2**63) <= c < 2**63 for c in classes):
        yield _Found(where, classes, "whole numbers of at most 64 bits")
    elif len({str(c) for c in classes}) < len(classes):
        yield _Found(where, classes, "classes that differ when written as texts")
    match spec.task:
        case "binary" if len(classes) != 2:
            yield _Found(where, classes, "two classes, the second the positive one, for task binary")
        case "multiclass" if not 3 <= len(classes) <= MAX_CLASSES:
            wanted = f"3 to {MAX_CLASSES} classes for task multiclass (two are task binary)"
            yield _Found(where, classes, wanted)
        case "regression" if classes:
            yield _Found(where, classes, "none for task regression")


def _wrong_features(features: Features) -> Iterator[_Found]:
    if not features.numeric and not features.categorical:
        yield _Found(("features",), {}, "at least one numeric or categorical feature")
    for section, names in (("numeric", features.numeric), ("categorical", features.categorical)):
        if "" in names:
            yield _Found(("features", section), "", "names that are not empty")
    for name, feature in features.categorical.items():
        where = ("features", "categorical", name)
        if name in features.numeric:
            yield _Found(where, "numeric too", "a name of its own")
        yield from _outside((*where, "size"), feature.size, _SIZE_LIMITS)
        yield from _outside((*where, "dim"), feature.dim, _DIM_LIMITS)


def _wrong_rates(features: Features) -> Iterator[_Found]:
    rates, where = features.rates, ("features", "rates")
    for half_life_s in rates.half_lives_s:
        yield from _outside((*where, "half_lives_s"), half_life_s, (_TINY, _HUGE))
    if bool(rates.keys) != bool(rates.half_lives_s):
        empty, given = ("half_lives_s", "keys") if rates.keys else ("keys", "half_lives_s")
        yield _Found((*where, empty), (), f"at least one, as {given} are given")
    for name in (name for names in rates.keys for name in names):
        if name not in features.categorical:
            wanted = f"names of categorical features{_near(name, features.categorical)}"
            yield _Found((*where, "keys"), name, wanted)
    if len({frozenset(names) for names in rates.keys}) < len(rates.keys):
        yield _Found((*where, "keys"), rates.keys, "every combination once")
    if any(len(set(names)) < len(names) for names in rates.keys):
        yield _Found((*where, "keys"), rates.keys, "every name once in a combination")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", such as {near[0]}" if near else ""


def _wrong_learner(spec: ModelSpec) -> Iterator[_Found]:
    hidden = spec.learner.hidden
    if spec.learner.network != "linear" and not hidden:
        yield _Found(("learner", "hidden"), hidden, f"at least one layer for network {spec.learner.network}")
    if spec.task == "regression" and spec.learner.class_weights != "none":
        yield _Found(("learner", "class_weights"), spec.learner.class_weights, "none for task regression")
    for width in hidden:
        yield from _outside(("learner", "hidden"), width, _WIDTH_LIMITS)
    if len(set(spec.variants)) < len(spec.variants):
        yield _Found(("compression", "kinds"), spec.compression.kinds, "every kind once")
    tuning = spec.tuning
    for name in ("learning_rate", "half_life_events"):
        low, high = getattr(tuning, name)
        if not _TINY <= low < high <= _HUGE:
            wanted = "a lower and a higher number, both above 0"
            yield _Found(("tuning", name), (low, high), wanted)


def _wrong_kind(spec: ModelSpec) -> Iterator[_Found]:
    learner = spec.learner
    if learner.kind != "torch" and spec.variants:
        wanted = f"[] for learner.kind {learner.kind}, which has no graph to compress"
        yield _Found(("compression", "kinds"), spec.variants, wanted)
    if learner.kind != "torch" and learner.class_weights != "none":
        wanted = f"none for learner.kind {learner.kind}; a record's weight says what it counts"
        yield _Found(("learner", "class_weights"), learner.class_weights, wanted)
    if learner.kind != "torch":
        usual = Learner()
        for name in ("network", "hidden"):
            if (value := getattr(learner, name)) != getattr(usual, name):
                wanted = f'none for learner.kind {learner.kind}: networks are of kind = "torch"'
                yield _Found(("learner", name), value, wanted)
    if learner.kind == "mixture" and spec.blend.kind not in ("none", "proximal"):
        wanted = "proximal or none for learner.kind mixture, whose members step row by row"
        yield _Found(("blend", "kind"), spec.blend.kind, wanted)


def _wrong_river(spec: ModelSpec) -> Iterator[_Found]:
    learner = spec.learner
    if learner.kind != "river":
        for name in ("estimator", "settings", "pipeline"):
            if value := getattr(learner, name):
                yield _Found(("learner", name), value, f"none for learner.kind {learner.kind}")
        return
    if spec.blend.kind != "none":
        yield _Found(("blend", "kind"), spec.blend.kind, "none for learner.kind river, which has no parameters to pull")
    if spec.tuning.every_labels:
        wanted = "0 for learner.kind river, whose settings are never tuned"
        yield _Found(("tuning", "every_labels"), spec.tuning.every_labels, wanted)
    if bool(learner.estimator) == bool(learner.pipeline):
        yield _Found(
            ("learner", "estimator"), learner.estimator, "either it or learner.pipeline for learner.kind river"
        )
        return
    if learner.pipeline and learner.settings:
        yield _Found(("learner", "settings"), learner.settings, "each stage's own settings in learner.pipeline")
    from models import estimators  # River only where it learns

    try:
        estimators.build(river_stages(learner), task=spec.task, seed=learner.seed)
    except estimators.EstimatorError as error:
        where, value = ("pipeline", learner.pipeline) if learner.pipeline else ("estimator", learner.estimator)
        yield _Found(("learner", where), value, f"what River can make: {error}")


def _wrong_drift(spec: ModelSpec) -> Iterator[_Found]:
    drift, features = spec.drift, spec.features
    if drift.detector == "ddm" and spec.task == "regression":
        wanted = "adwin or page_hinkley for task regression, whose errors are numbers: ddm counts mistakes"
        yield _Found(("drift", "detector"), "ddm", wanted)
    known = [*features.numeric, *features.categorical]
    for name in drift.inputs:
        if name not in known:
            yield _Found(("drift", "inputs"), name, f"names of features{_near(name, known)}")
    if len(set(drift.inputs)) < len(drift.inputs):
        yield _Found(("drift", "inputs"), drift.inputs, "every name once")


def _too_large(spec: ModelSpec) -> Iterator[_Found]:
    """What is within its limits, key by key, and yet more than a machine holds."""
    if spec.learner.kind == "mixture":
        yield from _too_large_mixture(spec)
    else:
        yield from _too_large_network(spec)
    if (cells := rate_cells(spec)) > MAX_RATE_CELLS:
        wanted = f"at most {MAX_RATE_CELLS} cells in all: slots, keys, half_lives_s and the label make it {cells}"
        yield _Found(("features", "rates", "slots"), spec.features.rates.slots, wanted)


def _too_large_mixture(spec: ModelSpec) -> Iterator[_Found]:
    categorical, units = spec.features.categorical, UNITS[spec.learner.tier]
    codes = sum(feature.size for feature in categorical.values())
    if codes * units > MAX_PARAMETERS:
        name = max(categorical, key=lambda name: categorical[name].size)
        wanted = f"at most {MAX_PARAMETERS // units} in all for tier {spec.learner.tier}: the sizes make it {codes}"
        yield _Found(("features", "categorical", name, "size"), categorical[name].size, wanted)


def _too_large_network(spec: ModelSpec) -> Iterator[_Found]:
    shapes = parameter_shapes(spec)
    parameters = parameter_count(shapes)
    if parameters > MAX_PARAMETERS:
        tables = parameter_count({n: s for n, s in shapes.items() if n.startswith("embed.")})
        where, value = _largest(spec, tables > parameters - tables)
        has = f"features.categorical has {tables} (size * dim), the layers have {parameters - tables}"
        yield _Found(where, value, f"at most {MAX_PARAMETERS} parameters in all: {has}")


def _largest(spec: ModelSpec, tables: bool) -> tuple[Keys, object]:
    """The key to turn down, and its value."""
    if tables:
        name, table = max(spec.features.categorical.items(), key=lambda item: item[1].size * item[1].dim)
        return ("features", "categorical", name), {"size": table.size, "dim": table.dim}
    if spec.learner.layers:
        return ("learner", "hidden"), spec.learner.hidden
    return ("learner", "network"), spec.learner.network


# Where it stands in the text ----------------------------------------------------------------------

_KEY = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_DOTTED_KEY = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*\[\s*({_DOTTED_KEY})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED_KEY})\s*=")


def _line_of(text: str, where: Keys) -> int:
    """Line of the key, or of the nearest table around it; 0 if it is nowhere. Best effort."""
    best, depth, section = 0, 0, Keys()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            found = section = _keys(header[1])
        elif assignment := _ASSIGNMENT.match(line):
            found = section + _keys(assignment[1])
        else:
            continue
        common = min(len(found), len(where))
        if common > depth and found[:common] == where[:common]:
            best, depth = number, common
    return best


def _keys(dotted: str) -> Keys:
    return tuple(k.strip("\"'") for k in re.findall(_KEY, dotted))


def _dotted(where: Keys) -> str:
    return ".".join(k if re.fullmatch(r"[A-Za-z0-9_-]+", k) else json.dumps(k) for k in where)


def _shown(value: object) -> str:
    """A value as in a file, cut where it gets long."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _syntax(message: str, text: str, source: str) -> str:
    """tomllib says 'What (at line 3, column 5)' or 'What (at end of document)'."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    if found is None:
        return f"{source}: {message}"
    what, line, column = found.groups()
    if line is None:
        return f"{source} line {len(text.splitlines())}: {what}"
    return f"{source} line {line} column {column}: {what}"
