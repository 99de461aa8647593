"""Many examples as one message: producer -> [pack] -> record -> unpack -> rules -> columns.

The message is ``Examples`` of protos/events.proto. Its columns are little-endian arrays in bytes, so they are
copied, not parsed; categories are codes into a dictionary.

    B rows
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.wire import events_pb2 as wire

LARGEST_BATCH_BYTES = 1_000_000
"""Of one message; Kafka takes 1,048,588 with what is around it."""
MOST_CELLS = 1 << 22
"""Rows times features of a record, at most: a column that a message leaves out costs it nothing, and us memory."""

Doubles = NDArray[np.float64]


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
