"""Rows and columns are answered alike; a stream goes on after a request that was wrong."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np
import pytest

from models.spec import ModelSpec
from stream_app.errors import ServingError
from stream_app.following import Arms
from stream_app.live import LiveModel, prepare
from stream_app.serving.answers import Answers
from stream_app.serving.limits import Limits
from stream_app.serving.source import Source
from stream_app.wire import stream_app_pb2 as pb
from tests.stream_app.versions import NOW_S, artefact, envelope_of, looking, spec_of

NAN = float("nan")


class Fixed:
    """A follower that follows nothing."""

    waiting_for = ""

    def __init__(self, live: LiveModel) -> None:
        self.live = live
        self.arms = Arms(live)

    def log_age_s(self, now_s: float) -> float:
        return 0.5


class Call:
    """One whose caller has so many seconds left."""

    def __init__(self, left_s: float | None = None) -> None:
        self.left_s = left_s

    def time_remaining(self) -> float | None:
        return self.left_s


def live_of(task: str = "binary") -> LiveModel:
    spec = spec_of("m", task)
    data = artefact(spec, graph=looking(spec))
    return prepare(data, envelope_of(spec, data))


@pytest.fixture(scope="module")
def live() -> LiveModel:
    return live_of()


def answers_of(live: LiveModel, **limits: Any) -> tuple[Answers, Source]:
    source = Source(Fixed(live), Limits(**limits))  # type: ignore[arg-type]
    return Answers(source, Limits(**limits)), source


def ask(live: LiveModel, request: pb.PredictRequest, call: Call | None = None) -> pb.PredictResponse:
    async def main() -> pb.PredictResponse:
        return await answers_of(live)[0].Predict(request, call or Call())

    return asyncio.run(main())


def doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def columns(*given: pb.Column, rows: int = 2, times_s: bytes = b"") -> pb.PredictRequest:
    return pb.PredictRequest(columns=pb.Columns(rows=rows, columns=given, times_s=times_s))


def values(response: pb.PredictResponse, spec: ModelSpec) -> list[list[float]]:
    """Scores of rows or columns alike."""
    if response.HasField("scores"):
        found = np.frombuffer(response.scores.values, "<f4").reshape(-1, max(len(response.scores.classes), 1))
        return [[float(v) for v in row] for row in found]
    if spec.task == "regression":
        return [[p.value] for p in response.predictions]
    return [[p.scores[name] for name in spec.score_names] for p in response.predictions]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_columns_say_what_rows_say(task: str) -> None:
    live = live_of(task)
    rows = pb.PredictRequest(
        rows=[
            pb.Row(features={"distance": pb.Value(number=0.0), "carrier": pb.Value(text="UA")}, time_s=NOW_S + 99.0),
            pb.Row(features={"flight": pb.Value(number=12.0), "carrier": pb.Value(text="")}),
            pb.Row(
                features={"distance": pb.Value(number=NAN), "hour": pb.Value(text=str(2**60)), "flight": pb.Value()}
            ),
        ]
    )
    asked = columns(
        pb.Column(name="distance", numbers=doubles(0.0, NAN, NAN)),
        pb.Column(name="hour", numbers=doubles(NAN, NAN, 2.0**60)),
        pb.Column(name="carrier", texts=["UA", ""], at=[1, 2, 0]),
        pb.Column(name="flight", numbers=doubles(NAN, 12.0, NAN)),
        rows=3,
        times_s=doubles(NOW_S + 99.0, NAN, NAN),
    )
    by_row, by_column = ask(live, rows), ask(live, asked)
    assert values(by_column, live.spec) == [pytest.approx(row, abs=1e-6) for row in values(by_row, live.spec)]
    assert list(by_column.scores.classes) == ([] if task == "regression" else list(live.spec.score_names))
    assert (by_column.version, by_column.variant, by_column.staleness.log_age_s) == (1, "fp32", 0.5)


def test_what_repeated_doubles_are_on_the_wire_are_numbers(live: LiveModel) -> None:
    """A client may declare ``repeated double numbers`` where the server says bytes."""
    packed = b"\x0a\x08distance\x12\x10" + doubles(1.0, 2.0)
    assert pb.Column.FromString(packed).numbers == doubles(1.0, 2.0)


def test_many_columns_at_once_are_answered_in_pieces(live: LiveModel) -> None:
    distances = np.linspace(-3.0, 3.0, 1000)
    many = ask(live, columns(pb.Column(name="distance", numbers=distances.tobytes()), rows=1000))
    said = np.array(values(many, live.spec))[:, 1]
    assert len(said) == 1000
    assert (np.diff(said) > 0).all()


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (columns(rows=0), "rows is empty"),
        (columns(rows=5000), "rows has 5000 rows, wanted at most 4096"),
        (columns(pb.Column(name="distanse", numbers=doubles(1.0, 2.0))), "did you mean 'distance'"),
        (columns(pb.Column(name="distance", numbers=doubles(1.0))), "has 8 bytes, wanted 8 per row: 16"),
        (columns(pb.Column(name="distance", numbers=doubles(1.0, float("inf")))), "'distance' is inf in row 1"),
        (columns(pb.Column(name="distance", texts=["1", "2"])), "'distance' has texts, wanted numbers"),
        (columns(pb.Column(name="carrier", texts=["UA"])), "'carrier' has 1 values, wanted one per row: 2"),
        (columns(pb.Column(name="carrier", texts=["UA"], at=[1, 2])), "'carrier' has 2 in `at`, wanted at most 1"),
        (columns(pb.Column(name="flight", numbers=doubles(1.0, 2.5))), "'flight' is 2.5, wanted a string"),
        (columns(times_s=doubles(1.0)), "'times_s' has 8 bytes"),
        (columns(times_s=doubles(1.0, float("-inf"))), "times_s is infinite"),
        (pb.PredictRequest(rows=[pb.Row()], columns=pb.Columns(rows=1)), "has columns and 1 rows"),
        (pb.PredictRequest(columns=pb.Columns(rows=1), explain=pb.EXPLAIN_SCORE), "has columns and explain"),
    ],
)
def test_wrong_columns_are_refused_with_what_is_wrong(live: LiveModel, request_: pb.PredictRequest, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        ask(live, request_)
    assert caught.value.status == "INVALID_ARGUMENT"
    assert text in str(caught.value)


def test_a_call_past_its_deadline_is_not_computed(live: LiveModel) -> None:
    with pytest.raises(ServingError, match="the deadline passed") as caught:
        ask(live, pb.PredictRequest(rows=[pb.Row()]), Call(left_s=0.0))
    assert caught.value.status == "DEADLINE_EXCEEDED"


async def sent(requests: Iterable[pb.PredictRequest]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request.SerializeToString()


def test_a_stream_is_answered_in_order_and_goes_on_after_a_wrong_request(live: LiveModel) -> None:
    good = [pb.PredictRequest(rows=[pb.Row()] * n) for n in (1, 3, 2)]
    bad = pb.PredictRequest()

    async def main() -> list[pb.PredictStreamResponse]:
        answers, _ = answers_of(live)
        stream = answers.PredictStream(sent([good[0], bad, *good[1:]]), Call())
        return [pb.PredictStreamResponse.FromString(r) async for r in stream]

    found = asyncio.run(main())
    assert [len(r.response.predictions) for r in found] == [1, 0, 3, 2]
    assert (found[1].error.status, found[1].error.message) == (
        "INVALID_ARGUMENT",
        "rows is empty, wanted at least one row",
    )


def test_a_stream_reads_on_only_when_its_answer_was_taken(live: LiveModel) -> None:
    taken: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for i in range(1_000_000):
            taken.append(i)
            yield pb.PredictRequest(rows=[pb.Row()]).SerializeToString()

    async def main() -> None:
        answers, _ = answers_of(live)
        stream = answers.PredictStream(endless(), Call())
        await anext(stream)
        await asyncio.sleep(0)
        assert taken == [0]

    asyncio.run(main())


def test_an_idle_stream_ends_when_the_server_does(live: LiveModel) -> None:
    async def main() -> None:
        answers, source = answers_of(live)
        forever = asyncio.Event()

        async def silent() -> AsyncIterator[bytes]:
            yield pb.PredictRequest(rows=[pb.Row()]).SerializeToString()
            await forever.wait()

        found: list[bytes] = []

        async def read() -> None:
            async for response in answers.PredictStream(silent(), Call()):
                found.append(response)

        reading = asyncio.ensure_future(read())
        while not found:
            await asyncio.sleep(0)
        await source.drain()
        with pytest.raises(ServingError, match="this server is ending") as caught:
            await reading
        assert caught.value.status == "UNAVAILABLE"
        assert len(found) == 1

    asyncio.run(main())
