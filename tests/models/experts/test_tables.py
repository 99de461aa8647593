"""Counts that never forget are as good as can be; when all changes, a younger table takes over."""

import numpy as np
import pytest

from models.experts.tables import BELIEF, LEAD, LIFE, NODES, REACH, ROWS, STEP, SWITCH, TRUST, Tables, together
from models.experts.window import Rows, Window
from models.snapshot import Arrays
from tests.models.experts.made import asked, assert_same, play, right, rows_of

WINDOW = Window(1, 0, 0)


def tables(columns: int, classes: int, codes: int = 0) -> Tables:
    return Tables(np.arange(columns), codes=codes, classes=classes)


def learn(member: Tables, rows: Rows) -> np.ndarray:
    return play(member, rows, Window(1, rows.z.shape[1], rows.codes.shape[1]))


def bits(n: int, seed: int, *, classes: int = 4, columns: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns that are -1 or 1, independent given the class; and the true shares of the classes (n, K)."""
    ones = np.random.default_rng(seed).beta(1, 1, (columns, classes))
    rng = np.random.default_rng([seed, n])
    y = rng.integers(0, classes, n)
    on = rng.random((n, columns)) < ones[:, y].T
    told = np.exp(on @ np.log(ones) + ~on @ np.log(1 - ones))
    return np.where(on, 1.0, -1.0), y, told / told.sum(axis=1, keepdims=True)


def loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(p[np.arange(len(y)), y]).mean())


# What is counted ----------------------------------------------------------------------------------


def test_answers_are_products_of_what_the_classes_have_counted() -> None:
    rng = np.random.default_rng(0)
    n, classes = 60, 3
    z, codes, y = rng.normal(size=(n, 10)).astype(np.float32), rng.integers(0, 5, (n, 2)), rng.integers(0, classes, n)
    w = rng.uniform(0.5, 2, n).astype(np.float32)
    given = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9])
    member = Tables(given, codes=5, classes=classes)
    rows = rows_of(z, y, classes=classes, codes=codes)._replace(w=w)
    learn(member, rows)
    asks = rows_of(2 * z[:8], y[:8], classes=classes, codes=codes[:8])

    def nodes(v: np.ndarray) -> np.ndarray:
        """How much of each value (n, D) each node gets: (n, D, J)."""
        at = np.clip(v[:, given].astype(float), -REACH, REACH)[:, :, None]
        return np.clip(1 - np.abs(at + REACH - STEP * np.arange(NODES)) / STEP, 0, 1)

    of = np.eye(classes)[y] * w[:, None]  # (n, K)
    seen, total = of.sum(axis=0) + 1, w.sum() + classes
    grid = np.einsum("ndj,nk->djk", nodes(z), of)
    told = np.log(seen / total) + np.zeros((8, 1))
    for b in range(8):
        counts = [*np.einsum("dj,djk->dk", nodes(asks.z)[b], grid)]
        counts += [of[(codes == code).any(axis=1)].sum(axis=0) + of[(codes == code).all(axis=1)].sum(axis=0)
                   for code in asks.codes[b]]  # fmt: skip
        for c in counts:
            told[b] += np.log(BELIEF + (c + BELIEF * c.sum() / total) * total / seen)
    wanted = np.exp(told - told.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(asked(member, asks, WINDOW)[0], wanted, rtol=1e-3)  # both tables have learned the same


def test_what_does_not_change_is_known_nearly_as_well_as_can_be() -> None:
    z, y, truth = bits(6000, 1)
    out = learn(tables(8, 4), rows_of(z, y, classes=4))
    assert loss(out[0, 3000:], y[3000:]) - loss(truth[3000:], y[3000:]) < 0.01
    assert right(out[:, 3000:], y[3000:])[0] > right(truth[None, 3000:], y[3000:])[0] - 0.01


def test_the_old_table_forgets_nothing_and_the_young_one_begins_anew() -> None:
    z, y, _ = bits(5 * LIFE, 1)
    member = tables(8, 4)
    learn(member, rows_of(z, y, classes=4))
    state = member.state()
    np.testing.assert_array_equal(state["seen"][0], np.bincount(y))
    assert state["turns"][0] == 0
    assert state["turns"][1] > 1
    assert state["race"][ROWS] == state["seen"][1].sum() < 2 * LIFE


def test_few_values_stay_apart_while_their_deviation_settles() -> None:
    z, y, _ = bits(4000, 2)
    settled = learn(tables(8, 4), rows_of(z, y, classes=4))
    scale = 1 + 0.3 * np.cos(np.arange(4000) / 300)[:, None]
    moving = learn(tables(8, 4), rows_of(z * scale, y, classes=4))
    assert right(moving, y)[0] > right(settled, y)[0] - 0.01


@pytest.mark.parametrize("period", [1500, 4000])
def test_a_younger_table_takes_over_when_all_changes(period: int) -> None:
    parts = [bits(period, seed) for seed in (1, 2, 3)]
    z, y, truth = (np.concatenate([part[i] for part in parts]) for i in range(3))
    member = tables(8, 4)
    out = learn(member, rows_of(z, y, classes=4))
    late = slice(-period // 2, None)
    assert member.state()["turns"][0] >= 2
    assert loss(out[0, late], y[late]) - loss(truth[late], y[late]) < 0.05


def test_answers_are_probabilities_whatever_the_weights_and_the_width() -> None:
    rng = np.random.default_rng(0)
    z, y = 10 * rng.normal(size=(300, 200)), rng.integers(0, 3, 300)
    rows = rows_of(z, y, classes=3)._replace(w=rng.choice([1e-6, 1, 1e6], 300).astype(np.float32))
    out = learn(tables(200, 3), rows)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out.sum(axis=2), 1)


# Size ---------------------------------------------------------------------------------------------


def test_growing_and_rest() -> None:
    z, y, _ = bits(300, 1)
    codes = np.random.default_rng(0).integers(0, 3, (300, 1))
    member, again = tables(8, 4, 3), tables(8, 4, 3)
    rows = rows_of(z, y, classes=4, codes=codes)
    learn(member, rows)
    before = asked(member, rows, WINDOW)
    member.grow(11, 4, 5)
    member.place(np.array([*range(8), 9, 10]))
    wide = rows_of(np.pad(z, ((0, 0), (0, 3))), y, classes=4, codes=codes)
    np.testing.assert_allclose(asked(member, wide, WINDOW), before)  # new columns have told nothing yet
    again.load(member.state())
    again.place(np.array([*range(8), 9, 10]))
    learn(member, wide)
    learn(again, wide)
    assert_same(again.state(), member.state())
    member.grow(11, 6, 5)
    more = rows_of(wide.z, y, classes=6, codes=codes)
    assert asked(member, more, WINDOW)[0, :, 4:].max() < 0.2


def test_a_forgotten_code_is_as_one_never_met() -> None:
    z, y, _ = bits(300, 1)
    member = tables(8, 4, 4)
    learn(member, rows_of(z, y, classes=4, codes=(y[:, None] == 0).astype(np.int64)))
    never, was = (rows_of(z, y, classes=4, codes=np.full((300, 1), code)) for code in (3, 1))
    assert np.abs(asked(member, was, WINDOW) - asked(member, never, WINDOW)).max() > 0.1
    member.forget(np.array([1]))
    np.testing.assert_allclose(asked(member, was, WINDOW), asked(member, never, WINDOW))


# Learned apart ------------------------------------------------------------------------------------


def went_on(state: Arrays, rows: Rows) -> Arrays:
    member = tables(8, 4)
    member.load(state)
    learn(member, rows)
    return member.state()


def part_of(rows: Rows, which: slice) -> Rows:
    return Rows(*(a[which] for a in rows))


HALVES = np.array([0.5, 0.5])


def test_parts_together_have_counted_what_one_would_have() -> None:
    z, y, _ = bits(180, 1)
    rows = rows_of(z, y, classes=4)
    base = went_on(tables(8, 4).state(), part_of(rows, slice(0, 60)))
    parts = [went_on(base, part_of(rows, slice(start, None, 2))) for start in (60, 61)]
    merged, one = together(base, parts, HALVES), went_on(base, part_of(rows, slice(60, None)))
    for name in ("grid", "codes", "seen"):
        np.testing.assert_allclose(merged[name], one[name])
    assert merged["race"][ROWS] == one["race"][ROWS] == 180
    assert SWITCH <= merged["race"][TRUST] < 1


def test_a_table_that_one_part_began_anew_is_of_what_came_since() -> None:
    z, y, _ = bits(LIFE + 20, 1)
    rows = rows_of(z, y, classes=4)
    base = went_on(tables(8, 4).state(), part_of(rows, slice(0, LIFE - 10)))
    parts = [went_on(base, part_of(rows, slice(start, end))) for start, end in ((LIFE - 10, LIFE), (LIFE, LIFE + 5))]
    merged = together(base, parts, np.array([2 / 3, 1 / 3]))
    assert merged["turns"].tolist() == [0, 1]
    assert merged["race"][ROWS] == 5
    assert merged["seen"].sum(axis=1).tolist() == [LIFE + 5, 5]


def test_a_base_that_one_part_found_outdated_is_dropped() -> None:
    z, y, _ = bits(2000, 1)
    base = went_on(tables(8, 4).state(), rows_of(z, y, classes=4))
    z, y, _ = bits(400, 2)
    changed = went_on(base, rows_of(z, y, classes=4))
    assert changed["turns"][0] > base["turns"][0]
    other = went_on(base, rows_of(z[:10], y[:10], classes=4))
    merged = together(base, [changed, other], HALVES)
    assert merged["seen"][0].sum() == changed["seen"][0].sum() + 10
    assert (merged["grid"] >= 0).all()
    assert merged["race"][LEAD] <= max(changed["race"][LEAD], other["race"][LEAD])
