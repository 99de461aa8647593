"""Why it says so: one row -> [walks from background rows to it] -> contributions; labelled rows -> [importance].

    F       features: each numeric one, each key combination's recent rates (all its columns), each categorical one
    x, b    the row that is explained; a background row
    M       background rows: the newest that importance remembers
    m       walks
    phi     contributions (F, K)

A walk turns b into x, feature by feature, in random order; a feature's contribution is how much the score moves when
it is turned, in the mean over m walks: the Shapley value by sampling (Castro et al. 2009, interventional as in
Lundberg & Lee 2017). In every walk the moves add up to score(x) - score(b), so whatever m is

    sum of phi = score(x) - mean score of the background rows used.

Walks come in pairs, one in the reverse order of the other (antithetic, Mitchell et al. 2022), each from a b of its own:
which rows a row is compared with makes most of the error. One explained row costs m (F + 1) rows predicted. Orders
and background rows are drawn from a fixed seed: the same version says the same of the same row.

Everything here is numpy: servers use it too.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.measure import row_losses
from models.scaler import Scaler
from models.snapshot import Arrays, prefixed, under
from models.spec import ModelSpec

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
ScoresOf = Callable[[Floats, Ints], Floats]
"""dense (B, N + R) unscaled, categories (B, C) -> scores (B, K)."""

ROWS_AT_ONCE = 1_024
"""Rows predicted in one call."""
SURE = 1e-6
"""Log-odds are taken of probabilities cut this far from 0 and 1."""


class Grouping(NamedTuple):
    """Which columns belong to which feature."""

    names: tuple[str, ...]
    """F: numeric features, ``rates(...)`` of each key combination, categorical features."""
    dense: Ints
    """(N + R,) the feature of each column."""
    categories: Ints
    """(C,)"""

    rate_columns: dict[int, int]
    """Feature -> its first column, of those that are recent rates: (H, T) columns each."""

    def turned(self, features: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of features (..., F) their columns: (..., N + R) and (..., C)."""
        return features[..., self.dense], features[..., self.categories]


def grouping(spec: ModelSpec) -> Grouping:
    """The features of a spec, in the order of its columns."""
    features, rates = spec.features, spec.features.rates
    combinations = [f"rates({', '.join(key)})" for key in rates.keys]
    names = (*features.numeric, *combinations, *features.categorical)
    n, k = len(features.numeric), len(combinations)
    wide = len(rates.half_lives_s) * spec.outputs
    dense = np.concatenate([np.arange(n), np.repeat(np.arange(n, n + k), wide)])
    rate_columns = {n + i: n + i * wide for i in range(k)}
    return Grouping(names, dense, np.arange(n + k, len(names)), rate_columns)


# One prediction -----------------------------------------------------------------------------------


class Background(NamedTuple):
    """Rows that a row is compared with."""

    dense: Floats
    """(M, N + R) unscaled; NaN is missing."""
    categories: Ints
    """(M, C)"""


class Explained(NamedTuple):
    """What moved one row's scores away from the background's."""

    base: Doubles
    """(K,) mean score of the background rows used."""
    said: Doubles
    """(K,) the row's own: ``base`` and all contributions."""
    contributions: Doubles
    """(F, K)"""


