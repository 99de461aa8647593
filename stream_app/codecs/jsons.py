"""JSON records become columns: the scanner reads what is plain, msgspec the rest and finds what is wrong."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.features import LARGEST
from models.hashes import text_hash
from models.spec import ModelSpec
from stream_app.codecs.scanner import Scanner
from stream_app.columns import BadRow, Columns, empty
from stream_app.decode import Decoder, Event, Record
from stream_app.events import LONGEST_ID


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
        columns.offsets[:] = [r.offset for r in records]
        timestamps_ms = np.array([r.timestamp for r in records], np.int64)
        good = self._scanner.scan([r.value for r in records], timestamps_ms, columns)
        if good.all():
            return columns, []
        odd = np.flatnonzero(~good)
        events, bad = self._decoder.decode([records[i] for i in odd.tolist()])
        self._fill(columns, odd, events)
        good[odd[np.isin(columns.offsets[odd], [e.offset for e in events])]] = True
        return columns.take(good), [BadRow(b.offset, None, b.reason, b.value) for b in bad]

    def _fill(self, columns: Columns, odd: NDArray[np.intp], events: Sequence[Event]) -> None:
        """Write what msgspec understood over what the scanner left."""
        at = dict(zip(columns.offsets[odd].tolist(), odd.tolist(), strict=True))
        blank = empty(len(odd), numeric=self._numeric, categorical=self._categorical)
        for name in ("time_s", "numeric", "hashes", "lengths", "target", "label_time_s", "weight"):
            getattr(columns, name)[odd] = getattr(blank, name)
        for event in events:
            write(columns, at[event.offset], event)


def write(columns: Columns, i: int, event: Event) -> None:
    """Make an event row ``i``, which is blank."""
    n = columns.numeric.shape[1]
    columns.ids[i] = event.id
    if event.row is not None:
        columns.time_s[i] = event.time_s
        numeric = np.array(event.row[:n], np.float64)
        columns.numeric[i] = np.clip(numeric, -LARGEST, LARGEST)
        for c, value in enumerate(event.row[n:]):
            columns.hashes[i, c], columns.lengths[i, c] = text_hash(value)
    for name in ("target", "label_time_s", "weight"):
        if (value := getattr(event, name)) is not None:
            getattr(columns, name)[i] = value
