"""The densities are the normal ones of decayed sums; a ring around a blob is told apart by its spread."""

import numpy as np

from models.experts.bayes import FLOOR, KEEP, Bayes
from models.experts.window import Window
from tests.models.experts.made import asked, assert_same, play, right, rows_of

WINDOW = Window(1, 0, 0)


def ring(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two normal clouds with one centre."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return rng.normal(size=(n, 4)) * np.where(y == 0, 0.3, 2.0)[:, None], y


def test_answers_are_the_normal_densities_of_the_rows_so_far() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 3)).astype(np.float32).astype(np.float64), rng.integers(0, 3, 60)
    w = rng.uniform(0.5, 2, 60).astype(np.float32)
    member = Bayes(3, 3)
    play(member, rows_of(z, y, classes=3)._replace(w=w), Window(1, 3, 0))
    x = rng.normal(size=(5, 3)).astype(np.float32).astype(np.float64)
    logits = np.empty((5, 3))
    for k in range(3):
        of = z[y == k]
        decayed = w[y == k] * KEEP ** np.arange(len(of))[::-1]
        n = decayed.sum() + 1
        mean = decayed @ of / n
        variance = np.maximum((decayed @ of**2 + 1) / n - mean**2, FLOOR)
        logits[:, k] = np.log(n) - 0.5 * (np.log(variance) + (x - mean) ** 2 / variance).sum(axis=1)
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(asked(member, rows_of(x, np.zeros(5), classes=3), WINDOW)[0], wanted, rtol=1e-6)


def test_a_ring_is_told_from_what_it_surrounds() -> None:
    z, y = ring(1000)
    out = play(Bayes(4, 2), rows_of(z, y, classes=2), Window(1, 4, 0))
    assert right(out[:, -500:], y[-500:])[0] > 0.95


def test_a_constant_column_says_nothing() -> None:
    z, y = ring(400)
    member, other = Bayes(4, 2), Bayes(3, 2)
    z[:, 3] = 0.0
    with_it = play(member, rows_of(z, y, classes=2), Window(1, 4, 0))
    without = play(other, rows_of(z[:, :3], y, classes=2), Window(1, 3, 0))
    assert abs(right(with_it, y)[0] - right(without, y)[0]) < 0.03


def test_classes_that_moved_are_followed() -> None:
    z, y = ring(12_000)
    z[6000:, 0] += np.where(y[6000:] == 0, -3, 3)
    out = play(Bayes(4, 2), rows_of(z, y, classes=2), Window(1, 4, 0))
    assert right(out[:, -500:], y[-500:])[0] > 0.93


def test_growing_and_rest() -> None:
    z, y = ring(300)
    member, again = Bayes(4, 2), Bayes(4, 2)
    play(member, rows_of(z, y, classes=2), Window(1, 4, 0))
    before = asked(member, rows_of(z, y, classes=2), WINDOW)
    member.grow(6, 2, 0)
    wide = rows_of(np.pad(z, ((0, 0), (0, 2))), y, classes=2)
    after = asked(member, wide, WINDOW)
    assert np.abs(after - before).max() < 0.5  # a column of zeros has its variance in each class, once it was there
    again.load(member.state())
    play(member, wide, Window(1, 6, 0))
    play(again, wide, Window(1, 6, 0))
    assert_same(again.state(), member.state())
