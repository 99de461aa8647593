"""Rows of named values, whatever names come -> [columns and codes] -> what a growing learner eats.

B rows   N columns given out so far   W width of a row, N and some room   C categorical features

Nothing is declared. A feature's first value says what it is: a number gets a column, a string a table of codes.
A number that is missing after it was once there gets one more column, 1 where it is missing (the first
MAX_INDICATORS of them do). Columns are given out in the order in which names appear, within a row in the order
of the names: the same stream takes the same path, and the order of a dict's keys does not matter.

Looking a row up changes nothing: names and strings not learned yet count as missing there.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.features import FINITE, LARGEST, FeatureError
from models.scaler import CLIP, DEVIATIONS_PER_MAD, FEWEST, RESOLUTION, TINIEST, WINSOR, Scaler
from models.snapshot import Arrays, prefixed, under

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Name = str | int
Row = Mapping[Any, object]

MAX_COLUMNS = 4_096
"""Numbers and indicators; what comes beyond is left out, and counted in ``left_out``."""
MAX_INDICATORS = 256
MAX_CATEGORICAL = 256
"""Features whose values are strings; what comes beyond is left out, too."""
FIRST_CODES, MAX_CODES = 8, 4_096
"""Codes of a categorical feature, the missing value's 0 among them: at first, and at most."""
UNSEEN_ROWS = 50_000
"""Values unseen for so many rows are expired before a table grows."""
MAX_TEXT = 256
"""A longer string is told apart by its hash: remembered, such would fill the memory."""

_PLAIN, _INDICATOR = -1, -2
_NAN = math.nan
_log = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """A row that has its columns and codes, not standardised yet."""

    numbers: list[float]
    """Of the columns there were at this row; NaN is missing."""
    codes: list[int]


class _Read(NamedTuple):
    """A row by name, checked: what is known of it, and what is new."""

    numbers: list[float]
    texts: list[str | None]
    fresh: list[tuple[Name, float | str]]


