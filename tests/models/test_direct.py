"""A learner that answers itself says what it said while learning, to the last bit."""

import numpy as np
import pytest

from models import learners
from models.direct import Direct
from models.features import FeatureEncoder
from models.learner import Floats, Ints
from models.spec import Learner, ModelSpec
from tests.models.test_torch_learner import TASKS, spec_of


def spec_for(task: str) -> ModelSpec:
    return spec_of(task, learner=Learner(kind="mixture", tier="fast"))


def raw_rows(rows: int = 40) -> tuple[Floats, Ints]:
    """Raw columns, some missing, and codes."""
    rng = np.random.default_rng(0)
    numeric = rng.normal(300.0, 50.0, (rows, 2)).astype(np.float32)
    numeric[::5, 1] = np.nan
    return numeric, np.stack([rng.integers(0, 5, rows), rng.integers(0, 4, rows)], axis=1)


@pytest.mark.parametrize("task", TASKS)
def test_raw_columns_are_standardised_and_answered_by_the_learner(task: str) -> None:
    spec, (numeric, categories) = spec_for(task), raw_rows()
    encoder, learner = FeatureEncoder(spec), learners.make(spec)
    encoder.scaler.observe(numeric)
    x = encoder.standardise(numeric)
    learner.learn(x, categories, (numeric[:, 0] > 300.0).astype(np.float32))
    direct = Direct(encoder, learner)
    assert direct.run(numeric, categories).tobytes() == learner.predict(x, categories).tobytes()
    assert direct.run(numeric, categories).shape == (40, spec.outputs)
    assert np.isfinite(direct.run(np.full((3, 2), np.nan, np.float32), categories[:3])).all()


def test_without_categorical_features_there_are_no_codes() -> None:
    base = spec_for("binary")
    spec = spec_of(learner=base.learner, features=type(base.features)(numeric=base.features.numeric))
    encoder, learner = FeatureEncoder(spec), learners.make(spec)
    numeric, _ = raw_rows()
    direct = Direct(encoder, learner)
    assert direct.run(numeric).tobytes() == direct.run(numeric, np.zeros((40, 0), np.int64)).tobytes()
