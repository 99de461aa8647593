"""River takes our models for its own: its checks, its pipelines, its evaluation."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from river import compose, datasets, evaluate, metrics, preprocessing, stream
from river.checks import clf, common

from models.river_adapters import RiverClassifier, RiverRegressor
from tests.models.growing import Means

CLASSIFIER, REGRESSOR = RiverClassifier(learner=Means, seed=1), RiverRegressor(learner=Means, seed=1)
WITH_ROWS = (
    common.check_learn_one,
    common.check_shuffle_features_no_impact,
    common.check_predict_one_pure,
    common.check_emerging_features,
    common.check_disappearing_features,
    common.check_radically_disappearing_features,
    common.check_pickling,
    common.check_predict_one_before_any_learn,
)
OF_CLASSES = (clf.check_predict_proba_one, clf.check_classifier_tracks_seen_labels)
ALONE = (
    common.check_repr,
    common.check_str,
    common.check_tags,
    common.check_clone_same_class,
    common.check_clone_is_idempotent,
    common.check_init_has_default_params_for_tests,
    common.check_init_default_params_are_not_mutable,
    common.check_doc,
    common.check_clone_changes_memory_addresses,
    common.check_repr_roundtrips_clone,
    common.check_get_params_matches_signature,
)


def rows_for(model: Any) -> list[tuple[dict[str, float], Any]]:
    source = datasets.Phishing() if isinstance(model, RiverClassifier) else datasets.TrumpApproval()
    return list(source.take(80))


@pytest.mark.parametrize("model", [CLASSIFIER, REGRESSOR], ids=["classifier", "regressor"])
@pytest.mark.parametrize("check", WITH_ROWS, ids=lambda c: c.__name__)
def test_rivers_checks_on_rows_pass(model: Any, check: Callable[..., None]) -> None:
    check(model.clone(), rows_for(model))


@pytest.mark.parametrize("check", OF_CLASSES, ids=lambda c: c.__name__)
def test_rivers_checks_of_classifiers_pass(check: Callable[..., None]) -> None:
    check(CLASSIFIER.clone(), rows_for(CLASSIFIER))


@pytest.mark.parametrize("model", [CLASSIFIER, REGRESSOR], ids=["classifier", "regressor"])
@pytest.mark.parametrize("check", ALONE, ids=lambda c: c.__name__)
def test_rivers_checks_alone_pass(model: Any, check: Callable[..., None]) -> None:
    check(model.clone())


def test_evaluation_takes_it() -> None:
    found = evaluate.progressive_val_score(datasets.Phishing().take(300), CLASSIFIER.clone(), metrics.Accuracy())
    assert found.get() > 0.6


def test_a_pipeline_takes_it() -> None:
    pipeline = compose.SelectType(float, int) | preprocessing.MinMaxScaler() | CLASSIFIER.clone()
    for x, y in datasets.Phishing().take(50):
        pipeline.learn_one(x, y)
    assert sum(pipeline.predict_proba_one({"age_of_domain": 1}).values()) == pytest.approx(1.0)


def test_regression_and_integer_names() -> None:
    model = REGRESSOR.clone()
    for x, y in stream.iter_array([[1.0, 2.0], [1.5, 2.0]], [3.0, 5.0]):
        model.learn_one(x, y)
    assert model.predict_one({0: 1.0, 1: 2.0}) == 4.0


def test_a_clone_has_the_settings_and_has_learned_nothing() -> None:
    model = RiverClassifier(tier="fast", seed=3, learner=Means)
    for x, y in islice(datasets.Phishing(), 20):
        model.learn_one(x, y)
    clone = model.clone()
    assert (clone.tier, clone.seed, clone.learner) == ("fast", 3, Means)
    assert (clone.model.tier, clone.model.seed, clone.predict_proba_one({})) == ("fast", 3, {})
