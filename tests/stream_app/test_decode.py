import json
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.spec import Categorical, Features, Label, ModelSpec, Numeric, Stream
from stream_app.decode import BadRecord, Decoder, Event
from stream_app.events import LONGEST_ID

SENT_S = 1_000_000.0


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None


def spec_of(task: str = "binary", classes: tuple[int | str, ...] = (0, 1)) -> ModelSpec:
    return ModelSpec(
        name="t",
        task=task,  # type: ignore[arg-type]
        label=Label(name="y", classes=classes),
        features=Features(
            numeric={"a": Numeric(), "b b": Numeric()}, categorical={"c": Categorical(), "id": Categorical()}
        ),
        stream=Stream(ahead_s=100.0),
    )


BINARY = Decoder(spec_of())
REGRESSION = Decoder(spec_of("regression", ()))


def records_of(*values: object, timestamp_s: float = SENT_S) -> list[Record]:
    """Records from offset 10 on; what is neither bytes nor None is written as JSON."""
    raw = [v if v is None or isinstance(v, bytes) else json.dumps(v).encode() for v in values]
    return [Record(10 + i, int(timestamp_s * 1000), v) for i, v in enumerate(raw)]


def features(id_: str = "x", time: object = 5.0, **values: object) -> dict[str, object]:
    return {"id": id_, "time": time, "features": values}


def label(label: object, id_: str = "x", time: object = 5.0) -> dict[str, object]:
    return {"id": id_, "label": label, "label_time": time}


def event_of(value: object, decoder: Decoder = BINARY, timestamp_s: float = SENT_S) -> Event:
    events, bad = decoder.decode(records_of(value, timestamp_s=timestamp_s))
    assert not bad, bad
    return events[0]


def reason_of(value: object, decoder: Decoder = BINARY, timestamp_s: float = SENT_S) -> str:
    """Why it is no event; a good record before and one after it must come through."""
    good = b'{"id":"good","label":1,"label_time":1}'
    records = records_of(good, value, good, timestamp_s=timestamp_s)
    events, bad = decoder.decode(records)
    assert [e.offset for e in events] == [10, 12]
    assert [(b.offset, b.value) for b in bad] == [(11, records[1].value or b"")]
    return bad[0].reason


def test_features_stand_in_spec_order() -> None:
    assert event_of({**features(c="UA", a=1, id=7), "unknown": [1]}) == Event(
        10, "x", 5.0, (1.0, None, "UA", 7), None, None
    )
    assert event_of({"id": "x", "time": 5, "features": {"b b": 2.5}}).row == (None, 2.5, None, None)


def test_features_and_label_in_one_record() -> None:
    event = event_of({**features(a=None), "label": 1, "label_time": 9})
    assert event == Event(10, "x", 5.0, (None,) * 4, 1.0, 9.0)


