"""Plain ``Example`` messages become arrays without an object per value, compiled: records -> [scan] -> columns.

What protobuf's own writers make of an example is read here. Whatever is not quite so (a field twice or unknown, text
that is not ASCII, a number that is not finite, an error of any kind) is left to protobuf's parser, which is the
reference. Wire format: https://protobuf.dev/programming-guides/encoding/

    B records
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.spec import ModelSpec
from stream_app.codecs.names import find, find_next
from stream_app.codecs.numbers import Bytes
from stream_app.codecs.tables import Found, Places, Tables, found_in, right, tables_of
from stream_app.codecs.texts import Texts
from stream_app.columns import Columns

_TEXT, _DOUBLE, _VARINT = 2, 1, 0
_KEY, _VALUE = 1 << 3 | _TEXT, 2 << 3


class WireScanner:
    """Knows one model's events.

    Args:
        spec: its features and label.
        longest_id: characters.
    """

    def __init__(self, spec: ModelSpec, longest_id: int) -> None:
        self._tables = tables_of(spec, longest_id)

    def scan(self, texts: Texts, into: Columns) -> NDArray[np.bool_]:
        """Read what is plain; whether each record was. Of the others, what stands in ``into`` means nothing.

        Args:
            texts: B records.
            into: B rows.
        """
        text = texts.text
        plain, found = np.zeros(len(texts.ends), np.bool_), found_in(into)
        _scan(np.frombuffer(text, np.uint8), texts.ends, texts.timestamps_ms, self._tables, found, plain)
        into.ids.set(slice(None), found.whole_ids(text, plain))
        return plain


@compiled_exactly
def _length(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """The length that stands at ``at``: where what it counts begins, and ends; -1 if that is beyond ``end``."""
    length = int(text[at] & 127)
    if text[at] > 127:
        length |= int(text[at + 1] & 127) << 7
        at += 1
        if text[at] > 127:
            length |= int(text[at + 1] & 127) << 14
            at += 1
            if text[at] > 127:
                return -1, -1
    at += 1
    return (at, at + length) if at + length <= end else (-1, -1)


@compiled_exactly
def _double(text: Bytes, at: int, tables: Tables) -> float:
    bits = np.uint64(0)
    for i in range(8):
        bits |= np.uint64(text[at + i]) << np.uint64(8 * i)
    tables.word[0] = bits
    return float(tables.word.view(np.float64)[0])


@compiled_exactly
def _is_ascii(text: Bytes, at: int, end: int) -> bool:
    high = text[at] & 0
    for i in range(at, end):
        high |= text[i]
    return bool(high < 128)


@compiled_exactly
def _ascii(text: Bytes, at: int, end: int, crc: NDArray[np.uint32]) -> tuple[bool, np.uint32]:
    """Whether a text is ASCII, and its CRC-32."""
    code = np.uint32(0xFFFFFFFF)
    for i in range(at, end):
        if text[i] > 127:
            return False, code
        code = crc[(code ^ text[i]) & np.uint32(0xFF)] ^ (code >> np.uint32(8))
    return True, ~code


@compiled_exactly
def _integer(text: Bytes, at: int, end: int) -> tuple[int, Any]:
    """The varint that stands there: where it ends, -1 if not before ``end``, and its value."""
    value = np.uint64(0)
    for i in range(10):
        if at + i >= end or (i == 9 and text[at + i] > 1):
            return -1, 0
        value |= np.uint64(text[at + i] & 127) << np.uint64(7 * i)
        if text[at + i] < 128:
            return at + i + 1, np.int64(value)
    return -1, 0


@compiled_exactly
def _decimal(value: int, digits: Bytes) -> int:
    """Write an integer as Python does; returns how long it is."""
    left, length = np.uint64(value), 0
    if value < 0:
        left = ~left + np.uint64(1)
    while True:
        digits[length] = 48 + left % np.uint64(10)
        left //= np.uint64(10)
        length += 1
        if left == np.uint64(0):
            break
    if value < 0:
        digits[length] = 45
        length += 1
    for i in range(length // 2):
        digits[i], digits[length - 1 - i] = digits[length - 1 - i], digits[i]
    return length


@compiled_exactly
def _entry(text: Bytes, at: int, end: int, numeric: bool, tables: Tables, found: Found, row: int, last: int) -> int:
    """One feature: its index, -2 if the model has it not, or -1 if it is not plain."""
    if text[at] != _KEY:
        return -1
    begin, at = _length(text, at + 1, end)
    if begin < 0 or not _is_ascii(text, begin, at):
        return -1
    name, n = find_next(text, begin, at - begin, tables.features, last), tables.numeric
    if name >= 0:
        if found.seen[name] == row:
            return -1
        found.seen[name] = row
    largest = tables.limits[5]
    if numeric:
        if at + 9 != end or text[at] != _VALUE | _DOUBLE or name >= n:
            return -1
        value = _double(text, at + 1, tables)
        if np.isinf(value):
            return -1
        if name >= 0 and not np.isnan(value):
            found.numeric[row, name] = np.float32(min(max(value, -largest), largest))
        return name if name >= 0 else -2
    if at >= end or text[at] != _VALUE | _TEXT:
        return -1
    at, stop = _length(text, at + 1, end)
    if stop != end or at >= end:
        return -1
    if text[at] == _KEY:
        begin, stop = _length(text, at + 1, end)
        if stop != end:
            return -1
        plain, code = _ascii(text, begin, end, tables.crc)
        if not plain or 0 <= name < n:
            return -1
        length = end - begin
    else:
        stop, integer = _integer(text, at + 1, end)
        if stop != end or text[at] != _VALUE | _VARINT:
            return -1
        if 0 <= name < n:
            found.numeric[row, name] = np.float32(min(max(float(integer), -largest), largest))
            return name
        length = _decimal(integer, tables.digits)
        _, code = _ascii(tables.digits, 0, length, tables.crc)
    if name >= 0:
        found.hashes[row, name - n], found.lengths[row, name - n] = code, length
    return name if name >= 0 else -2


@compiled_exactly
def _features(text: Bytes, at: int, end: int, tables: Tables, found: Found, row: int) -> bool:
    """Whether all of them are plain."""
    last = -1
    while at < end:
        tag = text[at]
        if tag != (1 << 3 | _TEXT) and tag != (2 << 3 | _TEXT):
            return False
        begin, at = _length(text, at + 1, end)
        if begin < 0:
            return False
        name = _entry(text, begin, at, tag == (1 << 3 | _TEXT), tables, found, row, last)
        if name == -1:
            return False
        last = name if name >= 0 else last
    return True


@compiled_exactly
def _class(text: Bytes, at: int, end: int, tables: Tables) -> float:
    """Index of a class, or a number for regression; NaN if it is not plain."""
    if at >= end:
        return np.nan
    if text[at] == _KEY:
        begin, stop = _length(text, at + 1, end)
        if stop != end or tables.regression:
            return np.nan
        place = find(text, begin, end - begin, tables.texts)
        return float(tables.text_class[place]) if place >= 0 else np.nan
    stop, integer = _integer(text, at + 1, end)
    if stop != end or text[at] != _VALUE | _VARINT:
        return np.nan
    if tables.regression:
        return float(integer)
    place = find(tables.digits, 0, _decimal(integer, tables.digits), tables.integers)
    return float(tables.integer_class[place]) if place >= 0 else np.nan


@compiled_exactly
def _example(text: Bytes, at: int, end: int, tables: Tables, found: Found, row: int) -> bool:
    """Whether a message is plain."""
    seen = 0
    while at < end:
        field, kind = text[at] >> 3, text[at] & 7
        if field == 0 or field > 7 or seen >> field & 1:
            return False
        seen |= 1 << field
        if kind == _DOUBLE:
            value = _double(text, at + 1, tables)
            at += 9
            if at > end or not np.isfinite(value):
                return False
            if field == 2:
                found.time_s[row] = value
            elif field == 5 and tables.regression:
                found.target[row] = value
            elif field == 6:
                found.label_time_s[row] = value
            elif field == 7:
                found.weight[row] = value
            else:
                return False
        elif kind == _TEXT:
            begin, at = _length(text, at + 1, end)
            if begin < 0:
                return False
            if field == 1:
                found.ids[row, 0], found.ids[row, 1] = begin, at
                if not _is_ascii(text, begin, at):
                    return False
            elif field == 3:
                found.has_features[row] = True
                if not _features(text, begin, at, tables, found, row):
                    return False
            elif field == 4:
                found.target[row] = _class(text, begin, at, tables)
                if np.isnan(found.target[row]):
                    return False
            else:
                return False
        else:
            return False
    return seen >> 4 & 3 != 3  # not two labels


@compiled_exactly
def _scan(
    text: Bytes, ends: Places, timestamps_ms: Places, tables: Tables, found: Found, plain: NDArray[np.bool_]
) -> None:
    """Each record that is plain.

    Args:
        text: the records, a byte behind each.
        ends: (B,) after that byte.
        timestamps_ms: (B,).
        tables: of the spec.
        found: where to write.
        plain: (B,) which were read.
    """
    for row in range(len(ends)):
        begin, end = ends[row - 1] if row else 0, ends[row] - 1
        if end - begin <= tables.limits[0] and _example(text, begin, end, tables, found, row):
            plain[row] = right(found, row, timestamps_ms[row], tables.limits)
