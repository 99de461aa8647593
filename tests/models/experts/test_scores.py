"""Softmax and the slopes of the losses, as the formulas have them."""

import numpy as np
import pytest

from models.experts.scores import HUBER, slope_of, squash


def test_logits_become_their_softmax() -> None:
    out = np.array([1.0, -2.0, 0.5], np.float32)
    wanted = np.exp(out.astype(np.float64)) / np.exp(out.astype(np.float64)).sum()
    squash(out)
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    out = np.array([1e30, -1e30, 0.0], np.float32)
    squash(out)
    np.testing.assert_array_equal(out, [1, 0, 0])


def test_a_value_stays() -> None:
    out = np.array([3.5], np.float32)
    squash(out)
    assert out[0] == np.float32(3.5)


def test_the_slope_of_log_loss_is_that_of_the_softmax() -> None:
    logits, true, tiny = np.array([0.3, -1.0, 0.8]), 2, 1e-6

    def loss(at: np.ndarray) -> float:
        return float(np.log(np.exp(at).sum()) - at[true])

    steps = tiny * np.eye(3)
    wanted = [(loss(logits + s) - loss(logits - s)) / (2 * tiny) for s in steps]
    p, slope = logits.astype(np.float32), np.empty(3, np.float32)
    squash(p)
    slope_of(p, float(true), slope)
    np.testing.assert_allclose(slope, wanted, atol=1e-6)


@pytest.mark.parametrize(("said", "wanted"), [(2.5, 0.5), (1.2, -0.8), (50.0, HUBER), (-50.0, -HUBER)])
def test_an_error_of_a_value_pulls_no_harder_than_hubers(said: float, wanted: float) -> None:
    slope = np.empty(1, np.float32)
    slope_of(np.array([said], np.float32), 2.0, slope)
    assert slope[0] == pytest.approx(wanted, abs=1e-6)
