import json
from typing import Any

import numpy as np
import pytest

from models.drift import GRAIN, REFERENCE, Drift, DriftWatch, InputWatch, Kind

KINDS: tuple[Kind, ...] = ("adwin", "page_hinkley", "ddm")
STEP = 128


def mistakes(*parts: tuple[float, int], seed: int = 0) -> list[float]:
    """0 or 1, wrong with the given chances for so many errors each."""
    rng = np.random.default_rng(seed)
    return [float(wrong) for chance, n in parts for wrong in rng.random(n) < chance]


def watched(errors: list[float], step: int = STEP, *, delta: float = 0.002, detector: Kind = "adwin") -> list[Drift]:
    watch = DriftWatch(delta, detector=detector)
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
    assert (evidence["watched"], evidence["detector"], evidence["worse"]) == ("error", "adwin", True)
    assert set(evidence) == {"watched", "mean_before", "mean_after", "width", "worse", "at_count", "detector"}


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


# Every detector -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("detector", "within"), [("adwin", 500), ("page_hinkley", 800), ("ddm", 3_000)])
def test_each_finds_a_sudden_rise_and_says_where(detector: Kind, within: int, seed: int) -> None:
    found = watched(mistakes((0.2, 20_000), (0.4, 3_000), seed=seed), delta=1e-5, detector=detector)
    drift = found[0]
    assert 20_000 < drift.at_count <= 20_000 + within
    assert (drift.detector, drift.watched, drift.worse) == (detector, "error", True)
    assert drift.mean_before == pytest.approx(0.2, abs=0.02)
    assert drift.mean_after == pytest.approx(0.4, abs=0.06)
    assert drift.width == pytest.approx(drift.at_count - 20_000, abs=60)


@pytest.mark.parametrize("detector", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_each_is_silent_while_nothing_changes(detector: Kind, share: float) -> None:
    assert watched(mistakes((share, 30_000)), delta=1e-7, detector=detector) == []


@pytest.mark.parametrize(("detector", "finds"), [("adwin", True), ("page_hinkley", True), ("ddm", False)])
def test_ddm_finds_no_falls(detector: Kind, finds: bool) -> None:
    found = watched(mistakes((0.4, 10_000), (0.1, 3_000)), delta=1e-5, detector=detector)
    assert [drift.worse for drift in found] == ([False] if finds else [])


@pytest.mark.parametrize("detector", KINDS)
@pytest.mark.parametrize("stop", [0, 7, 640, 6_016, 6_500])
def test_stopping_leaves_no_trace(detector: Kind, stop: int) -> None:
    errors = mistakes((0.1, 6_000), (0.6, 3_000), (0.1, 2_000), seed=1)
    steady, first, second = (DriftWatch(1e-4, detector=detector) for _ in range(3))
    found = [steady.add(errors[:stop]), *(steady.add([e]) for e in errors[stop:])]
    again = [first.add(errors[:stop])]
    second.load(first.state())
    again += [second.add([e]) for e in errors[stop:]]
    assert again == found
    assert any(found)
    assert second.state()["error"].tobytes() == steady.state()["error"].tobytes()


@pytest.mark.parametrize("other", [{"delta": 0.01}, {"detector": "page_hinkley"}, {"grain": 2}])
def test_a_state_of_another_kind_begins_the_watch_anew(other: dict[str, Any]) -> None:
    watch = DriftWatch(**other)
    watch.add([0.0, 1.0] * 50)
    mine = DriftWatch()
    mine.load(watch.state())
    assert mine.count == 0
    assert mine.state()["error"].tobytes() == DriftWatch().state()["error"].tobytes()
    mine.load({})  # a version from before the watch was part of them
    assert mine.count == 0


# Inputs -------------------------------------------------------------------------------------------


def inputs_watched(values: np.ndarray, detector: Kind = "adwin", names: str = "a", delta: float = 1e-5) -> list[Drift]:
    watch = InputWatch(names.split(), delta, detector=detector)
    return [drift for i in range(0, len(values), STEP) for drift in watch.add(values[i : i + STEP])]


@pytest.mark.parametrize(("detector", "within"), [("adwin", 2_100), ("page_hinkley", 800)])
def test_a_moved_input_is_found_and_shown_in_its_own_unit(detector: Kind, within: int) -> None:
    rng = np.random.default_rng(0)
    still = rng.normal(50.0, 3.0, (16_000, 2))
    moved = still + np.where(np.arange(16_000) < 10_000, 0.0, 2.0)[:, None] * [0.0, 1.0]
    (drift,) = inputs_watched(moved, detector, "still moved")
    assert (drift.watched, drift.detector, drift.worse) == ("moved", detector, False)
    assert 10_000 < drift.at_count <= 10_000 + within
    assert drift.width == pytest.approx(drift.at_count - 10_000, abs=8 * GRAIN)
    assert drift.mean_before == pytest.approx(50.0, abs=0.2)
    assert drift.mean_after == pytest.approx(52.0, abs=0.4)


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
def test_an_input_that_goes_missing_is_found(detector: Kind) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(12_000, 1))
    values[rng.random(values.shape) < np.where(np.arange(12_000) < 8_000, 0.05, 0.3)[:, None]] = np.nan
    (drift,) = inputs_watched(values, detector)
    assert (drift.watched, drift.worse) == ("a missing", False)
    assert drift.mean_before == pytest.approx(0.05, abs=0.01)
    assert drift.mean_after == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "rare", "constant", "codes", "absurd"])
