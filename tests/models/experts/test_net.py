"""Adam and the gradient as the papers have them; what a line cannot tell apart, a net does."""

import numpy as np

from models.experts.net import BETA1, BETA2, EPSILON, NEW_CLASS, Nets, adam, add_slopes
from models.experts.window import Window
from tests.models.experts.made import asked, assert_same, play, right, rows_of


def nets(classes: int = 2, *, replays: int = 0, columns: int = 2, codes: int = 0, hidden: int = 16) -> Nets:
    settings = ((0.01, replays),)
    return Nets(settings, hidden=hidden, window=200, columns=columns, classes=classes, codes=codes, seed=0)


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
