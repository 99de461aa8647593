"""Workers that learned apart become one: base, parts -> [merged, each kind its own way] -> state.

    N parts of one base   n_i rows that part i has learned since   n their sum   b, x_i, x: base, part, merged

Parameters (linear, nets, stacks, powers)   x = b + sum_i n_i / n (x_i - b). The mean, not the sum: each part has made
    whole steps on the whole loss, and their sum is one step n / n_i times as long. That is local SGD (Stich 2019) and
    McMahan et al.'s (2017) federated averaging; elastic averaging (Zhang, Choromanska & LeCun 2015) would pull toward a
    centre instead, which here all parts begin anew from. A code's weights count by who met the code.
    Adam's moments and what is left to chance are the largest part's.
Sums and means that forget (rates, transitions, categories, bayes, discriminant's means)   of the base what m steps
    leave, m = sum_i m_i; the rest is a mean of what is new in each part, m_i / m of it: as if rows had come by turns.
Sums that do not (tables, the discriminant's matrix, leaves, losses, moments)   x = b + sum_i (x_i - b).
Weights of members and ways   the mean as for parameters, of their logs. Not their sum, though each part's evidence is
    of other rows: fixed share forgets, so a weight tells of the last rows only, and its chance would be summed too.
Windows   the newest rows by turns, in the order of how far each part had come, then of the key. Never averaged.
Trees   one that no part has grown anew counts all parts' rows; the others are grown anew over the merged window, as
    many as the parts have together grown.

How often a class or a code came is read off the parts' windows; where a part learned more than fits, it is
extrapolated. The same parts give the same bits, in whatever order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.experts import bayes, categories, discriminant, forest, mixing, recent, tables
from models.experts.arrays import F64, I64, U64
from models.merging import Each, added, averaged, faded, of_late, quotient, stacked
from models.snapshot import Arrays, prefixed, under

_SIZED_BY_ROWS = ("z", "codes", "y", "w", "feature", "threshold", "child", "leaf", "mass")


class Part(NamedTuple):
    """What a worker made of the base."""

    state: Arrays
    """Of a ``Mixture`` that was loaded with the base, or is of one seed with it."""
    rows: int
    """Learned since the base."""
    key: int
    """Orders the parts, such as a partition's number."""


class _News(NamedTuple):
    """What a part has learned since the base, oldest first; only the newest if it is more than fits its window."""

    z: NDArray[np.float32]
    codes: NDArray[np.int32]
    y: NDArray[np.float32]
    w: NDArray[np.float32]
    rows: int

    def steps(self, found: NDArray[np.generic], size: int) -> F64:
        """How often each of ``size`` numbers came, of those found in these rows (rows, ...)."""
        counted = np.bincount(found.astype(np.int64).ravel(), minlength=size)
        return np.asarray(counted * (self.rows / len(self.y)), np.float64)


def merge(base: Arrays, parts: Sequence[Part]) -> Arrays:
    """The state of one mixture that has learned what all parts have.

    Args:
        base: state that all parts began from. What grows, and codes that are forgotten, do so in it, not in a part.
        parts: in any order. One alone is the result; those without rows are not looked at.

    Raises:
        ValueError: parts are not of this base, or of another size (grow the base first, and all parts alike).
    """
    for part in parts:
        _check(base, part)
    if len({part.key for part in parts}) < len(parts):
        raise ValueError(f"keys are {sorted(part.key for part in parts)}, wanted each once")
    told = sorted((part for part in parts if part.rows > 0), key=lambda part: part.key)
    if len(told) < 2:
        only = told[0].state if told else base
        return {name: array.copy() for name, array in only.items()}
    return _merged(base, told)


def _merged(base: Arrays, parts: Sequence[Part]) -> Arrays:
    news = [_news(part) for part in parts]
    states = [part.state for part in parts]
    rows = np.array([part.rows for part in parts], np.int64)
    largest = int(np.argmax(rows))  # the first of them

    def of(name: str) -> tuple[Arrays, list[Arrays]]:
        return under(name, base), [under(name, state) for state in states]

    window = _window(*of("window"), news)
    found = {name: array.copy() for name, array in base.items() if name.startswith("places.")}
    found |= prefixed("window", window)
    found |= prefixed("recent", _recent(*of("recent"), news))
    found |= prefixed("categories", _categories(*of("categories"), news))
    found |= prefixed("mixing", _mixing(*of("mixing"), rows))
    for name in ("nets", "slow_nets"):
        found |= prefixed(name, _nets(*of(name), news, largest))
    for name in ("linear.weights", "change.weights"):
        if name in base:
            found[name] = averaged(base[name], [state[name] for state in states], rows)
    if "bayes.count" in base:
        found |= prefixed("tables", tables.together(*of("tables"), rows / rows.sum()))
        found |= prefixed("bayes", _bayes(*of("bayes"), news))
        found |= prefixed("discriminant", _discriminant(*of("discriminant"), news))
    for name in sorted({name.split(".")[0] for name in base if name.startswith("forest_")}):
        was, now = of(name)
        left = int(now[largest]["counters"][2]) - int(states[largest]["window.count"][0])
        found |= prefixed(name, _forest(was, now, window, largest, left))
    return {name: found[name].astype(array.dtype) for name, array in base.items()}


