"""A batch of examples becomes columns, in arrays throughout: unpack -> [read] -> columns."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.features import LARGEST
from models.hashes import text_hash
from models.spec import ModelSpec
from stream_app.codecs.batch import MOST_CELLS, Batch, Coded, row_json
from stream_app.codecs.rules import Rules
from stream_app.columns import BadRow, Columns, empty
from stream_app.errors import DecodeError
from stream_app.ids import Ids, ids_of

Floating = NDArray[np.floating[Any]]
SHORT = 64
"""Characters of a text whose hash is remembered."""


class BatchReader:
    """Knows one model's features and label.

    Args:
        spec: the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._numeric, self._categorical = list(spec.features.numeric), list(spec.features.categorical)
        self._rules = Rules(spec)
        self._regression = not spec.label.classes

    def read(self, batch: Batch, offset: int, timestamp_ms: int) -> tuple[Columns, list[BadRow]]:
        """Its rows, and those that are no examples.

        Args:
            batch: of one record.
            offset: of that record.
            timestamp_ms: of Kafka.

        Raises:
            DecodeError: so many rows of so many features that they would take too much memory.
        """
        with np.errstate(invalid="ignore"):  # NaNs of strange make
            return self._read(batch, offset, timestamp_ms)

    def _read(self, batch: Batch, offset: int, timestamp_ms: int) -> tuple[Columns, list[BadRow]]:
        b = len(batch.ids)
        if b * (len(self._numeric) + len(self._categorical)) > MOST_CELLS:
            most = MOST_CELLS // (len(self._numeric) + len(self._categorical))
            raise DecodeError(f"'rows' is {b}, wanted at most {most}, so many features has the model")
        columns = empty(b, numeric=len(self._numeric), categorical=len(self._categorical))
        columns = columns._replace(ids=batch.ids if isinstance(batch.ids, Ids) else ids_of(batch.ids))
        columns.offsets[:] = offset
        columns.rows[:] = np.arange(b)
        faults = self._fill_features(columns, batch)
        labelled = self._fill_label(columns, batch)
        featured = np.empty(b, np.bool_)
        _say_featured(columns.numeric, columns.lengths, featured)
        faults |= self._rules.faults(
            columns,
            np.full(b, timestamp_ms, np.int64),
            featured=featured,
            labelled=labelled,
            label_at=batch.label_at,
        )
        if not faults:
            return columns, []
        good = np.ones(b, np.bool_)
        good[list(faults)] = False
        return columns.take(good), [BadRow(offset, i, faults[i], row_json(batch, i)) for i in sorted(faults)]

    def _fill_features(self, columns: Columns, batch: Batch) -> dict[int, str]:
        """Returns what is wrong, by row."""
        faults: dict[int, str] = {}

        def refuse(rows: NDArray[np.bool_], name: str, column: Coded | Floating, wanted: str) -> None:
            for i in np.flatnonzero(rows).tolist():
                faults[i] = f"event {batch.ids[i][:80]!r}: feature {name!r} is {_at(column, i)!r}, wanted {wanted}"

        for n, name in enumerate(self._numeric):
            values, coded = batch.numeric.get(name), batch.categorical.get(name)
            if coded is not None:
                integers = _numbers(coded)
                refuse(_texts(coded), name, coded, "a number")
                _put_numbers(integers, columns.numeric, n, LARGEST)
            if values is not None:
                numbers = values if coded is None else np.where(np.isnan(values), integers, values)
                if _put_numbers(numbers, columns.numeric, n, LARGEST):
                    refuse(np.isinf(values), name, values, "a finite number (NaN means missing)")
        for c, name in enumerate(self._categorical):
            if (coded := batch.categorical.get(name)) is not None:
                known = np.array([*map(_hash, coded.values), (0, -1)], np.int64)  # (values + 1, 2)
                _put_hashes(coded.codes, known, columns.hashes, columns.lengths, c)
            if (values := batch.numeric.get(name)) is not None:
                refuse(~np.isnan(values), name, values, "a text or an integer")
        for name in ("time_s", "label_time_s", "weight"):
            if (values := getattr(batch, name)) is not None:
                getattr(columns, name)[:] = values
        return faults

    def _fill_label(self, columns: Columns, batch: Batch) -> NDArray[np.bool_]:
        """Returns which rows have one. What is none of the classes, or no number, stays NaN."""
        labelled = np.zeros(len(batch.ids), np.bool_)
        if batch.values is not None:
            labelled |= ~np.isnan(batch.values)
            if self._regression:
                columns.target[:] = batch.values
        if batch.classes is not None:
            given = batch.classes.codes >= 0
            labelled |= given
            targets = np.array([*map(self._rules.target, batch.classes.values), np.nan])
            columns.target[given] = targets[batch.classes.codes[given]]
        return labelled


@lru_cache(1 << 14)
def _short_hash(value: str | int) -> tuple[int, int]:
    return text_hash(value)


def _hash(value: str | int) -> tuple[int, int]:
    """``text_hash``; the same few come in record after record."""
    return text_hash(value) if isinstance(value, str) and len(value) > SHORT else _short_hash(value)


@compiled_exactly
def _put_numbers(values: Floating, to: NDArray[np.float32], column: int, largest: float) -> bool:
    """Write values (B,) into a column of (B, N), none beyond the largest; whether one is infinite."""
    infinite = False
    for b in range(len(values)):
        value = values[b]
        infinite |= abs(value) == np.inf
        to[b, column] = min(max(value, -largest), largest) if value == value else np.nan
    return infinite


@compiled_exactly
def _put_hashes(
    codes: NDArray[np.int32],
    known: NDArray[np.int64],
    hashes: NDArray[np.uint32],
    lengths: NDArray[np.int32],
    column: int,
) -> None:
    """Write what is known of each value, (values + 1, 2), into a column of (B, C); the last is of a missing one."""
    for b in range(len(codes)):
        code = codes[b] if codes[b] >= 0 else len(known) - 1
        hashes[b, column], lengths[b, column] = known[code, 0], known[code, 1]


@compiled_exactly
def _say_featured(numeric: NDArray[np.float32], lengths: NDArray[np.int32], found: NDArray[np.bool_]) -> None:
    """Which rows have a feature that is not missing."""
    for b in range(len(found)):
        there = False
        for n in range(numeric.shape[1]):
            there |= numeric[b, n] == numeric[b, n]
        for c in range(lengths.shape[1]):
            there |= lengths[b, c] >= 0
        found[b] = there


def _at(column: Coded | Floating, i: int) -> object:
    return column.at(i) if isinstance(column, Coded) else float(column[i])


def _numbers(coded: Coded) -> NDArray[np.float64]:
    """Of a column of categories those that are integers (B,); NaN for the rest."""
    return np.array([*(math.nan if isinstance(v, str) else float(v) for v in coded.values), math.nan])[coded.codes]


def _texts(coded: Coded) -> NDArray[np.bool_]:
    """Which rows of a column of categories are texts."""
    return np.array([*(isinstance(v, str) for v in coded.values), False])[coded.codes]
