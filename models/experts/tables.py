"""Naive Bayes by counting, which forgets nothing until a younger one knows better: row -> [counts per class] -> shares.

    D columns given   J nodes along each   Q codes   K classes   2 tables: the old one and the young
    grid  (2, D, J, K)  weight of each class's rows, dealt out to the two nodes beside the row's value
    codes (2, Q, K)     weight of each class's rows with each code
    seen  (2, K)        weight of each class's rows
    turns (2,)          how often each table has begun anew
    race  (3,)          rows of the young table; nats by which it has been better of late; its weight in the answer
                        (fixed share, Herbster & Warmuth 1998)

What never forgets is as good as can be while nothing changes, and lost after. So the young table begins anew every LIFE
rows, unless it leads just then; once it leads by PROOF nats (Page's test, 1954) it becomes the old one.

A few values, as bits have, stay apart on the nodes however the deviation that they are counted in settles. Where a
class had c of its n rows, all classes m of N, its factor is  BELIEF + (c + BELIEF m / N) N / n:  what was seldom met
says little, what was never met nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.experts.arrays import F32, F64, I64, widened
from models.experts.scores import squash
from models.experts.window import Rows, Window
from models.snapshot import Arrays

STEP, REACH = 0.5, 3.0
"""Deviations between two nodes, and from the mean to the last one on each side."""
NODES = 1 + int(2 * REACH / STEP)
BELIEF = 1.0
"""Rows' worth of belief that a class is like all."""
LIFE = 200
PROOF = 16.0
ALLOWED = 0.02
"""Nats a row by which the young table may be better and does not lead: as good as the old one, it is of no use."""
MOST = 3.0
"""Nats that one row may tell of two tables."""
SWITCH = 1e-3
"""Share of an answer that each table has at least."""
ROWS, LEAD, TRUST = range(3)
"""Of the race."""
AT_ONCE = 8
"""Columns whose factors are multiplied before a logarithm is taken: numbers stay within 1e300."""
TINY = 1e-6


@compiled
def spots_of(row: F32, given: I64, spots: F64) -> None:
    """Where the columns given stand among the nodes, 0 the first: spots (D,), of a row of z."""
    for d in range(len(given)):
        v = float(row[given[d]])
        spots[d] = (min(max(v, -REACH), REACH) + REACH) / STEP


@compiled
def multiply(counts: F64, total: float, rarity: F64, factors: F64) -> None:
    """factors (K,) by those of a value that the classes had ``counts`` (K,) rows at."""
    typical = BELIEF * counts.sum() / total
    for k in range(len(counts)):
        factors[k] *= BELIEF + (counts[k] + typical) * rarity[k]


@compiled
def answer(spots: F64, row_codes: I64, grid: F64, codes: F64, seen: F64, out: F64) -> None:
    """Shares of the classes by one table: out (K,)."""
    classes, columns = len(seen), len(spots)
    total = seen.sum() + classes
    rarity, factors, counts = np.empty(classes), np.ones(classes), np.empty(classes)
    for k in range(classes):
        rarity[k] = total / (seen[k] + 1.0)
        out[k] = -math.log(rarity[k])
    for i in range(columns + len(row_codes)):
        if i < columns:
            j = min(int(spots[i]), NODES - 2)
            part = spots[i] - j
            for k in range(classes):
                counts[k] = (1.0 - part) * grid[i, j, k] + part * grid[i, j + 1, k]
            multiply(counts, total, rarity, factors)
        else:
            multiply(codes[row_codes[i - columns]], total, rarity, factors)
        if i % AT_ONCE == AT_ONCE - 1 or i == columns + len(row_codes) - 1:
            for k in range(classes):
                out[k] += math.log(factors[k])
                factors[k] = 1.0
    squash(out)


@compiled
def count(spots: F64, row_codes: I64, true: int, weight: float, grid: F64, codes: F64, seen: F64) -> None:
    """One row into one table."""
    seen[true] += weight
    for d in range(len(spots)):
        j = min(int(spots[d]), NODES - 2)
        part = spots[d] - j
        grid[d, j, true] += (1.0 - part) * weight
        grid[d, j + 1, true] += part * weight
    for q in row_codes:
        codes[q, true] += weight


@compiled
def both(spots: F64, row_codes: I64, grid: F64, codes: F64, seen: F64, trust: float, said: F64, out: F64) -> None:
    """What each table says, said (2, K), and the two together: out (K,)."""
    for s in range(2):
        answer(spots, row_codes, grid[s], codes[s], seen[s], said[s])
    for k in range(len(out)):
        out[k] = (1.0 - trust) * said[0, k] + trust * said[1, k]


@compiled
def judge(said: F64, true: int, weight: float, race: F64) -> None:
    """The race goes on by one row, of which the tables told said (2, K)."""
    old, young = max(said[0, true], TINY), max(said[1, true], TINY)
    better = max(-MOST, min(MOST, math.log(young / old)))
    race[ROWS] += 1.0
    race[LEAD] = max(0.0, race[LEAD] + weight * (better - ALLOWED))
    trust = race[TRUST] * math.exp(weight * better)
    race[TRUST] = SWITCH + (1.0 - 2.0 * SWITCH) * trust / (1.0 - race[TRUST] + trust)


