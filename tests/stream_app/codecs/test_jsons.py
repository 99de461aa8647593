"""The scanner and msgspec agree to the last bit; what the scanner does not take, msgspec does."""

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.spec import Categorical, Features, Label, ModelSpec, Numeric, Stream
from stream_app.codecs.jsons import JsonCodec, written
from stream_app.codecs.scanner import Scanner
from stream_app.codecs.texts import texts
from stream_app.columns import BadRow, Columns, concatenated, empty
from stream_app.decode import Decoder
from stream_app.events import LONGEST_ID
from tests.stream_app.test_decode import Record, features, label, records_of

FLIGHT = (
    b'{"id":"2013-03-27T0929-EWR-EV4636","key":"EWR","time":1364390940,"features":{"a":-74.03,"b b":0.9659258262890683,'
    b'"c":"EV","id":5}}'
)


def spec_of(task: str = "binary", classes: tuple[int | str, ...] = (0, 1)) -> ModelSpec:
    return ModelSpec(
        name="t",
        task=task,  # type: ignore[arg-type]
        label=Label(name="y", classes=classes),
        features=Features(
            numeric={"a": Numeric(), "b b": Numeric()},
            categorical={"c": Categorical(), "id": Categorical(), "é": Categorical()},
        ),
        stream=Stream(ahead_s=100.0, max_record_bytes=2_000),
    )


SPECS = [spec_of(), spec_of("multiclass", ("late", 7, "on time", "é", -1, 0)), spec_of("regression", ())]
CODECS = [(JsonCodec(spec), Decoder(spec)) for spec in SPECS]


def reference(decoder: Decoder, records: Sequence[Record]) -> tuple[Columns, list[BadRow]]:
    """What msgspec alone makes of the records."""
    events, bad = decoder.decode(records)
    columns = written(events, numeric=2, categorical=3)
    return columns, [BadRow(b.offset, None, b.reason, b.value) for b in bad]


def assert_same(found: Columns, wanted: Columns) -> None:
    assert found.ids == wanted.ids
    for name in Columns._fields:
        if name != "ids":
            a, b = getattr(found, name), getattr(wanted, name)
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            np.testing.assert_array_equal(a, b)
            if a.dtype.kind == "f":
                np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


def assert_agree(records: Sequence[Record], which: int = 0) -> None:
    codec, decoder = CODECS[which]
    (found, bad), (wanted, wanted_bad) = codec.decode(records), reference(decoder, records)
    assert bad == wanted_bad
    assert_same(found, wanted)


def scanned(*values: bytes | None, which: int = 0, timestamp_ms: int = 0) -> list[bool]:
    """Which records the scanner takes without msgspec."""
    into = empty(len(values), numeric=2, categorical=3)
    records = [Record(i, timestamp_ms, value) for i, value in enumerate(values)]
    return list(Scanner(SPECS[which], LONGEST_ID).scan(texts(records), into).tolist())


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-9, 9).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"[-+0-9.eE]{1,8}", fullmatch=True),
)
STRINGS = st.one_of(
    st.text(max_size=6).map(lambda t: json.dumps(t, ensure_ascii=False)),
    st.text(max_size=6).map(json.dumps),
    st.sampled_from(['"UA"', '"late"', '"é"', '"7"', '""', '"a\tb"', '"\\ud800"', '"' + "x" * 512 + '"', "'x'"]),
)
VALUES = st.one_of(NUMBERS, STRINGS, st.sampled_from(["null", "true", "false", "[]", "{}", "[1]", "nul", ""]))
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t \r"])


