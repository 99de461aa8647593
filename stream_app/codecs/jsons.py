"""JSON records become columns: the scanner reads what is plain, msgspec the rest and finds what is wrong."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.features import LARGEST
from models.hashes import text_hash
from models.spec import ModelSpec
from stream_app.codecs.scanner import Scanner
from stream_app.codecs.texts import texts
from stream_app.columns import BadRow, Columns, empty
from stream_app.decode import Decoder, Event, Record
from stream_app.events import LONGEST_ID
from stream_app.ids import ids_of


class JsonCodec:
    """Knows one model's events as JSON objects, one to a record (stream_app/events.py).

    Args:
        spec: its features and label.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._numeric, self._categorical = len(spec.features.numeric), len(spec.features.categorical)
        self._scanner = Scanner(spec, LONGEST_ID)
        self._decoder = Decoder(spec)

    def decode(self, records: Sequence[Record]) -> tuple[Columns, list[BadRow]]:
        """Rows and bad records, each in offset order."""
        columns = empty(len(records), numeric=self._numeric, categorical=self._categorical)
        found = texts(records)
        columns.offsets[:] = found.offsets
        good = self._scanner.scan(found, columns)
        if good.all():
            return columns, []
        events, bad = self._decoder.decode([records[i] for i in np.flatnonzero(~good).tolist()])
        others = written(events, numeric=self._numeric, categorical=self._categorical)
        return completed(columns, good, others), [BadRow(b.offset, None, b.reason, b.value) for b in bad]


def completed(columns: Columns, good: NDArray[np.bool_], found: Columns) -> Columns:
    """Good rows of ``columns``, and in their places those that were found in another way; offsets rise."""
    places = np.searchsorted(columns.offsets, found.offsets)
    columns.put(places, found)
    good[places] = True
    return columns.take(good)


def written(events: Sequence[Event], *, numeric: int, categorical: int) -> Columns:
    """Events as rows, of so many features."""
    columns = empty(len(events), numeric=numeric, categorical=categorical)._replace(ids=ids_of([e.id for e in events]))
    for i, event in enumerate(events):
        _write(columns, i, event)
    return columns


def _write(columns: Columns, i: int, event: Event) -> None:
    n = columns.numeric.shape[1]
    columns.offsets[i] = event.offset
    if event.row is not None:
        columns.time_s[i] = event.time_s
        numeric = np.array(event.row[:n], np.float64)
        columns.numeric[i] = np.clip(numeric, -LARGEST, LARGEST)
        for c, value in enumerate(event.row[n:]):
            columns.hashes[i, c], columns.lengths[i, c] = text_hash(value)
    for name in ("target", "label_time_s", "weight"):
        if (value := getattr(event, name)) is not None:
            getattr(columns, name)[i] = value
