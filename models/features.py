"""Rows become numbers: mapping -> [columns, recent rates, standardisation] -> network.

    B rows   N numeric features   C categorical features   K key combinations   H time scales
    T numbers tracked per label (1; the number of classes if multiclass)   R = K * H * T rate columns

Everything here is numpy: servers use it too.
"""

import difflib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.merging import Fork
from models.rates import RecentRates, Table
from models.scaler import Scaler
from models.scaler import merged as scaler_merged
from models.snapshot import Arrays, prefixed, under
from models.spec import ModelSpec

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Times = NDArray[np.float64]

LARGEST = float(np.finfo(np.float32).max)
FINITE = float(np.finfo(np.float64).max)
CACHED_CODES = 100_000
CACHED_CHARACTERS = 256
"""A longer value is hashed each time: anyone may send them, and remembered they would fill the memory."""
SEPARATOR = "\x1f"
"""Between the categories of a key."""
_LONG_INTEGER = re.compile(r"-?[0-9]{16,300}")


class FeatureError(ValueError):
    """A feature has a name or a type that the model cannot take."""


class Raw(NamedTuple):
    """Features as they came, before anything learned touches them."""

    numeric: Floats
    """(B, N); NaN is missing."""
    categories: Ints
    """(B, C) rows of the embeddings; 0 is missing."""
    keys: Ints
    """(B, K) slots of the recent rates."""

    def take(self, rows: slice | NDArray[np.intp]) -> "Raw":
        return Raw(self.numeric[rows], self.categories[rows], self.keys[rows])


class _Codes(dict[object, int]):
    """value -> 1 + crc32(value) % (size - 1), remembered; None -> 0. Equal in every process."""

    def __init__(self, size: int) -> None:
        super().__init__({None: 0})
        self._size = size

    def __missing__(self, value: object) -> int:
        if len(self) > CACHED_CODES:
            self.clear()
            self[None] = 0
        text = SEPARATOR.join(map(_text, value)) if isinstance(value, tuple) else str(value)
        code = 1 + zlib.crc32(text.encode()) % max(self._size - 1, 1)
        if len(text) <= CACHED_CHARACTERS:
            self[value] = code
        return code


def _text(value: object) -> str:
    return "" if value is None else str(value)


