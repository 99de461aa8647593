"""Small mixtures and rows for them, and one member played alone as a mixture plays it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.experts.arrays import F32, F64, I64
from models.experts.mixture import Member, Mixture, Task, Tier
from models.experts.window import CHUNK, Rows, Window

TIER = Tier(
    nets=((0.01, 3), (0.005, 1)),
    slow_nets=((0.005, 1), (0.01, 0)),
    hidden=8,
    forests=((4, 100, 10), (3, 40, 8)),
    neighbours=(1, 4),
    near_window=60,
    replay_window=80,
    rates=(0.02, 0.5),
)
"""Its ring has 356 rows."""
SIZES = (5, 3)


class Batch(NamedTuple):
    x: F32
    categories: I64
    target: F32
    weights: F32

    def part(self, start: int, end: int) -> "Batch":
        return Batch(*(a[start:end] for a in self))


def mixture(classes: int, *, columns: int = 4, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> Mixture:
    """Of values if there is one class."""
    task: Task = "regression" if classes == 1 else "classification"
    return Mixture(task=task, columns=columns, classes=classes, category_sizes=sizes, tier=TIER, seed=seed)


def batch(n: int, classes: int, *, columns: int = 4, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> Batch:
    """Rows whose label hangs on the first two columns and the first category."""
    rng = np.random.default_rng([seed, n, classes])
    x = rng.normal(size=(n, columns)).astype(np.float32)
    categories = np.stack([rng.integers(0, q, n) for q in sizes], axis=1) if sizes else np.zeros((n, 0), np.int64)
    signal = x[:, :2].sum(axis=1) + 0.3 * rng.normal(size=n) + (categories[:, 0] if sizes else 0)
    target = 100 + 7 * signal if classes == 1 else np.floor(signal) % classes
    return Batch(x, categories, target.astype(np.float32), rng.uniform(0.1, 12, n).astype(np.float32))


def assert_same(found: Mapping[str, NDArray[np.generic]], wanted: Mapping[str, NDArray[np.generic]]) -> None:
    """Bit by bit."""
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        other = found[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        assert other.tobytes() == array.tobytes(), name


def rows_of(z: NDArray[np.floating], y: NDArray[np.generic], *, classes: int, codes: I64 | None = None) -> Rows:
    """As a mixture would hand them to members that do not use categories; nothing is typical."""
    n = len(z)
    none = np.zeros((n, 0), np.int64)
    prior = np.full((n, classes), 0.0 if classes == 1 else 1 / classes)
    return Rows(
        z.astype(np.float32), none if codes is None else codes, prior,
        np.zeros(n), np.ones(n), np.zeros(n), np.ones(n), y.astype(np.float32), np.ones(n, np.float32),
    )  # fmt: skip


def play(member: Member, rows: Rows, window: Window) -> F64:
    """Answers (names, B, K), each said before its row was learned."""
    n, classes = rows.prior.shape
    out = np.empty((len(member.names), n, classes))
    for at in range(0, n, CHUNK):
        part = Rows(*(a[at : at + CHUNK] for a in rows))
        said = np.empty((len(member.names), len(part.y), classes))
        window.write(part)
        member.learn(part, window, said)
        window.count += len(part.y)
        out[:, at : at + CHUNK] = said
    return out


def asked(member: Member, rows: Rows, window: Window) -> F64:
    """Answers (names, B, K); nothing is learned."""
    out = np.empty((len(member.names), *rows.prior.shape))
    member.predict(rows, window, out)
    return out


def right(out: F64, y: NDArray[np.generic]) -> NDArray[np.float64]:
    """Share of right answers (B, K) -> of each member, of out (names, B, K)."""
    found: NDArray[np.float64] = (out.argmax(axis=2) == y.astype(int)).mean(axis=1)
    return found
