"""What does a second worker bring, and cost? backlog -> [1, 2 workers] -> rows/s, accuracy; and a model of many.

    python -m bench.scaling [--records N] [--examples N]          KAFKA_HOME set: against Apache Kafka

Each number of workers drains the same backlog of flights (a topic of its own, PARTITIONS partitions, by id), then
learns the same stationary stream: ten numbers, a quadratic rule, noise. Ledgers are compared with what was sent. Rows
per second count from when all workers have their partitions; all share this machine with the broker.

The model takes what versions cost as measured here, with every worker a core of its own and the log as fast as here:

    s   seconds from taking over the head to reading the own version back as the head; one at a time can do so
    T   a worker's time between two versions: the spec's cadence, and not below W s / USE with W workers
    T is also how old the others' learning is that a worker predicts with.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bench._load import Feeder, Sent
from bench.ingest import broker
from examples.flights.data import load
from models import learners
from models.spec import ModelSpec, parse_spec, read_spec
from stream_app import kafka_clients, versions
from stream_app.cadence import Cadence
from stream_app.events import Topics
from stream_app.learn import Core, Version
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.registry import Registry
from stream_app.topics import create_topics, end_offsets
from tests.processes import Process
from tests.streams import ledger_hash

SPEC = Path("examples/flights/model.toml")
PARTITIONS = 4
WORKERS = (1, 2)
MANY = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1000)
USE = 0.5
"""Share of the log's time that versions may take: above it, most of what is announced comes too late."""
DRAIN_S = 600.0
STATIONARY = """
name = "{name}"
task = "binary"
[label]
name = "y"
classes = [0, 1]
wait_s = 60
[stream]
partitions = {partitions}
[features.numeric]
{columns}
[learner]
kind = "torch"
hidden = [64, 64]
"""
COLUMNS = 10


class Drained(NamedTuple):
    """A backlog, learned."""

    workers: int
    rows_per_s: float
    versions_per_s: float
    seconds: float
    head: Envelope


class Group:
    """Some workers of one model."""

    def __init__(self, stack: ExitStack, spec_file: Path, spec: ModelSpec, servers: str, workers: int) -> None:
        self.topics = Topics.of(spec.name)
        flags = ("--spec", str(spec_file), "--bootstrap-servers", servers)
        registry = ("--registry", str(spec_file.parent / f"{spec.name}.registry"))
        self.ends = end_offsets(servers, self.topics.events)
        self.processes = [
            stack.enter_context(Process("worker", spec_file.parent, *flags, *registry)) for _ in range(workers)
        ]

    def all_there(self) -> bool:
        """Whether each has partitions, and no two the same."""
        shares = [p.output.rpartition("learns partitions ")[2].partition("]")[0].lstrip("[") for p in self.processes]
        mine = [s for share in shares for s in share.split(", ") if s.isdigit()]
        return all(s[:1].isdigit() for s in shares) and len(mine) == len(self.ends)

    def heads(self, log: LogClient) -> Iterator[tuple[float, Envelope]]:
        """Versions from the first after all were there to the one that has learned all, with when they were seen."""
        deadline_s, there = time.monotonic() + DRAIN_S, False
        while time.monotonic() < deadline_s:
            for p in self.processes:
                if p.process.poll() is not None:
                    raise RuntimeError(f"a worker ended with {p.process.returncode}:\n{p.output[-2000:]}")
            there = there or self.all_there()
            for change in log.poll(0.1):
                if there:
                    yield time.monotonic(), change.head
                if change.head.offsets == self.ends:
                    return
        raise RuntimeError(f"not learned within {DRAIN_S:g} s: {self.ends}")