def _check(base: Arrays, part: Part) -> None:
    if set(part.state) != set(base):
        raise ValueError(f"part {part.key} has not the arrays of the base: {sorted(set(part.state) ^ set(base))}")
    for name, array in part.state.items():
        found, wanted = array.shape, base[name].shape
        if name.split(".")[-1] in _SIZED_BY_ROWS:
            found, wanted = found[1:], wanted[1:]
        if found != wanted:
            raise ValueError(f"part {part.key} has {name!r} of shape {found}, wanted {wanted}, as in the base")
    learned = int(part.state["window.count"][0]) - int(base["window.count"][0])
    if learned != part.rows:
        raise ValueError(f"part {part.key} has learned {learned} rows since the base, wanted {part.rows}")


# Windows --------------------------------------------------------------------------------------------


def _newest(window: Arrays, rows: int) -> I64:
    """Where the newest rows of a ring stand, oldest first; as many as there are."""
    count, room = int(window["count"][0]), int(window["room"][0])
    n = min(rows, len(window["y"]))
    return (count - n + np.arange(n)) % room


def _news(part: Part) -> _News:
    window = under("window", part.state)
    at = _newest(window, part.rows)
    z, codes, y, w = (window[name][at] for name in ("z", "codes", "y", "w"))
    return _News(z.astype(np.float32), codes.astype(np.int32), y.astype(np.float32), w.astype(np.float32), part.rows)


def _window(base: Arrays, parts: Sequence[Arrays], news: Sequence[_News]) -> Arrays:
    """The base's rows and behind them the parts', by turns."""
    room, count = int(base["room"][0]), int(base["count"][0]) + sum(new.rows for new in news)
    come = np.concatenate([(new.rows - np.arange(len(new.y))[::-1]) / new.rows for new in news])
    by_turns = np.argsort(come, kind="stable")
    had = _newest(base, room)
    n = min(count, room)
    at = (count - n + np.arange(n)) % room
    merged: Arrays = {"count": np.array([count]), "room": base["room"].copy()}
    for name in ("z", "codes", "y", "w"):
        rows = np.concatenate([base[name][had], np.concatenate([getattr(new, name) for new in news])[by_turns]])
        merged[name] = np.empty((n, *rows.shape[1:]), rows.dtype)
        merged[name][at] = rows[-n:]
    return merged


# Members --------------------------------------------------------------------------------------------


def _recent(base: Arrays, parts: Sequence[Arrays], news: Sequence[_News]) -> Arrays:
    rows = np.array([new.rows for new in news], np.int64)
    classes = base["rates"].shape[1]
    trend = averaged(base["trend"], [part["trend"] for part in parts], rows)
    trend[2:] = parts[-1]["trend"][2:]  # the last row is the last part's
    merged: Arrays = {"last": parts[-1]["last"].copy(), "trend": trend, "follows": base["follows"].copy()}
    if classes == 1:
        merged["moments"] = _moments(base["moments"], [part["moments"] for part in parts], rows)
        merged["rates"] = _mean_rates(base, parts, rows, float(merged["moments"][0]))
        return merged
    merged["moments"] = base["moments"].copy()
    keeps = np.array(recent.KEEPS)[:, None]
    merged["rates"] = faded(base["rates"], [part["rates"] for part in parts], keeps, [int(n) for n in rows])
    steps = [new.steps(_before(new, int(base["last"][0])), classes)[:, None] for new in news]
    merged["follows"] = faded(base["follows"], [part["follows"] for part in parts], recent.FOLLOWS_KEEP, steps)
    return merged


def _before(new: _News, last: int) -> NDArray[np.float32]:
    """The label before each of a part's rows; none before the first ever."""
    if len(new.y) < new.rows or last < 0:
        return new.y[:-1]
    return np.concatenate([[np.float32(last)], new.y[:-1]])