class Explainer:
    """Explains single rows of any model by its scores alone.

    Args:
        spec: names the features.
        background: what rows are compared with, at least one row.
        seed: of the walks.
    """

    def __init__(self, spec: ModelSpec, background: Background, *, seed: int = 0) -> None:
        self.grouping = grouping(spec)
        orders = _orders(len(self.grouping.names), spec.explain.pairs, seed)  # (m, F)
        self._ranks = np.argsort(orders, axis=1)  # (m, F) when a feature is turned
        shuffled = np.random.default_rng(seed).permutation(len(background.dense))
        rows = np.resize(shuffled, len(orders))  # each once, as long as there are enough
        self._from = Background(background.dense[rows], background.categories[rows])

    def explain(self, scores_of: ScoresOf, dense: Floats, categories: Ints, *, log_odds: bool = False) -> Explained:
        """Contributions to the scores of one row, dense (N + R,) and categories (C,).

        Args:
            log_odds: to log(p / (1 - p)) instead of p; means something for binary only.
        """
        walked = self._walked(scores_of, dense, categories)  # (m, F + 1, K)
        if log_odds:
            sure = np.clip(walked, SURE, 1.0 - SURE)
            walked = np.log(sure / (1.0 - sure))
        moves = np.take_along_axis(np.diff(walked, axis=1), self._ranks[:, :, None], axis=1)  # (m, F, K)
        base, said = walked[:, 0].mean(axis=0), walked[:, -1].mean(axis=0)
        return Explained(base, said, moves.mean(axis=0))

    def _walked(self, scores_of: ScoresOf, dense: Floats, categories: Ints) -> Doubles:
        """Scores along all walks (m, F + 1, K)."""
        m, f = self._ranks.shape
        at_once = max(1, ROWS_AT_ONCE // (f + 1))
        found = []
        for walks in (slice(i, i + at_once) for i in range(0, m, at_once)):
            turned = self._ranks[walks, None] < np.arange(f + 1)[:, None]  # (w, F + 1, F)
            of_dense, of_category = self.grouping.turned(turned)
            mixed = np.where(of_dense, dense, self._from.dense[walks, None])  # (w, F + 1, N + R)
            codes = np.where(of_category, categories, self._from.categories[walks, None])
            scores = scores_of(_flat(mixed), _flat(codes))
            found.append(scores.reshape(*turned.shape[:2], -1))
        return np.concatenate(found).astype(np.float64)


def _flat(rows: NDArray[Any]) -> NDArray[Any]:
    """(n, m, D) -> (n m, D), also where D is 0."""
    n, m, columns = rows.shape
    return rows.reshape(n * m, columns)


@lru_cache(maxsize=8)
def _orders(features: int, pairs: int, seed: int) -> Ints:
    """Orders (2 pairs, F), every second the reverse of the one before."""
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(features) for _ in range(pairs)])  # (pairs, F)
    return np.stack([orders, orders[:, ::-1]], axis=1).reshape(2 * pairs, features)


# All predictions ----------------------------------------------------------------------------------

ROWS = 32
"""Labelled rows measured at once."""
FEATURES = 64
"""Features measured at once; of more, these take turns."""
KEPT = 128
"""Rows remembered, to put their values in place of others' and as background for single predictions."""
TURNOVER = 8
"""One in so many rows measured is remembered, in place of any: they are of the newest KEPT * TURNOVER measured."""
HALF_LIFE = 1_600.0
"""Measured rows after which a measurement counts half."""