def drain(spec: ModelSpec, spec_text: str, servers: str, folder: Path, workers: int) -> Drained:
    """Let so many workers learn what the events topic has."""
    spec_file = folder / f"{spec.name}.toml"
    spec_file.write_text(spec_text)
    with ExitStack() as stack:
        group = Group(stack, spec_file, spec, servers, workers)
        with closing(LogClient(servers, group.topics.models)) as log:
            heads = list(group.heads(log))
        for process in group.processes:
            process.terminate()
    (began_s, first), (ended_s, last) = heads[0], heads[-1]
    rows, seconds = sum(last.offsets.values()) - sum(first.offsets.values()), ended_s - began_s
    return Drained(workers, rows / seconds, (last.number - first.number) / seconds, seconds, last)


def flights(servers: str, folder: Path, records: int, workers: int) -> tuple[Drained, bool]:
    """The flights, and whether the ledger is that of what was sent."""
    name = f"flights{workers}"
    text = SPEC.read_text().replace('name = "flights"', f'name = "{name}"', 1)
    text = text.replace("partitions = 1 ", f"partitions = {PARTITIONS} ", 1)
    spec = parse_spec(text, name)
    _topics(servers, spec)
    with closing(Feeder(servers, Topics.of(name).events, load(), partitions=PARTITIONS, by_id=True)) as feeder:
        sent: Sent = feeder.burst(records)
    found = drain(spec, text, servers, folder, workers)
    return found, found.head.ledger == sent.ledger


def stationary(servers: str, folder: Path, examples: int, workers: int) -> tuple[Drained, bool]:
    """A stream that never changes, and whether the ledger is that of what was sent."""
    name = f"stationary{workers}"
    columns = "\n".join(f"f{i} = {{}}" for i in range(COLUMNS))
    text = STATIONARY.format(name=name, partitions=PARTITIONS, columns=columns)
    spec = parse_spec(text, name)
    _topics(servers, spec)
    values, ledger = ruled(examples)
    with closing(kafka_clients.producer(servers, linger_ms=20, batch_size=1 << 18)) as producer:
        for i, value in enumerate(values):
            producer.send(Topics.of(name).events, value, partition=i % PARTITIONS)
        producer.flush()
    found = drain(spec, text, servers, folder, workers)
    return found, found.head.ledger == ledger


def ruled(examples: int) -> tuple[list[bytes], dict[int, tuple[int, int]]]:
    """Examples with their labels, whose log-odds are a quadratic form; and the ledger of each partition."""
    rng = np.random.default_rng(0)
    x, line, form = rng.normal(size=(examples, COLUMNS)), rng.normal(size=COLUMNS), rng.normal(size=(COLUMNS, COLUMNS))
    odds = 2 * (x @ line + np.einsum("ni,ij,nj->n", x, form / 3, x))
    labels = (rng.random(examples) < 1 / (1 + np.exp(-odds))).astype(int).tolist()
    values, ledger, encode = [], dict.fromkeys(range(PARTITIONS), (0, 0)), msgspec.json.Encoder().encode
    for i, (row, label) in enumerate(zip(x.tolist(), labels, strict=True)):
        features = {f"f{k}": v for k, v in enumerate(row)}
        time_s = 1_000_000.0 + i * 0.001
        example = {"id": f"e{i}", "time": time_s, "features": features, "label": label, "label_time": time_s}
        values.append(encode(example))
        count, xor = ledger[i % PARTITIONS]
        ledger[i % PARTITIONS] = (count + 1, xor ^ ledger_hash(f"e{i}", float(label)))
    return values, ledger


def _topics(servers: str, spec: ModelSpec) -> None:
    retention_s, most = spec.stream.retention_s, spec.stream.max_record_bytes
    create_topics(servers, spec.name, partitions=PARTITIONS, retention_s=retention_s, max_record_bytes=most)


# The model ------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """What one version of the flights' costs, medians."""

    merge_ms: float
    copy_ms: float
    write_ms: float
    read_back_ms: float
    bytes: int


