"""Plain requests are answered as messages are, to the bit; whatever is not plain is left to these."""

import asyncio
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.codecs import answering
from stream_app.errors import ServingError
from stream_app.live import LiveModel, prepare
from stream_app.serving.plain import Plain
from stream_app.wire import stream_app_pb2 as pb
from tests.stream_app.serving.test_answers import Call, answers_of, ask, columns, doubles, live_of
from tests.stream_app.versions import NOW_S, artefact, envelope_of, spec_of

NAN = float("nan")


def row(time_s: float | None = None, **features: float | str) -> pb.Row:
    values = {n: pb.Value(text=v) if isinstance(v, str) else pb.Value(number=v) for n, v in features.items()}
    return pb.Row(features=values, time_s=time_s)


def rows(*given: pb.Row, **more: Any) -> pb.PredictRequest:
    return pb.PredictRequest(rows=given, **more)


PLAIN = {
    "one row": rows(row(distance=3.0, hour=7.5, carrier="UA", flight="1545")),
    "what is missing": rows(pb.Row(), row(distance=NAN), row(carrier="DL")),
    "an empty value": rows(pb.Row(features={"distance": pb.Value(), "carrier": pb.Value()})),
    "zeros": rows(row(distance=0.0, hour=-0.0, flight=0.0), row(carrier="")),
    "integers as categories": rows(row(flight=1545.0), row(flight=-7.0), row(flight=-0.0), row(carrier=2.0**52)),
    "beyond what float32 holds": rows(row(distance=1e300), row(distance=-1e300)),
    "many rows": rows(*(row(distance=float(i), carrier=f"C{i % 7}", flight=str(i)) for i in range(200))),
    "a long text": rows(row(carrier="x" * 5_000)),
    "times": rows(row(NOW_S + 3600.0, carrier="UA"), row(carrier="UA"), row(0.0, carrier="UA")),
    "columns": columns(
        pb.Column(name="distance", numbers=doubles(3.0, NAN)),
        pb.Column(name="carrier", texts=["UA", "DL"], at=[2, 0]),
        pb.Column(name="flight", texts=["1", "2"]),
    ),
    "columns of nothing": columns(rows=3),
    "many columns' rows": columns(
        pb.Column(name="hour", numbers=doubles(*map(float, range(200)))),
        pb.Column(name="carrier", texts=[str(i) for i in range(180)], at=[i % 181 for i in range(200)]),
        rows=200,
    ),
}
NOT_PLAIN = {
    "nothing": rows(),
    "a feature that the model has not": rows(row(distence=1.0)),
    "a text for a number": rows(row(distance="3")),
    "an infinite number": rows(row(distance=float("inf"))),
    "half a category": rows(row(flight=1.5)),
    "a category that is no number": rows(row(flight=NAN)),
    "text that is not ASCII": rows(row(carrier="é")),
    "a key": rows(row(distance=1.0), key="me"),
    "an explanation": rows(row(distance=1.0), explain=pb.EXPLAIN_SCORE),
    "an endless time": rows(row(float("inf"))),
    "rows and columns": pb.PredictRequest(rows=[pb.Row()], columns=pb.Columns(rows=1)),
    "too many rows": rows(*[pb.Row()] * 257),
    "columns without rows": columns(rows=0),
    "too short a column": columns(pb.Column(name="hour", numbers=doubles(1.0))),
    "an infinite number in a column": columns(pb.Column(name="hour", numbers=doubles(1.0, float("inf")))),
    "a text that is not there": columns(pb.Column(name="carrier", texts=["UA"], at=[1, 2])),
    "a column twice": columns(*[pb.Column(name="hour", numbers=doubles(1.0, 2.0))] * 2),
    "columns with times": columns(pb.Column(name="hour", numbers=doubles(1.0, 2.0)), times_s=doubles(1.0, NAN)),
}


def plain_of(live: LiveModel) -> Plain:
    plain = Plain(4096)
    plain.learn(live)
    return plain


@pytest.fixture(scope="module")
def lives() -> dict[str, LiveModel]:
    return {task: live_of(task) for task in ("binary", "multiclass", "regression")}


@pytest.fixture(scope="module")
def plain(lives: dict[str, LiveModel]) -> Plain:
    return plain_of(lives["binary"])


def said(answer: bytes | None) -> pb.PredictResponse:
    assert answer is not None
    response = pb.PredictResponse.FromString(answer)
    assert response.staleness.log_age_s == 0.5
    assert response.staleness.version_age_s > 0.0
    return response


def same(answer: pb.PredictResponse, wanted: pb.PredictResponse) -> bool:
    for response in (answer, wanted):
        response.ClearField("staleness")
    return answer == wanted


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("asked", PLAIN.values(), ids=PLAIN)
def test_plain_requests_are_answered_as_messages_are(
    lives: dict[str, LiveModel], task: str, asked: pb.PredictRequest
) -> None:
    live = lives[task]
    found = said(plain_of(live).answer(asked.SerializeToString(), live, 0.5))
    assert same(found, ask(live, asked))


