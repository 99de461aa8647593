"""Only River's own classes are made, from plain settings; what cannot be made is refused with a reason."""

from typing import Any

import pytest

from models.estimators import EstimatorError, build

TREE = "river.tree.HoeffdingAdaptiveTreeClassifier"
SCALER, LOGISTIC = "river.preprocessing.StandardScaler", "river.linear_model.LogisticRegression"


def built(*stages: tuple[str, dict[str, Any]], task: str = "binary", seed: int = 0) -> Any:
    return build(stages, task=task, seed=seed)


def problem(*stages: tuple[str, dict[str, Any]], task: str = "binary") -> str:
    with pytest.raises(EstimatorError) as caught:
        build(stages, task=task, seed=0)
    return str(caught.value)


def test_settings_arrive_and_a_seed_is_given_where_one_is_taken() -> None:
    tree = built((TREE, {"grace_period": 7}), seed=5)
    assert (tree.grace_period, tree.seed) == (7, 5)
    assert built((TREE, {"seed": 9}), seed=5).seed == 9


def test_stages_are_a_pipeline() -> None:
    pipeline = built((SCALER, {}), (LOGISTIC, {"l2": 0.5}))
    assert list(pipeline.steps) == ["StandardScaler", "LogisticRegression"]
    assert pipeline["LogisticRegression"].l2 == 0.5


def test_a_setting_may_be_an_estimator_itself() -> None:
    inner = {
        "estimator": LOGISTIC,
        "settings": {"optimizer": {"estimator": "river.optim.Adam", "settings": {"lr": 0.5}}},
    }
    many = built(("river.multiclass.OneVsRestClassifier", {"classifier": inner}), task="multiclass")
    assert type(many.classifier.optimizer).__name__ == "Adam"
    voting = {"models": [inner, {"estimator": TREE}]}
    assert built(("river.ensemble.VotingClassifier", voting), seed=3).models[1].seed == 3


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("os.system", {}, "'os.system' is no path of a class in River, such as river.tree.HoeffdingTreeClassifier"),
        ("river", {}, "'river' is no path of a class in River"),
        ("river.os.System", {}, "river.os.System: No module named 'river.os'"),
        ("river.tree.HoeffdingTreeClasifier", {}, "river.tree has no HoeffdingTreeClasifier, did you mean Hoeff"),
        ("river.compose.pipeline.OrderedDict", {}, "river.compose.pipeline has no OrderedDict"),
        ("river.base.Classifier", {}, "river.base.Classifier is abstract, wanted one that can learn"),
        ("river.tree.HoeffdingTreeRegressor", {}, "river.tree.HoeffdingTreeRegressor is no classifier, wanted one for"),
        (TREE, {"grace_periode": 1}, f"{TREE} has no setting 'grace_periode'; did you mean grace_period?"),
        (TREE, {"splitter": {"estimator": "os.path"}}, "'os.path' is no path of a class in River"),
        (TREE, {"splitter": {"estimator": TREE, "seed": 1}}, f"{TREE} has seed, wanted estimator and settings"),
        ("river.ensemble.BaggingClassifier", {}, "river.ensemble.BaggingClassifier cannot be made with {}: "),
    ],
)
def test_what_cannot_be_made_is_refused(path: str, settings: dict[str, Any], message: str) -> None:
    assert problem((path, settings)).startswith(message)


def test_tasks_and_stages_must_fit() -> None:
    assert problem((TREE, {}), task="regression") == f"{TREE} is no regressor, wanted one for task regression"
    assert problem((LOGISTIC, {}), (LOGISTIC, {})).startswith(f"{LOGISTIC} is no transformer, wanted one before")
    assert problem((SCALER, {})).startswith(f"{SCALER} is no classifier")
    assert "knows two classes only" in problem((LOGISTIC, {}), task="multiclass")
    assert "knows two classes only" in problem((SCALER, {}), (LOGISTIC, {}), task="multiclass")
