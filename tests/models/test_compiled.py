"""Compiled functions give what numpy gives, with NaN and infinity meaning what they mean."""

import math

import numpy as np

from models.compiled import compiled, release_compiler


@compiled
def ratio_sum(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] / b[i]
    return total


def test_sums_are_numpys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=1000), rng.uniform(1, 2, 1000)
    assert math.isclose(ratio_sum(a, b), float((a / b).sum()), rel_tol=1e-9)
    assert ratio_sum(a, b) == ratio_sum(a.copy(), b.copy())


def test_nan_and_infinity_are_kept() -> None:
    assert math.isnan(ratio_sum(np.array([1.0, np.nan]), np.ones(2)))
    assert ratio_sum(np.ones(1), np.zeros(1)) == math.inf


def test_without_the_compilers_memory_code_runs_and_more_can_be_compiled() -> None:
    ones = np.ones(3)
    assert ratio_sum(ones, ones) == 3.0
    release_compiler()
    assert ratio_sum(ones, ones) == 3.0

    @compiled
    def twice(a: np.ndarray) -> float:
        return 2.0 * a.sum()

    assert twice(ones) == 6.0
