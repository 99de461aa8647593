"""How far is the mixture from what can be known? worlds whose best answer is known -> OnlineModel -> gaps.

    python -m bench.worlds [--worlds eight,changing_three] [--rows 10000]

Worlds are made for this: classes that are independent in their attributes, some of which say nothing, drawn from
Dirichlet distributions; in some the classes become others after some rows. Gaussian classes of one shape are the
remaining ones. The best answer is that of the true probabilities, which nobody can give before having learned them: so
gaps are told of all rows and of those after LATER. Per event, accuracies in points, log-losses in nats. `best_member`
is the one with the least log-loss of all rows, against the best answer's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench._ours import Ours
from bench._streams import Row, Stream

LATER = 3_000
TINY = 1e-6


class World(NamedTuple):
    """What is drawn, by a seed of its own."""

    seed: int
    classes: int
    telling: int
    """Attributes that depend on the class."""
    idle: int
    """Attributes that do not."""
    even: float
    """Of the Dirichlet distribution: the larger, the less an attribute tells."""
    values: int = 2
    text: bool = False
    changes_every: int | None = None
    """Rows after which all classes are drawn anew."""
    uneven: bool = False
    """Some classes come more often."""


WORLDS = {
    "two": World(4, 2, 8, 20, 3.0),
    "five": World(3, 5, 10, 10, 3.0),
    "seven_uneven": World(6, 7, 12, 15, 4.0, uneven=True),
    "eight": World(1, 8, 6, 12, 1.0),
    "ten_of_three": World(5, 10, 6, 8, 1.0, values=3),
    "twelve": World(2, 12, 9, 6, 0.7),
    "twenty": World(7, 20, 10, 10, 0.6),
    "six_text": World(8, 6, 5, 5, 1.5, values=4, text=True),
    "changing_two": World(22, 2, 8, 8, 3.0, changes_every=1_900),
    "changing_three": World(10, 3, 6, 6, 1.5, changes_every=1_700),
    "changing_five": World(20, 5, 5, 3, 1.0, changes_every=2_900),
    "changing_eight": World(9, 8, 6, 10, 1.0, changes_every=3_300),
    "changing_ten_of_three": World(21, 10, 6, 4, 1.0, values=3, changes_every=4_100),
}
SHAPES = {"six_gauss": (11, 6, 10, 0.6), "three_gauss": (12, 3, 16, 0.4)}
"""Seed, classes, columns, deviation of the classes' means."""


class Played(NamedTuple):
    stream: Stream
    best: NDArray[np.float64]
    """(N, K) the true probabilities of the classes."""


def drawn(world: World, n: int) -> Played:
    """N rows of a world of attributes."""
    rng = np.random.default_rng([77, world.seed])
    classes, columns = world.classes, world.telling + world.idle
    often = rng.dirichlet(np.full(classes, 3.0)) if world.uneven else np.full(classes, 1 / classes)
    order = rng.permutation(columns)
    tables = _tables(rng, world)  # (D, K, V)
    rows, labels, best = list[Row](), list[int](), np.empty((n, classes))
    for i in range(n):
        if world.changes_every and i and i % world.changes_every == 0:
            tables = _tables(rng, world)
        y = int(rng.choice(classes, p=often))
        found = (tables[:, y].cumsum(axis=1) < rng.random((columns, 1))).sum(axis=1).clip(max=world.values - 1)
        told = often * np.exp(np.log(tables[np.arange(columns), :, found] + 1e-12).sum(axis=0))
        best[i] = told / told.sum()
        rows.append({f"x{j}": f"v{v}" if world.text else float(v) for j, v in enumerate(found[order])})
        labels.append(y)
    return Played(_stream(rows, labels, classes), best)


def _tables(rng: np.random.Generator, world: World) -> NDArray[np.float64]:
    """Each value's share (D, K, V); alike in all classes for attributes that say nothing."""
    telling = rng.dirichlet(np.full(world.values, world.even), size=(world.telling, world.classes))
    idle = rng.dirichlet(np.full(world.values, 3.0), size=(world.idle, 1))
    return np.concatenate([telling, np.repeat(idle, world.classes, axis=1)])


def shaped(seed: int, classes: int, columns: int, spread: float, n: int) -> Played:
    """N rows of Gaussian classes of one shape."""
    rng = np.random.default_rng([78, seed])
    shape = rng.normal(size=(columns, columns)) / np.sqrt(columns) + np.eye(columns)
    means = rng.normal(size=(classes, columns)) * spread
    labels = rng.integers(0, classes, n)
    x = means[labels] + rng.normal(size=(n, columns))
    told = np.exp(-0.5 * ((x[:, None] - means) ** 2).sum(axis=2))
    rows: list[Row] = [{f"x{j}": float(v) for j, v in enumerate(row)} for row in x @ shape]
    return Played(_stream(rows, labels.tolist(), classes), told / told.sum(axis=1, keepdims=True))


def _stream(rows: list[Row], labels: list[int], classes: int) -> Stream:
    return Stream("world", "classification", rows, labels, tuple(map(str, range(classes))))


def gaps(played: Played) -> dict[str, Any]:
    """What a fresh model loses to the best answer."""
    stream, best = played
    model, y = Ours(stream, 0), np.array(stream.labels, np.int64)
    said = np.zeros(best.shape)
    for i, (row, label) in enumerate(zip(stream.rows, stream.labels, strict=True)):
        for k, share in model.predict_one(row).items():
            said[i, k] = share
        model.learn_one(row, label)
    right = (best.argmax(axis=1) == y).astype(float) - (said.argmax(axis=1) == y)
    at = np.arange(len(y)), y
    loss = np.log(best[at]) - np.log(np.maximum(said[at], TINY))
    member, least = model.best_member()
    return {
        "best_accuracy": round(100 * float((best.argmax(axis=1) == y).mean()), 2),
        "points": round(100 * float(right.mean()), 2),
        "nats": round(float(loss.mean()), 4),
        "points_later": round(100 * float(right[LATER:].mean()), 2),
        "nats_later": round(float(loss[LATER:].mean()), 4),
        "best_member": member,
        "its_nats": round(least / len(y) + float(np.log(best[at]).mean()), 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    all_of_them: dict[str, Callable[[int], Played]] = {
        **{name: lambda n, world=world: drawn(world, n) for name, world in WORLDS.items()},
        **{name: lambda n, shape=shape: shaped(*shape, n) for name, shape in SHAPES.items()},
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default=",".join(all_of_them), help="names, with commas between")
    parser.add_argument("--rows", type=int, default=10_000, help=f"more than {LATER}")
    told = parser.parse_args(arguments)
    if unknown := [name for name in told.worlds.split(",") if name not in all_of_them]:
        parser.error(f"worlds {unknown} are not known, wanted some of {', '.join(all_of_them)}")
    if told.rows <= LATER:
        parser.error(f"--rows is {told.rows}, wanted more than {LATER}")
    found = {}
    for name in told.worlds.split(","):
        found[name] = gaps(all_of_them[name](told.rows))
        print(json.dumps({name: found[name]}), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
