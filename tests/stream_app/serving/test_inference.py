"""Tensors become columns as rows by name would, or are refused with what is wrong."""

from typing import Any

import numpy as np
import pytest

from models.features import FeatureEncoder
from stream_app.errors import ServingError
from stream_app.live import LiveModel, prepare
from stream_app.serving import inference
from stream_app.serving.limits import Limits
from stream_app.serving.tensors import DTYPES, Tensor
from tests.stream_app.versions import artefact, envelope_of, looking, spec_of

LIMITS = Limits(rows=8)


@pytest.fixture(scope="module")
def live() -> LiveModel:
    spec = spec_of("m")
    data = artefact(spec, graph=looking(spec))
    return prepare(data, envelope_of(spec, data))


def numbers(name: str, *values: float, datatype: str = "FP32", shape: tuple[int, ...] = (), **said: Any) -> Tensor:
    return Tensor(name, datatype, shape or (len(values),), np.array(values, DTYPES[datatype]), said)


def texts(name: str, *values: Any, shape: tuple[int, ...] = (), **said: Any) -> Tensor:
    return Tensor(name, "BYTES", shape or (len(values),), list(values), said)


def asked(live: LiveModel, *inputs: Tensor) -> inference.Columns:
    return inference.columns(live.encoder, inputs, LIMITS)


def answer(live: LiveModel, columns: inference.Columns) -> Any:
    return live.predict_columns(columns.numeric, columns.categories, columns.times_s)


def test_named_inputs_say_what_rows_say(live: LiveModel) -> None:
    columns = asked(
        live,
        numbers("distance", 2.0, float("nan")),
        texts("carrier", b"UA", "B6", shape=(2, 1)),
        numbers("flight", 12, 2**60 + 1, datatype="INT64"),
        numbers("time_s", 1.7e9, float("nan"), datatype="FP64"),
    )
    rows = [{"distance": 2.0, "carrier": "UA", "flight": 12}, {"carrier": "B6", "flight": 2**60 + 1}]
    np.testing.assert_array_equal(answer(live, columns), live.predict(rows, [1.7e9, None]))
    assert columns.categories[1] == [12, 2**60 + 1]


def test_the_matrix_says_what_rows_say(live: LiveModel) -> None:
    nan = float("nan")
    values = (2.0, 5.0, 3.0, nan, nan, 1.0, nan, 7.0)
    columns = asked(live, numbers("features", *values, shape=(2, 4)))
    rows = [{"distance": 2.0, "hour": 5.0, "carrier": 3}, {"hour": 1.0, "flight": 7}]
    np.testing.assert_array_equal(answer(live, columns), live.predict(rows))


def test_what_is_missing_may_have_a_value(live: LiveModel) -> None:
    columns = asked(
        live,
        numbers("distance", -1, 4, datatype="INT32", missing=-1),
        texts("carrier", b"", b"UA", missing=""),
        numbers("flight", 0, 4, datatype="UINT8", missing=0),
    )
    assert np.isnan(columns.numeric[0, 0])
    assert list(columns.categories[0]) == [None, "UA"]
    assert list(columns.categories[1]) == [None, 4]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([], "inputs is empty, wanted at least one tensor"),
        ([numbers("distence", 1)], r"no feature 'distence'; did you mean 'distance'\?"),
        ([numbers("x", 1)], "no feature 'x'; it has distance, hour, carrier, flight"),
        ([numbers("distance", 1), numbers("distance", 1)], "'distance' is there 2 times, wanted once"),
        ([numbers("distance", 1), numbers("hour", 1, 2)], r"'hour' is FP32 \[2\], wanted as many rows as 'distance'"),
        ([Tensor("distance", "FP32", (), np.ones(1))], r"'distance' is FP32 \[\], wanted at least one dimension"),
        ([numbers("distance", shape=(0,))], r"'distance' is FP32 \[0\], wanted 1 to 8 rows"),
        ([numbers("distance", *[1] * 9)], r"\[9\], wanted 1 to 8 rows"),
        ([numbers("distance", 1, 2, shape=(1, 2))], r"\[1, 2\], wanted \[1\] or \[1, 1\]"),
        ([numbers("distance", 1, float("inf"))], r"'distance' .* element \[1\] is infinite, wanted finite"),
        ([texts("distance", b"1")], r"'distance' is BYTES \[1\], wanted numbers, such as FP32"),
        ([numbers("distance", True, datatype="BOOL")], "BOOL .*, wanted numbers"),
        ([numbers("carrier", True, datatype="BOOL")], "BOOL .*, wanted numbers"),
        ([numbers("distance", 1, missing="x")], "parameter missing is 'x', wanted a number"),
        ([numbers("carrier", 1.5)], "row 0: feature 'carrier' is 1.5, wanted a whole number"),
        ([texts("carrier", b"\xff")], r"'carrier' .* has b'\\xff', wanted texts in UTF-8"),
        ([texts("carrier", b"a", b"b", shape=(1, 2))], r"\[1, 2\], wanted \[1\] or \[1, 1\]"),
        ([numbers("features", 1, 2, 3, shape=(1, 3))], r"wanted \[1, 4\]: 2 numeric features, then 2 categorical"),
        ([numbers("features", 1, float("inf"), 3, 4, shape=(1, 4))], r"element \[0, 1\] is infinite"),
        ([numbers("features", 1, 2, 3, float("inf"), shape=(1, 4))], "row 0: feature 'flight' is inf, wanted a whole"),
        ([numbers("features", 1, 2, 3, 4, shape=(1, 4)), numbers("hour", 1)], "no feature 'hour'; it has features"),
        ([numbers("distance", 1), numbers("time_s", float("inf"))], "'time_s' .* is infinite"),
    ],
)
def test_inputs_that_the_model_cannot_take(live: LiveModel, inputs: list[Tensor], text: str) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        asked(live, *inputs)
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_feature_may_have_the_name_of_a_special_input() -> None:
    spec = spec_of("m")
    for name in ("features", "time_s"):
        spec.features.numeric[name] = spec.features.numeric["hour"]
    columns = inference.columns(FeatureEncoder(spec), [numbers("features", 1), numbers("time_s", 2)], LIMITS)
    assert columns.numeric[0, 2:].tolist() == [1.0, 2.0]
    assert np.isnan(columns.times_s).all()


def test_only_what_is_live_is_found(live: LiveModel) -> None:
    assert inference.named(live, "m", "") is inference.named(live, "m", "1") is live
    for model, version, text in (("n", "", "no model 'n', wanted 'm'"), ("m", "7", "'7' of 'm' is not live, wanted 1")):
        with pytest.raises(ServingError, match=text) as caught:
            inference.named(live, model, version)
        assert caught.value.status == "NOT_FOUND"


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_is_declared_is_what_comes(task: str) -> None:
    spec = spec_of("m", task)
    scores = np.full((2, spec.outputs), 0.25, np.float32)
    declared = {d.name: d for d in inference.outputs_of(spec)}
    for tensor in inference._outputs(spec, scores):
        expected = declared.pop(tensor.name)
        assert tensor.datatype == expected.datatype
        assert tensor.shape[1:] == expected.shape[1:]
        assert len(tensor.values) == np.prod(tensor.shape)
    assert declared == {}
