"""How does cost grow? features, width, steps, partitions -> bare core in memory, worker on a broker -> events/s.

    python -m bench.growth [--records 40000] [--rounds 3] [--write]     KAFKA_HOME set: against Apache Kafka

A made-up stream of numbers and categories, labelled by a line through them. One thing at a time is changed from the
middle (`MIDDLE`); configurations take turns, medians count. In memory a rate is records (features and labels, each
counts) per second of CPU time, from bytes to predictions that could be sent; all partitions are one process's. On the
broker it is wall time of one worker that drains a backlog of flights. The share of each part is of the profiler, of
the middle and of the largest of each kind. `--write` puts table and picture where docs/throughput.md has them.
"""

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bench._growth_page import picture, table
from bench._load import Feeder
from bench.ingest import FETCH, SPEC, Record, broker
from examples.flights.data import Flight, load
from models import learners
from models.spec import ModelSpec, parse_spec
from models.torch_learner import use_one_thread
from stream_app import learn
from stream_app.events import Topics
from stream_app.learn import Core
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.predictions import encode_blocks
from stream_app.topics import create_topics, end_offsets
from tests.processes import Process, wait_until

PAGE, PICTURE = Path("docs/throughput.md"), Path("docs/growth.svg")
BEGIN, END = "<!-- bench.growth -->", "<!-- /bench.growth -->"
LABEL_LATER = 2_000
"""Records between an example and its label."""
DRAIN_RECORDS = 300_000
DRAIN_S = 300.0
CARDINALITY = 50
SPEC_TEXT = """
name = "growth"
task = "binary"
[label]
name = "y"
classes = [0, 1]
wait_s = 100000
[stream]
partitions = {partitions}
[features.numeric]
{numeric}
[features.categorical]
{categorical}
[features.rates]
half_lives_s = [60, 600, 6000]
keys = [[], ["c0"]]
[learner]
kind = "torch"
hidden = [{width}]
batch_records = {step}
minibatch = {minibatch}
"""


class Shape(NamedTuple):
    """What a cost may depend on."""

    numeric: int = 16
    categorical: int = 4
    width: int = 64
    """Of the one hidden layer."""
    step: int = 512
    """learner.batch_records."""
    minibatch: int = 64
    partitions: int = 1

    def spec(self) -> ModelSpec:
        numeric = "\n".join(f"n{i} = {{}}" for i in range(self.numeric))
        categorical = "\n".join(f"c{i} = {{ size = 256, dim = 4 }}" for i in range(self.categorical))
        sizes = self._asdict() | {"numeric": numeric, "categorical": categorical}
        return parse_spec(SPEC_TEXT.format(**sizes), "bench.growth")


MIDDLE = Shape()
AXES: dict[str, tuple[int, ...]] = {
    "numeric": (4, 16, 64, 256),
    "categorical": (1, 4, 16, 64),
    "width": (16, 64, 256, 1024),
    "step": (32, 128, 512, 2048),
    "minibatch": (16, 64, 256, 1024),
    "partitions": (1, 4, 16),
}
DRAINED_PARTITIONS = (1, 4, 16)
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "decode": (("codecs/mixed.py", "read"),),
    "encode": (("models/hashes.py", "raw"), ("models/standard.py", "observe")),
    "scale": (("models/standard.py", "standardise"),),
    "join": (("stream_app/join.py", "take"),),
    "rows that wait": tuple(
        ("stream_app/waiting.py", name) for name in ("reserve", "put", "keys", "rows", "give_back")
    ),
    "rates": (("models/walk.py", "walk"),),
    "predict": (("models/torch_learner.py", "ask"),),
    "score": (("stream_app/score.py", "add"),),
    "drift": (("models/drift.py", "add"),),
    "importance": (("models/explain.py", "take"),),
    "learn": (("models/torch_learner.py", "learn"),),
    "ledger": (("stream_app/learn.py", "ledger_hash"),),
    "pack predictions": (("stream_app/predictions.py", "encode_blocks"),),
}
"""Functions whose time, with all that they call, is a part's: (end of the file's path, name)."""


