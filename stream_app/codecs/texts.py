"""The values of records in one text, for a scanner to run over: fetch -> [texts] -> scan -> columns.

B records
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.decode import Record
from stream_app.records import Records

Places = NDArray[np.int64]

PADDING = 32
"""Bytes behind the last value: a scanner may look so far ahead."""
BREAK = 10
"""Follows every value: no token of JSON goes across a line break."""


class Texts(NamedTuple):
    """B values, each followed by a line break; of one type whatever records are read, or scanners compile anew."""

    text: bytearray
    ends: Places
    """(B,) after each value's line break; the next value begins there."""
    offsets: Places
    """(B,)"""
    timestamps_ms: Places
    """(B,) of Kafka."""


def texts(records: Sequence[Record]) -> Texts:
    """What the records say; a value that is not there is empty."""
    if isinstance(records, Records):
        text, ends = records.values(BREAK, padding=PADDING)
        return Texts(text, ends, records.places["offset"], records.places["timestamp"].copy())
    values = [r.value or b"" for r in records]
    return Texts(
        bytearray(b"".join([v + b"\n" for v in values]) + bytes(PADDING)),
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)) + 1),
        np.array([r.offset for r in records], np.int64),
        np.array([r.timestamp for r in records], np.int64),
    )
