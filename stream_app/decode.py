"""Raw records become events, in bulk; what cannot be one is set aside with its reason: fetch -> [decode] -> predict.

The whole batch is parsed as JSON lines in one call. Only if that fails, or a record holds a line break,
are its records parsed one by one, so that the bad ones are found and the rest is learned.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from models.features import LARGEST
from models.spec import ModelSpec
from stream_app.errors import DecodeError
from stream_app.events import LONGEST_ID, WEIGHTS


class Record(Protocol):
    """What aiokafka's and kafka-python's records have in common."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...


class Event(NamedTuple):
    """One record, understood."""

    offset: int
    id: str
    time_s: float | None
    """Event time of the features; None if the record has none."""
    row: tuple[float | int | str | None, ...] | None
    """Numeric features, then categorical ones, in spec order."""
    target: float | None
    """The label as a class index, or as a number for regression; None if the record has none."""
    label_time_s: float | None
    weight: float | None = None
    """How much the example counts; None if the record does not say."""


class BadRecord(NamedTuple):
    """One record that is no event."""

    offset: int
    reason: str
    value: bytes


class Decoder:
    """Knows one model's events.

    Args:
        spec: its features and label.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._ahead_s, self._largest = spec.stream.ahead_s, spec.stream.max_record_bytes
        self._classes = {c: float(i) for i, c in enumerate(spec.label.classes)}
        self._label_text = spec.label.name
        self._event = _event_type(spec)
        self._json = msgspec.json.Decoder(self._event)

    def decode(self, records: Sequence[Record]) -> tuple[list[Event], list[BadRecord]]:
        """Events and bad records, each in offset order."""
        events: list[Event] = []
        bad: list[BadRecord] = []
        for record, parsed in zip(records, self._parse(records), strict=True):
            try:
                if isinstance(parsed, Exception):
                    raise parsed
                events.append(self._checked(record, parsed))
            except (DecodeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                bad.append(BadRecord(record.offset, str(error), record.value or b""))
        return events, bad

    def _parse(self, records: Sequence[Record]) -> Sequence[Any]:
        values = [r.value for r in records]
        if all(values):
            joined = b"\n".join(values)  # type: ignore[arg-type]
            # Every line break between two objects, and as many objects as records: one to a record.
            if joined.count(b"\n") == joined.count(b"}\n{") == len(values) - 1:
                try:
                    parsed = self._json.decode_lines(joined)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    parsed = []
                if len(parsed) == len(values):
                    return parsed
        return [self._parse_one(v) for v in values]

    def _parse_one(self, value: bytes | None) -> Any:
        if not value:
            return DecodeError("the record is empty, wanted a JSON object")
        try:
            return self._json.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return error

    def _checked(self, record: Record, e: Any) -> Event:
        if (size := len(record.value or b"")) > self._largest:
            raise DecodeError(
                f"event {e.id[:LONGEST_ID]!r}: {size} bytes, wanted at most {self._largest} (stream.max_record_bytes)"
            )
        if not 0 < len(e.id) <= LONGEST_ID:
            raise DecodeError(f"'id' has {len(e.id)} characters, wanted 1 to {LONGEST_ID}")
        time_s = row = target = label_time_s = None
        if e.features is not None:
            row = msgspec.structs.astuple(e.features)
            time_s = self._time(record, e, "time", e.time)
        if e.label is not None:
            target = self._target(e)
            label_time_s = self._time(record, e, "label_time", e.label_time)
        if row is None and target is None:
            raise DecodeError(f"event {e.id!r} has neither 'features' nor 'label'")
        if e.weight is not None and not WEIGHTS[0] <= e.weight <= WEIGHTS[1]:
            least, most = WEIGHTS
            raise DecodeError(f"event {e.id!r}: 'weight' is {e.weight!r}, wanted a number from {least:g} to {most:g}")
        return Event(record.offset, e.id, time_s, row, target, label_time_s, e.weight)

    def _time(self, record: Record, e: Any, name: str, value: float | None) -> float:
        if value is None or not math.isfinite(value):
            raise DecodeError(f"event {e.id!r}: '{name}' is {value!r}, wanted seconds since the epoch")
        if 0 < record.timestamp < (value - self._ahead_s) * 1000:
            ahead_s = value - record.timestamp / 1000
            raise DecodeError(
                f"event {e.id!r}: '{name}' is {value!r}, {ahead_s:.10g} s ahead of its Kafka timestamp; "
                f"wanted at most {self._ahead_s:.10g} (stream.ahead_s)"
            )
        return value

    def _target(self, e: Any) -> float:
        if not self._classes:
            if not -LARGEST <= e.label <= LARGEST:
                raise DecodeError(f"event {e.id!r}: 'label' is {e.label!r}, wanted a number that float32 can hold")
            return float(e.label)
        target = self._classes.get(e.label)
        if target is None:
            wanted = ", ".join(map(repr, self._classes))
            raise DecodeError(f"event {e.id!r}: 'label' is {e.label!r}, wanted one of {wanted}")
        return target


def _event_type(spec: ModelSpec) -> type[msgspec.Struct]:
    """The struct that msgspec parses into: typed by the spec, so that wrong types are found while parsing."""
    numeric, categorical = list(spec.features.numeric), list(spec.features.categorical)
    names = {f"f{i}": name for i, name in enumerate(numeric + categorical)}
    types = [float | None] * len(numeric) + [str | int | None] * len(categorical)
    fields: Any = [(f, t, None) for f, t in zip(names, types, strict=True)]
    row: Any = msgspec.defstruct("Features", fields, rename=names, gc=False)
    label: Any = (int | str | None) if spec.label.classes else (float | None)
    return msgspec.defstruct(
        "Event",
        [
            ("id", str),
            ("time", float | None, None),
            ("features", row | None, None),
            ("label", label, None),
            ("label_time", float | None, None),
            ("weight", float | None, None),
        ],
        gc=False,
    )
