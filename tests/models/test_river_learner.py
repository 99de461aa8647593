"""What a River estimator is told and asked, and what becomes of its answers."""

from typing import Any

import msgspec
import numpy as np
import pytest
from river import base

from models import estimators, learners, pickles
from models.direct import Direct
from models.features import FeatureEncoder
from models.learner import Floats, Ints
from models.river_learner import RiverLearner
from models.shapes import dense_columns
from models.spec import Blend, Categorical, Features, Label, Learner, ModelSpec, Numeric, Rates, SpecError, Stage
from models.torch_learner import TorchLearner

TREE, SCALER = "river.tree.HoeffdingAdaptiveTreeClassifier", "river.preprocessing.StandardScaler"
CLASSES: dict[str, tuple[int | str, ...]] = {"binary": (0, 1), "multiclass": ("x", "y", "z"), "regression": ()}


def spec_of(task: str = "binary", **learner: Any) -> ModelSpec:
    return ModelSpec(
        name="t",
        task=task,  # type: ignore[arg-type]
        label=Label(name="y", classes=CLASSES[task]),
        features=Features(
            numeric={"a": Numeric(), "b": Numeric()},
            categorical={"c": Categorical(size=5, dim=2)},
            rates=Rates(half_lives_s=(60.0,), keys=((),), slots=4),
        ),
        learner=Learner(kind="river", **learner),
        blend=Blend(kind="none"),
    )


class Recorder(base.Classifier):
    """Says what it is told to, and keeps what it was given."""

    def __init__(self, said: object) -> None:
        self.said = said
        self.given: list[tuple[dict[str, object], object, dict[str, object]]] = []

    def learn_one(self, x: dict[Any, object], y: object, **more: object) -> None:
        self.given.append((x, y, more))

    def predict_proba_one(self, x: dict[Any, object], **_: object) -> Any:
        if self.said is NotImplementedError:
            raise NotImplementedError
        return self.said

    def predict_one(self, x: dict[Any, object], **_: object) -> Any:
        return 2 if self.said is NotImplementedError else self.said


class Weighing(Recorder):
    def learn_one(self, x: dict[Any, object], y: object, w: float = 1.0) -> None:
        self.given.append((x, y, {"w": w}))


MEAN = {"statistic": {"estimator": "river.stats.Mean"}}


def told(recorder: Recorder, task: str = "binary", **learner: Any) -> RiverLearner:
    """A learner of that estimator."""
    if task == "regression":
        learner = {"estimator": "river.dummy.StatisticRegressor", "settings": MEAN}
    made = RiverLearner(spec_of(task, **{"estimator": TREE, **learner}))
    made._estimator = recorder
    return made


def rows(n: int = 2, rates: int = 1) -> tuple[Floats, Ints]:
    """x (B, 2 + rates + 2): a, b, the rates, two indicators."""
    x = np.array([[0.5, 0.0, *[0.25] * rates, 0.0, 1.0]] * n, np.float32)
    return x, np.array([[3]] * n, np.int64)


def test_rows_carry_names() -> None:
    recorder = Recorder({})
    learner = told(recorder)
    learner.learn(*rows(1), np.ones(1, np.float32))
    numbers = {"a": 0.5, "b": 0.0, "rate[0]": 0.25, "missing[a]": 0.0, "missing[b]": 1.0}
    assert recorder.given == [({**numbers, "c": "3"}, True, {})]


def test_categories_may_be_one_hot() -> None:
    recorder = Recorder({})
    told(recorder, estimator=TREE, nominal=False).learn(*rows(1), np.zeros(1, np.float32))
    x, y, _ = recorder.given[0]
    assert (x["c=3"], "c" in x, y) == (1.0, False, False)


def test_weights_go_to_those_who_take_them() -> None:
    for recorder, wanted in ((Weighing({}), [{"w": 2.0}, {"w": 0.5}]), (Recorder({}), [{}, {}])):
        learner = told(recorder)
        assert learner.takes_weights == isinstance(recorder, Weighing)
        learner.learn(*rows(), np.ones(2, np.float32), np.array([2.0, 0.5], np.float32))
        assert [more for _, _, more in recorder.given] == wanted


