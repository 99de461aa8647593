"""Adam and the gradient as the papers have them; what a line cannot tell apart, a net does."""

import numpy as np
import pytest

from models.experts.net import BETA1, BETA2, EPSILON, NEW_CLASS, Nets, adam, add_slopes
from models.experts.scores import HEAVIEST
from models.experts.window import Rows, Window
from tests.models.experts.made import asked, assert_same, play, right, rows_of


def nets(
    classes: int = 2, *, replays: int = 0, columns: int = 2, codes: int = 0, hidden: int = 16, every: int = 1
) -> Nets:
    settings, size = ((0.01, replays),), {"columns": columns, "classes": classes, "codes": codes}
    return Nets(settings, hidden=hidden, window=200, seed=0, every=every, **size)


def xor(n: int) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(0).normal(size=(n, 2))
    return z, (z[:, 0] > 0) ^ (z[:, 1] > 0)


def forward(row: np.ndarray, codes: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Probabilities (K,), in doubles."""
    inputs = np.zeros(len(first))
    inputs[0], inputs[1 : 1 + len(row)] = 1, row
    inputs[1 + len(row) + codes] = 1
    logits = last[0] + np.maximum(inputs @ first, 0) @ last[1:]
    return np.exp(logits) / np.exp(logits).sum()


def test_a_step_of_adam_is_the_papers() -> None:
    rng = np.random.default_rng(0)
    weights, mean, square = rng.normal(size=6), np.zeros(6), np.zeros(6)
    found = [a.astype(np.float32) for a in (weights, mean, square)]
    for t in range(1, 6):
        slopes = rng.normal(size=6)
        late = np.sqrt(1 - BETA2**t)
        given = slopes.astype(np.float32)
        adam(found[0], given, found[1], found[2], 0.01 * late / (1 - BETA1**t), EPSILON * late)
        assert not given.any()
        mean = BETA1 * mean + (1 - BETA1) * slopes
        square = BETA2 * square + (1 - BETA2) * slopes**2
        weights -= 0.01 * (mean / (1 - BETA1**t)) / (np.sqrt(square / (1 - BETA2**t)) + EPSILON)
    np.testing.assert_allclose(found[0], weights, rtol=1e-5)


def test_slopes_are_those_of_the_log_loss() -> None:
    rng = np.random.default_rng(1)
    row, codes, true, weight = rng.normal(size=3), np.array([1, 4], np.int64), 2, 2.5
    first, last = rng.normal(size=(1 + 3 + 6, 5)), rng.normal(size=(6, 4))

    def loss(at_first: np.ndarray, at_last: np.ndarray) -> float:
        return -weight * float(np.log(forward(row, codes, at_first, at_last)[true]))

    def slopes(of: np.ndarray, other: np.ndarray, *, is_first: bool) -> np.ndarray:
        found = np.empty_like(of)
        for at in np.ndindex(of.shape):
            step = np.zeros_like(of)
            step[at] = 1e-6
            ends = [loss(a, other) if is_first else loss(other, a) for a in (of + step, of - step)]
            found[at] = (ends[0] - ends[1]) / 2e-6
        return found

    slope_first, slope_last = np.zeros((10, 5), np.float32), np.zeros((6, 4), np.float32)
    hidden, said, slope = (np.empty(n, np.float32) for n in (5, 4, 4))
    f, at = first.astype(np.float32), last.astype(np.float32)
    add_slopes(row.astype(np.float32), codes, float(true), weight, f, at, hidden, said, slope, slope_first, slope_last)
    np.testing.assert_allclose(said, forward(row, codes, first, last), rtol=1e-5)
    np.testing.assert_allclose(slope_first, slopes(first, last, is_first=True), atol=1e-4)
    np.testing.assert_allclose(slope_last, slopes(last, first, is_first=False), atol=1e-4)


def test_the_first_step_of_a_net_is_one_of_adam() -> None:
    member = nets(columns=3, codes=2)
    first, last = (member.state()[n][0].astype(np.float64) for n in ("first", "last"))
    last += 0.01  # or no slope would reach the first layer
    member.load(member.state() | {"last": last[None].astype(np.float32)})
    z, codes = np.array([[1.0, -0.5, 0.0]]), np.array([[1]], np.int64)
    play(member, rows_of(z, np.array([1]), classes=2, codes=codes), Window(200, 3, 1))
    moved = member.state()["first"][0] - first
    active = np.maximum(first[0] + z[0] @ first[1:4] + first[5], 0) > 0
    assert not moved[3].any()  # its column was 0
    assert not moved[4].any()  # its code was not there
    np.testing.assert_array_equal(moved[:, ~active], 0)
    # both classes weigh alike in last, so the slope is 0 but for rounding: Adam's first step has no size, only a sign
    assert np.abs(member.state()["last"][0] - last).max() < 0.0101
    assert member.state()["steps"] == 1


def test_replays_teach_what_a_line_cannot() -> None:
    z, y = xor(1500)
    rows, window = rows_of(z, y, classes=2), Window(200, 2, 0)
    assert right(play(nets(replays=4), rows, window)[:, -500:], y[-500:])[0] > 0.9


def test_codes_are_learned_without_their_rates() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (1600, 2))
    y = (codes[:, 0] == 1) ^ (codes[:, 1] == 2)
    codes[:, 1] += 3
    rows = rows_of(np.zeros((1600, 1)), y, classes=2, codes=codes)
    out = play(nets(replays=4, columns=1, codes=6, hidden=32), rows, Window(200, 1, 2))
    assert right(out[:, -200:], y[-200:])[0] > 0.95


def test_values_are_learned_despite_outliers() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1500, 2))
    clean = np.abs(z[:, 0])
    y = np.where(rng.random(1500) < 0.02, 1000.0, clean)
    out = play(nets(1, replays=4), rows_of(z, y, classes=1), Window(200, 2, 0))
    assert np.abs(out[0, -300:, 0] - clean[-300:]).mean() < 0.2


def test_growing_keeps_answers_and_makes_new_classes_unlikely() -> None:
    z, y = xor(300)
    member = nets(codes=3)
    codes = np.random.default_rng(1).integers(0, 3, (300, 1))
    play(member, rows_of(z, y, classes=2, codes=codes), Window(200, 2, 1))
    before = asked(member, rows_of(z, y, classes=2, codes=codes), Window(1, 2, 1))
    member.grow(4, 2, 5)
    wide = np.pad(z, ((0, 0), (0, 2)))
    after = asked(member, rows_of(wide, y, classes=2, codes=codes), Window(1, 4, 1))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    member.grow(4, 3, 5)
    after = asked(member, rows_of(wide, y, classes=3, codes=codes), Window(1, 4, 1))
    np.testing.assert_allclose(after[..., 1] / after[..., 0], before[..., 1] / before[..., 0], rtol=1e-4)
    assert (after[..., 2] <= np.exp(NEW_CLASS)).all()


def test_a_grown_net_comes_back_from_rest() -> None:
    member, again = nets(codes=3), nets(codes=3)
    member.grow(5, 4, 7)
    again.load(member.state())
    assert_same(again.state(), member.state())
    z, y = np.random.default_rng(0).normal(size=(50, 5)), np.arange(50) % 4
    rows = rows_of(z, y, classes=4, codes=np.arange(50)[:, None] % 7)
    play(member, rows, Window(200, 5, 1))
    play(again, rows, Window(200, 5, 1))
    assert_same(again.state(), member.state())


def test_a_forgotten_code_is_as_one_never_met() -> None:
    member = nets(codes=3)
    z, y, codes = np.zeros((200, 2)), np.arange(200) % 2, np.arange(200)[:, None] % 2
    play(member, rows_of(z, y, classes=2, codes=codes), Window(200, 2, 1))
    member.forget(np.array([1], np.int64))
    state = member.state()
    for name in ("first", "mean_first", "square_first"):
        assert state[name][0, 3].any()
        assert not state[name][0, 4].any()


# Slow nets ------------------------------------------------------------------------------------------


def stream(n: int) -> Rows:
    """With one categorical feature of three codes."""
    rng = np.random.default_rng(5)
    z, codes = rng.normal(size=(n, 2)), rng.integers(0, 3, (n, 1))
    rows = rows_of(z, z[:, 0] + codes[:, 0] > 1, classes=2, codes=codes)
    return rows._replace(w=rng.uniform(0.5, 12, n).astype(np.float32))


def part(rows: Rows, start: int, end: int) -> Rows:
    return Rows(*(a[start:end] for a in rows))


def test_a_slow_net_steps_once_in_so_many_rows() -> None:
    rows, member, window = stream(40), nets(codes=3, replays=2, every=8), Window(200, 2, 1)
    for b in range(40):
        before = member.state()
        play(member, part(rows, b, b + 1), window)
        after, steps = member.state(), (b + 1) // 8
        assert after["steps"].tolist() == [steps]
        if (b + 1) % 8 == 0:
            assert not after["slope_first"].any()
            assert not after["slope_last"].any()
            assert (after["last"] != before["last"]).any()
        else:
            assert after["slope_last"].any()
            for name in ("first", "last", "mean_first", "mean_last", "square_first", "square_last"):
                np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize("cut", [3, 7, 8, 50, 100])
def test_how_rows_come_together_does_not_matter_to_a_slow_net(cut: int) -> None:
    rows, member, again = stream(100), nets(codes=3, replays=2, every=8), nets(codes=3, replays=2, every=8)
    window, windows = Window(200, 2, 1), Window(200, 2, 1)
    said = np.concatenate([play(member, part(rows, b, b + 1), window) for b in range(100)], axis=1)
    found = np.concatenate([play(again, part(rows, b, b + cut), windows) for b in range(0, 100, cut)], axis=1)
    np.testing.assert_array_equal(found, said)
    assert_same(again.state(), member.state())


def test_a_slow_step_is_one_of_adam_on_the_mean_slope() -> None:
    rows, member = stream(4), nets(codes=3, every=4)
    weights = np.random.default_rng(0).normal(size=(1, 17, 2)).astype(np.float32)
    member.load(member.state() | {"last": weights})
    first, last = member.state()["first"][0], weights[0].copy()
    slope_first, slope_last = np.zeros_like(first), np.zeros_like(last)
    hidden, said, slope = (np.empty(n, np.float32) for n in (16, 2, 2))
    for b in range(4):
        share = min(float(rows.w[b]), HEAVIEST) / 4
        sums = slope_first, slope_last
        add_slopes(rows.z[b], rows.codes[b], float(rows.y[b]), share, first, last, hidden, said, slope, *sums)
    play(member, rows, Window(200, 2, 1))
    late = np.sqrt(1 - BETA2)
    for weights, slopes, name in ((first, slope_first, "first"), (last, slope_last, "last")):
        for row, by in zip(weights, slopes, strict=True):
            none = np.zeros_like(row), np.zeros_like(row)
            adam(row, by.copy(), *none, 0.01 * late / (1 - BETA1), EPSILON * late)
        np.testing.assert_allclose(member.state()[name][0], weights, atol=1e-6)


@pytest.mark.parametrize("stop", [3, 8, 13, 31])
def test_a_slow_net_comes_back_from_rest_in_the_middle_of_a_step(stop: int) -> None:
    rows, window, windows = stream(50), Window(200, 2, 1), Window(200, 2, 1)
    member, again = nets(codes=3, replays=2, every=8), nets(codes=3, replays=2, every=8)
    play(member, part(rows, 0, stop), window)
    assert member.state()["slope_last"].any() == (stop % 8 != 0)
    again.load(member.state())
    windows.load(window.state())
    for one, its in ((member, window), (again, windows)):
        play(one, part(rows, stop, 50), its)
    assert_same(again.state(), member.state())


def test_a_code_forgotten_in_the_middle_of_a_step_is_as_one_never_met() -> None:
    rows, member, window = stream(52), nets(codes=3, every=16), Window(200, 2, 1)
    play(member, part(rows, 0, 36), window)
    assert all(member.state()[name][0, 4].any() for name in ("first", "mean_first", "square_first", "slope_first"))
    member.forget(np.array([1], np.int64))
    others = part(rows, 36, 52)
    others.codes[others.codes == 1] = 2
    for after in (0, 16):
        play(member, part(others, 0, after), window)
        for name in ("first", "mean_first", "square_first", "slope_first"):
            assert not member.state()[name][0, 4].any()
            assert member.state()[name][0, 5].any()


def test_growing_in_the_middle_of_a_step_keeps_its_slopes() -> None:
    rows, member, grown = stream(60), nets(codes=3, every=16), nets(codes=3, every=16)
    window, wider = Window(200, 2, 1), Window(200, 4, 1)
    play(member, part(rows, 0, 36), window)
    play(grown, part(rows, 0, 36), Window(200, 2, 1))
    grown.grow(4, 2, 5)
    slopes = [one.state()["slope_first"][0] for one in (member, grown)]
    np.testing.assert_array_equal(slopes[1][[0, 1, 2, 5, 6, 7]], slopes[0])
    assert not slopes[1][[3, 4, 8, 9]].any()
    assert slopes[0].any()
    wider.count = 36
    wide = rows._replace(z=np.pad(rows.z, ((0, 0), (0, 2))))
    found, wanted = play(grown, part(wide, 36, 60), wider), play(member, part(rows, 36, 60), window)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_slow_nets_find_what_noisy_labels_hide() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6000, 8))
    truth = 1 / (1 + np.exp(-0.7 * z[:, 0]))
    rows = rows_of(z, rng.random(6000) < truth, classes=2)
    off = [
        np.abs(play(nets(columns=8, every=every), rows, Window(200, 8, 0))[0, -2000:, 1] - truth[-2000:]).mean()
        for every in (1, 16)
    ]
    assert off[1] < 0.8 * off[0]
