"""A chunk of records, understood: decode -> [decoded] -> the core takes it, or holds it until its step is full.

n records, with B rows that are good
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.columns import BadRow, Columns, Ints, concatenated


@dataclass(frozen=True, slots=True)
class Decoded:
    """At least one record."""

    offsets: Ints
    """(n,) of all records, whatever became of them; rising."""
    columns: Columns
    bad: list[BadRow]
    many: bool
    """Whether the last record is one of many rows, which ends a step."""

    @property
    def last_offset(self) -> int:
        return int(self.offsets[-1])

    def split(self, offset: int) -> "tuple[Decoded | None, Decoded | None]":
        """The records before an offset, and those from it on; None where there are none."""
        at = int(np.searchsorted(self.offsets, offset))
        if at in (0, len(self.offsets)):
            return (None, self) if at == 0 else (self, None)
        row = int(np.searchsorted(self.columns.offsets, offset))
        before = [b for b in self.bad if b.offset < offset]
        return (
            Decoded(self.offsets[:at], self.columns.take(slice(row)), before, self.many),
            Decoded(self.offsets[at:], self.columns.take(slice(row, None)), self.bad[len(before) :], self.many),
        )


def joined(parts: Sequence[Decoded]) -> Decoded:
    """At least one chunk after another, as one."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.concatenate([p.offsets for p in parts])
    return Decoded(offsets, concatenated([p.columns for p in parts]), [b for p in parts for b in p.bad], parts[-1].many)
