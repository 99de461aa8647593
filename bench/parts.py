"""What does a large version send, and what does that cost? mixture -> versions, whole and in parts -> bytes, ms.

A standard mixture of 50 columns and two or ten classes has learned enough rows to fill its window; then comes a
version every so many rows. Both forms go to a local folder, in turns. read_parts: a server that has the version
before; read_parts_cold: one that has nothing. `python -m bench.parts --rows 10 100 1000 5000`
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import TypeVar

import numpy as np

from models.experts.mixture import Mixture
from models.snapshot import pack
from stream_app.parts import Parts, joined
from stream_app.registry import Artefact, Registry

T = TypeVar("T")

COLUMNS = 50
FULL = 8_000
"""Rows learned before the first version."""
TEXTS = {"spec": "s" * 2_000, "envelope": "e" * 8_000}


class Stream:
    """Rows of ``classes`` classes that a linear model tells apart, with noise."""

    def __init__(self, classes: int) -> None:
        self._rng = np.random.default_rng(0)
        self._weights = self._rng.normal(size=(COLUMNS, classes))
        self.mixture = Mixture(task="classification", columns=COLUMNS, classes=classes, seed=0)

    def learn(self, rows: int) -> None:
        x = self._rng.normal(size=(rows, COLUMNS)).astype(np.float32)
        scores = x @ self._weights + 2.0 * self._rng.gumbel(size=(rows, self._weights.shape[1]))
        self.mixture.learn(x, np.zeros((rows, 0), np.int64), scores.argmax(axis=1).astype(np.float32))


class Forms:
    """One folder with every version twice: whole, and in parts; and a server's cache."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.cache: dict[bytes, bytes] = {}
        self.registry = Registry(str(folder))
        self.parts = Parts(self.registry, "parts", clock=lambda: self.now_s)

    def take(self, data: bytes) -> dict[str, float]:
        """Bytes and ms of one version, a second (of the writer's clock) after the one before."""
        self.now_s += 1.0
        whole, write_whole_ms = timed(lambda: self.registry.write("whole", ".safetensors", data))
        parts, write_parts_ms = timed(lambda: self.parts.write(data))
        _, read_whole_ms = timed(lambda: self.registry.read(whole.path, whole.sha256))
        _, read_parts_ms = timed(lambda: self._read(parts, self.cache))
        _, read_parts_cold_ms = timed(lambda: self._read(parts, None))
        _, prune_ms = timed(lambda: self.parts.prune(keep=20))
        return {
            "whole_bytes": whole.size_bytes,
            "parts_bytes": parts.size_bytes,
            "write_whole_ms": write_whole_ms,
            "write_parts_ms": write_parts_ms,
            "read_whole_ms": read_whole_ms,
            "read_parts_ms": read_parts_ms,
            "read_parts_cold_ms": read_parts_cold_ms,
            "prune_ms": prune_ms,
        }

    def _read(self, parts: Artefact, cache: dict[bytes, bytes] | None) -> bytes:
        return joined(self.registry, parts.path, self.registry.read(parts.path, parts.sha256), cache)


def timed(step: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and how many ms it took."""
    began_s = time.perf_counter()
    result = step()
    return result, 1e3 * (time.perf_counter() - began_s)


def measure(stream: Stream, *, rows: int, versions: int) -> dict[str, float]:
    """Mean bytes and median ms of ``versions`` versions, ``rows`` rows apart; the first of all is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        forms, found = Forms(Path(folder)), []
        for _ in range(versions + 1):
            stream.learn(rows)
            found.append(forms.take(pack(stream.mixture.state(), TEXTS)))
    middle = {name: median if name.endswith("_ms") else fmean for name in found[0]}
    return {name: round(of(one[name] for one in found[1:]), 1) for name, of in middle.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--versions", type=int, default=40, help="seconds, by the writer's clock (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 100, 1000], help="from version to version")
    args = parser.parse_args()
    found = {}
    for classes in (2, 10):
        stream = Stream(classes)
        stream.learn(FULL)
        for rows in args.rows:
            found[f"{classes} classes, {rows} rows"] = measure(stream, rows=rows, versions=args.versions)
            print(f"{classes} classes, a version every {rows} rows: {found[f'{classes} classes, {rows} rows']}")
    print(json.dumps({"parts": found}))


if __name__ == "__main__":
    main()
