"""Protobuf records become columns: one ``Example`` of protos/events.proto to a record."""

import math
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError as WireError

from models.features import LARGEST
from models.hashes import text_hash
from models.spec import ModelSpec
from stream_app.codecs.jsons import completed
from stream_app.codecs.rules import Rules
from stream_app.codecs.texts import texts
from stream_app.codecs.wire_scanner import WireScanner
from stream_app.columns import BadRow, Columns, empty
from stream_app.decode import Record
from stream_app.errors import DecodeError
from stream_app.events import LONGEST_ID
from stream_app.ids import ids_of
from stream_app.wire import events_pb2 as wire

Label = int | str | float | None


class ExampleCodec:
    """Knows one model's features and label.

    Args:
        spec: the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._numeric, self._categorical = list(spec.features.numeric), list(spec.features.categorical)
        self._largest, self._regression = spec.stream.max_record_bytes, not spec.label.classes
        self._rules, self._scanner = Rules(spec), WireScanner(spec, LONGEST_ID)

    def decode(self, records: Sequence[Record]) -> tuple[Columns, list[BadRow]]:
        """Rows and bad records, each in offset order."""
        columns = empty(len(records), numeric=len(self._numeric), categorical=len(self._categorical))
        scanned = texts(records)
        columns.offsets[:] = scanned.offsets
        good = self._scanner.scan(scanned, columns)
        if good.all():
            return columns, []
        found, bad = self.parse([records[i] for i in np.flatnonzero(~good).tolist()])
        return completed(columns, good, found), bad

    def parse(self, records: Sequence[Record]) -> tuple[Columns, list[BadRow]]:
        """The same by protobuf's parser: slower, and it says what is wrong."""
        b = len(records)
        columns = empty(b, numeric=len(self._numeric), categorical=len(self._categorical))
        columns.offsets[:] = [r.offset for r in records]
        labels: list[Label] = [None] * b
        ids = [""] * b
        featured, faults = np.zeros(b, np.bool_), {}
        for i, record in enumerate(records):
            try:
                e = _parsed(record.value)
                ids[i] = e.id
                featured[i], labels[i] = self._read(columns, i, e, len(record.value or b""))
            except DecodeError as error:
                faults[i] = str(error)
        columns.ids.set(slice(None), ids_of(ids))
        timestamps_ms = np.array([r.timestamp for r in records], np.int64)
        labelled = np.array([v is not None for v in labels], np.bool_)
        found = self._rules.faults(
            columns, timestamps_ms, featured=featured, labelled=labelled, label_at=labels.__getitem__
        )
        faults = found | faults
        good = np.ones(b, np.bool_)
        good[list(faults)] = False
        bad = [BadRow(records[i].offset, None, faults[i], records[i].value or b"") for i in sorted(faults)]
        return columns.take(good) if bad else columns, bad

    def _read(self, columns: Columns, i: int, e: wire.Example, size_bytes: int) -> tuple[bool, Label]:
        """Write a message into row ``i``; whether it has features, and its label."""
        if size_bytes > self._largest:
            wanted = f"wanted at most {self._largest} (stream.max_record_bytes)"
            raise DecodeError(f"event {e.id[:80]!r}: {size_bytes} bytes, {wanted}")
        featured = e.HasField("features")
        if featured:
            self._read_features(columns, i, e)
            columns.time_s[i] = e.time if e.HasField("time") else math.nan
        if e.HasField("label_time"):
            columns.label_time_s[i] = e.label_time
        if e.HasField("weight"):
            columns.weight[i] = e.weight if not math.isnan(e.weight) else math.inf
        return featured, self._read_label(columns, i, e)

    def _read_features(self, columns: Columns, i: int, e: wire.Example) -> None:
        numeric, categorical = e.features.numeric, e.features.categorical
        for n, name in enumerate(self._numeric):
            number: Label = numeric.get(name)
            if number is None and name in categorical:
                number = _name(categorical[name])
            if isinstance(number, str) or (number is not None and math.isinf(number)):
                wanted = "a number" if isinstance(number, str) else "a finite number (NaN means missing)"
                raise DecodeError(f"event {e.id[:80]!r}: feature {name!r} is {number!r}, wanted {wanted}")
            if number is not None:
                columns.numeric[i, n] = min(max(number, -LARGEST), LARGEST)
        for c, name in enumerate(self._categorical):
            if name in categorical:
                columns.hashes[i, c], columns.lengths[i, c] = text_hash(_name(categorical[name]))
            if name in numeric and not math.isnan(numeric[name]):
                wanted = "wanted a text or an integer"
                raise DecodeError(f"event {e.id[:80]!r}: feature {name!r} is {numeric[name]!r}, {wanted}")

    def _read_label(self, columns: Columns, i: int, e: wire.Example) -> Label:
        match e.WhichOneof("label"):
            case "class":
                name = _name(getattr(e, "class"))
                if name is not None:
                    columns.target[i] = self._rules.target(name)
                return name
            case "value":
                if self._regression:
                    columns.target[i] = e.value
                return float(e.value)
        return None


def _parsed(value: bytes | None) -> wire.Example:
    if not value:
        raise DecodeError("the record is empty, wanted an Example message")
    try:
        return wire.Example.FromString(value)
    except WireError as error:
        raise DecodeError(f"the record is no Example message (protos/events.proto): {error}") from error


def _name(name: wire.Name) -> str | int | None:
    kind = name.WhichOneof("kind")
    return None if kind is None else getattr(name, kind)
