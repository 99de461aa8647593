import json

import numpy as np
import pytest

from models.drift import Drift, DriftWatch


def mistakes(*parts: tuple[float, int], seed: int = 0) -> list[float]:
    """0 or 1, wrong with the given chances for so many errors each."""
    rng = np.random.default_rng(seed)
    return [float(wrong) for chance, n in parts for wrong in rng.random(n) < chance]


def watched(errors: list[float], step: int = 128) -> list[Drift]:
    watch = DriftWatch()
    found = [watch.add(errors[i : i + step]) for i in range(0, len(errors), step)]
    return [drift for drift in found if drift]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("after", "within"), [(0.4, 300), (0.3, 1_500), (0.25, 6_000)])
def test_a_sudden_rise_is_found_soon(after: float, within: int, seed: int) -> None:
    drift = watched(mistakes((0.2, 20_000), (after, within), seed=seed))[0]
    assert 20_000 < drift.at_count <= 20_000 + within
    assert drift.worse
    assert drift.mean_before == pytest.approx(0.2, abs=0.02)
    assert drift.mean_before < drift.mean_after
    assert drift.width == pytest.approx(drift.at_count - 20_000, rel=1.0, abs=300)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("before", "after"), [(0.3, 0.2), (0.08, 0.05)])
def test_a_fall_is_a_change_but_not_worse(before: float, after: float, seed: int) -> None:
    found = watched(mistakes((before, 20_000), (after, 6_000), seed=seed))
    assert found
    assert not any(drift.worse for drift in found)


@pytest.mark.parametrize("seed", range(5))
def test_few_false_alarms_while_nothing_changes(seed: int) -> None:
    assert len(watched(mistakes((0.2, 50_000), seed=seed))) <= 1
    rng = np.random.default_rng(seed)
    assert len(watched(rng.beta(1.0, 4.0, 50_000).tolist())) <= 1


def test_it_goes_on_after_a_change() -> None:
    found = watched(mistakes((0.1, 5_000), (0.4, 5_000), (0.1, 5_000)))
    assert [drift.worse for drift in found if abs(drift.mean_after - drift.mean_before) > 0.2] == [
        True,
        False,
    ]


def test_steps_may_be_of_any_length() -> None:
    errors = mistakes((0.2, 3_000), (0.5, 1_000))
    assert {watched(errors, step)[0].at_count for step in (1, 7, 128, 5_000)} == {watched(errors, 32)[0].at_count}


def test_a_change_in_the_very_first_errors() -> None:
    assert all(drift.worse for drift in watched([0.0] * 32 + [1.0] * 64, step=1))


def test_what_is_not_finite_is_left_out() -> None:
    watch = DriftWatch()
    assert watch.add([float("nan"), 0.5, float("inf")]) is None
    assert watch.count == 1
    assert watch.add([]) is None


def test_the_evidence_is_plain() -> None:
    (drift, *_) = watched(mistakes((0.2, 3_000), (0.6, 500)))
    evidence = drift.evidence()
    assert json.loads(json.dumps(evidence)) == evidence
    assert set(evidence) == {"at_count", "mean_before", "mean_after", "width", "worse"}


def test_numpy_errors_are_welcome_and_left_alone() -> None:
    errors = np.array(mistakes((0.2, 3_000), (0.6, 500)), np.float32)
    before = errors.copy()
    assert watched(errors.tolist())[0] == watched_array(errors)
    assert np.array_equal(errors, before)


def watched_array(errors: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Drift | None:
    watch = DriftWatch()
    for i in range(0, len(errors), 128):
        if drift := watch.add(list(errors[i : i + 128])):
            return drift
    return None


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0])
def test_a_wrong_delta_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match=rf"delta is {delta}, wanted a number between 0 and 1"):
        DriftWatch(delta)