def _moments(base: NDArray[np.generic], parts: Each, rows: I64) -> F64:
    """Weight, mean and squared deviations by Chan, Golub & LeVeque (1979); then the changes' sums, which forget."""
    merged = base.astype(np.float64)
    for part in stacked(parts):
        n = part[0] - float(base[0])
        if n <= 0:  # weights too small to be seen beside the others
            continue
        shift = (part[1] - float(base[1])) * part[0] / n  # of the new values' mean from the base's
        squares = part[2] - float(base[2]) - shift**2 * float(base[0]) * n / part[0]
        off, total = float(base[1]) + shift - merged[1], merged[0] + n
        merged[2] += max(squares, 0.0) + off**2 * merged[0] * n / total
        merged[1] += off * n / total
        merged[0] = total
    merged[3:] = faded(base[3:], [part[3:] for part in parts], recent.CHANGE_KEEP, [int(n) for n in rows])
    return merged


def _mean_rates(base: Arrays, parts: Sequence[Arrays], rows: I64, weight: float) -> F64:
    """Means of late at each pace; at first they are means of all."""
    was, now = float(base["moments"][0]), np.array([float(part["moments"][0]) for part in parts])
    merged = np.empty_like(base["rates"], dtype=np.float64)
    for s, keep in enumerate(recent.KEEPS):
        left = [_left(was, w, n, keep) for w, n in zip([*now, weight], [*rows, rows.sum()], strict=True)]
        of_parts = stacked([part["rates"][s] for part in parts])
        merged[s] = of_late(base["rates"][s], of_parts, left[:-1], left[-1], [int(n) for n in rows])
    return merged


def _left(before: float, after: float, rows: int, keep: float) -> float:
    """What is left of a mean of late of weight ``before``, ``rows`` later."""
    full = 1 / (1 - keep)
    late = rows * max(0.0, after - max(before, full)) / (after - before) if after > before else rows
    return float(min(before, full) / min(after, full) * keep**late)


def _categories(base: Arrays, parts: Sequence[Arrays], news: Sequence[_News]) -> Arrays:
    steps = [new.steps(new.codes, len(base["weight"])) for new in news]
    return {
        "weight": faded(base["weight"], [part["weight"] for part in parts], categories.KEEP, steps),
        "sums": faded(base["sums"], [part["sums"] for part in parts], categories.KEEP, [s[:, None] for s in steps]),
    }


def _bayes(base: Arrays, parts: Sequence[Arrays], news: Sequence[_News]) -> Arrays:
    steps = [new.steps(new.y, len(base["count"])) for new in news]
    return {name: faded(was, [part[name] for part in parts], bayes.KEEP, steps) for name, was in base.items()}


def _discriminant(base: Arrays, parts: Sequence[Arrays], news: Sequence[_News]) -> Arrays:
    """Means as decayed sums; matrices add up, their inverses do not."""
    steps = [new.steps(new.y, len(base["count"])) for new in news]
    count = faded(base["count"], [part["count"] for part in parts], discriminant.KEEP, steps)
    of_parts = [part["count"] * part["mean"] for part in parts]  # type: ignore[operator]
    sums = faded(base["count"] * base["mean"], of_parts, discriminant.KEEP, steps)  # type: ignore[operator]
    mean = quotient(sums, count)
    merged: Arrays = {"count": count, "mean": mean, "seen": added(base["seen"], [part["seen"] for part in parts])}
    wide = base["inverse"].shape[1] < len(mean)
    if wide:
        return merged | {"pull": base["pull"].copy(), "inverse": base["inverse"].copy()}
    matrix = added(_inverse(base["inverse"]), [_inverse(part["inverse"]) for part in parts])
    inverse = _inverse(matrix)
    return merged | {"inverse": inverse, "pull": inverse @ mean}


def _inverse(matrix: NDArray[np.generic]) -> F64:
    """Of a symmetric matrix, symmetric to the bit."""
    found = np.linalg.inv(matrix.astype(np.float64))
    return (found + found.T) / 2


def _nets(base: Arrays, parts: Sequence[Arrays], news: Sequence[_News], largest: int) -> Arrays:
    rows = np.array([new.rows for new in news], np.float64)
    merged: Arrays = {name: array.copy() for name, array in parts[largest].items()}
    merged["last"] = averaged(base["last"], [part["last"] for part in parts], rows)
    inputs = base["first"].shape[1]
    shared = 1 + int(base["columns"][0])
    turns = np.repeat((rows / rows.sum())[:, None], inputs, axis=1)  # a row's worth for codes that nobody met
    for i, new in enumerate(news):
        turns[i, shared:] += new.steps(new.codes, inputs - shared)
    firsts = [part["first"].swapaxes(0, 1) for part in parts]
    merged["first"] = averaged(base["first"].swapaxes(0, 1), firsts, turns).swapaxes(0, 1)
    return merged


