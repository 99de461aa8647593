"""Many examples as one message: producer -> [pack] -> record -> [unpack] -> rules -> columns.

The message is ``Examples`` of protos/events.proto. Its columns are little-endian arrays in bytes, so they are
copied, not parsed; categories are codes into a dictionary.

    B rows
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from google.protobuf.message import DecodeError as WireError
from numpy.typing import NDArray

from stream_app.columns import MOST_ROWS
from stream_app.errors import DecodeError
from stream_app.ids import Ids
from stream_app.wire import events_pb2 as wire

LARGEST_BATCH_BYTES = 1_000_000
"""Of one message; Kafka takes 1,048,588 with what is around it."""
MOST_CELLS = 1 << 22
"""Rows times features of a record, at most: a column that a message leaves out costs it nothing, and us memory."""

Doubles = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)


class Coded(NamedTuple):
    """A column of categories, or of classes."""

    codes: NDArray[np.int32]
    """(B,) index into ``values``; -1: missing."""
    values: list[str | int]

    def at(self, i: int) -> str | int | None:
        """The value of one row."""
        return self.values[self.codes[i]] if self.codes[i] >= 0 else None


class Batch(NamedTuple):
    """B examples, as they came."""

    ids: Sequence[str]
    time_s: Doubles | None
    """(B,) NaN: the row has no features; None: no row has."""
    numeric: dict[str, NDArray[np.floating[Any]]]
    """(B,) each; NaN: missing."""
    categorical: dict[str, Coded]
    """Texts and integers; the model says what an integer is. A name may be here and there."""
    classes: Coded | None
    """Labels that are texts or integers; None: no row has one."""
    values: Doubles | None
    """(B,) labels that are numbers; NaN where there is none."""
    label_time_s: Doubles | None
    weight: Doubles | None
    """(B,) NaN: the row does not say."""

    def row(self, i: int) -> dict[str, Any]:
        """One example, as it would be written in JSON."""
        features: dict[str, Any] = {n: float(c[i]) for n, c in self.numeric.items() if not math.isnan(c[i])}
        features |= {n: c.at(i) for n, c in self.categorical.items() if c.codes[i] >= 0}
        said: dict[str, Any] = {"time": _at(self.time_s, i), "features": features or None, "label": self.label_at(i)}
        said |= {"label_time": _at(self.label_time_s, i), "weight": _at(self.weight, i)}
        return {"id": self.ids[i]} | {name: value for name, value in said.items() if value is not None}

    def label_at(self, i: int) -> str | int | float | None:
        """The class or the number of one row, if it has one."""
        label = None if self.classes is None else self.classes.at(i)
        return _at(self.values, i) if label is None else label


def row_json(batch: Batch, i: int) -> bytes:
    """One example as JSON; a number that JSON has not is null."""
    return msgspec.json.encode(batch.row(i))


def pack(batch: Batch) -> bytes:
    """The message; its reader checks it, we do not."""
    message = wire.Examples(rows=len(batch.ids), ids=_texts(batch.ids))
    for name in ("time_s", "label_time_s", "weight"):
        if (column := getattr(batch, name)) is not None:
            setattr(message, name.removesuffix("_s"), column.astype("<f8").tobytes())
    for name, values in batch.numeric.items():
        size = 4 if values.dtype == np.float32 else 8
        message.numeric.add(name=name, values=values.astype(f"<f{size}").tobytes())
    for name, coded in batch.categorical.items():
        message.categorical.append(_coded(name, coded))
    if batch.classes is not None:
        getattr(message, "class").CopyFrom(_coded("", batch.classes))
    if batch.values is not None:
        message.value = batch.values.astype("<f8").tobytes()
    raw: bytes = message.SerializeToString()
    return raw


def unpack(value: bytes) -> Batch:
    """The rows of one message, whose structure is whole; what they say is still to be judged.

    Raises:
        DecodeError: it is no such message, or its parts do not fit together.
    """
    if len(value) > LARGEST_BATCH_BYTES:
        raise DecodeError(f"the record has {len(value)} bytes, wanted at most {LARGEST_BATCH_BYTES}")
    message = wire.Examples()
    try:
        message.ParseFromString(value)
    except WireError as error:
        raise DecodeError(f"the record is no Examples message (protos/events.proto): {error}") from error
    b = message.rows
    if not 0 < b <= MOST_ROWS:
        raise DecodeError(f"'rows' is {b}, wanted 1 to {MOST_ROWS}")
    ids = _ids(message.ids, "ids")
    if len(ids) != b:
        raise DecodeError(f"'ids' has {len(ids)} texts, wanted {b}")
    numeric = {c.name: _floats(c.values, b, f"numeric {c.name!r}") for c in message.numeric}
    categorical = {c.name: _codes(c, b, f"categorical {c.name!r}") for c in message.categorical}
    if len(numeric) + len(categorical) < len(message.numeric) + len(message.categorical):
        raise DecodeError("a column is there twice, wanted each name once")
    return Batch(
        ids,
        _doubles(message.time, b, "time"),
        numeric,
        categorical,
        _codes(getattr(message, "class"), b, "class") if message.HasField("class") else None,
        _doubles(message.value, b, "value"),
        _doubles(message.label_time, b, "label_time"),
        _doubles(message.weight, b, "weight"),
    )


def coded(values: Any) -> Coded:
    """A column of B categories: texts, integers or None."""
    index: dict[str | int, int] = {}
    codes = [-1 if v is None else index.setdefault(v, len(index)) for v in values]
    return Coded(np.array(codes, np.int32), list(index))


def _at(column: Doubles | None, i: int) -> float | None:
    return None if column is None or math.isnan(column[i]) else float(column[i])


def _texts(texts: Sequence[str]) -> wire.Texts:
    raw = [t.encode() for t in texts]
    ends = np.cumsum(np.fromiter(map(len, raw), np.int64, len(raw)))
    return wire.Texts(text=b"".join(raw), ends=ends.astype("<u4").tobytes())


def _coded(name: str, column: Coded) -> wire.Categorical:
    """The message has texts first, then integers."""
    texts = [i for i, v in enumerate(column.values) if isinstance(v, str)]
    numbers = [i for i, v in enumerate(column.values) if not isinstance(v, str)]
    place = np.full(len(column.values) + 1, -1, np.int32)
    place[[*texts, *numbers]] = np.arange(len(column.values))
    return wire.Categorical(
        name=name,
        texts=_texts([str(column.values[i]) for i in texts]),
        numbers=np.array([column.values[i] for i in numbers], "<i8").tobytes(),
        codes=place[column.codes].astype("<i4").tobytes(),
    )


def _split(texts: wire.Texts, what: str) -> list[str]:
    return list(_ids(texts, what))


def _ids(texts: wire.Texts, what: str) -> Ids:
    ends = _array(texts.ends, np.dtype("<u4"), f"ends of {what}").astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    if (ends < starts).any() or (ends[-1] if len(ends) else 0) != len(texts.text):
        raise DecodeError(f"ends of {what} do not rise to the {len(texts.text)} bytes of its text")
    found = Ids(np.frombuffer(texts.text, np.uint8), np.stack([starts, ends], axis=1))
    if not texts.text.isascii():
        try:
            list(found)
        except UnicodeDecodeError as error:
            raise DecodeError(f"{what}: {error}, wanted UTF-8") from error
    return found


def _codes(column: wire.Categorical, rows: int, what: str) -> Coded:
    texts = _split(column.texts, f"the texts of {what}")
    values = [*texts, *_array(column.numbers, np.dtype("<i8"), f"numbers of {what}").tolist()]
    codes = _array(column.codes, np.dtype("<i4"), f"codes of {what}").astype(np.int32, copy=False)
    if len(codes) != rows:
        raise DecodeError(f"{what} has {len(codes)} codes, wanted {rows}")
    least, most = int(codes.min()), int(codes.max())
    if least < -1 or most >= len(values):
        raise DecodeError(f"codes of {what} are from {least} to {most}, wanted -1 to {len(values) - 1}")
    return Coded(codes, values)


def _floats(raw: bytes, rows: int, what: str) -> NDArray[np.floating[Any]]:
    if len(raw) not in (4 * rows, 8 * rows):
        raise DecodeError(f"{what} has {len(raw)} bytes, wanted {4 * rows} or {8 * rows}")
    return np.frombuffer(raw, "<f4" if len(raw) == 4 * rows else "<f8")


def _doubles(raw: bytes, rows: int, what: str) -> Doubles | None:
    if len(raw) not in (0, 8 * rows):
        raise DecodeError(f"'{what}' has {len(raw)} bytes, wanted none or {8 * rows}")
    return np.frombuffer(raw, "<f8") if raw else None


def _array(raw: bytes, dtype: "np.dtype[Scalar]", what: str) -> NDArray[Scalar]:
    if len(raw) % dtype.itemsize:
        raise DecodeError(f"{what}: {len(raw)} bytes, wanted a multiple of {dtype.itemsize}")
    return np.frombuffer(raw, dtype)
