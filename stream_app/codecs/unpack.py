"""A message becomes many examples again: record -> [unpack] -> rules -> columns.

B rows
"""

from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError as WireError
from numpy.typing import NDArray

from stream_app.codecs.batch import LARGEST_BATCH_BYTES, Batch, Coded, Doubles
from stream_app.columns import MOST_ROWS
from stream_app.errors import DecodeError
from stream_app.ids import Ids
from stream_app.wire import events_pb2 as wire

Scalar = TypeVar("Scalar", bound=np.generic)


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


def _split(texts: wire.Texts, what: str) -> list[str]:
    return list(_ids(texts, what)) if texts.ends or texts.text else []


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
