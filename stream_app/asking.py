"""What a client says and hears, without a wire: rows, columns -> [asking] -> request; response -> predictions.

B rows, K scores
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb

Explain = Literal["score", "log_odds"]
Rows = Sequence[Mapping[str, "Value"]]
Value = float | int | str | None
_UNITS = {None: pb.EXPLAIN_UNSPECIFIED, "score": pb.EXPLAIN_SCORE, "log_odds": pb.EXPLAIN_LOG_ODDS}


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one feature, or the recent rates of one key combination, did to a score."""

    name: str
    value: Value
    """As given; of rates, that with the first half-life."""
    contribution: float


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why the model says what it says: ``said`` is ``base`` and all contributions."""

    label: str | None
    """Whose score is explained: of two classes the positive one, of more the most probable; None for regression."""
    base: float
    """What it says of recent rows, in the mean."""
    said: float
    attributions: tuple[Attribution, ...]
    """The largest, up or down, first."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of one row."""

    scores: dict[str, float]
    """Probability per class; empty for regression."""
    label: str | None
    """The most probable class; None for regression."""
    value: float | None
    """Regression: the predicted label."""
    explanation: Explanation | None = None
    """If asked for."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Which version is live, and in what form."""

    number: int
    id: str
    epoch: int
    variant: str
    """fp32 or int8"""
    prior_only: bool
    """Before two classes (one label, for regression) had been seen: answers are the labels' all-time mean."""