def _mixing(base: Arrays, parts: Sequence[Arrays], rows: I64) -> Arrays:
    was = {name: array.astype(np.float64) for name, array in base.items()}
    now = {name: stacked([part[name] for part in parts]) for name in base}
    merged = {name: averaged(was[name], now[name], rows) for name in ("sure", "stack", "bias", "unit", "lateness")}
    keep, n = mixing.SURE_KEEP, [int(own) for own in rows]
    noise = of_late(was["sure"][1], now["sure"][:, 1], [keep**own for own in n], keep ** sum(n), n)
    merged["sure"][1] = np.clip(noise, mixing.TINY, mixing.MOST_NOISE)
    merged["sure"][2] = faded(was["sure"][2], now["sure"][:, 2], keep, n)
    merged["unit"][1] = added(was["unit"], now["unit"])[1]
    merged["lateness"][0] = added(was["lateness"], now["lateness"])[0]
    merged["totals"] = added(was["totals"], now["totals"])
    for name in ("share", "final"):
        weights = np.exp(averaged(np.log(was[name]), np.log(now[name]), rows))
        merged[name] = weights / weights.sum()
    return dict(merged)


# Trees ----------------------------------------------------------------------------------------------

_NODES, _LEAVES = ("feature", "threshold", "child"), ("leaf", "mass")


def _trees(state: Arrays) -> list[Arrays]:
    """Each tree's own arrays."""
    found: list[Arrays] = [{} for _ in state["used"]]
    for column, names in enumerate((_NODES, _LEAVES)):
        ends = np.cumsum(state["used"][:, column])[:-1]
        for name in names:
            for tree, array in zip(found, np.split(state[name], ends), strict=True):
                tree[name] = array
    return found


def _same(tree: Arrays, other: Arrays) -> bool:
    """Of one structure; not known of a tree that is one leaf, which may have been grown anew."""
    return len(tree["feature"]) > 1 and all(np.array_equal(tree[name], other[name]) for name in _NODES)


def _forest(base: Arrays, parts: Sequence[Arrays], window: Arrays, largest: int, left: int) -> Arrays:
    """left: rows until the largest part would grow its next tree."""
    was, now = _trees(base), [_trees(part) for part in parts]
    built = np.arange(len(was)) < max(int(part["counters"][0]) for part in parts)
    changed: NDArray[np.bool_] = np.array(
        [[not _same(*pair) for pair in zip(was, trees, strict=True)] for trees in now]
    )
    changed &= built  # (N, T)
    turns, following = min(int(changed.sum()), len(was)), int(base["counters"][1])
    anew: NDArray[np.bool_] = np.any(changed, axis=0)
    anew[(following + np.arange(turns)) % len(was)] = True
    rows, word = _newest(window, int(base["window"][0])), parts[largest]["word"].astype(np.uint64)
    tries, classes = forest.tries_of(int(base["columns"][0])), base["leaf"].shape[1]
    trees = [
        _grown(window, rows, word, tries, classes) if anew[t] else _counted(was[t], [trees[t] for trees in now])
        for t in range(len(was))
    ]
    merged: Arrays = {name: np.concatenate([tree[name] for tree in trees]) for name in (*_NODES, *_LEAVES)}
    counters = [int((built | anew).sum()), (following + turns) % len(was), int(window["count"][0]) + left]
    merged |= {"columns": base["columns"], "window": base["window"], "counters": np.array(counters), "word": word}
    return merged | {"used": np.array([[len(tree["feature"]), len(tree["mass"])] for tree in trees])}


def _grown(window: Arrays, rows: I64, word: U64, tries: int, classes: int) -> Arrays:
    """A tree over these rows of the window."""
    n = max(len(rows), 1)
    nodes = np.zeros(2 * n, np.int32), np.zeros(2 * n, np.float32), np.zeros(2 * n, np.int32)
    leaf, mass = np.zeros((n, classes), np.float32), np.zeros(n, np.float32)
    x, y, w = (np.ascontiguousarray(window[name], np.float32) for name in ("z", "y", "w"))
    used, leaves = forest.grow(x, y, w, rows.copy(), tries, word, *nodes, leaf, mass)
    grown: Arrays = {name: array[:used] for name, array in zip(_NODES, nodes, strict=True)}
    return grown | {"leaf": leaf[:leaves], "mass": mass[:leaves]}


def _counted(tree: Arrays, others: Sequence[Arrays]) -> Arrays:
    """The tree with what all have counted in its leaves."""
    return tree | {name: added(tree[name], [other[name] for other in others]) for name in _LEAVES}