def test_a_still_input_is_silent(detector: Kind, kind: str) -> None:
    rng = np.random.default_rng(2)
    values = {
        "normal": rng.normal(size=30_000),
        "heavy tails": rng.standard_t(1.5, 30_000),
        "rare": (rng.random(30_000) < 0.02) * rng.random(30_000),
        "constant": np.full(30_000, 7.0),
        "codes": rng.choice([1, 17, 40, 63], 30_000, p=(0.5, 0.3, 0.1, 0.1)).astype(float),
        "absurd": np.where(rng.random(30_000) < 0.01, 3e38, rng.normal(size=30_000)),
    }[kind]
    assert inputs_watched(values[:, None], detector) == []


def test_a_constant_that_jumps_is_found() -> None:
    values = np.repeat([0.0, 4.0], 4_000)[:, None]
    drift = inputs_watched(values)[0]
    assert drift.mean_before == 0.0
    assert drift.mean_after > 1.0


def test_after_a_change_an_input_is_measured_anew() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=30_000) + np.repeat([0.0, 100.0, 101.0], 10_000)
    first, *_, last = inputs_watched(values[:, None], "page_hinkley")
    assert (first.mean_before, last.mean_before) == pytest.approx((0.0, 100.0), abs=0.1)
    assert last.mean_after == pytest.approx(101.0, abs=0.2)


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
@pytest.mark.parametrize("steps", [1, REFERENCE // STEP, 40, 60])
def test_stopping_leaves_no_trace_on_inputs(detector: Kind, steps: int) -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(12_000, 2)) + np.repeat([0.0, 2.0], 6_000)[:, None]
    values[rng.random(values.shape) < 0.1] = np.nan
    parts = [values[i : i + 101] for i in range(0, len(values), 101)]
    steady, first, second = (InputWatch(("a", "b"), 1e-4, detector=detector) for _ in range(3))
    found = [steady.add(part) for part in parts]
    again = [first.add(part) for part in parts[:steps]]
    second.load(first.state())
    again += [second.add(part) for part in parts[steps:]]
    assert again == found
    assert any(found)
    assert second.state()["inputs"].tobytes() == steady.state()["inputs"].tobytes()


def test_an_input_that_is_watched_only_now_begins_anew() -> None:
    values = np.repeat([[0.0], [3.0]], 4_000, axis=0) + np.random.default_rng(5).normal(size=(8_000, 1))
    before, after = InputWatch(("a", "gone")), InputWatch(("new", "a"))
    before.add(np.repeat(values[:4_000], 2, axis=1))
    after.load(before.state())
    (drift,) = after.add(np.repeat(values[4_000:], 2, axis=1))
    assert (drift.watched, drift.mean_before) == ("a", pytest.approx(0.0, abs=0.1))
    after.load({})  # a version from before inputs were watched
