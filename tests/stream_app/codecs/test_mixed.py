"""However examples are written and mixed, the same columns come of them; what is none is set aside alone."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.codecs import scanner, wire_scanner
from stream_app.codecs.batch import Batch, Coded, coded, pack
from stream_app.codecs.batches import BatchReader
from stream_app.codecs.mixed import Codec, content_type
from stream_app.codecs.unpack import unpack
from stream_app.columns import MOST_ROWS, BadRow, Columns, split
from stream_app.errors import DecodeError
from stream_app.events import LONGEST_ID, ContentType
from stream_app.records import read
from stream_app.wire import events_pb2 as wire
from tests.stream_app.codecs.test_jsons import SPECS, assert_same, spec_of
from tests.stream_app.test_records import Message
from tests.stream_app.test_records import batch as packed

NUMERIC, CATEGORICAL = ("a", "b b"), ("c", "id", "é")
CODECS = [Codec(spec) for spec in SPECS]
NAN = math.nan


class Sent(NamedTuple):
    """A record with a header."""

    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def sent(offset: int, value: bytes | None, kind: str = "", timestamp_ms: int = 0) -> Sent:
    return Sent(offset, timestamp_ms, value, [("trace", b"1"), ("Content-Type", kind.encode())] if kind else ())


def as_protobuf(event: dict[str, Any]) -> bytes:
    message = wire.Example(id=event["id"])
    for name in ("time", "label_time", "weight"):
        if event.get(name) is not None:
            setattr(message, name, event[name])
    if event.get("features") is not None:
        message.features.SetInParent()
        for name, value in event["features"].items():
            if name in NUMERIC and value is not None:
                message.features.numeric[name] = value
            elif value is not None:
                set_name(message.features.categorical[name], value)
    match event.get("label"):
        case float(number):
            message.value = number
        case int(label) | str(label):
            set_name(getattr(message, "class"), label)
    return message.SerializeToString()


def set_name(name: wire.Name, value: str | int) -> None:
    setattr(name, "text" if isinstance(value, str) else "number", value)


def as_batch(events: Sequence[dict[str, Any]], regression: bool = False) -> bytes:
    def doubles(name: str) -> Any:
        return np.array([NAN if e.get(name) is None else e[name] for e in events], np.float64)

    features = [e.get("features") or {} for e in events]
    return pack(
        Batch(
            ids=[e["id"] for e in events],
            time_s=np.where([e.get("features") is None for e in events], NAN, doubles("time")),
            numeric={n: np.array([NAN if f.get(n) is None else f[n] for f in features], np.float64) for n in NUMERIC},
            categorical={n: coded([f.get(n) for f in features]) for n in CATEGORICAL},
            classes=None if regression else coded([e.get("label") for e in events]),
            values=doubles("label") if regression else None,
            label_time_s=doubles("label_time"),
            weight=doubles("weight"),
        )
    )


TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)
TIMES = st.none() | st.floats(0.0, 2.0)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


def events(labels: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    features = st.fixed_dictionaries(
        {n: st.none() | st.floats(allow_nan=False, allow_infinity=False) for n in NUMERIC}
        | {n: st.none() | TEXTS | INTEGERS for n in CATEGORICAL}
    )
    timed = st.fixed_dictionaries({"features": features, "time": st.floats(0.0, 2.0)})
    said = st.fixed_dictionaries(
        {"id": TEXTS.filter(bool) | st.just("x" * 513)},
        optional={"label": labels, "label_time": TIMES, "weight": st.floats(1e-7, 1e7)},
    )
    return st.tuples(said, timed | st.just({})).map(lambda parts: parts[0] | parts[1])


CLASSES = st.none() | st.sampled_from(["late", "7", 7, -1, 0, 1, 2, "é"])
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.just(1e39)


@settings(deadline=None)
@given(st.data(), st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 500, 101_500]))
def test_however_written_the_same_columns_and_the_same_reasons(data: st.DataObject, which: int, stamp: int) -> None:
    some = data.draw(st.lists(events(NUMBERS if which == 2 else CLASSES), min_size=1, max_size=5))
    codec = CODECS[which]
    texts = [json.dumps(e).encode() for e in some]
    wanted, bad = codec.decode([sent(i, v, "", stamp) for i, v in enumerate(texts)])
    single, single_bad = codec.decode(
        [sent(i, as_protobuf(e), "application/x-protobuf", stamp) for i, e in enumerate(some)]
    )
    batch, batch_bad = codec.decode([sent(9, as_batch(some, which == 2), ContentType.BATCH, stamp)])
    assert_same(single, wanted)
    assert [(b.offset, b.reason) for b in single_bad] == [(b.offset, b.reason) for b in bad]
    assert_same(batch._replace(offsets=batch.rows.astype(np.int64), rows=wanted.rows), wanted)
    assert [b.row for b in batch_bad] == [b.offset for b in bad]
    assert [(b.offset, b.reason) for b in batch_bad] == [(9, b.reason) for b in bad]


def example(id_: str, **said: Any) -> dict[str, Any]:
    return {"id": id_, "time": 1.0, "features": {"a": 1.0, "c": "UA"}} | said


def test_one_topic_may_hold_all_encodings() -> None:
    records = [
        sent(5, json.dumps(example("json")).encode()),
        sent(
            6, as_batch([example("b0"), example("b1", label=1, label_time=2.0)]), "application/vnd.stream-app.examples"
        ),
        sent(7, as_protobuf(example("protobuf")), "application/x-protobuf; charset=binary"),
        sent(8, json.dumps(example("json too")).encode(), "application/JSON; charset=utf-8"),
        sent(9, b"...", "text/xml"),
        sent(10, None, ContentType.BATCH),
        sent(11, b"", ContentType.PROTOBUF),
        sent(12, json.dumps(example("last")).encode()),
    ]
    columns, bad = CODECS[0].decode(records)
    assert columns.ids == ["json", "b0", "b1", "protobuf", "json too", "last"]
    assert columns.offsets.tolist() == [5, 6, 6, 7, 8, 12]
    assert columns.rows.tolist() == [0, 0, 1, 0, 0, 0]
    assert [split(p) for p in columns.positions.tolist()] == list(
        zip(columns.offsets.tolist(), columns.rows.tolist(), strict=True)
    )
    assert bad == [
        BadRow(9, None, "content-type is 'text/xml', wanted one of " + ", ".join(ContentType), b"..."),
        BadRow(10, None, "the record is empty, wanted an Examples message", b""),
        BadRow(11, None, "the record is empty, wanted an Example message", b""),
    ]


VALUES = st.one_of(
    st.tuples(st.just(None) | st.just(b"") | st.binary(max_size=20), st.sampled_from(["", *ContentType, "text/csv"])),
    events(CLASSES).map(lambda event: (json.dumps(event).encode(), "")),
    events(CLASSES).map(lambda event: (json.dumps(event, ensure_ascii=False).encode(), ContentType.JSON)),
    events(CLASSES).map(lambda event: (as_protobuf(event), ContentType.PROTOBUF)),
    events(CLASSES).map(lambda event: (as_batch([event]), ContentType.BATCH)),
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=9), st.integers(0, 2))
def test_records_that_are_no_objects_are_read_alike(values: list[tuple[bytes | None, str]], which: int) -> None:
    records = [sent(i, value, kind, timestamp_ms=1_000) for i, (value, kind) in enumerate(values)]
    messages = [Message(timestamp=r.timestamp, value=r.value, headers=r.headers) for r in records]
    found = read(packed(messages) if messages else b"", topic="t", partition=0, from_offset=0)
    assert found is not None
    columns, bad = CODECS[which].decode(found[0])
    wanted, wanted_bad = CODECS[which].decode(records)
    assert bad == wanted_bad
    assert_same(columns, wanted)
    if records:
        decoded = CODECS[which].read(found[0])
        assert decoded.offsets.tolist() == [r.offset for r in records]
        assert decoded.many == (records[-1].headers != () and values[-1][1] == ContentType.BATCH)


def test_without_any_header_or_record() -> None:
    assert content_type([]) == "application/json"
    assert content_type([("content-type", None)]) == ""
    assert content_type([("CONTENT-TYPE", b"text/JSON; charset=utf-8")]) == "application/json"
    assert content_type([("x", b""), ("content-type", b"application/vnd.me+json")]) == "application/json"
    assert content_type([("content-type", b"application/protobuf")]) == "application/x-protobuf"
    assert CODECS[0].decode([])[0].ids == []


def test_bad_rows_of_a_batch_are_set_aside_alone() -> None:
    rows = [
        example("good"),
        example("class", label=2, label_time=1.0),
        example(""),
        example("far", time=1e9),
        example("infinite") | {"features": {"a": math.inf}},
        example("weight", weight=0.0),
        example("label time", label=1),
        {"id": "nothing"},
        example("untimed", time=None, label=1, label_time=1.0),
        example("x" * (LONGEST_ID + 1)),
        example("last", label=0, label_time=3.0),
    ]
    columns, bad = CODECS[0].decode([sent(3, as_batch(rows), ContentType.BATCH, 1000)])
    assert columns.ids == ["good", "last"]
    assert columns.rows.tolist() == [0, 10]
    assert [(b.offset, b.row) for b in bad] == [(3, i) for i in range(1, 10)]
    reasons = (
        "event 'class': 'label' is 2, wanted one of 0, 1",
        "'id' has 0 characters, wanted 1 to 512",
        "event 'far': 'time' is 1000000000.0, 999999999 s ahead of its Kafka timestamp; wanted at most 100",
        "event 'infinite': feature 'a' is inf, wanted a finite number (NaN means missing)",
        "event 'weight': 'weight' is 0.0, wanted a number from 1e-06 to 1e+06",
        "event 'label time': 'label_time' is None, wanted seconds since the epoch",
        "event 'nothing' has neither 'features' nor 'label'",
        "event 'untimed': 'time' is None, wanted seconds since the epoch",
        "'id' has 513 characters, wanted 1 to 512",
    )
    for b, reason in zip(bad, reasons, strict=True):
        assert b.reason.startswith(reason)
    assert json.loads(bad[0].value) == {
        "id": "class",
        "time": 1.0,
        "features": {"a": 1.0, "c": "UA"},
        "label": 2,
        "label_time": 1.0,
    }
    assert json.loads(bad[3].value)["features"] == {"a": None}


def test_labels_alone_may_come_in_a_batch() -> None:
    batch = Batch(["x", "y"], None, {}, {}, coded([1, 0]), None, np.array([1.0, 2.0]), None)
    columns, bad = CODECS[0].decode([sent(0, pack(batch), ContentType.BATCH)])
    assert (columns.target.tolist(), columns.label_time_s.tolist(), bad) == ([1.0, 0.0], [1.0, 2.0], [])
    assert np.isnan(columns.time_s).all()
    assert np.isnan(columns.numeric).all()


def test_odd_numbers_warn_nobody() -> None:
    strange = np.array([0x7FF0000000000001, 0xFFF8000000000001, 0x7FEFFFFFFFFFFFFF], np.uint64).view(np.float64)
    classes = coded([1, 1, 1])
    batch = Batch(["x", "y", "z"], strange, {"a": strange}, {}, classes, None, strange, strange)
    columns, bad = CODECS[0].decode([sent(0, pack(batch), ContentType.BATCH, 1)])
    assert (columns.ids, [b.row for b in bad]) == ([], [0, 1, 2])


def whole(**changes: Any) -> wire.Examples:
    """A good message of two rows, changed."""
    message = wire.Examples.FromString(as_batch([example("x"), example("y", label=1, label_time=1.0)]))
    for name, value in changes.items():
        match getattr(message, name):
            case wire.Texts() | wire.Categorical() as inner:
                inner.CopyFrom(value)
            case int() | bytes():
                setattr(message, name, value)
            case repeated:
                repeated.extend(value)
    return message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\xff", "the record is no Examples message (protos/events.proto)"),
        (wire.Examples(time=b"1"), "'rows' is 0, wanted 1 to 65536"),
        (whole(rows=MOST_ROWS + 1), "'rows' is 65537, wanted 1 to 65536"),
        (whole(rows=2**32 - 1), "'rows' is 4294967295"),
        (whole(rows=3), "'ids' has 2 texts, wanted 3"),
        (whole(ids=wire.Texts(text=b"xy", ends=b"\1\0\0\0\3\0\0\0")), "ends of ids do not rise to the 2 bytes"),
        (whole(ids=wire.Texts(text=b"xy", ends=b"\2\0\0\0\1\0\0\0")), "ends of ids do not rise to the 2 bytes"),
        (whole(ids=wire.Texts(text=b"xy", ends=b"\xff\xff\xff\xff\2\0\0\0")), "ends of ids do not rise"),
        (whole(ids=wire.Texts(text=b"xy", ends=b"\1\0\0")), "ends of ids: 3 bytes, wanted a multiple of 4"),
        (whole(ids=wire.Texts(text="é".encode(), ends=b"\1\0\0\0\2\0\0\0")), "ids: 'utf-8' codec can't decode"),
        (whole(ids=wire.Texts(text=b"\xff\xff", ends=b"\1\0\0\0\2\0\0\0")), "ids: 'utf-8' codec can't decode"),
        (whole(time=b"12345678"), "'time' has 8 bytes, wanted none or 16"),
        (whole(numeric=[wire.Numeric(name="z", values=b"1234567")]), "numeric 'z' has 7 bytes, wanted 8 or 16"),
        (whole(numeric=[wire.Numeric(name="a", values=bytes(8))]), "a column is there twice"),
        (whole(categorical=[wire.Categorical(name="z", codes=bytes(4))]), "categorical 'z' has 1 codes, wanted 2"),
        (whole(categorical=[wire.Categorical(name="z", codes=bytes(8))]), "codes of categorical 'z' are from 0 to 0"),
        (
            whole(categorical=[wire.Categorical(name="z", codes=b"\xfe\xff\xff\xff" * 2)]),
            "codes of categorical 'z' are from -2 to -2, wanted -1 to -1",
        ),
        (
            whole(categorical=[wire.Categorical(name="z", codes=bytes(8), numbers=b"123")]),
            "numbers of categorical 'z': 3 bytes, wanted a multiple of 8",
        ),
        (bytes(1_000_001), "the record has 1000001 bytes, wanted at most 1000000"),
    ],
)
def test_a_message_whose_parts_do_not_fit_is_set_aside_whole(message: bytes | wire.Examples, reason: str) -> None:
    value = message if isinstance(message, bytes) else message.SerializeToString()
    good = json.dumps(example("good")).encode()
    columns, bad = CODECS[0].decode([sent(0, good), sent(1, value, ContentType.BATCH), sent(2, good)])
    assert columns.offsets.tolist() == [0, 2]
    assert [(b.offset, b.row, b.value) for b in bad] == [(1, None, value)]
    assert reason in bad[0].reason


def test_what_is_of_another_kind_than_the_model_has_is_a_bad_row_in_each_encoding() -> None:
    rows = [
        example("text") | {"features": {"a": "far"}},
        example("float") | {"features": {"c": 1.5}},
        example("number label", label=1.0, label_time=1.0),
        example("integer") | {"features": {"a": 5, "c": 5}},
        example("good"),
    ]
    message = wire.Examples.FromString(as_batch([example(r["id"]) for r in rows]))
    batch = unpack(message.SerializeToString())._replace(
        numeric={"c": np.array([NAN, 1.5, NAN, NAN, NAN])},
        categorical={"a": coded(["far", None, None, 5, None]), "c": coded([None, None, None, 5, None])},
        values=np.array([NAN, NAN, 1.0, NAN, NAN]),
        label_time_s=np.array([NAN, NAN, 1.0, NAN, NAN]),
    )
    columns, bad = CODECS[0].decode([sent(0, pack(batch), ContentType.BATCH)])
    singles = [wire.Example(id=r["id"], time=1.0) for r in rows]
    set_name(singles[0].features.categorical["a"], "far")
    singles[1].features.numeric["c"] = 1.5
    singles[2].value, singles[2].label_time = 1.0, 1.0
    set_name(singles[3].features.categorical["a"], 5)
    set_name(singles[3].features.categorical["c"], 5)
    for single in singles:
        single.features.SetInParent()
    one_by_one, one_bad = CODECS[0].decode(
        [sent(i, m.SerializeToString(), ContentType.PROTOBUF) for i, m in enumerate(singles)]
    )
    assert [b.reason for b in bad] == [b.reason for b in one_bad]
    assert [b.reason for b in bad] == [
        "event 'text': feature 'a' is 'far', wanted a number",
        "event 'float': feature 'c' is 1.5, wanted a text or an integer",
        "event 'number label': 'label' is 1.0, wanted one of 0, 1",
    ]
    assert columns.ids == one_by_one.ids == ["integer", "good"]
    assert_same(columns._replace(offsets=one_by_one.offsets, rows=one_by_one.rows), one_by_one)
    assert_same(
        columns.take(slice(1))._replace(offsets=np.zeros(1, np.int64), rows=np.zeros(1, np.int32)),
        CODECS[0].decode([sent(0, json.dumps(rows[3]).encode())])[0],
    )


def test_regression_takes_an_integer_in_any_encoding() -> None:
    texts = [json.dumps({"id": "x", "label": 3, "label_time": 1}).encode()]
    single = wire.Example(id="x", label_time=1.0)
    set_name(getattr(single, "class"), 3)
    batch = Batch(["x", "y"], None, {}, {}, coded([3, "late"]), None, np.ones(2), None)
    found = [
        CODECS[2].decode([sent(0, v, kind)])
        for v, kind in (
            (texts[0], ""),
            (single.SerializeToString(), ContentType.PROTOBUF),
            (pack(batch), ContentType.BATCH),
        )
    ]
    for columns, _ in found:
        assert_same(columns, found[0][0])
    assert found[2][1][0].reason == "event 'y': 'label' is 'late', wanted a number that float32 can hold"


def test_a_batch_that_would_take_too_much_memory_is_refused() -> None:
    many = spec_of()
    features = many.features.__class__(numeric={f"n{i}": many.features.numeric["a"] for i in range(1000)})
    reader = BatchReader(type(many)(name="t", task="binary", label=many.label, features=features))
    batch = Batch([str(i) for i in range(5000)], np.ones(5000), {}, {}, None, None, None, None)
    with pytest.raises(DecodeError, match="'rows' is 5000, wanted at most 4194"):
        reader.read(batch, 0, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS | INTEGERS, st.floats(width=32)), min_size=1, max_size=6))
def test_a_batch_is_read_as_it_was_packed(rows: list[tuple[str, Any, float]]) -> None:
    ids, values, numbers = (list(c) for c in zip(*rows, strict=True))
    batch = Batch(ids, None, {"n": np.array(numbers, np.float32)}, {"c": coded(values)}, None, None, None, None)
    found = unpack(pack(batch))
    assert found.ids == ids
    assert [found.row(i).get("features", {}).get("c") for i in range(len(ids))] == values
    np.testing.assert_array_equal(found.numeric["n"], batch.numeric["n"])
    assert isinstance(found.categorical["c"], Coded)


GOOD = as_batch([example("x"), example("é", label=1, label_time=1.0), example("z", weight=2.0)])
SINGLE = as_protobuf(example("x", label=1, label_time=1.0, weight=2.0))


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_damaged_messages_never_raise(data: st.DataObject) -> None:
    for good, kind in ((GOOD, ContentType.BATCH), (SINGLE, ContentType.PROTOBUF)):
        at = data.draw(st.integers(0, len(good)))
        value = good[:at] + data.draw(st.binary(max_size=4)) + good[at + data.draw(st.integers(0, 4)) :]
        columns, bad = CODECS[0].decode([sent(0, value, kind)])
        assert_sound(columns)
        assert len(columns.ids) + len(bad) >= 1


@settings(deadline=None)
@given(st.binary(max_size=40), st.sampled_from([*ContentType]))
def test_no_bytes_at_all_can_raise(value: bytes, kind: str) -> None:
    columns, bad = CODECS[0].decode([sent(0, value, kind)])
    assert len(columns.ids) + len(bad) == 1


def assert_sound(columns: Columns) -> None:
    """No row that the hot path could stumble over."""
    assert all(1 <= len(i) <= LONGEST_ID for i in columns.ids)
    assert not np.isinf(columns.numeric).any()
    assert not np.isinf(columns.time_s).any()
    assert (~np.isnan(columns.time_s) | ~np.isnan(columns.target)).all()
    assert (np.isnan(columns.target) == np.isnan(columns.label_time_s)).all()
    assert np.isin(columns.target[~np.isnan(columns.target)], (0.0, 1.0)).all()
    weights = columns.weight[~np.isnan(columns.weight)]
    assert ((weights >= 1e-6) & (weights <= 1e6)).all()


def test_scanners_are_compiled_once_for_records_of_all_kinds() -> None:
    json_, proto = (b'{"id": "x", "time": 1, "features": {}}', as_protobuf({"id": "y", "time": 1.0, "features": {}}))
    header = [("content-type", ContentType.PROTOBUF.encode())]
    frame = packed([Message(value=json_), Message(value=proto, headers=header)])
    found = read(frame, topic="t", partition=0, from_offset=0)
    assert found is not None
    CODECS[0].warm()
    for records in (found[0], [sent(0, json_), sent(1, proto, ContentType.PROTOBUF)]):
        columns, bad = CODECS[0].decode(records)
        assert (len(columns.ids), bad) == (2, [])
    for compiled in (scanner._scan, wire_scanner._scan):
        assert len(compiled.signatures) == 1