@pytest.mark.parametrize("asked", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_others_are_left_to_messages(plain: Plain, lives: dict[str, LiveModel], asked: pb.PredictRequest) -> None:
    assert plain.answer(asked.SerializeToString(), lives["binary"], 0.5) is None


def test_before_two_classes_were_seen_the_prior_is_said() -> None:
    spec = spec_of("m")
    data = artefact(spec, labels=0)
    live = prepare(data, envelope_of(spec, data))
    asked = PLAIN["one row"]
    found = said(plain_of(live).answer(asked.SerializeToString(), live, 0.5))
    assert found.prior_only
    assert same(found, ask(live, asked))


def test_a_later_version_answers_as_itself(plain: Plain, lives: dict[str, LiveModel]) -> None:
    before, asked = lives["binary"], PLAIN["one row"].SerializeToString()
    data = artefact(before.spec, 0.75)
    later = prepare(data, envelope_of(before.spec, data, before.envelope))
    found = [said(plain.answer(asked, live, 0.5)) for live in (before, later, before)]
    assert [r.version for r in found] == [1, 2, 1]
    assert found[0].predictions[0].scores["late"] != pytest.approx(0.75)
    assert found[1].predictions[0].scores["late"] == pytest.approx(0.75)


def test_another_model_is_left_to_messages_until_it_is_known(plain: Plain, lives: dict[str, LiveModel]) -> None:
    assert plain.answer(PLAIN["one row"].SerializeToString(), lives["multiclass"], 0.5) is None
    assert Plain(4096).answer(PLAIN["one row"].SerializeToString(), lives["binary"], 0.5) is None


def test_no_more_rows_than_are_allowed(lives: dict[str, LiveModel]) -> None:
    few = Plain(2)
    few.learn(lives["binary"])
    assert few.answer(rows(*[pb.Row()] * 2).SerializeToString(), lives["binary"], 0.5)
    assert few.answer(rows(*[pb.Row()] * 3).SerializeToString(), lives["binary"], 0.5) is None


@pytest.mark.parametrize("ready", [False, True])
def test_bytes_are_answered_plain_or_as_messages(lives: dict[str, LiveModel], ready: bool) -> None:
    live = lives["binary"]
    answers, _ = answers_of(live)
    if ready:
        answers.plain.learn(live)

    def answered(request: bytes, call: Call) -> bytes:
        return asyncio.run(answers.predicted(request, call))

    for asked in (PLAIN["many rows"], rows(row(carrier="é"))):
        found = pb.PredictResponse.FromString(answered(asked.SerializeToString(), Call()))
        assert same(found, ask(live, asked))
    with pytest.raises(ServingError, match="2 bytes that are no such message"):
        answered(b"\xff\xff", Call())
    with pytest.raises(ServingError, match="the deadline passed"):
        answered(PLAIN["one row"].SerializeToString(), Call(left_s=0.0))


def test_compiled_code_that_cannot_be_had_leaves_all_to_messages(
    lives: dict[str, LiveModel], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr("stream_app.serving.plain._Known", broken)
    plain = plain_of(lives["binary"])
    assert "requests are read as messages" in caplog.text
    assert plain.answer(PLAIN["one row"].SerializeToString(), lives["binary"], 0.5) is None


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([r.SerializeToString() for r in (*PLAIN.values(), *NOT_PLAIN.values()) if r.ByteSize() < 1_000]),
    st.lists(st.tuples(st.integers(0, 1_000), st.sampled_from("=+-"), st.integers(0, 255)), max_size=4),
)
def test_whatever_is_changed_both_say_the_same(
    plain: Plain, lives: dict[str, LiveModel], request_: bytes, changes: list[tuple[int, str, int]]
) -> None:
    live, changed = lives["binary"], bytearray(request_)
    for place, how, byte in changes:
        at = place % (len(changed) + 1)
        changed[at : at + (how != "+")] = b"" if how == "-" else bytes((byte,))
    answer = plain.answer(bytes(changed), live, 0.5)
    if answer is not None:
        with np.errstate(invalid="ignore"):  # numpy warns of signalling NaNs
            assert same(said(answer), ask(live, pb.PredictRequest.FromString(bytes(changed))))


def test_columns_that_end_within_their_number_of_rows_are_left_to_messages(
    plain: Plain, lives: dict[str, LiveModel]
) -> None:
    for torn in (b"\x1a\x02\x08\x81", b"\x1a\x01\x08"):
        assert plain.answer(torn, lives["binary"], 0.5) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_do_no_harm(plain: Plain, lives: dict[str, LiveModel], data: bytes) -> None:
    for raw in (data, b"\x0a" + struct.pack("B", min(len(data), 127)) + data):
        answer = plain.answer(raw, lives["binary"], 0.5)
        if answer is not None:
            assert same(said(answer), ask(lives["binary"], pb.PredictRequest.FromString(raw)))


def test_scores_are_those_of_the_graph(plain: Plain, lives: dict[str, LiveModel]) -> None:
    live = lives["binary"]
    found = said(plain.answer(PLAIN["one row"].SerializeToString(), live, 0.5)).predictions[0].scores
    wanted = live.predict([{"distance": 3.0, "hour": 7.5, "carrier": "UA", "flight": "1545"}])[0, 0]
    np.testing.assert_array_equal([found["on time"], found["late"]], [1.0 - float(wanted), float(wanted)])


def test_compiled_code_is_of_one_kind_so_that_no_call_waits_for_a_compiler(lives: dict[str, LiveModel]) -> None:
    spec = spec_of("m")
    data = artefact(spec, labels=0)
    for live in (*lives.values(), prepare(data, envelope_of(spec, data))):
        plain_of(live).answer(PLAIN["one row"].SerializeToString(), live, 0.5)
    kinds: Any = answering._answer
    assert len(kinds.overloads) == 1


def test_that_compiled_code_is_there_is_told(lives: dict[str, LiveModel]) -> None:
    told: list[Plain] = []
    plain = Plain(4096, lambda: told.append(plain))
    plain.learn(lives["binary"])
    assert told == [plain]
