"""Records of any encoding become columns: fetch -> [decode] -> columns -> predict.

The header ``content-type`` of a record says what it is; without one it is JSON, and one topic may hold all of them.
What is no example is set aside alone, with its reason, and the rest counts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.spec import ModelSpec
from stream_app.codecs.batch import pack
from stream_app.codecs.batches import BatchReader
from stream_app.codecs.decoded import Decoded
from stream_app.codecs.examples import ExampleCodec
from stream_app.codecs.gather import example, gathered
from stream_app.codecs.jsons import JsonCodec
from stream_app.codecs.unpack import unpack
from stream_app.columns import BadRow, Columns, concatenated
from stream_app.decode import Record
from stream_app.errors import DecodeError
from stream_app.events import CONTENT_TYPE, ContentType
from stream_app.records import Records

_NAMES = ", ".join(ContentType)
_KINDS: dict[bytes | None, str] = {kind.encode(): kind for kind in ContentType}
_KINDS |= dict.fromkeys((b"application/protobuf", b"application/vnd.google.protobuf"), ContentType.PROTOBUF)


class _Sample(NamedTuple):
    offset: int = 0
    timestamp: int = 0
    value: bytes | None = b'{"id":"x"}'


class Codec:
    """Knows one model's events, however they are written. For one thread at a time.

    Args:
        spec: its features and label.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._json, self._example, self._batch = JsonCodec(spec), ExampleCodec(spec), BatchReader(spec)
        self._numeric, self._categorical = spec.features.numeric, spec.features.categorical

    def decode(self, records: Sequence[Record]) -> tuple[Columns, list[BadRow]]:
        """Rows in the order of (offset, row), and what is none, in the same order."""
        return self._decode(records, content_types(records))

    def read(self, records: Sequence[Record]) -> Decoded:
        """At least one record, as a core takes them."""
        kinds = content_types(records)
        if isinstance(records, Records):
            offsets = records.places["offset"].copy()
        else:
            offsets = np.array([r.offset for r in records], np.int64)
        return Decoded(offsets, *self._decode(records, kinds), kinds[-1] == ContentType.BATCH)

    def _decode(self, records: Sequence[Record], kinds: Sequence[str]) -> tuple[Columns, list[BadRow]]:
        if set(kinds) <= {ContentType.JSON}:
            return self._json.decode(records)
        parts = [
            self._json.decode(_those(records, kinds, ContentType.JSON)),
            self._example.decode(_those(records, kinds, ContentType.PROTOBUF)),
        ]
        for i, kind in enumerate(kinds):
            if kind == ContentType.BATCH:
                parts.append(self._read_batch(records[i]))
            elif kind not in (ContentType.JSON, ContentType.PROTOBUF):
                reason = f"content-type is {kind!r}, wanted one of {_NAMES}"
                parts.append((self._none(), [_whole(records[i], reason)]))
        return _in_order(parts)

    def warm(self) -> None:
        """Have the scanners compiled before the first record waits for them; some seconds, once a machine."""
        self._json.decode([_Sample()])
        self._example.decode([_Sample()])
        features = dict.fromkeys(self._numeric, 0.0) | dict.fromkeys(self._categorical, "x")
        row = example("x", features=features, time_s=0.0, label=None, label_time_s=None, weight=None, key=None)
        self._batch.read(unpack(pack(gathered([row]))), 0, 0)

    def _none(self) -> Columns:
        return self._json.decode(())[0]

    def _read_batch(self, record: Record) -> tuple[Columns, list[BadRow]]:
        try:
            if not record.value:
                raise DecodeError("the record is empty, wanted an Examples message")
            return self._batch.read(unpack(record.value), record.offset, record.timestamp)
        except DecodeError as error:
            return self._none(), [_whole(record, str(error))]


def content_type(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """What the headers of a record say it is; the first one that speaks of it counts, and any JSON is JSON."""
    for name, value in headers:
        if name == CONTENT_TYPE or name.lower() == CONTENT_TYPE:
            kind = _KINDS.get(value) or (value or b"").decode("ascii", "replace").partition(";")[0].strip().lower()
            return ContentType.JSON if kind.endswith(("/json", "+json")) else kind
    return ContentType.JSON


def content_types(records: Sequence[Record]) -> list[str]:
    """Of each record."""
    if not isinstance(records, Records):
        return [content_type(getattr(r, "headers", ())) for r in records]
    if not records.places["headers"].any():
        return [ContentType.JSON] * len(records)
    begins = np.flatnonzero(~records.like_before())
    lengths = np.diff(begins, append=len(records)).tolist()
    kinds = [content_type(records[i].headers) for i in begins.tolist()]
    return [kind for kind, length in zip(kinds, lengths, strict=True) for _ in range(length)]


def _those(records: Sequence[Record], kinds: Sequence[str], kind: ContentType) -> Sequence[Record]:
    """The records of one kind."""
    if isinstance(records, Records):
        return records.at(np.array([k == kind for k in kinds], np.bool_))
    return [r for r, k in zip(records, kinds, strict=True) if k == kind]


def _whole(record: Record, reason: str) -> BadRow:
    return BadRow(record.offset, None, reason, record.value or b"")


def _in_order(parts: Sequence[tuple[Columns, list[BadRow]]]) -> tuple[Columns, list[BadRow]]:
    columns = concatenated([c for c, _ in parts if len(c.ids)] or [parts[0][0]])
    order: Any = np.argsort(columns.positions, kind="stable")
    if (order[1:] < order[:-1]).any():
        columns = columns.take(order)
    return columns, sorted((b for _, bad in parts for b in bad), key=lambda b: (b.offset, b.row or 0))