class Predictions(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; all its rows come from one version."""

    rows: tuple[Prediction, ...]
    model: str
    version: Version
    version_age_s: float
    """Wall time since the version was made."""
    log_age_s: float
    """Time since the broker last answered the server."""
    role: str = "champion"
    """Who answered: champion, or canary, the version that is tried."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to columns; all its rows come from one version."""

    values: NDArray[np.float32]
    """(B, K) probability per class; (B, 1) predicted labels for regression."""
    classes: tuple[str, ...]
    """K of them; empty for regression."""
    model: str
    version: Version
    version_age_s: float
    log_age_s: float

    @property
    def labels(self) -> list[str]:
        """The most probable class of each row; for regression there are none."""
        return [self.classes[k] for k in self.values.argmax(axis=1).tolist()] if self.classes else []


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a server serves."""

    name: str
    task: str
    label_name: str
    classes: tuple[str, ...]
    features: dict[str, str]
    """Name -> numeric or categorical."""
    version: Version
    version_age_s: float
    log_age_s: float
    offsets: dict[int, int]
    """Per partition: the version has seen exactly the events before it."""
    labels: int
    metrics: dict[str, float]
    hyper: dict[str, float | int | str | bool]
    """learning_rate, half_life_events"""
    variants: tuple[dict[str, float | int | str | bool], ...]
    """As ``Variant`` in protos/stream_app.proto."""
    importance: dict[str, float] = {}
    """How much more is lost when a feature's value is another row's; the largest first."""
    members: dict[str, float] = {}
    """Weights of a mixture's members."""
    pinned: bool = False
    """Whether people pinned the version, so that newer ones wait."""
    alarm: str = ""
    """What the server refused and has nothing better for; empty if all is well."""


def rows_asked(
    rows: Rows, times_s: Sequence[float | None] | None = None, explain: Explain | None = None, key: str = ""
) -> pb.PredictRequest:
    """A request of rows by name.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the row.
    """
    times = times_s if times_s is not None else [None] * len(rows)
    if len(times) != len(rows):
        raise _wrong(f"times_s has {len(times)} times, wanted one per row: {len(rows)}")
    if explain not in _UNITS:
        raise _wrong(f"explain is {explain!r}, wanted 'score', 'log_odds' or None")
    asked = [_row(i, row, time_s) for i, (row, time_s) in enumerate(zip(rows, times, strict=True))]
    return pb.PredictRequest(rows=asked, explain=_UNITS[explain], key=key)


def examples_asked(
    examples: Mapping[str, Mapping[str, Value]], key: str, at_s: float | None
) -> pb.PredictThenLearnRequest:
    """A request of examples by id; raises as ``rows_asked``."""
    rows = [_row(i, row, at_s) for i, row in enumerate(examples.values())]
    made = [pb.UnlabelledExample(id=id_, key=key, row=row) for id_, row in zip(examples, rows, strict=True)]
    return pb.PredictThenLearnRequest(examples=made)


def labels_asked(labels: Mapping[str, Value], key: str, at_s: float | None) -> pb.FeedbackRequest:
    """A request of labels by id; raises as ``rows_asked``."""
    given = [_value(i, "label", label) for i, label in enumerate(labels.values())]
    made = [pb.ExampleLabel(id=id_, key=key, label=v, time_s=at_s) for id_, v in zip(labels, given, strict=True)]
    return pb.FeedbackRequest(labels=made)


def columns_asked(
    columns: Mapping[str, ArrayLike], times_s: ArrayLike | None = None, key: str = ""
) -> pb.PredictRequest:
    """A request of columns by name, (B,) each: numbers (NaN or None is missing), or texts (None is missing).

    Raises:
        ServingError: INVALID_ARGUMENT, naming the column.
    """
    made = [_column(name, values) for name, values in columns.items()]
    rows = next((count for _, count in made), 0)
    for column, count in made:
        if count != rows:
            raise _wrong(f"feature {column.name!r} has {count} values, wanted {rows}, as the first column has")
    times = b"" if times_s is None else _doubles("times_s", times_s)
    return pb.PredictRequest(columns=pb.Columns(rows=rows, columns=[c for c, _ in made], times_s=times), key=key)


def _column(name: str, values: ArrayLike) -> tuple[pb.Column, int]:
    found = np.asarray(values)
    if found.ndim != 1:
        raise _wrong(f"feature {name!r} has shape {found.shape}, wanted (B,)")
    texts = found.dtype.kind in "US" or (found.dtype == object and any(isinstance(v, str) for v in found))
    if not texts:
        return pb.Column(name=name, numbers=_doubles(name, found)), len(found)
    plain: list[Any] = [_missing(v) for v in found.tolist()]
    different = {v: i for i, v in enumerate(dict.fromkeys(v for v in plain if v is not None), 1)}
    try:
        at = [0 if v is None else different[v] for v in plain]
        return pb.Column(name=name, texts=[str(v) for v in different], at=at), len(plain)
    except ValueError as error:  # a lone surrogate
        raise _wrong(f"feature {name!r} cannot be sent: {error}") from error


def _missing(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _doubles(name: str, values: ArrayLike) -> bytes:
    try:
        return np.asarray(values, "<f8").tobytes()
    except (TypeError, ValueError) as error:
        raise _wrong(f"{name!r} cannot be numbers: {error}") from error


def _wrong(text: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", text)


def _row(index: int, row: Mapping[str, Value], time_s: float | None) -> pb.Row:
    for name in row:
        if not isinstance(name, str):
            text = f"rows[{index}]: a feature's name is {name!r}, wanted a string"
            raise ServingError("INVALID_ARGUMENT", text)
    if time_s is not None and not isinstance(time_s, numbers.Real):
        text = f"rows[{index}]: time_s is {time_s!r}, wanted seconds since the epoch"
        raise ServingError("INVALID_ARGUMENT", text)
    values = {n: _value(index, n, v) for n, v in row.items() if v is not None}
    return pb.Row(features=values, time_s=time_s)


def _value(index: int, name: str, value: Value) -> pb.Value:
    try:
        return _held(index, name, value)
    except (ValueError, OverflowError) as error:  # a lone surrogate, an endless integer
        raise ServingError("INVALID_ARGUMENT", f"rows[{index}]: feature {name!r} cannot be sent: {error}") from error


def _held(index: int, name: str, value: Value) -> pb.Value:
    if isinstance(value, str):
        return pb.Value(text=value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # numpy's are such, too
        text = f"rows[{index}]: feature {name!r} is {value!r}, wanted a number or a string"
        raise ServingError("INVALID_ARGUMENT", text)
    if isinstance(value, numbers.Integral) and abs(value) > 2**53:
        return pb.Value(text=str(value))  # the nearest double may be another integer
    return pb.Value(number=float(value))


def _fields(message: pb.Hyper | pb.Variant) -> dict[str, float | int | str | bool]:
    return {name: getattr(message, name) for name in message.DESCRIPTOR.fields_by_name}


def version_of(version: pb.Version, variant: str, prior_only: bool) -> Version:
    return Version(
        number=version.number,
        id=version.id,
        epoch=version.epoch,
        variant=variant,
        prior_only=prior_only,
    )


def predictions_of(answer: pb.PredictResponse) -> Predictions:
    return Predictions(
        rows=tuple(map(_prediction, answer.predictions)),
        model=answer.model,
        version=Version(
            number=answer.version,
            id=answer.version_id,
            epoch=answer.epoch,
            variant=answer.variant,
            prior_only=answer.prior_only,
        ),
        version_age_s=answer.staleness.version_age_s,
        log_age_s=answer.staleness.log_age_s,
        role=answer.role,
    )


def _prediction(row: pb.Prediction) -> Prediction:
    return Prediction(
        scores=dict(row.scores),
        label=row.label or None,
        value=row.value if row.HasField("value") else None,
        explanation=_explanation(row.explanation) if row.HasField("explanation") else None,
    )


def _explanation(explanation: pb.Explanation) -> Explanation:
    return Explanation(
        label=explanation.label or None,
        base=explanation.base,
        said=explanation.said,
        attributions=tuple(
            Attribution(name=a.name, value=_given(a.value), contribution=a.contribution)
            for a in explanation.attributions
        ),
    )


def _given(value: pb.Value) -> Value:
    kind = value.WhichOneof("kind")
    return None if kind is None else getattr(value, kind)


def model_of(answer: pb.GetModelResponse) -> Model:
    return Model(
        name=answer.model,
        task=answer.task,
        label_name=answer.label_name,
        classes=tuple(answer.classes),
        features={f.name: f.kind for f in answer.features},
        version=version_of(answer.version, answer.variant, answer.prior_only),
        version_age_s=answer.staleness.version_age_s,
        log_age_s=answer.staleness.log_age_s,
        offsets=dict(answer.offsets),
        labels=answer.labels,
        metrics=dict(answer.metrics),
        hyper=_fields(answer.hyper),
        variants=tuple(_fields(v) for v in answer.variants),
        importance=dict(sorted(answer.importance.items(), key=lambda item: -item[1])),
        members=dict(answer.members),
        pinned=answer.pinned,
        alarm=answer.alarm,
    )


def scored_of(answer: pb.PredictResponse) -> Scored:
    """An answer to columns."""
    classes = tuple(answer.scores.classes)
    values = np.frombuffer(answer.scores.values, "<f4").reshape(-1, max(len(classes), 1))
    said = predictions_of(answer)
    return Scored(
        values=values,
        classes=classes,
        model=said.model,
        version=said.version,
        version_age_s=said.version_age_s,
        log_age_s=said.log_age_s,
    )


def streamed_of(answer: pb.PredictStreamResponse) -> Predictions | ServingError:
    """What one request of a stream got: an answer, or an error of its own."""
    if answer.HasField("error"):
        return ServingError(answer.error.status, answer.error.message)
    return predictions_of(answer.response)