class RowEncoder:
    """Columns, codes and standardisation that grow with the stream."""

    def __init__(self) -> None:
        self.scaler = Scaler(0)
        self.width = 0
        """W"""
        self.rows = 0
        """Taken so far."""
        self.left_out = 0
        """Values not taken, since a limit had been reached before their names first came."""
        self._numeric: dict[Name, int] = {}
        self._tables: dict[Name, _Table] = {}
        self._indicator: Ints = np.zeros(0, np.int64)  # each column's; or _PLAIN, _INDICATOR
        self._unflagged: list[int] = []  # columns that were never missing
        self._first: Doubles = np.zeros((0, FEWEST))  # each column's first values
        self._expired: dict[int, list[int]] = {}

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """(C,)"""
        return tuple(t.size for t in self._tables.values())

    def look(self, rows: Sequence[Row]) -> tuple[Floats, Ints]:
        """Standardised x (B, W) and categories (B, C); changes nothing.

        Raises:
            FeatureError: a name or a value is of a kind that no model takes, or of another one than before.
        """
        tables = tuple(self._tables.values())
        read = [self._read(row) for row in rows]
        found = [Encoded(r.numbers, [t.codes.get(v, 0) for t, v in zip(tables, r.texts, strict=True)]) for r in read]
        return self._standardised(found, learn=False)

    def take(self, row: Row) -> Encoded:
        """Give the row's new names columns and its new strings codes.

        Raises:
            FeatureError: as for ``look``; then nothing has changed.
        """
        numbers, texts, fresh = self._read(row)
        for name, value in sorted(fresh, key=lambda item: (isinstance(item[0], str), item[0])):
            self._allot(name, value, numbers, texts)
        for column in [c for c in self._unflagged if math.isnan(numbers[c])]:
            self._flag(column, numbers)
        self.rows += 1
        codes = []
        for i, (table, text) in enumerate(zip(self._tables.values(), texts, strict=True)):
            code, expired = table.take(text, self.rows)
            codes.append(code)
            if expired:
                self._expired.setdefault(i, []).extend(expired)
        return Encoded(numbers, codes)

    def observe(self, rows: Sequence[Encoded]) -> tuple[Floats, Ints]:
        """Count each row in and standardise it, as if one by one: x (B, W) and categories (B, C).

        Args:
            rows: taken since the last call, at most MAX_CODES / 4 of them: codes that the first of them was given
                have then not been given to another value since.
        """
        return self._standardised(rows, learn=True)

    def expired(self) -> dict[int, list[int]]:
        """Categorical column -> codes that mean nothing, or another value, since this was last asked."""
        found, self._expired = self._expired, {}
        return found

    # --- reading ----------------------------------------------------------------------------------------

    def _read(self, row: Row) -> _Read:
        numbers, texts = [_NAN] * len(self._indicator), dict.fromkeys(self._tables)
        fresh: list[tuple[Name, float | str]] = []
        for name, value in row.items():
            column = self._numeric.get(name)
            if column is not None:
                if type(value) is float and -LARGEST <= value <= LARGEST:  # what most are
                    numbers[column] = value
                else:
                    numbers[column] = _number(name, value)
            elif name in texts:
                texts[name] = _text(name, value)
            elif (new := _new(name, value)) is not None:
                fresh.append((name, new))
        return _Read(numbers, list(texts.values()), fresh)

    def _standardised(self, rows: Sequence[Encoded], *, learn: bool) -> tuple[Floats, Ints]:
        raw = np.full((len(rows), len(self._indicator)), np.nan)
        known = np.empty(len(rows), np.int64)
        categories = np.zeros((len(rows), len(self._tables)), np.int64)
        for i, (numbers, codes) in enumerate(rows):
            known[i] = len(numbers)
            raw[i, : len(numbers)] = numbers
            categories[i, : len(codes)] = codes
        x = np.zeros((len(rows), self.width), np.float32)
        s = self.scaler
        _standardise(raw, known, self._indicator, learn, s.n, s.mean, s.m2, self._first, x)
        return x, categories

    # --- growing ----------------------------------------------------------------------------------------

    def _allot(self, name: Name, value: float | str, numbers: list[float], texts: list[str | None]) -> None:
        columns, tables = len(self._indicator), len(self._tables)
        if columns >= MAX_COLUMNS if isinstance(value, float) else tables >= MAX_CATEGORICAL:
            if not self.left_out:
                kind = "numeric" if isinstance(value, float) else "categorical"
                _log.warning("feature %r is left out: there is no room for another %s one; no more is said", name, kind)
            self.left_out += 1
        elif isinstance(value, float):
            self._numeric[name] = columns
            self._unflagged.append(columns)
            self._add_column(_PLAIN)
            numbers.append(value)
        else:
            self._tables[name] = _Table()
            texts.append(value)

    def _flag(self, column: int, numbers: list[float]) -> None:
        """Missing for the first time: from here on a column says so."""
        self._unflagged.remove(column)
        indicators = len(self._numeric) - len(self._unflagged)
        if len(self._indicator) < MAX_COLUMNS and indicators <= MAX_INDICATORS:
            self._indicator[column] = len(self._indicator)
            self._add_column(_INDICATOR)
            numbers.append(_NAN)

    def _add_column(self, kind: int) -> None:
        self._indicator = np.append(self._indicator, kind)
        self.scaler.grow(len(self._indicator))
        self._first = np.pad(self._first, ((0, 1), (0, 0)))
        if self.rows and len(self._indicator) > self.width:
            self.width += max(1, self.width // 4)  # a learner that grows copies what it has
        self.width = max(self.width, len(self._indicator))

    # --- at rest ----------------------------------------------------------------------------------------

    def state(self) -> tuple[Arrays, str]:
        """All that rows have changed, copied: arrays, and names and strings as JSON."""
        arrays = prefixed("scaler", self.scaler.state())
        arrays |= {"indicator": self._indicator.copy(), "first": self._first.copy()}
        texts = {
            "rows": self.rows,
            "left_out": self.left_out,
            "width": self.width,
            "numeric": list(self._numeric.items()),
            "unflagged": self._unflagged,
            "categorical": [(name, table.state()) for name, table in self._tables.items()],
        }
        return arrays, json.dumps(texts)

    def load(self, arrays: Arrays, text: str) -> None:
        """Back to a state: what follows equals never having stopped."""
        texts = json.loads(text)
        self.scaler.load(under("scaler", arrays))
        self._indicator = np.array(arrays["indicator"], np.int64)
        self._first = np.array(arrays["first"], np.float64)
        self.rows, self.left_out, self.width = texts["rows"], texts["left_out"], texts["width"]
        self._numeric = dict(map(tuple, texts["numeric"]))
        self._unflagged = texts["unflagged"]
        self._tables = {name: _Table.of(table) for name, table in texts["categorical"]}
        self._expired = {}


class _Table:
    """Strings -> codes from 1; 0 is missing. A code once given stays, until its value was not seen for long.

    A full table first lets go what UNSEEN_ROWS rows did not show; if that is nothing, it doubles; at MAX_CODES it
    lets go the quarter that it has not seen for longest.
    """

    def __init__(self) -> None:
        self.size = FIRST_CODES
        self.codes: dict[str | None, int] = {None: 0}
        self._seen = [0] * FIRST_CODES  # row at which a code last came
        self._free = list(range(FIRST_CODES - 1, 0, -1))

    def take(self, text: str | None, row: int) -> tuple[int, list[int]]:
        """Its code, and those let go to make room for it."""
        code, expired = self.codes.get(text), list[int]()
        if code is None:
            if not self._free:
                expired = self._make_room(row)
            code = self.codes[text] = self._free.pop()
        self._seen[code] = row
        return code, expired

    def _make_room(self, row: int) -> list[int]:
        oldest = sorted(range(1, self.size), key=self._seen.__getitem__)
        expired = [c for c in oldest if self._seen[c] < row - UNSEEN_ROWS]
        if not expired and self.size < MAX_CODES:
            self._free = list(range(2 * self.size - 1, self.size - 1, -1))
            self._seen += [0] * self.size
            self.size *= 2
            return []
        expired = expired or oldest[: self.size // 4]
        gone = set(expired)
        self.codes = {t: c for t, c in self.codes.items() if c not in gone}
        self._free = expired[::-1]
        return expired

    def state(self) -> dict[str, object]:
        codes = [(t, c, self._seen[c]) for t, c in self.codes.items() if t is not None]
        return {"size": self.size, "codes": codes, "free": self._free}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "_Table":
        table = cls()
        table.size, table._free = state["size"], state["free"]
        table._seen = [0] * table.size
        for text, code, seen in state["codes"]:
            table.codes[text], table._seen[code] = code, seen
        return table


# One value ----------------------------------------------------------------------------------------


def _new(name: object, value: object) -> float | str | None:
    """The first value of a feature; None if it is missing, and says nothing of what the feature is."""
    if not isinstance(name, str | int):
        raise FeatureError(f"feature name {name!r} is a {type(name).__name__}, wanted a string or an integer")
    if isinstance(value, str):
        return _text(name, value)
    number = _number(name, value)
    return None if math.isnan(number) else number


def _number(name: object, value: object) -> float:
    """NaN is missing; a bool is 0 or 1."""
    if value is None:
        return _NAN
    if isinstance(value, str):
        raise FeatureError(f"feature {name!r} is {value!r}, a string; it has been a number so far")
    if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
        raise FeatureError(f"feature {name!r} is {value!r}, a {type(value).__name__}; wanted a number or a string")
    number = float(value) if not isinstance(value, int) or abs(value) <= FINITE else math.inf
    if math.isinf(number):
        raise FeatureError(f"feature {name!r} is {value!r}, wanted a finite number (NaN means missing)")
    return min(max(number, -LARGEST), LARGEST) if number == number else _NAN


def _text(name: object, value: object) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        raise FeatureError(f"feature {name!r} is {value!r}, a {type(value).__name__}; it has been a string so far")
    if len(value) > MAX_TEXT:
        return blake2b(value.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return str(value)


# All values of some rows --------------------------------------------------------------------------


@compiled
def _standardise(
    raw: Doubles,
    known: Ints,
    indicator: Ints,
    learn: bool,
    n: Doubles,
    mean: Doubles,
    m2: Doubles,
    first: Doubles,
    x: Floats,
) -> None:
    """Fill x (B, W) from raw (B, N), of which row b knew the first known[b] columns; count it in if ``learn``."""
    for b in range(raw.shape[0]):
        for c in range(known[b]):
            if indicator[c] == _INDICATOR:
                continue
            value = raw[b, c]
            if np.isnan(value):
                if indicator[c] != _PLAIN and indicator[c] < known[b]:
                    x[b, indicator[c]] = 1.0
                continue
            if learn:
                _count(value, c, n, mean, m2, first)
            z = (value - mean[c]) / _deviation(c, n, mean, m2)
            x[b, c] = min(max(z, -CLIP), CLIP)


@compiled
def _deviation(c: int, n: Doubles, mean: Doubles, m2: Doubles) -> float:
    """As Scaler.std has it."""
    found: float = math.sqrt(m2[c] / max(n[c], 1.0))
    return found if found > max(RESOLUTION * abs(mean[c]), TINIEST) else 1.0


@compiled
def _count(value: float, c: int, n: Doubles, mean: Doubles, m2: Doubles, first: Doubles) -> None:
    """Count one value in, cut at WINSOR deviations.

    Before the first FEWEST there is nothing to count deviations in. Once they are there, all are cut anew, in
    deviations from their median; so an absurd value among them is forgotten too.
    """
    at = int(n[c])
    if at < FEWEST:
        first[c, at] = value
        if at == FEWEST - 1:
            middle = np.median(first[c])
            reach = WINSOR * DEVIATIONS_PER_MAD * np.median(np.abs(first[c] - middle))
            n[c], mean[c], m2[c] = 0.0, 0.0, 0.0
            for v in first[c]:
                _add(min(max(v, middle - reach), middle + reach) if reach > 0.0 else v, c, n, mean, m2)
            return
    elif m2[c] > 0.0:
        reach = WINSOR * _deviation(c, n, mean, m2)
        value = min(max(value, mean[c] - reach), mean[c] + reach)
    _add(value, c, n, mean, m2)


@compiled
def _add(value: float, c: int, n: Doubles, mean: Doubles, m2: Doubles) -> None:
    n[c] += 1.0
    shift = value - mean[c]
    mean[c] += shift / n[c]
    m2[c] += shift * (value - mean[c])