def test_no_features_given_is_a_row_with_all_missing() -> None:
    assert event_of(features()).row == (None,) * 4


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the record is empty, wanted a JSON object"),
        (b"", "the record is empty, wanted a JSON object"),
        (b" \n\t", "truncated"),
        (b"{", "truncated"),
        (b"null", "Expected `object`, got `null`"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"id":"a","label":1,"label_time":1}{"id":"b","label":0,"label_time":1}', "malformed"),
        (b'{"id":"a","label":1,"label_time":1}\n{"id":"b","label":0,"label_time":1}', "malformed"),
        ({}, "missing required field `id`"),
        ({"id": 5, "label": 1, "label_time": 1}, "Expected `str`, got `int` - at `$.id`"),
        ({"id": "x"}, "event 'x' has neither 'features' nor 'label'"),
        ({"id": "x", "features": None, "label": None}, "event 'x' has neither"),
        ({"id": "x", "features": [], "time": 1}, "Expected `object | null`, got `array` - at `$.features`"),
        (features(a="1"), "Expected `float | null`, got `str`"),
        (features(a=True), "Expected `float | null`, got `bool`"),
        (features(c=1.5), "Expected `int | str | null`, got `float`"),
        (features(c=True), "Expected `int | str | null`, got `bool`"),
        (features(c=["UA"]), "Expected `int | str | null`, got `array`"),
        (features(time=None), "event 'x': 'time' is None, wanted seconds since the epoch"),
        (features(time="5"), "Expected `float | null`, got `str` - at `$.time`"),
        ({"id": "x", "label": 1}, "event 'x': 'label_time' is None, wanted seconds since the epoch"),
        (b'{"id":"x","time":NaN,"features":{}}', "malformed"),
        (b'{"id":"x","time":1e999,"features":{}}', "Number out of range"),
        (b'{"id":"x","time":1,"features":{"a":1e999}}', "Number out of range"),
        (b'{"id":"x","time":1,"features":{"a":Infinity}}', "malformed"),
        (b'{"id":"x","time":1,"features":{"c":' + b"9" * 5000 + b"}}", "Integer value out of range"),
        (b'{"id":"\xff","label":1,"label_time":1}', "'utf-8' codec can't decode byte 0xff"),
        (b'{"id":"x","label":"\xed\xa0\x80","label_time":1}', "'utf-8' codec can't decode"),
        (b'{"id":"\\ud800","label":1,"label_time":1}', "surrogate"),
        (b'{"id":"x","junk":' + b"[" * 100_000, "recursion depth"),
        (b'{"id":"x","junk":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "recursion depth"),
        (features(id_=""), f"'id' has 0 characters, wanted 1 to {LONGEST_ID}"),
        (features(id_="é" * 513), f"'id' has 513 characters, wanted 1 to {LONGEST_ID}"),
        (label(2), "event 'x': 'label' is 2, wanted one of 0, 1"),
        (label("1"), "event 'x': 'label' is '1', wanted one of 0, 1"),
        (label(True), "got `bool` - at `$.label`"),
        (label(1.0), "got `float` - at `$.label`"),
        (label([0, 1]), "Expected `int | str | null`, got `array` - at `$.label`"),
        (label({"late": 1}), "Expected `int | str | null`, got `object` - at `$.label`"),
        (label(1) | {"weight": 0}, "event 'x': 'weight' is 0.0, wanted a number from 1e-06 to 1e+06"),
        (label(1) | {"weight": -1.5}, "event 'x': 'weight' is -1.5, wanted a number from"),
        (features() | {"weight": 1.1e6}, "event 'x': 'weight' is 1100000.0, wanted a number from"),
        (label(1) | {"weight": "2"}, "Expected `float | null`, got `str` - at `$.weight`"),
        (label(1) | {"weight": True}, "Expected `float | null`, got `bool` - at `$.weight`"),
        (b'{"id":"x","label":1,"label_time":1,"weight":NaN}', "malformed"),
        (b'{"id":"x","label":' + b"1" * 100 + b',"label_time":1}', "'label' is 111"),
    ],
)
def test_what_is_no_event_is_set_aside_with_its_reason(value: object, reason: str) -> None:
    assert reason in reason_of(value)


def test_the_longest_id_and_any_script_are_welcome() -> None:
    assert event_of(label(0, id_="é" * LONGEST_ID)).id == "é" * LONGEST_ID
    assert event_of(b'{"id":"\\ud83d\\ude00\\u0000","label":0,"label_time":1}').id == "😀\0"


def test_categories_keep_their_type_and_numbers_become_floats() -> None:
    assert event_of(features(c=5, id="5")).row == (None, None, 5, "5")
    row = event_of(features(a=10**30)).row
    assert row is not None
    assert row[0] == 1e30
    assert isinstance(row[0], float)


@pytest.mark.parametrize("weight", [1e-6, 1, 2.5, 1e6])
def test_a_weight_may_stand_on_either_record(weight: float) -> None:
    for value in (label(1), features(), features() | label(1)):
        assert event_of(value | {"weight": weight}).weight == weight
        assert event_of(value).weight is event_of(value | {"weight": None}).weight is None


def test_classes_become_their_index() -> None:
    mixed = Decoder(spec_of("multiclass", ("late", 7, "on time")))
    assert [event_of(label(c), mixed).target for c in ("late", 7, "on time")] == [0.0, 1.0, 2.0]
    assert "'label' is '7', wanted one of 'late', 7, 'on time'" in reason_of(label("7"), Decoder(mixed_spec()))


def mixed_spec() -> ModelSpec:
    # reason_of's good records carry the label 1
    return spec_of("multiclass", ("late", 7, "on time", 1))


@pytest.mark.parametrize("value", [0, -3, 2.5, 1e38, 10**20])
def test_regression_takes_any_number_that_float32_can_hold(value: float) -> None:
    target = event_of(label(value), REGRESSION).target
    assert target == float(value)
    assert isinstance(target, float)


