"""Columns become requests that hold what was given; answers become arrays."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.asking import columns_asked, scored_of, streamed_of
from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb


def texts_of(column: pb.Column) -> list[str | None]:
    return [column.texts[i - 1] if i else None for i in column.at]


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), min_size=1))
def test_texts_come_back(values: list[str | None]) -> None:
    if not any(isinstance(v, str) for v in values):
        values = [*values, "x"]
    request = columns_asked({"carrier": values})  # type: ignore[dict-item]  # None is missing
    assert request.columns.rows == len(values)
    assert texts_of(request.columns.columns[0]) == values
    assert len(set(request.columns.columns[0].texts)) == len(request.columns.columns[0].texts)


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.0], [1, 2], np.array([1, 2], np.int32), np.array([1.0, 2.0], np.float32), (True, 2)],
)
def test_numbers_of_any_kind_are_doubles(values: Any) -> None:
    column = columns_asked({"distance": values}).columns.columns[0]
    assert np.frombuffer(column.numbers, "<f8").tolist() == [1.0, 2.0]


def test_none_is_missing_among_numbers() -> None:
    request = columns_asked({"distance": [1.0, None]}, times_s=[math.nan, 5.0])  # type: ignore[dict-item]
    assert np.isnan(np.frombuffer(request.columns.columns[0].numbers, "<f8")).tolist() == [False, True]
    assert np.frombuffer(request.columns.times_s, "<f8")[1] == 5.0


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"a": [1.0], "b": [1.0, 2.0]}, "feature 'b' has 2 values, wanted 1, as the first column has"),
        ({"a": [[1.0]]}, r"feature 'a' has shape \(1, 1\), wanted \(B,\)"),
        ({"a": [{}]}, "'a' cannot be numbers"),
        ({"a": ["\ud800"]}, "feature 'a' cannot be sent"),
    ],
)
def test_what_no_columns_can_hold(columns: Any, text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        columns_asked(columns)
    assert caught.value.status == "INVALID_ARGUMENT"


def test_scores_are_an_array_with_labels() -> None:
    values = np.array([[0.25, 0.75], [0.5, 0.5]], "<f4")
    answer = pb.PredictResponse(scores=pb.Scores(classes=["no", "yes"], values=values.tobytes()), version=3)
    scored = scored_of(answer)
    np.testing.assert_array_equal(scored.values, values)
    assert (scored.labels, scored.version.number) == (["yes", "no"], 3)


def test_numbers_have_no_labels() -> None:
    scored = scored_of(pb.PredictResponse(scores=pb.Scores(values=np.array([1.5, 2.5], "<f4").tobytes())))
    assert (scored.values.tolist(), scored.labels) == ([[1.5], [2.5]], [])


def test_an_error_of_a_stream_is_its_requests_own() -> None:
    error = streamed_of(pb.PredictStreamResponse(error=pb.Error(status="INVALID_ARGUMENT", message="no")))
    assert isinstance(error, ServingError)
    assert (error.status, str(error)) == ("INVALID_ARGUMENT", "no")