class Found(NamedTuple):
    """What was measured."""

    in_memory: dict[str, dict[int, float]]
    """Axis -> its value -> records per CPU second."""
    shares: dict[str, dict[str, float]]
    """What was changed -> part -> share of the time, 0 to 1."""
    drained: dict[int, float]
    """Partitions -> records per second of wall time, by a worker on the broker."""


def shapes() -> Iterator[tuple[str, int, Shape]]:
    """One axis at a time."""
    for axis, values in AXES.items():
        for value in values:
            yield axis, value, MIDDLE._replace(**{axis: value})


@cache
def values_of(numeric: int, categorical: int, records: int) -> list[bytes]:
    """Records as JSON: an example a second, its label ``LABEL_LATER`` records later."""
    rng = np.random.default_rng(0)
    n = records // 2
    x, codes = rng.normal(size=(n, numeric)).round(4), rng.integers(0, CARDINALITY, (n, categorical))
    labels = (x @ rng.normal(size=numeric) + rng.normal(size=n) > 0).astype(int)
    encode, found = msgspec.json.Encoder().encode, list[bytes]()
    for i in range(n + LABEL_LATER // 2):
        if i < n:
            features = {f"n{j}": v for j, v in enumerate(x[i].tolist())}
            features |= {f"c{j}": f"v{v}" for j, v in enumerate(codes[i].tolist())}
            found.append(encode({"id": f"e{i}", "time": 1e6 + i, "features": features}))
        if (j := i - LABEL_LATER // 2) >= 0:
            found.append(encode({"id": f"e{j}", "label": int(labels[j]), "label_time": 1e6 + i + 0.5}))
    return found


def fetches(shape: Shape, records: int) -> list[tuple[int, list[Record]]]:
    """Partition and records, as a worker gets them."""
    rows: list[list[Record]] = [[] for _ in range(shape.partitions)]
    for value in values_of(shape.numeric, shape.categorical, records):
        part = rows[int(value[8 : value.index(b'"', 8)]) % shape.partitions]
        part.append(Record(len(part), -1, value))
    longest = max(map(len, rows))
    return [(p, part[at : at + FETCH]) for at in range(0, longest, FETCH) for p, part in enumerate(rows) if part[at:]]


def learned(shape: Shape, taken: Sequence[tuple[int, list[Record]]]) -> float:
    """CPU seconds that a new core takes."""
    spec = shape.spec()
    core = Core(spec, learners.make(spec))
    core.start(dict.fromkeys(range(shape.partitions), 0))
    begun_s = time.process_time()
    for partition, records in taken:
        encode_blocks(core.take(partition, records, more=True).predictions, "none")
    for partition in range(shape.partitions):
        encode_blocks(core.take(partition, ()).predictions, "none")
    return time.process_time() - begun_s


def in_memory(records: int, rounds: int) -> dict[str, dict[int, float]]:
    took: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for axis, value, shape in shapes():
            learn.warm(shape.spec())
            taken = fetches(shape, records)
            seconds = learned(shape, taken)
            took.setdefault((axis, value), []).append(sum(len(r) for _, r in taken) / seconds)
    found: dict[str, dict[int, float]] = {axis: {} for axis in AXES}
    for (axis, value), per_s in took.items():
        found[axis][value] = round(statistics.median(per_s))
    return found


def shares(shape: Shape, records: int, rounds: int = 3) -> dict[str, float]:
    """Part -> share of the time, by the profiler; the run that was disturbed least counts."""
    learn.warm(shape.spec())
    taken = fetches(shape, records)
    runs: list[Any] = []
    for _ in range(rounds):
        profile = cProfile.Profile()
        profile.runcall(learned, shape, taken)
        runs.append(pstats.Stats(profile))
    stats = min(runs, key=lambda run: run.total_tt)
    found: dict[str, float] = {}
    for part, functions in PARTS.items():
        ours = [
            spent[3]
            for (file, _, name), spent in stats.stats.items()
            if any(file.endswith(end) and name == wanted for end, wanted in functions)
        ]
        found[part] = sum(ours) / stats.total_tt
    return found | {"rest": max(0.0, 1 - sum(found.values()))}


def drained(servers: str, folder: Path, flights: Sequence[Flight], partitions: int) -> float:
    """Records per second of one worker, from the first version that has learned any to the one that has learned all."""
    name = f"growth{partitions}"
    text = SPEC.read_text().replace('name = "flights"', f'name = "{name}"', 1)
    text = text.replace("partitions = 1 ", f"partitions = {partitions} ", 1)
    stream, topics, path = parse_spec(text, str(SPEC)).stream, Topics.of(name), folder / f"{name}.toml"
    path.write_text(text)
    retention_s, size = stream.retention_s, stream.max_record_bytes
    create_topics(servers, name, partitions=partitions, retention_s=retention_s, max_record_bytes=size)
    with closing(Feeder(servers, topics.events, flights, partitions=partitions, by_id=True)) as feeder:
        feeder.burst(DRAIN_RECORDS)
    ends, heads = end_offsets(servers, topics.events), list[Envelope]()
    flags = ("--spec", str(path), "--bootstrap-servers", servers, "--registry", str(folder / "registry"))
    with Process("worker", folder, *flags) as worker, closing(LogClient(servers, topics.models)) as log:

        def done() -> bool:
            heads.extend(c.head for c in log.poll(0.1) if any(c.head.offsets.values()))
            return bool(heads) and heads[-1].offsets == ends

        wait_until(done, f"the backlog of {partitions} partitions learned", DRAIN_S)
        worker.terminate(60)
    first, last = heads[0], heads[-1]
    return (sum(ends.values()) - sum(first.offsets.values())) / (last.created_s - first.created_s)


def over_partitions(rounds: int) -> tuple[dict[int, float], str]:
    """What a worker drains, and of which broker."""
    found: dict[int, list[float]] = {p: [] for p in DRAINED_PARTITIONS}
    flights = load()
    with ExitStack() as stack:
        for _ in range(rounds):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with broker(folder) as (servers, kind):
                for partitions, per_s in found.items():
                    per_s.append(drained(servers, folder, flights, partitions))
    return {p: round(statistics.median(per_s)) for p, per_s in found.items()}, kind


def exponent(per_s: Mapping[int, float]) -> float:
    """How the cost of a record grows with what was changed, at the upper end: 0 not at all, 1 in proportion."""
    (a, slower), (b, faster) = sorted(per_s.items())[-2:]
    return float(np.log(slower / faster) / np.log(b / a))


def measure(records: int, rounds: int) -> tuple[Found, str]:
    found = in_memory(records, rounds)
    largest = {f"{axis} {values[-1]}": MIDDLE._replace(**{axis: values[-1]}) for axis, values in AXES.items()}
    parts = {name: shares(shape, records) for name, shape in ({"middle": MIDDLE} | largest).items()}
    per_s, kind = over_partitions(rounds)
    return Found(found, parts, per_s), kind


def write(found: Found, kind: str) -> None:
    """The picture, and the table between its marks in the page."""
    PICTURE.write_text(picture(found.in_memory))
    before, rest = PAGE.read_text().split(BEGIN)
    text = table(found.in_memory, found.shares, found.drained, kind)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=40_000, help="in memory, a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many count (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write table and picture to docs/")
    options = parser.parse_args()
    use_one_thread()
    found, kind = measure(options.records, options.rounds)
    if options.write:
        write(found, kind)
    exponents = {axis: round(exponent(per_s), 2) for axis, per_s in found.in_memory.items()}
    print(json.dumps(found._asdict() | {"exponents": exponents, "records": options.records, "broker": kind}))


if __name__ == "__main__":
    main()
