"""Trees split where it is purest of what they tried, count every row, and follow a change within their window."""

import numpy as np
import pytest

from models.experts.chance import below, seeded, uniform
from models.experts.forest import SMALLEST, Forest, grow, leaf_of
from models.experts.window import Window
from tests.models.experts.made import asked, assert_same, play, right, rows_of

Tree = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def grown(x: np.ndarray, y: np.ndarray, w: np.ndarray, *, classes: int, tries: int, word: np.ndarray) -> Tree:
    """Feature, threshold, child, leaf, mass; only what is used."""
    n = len(x)
    feature, child = np.zeros(2 * n, np.int32), np.zeros(2 * n, np.int32)
    threshold, leaf, mass = np.zeros(2 * n, np.float32), np.zeros((n, classes), np.float32), np.zeros(n, np.float32)
    x, y, w = x.astype(np.float32), y.astype(np.float32), w.astype(np.float32)
    nodes, leaves = grow(x, y, w, np.arange(n), tries, word, feature, threshold, child, leaf, mass)
    return feature[:nodes], threshold[:nodes], child[:nodes], leaf[:leaves], mass[:leaves]


def boxes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(seed).uniform(-1, 1, (n, 3))
    return z, (np.abs(z[:, 0]) < 0.5) & (np.abs(z[:, 1]) < 0.5)


def forest(classes: int = 2, *, trees: int = 8, window: int = 300, pace: int = 30, columns: int = 3) -> Forest:
    return Forest(trees, window=window, pace=pace, columns=columns, classes=classes, seed=0)


@pytest.mark.parametrize("classes", [2, 3, 1])
def test_leaves_count_the_rows_that_fall_into_them(classes: int) -> None:
    rng = np.random.default_rng(classes)
    x, y, w = rng.normal(size=(200, 4)), rng.integers(0, 3, 200) % max(classes, 2), rng.uniform(0.5, 2, 200)
    feature, threshold, child, leaf, mass = grown(x, y, w, classes=classes, tries=2, word=seeded(0, 0))
    assert len(mass) == (len(feature) + 1) // 2
    at = np.array([leaf_of(row, feature, threshold, child) for row in x.astype(np.float32)])
    np.testing.assert_allclose(mass, np.bincount(at, w, len(mass)), rtol=1e-5)
    for k in range(classes):
        of = w * y if classes == 1 else w * (y == k)
        np.testing.assert_allclose(leaf[:, k], np.bincount(at, of, len(mass)), rtol=1e-5)
    assert mass.sum() == pytest.approx(w.sum(), rel=1e-5)


@pytest.mark.parametrize("classes", [3, 1])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_split_is_the_purest_of_those_tried(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, w = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60), rng.uniform(0.5, 2, 60)
    y = np.where(x[:, 3] > 0.3, 2, y)
    tries, word = 3, seeded(seed, 0)
    order, best = list(range(5)), (-np.inf, -1, 0.0)
    ours = word.copy()
    for asked_so_far in range(tries):
        pick = asked_so_far + below(ours, 5 - asked_so_far)
        order[asked_so_far], order[pick] = order[pick], order[asked_so_far]
        column = x[:, order[asked_so_far]]
        cut = np.float32(column.min() + uniform(ours) * (column.max() - column.min()))
        within = sum(_impurity(y[side], w[side], classes) for side in (column <= cut, column > cut))
        best = max(best, (-within, order[asked_so_far], float(cut)))
    feature, threshold, *_ = grown(x, y, w, classes=classes, tries=tries, word=word)
    assert feature[0] == best[1]
    assert threshold[0] == pytest.approx(best[2], rel=1e-5)


def _impurity(y: np.ndarray, w: np.ndarray, classes: int) -> float:
    """Gini's, or the variance, times the rows' weight."""
    total = w.sum()
    if classes == 1:
        return float(w @ (y - (w @ y) / total) ** 2)
    shares = np.bincount(y, w, classes) / total
    return float(total * (1 - (shares**2).sum()))