@compiled
def predict(z: F32, row_codes: I64, given: I64, grid: F64, codes: F64, seen: F64, race: F64, out: F64) -> None:
    """Answers for rows z (B, width) with codes (B, C): out (1, B, K)."""
    spots, said = np.empty(len(given)), np.empty(seen.shape)
    for b in range(len(z)):
        spots_of(z[b], given, spots)
        both(spots, row_codes[b], grid, codes, seen, race[TRUST], said, out[0, b])


@compiled
def learn(
    z: F32, row_codes: I64, y: F32, w: F32, given: I64,
    grid: F64, codes: F64, seen: F64, turns: F64, race: F64, out: F64,
) -> None:  # fmt: skip
    """Row by row: answer into out (1, B, K), count the row in both tables; the young one may take over, or end."""
    spots, said = np.empty(len(given)), np.empty(seen.shape)
    for b in range(len(z)):
        spots_of(z[b], given, spots)
        both(spots, row_codes[b], grid, codes, seen, race[TRUST], said, out[0, b])
        judge(said, int(y[b]), min(w[b], 1.0), race)
        for s in range(2):
            count(spots, row_codes[b], int(y[b]), w[b], grid[s], codes[s], seen[s])
        if race[LEAD] > PROOF:
            grid[0], codes[0], seen[0] = grid[1], codes[1], seen[1]
            turns[0] += 1.0
        elif race[LEAD] > 0.0 or race[ROWS] < LIFE:
            continue
        grid[1], codes[1], seen[1] = 0.0, 0.0, 0.0
        turns[1] += 1.0
        race[ROWS], race[LEAD], race[TRUST] = 0.0, 0.0, SWITCH


class Tables:
    """One member, of classes.

    Args:
        given: (D,) where in z the columns stand that are not the codes' rates.
        codes: Q.
        classes: K.
    """

    names: tuple[str, ...] = ("tables",)

    def __init__(self, given: I64, *, codes: int, classes: int) -> None:
        self._given = given
        self._grid = np.zeros((2, len(given), NODES, classes))
        self._codes, self._seen = np.zeros((2, codes, classes)), np.zeros((2, classes))
        self._turns, self._race = np.zeros(2), np.array([0.0, 0.0, SWITCH])

    def place(self, given: I64) -> None:
        """Columns given stand here from now on: those there are, and further ones."""
        self._given = given
        self._grid = widened(self._grid, (2, len(given), *self._grid.shape[2:]))

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        predict(rows.z, rows.codes, self._given, self._grid, self._codes, self._seen, self._race, out)

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        learn(
            rows.z, rows.codes, rows.y, rows.w, self._given,
            self._grid, self._codes, self._seen, self._turns, self._race, out,
        )  # fmt: skip

    def vectors(self) -> tuple[F32, ...]:
        return ()

    def grow(self, columns: int, classes: int, codes: int) -> None:
        """Of columns, ``place`` tells."""
        self._grid = widened(self._grid, (*self._grid.shape[:3], classes))
        self._codes, self._seen = widened(self._codes, (2, codes, classes)), widened(self._seen, (2, classes))

    def forget(self, codes: I64) -> None:
        """These codes are as codes never met."""
        self._codes[:, codes] = 0.0

    def state(self) -> Arrays:
        return {
            "grid": self._grid.copy(),
            "codes": self._codes.copy(),
            "seen": self._seen.copy(),
            "turns": self._turns.copy(),
            "race": self._race.copy(),
        }

    def load(self, state: Arrays) -> None:
        self._grid, self._codes, self._seen, self._turns, self._race = (
            state[name].astype(np.float64) for name in ("grid", "codes", "seen", "turns", "race")
        )


def together(base: Arrays, parts: Sequence[Arrays], shares: F64) -> Arrays:
    """The tables of parts that learned apart since ``base``: all that they have counted.

    A table that some part began anew is outdated: of the others' only what came since the base joins it. A young one
    that several parts let take over counts what it had at the base once for each.

    Args:
        shares: (N,) of the rows that each part learned; their sum is 1.
    """
    began = np.stack([part["turns"] != base["turns"] for part in parts])  # (N, 2)
    race = [_float(part, "race") for part in parts]
    merged: Arrays = {
        "turns": np.max([part["turns"] for part in parts], axis=0),
        "race": np.sum([share * of_part for share, of_part in zip(shares, race, strict=True)], axis=0),
    }
    merged["race"][ROWS] = _added(_float(base, "race")[ROWS], np.stack(race)[:, ROWS], began[:, 1])
    for name in ("grid", "codes", "seen"):
        was, now = _float(base, name), np.stack([_float(part, name) for part in parts])
        merged[name] = np.stack([_added(was[s], now[:, s], began[:, s]) for s in range(2)])
    return merged


def _added(was: F64, now: F64, began: NDArray[np.bool_]) -> F64:
    """A table's counts at the base, and in each of the N parts."""
    since = sum(part if anew else part - was for part, anew in zip(now, began, strict=True))
    return np.asarray(since if began.any() else was + since)


def _float(state: Arrays, name: str) -> F64:
    return state[name].astype(np.float64)
