"""A learner that grows, simple enough to know what it must say: nearest class mean, and how often codes came."""

import numpy as np
from numpy.typing import NDArray

from models.learner import Floats, Ints
from models.snapshot import Arrays


class Means:
    """Class means of x and counts of (class, code); what it was called with is kept for tests."""

    def __init__(
        self, *, task: str, columns: int, classes: int, category_sizes: tuple[int, ...], tier: str, seed: int
    ) -> None:
        self.task, self.tier, self.seed = task, tier, seed
        self.total = np.zeros((classes, columns))
        self.n = np.zeros(classes)
        self.counts = [np.zeros((classes, size)) for size in category_sizes]
        self.forgotten: list[tuple[int, list[int]]] = []
        self.seen: list[tuple[Floats, Ints, Floats, Floats | None]] = []

    def predict(self, x: Floats, categories: Ints) -> Floats:
        assert x.dtype == np.float32
        assert categories.dtype == np.int64
        assert x.shape[1] == self.total.shape[1]
        assert categories.shape[1] == len(self.counts)
        if self.task == "regression":
            return np.full((len(x), 1), self.total[0].sum() / max(self.n[0], 1), np.float32)
        means = self.total / np.maximum(self.n, 1)[:, None]
        logits = -((x[:, None, :] - means) ** 2).sum(axis=2) + np.log(self.n + 0.5)
        for c, counts in enumerate(self.counts):
            logits += np.log(counts[:, categories[:, c]].T + 0.5)
        odds: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def learn(self, x: Floats, categories: Ints, target: Floats, weights: Floats | None = None) -> None:
        self.seen.append((x, categories, target, weights))
        assert x.shape == (len(target), self.total.shape[1])
        for i, y in enumerate(target):
            w = 1.0 if weights is None else float(weights[i])
            k = int(y) if self.task == "classification" else 0
            self.n[k] += w
            self.total[k] += w * x[i] if self.task == "classification" else w * y / max(x.shape[1], 1)
            for c, counts in enumerate(self.counts):
                counts[k, categories[i, c]] += w

    def grow(self, *, columns: int, classes: int, category_sizes: tuple[int, ...]) -> None:
        more = classes - len(self.n)
        self.total = np.pad(self.total, ((0, more), (0, columns - self.total.shape[1])))
        self.n = np.pad(self.n, (0, more))
        mine = [*self.counts, *(np.zeros((0, 0)) for _ in category_sizes[len(self.counts) :])]
        self.counts = [
            np.pad(a, ((0, classes - a.shape[0]), (0, size - a.shape[1])))
            for a, size in zip(mine, category_sizes, strict=True)
        ]

    def forget(self, column: int, codes: list[int]) -> None:
        self.forgotten.append((column, list(codes)))
        self.counts[column][:, codes] = 0.0

    def state(self) -> Arrays:
        return {"total": self.total.copy(), "n": self.n.copy()} | {
            f"counts.{i}": a.copy() for i, a in enumerate(self.counts)
        }

    def load(self, state: Arrays) -> None:
        self.total, self.n = np.array(state["total"], np.float64), np.array(state["n"], np.float64)
        self.counts = [np.array(state[f"counts.{i}"], np.float64) for i in range(len(state) - 2)]
