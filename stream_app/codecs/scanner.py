"""Plain JSON events become arrays without an object per value, compiled: records -> [scan] -> columns.

What producers write, a row of plain texts and numbers, is read here. Whatever is not quite so (an escape, a nested
value nobody declared, a name twice, a number of 20 digits, an error of any kind) is left to msgspec, which is the
reference: every row read here is exactly what it would have made of it. A test holds them together.

    B records   F names in an object   N numeric features   C categorical features
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.spec import ModelSpec
from stream_app.codecs.names import Names, find
from stream_app.codecs.numbers import Bytes, number
from stream_app.codecs.tables import Found, Places, Tables, found_in, right, tables_of
from stream_app.codecs.texts import Texts
from stream_app.columns import Columns

_ID, _TIME, _FEATURES, _LABEL, _LABEL_TIME, _WEIGHT = range(6)
_MOST_DIGITS = 18
"""Of an integer category or class: more may not fit into 64 bits."""


class Scanner:
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
        plain, ascii_only, utf8 = np.zeros(len(texts.ends), np.bool_), text.isascii(), True
        if not ascii_only:
            try:
                text.decode()
            except UnicodeDecodeError:
                utf8 = False
        found = found_in(into)
        _scan(np.frombuffer(text, np.uint8), texts.ends, texts.timestamps_ms, utf8, self._tables, found, plain)
        into.ids.set(slice(None), found.whole_ids(text, plain))
        return plain


@compiled_exactly
def _space(text: Bytes, at: int) -> int:
    """Where the next token begins."""
    while text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9:
        at += 1
    return at


@compiled_exactly
def _end(text: Bytes, at: int, utf8: bool) -> int:
    """Where the plain string whose quote is before ``at`` has its closing quote, or -1."""
    while text[at] != 34:
        if text[at] < 32 or text[at] == 92 or (text[at] > 127 and not utf8):
            return -1
        at += 1
    return at


@compiled_exactly
def _string(text: Bytes, at: int, utf8: bool, crc: NDArray[np.uint32]) -> tuple[int, np.uint32]:
    """The plain string whose quote is before ``at``: where its closing quote is, or -1, and its CRC-32."""
    code = np.uint32(0xFFFFFFFF)
    while text[at] != 34:
        byte = text[at]
        if byte < 32 or byte == 92 or (byte > 127 and not utf8):
            return -1, code
        code = crc[(code ^ byte) & np.uint32(0xFF)] ^ (code >> np.uint32(8))
        at += 1
    return at, ~code


@compiled_exactly
def _integer(text: Bytes, at: int, crc: NDArray[np.uint32]) -> tuple[int, np.uint32]:
    """The integer that begins at ``at``, as Python would write it: where it ends, or -1, and its CRC-32."""
    code = np.uint32(0xFFFFFFFF)
    begin = at
    if text[at] == 45:
        code = crc[(code ^ text[at]) & np.uint32(0xFF)] ^ (code >> np.uint32(8))
        at += 1
    first = at
    while 48 <= text[at] <= 57:
        code = crc[(code ^ text[at]) & np.uint32(0xFF)] ^ (code >> np.uint32(8))
        at += 1
    follows = text[at]
    odd = follows == 46 or follows == 101 or follows == 69 or at == first or at - first > _MOST_DIGITS
    if odd or (text[first] == 48 and at - begin > 1):
        return -1, code
    return at, ~code


@compiled_exactly
def _null(text: Bytes, at: int) -> bool:
    return bool(text[at] == 110 and text[at + 1] == 117 and text[at + 2] == 108 and text[at + 3] == 108)


@compiled_exactly
def _key(text: Bytes, at: int, utf8: bool, known: Names, last: int) -> tuple[int, int]:
    """The name whose quote is before ``at``, and the colon: where its value begins, or -1; its index, -1 if unknown."""
    guess = known.likely[last]
    begin = known.starts[max(guess, 0)]
    length = known.starts[guess + 1] - begin
    i = 0
    while i < length and text[at + i] == known.text[begin + i]:
        i += 1
    if guess >= 0 and i == length and text[at + i] == 34:
        name, end = guess, at + i
    else:
        end = _end(text, at, utf8)
        if end < 0:
            return -1, -1
        name = find(text, at, end - at, known)
        if name >= 0:
            known.likely[last] = name
    at = _space(text, end + 1)
    if text[at] != 58:
        return -1, -1
    return _space(text, at + 1), name


@compiled_exactly
def _pass(text: Bytes, at: int, utf8: bool, crc: NDArray[np.uint32]) -> int:
    """Where a plain value that nobody wants ends, or -1."""
    if text[at] == 34:
        at = _end(text, at + 1, utf8)
        return at + 1 if at >= 0 else -1
    if _null(text, at):
        return at + 4
    at, _ = _integer(text, at, crc)
    return at


@compiled_exactly
def _float(text: Bytes, at: int, tables: Tables) -> tuple[int, float]:
    """A number or null, NaN: where it ends, or -1."""
    if _null(text, at):
        return at + 4, np.nan
    return number(text, at, tables.fives, tables.tens, tables.word)


@compiled_exactly
def _category(text: Bytes, at: int, utf8: bool, crc: NDArray[np.uint32]) -> tuple[int, np.uint32, int]:
    """A string, an integer or null: where it ends, or -1; CRC-32 and length of its text."""
    if text[at] == 34:
        end, code = _string(text, at + 1, utf8, crc)
        return (end + 1 if end >= 0 else -1), code, end - at - 1
    if _null(text, at):
        return at + 4, np.uint32(0), -1
    end, code = _integer(text, at, crc)
    return end, code, end - at


@compiled_exactly
def _class(text: Bytes, at: int, utf8: bool, tables: Tables) -> tuple[int, float]:
    """One of the classes or null, NaN: where it ends, or -1, and its index."""
    if text[at] == 34:
        end = _end(text, at + 1, utf8)
        found = find(text, at + 1, end - at - 1, tables.texts) if end >= 0 else -1
        return (end + 1, float(tables.text_class[found])) if found >= 0 else (-1, np.nan)
    if _null(text, at):
        return at + 4, np.nan
    end, _ = _integer(text, at, tables.crc)
    found = find(text, at, end - at, tables.integers) if end >= 0 else -1
    return (end, float(tables.integer_class[found])) if found >= 0 else (-1, np.nan)


@compiled_exactly
def _features(text: Bytes, at: int, utf8: bool, tables: Tables, found: Found, row: int) -> int:
    """The object whose brace is before ``at``: where it ends, or -1."""
    n, last, largest = tables.numeric, -1, tables.limits[5]
    at = _space(text, at)
    if text[at] == 125:
        return at + 1
    while text[at] == 34:
        at, name = _key(text, at + 1, utf8, tables.features, last)
        if at < 0:
            return -1
        if name < 0:
            at = _pass(text, at, utf8, tables.crc)
        else:
            if found.seen[name] == row:
                return -1
            found.seen[name], last = row, name
            if name < n:
                at, value = _float(text, at, tables)
                found.numeric[row, name] = np.float32(min(max(value, -largest), largest))
            else:
                at, found.hashes[row, name - n], found.lengths[row, name - n] = _category(text, at, utf8, tables.crc)
        if at < 0:
            return -1
        at = _space(text, at)
        if text[at] != 44:
            return at + 1 if text[at] == 125 else -1
        at = _space(text, at + 1)
    return -1


@compiled_exactly
def _event(text: Bytes, at: int, utf8: bool, tables: Tables, found: Found, row: int) -> int:
    """The object whose brace is before ``at``: where it ends, or -1."""
    seen, last = 0, -1
    while True:
        at = _space(text, at)
        if text[at] != 34:
            return -1
        at, name = _key(text, at + 1, utf8, tables.event, last)
        if at < 0 or (name >= 0 and seen >> name & 1):
            return -1
        if name >= 0:
            seen |= 1 << name
            last = name
        if name == _ID:
            begin = at + 1
            at = _end(text, begin, utf8) if text[at] == 34 else -1
            found.ids[row, 0], found.ids[row, 1] = begin, at
            at += at >= 0
        elif name == _TIME:
            at, found.time_s[row] = _float(text, at, tables)
        elif name == _FEATURES:
            if text[at] == 123:
                found.has_features[row] = True
                at = _features(text, at + 1, utf8, tables, found, row)
            else:
                at = at + 4 if _null(text, at) else -1
        elif name == _LABEL:
            if tables.regression:
                at, found.target[row] = _float(text, at, tables)
            else:
                at, found.target[row] = _class(text, at, utf8, tables)
        elif name == _LABEL_TIME:
            at, found.label_time_s[row] = _float(text, at, tables)
        elif name == _WEIGHT:
            at, found.weight[row] = _float(text, at, tables)
        else:
            at = _pass(text, at, utf8, tables.crc)
        if at < 0:
            return -1
        at = _space(text, at)
        if text[at] != 44:
            return at + 1 if text[at] == 125 and seen & 1 else -1
        at += 1


@compiled_exactly
def _scan(
    text: Bytes, ends: Places, timestamps_ms: Places, utf8: bool, tables: Tables, found: Found, plain: NDArray[np.bool_]
) -> None:
    """Each record that is plain.

    Args:
        text: the records, each followed by a line break; no token goes across one.
        ends: (B,) after each record's line break.
        timestamps_ms: (B,).
        utf8: whether all of ``text`` is UTF-8; else what is not ASCII is not plain.
        tables: of the spec.
        found: where to write.
        plain: (B,) which were read.
    """
    for row in range(len(ends)):
        begin, end = ends[row - 1] if row else 0, ends[row] - 1
        at = _space(text, begin)
        if end - begin > tables.limits[0] or text[at] != 123:
            continue
        at = _event(text, at + 1, utf8, tables, found, row)
        if 0 <= at <= end and _space(text, at) >= end:
            plain[row] = right(found, row, timestamps_ms[row], tables.limits)
