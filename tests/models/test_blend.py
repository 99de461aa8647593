"""The pull toward the reference: what it should do, and what the printed form does instead."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.blend import Kind, blended, strength

Floats = NDArray[np.float64]

THETA = np.array([3.0, -1.0, 0.5])
REF = np.array([1.0, 2.0, 0.5])

numbers = st.floats(-1e6, 1e6)
lams = st.floats(0.0, 0.999)


def steps(kind: Kind, theta: Floats, *, lam: float, n: int, gradient: Floats | float = 0.0) -> Floats:
    """n steps of plain gradient descent, each followed by the pull."""
    for _ in range(n):
        theta = blended(kind, before=theta, stepped=theta - gradient, reference=REF, lam=lam)
    return theta


def test_none_leaves_the_optimisers_step_alone() -> None:
    stepped = THETA - 0.5
    assert blended("none", before=THETA, stepped=stepped, reference=REF, lam=0.5) is stepped


@pytest.mark.parametrize("kind", ["proximal", "explicit"])
def test_the_reference_is_a_fixed_point_where_the_gradient_is_zero(kind: Kind) -> None:
    assert np.array_equal(steps(kind, REF, lam=0.3, n=50), REF)


def test_the_literal_form_has_no_fixed_point_at_the_reference() -> None:
    assert np.allclose(steps("literal", REF, lam=0.3, n=1), 1.3 * REF)


def test_the_literal_form_grows_without_bound_where_there_is_no_curvature() -> None:
    norms = [np.linalg.norm(steps("literal", THETA, lam=0.01, n=n)) for n in (1_000, 10_000, 100_000)]
    wanted = [np.linalg.norm(THETA + 0.01 * n * REF) for n in (1_000, 10_000, 100_000)]
    assert norms == pytest.approx(wanted)
    assert norms[2] > 2_000


@pytest.mark.parametrize("kind", ["proximal", "explicit"])
def test_the_real_forms_go_to_the_reference_where_there_is_no_curvature(kind: Kind) -> None:
    assert np.allclose(steps(kind, THETA, lam=0.01, n=3_000), REF)


@settings(deadline=None, derandomize=True)
@given(numbers, numbers, numbers, st.floats(1e-3, 10.0), st.floats(1e-3, 10.0))
def test_proximal_is_the_proximal_step(theta: float, ref: float, g: float, eta: float, rho: float) -> None:
    """argmin_x  g x + (x - theta)^2 / (2 eta) + rho/2 (x - ref)^2, with lam = eta rho / (1 + eta rho)."""
    lam = eta * rho / (1 + eta * rho)
    got = blended("proximal", before=theta, stepped=theta - eta * g, reference=ref, lam=lam)
    wanted = (theta / eta - g + rho * ref) / (1 / eta + rho)
    assert got == pytest.approx(wanted, rel=1e-9, abs=1e-6)


@settings(deadline=None, derandomize=True)
@given(numbers, numbers, numbers, lams)
def test_proximal_lies_between_the_step_and_the_reference(
    before: float, stepped: float, ref: float, lam: float
) -> None:
    """So it never diverges because of the pull, whatever its strength."""
    got = blended("proximal", before=before, stepped=stepped, reference=ref, lam=lam)
    slack = 1e-9 * (1 + abs(stepped) + abs(ref))
    assert min(stepped, ref) - slack <= got <= max(stepped, ref) + slack


@settings(deadline=None, derandomize=True)
@given(st.floats(0.0, 0.999), st.floats(0.01, 1.9))
def test_on_a_quadratic_the_pull_never_makes_proximal_diverge(lam: float, eta_curvature: float) -> None:
    """Where the optimiser alone converges (eta h < 2), so does it with the pull, to a point between optimum and ref."""
    optimum, ref, theta = 0.0, 4.0, 100.0
    for _ in range(3_000):
        stepped = theta - eta_curvature * (theta - optimum)
        theta = blended("proximal", before=theta, stepped=stepped, reference=ref, lam=lam)
    fixed = lam * ref / (1 - (1 - lam) * (1 - eta_curvature))
    assert theta == pytest.approx(fixed, abs=1e-6)
    assert -1e-6 <= theta <= ref + 1e-6


def on_quadratic(kind: Kind, a: float, lam: float, n: int, *, theta: float = 3.0, ref: float = 4.0) -> float:
    """After n steps on a quadratic whose optimum is 1, a = eta h."""
    for _ in range(n):
        theta = blended(kind, before=theta, stepped=theta - a * (theta - 1.0), reference=ref, lam=lam)
    return theta


REGIONS: dict[Kind, Callable[[float], tuple[float, float]]] = {
    "none": lambda lam: (0.0, 2.0),
    "proximal": lambda lam: (-lam / (1 - lam), 1 + 1 / (1 - lam)),
    "explicit": lambda lam: (-lam, 2 - lam),
    "literal": lambda lam: (0.0, 2.0),
}
"""Of a = eta h, where each form converges on a quadratic."""

FIXED: dict[Kind, Callable[[float, float], float]] = {
    "none": lambda a, lam: 1.0,
    "proximal": lambda a, lam: 1.0 + lam * 3.0 / (lam + a - lam * a),
    "explicit": lambda a, lam: 1.0 + lam * 3.0 / (lam + a),
    "literal": lambda a, lam: 1.0 + lam * 4.0 / a,
}


@pytest.mark.parametrize("kind", REGIONS)
@settings(deadline=None, derandomize=True, max_examples=50)
@given(lam=st.floats(0.01, 0.9), share=st.floats(0.02, 0.98))
def test_within_its_region_each_form_converges_to_its_fixed_point(kind: Kind, lam: float, share: float) -> None:
    low, high = REGIONS[kind](lam)
    a = low + share * (high - low)
    assert on_quadratic(kind, a, lam, 2_000) == pytest.approx(FIXED[kind](a, lam), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", REGIONS)
@settings(deadline=None, derandomize=True, max_examples=50)
@given(lam=st.floats(0.01, 0.9), beyond=st.floats(0.01, 1.0), above=st.booleans())
def test_outside_its_region_each_form_diverges(kind: Kind, lam: float, beyond: float, above: bool) -> None:
    low, high = REGIONS[kind](lam)
    a = high + beyond if above else low - beyond
    near, far = (abs(on_quadratic(kind, a, lam, n) - FIXED[kind](a, lam)) for n in (20, 1_000))
    assert far > 2 * near or far > 1e12 or math.isnan(far)


def test_the_proximal_region_holds_the_optimisers_own_and_the_explicit_does_not() -> None:
    assert abs(on_quadratic("proximal", 1.95, 0.2, 2_000)) < 4
    assert abs(on_quadratic("none", 1.95, 0.2, 2_000)) < 4
    assert abs(on_quadratic("explicit", 1.95, 0.2, 2_000)) > 1e6


@settings(deadline=None, derandomize=True)
@given(numbers, st.floats(0.01, 10.0), st.floats(0.001, 1.0), st.floats(1e-3, 10.0))
def test_on_a_quadratic_proximal_minimises_its_model_plus_the_pull(
    theta: float, curvature: float, eta: float, rho: float
) -> None:
    """f = h/2 x^2 at theta: nothing beats what it gives in  f'(theta) x + (x - theta)^2 / 2 eta + rho/2 (x - 4)^2."""
    slope = curvature * theta
    stepped, lam = theta - eta * slope, eta * rho / (1 + eta * rho)
    got = blended("proximal", before=theta, stepped=stepped, reference=4.0, lam=lam)

    def derivative(x: float) -> float:
        return slope + (x - theta) / eta + rho * (x - 4.0)

    scale = abs(slope) + (abs(theta) + abs(got)) / eta + rho * (abs(got) + 4.0)
    assert derivative(got) == pytest.approx(0.0, abs=1e-9 * scale)


