"""The wire scanner and protobuf's parser agree to the last bit; what the scanner does not take, the parser does."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_app.codecs.examples import ExampleCodec
from stream_app.codecs.texts import texts
from stream_app.codecs.wire_scanner import WireScanner
from stream_app.columns import empty
from stream_app.events import LONGEST_ID
from stream_app.wire import events_pb2 as wire
from tests.stream_app.codecs.test_jsons import SPECS, assert_same
from tests.stream_app.codecs.test_mixed import sent, set_name

CODECS = [ExampleCodec(spec) for spec in SPECS]
DOUBLES = st.floats() | st.sampled_from([0.0, 1.0, 5.0])
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 7, -1])
TEXTS = st.text(max_size=4) | st.sampled_from(["late", "7", "é", "UA", "x" * 200, "x" * 513])
NAMES = st.sampled_from(["a", "b b", "c", "id", "é", "unknown"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    message = wire.Example(id=draw(TEXTS.filter(lambda t: t.isprintable())))
    for name in draw(st.sets(st.sampled_from(["time", "label_time", "weight"]))):
        setattr(message, name, draw(DOUBLES))
    if draw(st.booleans()):
        message.features.SetInParent()
        for name, value in draw(st.dictionaries(NAMES, DOUBLES)).items():
            message.features.numeric[name] = value
        for name, said in draw(st.dictionaries(NAMES, st.none() | INTEGERS | printable())).items():
            named: Any = message.features.categorical[name]
            if said is not None:
                set_name(named, said)
    match draw(st.integers(0, 2)):
        case 1:
            set_name(getattr(message, "class"), draw(INTEGERS | printable()))
        case 2:
            message.value = draw(DOUBLES)
    return message.SerializeToString(deterministic=True)


def printable() -> st.SearchStrategy[str]:
    return TEXTS.filter(lambda t: t.isprintable())


def flight() -> bytes:
    message = wire.Example(id="2013-03-27T0929-EWR-EV4636", time=1364390940.0)
    message.features.numeric.update({"a": -74.03, "b b": 0.9659258262890683})
    message.features.categorical["c"].text = "EV"
    message.features.categorical["id"].number = -5
    getattr(message, "class").number = 1
    message.label_time = 1364395560.0
    return message.SerializeToString(deterministic=True)


FLIGHT = flight()


def assert_agree(values: list[bytes], which: int, timestamp_ms: int) -> None:
    records = [sent(10 + i, value, "", timestamp_ms) for i, value in enumerate(values)]
    (found, bad), (wanted, wanted_bad) = CODECS[which].decode(records), CODECS[which].parse(records)
    assert bad == wanted_bad
    assert_same(found, wanted)


def scanned(*values: bytes, which: int = 0) -> list[bool]:
    into = empty(len(values), numeric=2, categorical=3)
    records = [sent(i, value) for i, value in enumerate(values)]
    return list(WireScanner(SPECS[which], LONGEST_ID).scan(texts(records), into).tolist())


@settings(deadline=None, max_examples=500)
@given(st.lists(messages(), max_size=4), st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 10**9]))
@example([FLIGHT], 0, 0)
def test_any_messages_become_what_protobuf_makes_of_them(values: list[bytes], which: int, timestamp_ms: int) -> None:
    assert_agree(values, which, timestamp_ms)


@settings(deadline=None, max_examples=1000)
@given(st.just(FLIGHT) | messages(), st.data(), st.sampled_from([0, 1, 2]))
def test_damaged_messages_too(good: bytes, data: st.DataObject, which: int) -> None:
    at = data.draw(st.integers(0, len(good)))
    value = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    assert_agree([value], which, 0)
    assert_agree([FLIGHT, value, FLIGHT], which, 0)


@settings(deadline=None, max_examples=300)
@given(st.lists(messages(), min_size=2, max_size=2), st.sampled_from([0, 1, 2]))
def test_merged_messages_too(values: list[bytes], which: int) -> None:
    assert_agree([b"".join(values)], which, 0)  # the wire format's way of setting fields again


@pytest.mark.parametrize("number", [0, 7, -1, 2**63 - 1, -(2**63), 10**18])
def test_integers_are_categories_and_numbers(number: int) -> None:
    message = wire.Example(id="x", time=1.0)
    for name in ("a", "c"):
        message.features.categorical[name].number = number
    value = message.SerializeToString()
    assert scanned(value) == [True]
    assert_agree([value], 0, 0)


def test_the_scanner_takes_what_producers_write() -> None:
    label = wire.Example(id="a", label_time=1.0, weight=2.0)
    getattr(label, "class").text = "late"
    value = wire.Example(id="a", label_time=1.0, value=-2.5).SerializeToString()
    assert scanned(FLIGHT, FLIGHT) == [True, True]
    assert scanned(label.SerializeToString(), which=1) == [True]
    assert scanned(value, which=2) == [True]


def test_what_is_unusual_is_left_to_protobuf() -> None:
    for value in (b"", FLIGHT + FLIGHT, FLIGHT[:-1], b"\x0a\x02\xc3\xa9" + FLIGHT[28:], FLIGHT + b"\x42\x00"):
        assert scanned(value) == [False]
        assert_agree([value], 0, 0)
