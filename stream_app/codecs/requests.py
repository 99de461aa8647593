"""Plain Predict requests become arrays without an object per value, compiled: bytes -> [scan] -> dense, categories.

Read is what protobuf's own writers make of rows, or columns, of a model's features. Whatever is not quite so (a field
twice or unknown, text that is not ASCII, a number that is not finite, an error of any kind) is left to protobuf's
parser and ``serving.scoring``, which are the reference. Wire format: https://protobuf.dev/programming-guides/encoding/

    B rows   N numeric features   C categorical features   K key combinations   R rate columns, R / K of each key
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.features import LARGEST, SEPARATOR, Raw
from models.hashes import TABLE
from models.rates import Table
from models.spec import ModelSpec
from stream_app.codecs.names import Names, find_next, names
from stream_app.codecs.numbers import Bytes, Words

MOST_ROWS = 256
"""More in one request are not plain: other calls would wait for them."""
_SCRATCH_BYTES = 1 << 17
_BEGUN = np.uint32(0xFFFFFFFF)
"""The CRC-32 of no bytes, as it goes on."""
_FURTHEST = 2.0**53
"""Above, doubles stand for more integers than one."""

Ints = NDArray[np.int64]


class Shape(NamedTuple):
    """What the scanner knows of a spec."""

    features: Names
    numeric: int
    """N; the features from N on are categorical."""
    rows: Ints
    """(C,) rows of each embedding, but that of what is missing."""
    key_starts: Ints
    """(K + 1,) where in ``key_columns`` each combination begins."""
    key_columns: Ints
    slots: int
    """Of the recent rates, per key combination."""
    separator: int
    crc: NDArray[np.uint32]
    word: Words
    """(1,) room for the bits of a number."""
    digits: Bytes
    """(20,) room for an integer in decimal."""


class Read(NamedTuple):
    """Where the scanner writes, MOST_ROWS each."""

    numeric: NDArray[np.float32]
    """(B, N) within what float32 holds; NaN is missing."""
    categories: Ints
    """(B, C)"""
    keys: Ints
    """(B, K)"""
    times_s: NDArray[np.float64]
    """(B,); NaN: the row does not say."""
    spans: NDArray[np.int32]
    """(B, C, 2) from and to in ``scratch`` of each category's text; -1 is missing."""
    scratch: Bytes
    texts: NDArray[np.int32]
    """(MOST_ROWS, 2) the same of a column's different texts."""
    seen: Ints
    """(N + C,) the last row that had each feature."""
    columns: NDArray[np.bool_]
    """(1,) whether what was read last were columns."""


class RequestScanner:
    """Knows one model's requests, and what ``scan`` has read of one; of one thread: the next overwrites it."""

    def __init__(self, spec: ModelSpec) -> None:
        categorical = list(spec.features.categorical)
        keys = [[categorical.index(name) for name in key] for key in spec.features.rates.keys]
        n, c, k = len(spec.features.numeric), len(categorical), len(keys)
        self.shape = Shape(
            features=names([*spec.features.numeric, *categorical]),
            numeric=n,
            rows=np.array([max(f.size - 1, 1) for f in spec.features.categorical.values()], np.int64),
            key_starts=np.cumsum([0, *map(len, keys)]).astype(np.int64),
            key_columns=np.array([column for key in keys for column in key], np.int64),
            slots=spec.features.rates.slots,
            separator=ord(SEPARATOR),
            crc=TABLE,
            word=np.zeros(1, np.uint64),
            digits=np.zeros(20, np.uint8),
        )
        self.read = Read(
            numeric=np.empty((MOST_ROWS, n), np.float32),
            categories=np.zeros((MOST_ROWS, c), np.int64),
            keys=np.zeros((MOST_ROWS, k), np.int64),
            times_s=np.empty(MOST_ROWS),
            spans=np.empty((MOST_ROWS, c, 2), np.int32),
            scratch=np.empty(_SCRATCH_BYTES, np.uint8),
            texts=np.empty((MOST_ROWS, 2), np.int32),
            seen=np.empty(n + c, np.int64),
            columns=np.zeros(1, np.bool_),
        )

    @property
    def as_columns(self) -> bool:
        """Whether what was scanned last were columns."""
        return bool(self.read.columns[0])

    def dense(self, rows: int, table: Table) -> NDArray[np.float32]:
        """Numeric features beside the recent rates that stand in a ``rates.table``: (B, N + R)."""
        keys = self.read.keys.shape[1]
        made = np.empty((rows, self.shape.numeric + keys * table.shape[1]), np.float32)
        fill(made, self.read, self.shape, table)
        return made

    def categories(self, rows: int) -> Ints:
        """(B, C) rows of the embeddings; as long as no other request is scanned."""
        return self.read.categories[:rows]

    def timeless(self, rows: int) -> bool:
        """Whether no row says when."""
        return bool(np.isnan(self.read.times_s[:rows]).all())

    def raw(self, rows: int) -> tuple[Raw, NDArray[np.float64]]:
        """As ``FeatureEncoder.raw`` makes it, and the rows' times (B,); copies."""
        read = self.read
        raw = Raw(read.numeric[:rows].copy(), read.categories[:rows].copy(), read.keys[:rows].copy())
        return raw, read.times_s[:rows].copy()