def test_a_pipeline_takes_weights_if_its_last_step_does() -> None:
    for path, wanted in (("river.linear_model.LogisticRegression", True), ("river.linear_model.PAClassifier", False)):
        pipeline = (Stage(estimator=SCALER), Stage(estimator=path))
        assert RiverLearner(spec_of(pipeline=pipeline, nominal=False)).takes_weights == wanted


@pytest.mark.parametrize(
    ("task", "said", "wanted"),
    [
        ("binary", {True: 0.75, False: 0.25}, [0.75]),
        ("binary", {True: 0.5}, [1.0]),
        ("binary", {}, [0.5]),
        ("binary", {True: float("nan"), False: 0.5}, [0.5]),
        ("multiclass", {0: 1.0, 2: 3.0}, [0.25, 0.0, 0.75]),
        ("multiclass", {}, [1 / 3, 1 / 3, 1 / 3]),
        ("multiclass", NotImplementedError, [0.0, 0.0, 1.0]),
        ("regression", 3.5, [3.5]),
        ("regression", float("inf"), [0.0]),
        ("regression", float("nan"), [0.0]),
        ("regression", None, [0.0]),
    ],
)
def test_answers_are_whole_and_finite(task: str, said: object, wanted: list[float]) -> None:
    found = told(Recorder(said), task).predict(*rows(rates=3 if task == "multiclass" else 1))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([wanted, wanted]))


def test_no_rows_are_no_answers() -> None:
    x, categories = rows(rates=3)
    assert RiverLearner(spec_of("multiclass", estimator=TREE)).predict(x[:0], categories[:0]).shape == (0, 3)


def test_what_fails_on_the_specs_rows_is_refused_at_once() -> None:
    with pytest.raises(estimators.EstimatorError, match=r"fails on rows of this spec: .*; nominal = false"):
        RiverLearner(spec_of(estimator="river.linear_model.LogisticRegression"))
    assert RiverLearner(spec_of(estimator="river.linear_model.LogisticRegression", nominal=False))


def test_trying_it_out_leaves_no_trace() -> None:
    learner = RiverLearner(spec_of(estimator="river.dummy.PriorClassifier"))
    assert learner.predict(*rows(1)).tolist() == [[0.5]]
    learner.learn(*rows(1), np.ones(1, np.float32))
    assert learner.predict(*rows(1)).tolist() == [[1.0]]


def test_a_state_that_names_anything_else_is_refused() -> None:
    learner = RiverLearner(spec_of(estimator=TREE))
    with pytest.raises(pickles.PickleError, match=r"names builtins\.print"):
        learner.load({"estimator": np.frombuffer(b"\x80\x04cbuiltins\nprint\n.", np.uint8)})


def test_direct_answers_raw_rows_as_the_learner_answers_standardised_ones() -> None:
    spec = spec_of(estimator=TREE, settings={"grace_period": 10})
    encoder, learner = FeatureEncoder(spec), learners.make(spec)
    assert isinstance(learner, RiverLearner)
    rng = np.random.default_rng(0)
    dense = rng.normal(50.0, 9.0, (300, dense_columns(spec))).astype(np.float32)
    dense[::7, 0] = np.nan
    categories = rng.integers(0, 5, (300, 1))
    encoder.scaler.observe(dense)
    learner.learn(encoder.standardise(dense), categories, (categories[:, 0] == 3).astype(np.float32))
    found = Direct(encoder, learner).run(dense, categories)
    assert np.array_equal(found, learner.predict(encoder.standardise(dense), categories))
    assert (found[categories[:, 0] == 3] > 0.5).all()


def test_each_kind_is_made() -> None:
    assert isinstance(learners.make(spec_of(estimator=TREE)), RiverLearner)
    torch = learners.make(
        msgspec.structs.replace(spec_of(estimator=TREE), learner=Learner(kind="torch")), learning_rate=0.5
    )
    assert isinstance(torch, TorchLearner)
    assert torch.learning_rate == 0.5
    with pytest.raises(SpecError, match=r"learner: river\.linear_model\.LogisticRegression fails on rows"):
        learners.make(spec_of(estimator="river.linear_model.LogisticRegression"))
