"""Messages as JSON come back as they were, and what is wrong is named with its place."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ServingError
from stream_app.serving import jsons
from stream_app.wire import stream_app_pb2 as pb

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.text(max_size=5) | FLOATS | st.integers(-(2**53), 2**53)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"features": st.dictionaries(st.text(max_size=5), VALUES, max_size=3)},
            optional={"time_s": FLOATS},
        ),
        max_size=3,
    ),
    st.sampled_from(["unspecified", "score", "log_odds"]),
)
def test_a_request_comes_back(rows: list[dict[str, Any]], explain: str) -> None:
    data = {"rows": rows, "explain": explain, "key": "someone"}
    assert jsons.dump(jsons.parse(pb.PredictRequest.DESCRIPTOR, data)) == data


def test_every_kind_of_field_comes_back() -> None:
    model = pb.GetModelResponse(
        model="m",
        classes=["a", "b"],
        features=[pb.Feature(name="x", kind="numeric")],
        version=pb.Version(number=2**64 - 1, created_s=1.5),
        prior_only=True,
        offsets={-3: 2**63 - 1},
        metrics={"log_loss": 0.25},
        variants=[pb.Variant(batch=2**32 - 1)],
    )
    data = msgspec.json.decode(msgspec.json.encode(jsons.dump(model)))
    assert data["offsets"] == {"-3": 2**63 - 1}
    assert jsons.parse(pb.GetModelResponse.DESCRIPTOR, data) == model


def test_what_json_cannot_hold_is_null() -> None:
    assert jsons.dump(pb.GetModelResponse(metrics={"a": math.nan, "b": math.inf}))["metrics"] == {"a": None, "b": None}
    assert jsons.dump(pb.Prediction()) == {"scores": {}, "label": ""}  # nothing optional


def test_integers_that_no_double_holds_go_as_texts() -> None:
    request = jsons.parse(pb.PredictRequest.DESCRIPTOR, {"rows": [{"features": {"a": 2**60 + 1}}]})
    assert request.rows[0].features["a"].text == str(2**60 + 1)


def test_null_is_left_out() -> None:
    assert jsons.parse(pb.PredictRequest.DESCRIPTOR, {"rows": None, "explain": None}) == pb.PredictRequest()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "the body is [], wanted an object"),
        ({"row": []}, "the body: there is no field 'row'; did you mean 'rows'?"),
        ({"rows": {}}, "rows is {}, wanted a list"),
        ({"rows": [1]}, "rows[0] is 1, wanted an object"),
        ({"rows": [{}, {"features": []}]}, "rows[1].features is [], wanted an object"),
        ({"rows": [{"features": {"a": [1]}}]}, "rows[0].features.a is [1], wanted a number, a text or null"),
        ({"rows": [{"features": {"a": True}}]}, "rows[0].features.a is True, wanted a number, a text or null"),
        ({"rows": [{"features": {"a": 10**5000}}]}, "rows[0].features.a is an endless number, wanted a shorter one"),
        ({"rows": [{"time_s": "now"}]}, "rows[0].time_s is 'now', wanted a number"),
        ({"rows": [{"time_s": 10**400}]}, "rows[0].time_s is 1000"),
        ({"explain": 1}, "explain is 1, wanted unspecified or score or log_odds"),
        ({"explain": "EXPLAIN_SCORE"}, "wanted unspecified or score or log_odds"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(data: object, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        jsons.parse(pb.PredictRequest.DESCRIPTOR, data)
    assert (caught.value.status, text in str(caught.value)) == ("INVALID_ARGUMENT", True), str(caught.value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"labels": -1}, "labels is -1, wanted a whole number from 0 to 18446744073709551615"),
        ({"labels": 1.0}, "labels is 1.0, wanted a whole number"),
        ({"offsets": {"x": 1}}, "offsets.x is 'x', wanted a number"),
        ({"offsets": {"5000000000": 1}}, "wanted a whole number from -2147483648 to 2147483647"),
        ({"offsets": {"1": "x"}}, "offsets.1 is 'x', wanted a number"),
        ({"prior_only": 1}, "prior_only is 1, wanted true or false"),
        ({"model": 1}, "model is 1, wanted a text"),
        ({"classes": [1]}, "classes[0] is 1, wanted a text"),
    ],
)
def test_other_kinds_of_field(data: object, text: str) -> None:
    with pytest.raises(ServingError) as caught:
        jsons.parse(pb.GetModelResponse.DESCRIPTOR, data)
    assert text in str(caught.value), str(caught.value)


def test_schemas_name_each_other() -> None:
    found: dict[str, jsons.Schema] = {}
    assert jsons.schema(pb.PredictResponse.DESCRIPTOR, found) == {"$ref": "#/components/schemas/PredictResponse"}
    assert set(found) == {"PredictResponse", "Prediction", "Explanation", "Attribution", "Scores", "Staleness"}
    assert found["Attribution"]["properties"]["value"] == {"type": ["number", "string", "null"]}
    assert found["Prediction"]["properties"]["scores"]["additionalProperties"] == {"type": ["number", "null"]}
