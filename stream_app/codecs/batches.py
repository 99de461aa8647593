"""A batch of examples becomes columns, in arrays throughout: unpack -> [read] -> columns."""

import numpy as np
from numpy.typing import NDArray

from models.features import LARGEST
from models.hashes import text_hash
from models.spec import ModelSpec
from stream_app.codecs.batch import MOST_CELLS, Batch, Coded, row_json
from stream_app.codecs.rules import Rules
from stream_app.columns import BadRow, Columns, empty
from stream_app.errors import DecodeError


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
            DecodeError: no row can be read, since a column is not of the kind that the model has.
        """
        with np.errstate(invalid="ignore"):  # NaNs of strange make
            return self._read(batch, offset, timestamp_ms)

    def _read(self, batch: Batch, offset: int, timestamp_ms: int) -> tuple[Columns, list[BadRow]]:
        b = len(batch.ids)
        if b * (len(self._numeric) + len(self._categorical)) > MOST_CELLS:
            most = MOST_CELLS // (len(self._numeric) + len(self._categorical))
            raise DecodeError(f"'rows' is {b}, wanted at most {most}, so many features has the model")
        columns = empty(b, numeric=len(self._numeric), categorical=len(self._categorical))._replace(ids=batch.ids)
        columns.offsets[:] = offset
        columns.rows[:] = np.arange(b)
        faults = self._fill_features(columns, batch)
        labelled = self._fill_label(columns, batch)
        featured: NDArray[np.bool_] = np.any(~np.isnan(columns.numeric), axis=1)
        featured |= np.any(columns.lengths >= 0, axis=1)
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
        """Returns the rows with numbers that are none."""
        faults = {}
        for n, name in enumerate(self._numeric):
            if name in batch.categorical:
                raise DecodeError(f"feature {name!r} is a categorical column, wanted a numeric one")
            if (values := batch.numeric.get(name)) is not None:
                columns.numeric[:, n] = np.clip(values, -LARGEST, LARGEST)
                for i in np.flatnonzero(np.isinf(values)).tolist():
                    wanted = "wanted a finite number (NaN means missing)"
                    faults[i] = f"event {batch.ids[i][:80]!r}: feature {name!r} is {float(values[i])!r}, {wanted}"
        for c, name in enumerate(self._categorical):
            if name in batch.numeric:
                raise DecodeError(f"feature {name!r} is a numeric column, wanted a categorical one")
            if (column := batch.categorical.get(name)) is not None:
                found = np.array([*map(text_hash, column.values), (0, -1)], np.int64)  # (values + 1, 2)
                columns.hashes[:, c], columns.lengths[:, c] = found[column.codes].T
        for name in ("time_s", "label_time_s", "weight"):
            if (values := getattr(batch, name)) is not None:
                getattr(columns, name)[:] = values
        return faults

    def _fill_label(self, columns: Columns, batch: Batch) -> NDArray[np.bool_]:
        """Returns which rows have one."""
        label = batch.label
        if label is None:
            return np.zeros(len(batch.ids), np.bool_)
        if isinstance(label, Coded):
            if self._regression:
                raise DecodeError("the labels are classes in 'class', wanted numbers in 'value'")
            targets = np.array([*map(self._rules.target, label.values), np.nan])
            columns.target[:] = targets[label.codes]
            return label.codes >= 0
        if not self._regression:
            raise DecodeError("the labels are numbers in 'value', wanted classes in 'class'")
        columns.target[:] = label
        labelled: NDArray[np.bool_] = ~np.isnan(label)
        return labelled