def test_pure_and_small_nodes_are_not_split() -> None:
    x, ones = np.random.default_rng(0).normal(size=(50, 2)), np.ones(50)
    for y, classes in ((ones, 2), (3 * ones, 1)):
        assert len(grown(x, y, ones, classes=classes, tries=2, word=seeded(0, 0))[0]) == 1
    few = SMALLEST - 1
    assert len(grown(x[:few], np.arange(few) % 2, ones[:few], classes=2, tries=2, word=seeded(0, 0))[0]) == 1
    constant = np.ones((50, 2))
    assert len(grown(constant, np.arange(50) % 2, ones, classes=2, tries=2, word=seeded(0, 0))[0]) == 1


def test_leaves_count_new_rows_between_rebuildings() -> None:
    z, y = boxes(300)
    member = forest(window=300, pace=1, trees=1)  # rebuilt every n rows
    play(member, rows_of(z, y, classes=2), Window(300, 3, 0))
    assert member.state()["mass"].sum() == 300
    np.testing.assert_allclose(member.state()["leaf"].sum(axis=0), [(~y).sum(), y.sum()])


def test_trees_are_rebuilt_in_turn_over_the_newest_rows() -> None:
    z, y = boxes(400)
    member, window = forest(trees=4, window=100, pace=10), Window(100, 3, 0)
    play(member, rows_of(z[:20], y[:20], classes=2), window)
    np.testing.assert_array_equal(member.state()["counters"], [4, 1, 21])  # five times, the first at row 1
    play(member, rows_of(z[20:], y[20:], classes=2), window)
    masses = np.split(member.state()["mass"], np.cumsum(member.state()["used"][:, 1])[:-1])
    assert sorted(m.sum() - min(n.sum() for n in masses) for m in masses) == [0, 10, 20, 30]  # grown 10 rows apart
    assert all(100 <= m.sum() < 140 for m in masses)


def test_boxes_are_told_apart() -> None:
    z, y = boxes(2000)
    out = play(forest(window=1000), rows_of(z, y, classes=2), Window(1000, 3, 0))
    assert right(out[:, -500:], y[-500:])[0] > 0.93


def test_a_change_is_followed_within_the_window() -> None:
    z, y = boxes(2000)
    y = np.where(np.arange(2000) < 1000, y, ~y)
    out = play(forest(window=300), rows_of(z, y, classes=2), Window(300, 3, 0))
    assert right(out[:, 1000:1050], y[1000:1050])[0] < 0.5
    assert right(out[:, 1350:], y[1350:])[0] > 0.88


def test_values_are_means_of_leaves() -> None:
    z, inside = boxes(2000)
    y = 3.0 + 5 * inside
    out = play(forest(1, window=1000), rows_of(z, y, classes=1), Window(1000, 3, 0))
    assert np.abs(out[0, -500:, 0] - y[-500:]).mean() < 0.4


def test_before_the_first_tree_it_says_what_is_typical() -> None:
    rows = rows_of(np.zeros((2, 3)), np.zeros(2), classes=2)._replace(prior=np.tile([0.2, 0.8], (2, 1)))
    np.testing.assert_array_equal(asked(forest(), rows, Window(1, 3, 0))[0], rows.prior)


def test_growing_keeps_answers_and_rest_keeps_all() -> None:
    z, y = boxes(400)
    member, again, window = forest(), forest(), Window(300, 3, 0)
    play(member, rows_of(z, y, classes=2), window)
    before = asked(member, rows_of(z, y, classes=2), window)
    member.grow(5, 3, 0)
    window.grow(5, np.zeros(0, np.int64))
    wide = rows_of(np.pad(z, ((0, 0), (0, 2))), y, classes=3)._replace(prior=np.tile([0.5, 0.5, 0], (400, 1)))
    np.testing.assert_allclose(asked(member, wide, window)[..., :2], before, rtol=1e-6)
    again.load(member.state())
    same = Window(300, 5, 0)
    same.load(window.state())
    play(member, wide, window)
    play(again, wide, same)
    assert_same(again.state(), member.state())
