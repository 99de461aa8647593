"""The compiled pass and numpy's passes give the same bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.features import FeatureEncoder
from models.scaler import Scaler
from models.spec import Features, Label, ModelSpec, Numeric, Rates
from models.standard import observe, standardise

SPEC = ModelSpec(
    name="t",
    task="binary",
    label=Label(name="y", classes=(0, 1)),
    features=Features(numeric={"a": Numeric(), "b": Numeric()}, rates=Rates(keys=((),), half_lives_s=(60.0,), slots=4)),
)
VALUES = st.one_of(
    st.floats(width=32, allow_infinity=False),
    st.floats(-3, 3, width=32),
    st.sampled_from([np.nan, 0.0, -0.0, np.finfo(np.float32).max]),
)


def rows(most: int) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, most).flatmap(lambda n: arrays(np.float32, (n, 3), elements=VALUES))


def known(rng: np.random.Generator, values: int) -> Scaler:
    scaler = Scaler(3)
    scaler.observe(rng.normal(3.0, 2.0, (values, 3)).astype(np.float32))
    return scaler


@settings(deadline=None, derandomize=True)
@given(rows(40), st.sampled_from([0, 50, 300]))
def test_statistics_are_numpys_to_the_bit(x: np.ndarray, values: int) -> None:
    found, wanted = known(np.random.default_rng(0), values), known(np.random.default_rng(0), values)
    observe(found, x)
    wanted.observe(x)
    for name, array in found.state().items():
        np.testing.assert_array_equal(array, wanted.state()[name])


@settings(deadline=None, derandomize=True)
@given(rows(40), st.sampled_from([0, 300]))
def test_z_is_numpys_to_the_bit(x: np.ndarray, values: int) -> None:
    encoder = FeatureEncoder(SPEC)
    encoder.scaler = known(np.random.default_rng(1), values)
    found, wanted = standardise(encoder, x), encoder.standardise(x)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


@pytest.mark.parametrize("count", [1, 7, 1024, 5000])
def test_large_steps_too(count: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_t(2, (count, 3)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    found, wanted = known(rng, 300), Scaler(3)
    wanted.load(found.state())
    observe(found, x)
    wanted.observe(x)
    for name, array in found.state().items():
        np.testing.assert_array_equal(array, wanted.state()[name])