def costs(servers: str, head: Envelope, folder: Path, rounds: int = 30) -> Cost:
    """Of a version like ``head``: merged with another's, copied, written, announced and read back."""
    spec, registry = read_spec(str(SPEC)), Registry(str(folder / "costs"))
    core = Core(spec, learners.make(spec))
    core.start(dict.fromkeys(head.offsets, 0))
    base = Version(head, core.state())
    name = "costs"
    _topics(servers, msgspec.structs.replace(spec, name=name))
    timed: list[tuple[float, ...]] = []
    with closing(LogClient(servers, Topics.of(name).models, wait_s=0.01)) as log:
        for _ in range(rounds):
            at = [time.perf_counter()]
            core.rebase(base, base)
            at.append(time.perf_counter())
            taken = versions.snapshot(core)
            at.append(time.perf_counter())
            made = versions.write(
                spec,
                taken,
                registry,
                parent=log.head,
                epoch=1,
                predictions_from={},
                topic_ids={},
                created_s=time.time(),
            )
            at.append(time.perf_counter())
            log.announce("version", *made, inline_bytes=0)
            at.append(time.perf_counter())
            timed.append(tuple(1000 * (b - a) for a, b in pairwise(at)))
    return Cost(*(median(column) for column in zip(*timed, strict=True)), bytes=made[0].size_bytes)


class Scaled(NamedTuple):
    """So many workers, as the model has it."""

    workers: int
    period_s: float
    """T"""
    log_use: float
    """Share of the log's time that is taken."""
    merging: float
    """Share of a worker's time that versions take."""
    megabytes_per_s: float
    """Written to the registry, and read from it, by all."""


def scaled(cost: Cost, spec: ModelSpec, workers: int) -> Scaled:
    own_s = (cost.merge_ms + cost.copy_ms + cost.write_ms) / 1000
    one_s = own_s + cost.read_back_ms / 1000
    cadence = Cadence(every_s=spec.publish.every_s, least_s=spec.publish.least_s, share=spec.publish.share)
    cadence.cost(own_s)
    period_s = max(cadence.period_s, workers * one_s / USE if workers > 1 else 0.0)
    traffic = workers * cost.bytes / period_s / 1e6
    return Scaled(workers, period_s, workers * one_s / period_s, own_s / period_s, traffic)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=2_000_000, help="of flights (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=300_000, help="of the stationary stream (default: %(default)s)")
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "partitions": PARTITIONS}
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as (servers, kind):
        folder = Path(name)
        for workers in WORKERS:
            for of, play, size in (("flights", flights, options.records), ("stationary", stationary, options.examples)):
                drained, exact = play(servers, folder, size, workers)
                found |= {f"{of}_{workers}_{k}": v for k, v in _measures(of, drained).items()}
                found[f"{of}_{workers}_exact"] = exact
                print(of, drained._replace(head=None), f"exact {exact}", flush=True)  # type: ignore[arg-type]
        cost = costs(servers, drained.head, folder)
    print(cost)
    rows = [scaled(cost, read_spec(str(SPEC)), workers) for workers in MANY]
    print(*table(rows), sep="\n")
    found |= {
        "broker": kind,
        "flights_speedup": found["flights_2_rows_per_s"] / found["flights_1_rows_per_s"],
        "stationary_lost_points": 100 * (found["stationary_1_accuracy"] - found["stationary_2_accuracy"]),
        "version_cost": cost._asdict(),
        "breaks_at_workers": next((r.workers for r in rows if r.period_s > 5.0), None),
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}))


def _measures(of: str, drained: Drained) -> dict[str, float]:
    names = ("auc", "log_loss") if of == "flights" else ("accuracy", "window_accuracy", "log_loss")
    measures = {name: drained.head.metrics[name] for name in names}
    return {"rows_per_s": drained.rows_per_s, "versions_per_s": drained.versions_per_s} | measures


def table(rows: Sequence[Scaled]) -> Iterator[str]:
    yield "| workers | between a worker's versions | log in use | a worker's time for versions | registry MB/s |"
    yield "|---:|---:|---:|---:|---:|"
    for r in rows:
        yield f"| {r.workers} | {r.period_s:.2f} s | {r.log_use:.0%} | {r.merging:.1%} | {r.megabytes_per_s:.1f} |"


if __name__ == "__main__":
    main()
