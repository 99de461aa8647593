"""What callers want learned: examples and labels -> [check as the worker will -> events topic] -> acknowledged.

The event's record is made here and read once by the worker's own decoder, so what it would set aside is refused at
the door. It takes effect when the worker learns it, as any producer's does: ids make a second try harmless.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from google.protobuf.message import Message

from models.spec import ModelSpec
from stream_app.decode import Decoder
from stream_app.errors import ServingError
from stream_app.serving.limits import Limits
from stream_app.wire import stream_app_pb2 as pb

Predict = Callable[[pb.PredictRequest], Awaitable[pb.PredictResponse]]


class Append(Protocol):
    """What takes events, by key and value, and returns once the broker has them."""

    async def __call__(self, records: Sequence[tuple[bytes, bytes]]) -> None: ...


class _Record(NamedTuple):
    """An event as the worker's decoder gets it."""

    offset: int
    timestamp: int
    value: bytes


class Learning:
    """Logs examples and labels.

    Args:
        append: None where this server does not log events.
        spec: of the live model.
        limits: how many at once.
        clock: wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        append: Append | None,
        spec: Callable[[], ModelSpec],
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._append, self._spec, self._limits, self._clock = append, spec, limits, clock
        self._read: tuple[ModelSpec, Decoder] | None = None

    async def predict_then_learn(
        self, request: pb.PredictThenLearnRequest, predict: Predict
    ) -> pb.PredictThenLearnResponse:
        """Answer, log, and say so once the broker has it.

        Args:
            predict: answers.

        Raises:
            ServingError: INVALID_ARGUMENT: an example that would not be learned; FAILED_PRECONDITION: this server logs
                none; RESOURCE_EXHAUSTED, UNAVAILABLE: it may not be logged, try again.
        """
        append = self._appending("examples", request.examples)
        now_s = self._clock()
        records = self._checked("examples", request.examples, [_example(e, now_s) for e in request.examples], now_s)
        response = await predict(pb.PredictRequest(rows=[e.row for e in request.examples]))
        await append(records)
        return pb.PredictThenLearnResponse(response=response)

    async def feedback(self, request: pb.FeedbackRequest) -> pb.FeedbackResponse:
        """Log labels; raises as ``predict_then_learn``."""
        append = self._appending("labels", request.labels)
        now_s = self._clock()
        classes = {str(c): c for c in self._spec().label.classes}
        labels = [_label(label, classes, now_s) for label in request.labels]
        await append(self._checked("labels", request.labels, labels, now_s))
        return pb.FeedbackResponse()

    def _appending(self, what: str, asked: Sequence[Message]) -> Append:
        if self._append is None:
            text = "this server does not log events, wanted one that was started with --log-events"
            raise ServingError("FAILED_PRECONDITION", text)
        if not 0 < len(asked) <= self._limits.rows:
            text = f"{what} has {len(asked)} of them, wanted 1 to {self._limits.rows}"
            raise ServingError("INVALID_ARGUMENT", text)
        return self._append

    def _checked(
        self, what: str, asked: Sequence[Any], events: Sequence[dict[str, Any]], now_s: float
    ) -> list[tuple[bytes, bytes]]:
        """Key and value of each event."""
        try:
            values = [msgspec.json.encode(event) for event in events]
        except UnicodeEncodeError as error:  # what no text may be
            raise ServingError("INVALID_ARGUMENT", f"{what}: {error}") from error
        records = [_Record(i, int(1000 * now_s), value) for i, value in enumerate(values)]
        _, bad = self._decoder().decode(records)
        if bad:
            raise ServingError("INVALID_ARGUMENT", f"{what}[{bad[0].offset}]: {bad[0].reason}")
        keys = [(one.key or one.id).encode() for one in asked]
        return list(zip(keys, values, strict=True))

    def _decoder(self) -> Decoder:
        """Of the live version; most versions have the spec of the one before."""
        spec = self._spec()
        if self._read is None or self._read[0] != spec:
            self._read = spec, Decoder(spec)
        return self._read[1]


def _example(asked: pb.UnlabelledExample, now_s: float) -> dict[str, Any]:
    features = {name: _given(value) for name, value in asked.row.features.items()}
    time_s = asked.row.time_s if asked.row.HasField("time_s") else now_s
    event = {"id": asked.id, "key": asked.key or asked.id, "time": time_s, "features": features}
    return event | ({"weight": asked.weight} if asked.HasField("weight") else {})


def _label(asked: pb.ExampleLabel, classes: Mapping[str, int | str], now_s: float) -> dict[str, Any]:
    """A class may come as the text of its integer, or as the double of it."""
    label = _given(asked.label)
    if isinstance(label, float) and label.is_integer() and classes:
        label = int(label)
    label = classes.get(str(label), label) if classes else label
    time_s = asked.time_s if asked.HasField("time_s") else now_s
    event = {"id": asked.id, "key": asked.key or asked.id, "label": label, "label_time": time_s}
    return event | ({"weight": asked.weight} if asked.HasField("weight") else {})


def _given(value: pb.Value) -> float | int | str | None:
    """JSON has no NaN: it is null there, missing."""
    kind = value.WhichOneof("kind")
    found = None if kind is None else getattr(value, kind)
    if not isinstance(found, float):
        return found
    if math.isnan(found):
        return None
    return int(found) if found.is_integer() and abs(found) < 2**53 else found
