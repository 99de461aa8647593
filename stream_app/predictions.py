"""What was said of each event: predict -> [predictions topic] -> audit, and recovery of what waits for a label.

One record per micro-batch, columnar. For any (partition, offset, row) the first record counts: a replay after a
crash finds what was said before it, and is scored on that.

    B rows   R rate columns   K scores
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.columns import MOST_ROWS, ROW_BITS

Floats = NDArray[np.float32]

LARGEST_RECORD_BYTES = 400_000


class Said(NamedTuple):
    """What was known and said of one event when its features arrived."""

    rates: Floats
    """(R,) recent label rates, as fed to the network."""
    scores: Floats
    """(K,) the answer."""
    nochange: float
    """The last label that had arrived; NaN before the first."""
    prior: Floats
    """(K,) all-time label distribution."""


class Block(NamedTuple):
    """The same of B rows of one partition, in their order."""

    positions: NDArray[np.int64]
    """(B,) as in ``stream_app.columns``: offset and row within the record."""
    rates: Floats
    scores: Floats
    nochange: Floats
    prior: Floats

    def rows(self) -> Iterable[tuple[int, Said]]:
        for i, position in enumerate(self.positions.tolist()):
            yield position, Said(self.rates[i], self.scores[i], float(self.nochange[i]), self.prior[i])

    def take(self, rows: slice | NDArray[np.intp]) -> "Block":
        return Block(self.positions[rows], self.rates[rows], self.scores[rows], self.nochange[rows], self.prior[rows])


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    version: str
    offsets: bytes
    rates: bytes
    scores: bytes
    nochange: bytes
    prior: bytes
    rows: bytes = b""
    """Empty where all are the first of their record."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def encode_blocks(blocks: Sequence[Block], version: str) -> list[bytes]:
    """Records for the topic, none larger than a broker takes.

    Args:
        blocks: of one partition, in offset order.
        version: id of the newest durable version when they were said.
    """
    if not blocks:
        return []
    whole = Block(
        np.concatenate([b.positions for b in blocks]),
        np.concatenate([b.rates for b in blocks]),
        np.concatenate([b.scores for b in blocks]),
        np.concatenate([b.nochange for b in blocks]),
        np.concatenate([b.prior for b in blocks]),
    )
    row_bytes = 12 + 4 * (whole.rates.shape[1] + 2 * whole.scores.shape[1] + 1)
    step = max(1, LARGEST_RECORD_BYTES // row_bytes)
    parts = (whole.take(slice(i, i + step)) for i in range(0, len(whole.positions), step))
    return [_encode(_wire(part, version)) for part in parts]


def _wire(block: Block, version: str) -> _Wire:
    rows = (block.positions & (MOST_ROWS - 1)).astype(np.int32)
    return _Wire(
        version=version,
        offsets=(block.positions >> ROW_BITS).tobytes(),
        rates=block.rates.tobytes(),
        scores=block.scores.tobytes(),
        nochange=block.nochange.tobytes(),
        prior=block.prior.tobytes(),
        rows=rows.tobytes() if rows.any() else b"",
    )


def decode_block(value: bytes) -> tuple[Block, str]:
    """The rows of one record, and the version that said them.

    Raises:
        ValueError: it is no predictions record.
    """
    wire = _decode(value)
    offsets = np.frombuffer(wire.offsets, dtype=np.int64)
    b = len(offsets)
    if b == 0:
        raise ValueError("a predictions record without rows")
    rates, scores, nochange, prior = (
        np.frombuffer(c, dtype=np.float32) for c in (wire.rates, wire.scores, wire.nochange, wire.prior)
    )
    rows = np.frombuffer(wire.rows, dtype=np.int32) if wire.rows else np.zeros(b, np.int32)
    if len(rows) != b:
        raise ValueError(f"a predictions record of {b} offsets and {len(rows)} rows")
    positions, shape = (offsets << ROW_BITS) | rows, (b, -1)
    return Block(positions, rates.reshape(shape), scores.reshape(shape), nochange, prior.reshape(shape)), wire.version


class Trail:
    """Where in the predictions topic the remembered events' predictions lie; one per partition.

    ``start`` answers: from which offset must a successor read to find all of them?
    """

    def __init__(self, next_offset: int = 0) -> None:
        self.next_offset = next_offset
        """One past the newest record we know of in the predictions topic."""
        self._records: deque[tuple[int, int]] = deque()

    def add(self, at: int, last_event: int) -> None:
        """The record at offset ``at`` speaks of events up to ``last_event``."""
        self._records.append((at, last_event))
        self.next_offset = at + 1

    def extend(self, newer: "Trail") -> None:
        """Take over what a reader found from ``next_offset`` on."""
        self._records.extend(newer._records)
        self.next_offset = newer.next_offset

    def start(self, replay_from: int) -> int:
        """First record that speaks of an event at or after ``replay_from``; it never goes back."""
        while self._records and self._records[0][1] < replay_from:
            self._records.popleft()
        return self._records[0][0] if self._records else self.next_offset