@compiled_exactly
def _length(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """The length that stands at ``at``: where what it counts begins, and ends; -1 if that is beyond ``end``."""
    length, shift = int(text[at] & 127), 0
    while text[at] > 127:
        shift += 7
        at += 1
        if shift > 21 or at >= end:
            return -1, -1
        length |= int(text[at] & 127) << shift
    at += 1
    return (at, at + length) if at + length <= end else (-1, -1)


@compiled_exactly
def _double(text: Bytes, at: int, shape: Shape) -> float:
    bits = np.uint64(0)
    for i in range(8):
        bits |= np.uint64(text[at + i]) << np.uint64(8 * i)
    shape.word[0] = bits
    return float(shape.word.view(np.float64)[0])


@compiled_exactly
def _copied(text: Bytes, at: int, end: int, scratch: Bytes, used: int) -> int:
    """Where the copy of a text ends; -1 if it is not ASCII, or there is no room."""
    if used + end - at > len(scratch):
        return -1
    high = text[at] & 0
    for i in range(at, end):
        high |= text[i]
        scratch[used + i - at] = text[i]
    return used + end - at if high < 128 else -1


@compiled_exactly
def _decimal(value: float, shape: Shape, scratch: Bytes, used: int) -> int:
    """Where an integer ends, written as Python does; -1 if it is none, or there is no room."""
    if not abs(value) < _FURTHEST or value != np.floor(value) or used + 20 > len(scratch):
        return -1
    left, length = abs(np.int64(value)), 0
    while True:
        shape.digits[length] = 48 + left % 10
        left //= 10
        length += 1
        if left == 0:
            break
    if value < 0:
        scratch[used] = 45
        used += 1
    for i in range(length):
        scratch[used + i] = shape.digits[length - 1 - i]
    return used + length


@compiled_exactly
def _feature(
    text: Bytes, at: int, end: int, shape: Shape, read: Read, row: int, used: int, last: int
) -> tuple[int, int]:
    """One entry of a row's map: its index, -1 if it is not plain; and how much of ``scratch`` is used then."""
    if text[at] != 0x0A or at >= end:
        return -1, 0
    begin, at = _length(text, at + 1, end)
    if begin < 0:
        return -1, 0
    name = find_next(text, begin, at - begin, shape.features, last)
    if name < 0 or read.seen[name] == row:
        return -1, 0
    read.seen[name] = row
    if at >= end or text[at] != 0x12:
        return -1, 0
    at, stop = _length(text, at + 1, end)
    if at < 0 or stop != end:
        return -1, 0
    if at == end:
        return name, used
    n = shape.numeric
    if text[at] == 0x09 and at + 9 == end:
        value = _double(text, at + 1, shape)
        if name < n:
            if np.isinf(value):
                return -1, 0
            read.numeric[row, name] = np.float32(min(max(value, -LARGEST), LARGEST)) if value == value else np.nan
            return name, used
        stop = _decimal(value, shape, read.scratch, used)
    elif text[at] == 0x12 and name >= n:
        begin, stop = _length(text, at + 1, end)
        if begin < 0 or stop != end:
            return -1, 0
        stop = _copied(text, begin, end, read.scratch, used)
    else:
        return -1, 0
    if stop < 0:
        return -1, 0
    read.spans[row, name - n, 0], read.spans[row, name - n, 1] = used, stop
    return name, stop


@compiled_exactly
def _row(text: Bytes, at: int, end: int, shape: Shape, read: Read, row: int, used: int) -> int:
    """How much of ``scratch`` is used after a row; -1 if it is not plain."""
    read.numeric[row] = np.nan
    read.spans[row] = -1
    read.times_s[row] = np.nan
    last = -1
    while at < end:
        if text[at] == 0x0A:
            begin, at = _length(text, at + 1, end)
            if begin < 0:
                return -1
            last, used = _feature(text, begin, at, shape, read, row, used, last)
            if last < 0:
                return -1
        elif text[at] == 0x11 and at + 9 == end:
            read.times_s[row] = _double(text, at + 1, shape)
            if not np.isfinite(read.times_s[row]):
                return -1
            at += 9
        else:
            return -1
    return used


@compiled_exactly
def _numbers(text: Bytes, at: int, shape: Shape, read: Read, rows: int, name: int) -> bool:
    """Whether a column of numbers is finite, or missing."""
    for row in range(rows):
        value = _double(text, at + 8 * row, shape)
        if np.isinf(value):
            return False
        read.numeric[row, name] = np.float32(min(max(value, -LARGEST), LARGEST)) if value == value else np.nan
    return True


@compiled_exactly
def _texts(text: Bytes, at: int, end: int, read: Read, rows: int, c: int, used: int) -> int:
    """A column of texts, with ``at`` or one per row: how much of ``scratch`` is used then; -1 if it is not plain."""
    count = 0
    while at < end and text[at] == 0x1A:
        begin, at = _length(text, at + 1, end)
        if begin < 0 or count >= MOST_ROWS:
            return -1
        stop = _copied(text, begin, at, read.scratch, used)
        if stop < 0:
            return -1
        read.texts[count, 0], read.texts[count, 1] = used, stop
        used, count = stop, count + 1
    if at == end:
        if count != rows:
            return -1
        for row in range(rows):
            read.spans[row, c, 0], read.spans[row, c, 1] = read.texts[row, 0], read.texts[row, 1]
        return used
    if text[at] != 0x22:
        return -1
    at, stop = _length(text, at + 1, end)
    if at < 0 or stop != end:
        return -1
    for row in range(rows):
        if at >= end:
            return -1
        which = int(text[at] & 127)
        if text[at] > 127:
            at += 1
            if at >= end or text[at] > 127:
                return -1
            which |= int(text[at]) << 7
        at += 1
        if which > count:
            return -1
        if which:
            read.spans[row, c, 0], read.spans[row, c, 1] = read.texts[which - 1, 0], read.texts[which - 1, 1]
    return used if at == end else -1


@compiled_exactly
def _column(text: Bytes, at: int, end: int, shape: Shape, read: Read, rows: int, used: int) -> int:
    """How much of ``scratch`` is used after a column; -1 if it is not plain."""
    if text[at] != 0x0A or at >= end:
        return -1
    begin, at = _length(text, at + 1, end)
    if begin < 0:
        return -1
    name = find_next(text, begin, at - begin, shape.features, -1)
    if name < 0 or read.seen[name] == 0:
        return -1
    read.seen[name] = 0
    if name >= shape.numeric:
        return _texts(text, at, end, read, rows, name - shape.numeric, used)
    if at >= end or text[at] != 0x12:
        return -1
    at, stop = _length(text, at + 1, end)
    if at < 0 or stop != end or end - at != 8 * rows:
        return -1
    return used if _numbers(text, at, shape, read, rows, name) else -1


@compiled_exactly
def _columns(text: Bytes, at: int, end: int, shape: Shape, read: Read) -> int:
    """How many rows columns have; 0 if they are not plain."""
    rows, used = 0, 0
    if at < end and text[at] == 0x08:
        rows = int(text[at + 1] & 127)
        if text[at + 1] > 127:
            at += 1
            if text[at + 1] > 127:
                return 0
            rows |= int(text[at + 1]) << 7
        at += 2
    if at > end or not 0 < rows <= MOST_ROWS:
        return 0
    read.numeric[:rows] = np.nan
    read.spans[:rows] = -1
    read.times_s[:rows] = np.nan
    while at < end:
        if text[at] != 0x12:
            return 0
        begin, at = _length(text, at + 1, end)
        if begin < 0:
            return 0
        used = _column(text, begin, at, shape, read, rows, used)
        if used < 0:
            return 0
    return rows


@compiled_exactly
def _crc(text: Bytes, at: int, end: int, crc: np.uint32, table: NDArray[np.uint32]) -> np.uint32:
    for i in range(at, end):
        crc = table[(crc ^ text[i]) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc


@compiled_exactly
def _ended(crc: np.uint32) -> int:
    return int(np.int64(crc ^ _BEGUN) & 0xFFFFFFFF)


@compiled_exactly
def _coded(rows: int, shape: Shape, read: Read) -> None:
    """Categories and keys, as ``models.features.Coder`` has them."""
    for row in range(rows):
        for c in range(len(shape.rows)):
            begin, end = read.spans[row, c, 0], read.spans[row, c, 1]
            code = 0
            if begin >= 0:
                code = 1 + _ended(_crc(read.scratch, begin, end, _BEGUN, shape.crc)) % shape.rows[c]
            read.categories[row, c] = code
        for k in range(len(shape.key_starts) - 1):
            first, last = shape.key_starts[k], shape.key_starts[k + 1]
            crc = _BEGUN
            for j in range(first, last):
                if j > first:
                    crc = shape.crc[(crc ^ np.uint32(shape.separator)) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
                c = shape.key_columns[j]
                crc = _crc(read.scratch, max(read.spans[row, c, 0], 0), max(read.spans[row, c, 1], 0), crc, shape.crc)
            read.keys[row, k] = 1 + _ended(crc) % max(shape.slots - 1, 1) if last > first else 0


@compiled_exactly
def fill(made: NDArray[np.float32], read: Read, shape: Shape, table: Table) -> None:
    """Dense columns (B, N + R)."""
    n, width = shape.numeric, table.shape[1]
    for row in range(len(made)):
        for i in range(n):
            made[row, i] = read.numeric[row, i]
        for k in range(read.keys.shape[1] if width else 0):
            at = (k + 1) * shape.slots + read.keys[row, k]
            for j in range(width):
                made[row, n + k * width + j] = table[at, j]


@compiled_exactly
def scan(text: Bytes, end: int, shape: Shape, read: Read) -> int:
    """How many rows a request has, by name or as columns; 0 if it is not plain.

    Args:
        text: the request, and padding.
        end: of the request.
        shape: of the spec.
        read: where to write.
    """
    read.seen[:] = -1
    at, rows, used, columns = 0, 0, 0, False
    while at < end:
        tag = text[at]
        if tag == 0x0A and not columns and rows < MOST_ROWS:
            begin, at = _length(text, at + 1, end)
            if begin < 0:
                return 0
            used = _row(text, begin, at, shape, read, rows, used)
            if used < 0:
                return 0
            rows += 1
        elif tag == 0x1A and rows == 0:
            begin, at = _length(text, at + 1, end)
            if begin < 0:
                return 0
            rows = _columns(text, begin, at, shape, read)
            columns = True
            if rows == 0:
                return 0
        else:
            return 0
    _coded(rows, shape, read)
    read.columns[0] = columns
    return rows
