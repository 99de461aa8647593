"""Cheap and different members, trained together and mixed: row -> [members] -> [mixing] -> answer.

    B rows   D columns given   C categorical features   K classes (1: regression)   M members

Rows take effect one after another, however many come at once: the same rows in the same order leave
the same bits.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from models.experts import categories, linear, recent
from models.experts.arrays import F32, F64, I64
from models.experts.bayes import Bayes
from models.experts.categories import Categories
from models.experts.discriminant import Discriminant
from models.experts.forest import Forest
from models.experts.linear import Linear
from models.experts.mixing import Mixing
from models.experts.neighbours import Neighbours
from models.experts.net import Nets
from models.experts.recent import Recent
from models.experts.tables import Tables
from models.experts.window import CHUNK, Rows, Window, tame
from models.snapshot import Arrays, prefixed, under

SLOW = 64
"""Rows to a step of the slow nets."""
FORGOTTEN = 2**20
"""Rows by which lateness is told apart; float32 counts so far."""

Task = Literal["classification", "regression"]

MOST_VALUE = 1e25
"""A value beyond is left out: sums of a few could not be told from infinity."""
MOST_WEIGHT = 1e6
"""A row counts no more than this."""


class Tier(NamedTuple):
    """What a mixture is made of; its cost follows from it, the clock decides nothing."""

    nets: tuple[tuple[float, int], ...]
    """Adam's rate, and how many rows of the past are learned again with each new one."""
    hidden: int
    """Units of each net."""
    forests: tuple[tuple[int, int, int], ...]
    """Trees, window, pace."""
    neighbours: tuple[int, ...]
    """How many are asked."""
    slow_nets: tuple[tuple[float, int], ...] = ()
    """The same, of nets that step once in SLOW rows."""
    near_window: int = 2000
    replay_window: int = 2000
    rates: tuple[float, ...] = linear.RATES


TIERS = {
    "fast": Tier(nets=((0.004, 2),), slow_nets=((0.001, 0),), hidden=32, forests=((8, 2000, 20),), neighbours=()),
    "standard": Tier(
        nets=((0.004, 8), (0.002, 4), (0.005, 1)),
        slow_nets=((0.001, 0), (0.0005, 0)),
        hidden=64,
        forests=((16, 5000, 24), (16, 1000, 12)),
        neighbours=(3, 12),
    ),
    "full": Tier(
        nets=((0.004, 16), (0.002, 8), (0.005, 1), (0.01, 8)),
        slow_nets=((0.001, 0), (0.0005, 0)),
        hidden=128,
        forests=((48, 20_000, 100), (32, 5000, 80), (32, 1000, 40)),
        neighbours=(1, 3, 12, 30),
        near_window=5000,
        replay_window=5000,
    ),
}


class Member(Protocol):
    """One or several columns of the members' answers (names, B, K)."""

    names: tuple[str, ...]

    def predict(self, rows: Rows, window: Window, out: F64) -> None:
        """Answers, nothing changes."""
        ...

    def learn(self, rows: Rows, window: Window, out: F64) -> None:
        """Row by row: answer, then learn. The rows stand behind the newest of the window already."""
        ...

    def vectors(self) -> tuple[F32, ...]:
        """The parameters that gradients move, not copied."""
        ...

    def grow(self, columns: int, classes: int, codes: int) -> None:
        """Further columns, classes and codes behind those there are."""
        ...

    def state(self) -> Arrays: ...

    def load(self, state: Arrays) -> None: ...


def state_bytes(state: Arrays) -> dict[str, int]:
    """How large each part of a mixture's state is; docs/learners.md says what bounds it."""
    found: dict[str, int] = {}
    for name, array in state.items():
        part = name.split(".", 1)[0]
        found[part] = found.get(part, 0) + array.nbytes
    return found


