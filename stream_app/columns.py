"""Many examples as arrays, whatever they were encoded as: fetch -> [decode] -> columns -> predict.

    B rows   N numeric features   C categorical features

``codecs.mixed.Codec(spec).decode(records)`` gives ``(Columns, list[BadRow])``, both in the order of the log;
``Codec(spec).warm()`` has it compiled.

Rows stand in the order of the log. A record of the events topic is one example (JSON, protobuf) or a batch of many
(columnar), so a row is named by (offset, row): the record's offset, and the row's place within the record, 0 for a
record of one example. What follows from that:

- **Effect.** A record takes effect whole. ``next_offset`` and ``replay_from`` stay offsets of records; no version is
  made between two rows of one. The clock that a replay begins with is that before the record's *first* row.
- **Steps.** A record of many rows is a sequence of steps of its own: cut at multiples of ``batch_records`` counted
  from its row 0, ended where it ends. Records of one example are cut at multiples of their offset, as ever. A replay
  that begins at any record then cuts alike.
- **Predictions** are recognised by (partition, offset, row). ``positions`` packs offset and row into one int64: rows
  of one record are at most ``MOST_ROWS`` = 2^16, offsets below 2^47.
- **Dead letters** name (offset, row); row is None where the whole record could not be read. A bad row of a batch is set
  aside alone, with its content as JSON, and the other rows count.
- **Ledger.** The pairs' hashes are of id and target, so they are the same however the examples were packed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.ids import Ids, blank, joined

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Ints = NDArray[np.int64]

ROW_BITS = 16
MOST_ROWS = 1 << ROW_BITS
"""Rows in one record, at most."""


class Columns(NamedTuple):
    """Examples, checked: ``models.hashes.HashedEncoder.raw(numeric, hashes, lengths)`` makes a ``Raw`` of them."""

    offsets: Ints
    """(B,) of the records; never falls from row to row."""
    rows: NDArray[np.int32]
    """(B,) place within the record."""
    ids: Ids
    """B of them, 1 to 512 characters each."""
    time_s: Times
    """(B,) event time of the features; NaN: the row has none."""
    numeric: Floats
    """(B, N) clipped to what float32 holds; NaN: missing. All NaN where there are no features."""
    hashes: NDArray[np.uint32]
    """(B, C) CRC-32 of each category's text (UTF-8; an integer's decimal digits); 0 where missing."""
    lengths: NDArray[np.int32]
    """(B, C) bytes of that text; -1: missing."""
    target: Times
    """(B,) the label as a class index, or as a number for regression; NaN: the row has none."""
    label_time_s: Times
    """(B,) NaN without a label."""
    weight: Times
    """(B,) how much the example counts; NaN: the row does not say."""

    @property
    def positions(self) -> Ints:
        """(B,) offset and row as one number, rising from row to row."""
        return (self.offsets << ROW_BITS) | self.rows

    def take(self, rows: slice | Ints | NDArray[np.bool_]) -> "Columns":
        """Some rows, in the order given."""
        taken: Any = (column[rows] for column in self)
        return Columns(*taken)

    def put(self, rows: Ints, other: "Columns") -> None:
        """Write other rows over some of these."""
        for name in self._fields:
            if name != "ids":
                getattr(self, name)[rows] = getattr(other, name)
        self.ids.set(rows, other.ids)


class BadRow(NamedTuple):
    """One record, or one row of it, that is no example."""

    offset: int
    row: int | None
    """None: of the whole record nothing could be read."""
    reason: str
    value: bytes
    """The record as it came; of one bad row in a batch, that row as JSON."""


def empty(rows: int, *, numeric: int, categorical: int) -> Columns:
    """B rows that say nothing, to be filled in.

    Args:
        rows: B.
        numeric: N.
        categorical: C.
    """
    return Columns(
        offsets=np.zeros(rows, np.int64),
        rows=np.zeros(rows, np.int32),
        ids=blank(rows),
        time_s=np.full(rows, np.nan),
        numeric=np.full((rows, numeric), np.nan, np.float32),
        hashes=np.zeros((rows, categorical), np.uint32),
        lengths=np.full((rows, categorical), -1, np.int32),
        target=np.full(rows, np.nan),
        label_time_s=np.full(rows, np.nan),
        weight=np.full(rows, np.nan),
    )


def concatenated(parts: Sequence[Columns]) -> Columns:
    """The rows of at least one part after another."""
    if len(parts) == 1:
        return parts[0]
    arrays = {n: np.concatenate([getattr(p, n) for p in parts]) for n in Columns._fields if n != "ids"}
    return Columns(ids=joined([p.ids for p in parts]), **arrays)


def split(position: int) -> tuple[int, int]:
    """Offset and row of a position."""
    return position >> ROW_BITS, position & (MOST_ROWS - 1)