@pytest.mark.parametrize("value", [1e39, -1e39, 1e308])
def test_a_regression_label_beyond_float32_is_set_aside(value: float) -> None:
    assert f"'label' is {value!r}, wanted a number that float32 can hold" in reason_of(label(value), REGRESSION)


@pytest.mark.parametrize("value", [True, "1", [1.0], {"late": 1.0}])
def test_a_regression_label_of_another_type_is_set_aside(value: object) -> None:
    assert "Expected `float | null`" in reason_of(label(value), REGRESSION)


@pytest.mark.parametrize("name", ["time", "label_time"])
def test_times_far_ahead_of_the_kafka_timestamp_are_set_aside(name: str) -> None:
    make = {"time": lambda t: features(time=t), "label_time": lambda t: label(1, time=t)}[name]
    assert event_of(make(SENT_S + 100.0))
    reason = reason_of(make(SENT_S + 101.0))
    assert f"'{name}' is 1000101.0, 101 s ahead of its Kafka timestamp; wanted at most 100" in reason
    assert len(reason_of(make(1e308))) < 200


@pytest.mark.parametrize("time", [-1e308, 0.0, 1.0])
def test_times_long_past_are_welcome(time: float) -> None:
    assert event_of(features(time=time)).time_s == time


def test_records_larger_than_the_stream_allows_are_set_aside() -> None:
    size = len(json.dumps(features(note="")))
    assert event_of(features(note="x" * (65_536 - size)))
    assert "65537 bytes, wanted at most 65536 (stream.max_record_bytes)" in reason_of(
        features(note="x" * (65_537 - size))
    )


def test_without_a_kafka_timestamp_no_time_is_too_far_ahead() -> None:
    assert event_of(features(time=1e12), timestamp_s=-0.001).time_s == 1e12


@pytest.mark.parametrize(
    "values",
    [
        # As many JSON values as records, but not one to each.
        [b'{"id":"a","label":1,"label_time":1}{"id":"b","label":0,"label_time":1}', b" "],
        [b" ", b'{"id":"a","label":1,"label_time":1}{"id":"b","label":0,"label_time":1}'],
        [b'{"id":"a","label":1', b',"label_time":1}{"id":"b","label":0,"label_time":1}'],
        [b'{"id":"a","features":{}', b',"time":1} {"id":"b","label":0,"label_time":1}'],
        [b'{"id":"a","label":1,"label_time":1}{"id":"b","features":', b'{},"time":1}'],
    ],
)
def test_records_cannot_conspire_to_shift_the_others(values: list[bytes]) -> None:
    last = b'{"id":"z","label":1,"label_time":1}'
    events, bad = BINARY.decode(records_of(*values, last))
    assert [(e.offset, e.id) for e in events] == [(12, "z")]
    assert [b.offset for b in bad] == [10, 11]


def test_line_breaks_between_tokens_are_no_harm() -> None:
    pretty = json.dumps(label(1, id_="a"), indent=2).encode()
    events, bad = BINARY.decode(records_of(pretty, label(0, id_="b"), pretty + b"\n"))
    assert [(e.offset, e.id, e.target) for e in events] == [(10, "a", 1.0), (11, "b", 0.0), (12, "a", 1.0)]
    assert not bad


def test_no_records_no_events() -> None:
    assert BINARY.decode([]) == ([], [])


PIECES = st.sampled_from(
    [
        b'{"id":"a","label":1,"label_time":1}',
        b'{"id":"b","time":2,"features":{"a":1,"c":"UA"}}',
        b'{"id":"c","label":5,"label_time":1}',
        b"{",
        b"}",
        b'{"id":"d",',
        b'"label":0,"label_time":1}',
        b"\n",
        b"\r",
        b" ",
        b'"',
        b"\xff",
        b"\\",
    ]
)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.none() | st.lists(PIECES, max_size=4).map(b"".join), max_size=6))
@example([b'{"id":"a","label":1,"label_time":1}' * 2, b" "])
def test_together_or_one_by_one_is_the_same(values: list[bytes | None]) -> None:
    records = records_of(*values)
    events: list[Event] = []
    bad: list[BadRecord] = []
    for record in records:
        e, b = BINARY.decode([record])
        events += e
        bad += b
    assert BINARY.decode(records) == (events, bad)
    assert len(events) + len(bad) == len(records)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_no_bytes_at_all_can_raise(value: bytes) -> None:
    events, bad = BINARY.decode(records_of(value))
    assert len(events) + len(bad) == 1
    assert msgspec.json.encode([b.reason for b in bad])