class Coder(dict[tuple[object, ...], tuple[int, ...]]):
    """A row's C categories -> its C rows of the embeddings, then its K slots of the rates; remembered.

    Nothing in it is learned: encoders of one spec may share one, so that a new version does not begin anew.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        at = {name: i for i, name in enumerate(spec.features.categorical)}
        self.codes = [_Codes(c.size) for c in spec.features.categorical.values()]
        self.slots = [
            (tuple(at[n] for n in key), _Codes(spec.features.rates.slots)) for key in spec.features.rates.keys
        ]
        self.width = len(self.codes) + len(self.slots)

    def __missing__(self, row: tuple[object, ...]) -> tuple[int, ...]:
        codes = [code[value] for code, value in zip(self.codes, row, strict=True)]
        slots = [slot[tuple(row[i] for i in key)] if key else 0 for key, slot in self.slots]
        if len(self) > CACHED_CODES:
            self.clear()
        found = (*codes, *slots)
        if sum(len(value) for value in row if isinstance(value, str)) <= CACHED_CHARACTERS:
            self[row] = found
        return found


class FeatureEncoder:
    """Columns, rates and scaling of one model; its state travels in every version.

    Args:
        coder: of the same spec; by default a new one.
    """

    def __init__(self, spec: ModelSpec, coder: Coder | None = None) -> None:
        self._spec = spec
        self.numeric_names = tuple(spec.features.numeric)
        self.categorical_names = tuple(spec.features.categorical)
        self.places = {name: i for i, name in enumerate(self.numeric_names + self.categorical_names)}
        """Where each feature stands in the rows of ``raw``."""
        self._coder = coder or Coder(spec)
        self.rates = RecentRates(
            combinations=len(spec.features.rates.keys),
            slots=spec.features.rates.slots,
            half_lives_s=spec.features.rates.half_lives_s,
            tracked=spec.outputs,
            blank={"binary": 0.5, "multiclass": 1 / spec.outputs, "regression": 0.0}[spec.task],
        )
        self.scaler = Scaler(len(self.numeric_names) + self.rates.columns)

    def raw(self, rows: Sequence[tuple[float | int | str | None, ...]]) -> Raw:
        """Columns of rows whose values stand in spec order: numeric features, then categorical ones."""
        n, b = len(self.numeric_names), len(rows)
        numeric = np.array([r[:n] for r in rows], dtype=np.float64).reshape(b, n)
        return self.raw_columns(
            numeric, list(zip(*rows, strict=True))[n:] if rows else [()] * len(self.categorical_names)
        )

    def raw_columns(self, numeric: Times, columns: Sequence[Sequence[object]]) -> Raw:
        """Columns of values in spec order: numeric features (B, N), NaN is missing, and C of B categories each."""
        b = len(numeric)
        numeric = np.minimum(np.maximum(numeric, -LARGEST), LARGEST)  # np.clip takes twice as long for one row
        coded = [self._coder[row] for row in (zip(*columns, strict=True) if columns else [()] * b)]
        codes = np.array(coded, dtype=np.int64).reshape(b, self._coder.width)
        c = len(self.categorical_names)
        return Raw(numeric.astype(np.float32), codes[:, :c], codes[:, c:])

    def raw_of(self, rows: Sequence[Mapping[str, object]]) -> Raw:
        """Columns of rows given by name, each value checked; for those who ask over a wire.

        Raises:
            FeatureError: a name that the model does not have, or a value of the wrong type.
        """
        checked = []
        for row in rows:
            values: list[object] = [None] * len(self.places)
            for name, value in row.items():
                values[self.place(name)] = value
            checked.append(self.checked(values))
        return self.raw(checked)

    def place(self, name: str) -> int:
        """``places[name]``.

        Raises:
            FeatureError: the model does not have it.
        """
        found = self.places.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.places, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.places)}"
            raise FeatureError(f"the model has no feature {name!r}; {hint}")
        return found

    def checked(self, values: list[object]) -> tuple[float | int | str | None, ...]:
        """One row's values by place, as they came over a wire, made what ``raw`` takes.

        A wire knows one kind of number: 3.0 for a categorical feature is the integer 3. Integers that no double
        holds come as text; for a numeric feature the nearest double will do.

        Raises:
            FeatureError: a value of the wrong type.
        """
        n = len(self.numeric_names)
        for i, value in enumerate(values):
            if value is None:
                continue
            if i < n:
                if type(value) is not float or not -FINITE <= value <= FINITE:
                    values[i] = _number(self.numeric_names[i], value)
            elif type(value) is not str:
                values[i] = _category(self.categorical_names[i - n], value)
        return tuple(values)  # type: ignore[arg-type]  # they have been checked

    @property
    def prior_only(self) -> bool:
        """Whether only one class has been seen so far (no label, for regression): there is nothing to tell apart."""
        total, count = self.rates.seen()
        match self._spec.task:
            case "binary":
                return not 0.0 < total[0] < count
            case "multiclass":
                return int(np.count_nonzero(total)) < 2
            case _:
                return count == 0.0

    def priors(self, rows: int) -> Floats:
        """The labels' all-time mean for each of B rows: shares of the classes, or the mean value; (B, K)."""
        prior = self.rates.prior().astype(np.float32)
        return np.broadcast_to(prior, (rows, len(prior))).copy()

    def named(self, raw: Raw, names: Sequence[str]) -> Floats:
        """Some features as columns (B, W) of numbers, categorical ones as their codes; NaN is missing."""
        columns = np.empty((len(raw.numeric), len(names)), np.float32)
        for w, name in enumerate(names):
            if name in self.numeric_names:
                columns[:, w] = raw.numeric[:, self.numeric_names.index(name)]
            else:
                codes = raw.categories[:, self.categorical_names.index(name)]
                columns[:, w] = np.where(codes > 0, codes, np.nan)
        return columns

    def dense(self, raw: Raw, times_s: Times) -> Floats:
        """Numeric features beside the recent rates at ``times_s`` (B,), unscaled: (B, N + R)."""
        return np.concatenate([raw.numeric, self.rates.read(raw.keys, times_s)], axis=1)

    def dense_of(self, raw: Raw, table: Table) -> Floats:
        """The same with rates from a ``rates.table``."""
        n = len(self.numeric_names)
        dense = np.empty((len(raw.numeric), n + self.rates.columns), np.float32)
        dense[:, :n], dense[:, n:] = raw.numeric, self.rates.look_up(table, raw.keys)
        return dense

    def standardise(self, dense: Floats) -> Floats:
        """What a network eats: clipped z, then missing indicators of the N features: (B, N + R + N)."""
        n, columns = len(self.numeric_names), dense.shape[1]
        x = np.empty((len(dense), columns + n), np.float32)
        x[:, :columns] = self.scaler.scale(dense)
        x[:, columns:] = np.isnan(dense[:, :n])
        return x

    def state(self) -> Arrays:
        return prefixed("scaler", self.scaler.state()) | prefixed("rates", self.rates.state())

    def merged(self, fork: Fork) -> Arrays:
        """One state of what two have learned of the same base."""
        scaler, rates = scaler_merged(fork.under("scaler")), self.rates.merged(fork.under("rates"))
        return prefixed("scaler", scaler) | prefixed("rates", rates)

    def load(self, state: Arrays) -> None:
        self.scaler.load(under("scaler", state))
        self.rates.load(under("rates", state))


def _number(name: str, value: object) -> float:
    if isinstance(value, str) and _LONG_INTEGER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FeatureError(f"feature {name!r} is {value!r}, wanted a number")
    if not -FINITE <= value <= FINITE and value == value:
        raise FeatureError(f"feature {name!r} is {value!r}, wanted a finite number (NaN means missing)")
    return float(value)


def _category(name: str, value: object) -> str | int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return value
    raise FeatureError(f"feature {name!r} is {value!r}, wanted a string or an integer")
