"""What does a mixture cost, and what do workers lose by learning apart? rows -> mixtures -> bytes, us, accuracy.

    python -m bench.learners [--tiers fast standard full] [--events 32768] [--workers 1 2 4]

Costs: for each tier, D columns and K classes the windows are filled with random rows of which K - 1 lines cut the
classes. Then the state is weighed, and TIMED rows are predicted and learned, one by one and in batches of 32: CPU time
of this thread, in us a row, the median of five.

Merging: workers get the rows of a stationary stream in turn, each answers and learns its own in batches, and
every 512 rows of the stream all go on from what `models.experts.merge` makes of them. Accuracy is prequential, in %,
log-loss beside it, over all rows and over the second half. One worker sees the same rows in the same groups.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.experts.merge import Part, merge
from models.experts.mixture import TIERS, Mixture, state_bytes
from models.experts.window import CHUNK

COLUMNS = (10, 50)
CLASSES = (2, 10)
TIMED = 320
BATCH = 32
EVERY = 512
"""Rows of the stream between two merges."""
CODES = 8


class Rows(NamedTuple):
    x: NDArray[np.float32]
    categories: NDArray[np.int64]
    target: NDArray[np.float32]

    def at(self, which: slice) -> "Rows":
        return Rows(*(array[which] for array in self))


# What a mixture costs -----------------------------------------------------------------------------


def random_rows(n: int, columns: int, classes: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns)).astype(np.float32)
    lines = np.random.default_rng(0).normal(size=(columns, classes))
    target = np.argmax(x @ lines + rng.normal(size=(n, classes)), axis=1)
    return Rows(x, np.zeros((n, 0), np.int64), target.astype(np.float32))


def costs(tier: str, columns: int, classes: int) -> dict[str, Any]:
    made = TIERS[tier]
    mix = Mixture(task="classification", columns=columns, classes=classes, tier=tier)
    full = max(made.near_window, made.replay_window, *(window for _, window, _ in made.forests)) + CHUNK
    mix.learn(*random_rows(full, columns, classes, seed=1))
    sizes = state_bytes(mix.state())
    rows = random_rows(TIMED, columns, classes, seed=2)
    found: dict[str, Any] = {"tier": tier, "columns": columns, "classes": classes}
    found |= {"members": len(mix.members), "state_bytes": sum(sizes.values()), "of": sizes}
    for batch in (1, BATCH):
        found[f"predict_us_{batch}"] = us_per_row(lambda some: mix.predict(some.x, some.categories), rows, batch)
        found[f"learn_us_{batch}"] = us_per_row(lambda some: mix.learn(*some), rows, batch)
    return found


def us_per_row(call: Callable[[Rows], object], rows: Rows, batch: int) -> float:
    parts = [rows.at(slice(at, at + batch)) for at in range(0, len(rows.x), batch)]
    took = []
    for _ in range(5):
        started_s = time.thread_time()
        for part in parts:
            call(part)
        took.append((time.thread_time() - started_s) / len(rows.x) * 1e6)
    return round(median(took), 1)


# What merging costs -------------------------------------------------------------------------------


def stream(name: str, n: int) -> Rows:
    """Six columns and eight codes, some of which count."""
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, CODES, (n, 1))
    effect = np.linspace(-2, 2, CODES)[codes[:, 0]]
    match name:
        case "line":
            target = x @ [1, -1, 0.5, 0, 0, 0.2] + effect + 0.3 * rng.normal(size=n) > 0
        case "corners":
            logit = 3 * x[:, 0] - 2 * x[:, 1] + 4 * np.sign(x[:, 2] * x[:, 3]) + 2 * effect
            target = rng.random(n) < 1 / (1 + np.exp(-logit))
        case _:
            sides = np.stack([x[:, 0] + effect, x[:, 1] * x[:, 2], np.abs(x[:, 3])], axis=1)
            target = np.argmax(sides + 0.2 * rng.normal(size=(n, 3)), axis=1)
    return Rows(x, codes, target.astype(np.float32))


STREAMS = ("line", "corners", "three")


def merging(name: str, rows: Rows, tier: str, workers: int) -> dict[str, Any]:
    classes = int(rows.target.max()) + 1
    crew = [
        Mixture(task="classification", columns=6, classes=classes, category_sizes=(CODES,), tier=tier)
        for _ in range(workers)
    ]
    base, took = crew[0].state(), []
    said = np.empty((len(rows.x), classes))
    for at in range(0, len(rows.x), EVERY):
        parts = []
        for key, mix in enumerate(crew):
            for group in range(at, at + EVERY, BATCH * workers):
                mine = slice(group + key, group + BATCH * workers, workers)
                some = rows.at(mine)
                said[mine] = mix.predict(some.x, some.categories)
                mix.learn(*some)
            parts.append(Part(mix.state(), EVERY // workers, key))
        started_s = time.thread_time()
        base = merge(base, parts)
        took.append(time.thread_time() - started_s)
        for mix in crew:
            mix.load(base)
    right = said.argmax(axis=1) == rows.target
    loss = -np.log(said[np.arange(len(right)), rows.target.astype(int)])
    half = len(right) // 2
    return {
        "stream": name,
        "workers": workers,
        "accuracy": round(100 * float(right.mean()), 2),
        "accuracy_second_half": round(100 * float(right[half:].mean()), 2),
        "log_loss": round(float(loss.mean()), 4),
        "log_loss_second_half": round(float(loss[half:].mean()), 4),
        "merge_ms": round(1e3 * median(took), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiers", nargs="+", choices=sorted(TIERS), default=list(TIERS))
    parser.add_argument("--events", type=int, default=32_768, help=f"of each stream, a multiple of {EVERY}")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="each a divisor of 16")
    parser.add_argument("--merge-tier", choices=sorted(TIERS), default="standard")
    told = parser.parse_args(arguments)
    found: dict[str, list[dict[str, Any]]] = {"costs": [], "merging": []}
    for tier in told.tiers:
        for columns in COLUMNS:
            for classes in CLASSES:
                found["costs"].append(costs(tier, columns, classes))
                print(json.dumps(found["costs"][-1]), flush=True)
    for name in STREAMS:
        rows = stream(name, told.events // EVERY * EVERY)
        for workers in told.workers:
            found["merging"].append(merging(name, rows, told.merge_tier, workers))
            print(json.dumps(found["merging"][-1]), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
