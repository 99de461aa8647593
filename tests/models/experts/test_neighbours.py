"""The nearest are those that a search through all rows finds; a checkerboard is told apart by them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.experts.neighbours import BELIEF, Neighbours, distances, keep_nearest
from models.experts.window import CHUNK, Window
from tests.models.experts.made import asked, play, right, rows_of


def test_distances_are_squared_and_euclidean() -> None:
    rng = np.random.default_rng(0)
    row, past = rng.normal(size=7).astype(np.float32), rng.normal(size=(1100, 7)).astype(np.float32)
    found = np.empty(1100, np.float32)
    distances(row, np.ascontiguousarray(past.T), found)
    np.testing.assert_allclose(found, ((past.astype(np.float64) - row) ** 2).sum(axis=1), rtol=1e-5)


@given(
    far=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    most=st.integers(1, 12),
    cut=st.integers(0, 40),
)
@settings(deadline=None)
def test_the_nearest_are_those_that_sorting_finds(far: list[int], most: int, cut: int) -> None:
    found = np.array(far, np.float32)
    near, where = np.empty(most, np.float32), np.empty(most, np.int64)
    cut = min(cut, len(far))
    held = keep_nearest(found, 0, cut, 0, near, where)
    held = keep_nearest(found, cut, len(far), held, near, where)
    wanted = np.argsort(found, kind="stable")[:most]
    np.testing.assert_array_equal(where[:held], wanted)
    np.testing.assert_array_equal(near[:held], found[wanted])


def brute(past: np.ndarray, y: np.ndarray, w: np.ndarray, x: np.ndarray, k: int, classes: int) -> np.ndarray:
    """As the docstring says, from all rows at once."""
    far = ((past - x) ** 2).sum(axis=1)
    nearest = np.argsort(far, kind="stable")[:k]
    weight = w[nearest] * (1 - 0.9 * far[nearest] / (far[nearest[-1]] + 1e-9))
    shares = np.full(classes, BELIEF / classes if classes > 1 else 0.0)
    if classes == 1:
        shares[0] += weight @ y[nearest]
    else:
        np.add.at(shares, y[nearest].astype(int), weight)
    return shares / (weight.sum() + BELIEF)


def test_answers_are_of_the_newest_rows_only() -> None:
    rng = np.random.default_rng(0)
    for classes in (3, 1):
        z, y = rng.normal(size=(2 * CHUNK, 3)).astype(np.float32), rng.integers(0, 3, 2 * CHUNK)
        w = rng.uniform(0.5, 2, len(y)).astype(np.float32)
        member, window = Neighbours((1, 5), window=50, columns=3), Window(70, 3, 0)
        out = play(member, rows_of(z, y, classes=classes)._replace(w=w), window)
        for b in (1, 4, 30, 300, 511):
            seen = slice(max(b - 50, 0), b)
            for j, k in enumerate((1, 5)):
                wanted = brute(z[seen].astype(np.float64), y[seen], w[seen], z[b], k, classes)
                np.testing.assert_allclose(out[j, b], wanted, rtol=1e-4)


def test_a_checkerboard_is_told_apart() -> None:
    z = np.random.default_rng(0).uniform(-2, 2, (1500, 2))
    y = (np.floor(z[:, 0]) + np.floor(z[:, 1])) % 2
    out = play(Neighbours((1, 5), window=1000, columns=2), rows_of(z, y, classes=2), Window(1000, 2, 0))
    assert right(out[:, -500:], y[-500:]).min() > 0.88


def test_a_window_gives_all_that_was_learned_back() -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(900, 2)), rng.integers(0, 2, 900)
    for n in (0, 3, 200, 500, 900):
        member, again = (Neighbours((3,), window=100, columns=2) for _ in range(2))
        window = Window(150, 2, 0)
        play(member, rows_of(z[:n], y[:n], classes=2), window)
        again.derive(window)
        rows = rows_of(z[:20], y[:20], classes=2)
        np.testing.assert_array_equal(asked(again, rows, window), asked(member, rows, window))


def test_new_columns_were_0() -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(100, 2)), rng.integers(0, 2, 100)
    member, window = Neighbours((3,), window=100, columns=2), Window(100, 2, 0)
    play(member, rows_of(z, y, classes=2), window)
    before = asked(member, rows_of(z, y, classes=2), window)
    member.grow(4, 2, 0)
    np.testing.assert_array_equal(asked(member, rows_of(np.pad(z, ((0, 0), (0, 2))), y, classes=2), window), before)