def logistic(kind: Kind, n: int) -> tuple[float, float, float]:
    """Accuracy, log-loss and norm after n pulled steps, from the optimum, on labels of which every tenth is wrong."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = ((x @ [1.5, -1.0] > 0) ^ (rng.random(400) < 0.1)).astype(float)

    def step(theta: Floats) -> Floats:
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -500, 500)))
        return np.asarray(theta - 0.5 * x.T @ (p - y) / len(y))

    theta = np.zeros(2)
    for _ in range(500):
        theta = step(theta)
    optimum = theta
    for _ in range(n):
        theta = blended(kind, before=theta, stepped=step(theta), reference=optimum, lam=0.05)
    margins = np.where(y == 1, 1, -1) * (x @ theta)
    return float(np.mean(margins > 0)), float(np.mean(np.logaddexp(0, -margins))), float(np.linalg.norm(theta))


def test_the_literal_forms_log_loss_explodes_while_its_accuracy_looks_fine() -> None:
    (accuracy, loss, norm), (literal_accuracy, literal_loss, literal_norm) = (
        logistic(kind, 2_000) for kind in ("proximal", "literal")
    )
    assert accuracy > 0.88
    assert literal_accuracy == pytest.approx(accuracy, abs=0.01)
    assert loss < 0.45
    assert literal_loss > 10 * loss
    assert literal_norm > 50 * norm
    assert logistic("literal", 4_000)[2] > 1.8 * literal_norm, "and there is no end to it"


def test_explicit_pulls_from_where_the_gradient_was() -> None:
    got = blended("explicit", before=THETA, stepped=THETA - 1.0, reference=REF, lam=0.25)
    assert np.allclose(got, THETA - 1.0 + 0.25 * (REF - THETA))
    proximal = blended("proximal", before=THETA, stepped=THETA - 1.0, reference=REF, lam=0.25)
    assert np.allclose(got - proximal, 0.25 * -1.0), "they differ by the pull on the step itself"


@pytest.mark.parametrize("kind", ["none", "proximal", "explicit", "literal"])
def test_nothing_given_is_changed(kind: Kind) -> None:
    before, stepped, reference = THETA.copy(), THETA - 1.0, REF.copy()
    blended(kind, before=before, stepped=stepped, reference=reference, lam=0.5)
    assert np.array_equal(before, THETA)
    assert np.array_equal(stepped, THETA - 1.0)
    assert np.array_equal(reference, REF)


@pytest.mark.parametrize("kind", ["proximal", "explicit", "literal"])
def test_without_strength_there_is_no_pull(kind: Kind) -> None:
    assert np.array_equal(blended(kind, before=THETA, stepped=THETA - 1.0, reference=REF, lam=0.0), THETA - 1.0)


# Strength ----------------------------------------------------------------------------------------------


def test_after_the_half_life_half_of_the_distance_is_left() -> None:
    assert strength(1000.0, 1000) == 0.5
    theta = steps("proximal", THETA, lam=strength(1000.0, 50), n=20)
    assert np.allclose(theta - REF, (THETA - REF) / 2)


@settings(deadline=None, derandomize=True)
@given(st.floats(1.0, 1e9), st.integers(0, 5_000), st.integers(1, 20))
def test_so_many_steps_pull_as_far_as_one_that_stands_for_all(half_life: float, events: int, tau: int) -> None:
    together = strength(half_life, tau * events)
    assert together == pytest.approx(1 - (1 - strength(half_life, events)) ** tau, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kind", ["proximal", "explicit"])
@settings(deadline=None, derandomize=True)
@given(half_life=st.floats(10.0, 1e6), events=st.integers(1, 5_000), tau=st.integers(1, 20))
def test_where_the_gradient_is_zero_so_many_pulls_are_one_that_stands_for_all(
    kind: Kind, half_life: float, events: int, tau: int
) -> None:
    apart = steps(kind, THETA, lam=strength(half_life, events), n=tau)
    together = steps(kind, THETA, lam=strength(half_life, tau * events), n=1)
    assert apart == pytest.approx(together, rel=1e-9, abs=1e-9)


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-300, 1e300), st.integers(0, 10**6))
def test_strength_is_a_share(half_life: float, events: int) -> None:
    assert 0.0 <= strength(half_life, events) <= 1.0


def test_no_events_no_pull() -> None:
    assert strength(10.0, 0) == 0.0
