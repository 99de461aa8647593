"""Asking a server for predictions: rows -> [request -> server -> response] -> predictions.

with StreamModelClient("127.0.0.1:50051") as client:
    answer = client.predict([{"distance": 1400, "carrier": "UA"}])
    answer.rows[0].label, answer.rows[0].scores, answer.version
"""

import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Self

import grpc
import msgspec

from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

DEADLINE_S = 5.0
_ANSWER_BYTES = 64 << 20
"""4096 rows of a thousand classes."""
_RECONNECT_MS = 2_000
"""A server that comes back is found within seconds; gRPC's own limit makes calls fail for two minutes more."""

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


class StreamModelClient:
    """A connection to one server; any number of threads may use it.

    Args:
        target: ``host:port``, or any gRPC target.
        deadline_s: how long a call may take.
    """

    def __init__(self, target: str, *, deadline_s: float = DEADLINE_S, token: str | None = None) -> None:
        options = (
            ("grpc.max_receive_message_length", _ANSWER_BYTES),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        )
        self.target = target
        self._channel = grpc.insecure_channel(target, options=options)
        self._stub = pb_grpc.StreamModelStub(self._channel)
        self._deadline_s = deadline_s
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def predict(
        self,
        rows: Sequence[Mapping[str, Value]],
        times_s: Sequence[float | None] | None = None,
        *,
        explain: Literal["score", "log_odds"] | None = None,
        deadline_s: float | None = None,
    ) -> Predictions:
        """Score rows of features by name; what is absent or None is missing.

        Args:
            times_s: event times at which recent label rates are read; by default the newest
                label time that the version has learned from.
            explain: say why, too, of up to 64 rows: contributions to the score, or for two classes to its log-odds.

        Raises:
            ServingError: the server refuses or is gone; ``status`` says which.
        """
        times = times_s if times_s is not None else [None] * len(rows)
        if len(times) != len(rows):
            raise ServingError("INVALID_ARGUMENT", f"times_s has {len(times)} times, wanted one per row: {len(rows)}")
        if explain not in _UNITS:
            raise ServingError("INVALID_ARGUMENT", f"explain is {explain!r}, wanted 'score', 'log_odds' or None")
        both = enumerate(zip(rows, times, strict=True))
        rows_ = [_row(i, row, time_s) for i, (row, time_s) in both]
        request = pb.PredictRequest(rows=rows_, explain=_UNITS[explain])
        with _serving_errors():
            answer = self._stub.Predict(request, timeout=self._within_s(deadline_s), metadata=self._metadata)
        return _predictions(answer)

    def model(self, *, deadline_s: float | None = None) -> Model:
        """What the server serves.

        Raises:
            ServingError: no version is live, or the server is gone.
        """
        with _serving_errors():
            answer = self._stub.GetModel(
                pb.GetModelRequest(), timeout=self._within_s(deadline_s), metadata=self._metadata
            )
        return _model(answer)

    def watch(self, *, deadline_s: float | None = None) -> Iterator[Version]:
        """The live version, then those that follow until the server drains; no default deadline.

        Raises:
            ServingError: the deadline passed, or the server is gone.
        """
        changes = self._stub.WatchModel(pb.WatchModelRequest(), timeout=deadline_s)
        try:
            with _serving_errors():
                for change in changes:
                    yield _version(change.version, change.variant, change.prior_only)
        finally:
            changes.cancel()

    def _within_s(self, deadline_s: float | None) -> float:
        return self._deadline_s if deadline_s is None else deadline_s

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _serving_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:  # not by us: a server that ends cuts off what it has not begun
            raise ServingError("UNAVAILABLE", "the server ended before it began with the call") from error
        raise ServingError(error.code().name, str(error.details())) from error


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


def _version(version: pb.Version, variant: str, prior_only: bool) -> Version:
    return Version(
        number=version.number,
        id=version.id,
        epoch=version.epoch,
        variant=variant,
        prior_only=prior_only,
    )


def _predictions(answer: pb.PredictResponse) -> Predictions:
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


def _model(answer: pb.GetModelResponse) -> Model:
    return Model(
        name=answer.model,
        task=answer.task,
        label_name=answer.label_name,
        classes=tuple(answer.classes),
        features={f.name: f.kind for f in answer.features},
        version=_version(answer.version, answer.variant, answer.prior_only),
        version_age_s=answer.staleness.version_age_s,
        log_age_s=answer.staleness.log_age_s,
        offsets=dict(answer.offsets),
        labels=answer.labels,
        metrics=dict(answer.metrics),
        hyper=_fields(answer.hyper),
        variants=tuple(_fields(v) for v in answer.variants),
        importance=dict(sorted(answer.importance.items(), key=lambda item: -item[1])),
        members=dict(answer.members),
    )