class Importance:
    """Online permutation importance: how much more is lost when a feature's value is another row's.

    Of a few labelled rows now and then, each feature in turn gets its value from a row remembered at random; the
    increase of the loss is averaged, the older the less (incremental PFI, Fumagalli et al., arXiv 2209.01939, with
    geometric sampling). The loss is log-loss in nats; for regression squared error in variances of the label, cut as
    ``models.scaler`` does, so that one absurd label spoils nothing. Chance depends on the state alone, so saved and
    loaded it goes on as if it had never stopped.

    Args:
        spec: names the features; ``explain.rows_per_label`` bounds the cost, in rows predicted per label.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec, self._grouping = spec, grouping(spec)
        self._begin()

    def _begin(self) -> None:
        f = len(self._grouping.names)
        self._sums, self._weights = np.zeros(f), np.zeros(f)
        self._label = Scaler(1)
        self._credit, self._turn = 0.0, 0
        columns, codes = len(self._grouping.dense), len(self._grouping.categories)
        self._kept = Background(np.zeros((0, columns), np.float32), np.zeros((0, codes), np.int64))
        self._targets = np.zeros(0, np.float32)  # (M,) of the rows kept

    def take(self, scores_of: ScoresOf, dense: Floats, categories: Ints, target: Floats) -> None:
        """Let a step's labelled rows, dense (B, N + R), categories (B, C), target (B,), count; mostly they do not.

        Args:
            scores_of: the model before it learns them.
        """
        self._credit += self._spec.explain.rows_per_label * len(target)
        n, turns = min(len(target), ROWS), min(len(self._sums), FEATURES)
        cost = n * (turns + 1)
        if self._credit < cost:
            return
        self._credit = min(self._credit - cost, cost)  # large steps do not save up
        rng = np.random.default_rng((self._spec.learner.seed, self._turn))
        rows = rng.permutation(len(target))[:n]
        picked = Background(dense[rows], categories[rows])
        if len(self._kept.dense):
            features = (self._turn * turns + np.arange(turns)) % len(self._sums)
            self._measure(scores_of, picked, target[rows], features, rng)
        self._remember(picked, target[rows], rng)
        self._turn += 1

    def _measure(
        self, scores_of: ScoresOf, rows: Background, target: Floats, features: Ints, rng: np.random.Generator
    ) -> None:
        n = len(target)
        turned = np.zeros((1 + len(features), len(self._sums)), np.bool_)  # the first: as they are
        turned[1 + np.arange(len(features)), features] = True
        of_dense, of_category = self._grouping.turned(turned)
        others = rng.integers(len(self._kept.dense), size=n)
        mixed = np.where(of_dense[:, None], self._kept.dense[others], rows.dense)  # (1 + f, n, N + R)
        codes = np.where(of_category[:, None], self._kept.categories[others], rows.categories)
        scores = scores_of(_flat(mixed), _flat(codes))
        if self._spec.task == "regression":
            self._label.observe(target[:, None])
            scores, target = self._label.scale(scores), self._label.scale(target[:, None])[:, 0]
        losses = row_losses(self._spec.task, scores, np.tile(target, len(turned))).reshape(-1, n)
        more = (losses[1:] - losses[0]).sum(axis=1)
        if not np.isfinite(more).all():
            return
        decay = 0.5 ** (n / HALF_LIFE)
        self._sums[features] = self._sums[features] * decay + more
        self._weights[features] = self._weights[features] * decay + n

    def _remember(self, rows: Background, target: Floats, rng: np.random.Generator) -> None:
        kept, room = self._kept, KEPT - len(self._kept.dense)
        if room > 0:
            self._kept = Background(
                np.concatenate([kept.dense, rows.dense[:room]]),
                np.concatenate([kept.categories, rows.categories[:room]]),
            )
            self._targets = np.concatenate([self._targets, target[:room]])
            return
        new = -(-len(rows.dense) // TURNOVER)
        places = rng.permutation(KEPT)[:new]
        kept.dense[places], kept.categories[places] = rows.dense[:new], rows.categories[:new]
        self._targets[places] = target[:new]

    def largest(self, most: int) -> dict[str, float]:
        """Mean increase of the loss per feature; the largest first, ``most`` of those measured so far."""
        known = np.flatnonzero(self._weights)
        means = self._sums[known] / self._weights[known]
        order = np.argsort(-means, kind="stable")[:most]
        return {self._grouping.names[known[i]]: float(means[i]) for i in order}

    def state(self) -> Arrays:
        return {
            "sums": self._sums.copy(),
            "weights": self._weights.copy(),
            "credit": np.array([self._credit]),
            "turn": np.array([self._turn]),
            "dense": self._kept.dense.copy(),
            "categories": self._kept.categories.astype(np.int32),
            "targets": self._targets.copy(),
        } | prefixed("label", self._label.state())

    def load(self, state: Arrays) -> None:
        """Go on from a ``state``; versions made before it was part of them begin anew."""
        if "sums" not in state:
            self._begin()
            return
        self._sums, self._weights = (state[name].astype(np.float64) for name in ("sums", "weights"))
        self._credit = float(state["credit"].astype(np.float64)[0])
        self._turn = int(state["turn"].astype(np.int64)[0])
        self._kept, self._targets = remembered(state), targets(state)
        self._label.load(under("label", state))


def remembered(state: Arrays) -> Background:
    """The rows that an ``Importance`` in this state remembers."""
    return Background(state["dense"].astype(np.float32), state["categories"].astype(np.int64))


def targets(state: Arrays) -> Floats:
    """(M,) the labels of these rows; NaN in versions made before they were kept."""
    missing = np.full(len(state["dense"]), np.nan)
    return state.get("targets", missing).astype(np.float32)
