"""What workers learned apart is, together, nearly what one would have learned of all rows; and never hangs on order."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.experts.merge import Part, merge
from models.experts.mixture import Mixture
from models.merging import faded
from models.snapshot import Arrays
from tests.models.experts.made import Batch, assert_same, batch, mixture

KINDS = [2, 4, 1]
ROOM = 356
"""Of the window, as made."""


def loaded(state: Arrays, classes: int) -> Mixture:
    mix = mixture(classes)
    mix.load(state)
    return mix


def learned(state: Arrays, rows: Batch, classes: int) -> Arrays:
    mix = loaded(state, classes)
    mix.learn(rows.x, rows.categories, rows.target)
    return mix.state()


def apart(base: Arrays, shares: Sequence[Batch], classes: int) -> list[Part]:
    return [Part(learned(base, rows, classes), len(rows.x), key) for key, rows in enumerate(shares)]


def split(rows: Batch, workers: int) -> list[Batch]:
    """Row by row."""
    return [Batch(*(a[worker::workers] for a in rows)) for worker in range(workers)]


def base_of(classes: int, rows: int = 200) -> Arrays:
    return learned(mixture(classes).state(), batch(rows, classes), classes)


# Which parts, and in what order -------------------------------------------------------------------


@pytest.mark.parametrize("classes", KINDS)
def test_one_part_alone_is_the_result(classes: int) -> None:
    base = base_of(classes)
    part, *_ = apart(base, [batch(100, classes, seed=1)], classes)
    assert_same(merge(base, [part]), part.state)
    assert_same(merge(base, [Part(base, 0, 7), part, Part(base, 0, 8)]), part.state)


def test_without_rows_the_base_is_the_result() -> None:
    base = base_of(2)
    assert_same(merge(base, []), base)
    assert_same(merge(base, [Part(base, 0, 1), Part(base, 0, 2)]), base)


@pytest.mark.parametrize("classes", KINDS)
@pytest.mark.parametrize("before", [0, 2, 200, 500])
def test_the_order_of_parts_does_not_matter(classes: int, before: int) -> None:
    base = base_of(classes, before)
    parts = apart(base, [batch(n, classes, seed=n) for n in (90, 31, 90, 1)], classes)
    found = merge(base, parts)
    assert_same(merge(base, parts[::-1]), found)
    assert_same(merge(base, [parts[2], parts[0], parts[3], parts[1]]), found)


def test_parts_are_left_alone() -> None:
    base = base_of(2)
    parts = apart(base, split(batch(100, 2, seed=1), 2), 2)
    kept = [{name: a.copy() for name, a in state.items()} for state in (base, *(p.state for p in parts))]
    merged = merge(base, parts)
    for array in merged.values():
        array.fill(0)
    for state, copy in zip((base, *(p.state for p in parts)), kept, strict=True):
        assert_same(state, copy)


def test_parts_that_do_not_fit_are_refused() -> None:
    base = base_of(2)
    part, other = apart(base, split(batch(100, 2, seed=1), 2), 2)
    with pytest.raises(ValueError, match="part 0 has learned 50 rows since the base, wanted 49"):
        merge(base, [part._replace(rows=49)])
    with pytest.raises(ValueError, match=r"keys are \[0, 0\], wanted each once"):
        merge(base, [part, other._replace(key=0)])
    grown = loaded(base, 2)
    grown.grow(columns=5, classes=2, category_sizes=(5, 3))
    with pytest.raises(ValueError, match=r"part 3 has '.*' of shape .*, wanted .*, as in the base"):
        merge(base, [Part(grown.state(), 0, 3)])
    with pytest.raises(ValueError, match=r"part 0 has not the arrays of the base: \['bayes.count'"):
        merge(base_of(1), [part])


# Going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", KINDS)
@pytest.mark.parametrize("before", [0, 200, 500])
def test_the_merged_learns_answers_and_stops_like_anything_else(classes: int, before: int) -> None:
    base = base_of(classes, before)
    for round_ in range(3):
        parts = apart(base, split(batch(150, classes, seed=round_ + 1), 3), classes)
        base = merge(base, parts)
    on = loaded(base, classes)
    assert_same(on.state(), base)
    for name, array in base.items():
        assert np.isfinite(array.astype(np.float64)).all(), name
    again, rows = loaded(base, classes), batch(100, classes, seed=9)
    for mix in (on, again):
        mix.learn(rows.x, rows.categories, rows.target)
    assert_same(on.state(), again.state())
    p = on.predict(rows.x, rows.categories)
    if classes > 1:
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


# Sums and means -----------------------------------------------------------------------------------


@given(own=st.lists(st.integers(0, 300), min_size=2, max_size=4), half_life=st.integers(5, 2000))
@settings(deadline=None)
def test_sums_that_forget_weigh_as_if_rows_had_come_by_turns(own: list[int], half_life: int) -> None:
    keep, base = 0.5 ** (1 / half_life), np.array(3.0)
    parts = [np.array(keep**n * base + (1 - keep**n) / (1 - keep)) for n in own]
    wanted = keep ** sum(own) * base + (1 - keep ** sum(own)) / (1 - keep)
    assert float(faded(base, parts, keep, own)) == pytest.approx(wanted, rel=1e-9)


def close(found: Arrays, wanted: Arrays, name: str, tolerance: float) -> None:
    """Within a share of the largest number."""
    worst = np.abs(found[name].astype(float) - wanted[name].astype(float)).max()
    assert worst <= tolerance * np.abs(wanted[name].astype(float)).max(), name


def together(classes: int, workers: int, *, rows: int = 240) -> tuple[Arrays, Arrays]:
    """What workers make of rows dealt out one by one, and what one makes of them."""
    base, more = base_of(classes), batch(rows, classes, seed=1)
    return merge(base, apart(base, split(more, workers), classes)), learned(base, more, classes)


def test_slow_nets_go_on_from_the_merged() -> None:
    base, steps = base_of(2), []
    for seed in range(3):
        base = merge(base, apart(base, split(batch(160, 2, seed=seed), 2), 2))
        steps.append(base["slow_nets.steps"].tolist())
    on, again, rows = loaded(base, 2), loaded(base, 2), batch(200, 2, seed=9)
    on.learn(rows.x, rows.categories, rows.target)
    for b in range(200):
        again.learn(rows.x[b : b + 1], rows.categories[b : b + 1], rows.target[b : b + 1])
    assert_same(again.state(), on.state())
    assert (on.state()["slow_nets.steps"] > steps[-1]).all()
    assert steps == sorted(steps)


@pytest.mark.parametrize("workers", [2, 3])
def test_sums_of_classes_are_nearly_those_of_one_worker(workers: int) -> None:
    merged, one = together(4, workers)
    for name in ("bayes.count", "categories.weight", "discriminant.count"):
        close(merged, one, name, 1e-9)
    for name in ("bayes.squares", "categories.sums"):
        close(merged, one, name, 0.03)
    for name in ("bayes.sums", "discriminant.mean", "discriminant.inverse", "recent.rates"):
        close(merged, one, name, 0.25)  # the categories' columns are each worker's own
    close(merged, one, "discriminant.seen", 1e-12)
    transitions = [state["recent.follows"].sum() for state in (merged, one)]
    assert transitions[0] == pytest.approx(transitions[1], rel=0.01)
    np.testing.assert_array_equal(merged["discriminant.inverse"], merged["discriminant.inverse"].T)
    np.testing.assert_allclose(
        merged["discriminant.pull"], merged["discriminant.inverse"] @ merged["discriminant.mean"]
    )


def test_moments_of_values_are_those_of_one_worker() -> None:
    merged, one = together(1, 3)
    np.testing.assert_allclose(merged["recent.moments"][:3], one["recent.moments"][:3], rtol=1e-9)
    assert merged["recent.moments"][3] == pytest.approx(one["recent.moments"][3], rel=0.02)
    close(merged, one, "recent.rates", 0.02)
    assert merged["mixing.unit"][1] == one["mixing.unit"][1]


def test_losses_add_up() -> None:
    base = base_of(2)
    parts = apart(base, split(batch(100, 2, seed=1), 2), 2)
    added = sum(p.state["mixing.totals"] - base["mixing.totals"] for p in parts)  # type: ignore[operator]
    np.testing.assert_allclose(merge(base, parts)["mixing.totals"], base["mixing.totals"] + added)


def test_parameters_are_the_mean_by_rows_and_moments_the_largest_parts() -> None:
    base = base_of(2)
    small, large = apart(base, [batch(30, 2, seed=1), batch(90, 2, seed=2)], 2)
    merged = merge(base, [small, large])
    for name in ("linear.weights", "nets.last", "slow_nets.last", "mixing.stack"):
        wanted = 0.25 * small.state[name] + 0.75 * large.state[name]  # type: ignore[operator]
        np.testing.assert_allclose(merged[name], wanted, rtol=1e-5, atol=1e-7)
    for name in ("mean_first", "square_last", "slope_first", "slope_last", "steps", "words"):
        for nets in ("nets", "slow_nets"):
            np.testing.assert_array_equal(merged[f"{nets}.{name}"], large.state[f"{nets}.{name}"])
    assert merged["slow_nets.slope_last"].any()  # in the middle of a step


def told_late(base: Arrays, rows: Batch, late: int) -> Arrays:
    """Learned as if each row had been answered so many labels before."""
    mix = loaded(base, 2)
    _, told = mix.ask(rows.x, rows.categories)
    told[:, -1] += np.arange(len(rows.x)) - late
    mix.learn(rows.x, rows.categories, rows.target, told=told)
    return mix.state()


def test_lateness_is_the_mean_by_rows_and_its_rows_add_up() -> None:
    base = base_of(2)
    shares = [(batch(30, 2, seed=1), 20), (batch(90, 2, seed=2), 60)]
    parts = [Part(told_late(base, rows, late), len(rows.x), late) for rows, late in shares]
    found, (small, large) = merge(base, parts)["mixing.lateness"], (p.state["mixing.lateness"] for p in parts)
    assert small[1] < large[1]
    assert found.tolist() == pytest.approx([200 + 30 + 90, 0.25 * small[1] + 0.75 * large[1]])


def test_a_codes_weights_count_by_who_met_it() -> None:
    base, rows = base_of(2), batch(120, 2, seed=1)
    first, second = split(rows, 2)
    first.categories[:, 0], second.categories[:, 0] = 1, 2
    parts = apart(base, [first, second], 2)
    merged = merge(base, parts)
    for met, part in ((1, parts[0]), (2, parts[1])):
        row = 1 + int(base["nets.columns"][0]) + met
        moved = merged["nets.first"][:, row] - base["nets.first"][:, row]  # type: ignore[operator]
        alone = part.state["nets.first"][:, row] - base["nets.first"][:, row]  # type: ignore[operator]
        assert np.abs(moved - alone).max() < 0.1 * np.abs(alone).max()


def test_weights_of_members_stay_weights() -> None:
    merged, _ = together(2, 2)
    for name in ("mixing.share", "mixing.final"):
        assert merged[name].sum() == pytest.approx(1)
        assert merged[name].min() > 0


# Windows ------------------------------------------------------------------------------------------


def numbered(first: int, n: int) -> Batch:
    """Rows that can be told apart."""
    rows = batch(n, 1)
    return rows._replace(target=np.arange(first, first + n, dtype=np.float32))


@pytest.mark.parametrize("before", [0, 100, 300, 1000])
def test_windows_hold_the_newest_rows_by_turns(before: int) -> None:
    base = learned(mixture(1).state(), numbered(0, before), 1) if before else mixture(1).state()
    merged = merge(base, apart(base, [numbered(10_000, 90), numbered(20_000, 30)], 1))
    count = int(merged["window.count"][0])
    assert count == before + 120
    held = min(count, ROOM)
    y = merged["window.y"][(count - held + np.arange(held)) % ROOM]
    assert y.tolist()[-5:] == [20_028, 10_087, 10_088, 10_089, 20_029]
    new = y[-120:]
    np.testing.assert_array_equal(new[new >= 20_000], 20_000 + np.arange(30))
    np.testing.assert_array_equal(new[new < 20_000], 10_000 + np.arange(90))
    assert np.diff(np.flatnonzero(new >= 20_000)).tolist() == [4] * 29
    np.testing.assert_array_equal(y[:-120], np.arange(before - (held - 120), before))


def test_more_rows_than_fit_are_the_newest_of_each() -> None:
    base = mixture(1).state()
    merged = merge(base, apart(base, [numbered(0, 900), numbered(10_000, 900)], 1))
    y = np.sort(merged["window.y"].astype(float))
    np.testing.assert_array_equal(y, [*range(900 - ROOM // 2, 900), *range(10_900 - ROOM // 2, 10_900)])


# Trees --------------------------------------------------------------------------------------------


def masses(state: Arrays, forest: str) -> list[float]:
    ends = np.cumsum(state[f"{forest}.used"][:, 1])[:-1]
    return [float(mass.sum()) for mass in np.split(state[f"{forest}.mass"], ends)]


def test_trees_that_nobody_grew_anew_count_all_rows() -> None:
    base = base_of(2, 203)
    assert base["forest_100.counters"].tolist()[2] > 206  # the next is grown later than the rows that follow
    parts = apart(base, split(batch(6, 2, seed=1), 2), 2)
    merged = merge(base, parts)
    np.testing.assert_array_equal(merged["forest_100.threshold"], base["forest_100.threshold"])
    assert masses(merged, "forest_100") == [mass + 6 for mass in masses(base, "forest_100")]
    added = sum(p.state["forest_100.leaf"] - base["forest_100.leaf"] for p in parts)  # type: ignore[operator]
    np.testing.assert_array_equal(merged["forest_100.leaf"] - base["forest_100.leaf"], added)  # type: ignore[operator]


def test_trees_grown_anew_are_grown_over_the_merged_window_as_many_as_the_parts_grew() -> None:
    base = base_of(2, 400)
    parts = apart(base, split(batch(24, 2, seed=1), 2), 2)  # one tree of four is grown anew in each
    first = int(base["forest_100.counters"][1])
    assert [int(p.state["forest_100.counters"][1]) for p in parts] == [(first + 1) % 4] * 2
    merged = merge(base, parts)
    found, before = masses(merged, "forest_100"), masses(base, "forest_100")
    anew = [first, (first + 1) % 4]
    assert [found[t] for t in anew] == [100, 100]
    assert [found[t] - before[t] for t in range(4) if t not in anew] == [24, 24]
    assert merged["forest_100.counters"].tolist()[:2] == [4, (first + 2) % 4]
    assert int(merged["forest_100.counters"][2]) > int(merged["window.count"][0])


def test_the_first_trees_of_all_parts_are_grown() -> None:
    base = mixture(2).state()
    merged = merge(base, apart(base, split(batch(40, 2), 2), 2))
    assert merged["forest_100.counters"][0] == 4
    assert masses(merged, "forest_100") == [40] * 4


# In the end ---------------------------------------------------------------------------------------


def stream(n: int, classes: int) -> Batch:
    rows = batch(n, classes, sizes=(8,), seed=5)
    signal = rows.x @ [2.0, -2, 1, 0] + 0.7 * (rows.categories[:, 0] - 3.5)
    noisy = signal + 0.5 * np.random.default_rng(0).normal(size=n)
    return rows._replace(target=(noisy > 0 if classes == 2 else noisy).astype(np.float32))


def said(rows: Batch, classes: int, workers: int, every: int = 512) -> np.ndarray:
    """Answers before each label (B, K), of workers that get the rows in turn and are merged every so often."""
    task = "regression" if classes == 1 else "classification"
    crew = [
        Mixture(task=task, columns=4, classes=classes, category_sizes=(8,), tier="fast")  # type: ignore[arg-type]
        for _ in range(workers)
    ]
    base, answers = crew[0].state(), np.empty((len(rows.x), classes))
    for at in range(0, len(rows.x), every):
        parts = []
        for key, mix in enumerate(crew):
            mine = Batch(*(a[at + key : at + every : workers] for a in rows))
            for start in range(0, len(mine.x), 16):
                some = mine.part(start, start + 16)
                now = at + key + workers * start
                answers[now : now + workers * len(some.x) : workers] = mix.predict(some.x, some.categories)
                mix.learn(some.x, some.categories, some.target)
            parts.append(Part(mix.state(), len(mine.x), key))
        base = merge(base, parts)
        for mix in crew:
            mix.load(base)
    return answers


def test_two_workers_are_nearly_as_right_as_one() -> None:
    rows = stream(16_384, 2)
    one, two = ((said(rows, 2, workers).argmax(axis=1) == rows.target).mean() for workers in (1, 2))
    assert two > one - 0.005


def test_of_values_too() -> None:
    rows = stream(8192, 1)
    one, two = (np.abs(said(rows, 1, workers)[:, 0] - rows.target).mean() for workers in (1, 2))
    assert two < 1.1 * one