def objects(names: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects as text, with names twice, unknown names and space where it may be."""
    name = st.sampled_from([*names, "key", "junk"]).map(lambda n: json.dumps(n, ensure_ascii=False))
    member = st.tuples(SPACE, name, SPACE, SPACE, values, SPACE).map(lambda m: f"{m[0]}{m[1]}{m[2]}:{m[3]}{m[4]}{m[5]}")
    return st.lists(member, max_size=7).map(lambda members: "{" + ",".join(members) + "}")


EVENTS = st.one_of(
    objects(
        ["id", "time", "features", "label", "label_time", "weight"],
        st.one_of(VALUES, objects(["a", "b b", "c", "id", "é"], VALUES)),
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.text(min_size=1, max_size=4).map(lambda t: json.dumps(t, ensure_ascii=False)),
            "time": NUMBERS,
            "features": objects(["a", "b b", "c", "id", "é"], st.one_of(NUMBERS, STRINGS, st.just("null"))),
            "label": st.sampled_from(["0", "1", '"late"', "7", '"7"', "-1", "-0", "2.5", "1e39"]),
            "label_time": NUMBERS,
            "weight": NUMBERS,
        },
    ).map(lambda e: "{" + ",".join(f'"{k}":{v}' for k, v in e.items()) + "}"),
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(SPACE, EVENTS, SPACE).map(lambda t: "".join(t).encode("utf-8", "surrogatepass")), max_size=5),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([-1, 0, 1, 10**9]),
)
@example([FLIGHT], 0, 0)
@example([b'{"id":"a","label":1', b',"label_time":1}'], 0, 0)
@example([b'{"id":"a","features":{"id":-0},"time":1}'], 0, 0)
def test_any_records_become_what_msgspec_makes_of_them(values: list[bytes], which: int, timestamp_ms: int) -> None:
    assert_agree([Record(10 + i, timestamp_ms, v) for i, v in enumerate(values)], which)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(FLIGHT)), st.integers(0, 3), st.binary(max_size=3), st.sampled_from([0, 1, 2]))
def test_damaged_records_too(at: int, less: int, more: bytes, which: int) -> None:
    damaged = FLIGHT[:at] + more + FLIGHT[at + less :]
    assert_agree([Record(0, 0, v) if v else Record(0, 0, None) for v in (damaged,)], which)
    assert_agree([Record(i, 0, v) for i, v in enumerate((FLIGHT, damaged, FLIGHT))], which)


@settings(deadline=None, max_examples=500)
@given(st.lists(NUMBERS, min_size=1, max_size=8))
@example(["0.1", "1e23", "9007199254740993", "1732460000.1234567", "8.41e-21", "5e-324", "1.7976931348623157e308"])
def test_numbers_are_rounded_as_msgspec_rounds_them(numbers: list[str]) -> None:
    texts = [f'{{"id":"x","time":{n},"features":{{"a":{n}}},"weight":1}}' for n in numbers]
    assert_agree([Record(i, 0, t.encode()) for i, t in enumerate(texts)])


@pytest.mark.parametrize(
    "value",
    [
        FLIGHT,
        b'{"id":"a","label":1,"label_time":1364395560}',
        b' { "id" : "a" , "label" : 1 , "label_time" : 1364395560.25, "weight": null } \n',
        '{"id":"日本","time":1.5e9,"features":{"é":"São Paulo","c":null,"a":null},"junk":"x","more":null}'.encode(),
        b'{"features":{},"time":0,"id":"a","label":null}',
    ],
)
def test_the_scanner_takes_what_producers_write(value: bytes) -> None:
    assert scanned(value) == [True]
    assert_agree([Record(3, 0, value)])


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b'{"id":"a","id":"b","label":1,"label_time":1}',
        b'{"id":"\\u0061","label":1,"label_time":1}',
        b'{"id":"\xff","label":1,"label_time":1}',
        b'{"id":"a","label":1,"label_time":1}x',
        b'{"id":"a","label":1,"label_time":1,}',
        b'{"id":"a","time":1,"features":{"a":1,"a":2}}',
        b'{"id":"a","time":1,"features":{"c":1.0}}',
        b'{"id":"a","time":1,"features":{"c":1234567890123456789012}}',
        b'{"id":"a","label":2,"label_time":1}',
        b'{"id":"","label":1,"label_time":1}',
        b'{"id":"a","label":1,"label_time":1,"weight":0}',
        b'{"id":"a","label":1,"label_time":1,"junk":"' + b"x" * 2_000 + b'"}',
    ],
)
def test_what_is_unusual_is_left_to_msgspec(value: bytes | None) -> None:
    assert scanned(value) == [False]
    assert_agree([Record(3, 0, value)])


def test_an_unusual_record_leaves_nothing_behind_in_its_row() -> None:
    odd = b'{"id":"b","time":1,"features":{"a":1,"c":"UA"},"label":1,"label_time":1,"time":5,"features":{"b b":2}}'
    assert_agree(records_of(FLIGHT, odd, FLIGHT, timestamp_s=0.0))


def test_bad_records_are_named_and_the_others_keep_their_order() -> None:
    records = records_of(FLIGHT, b"{", label(1), features(a="x"), features(a=2, id_="last"), timestamp_s=0.0)
    columns, bad = CODECS[0][0].decode(records)
    assert columns.ids == ["2013-03-27T0929-EWR-EV4636", "x", "last"]
    assert columns.offsets.tolist() == [10, 12, 14]
    assert [(b.offset, b.row) for b in bad] == [(11, None), (13, None)]
    assert re.search("Expected `float | null`, got `str`", bad[1].reason)


def test_in_any_cut_the_same() -> None:
    records = records_of(FLIGHT, label(0), features(a=1e300, c=None), b"{", label(1, id_="日本"), timestamp_s=0.0)
    codec = CODECS[0][0]
    parts = [codec.decode([r])[0] for r in records]
    assert_same(codec.decode(records)[0], concatenated(parts))


def test_no_records_no_rows() -> None:
    columns, bad = CODECS[0][0].decode([])
    assert (len(columns.ids), bad) == (0, [])


@pytest.mark.parametrize("features", [Features(), Features(numeric={"": Numeric(), "a": Numeric()})])
def test_there_may_be_no_features_or_a_nameless_one(features: Features) -> None:
    spec = ModelSpec(name="t", task="binary", label=Label(name="y", classes=(0, 1)), features=features)
    value = b'{"id":"x","time":1,"features":{"":1,"a":2},"label":1,"label_time":2}'
    columns, bad = JsonCodec(spec).decode(records_of(value, value, timestamp_s=0.0))
    assert bad == []
    assert columns.numeric.tolist() == [[1.0, 2.0][: len(features.numeric)]] * 2
    assert columns.time_s.tolist() == [1.0, 1.0]