class Mixture:
    """The default learner.

    Args:
        columns: D, standardised; 0 where missing.
        classes: K; not looked at for regression.
        category_sizes: codes of each categorical feature.
        tier: which members there are.
        seed: of all that is left to chance.
        pace: what the nets' rates are multiplied by.
    """

    def __init__(
        self,
        *,
        task: Task,
        columns: int,
        classes: int,
        category_sizes: tuple[int, ...] = (),
        tier: str | Tier = "standard",
        seed: int = 0,
        pace: float = 1.0,
    ) -> None:
        made = TIERS[tier] if isinstance(tier, str) else tier
        self.skipped = 0
        """Rows not learned, since something in them was no number, no class or no weight."""
        self._classes = 1 if task == "regression" else max(classes, 2)
        self._x_at, self._code_at = np.zeros(0, np.int64), [np.zeros(0, np.int64) for _ in category_sizes]
        self._rate_at = np.zeros((0, 0), np.int64)
        self._width = self._codes = 0
        self._allot(columns, category_sizes)
        sizes = {"columns": self._width, "classes": self._classes}
        lengths = [made.replay_window, made.near_window, *(window for _, window, _ in made.forests)]
        self._window = Window(max(lengths), self._width, len(category_sizes))
        self._recent = Recent(self._classes)
        self._categories = Categories(self._codes, self._classes)
        self._nets = [
            Nets(
                settings,
                pace=pace,
                hidden=made.hidden,
                window=made.replay_window,
                codes=self._codes,
                seed=seed,
                every=every,
                **sizes,
            )
            for settings, every in ((made.nets, 1), (made.slow_nets, SLOW))
        ]
        self._members: dict[str, Member] = {
            "linear": Linear(made.rates, columns=self._width, classes=self._classes),
            "nets": self._nets[0],
            "slow_nets": self._nets[1],
        }
        self._tables: Tables | None = None
        if self._classes > 1:
            self._tables = Tables(self._x_at, codes=self._codes, classes=self._classes)
            self._members["tables"] = self._tables
            self._members["bayes"] = Bayes(**sizes)
            self._members["discriminant"] = Discriminant(**sizes)
        else:
            self._members["change"] = Linear(made.rates, columns=self._width, classes=1, of_change=True)
        self._neighbours = Neighbours(made.neighbours, window=made.near_window, columns=self._width)
        if made.neighbours:
            self._members["neighbours"] = self._neighbours
        for trees, window, pace in made.forests:
            self._members[f"forest_{window}"] = Forest(trees, window=window, pace=pace, seed=seed, **sizes)
        self.members = self._recent.names + tuple(n for m in self._members.values() for n in m.names)
        """Their names, in the order of their weights."""
        self._mixing = Mixing(len(self.members), self._classes)

    # --- rows -----------------------------------------------------------------------------------------

    def predict(self, x: F32, categories: I64) -> F32:
        """Probabilities (B, K), each row's sum 1; or values (B, 1). Changes nothing."""
        return self._mixing.predict(self.predict_members(x, categories))[0].astype(np.float32)

    def predict_members(self, x: F32, categories: I64) -> F64:
        """What each member says: (M, B, K)."""
        x, codes = self._placed(x), self._rows_of(categories)
        answers = np.empty((len(self.members), len(x), self._classes))
        mine = len(self._recent.names)
        units = self._recent.predict(len(x), answers[:mine])
        prior = recent.prior_of(answers[:mine])
        self._categories.predict(x, codes, prior, units[1], self._rate_at)
        nothing = np.zeros(0, np.float32)
        rows = Rows(x, codes, prior, units[0], units[1], units[2], units[3], nothing, nothing)
        for member in self._members.values():
            member.predict(rows, self._window, answers[mine : mine + len(member.names)])
            mine += len(member.names)
        return answers

    def ask(self, x: F32, categories: I64) -> tuple[F32, F32]:
        """As ``predict``, and for ``learn`` what each member and each way of mixing told, and when: (B, Q)."""
        answers = self.predict_members(x, categories)
        mixed, ways = self._mixing.predict(answers)
        said = np.concatenate([answers, ways]).transpose(1, 0, 2)
        told = said.reshape(len(x), said.shape[1] * said.shape[2])
        when = np.full((len(x), 1), self.count % FORGOTTEN)
        return mixed.astype(np.float32), np.concatenate([told, when], axis=1, dtype=np.float32)

    def learn(self, x: F32, categories: I64, target: F32, weights: F32 | None = None, told: F32 | None = None) -> None:
        """Row by row: answer, then learn. A row that is not finite, or of no class, is left out.

        Args:
            x: (B, D)
            categories: (B, C)
            target: (B,) class or value
            weights: (B,) how many examples each stands for; None is one each. Beyond 10, a gradient is no longer.
            told: (B, Q) of ``ask``, when the rows were answered: members and ways are judged by that. NaN in a row
                of which it is lost: nobody is judged by it. None: by what they say now, the label came at once.

        Raises:
            ValueError: there are not B targets or weights.
        """
        w = np.ones(len(x), np.float32) if weights is None else np.asarray(weights, np.float32)
        for name, given in (("target", target), ("weights", w)):
            if given.shape != (len(x),):
                raise ValueError(f"{name} has shape {given.shape}, wanted ({len(x)},)")
        least, most = (-MOST_VALUE, MOST_VALUE) if self._classes == 1 else (0, self._classes - 1)
        whole = np.isfinite(x).all(axis=1) & (target >= least) & (target <= most) & (w > 0) & (w < np.inf)
        if not whole.all():
            self.skipped += int((~whole).sum())
            x, categories, target, w = x[whole], categories[whole], target[whole], w[whole]
            told = None if told is None else told[whole]
        for at in range(0, len(x), CHUNK):
            part = slice(at, at + CHUNK)
            y, then = target[part].astype(np.float32), None if told is None else told[part]
            self._learn(x[part], categories[part], y, np.minimum(w[part], np.float32(MOST_WEIGHT)), then)

    def _learn(self, x: F32, categories: I64, y: F32, w: F32, told: F32 | None) -> None:
        z, codes = self._placed(x), self._rows_of(categories)
        answers = np.empty((len(self.members), len(z), self._classes))
        mine = len(self._recent.names)
        units = self._recent.learn(y, w, answers[:mine])
        prior = recent.prior_of(answers[:mine])
        self._categories.learn(z, codes, y, w, prior, units[1], self._rate_at)
        rows = Rows(z, codes, prior, units[0], units[1], units[2], units[3], y, w)
        self._window.write(rows)
        for member in self._members.values():
            member.learn(rows, self._window, answers[mine : mine + len(member.names)])
            mine += len(member.names)
        if told is None:
            self._mixing.learn(answers, y, w)
        else:
            self._judge(told, y, w)
        self._window.count += len(y)

    def _judge(self, told: F32, y: F32, w: F32) -> None:
        """Members and ways by what they told when the rows were answered."""
        late = (self.count + np.arange(len(y)) - told[:, -1].astype(np.float64)) % FORGOTTEN
        known = np.isfinite(told).all(axis=1)
        said = told[known, :-1].reshape(-1, len(self.members) + self._mixing.ways, self._classes)
        members, ways = np.split(said.transpose(1, 0, 2).astype(np.float64, order="C"), [len(self.members)])
        self._mixing.learn(members, y[known], w[known], ways, late[known].astype(np.float64))

    def _placed(self, x: F32) -> F32:
        """Columns where they were allotted: (B, D) -> (B, width), room for the categories' rates."""
        z = np.zeros((len(x), self._width), np.float32)
        z[:, self._x_at] = x
        tame(z)
        return z

    def _rows_of(self, categories: I64) -> I64:
        """Codes (B, C) of each feature -> rows of the one table of all."""
        rows = np.empty(categories.shape, np.int64)
        for c, places in enumerate(self._code_at):
            rows[:, c] = places[categories[:, c]]
        return rows

    # --- size -----------------------------------------------------------------------------------------

    def grow(self, *, columns: int, classes: int, category_sizes: tuple[int, ...]) -> None:
        """Further columns (0 so far), classes and codes; nothing said of the old ones changes."""
        self._classes = max(self._classes, classes) if self._classes > 1 else 1
        self._allot(columns, category_sizes)
        self._window.grow(self._width, np.array([at[0] for at in self._code_at], np.int64))
        self._recent.grow(self._classes)
        self._categories.grow(self._codes, self._classes)
        for member in self._members.values():
            member.grow(self._width, self._classes, self._codes)
        if self._tables is not None:
            self._tables.place(self._x_at)
        self._mixing.grow(self._classes)

    def _allot(self, columns: int, category_sizes: tuple[int, ...]) -> None:
        """Places behind those given out so far, so that what is there stays where it is."""
        self._x_at = self._further(self._x_at, columns)
        wide = categories.columns_of(self._classes)
        old = self._rate_at
        self._rate_at = np.zeros((len(category_sizes), wide), np.int64)
        self._rate_at[: len(old), : old.shape[1]] = old
        for c in range(len(category_sizes)):
            have = old.shape[1] if c < len(old) else 0
            self._rate_at[c, have:] = self._width + np.arange(wide - have)
            self._width += wide - have
        self._code_at += [np.zeros(0, np.int64)] * (len(category_sizes) - len(self._code_at))
        for c, size in enumerate(category_sizes):
            more = size - len(self._code_at[c])
            self._code_at[c] = np.concatenate([self._code_at[c], self._codes + np.arange(more)])
            self._codes += more

    def _further(self, places: I64, wanted: int) -> I64:
        more = self._width + np.arange(wanted - len(places))
        self._width += len(more)
        return np.concatenate([places, more])

    def forget(self, column: int, codes: Sequence[int]) -> None:
        """Codes of a categorical feature that will mean something else from now on."""
        rows = self._code_at[column][np.array(codes, np.int64)]
        self._categories.forget(rows)
        for nets in self._nets:
            nets.forget(rows)
        if self._tables is not None:
            self._tables.forget(rows)
        self._window.forget(rows, int(self._code_at[column][0]))

    # --- parameters ---------------------------------------------------------------------------------------

    def parameters(self) -> F32:
        """All that gradients move, of linear models and nets: (P,), copied."""
        return np.concatenate([v.reshape(-1) for v in self._vectors()])

    def set_parameters(self, theta: F32) -> None:
        """Go on from theta (P,); what else learning has changed stays."""
        at = 0
        for v in self._vectors():
            v[...] = theta[at : at + v.size].reshape(v.shape)
            at += v.size

    def pull(self, reference: F32, lam: float) -> None:
        """theta += lam * (reference - theta)."""
        at = 0
        for v in self._vectors():
            v += np.float32(lam) * (reference[at : at + v.size].reshape(v.shape) - v)
            at += v.size

    def _vectors(self) -> list[F32]:
        return [v for member in self._members.values() for v in member.vectors()]

    # --- what it knows of itself ------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Rows learned."""
        return self._window.count

    def weights(self) -> dict[str, float]:
        """What each member counts in the answer; they sum to 1."""
        return dict(zip(self.members, self._mixing.weights().tolist(), strict=True))

    def member_losses(self) -> dict[str, float]:
        """Summed prequential loss of each member: log-loss, or absolute error."""
        return dict(zip(self.members, self._mixing.totals[: len(self.members)].tolist(), strict=True))

    @property
    def loss(self) -> float:
        """Summed prequential loss of the mixture."""
        return float(self._mixing.totals[-1])

    def state(self) -> Arrays:
        """All that learning has changed, copied."""
        arrays = prefixed("window", self._window.state()) | prefixed("recent", self._recent.state())
        arrays |= prefixed("categories", self._categories.state()) | prefixed("mixing", self._mixing.state())
        for name, member in self._members.items():
            arrays |= prefixed(name, member.state())
        places = {f"codes{c}": at.copy() for c, at in enumerate(self._code_at)}
        return arrays | prefixed("places", places | {"x": self._x_at.copy(), "rates": self._rate_at.copy()})

    def load(self, state: Arrays) -> None:
        """Back to a state, of its size; the tier and the seed are those it was made with."""
        places = {name: array.astype(np.int64) for name, array in under("places", state).items()}
        self._x_at, self._rate_at = places["x"], places["rates"]
        self._code_at = [places[f"codes{c}"] for c in range(len(self._rate_at))]
        self._width, self._codes = len(self._x_at) + self._rate_at.size, sum(map(len, self._code_at))
        self._window.load(under("window", state))
        self._recent.load(under("recent", state))
        self._categories.load(under("categories", state))
        self._mixing.load(under("mixing", state))
        self._classes = state["recent.rates"].shape[1]
        for name, member in self._members.items():
            member.load(under(name, state))
        if self._tables is not None:
            self._tables.place(self._x_at)
        self._neighbours.derive(self._window)
