"""A version answers as its learner would, or is refused."""

import dataclasses

import msgspec
import numpy as np
import pytest

from models.features import FeatureError
from models.snapshot import pack, unpack
from models.spec import ModelSpec
from stream_app.errors import ModelLogError
from stream_app.live import LiveModel, prepare
from tests.stream_app.versions import (
    NOW_S,
    artefact,
    envelope_of,
    looking,
    onnx,
    spec_of,
    variant_of,
)


def prepared(spec: ModelSpec, score: float = 0.75, labels: int = 4) -> LiveModel:
    data = artefact(spec, score, labels)
    return prepare(data, envelope_of(spec, data))


def score(model: LiveModel | None) -> float | None:
    return None if model is None else round(float(model.predict([{}])[0, -1]), 4)


@pytest.mark.parametrize(("task", "k"), [("binary", 1), ("multiclass", 3), ("regression", 1)])
def test_answers(task: str, k: int) -> None:
    model = prepared(spec_of("m", task))
    scores = model.predict([{"distance": 3.0, "carrier": "UA"}, {}])
    assert scores.shape == (2, k)
    assert scores.dtype == np.float32
    assert model.variant == "fp32"


def test_rows_are_explained_against_those_that_the_version_remembers() -> None:
    spec = spec_of("m")
    arrays, texts = unpack(artefact(spec, graph=looking(spec)))
    assert prepare(pack(arrays, texts), envelope_of(spec, pack(arrays, texts))).explain({})[0].base == [0.5]
    kept = np.zeros((3, 4), np.float32)
    kept[:, 0] = 1e6  # as far as the scaler lets it: 5 deviations, half of which the graph takes
    arrays |= {"importance.dense": kept, "importance.categories": np.zeros((3, 2), np.int32)}
    model = prepare(pack(arrays, texts), envelope_of(spec, pack(arrays, texts)))
    explained, dense = model.explain({"distance": 2.0}, log_odds=True)
    assert explained.base == pytest.approx([2.5], abs=1e-4)
    assert explained.contributions[0] == pytest.approx([-1.5], abs=1e-4)
    assert dense[0] == 2.0


@pytest.mark.parametrize(("task", "warm"), [("binary", 2), ("multiclass", 2), ("regression", 1)])
def test_prior_only_until_two_classes_were_seen(task: str, warm: int) -> None:
    known = [not prepared(spec_of("m", task), labels=n).prior_only for n in range(4)]
    assert known == [n >= warm for n in range(4)]


@pytest.mark.parametrize(
    ("task", "labels", "prior"),
    [
        ("binary", 0, [0.5]),
        ("binary", 1, [0.75]),
        ("multiclass", 0, [1 / 3, 1 / 3, 1 / 3]),
        ("multiclass", 1, [2 / 3, 1 / 6, 1 / 6]),
        ("regression", 0, [0.0]),
    ],
)
def test_until_then_answers_are_the_prior(task: str, labels: int, prior: list[float]) -> None:
    model = prepared(spec_of("m", task), labels=labels)
    assert model.predict([{"distance": 3.0}, {}]) == pytest.approx(np.array([prior, prior], np.float32))
    with pytest.raises(FeatureError, match="'distance' is 'far', wanted a number"):
        model.predict([{"distance": "far"}])


def test_rates_are_read_at_the_newest_label_unless_told() -> None:
    model = prepared(spec_of("m"), labels=3)
    assert model.newest_s == NOW_S
    seen: list[np.ndarray] = []

    class Spy:
        def run(self, numeric: np.ndarray, categories: np.ndarray) -> np.ndarray:
            seen.append(numeric)
            return np.zeros((len(numeric), 1), np.float32)

    spied = dataclasses.replace(model, session=Spy())
    spied.predict([{"carrier": "UA"}] * 3, [None, NOW_S, NOW_S + 86_400.0])
    default, newest, tomorrow = seen[0][:, -1]
    assert default == newest != tomorrow


def test_without_rates_the_newest_clock_counts() -> None:
    spec = spec_of("m")
    features = msgspec.structs.replace(spec.features, rates=type(spec.features.rates)())
    model = prepared(msgspec.structs.replace(spec, features=features))
    assert model.newest_s == NOW_S - 60.0


def test_a_whole_number_is_the_integer_category() -> None:
    model = prepared(spec_of("m"))
    rows = [{"flight": 12.0}, {"flight": 12}, {"flight": "12"}]
    assert len({model.encoder.raw_of([r]).categories.tobytes() for r in rows}) == 1
    with pytest.raises(FeatureError, match=r"'flight' is 12\.5, wanted a string or an integer"):
        model.predict([{"flight": 12.5}])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a, t: a.pop("serving.onnx"), "KeyError"),
        (lambda a, t: a.update({"serving.onnx": np.zeros(9, np.uint8)}), "wanted a loadable"),
        (lambda a, t: a.update({"features.rates.w": np.zeros((9, 9))}), "ValueError"),
        (lambda a, t: t.pop("spec"), "'spec'"),
        (lambda a, t: t.update(spec="{}"), "SpecError"),
    ],
)
def test_refuses_what_cannot_be_loaded(change: object, text: str) -> None:
    data = artefact(spec_of("m"))
    arrays, texts = unpack(data)
    change(arrays, texts)
    with pytest.raises(ModelLogError, match=f"version [0-9a-f]{{16}} .*{text}"):
        prepare(pack(arrays, texts), envelope_of(spec_of("m"), data))


def test_refuses_torn_bytes() -> None:
    data = artefact(spec_of("m"))
    with pytest.raises(ModelLogError, match="not a snapshot"):
        prepare(data[:-9], envelope_of(spec_of("m"), data))


def test_refuses_scores_that_are_none() -> None:
    spec = spec_of("m", "regression")
    with pytest.raises(ModelLogError, match=r"self-check gave \[\[nan\]\], wanted a finite number"):
        prepared(spec, score=float("nan"))
    arrays, texts = unpack(artefact(spec_of("m")))
    arrays["serving.onnx"] = np.frombuffer(onnx(spec_of("m", "regression"), 7.0), np.uint8)
    data = pack(arrays, texts)
    with pytest.raises(ModelLogError, match=r"self-check gave \[\[7.0\]\], wanted probabilities"):
        prepare(data, envelope_of(spec, data))


def test_refuses_a_graph_of_another_shape() -> None:
    arrays, texts = unpack(artefact(spec_of("m")))
    arrays["serving.onnx"] = np.frombuffer(onnx(spec_of("m", "multiclass"), 0.5), np.uint8)
    data = pack(arrays, texts)
    with pytest.raises(ModelLogError, match="self-check failed"):
        prepare(data, envelope_of(spec_of("m"), data))


def test_variant() -> None:
    model = prepared(spec_of("m"), 0.75)
    graph = onnx(spec_of("m"), 0.8)
    small = model.with_variant(variant_of(model.envelope, graph), graph)
    assert (score(small), small.variant) == (0.8, "int8")
    assert (score(model), model.variant) == (0.75, "fp32")
    with pytest.raises(ModelLogError, match=r"variant int8 .* wanted a loadable graph"):
        model.with_variant(variant_of(model.envelope, b"?"), b"?")
    other = msgspec.structs.replace(model.envelope, id="f" * 16)
    with pytest.raises(ModelLogError, match=r"variant int8 of version f{16}: given to version"):
        model.with_variant(variant_of(other, graph), graph)
