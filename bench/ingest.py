"""How fast does a backlog become learned? produce -> [worker drains it] -> records/s, beside its peers in one run.

    python -m bench.ingest [--flights N] [--drains 3]          KAFKA_HOME set: against Apache Kafka

The records are the flights': features, and labels of their own that come later. A record counts as one wherever it is
processed, so for Vowpal Wabbit a predict and a learn are two. Each peer runs alone, after the other:

    events          stream-app worker, whole: decode, predict, record the predictions, join, score, learn, publish
    columnar        the same rows, ROWS to a Kafka record
    in_memory       the same core over the same fetches in memory, decoding included, without broker, Faust and versions
    mixture_*       likewise, learning with a mixture of that tier
    faust_noop      a plain Faust agent on raw bytes that does nothing
    river_*         River's logistic regression, from the topic through kafka-python (with crc32c), and in memory
    vw_memory       Vowpal Wabbit predicting, then learning, from text lines in memory
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from examples.flights.baseline import Baseline, consume
from examples.flights.baseline import Event as BaselineEvent
from examples.flights.data import FeaturesRecord, Flight, load, stream
from examples.flights.produce import produce
from models import learners
from models.spec import Learner, ModelSpec, Optimiser, read_spec
from models.torch_learner import use_one_thread
from stream_app import kafka_clients, learn, records
from stream_app.broker import EmbeddedBroker
from stream_app.codecs.batch import pack
from stream_app.codecs.gather import Example, example, gathered
from stream_app.codecs.mixed import Codec
from stream_app.events import CONTENT_TYPE, ContentType, Topics
from stream_app.learn import Core
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.predictions import encode_blocks
from stream_app.topics import create_topics, end_offsets
from tests.broker.apache_kafka import ApacheKafka

SPEC = Path("examples/flights/model.toml")
FETCH = 1024
CHUNK = 4096
"""Records that a core in memory gets at once; a worker gets as many, or more."""
ROWS = 4096
"""In a columnar record."""
YEARS = 3
"""Of columnar rows: one would be learned in a moment."""
YEAR_S = 365 * 86_400
NOTHING: dict[str, Any] = dict.fromkeys(("features", "time_s", "label", "label_time_s", "weight", "key"))
TIER_RECORDS = 60_000
PEER_RECORDS = 100_000
"""The slower peers take so many; their speed does not change after that."""
DRAIN_S = 600.0


class Record(NamedTuple):
    """What the core needs of a Kafka record."""

    offset: int
    timestamp: int
    value: bytes


class Drain(NamedTuple):
    """One backlog, learned."""

    produce_per_s: float
    rows_per_s: float
    auc: float
    versions: int


class Topic:
    """A new model's topics on a broker.

    Args:
        servers: the broker's.
        spec: the model's.
    """

    def __init__(self, servers: str, spec: ModelSpec) -> None:
        self.servers, self.spec, self.topics = servers, spec, Topics.of(spec.name)
        stream_ = spec.stream
        create_topics(
            servers,
            spec.name,
            partitions=stream_.partitions,
            retention_s=stream_.retention_s,
            max_record_bytes=stream_.max_record_bytes,
        )

    def fill(self, flights: Sequence[Flight]) -> tuple[int, float]:
        """A record per flight and one per label; how many, and how many a second."""
        produced = produce(self.servers, self.topics.events, flights=flights)
        return produced.records, produced.records_per_s

    def fill_columns(self, flights: Sequence[Flight], years: int) -> tuple[int, float]:
        """The same rows, ROWS to a record, some years of them; how many, and how many a second.

        What is timed is packing and sending; a year's rows are made before.
        """
        header, sent, seconds = [(CONTENT_TYPE, ContentType.BATCH.encode())], 0, 0.0
        with closing(kafka_clients.producer(self.servers, linger_ms=5)) as producer:
            for year in range(years):
                rows = examples_of(flights, year)
                started_s = time.perf_counter()
                for at in range(0, len(rows), ROWS):
                    producer.send(self.topics.events, pack(gathered(rows[at : at + ROWS])), partition=0, headers=header)
                producer.flush()
                seconds += time.perf_counter() - started_s
                sent += len(rows)
        return sent, sent / seconds

    def drain(self, rows: int, folder: Path) -> Drain:
        """Let one worker learn it all.

        Returns:
            Rows a second, from the first version that has learned any to the one that has learned all.
        """
        ends = end_offsets(self.servers, self.topics.events)
        name = self.spec.name
        path = folder / f"{name}.toml"
        path.write_text(SPEC.read_text().replace('name = "flights"', f'name = "{name}"', 1))
        argv = [sys.executable, "-m", "stream_app", "worker", "--spec", str(path), "--bootstrap-servers", self.servers]
        with (folder / f"{name}.log").open("wb") as log:
            worker = subprocess.Popen([*argv, "--registry", str(folder / "registry")], stdout=log, stderr=log)
            try:
                heads = list(_heads(self.servers, self.topics.models, ends, worker))
            finally:
                worker.terminate()
                worker.wait(60)
        first, last = heads[0], heads[-1]
        share = 1 - sum(first.offsets.values()) / sum(ends.values())
        return Drain(0.0, rows * share / (last.created_s - first.created_s), last.metrics["auc"], last.number)


def examples_of(flights: Sequence[Flight], year: int) -> list[Example]:
    """The flights' rows, some years later."""
    later_s, found = year * YEAR_S, []
    for record in stream(flights):
        id_ = f"{record.id}+{year}"
        if isinstance(record, FeaturesRecord):
            given = {"features": msgspec.structs.asdict(record.features), "time_s": record.time + later_s}
            found.append(example(id_, **NOTHING | given))
        else:
            found.append(example(id_, **NOTHING | {"label": record.label, "label_time_s": record.label_time + later_s}))
    return found


def _heads(servers: str, topic: str, ends: dict[int, int], worker: "subprocess.Popen[bytes]") -> Iterator[Envelope]:
    """Versions from the first that has learned something to the one that has learned all."""
    deadline_s = time.monotonic() + DRAIN_S
    with closing(LogClient(servers, topic)) as log:
        while time.monotonic() < deadline_s and worker.poll() is None:
            for change in log.poll(0.2):
                if any(change.head.offsets.values()):
                    yield change.head
                if change.head.offsets == ends:
                    return
    raise RuntimeError(f"the worker (code {worker.poll()}) did not drain {ends} in {DRAIN_S:g} s")


def _with_mixture(spec: ModelSpec, tier: Any) -> ModelSpec:
    """The same features; what else the spec says of a network has no meaning for a mixture."""
    learner = Learner(tier=tier, batch_records=spec.learner.batch_records)
    compression = msgspec.structs.replace(spec.compression, kinds=None)
    return msgspec.structs.replace(spec, learner=learner, optimiser=Optimiser(), compression=compression)


def in_memory(spec: ModelSpec, values: Sequence[bytes]) -> tuple[float, dict[str, float]]:
    """Records per second of the bare core, and its measures."""
    learn.warm(spec)
    codec, core = Codec(spec), Core(spec, learners.make(spec))
    core.start({0: 0})
    seconds = 0.0
    for at in range(0, len(values), CHUNK):
        fetched = _fetched(values[at : at + CHUNK], at)
        started_s = time.perf_counter()
        more = at + CHUNK < len(values)
        encode_blocks(core.take(0, codec.read(fetched), more=more).predictions, "none")
        seconds += time.perf_counter() - started_s
    return len(values) / seconds, core.score.metrics()


def _fetched(values: Sequence[bytes], offset: int) -> records.Records:
    """Records as a worker gets them."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for delta, value in enumerate(values):
        builder.append(delta, 0, None, value, [])
    batch = bytearray(builder.build())
    batch[:8] = offset.to_bytes(8)
    found = records.read(bytes(batch), topic="", partition=0, from_offset=offset)
    assert found is not None
    return found[0]


def faust_noop(servers: str, topic: str, records: int) -> float:
    """Records per second of a Faust agent that does nothing."""
    argv = [sys.executable, "-m", "bench._faust_noop", servers, topic, str(records)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DRAIN_S, check=True)
    return float(done.stdout.splitlines()[-1])


def river_kafka(servers: str, topic: str, records: int) -> float:
    with closing(consume(servers, topic)) as values:
        return _river((value for value in values if value is not None), records)


def _river(values: Iterator[bytes], records: int) -> float:
    decode, baseline = msgspec.json.Decoder(BaselineEvent).decode, Baseline()
    started_s = 0.0
    for value in islice(values, records):
        started_s = started_s or time.perf_counter()
        try:
            baseline.take(decode(value))
        except msgspec.MsgspecError:
            continue  # one of the three that the producer slips in
    return records / (time.perf_counter() - started_s)


def vw_memory(flights: Sequence[Flight], examples: int) -> float:
    """Predict and learn calls per second: each flight predicted without, then learned with its label."""
    import vowpalwabbit  # of the peers only, and so of no other bench that shares this file

    lines = [_vw_line(f) for f in islice((f for f in flights if f.late is not None), examples)]
    workspace: Any = vowpalwabbit.Workspace("--loss_function logistic --link logistic --quiet")
    started_s = time.perf_counter()
    for label, line in lines:
        workspace.predict(line)
        workspace.learn(f"{label} {line}")
    seconds = time.perf_counter() - started_s
    workspace.finish()
    return 2 * len(lines) / seconds


def _vw_line(flight: Flight) -> tuple[int, str]:
    values = msgspec.to_builtins(flight.features)
    words = (f"{k}={v}" if isinstance(v, str) else f"{k}:{v}" for k, v in values.items() if v is not None)
    return (1 if flight.late else -1), f"| {' '.join(words)}"


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, str]]:
    """Bootstrap servers, and what they are."""
    home = os.environ.get("KAFKA_HOME")
    if home:
        with ApacheKafka(Path(home).resolve(), folder / "kafka") as kafka:
            yield kafka.bootstrap_servers, "Apache Kafka"
    else:
        with EmbeddedBroker() as embedded:
            yield embedded.bootstrap_servers, "embedded"


def _drained(
    servers: str, spec: ModelSpec, name: str, folder: Path, fill: Callable[[Topic], tuple[int, float]]
) -> Drain:
    topic = Topic(servers, msgspec.structs.replace(spec, name=name))
    rows, produce_per_s = fill(topic)
    drain = topic.drain(rows, folder)._replace(produce_per_s=produce_per_s)
    print(drain, flush=True)
    return drain


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flights", type=int, help="only so many (default: all 336,776)")
    parser.add_argument("--drains", type=int, default=3, help="backlogs drained; medians count (default: %(default)s)")
    tiers = ("fast", "standard", "full")
    parser.add_argument(
        "--tier", choices=tiers, help="only the bare core in memory, learning with a mixture of this tier"
    )
    options = parser.parse_args()
    use_one_thread()
    spec, flights = read_spec(str(SPEC)), load()[: options.flights]
    encode = msgspec.json.Encoder().encode
    values = [encode(record) for record in stream(flights)]
    if options.tier:
        per_s, metrics = in_memory(_with_mixture(spec, options.tier), values)
        scores = {name: round(metrics[name], 4) for name in ("auc", "log_loss")}
        print(json.dumps({"tier": options.tier, "records": len(values), "in_memory_per_s": round(per_s, 1)} | scores))
        return
    peers = min(PEER_RECORDS, len(values))
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as (servers, kind):
        folder, drains, columnar = Path(name), list[Drain](), list[Drain]()
        for i in range(options.drains):
            drains.append(_drained(servers, spec, f"ingest{i}", folder, lambda topic: topic.fill(flights)))
        fill = partial(Topic.fill_columns, flights=flights, years=YEARS)
        for i in range(options.drains):
            columnar.append(_drained(servers, spec, f"columnar{i}", folder, fill))
        topic = Topics.of("ingest0").events
        noop = faust_noop(servers, topic, peers)
        from_kafka = river_kafka(servers, topic, peers)
    memory, metrics = in_memory(spec, values)
    river_memory = _river(iter(values), peers)
    vw = vw_memory(flights, peers)
    tiers = {t: in_memory(_with_mixture(spec, t), values[:TIER_RECORDS])[0] for t in ("fast", "standard")}
    events = statistics.median(d.rows_per_s for d in drains)
    columns = statistics.median(d.rows_per_s for d in columnar)
    found = {
        "events_per_s": events,
        "produce_per_s": statistics.median(d.produce_per_s for d in drains),
        "faust_noop_per_s": noop,
        "in_memory_per_s": memory,
        "river_kafka_per_s": from_kafka,
        "river_memory_per_s": river_memory,
        "vw_memory_per_s": vw,
        "columnar_per_s": columns,
        "columnar_produce_per_s": statistics.median(d.produce_per_s for d in columnar),
        **{f"mixture_{tier}_per_s": per_s for tier, per_s in tiers.items()},
    }
    ratios = {
        "ratio_faust_noop": events / noop,
        "ratio_in_memory": events / memory,
        "ratio_river_kafka": events / from_kafka,
        "ratio_vw_memory": events / vw,
        "columnar_ratio_faust_noop": columns / noop,
    }
    aucs = {"auc": statistics.median(d.auc for d in drains), "in_memory_auc": metrics["auc"]}
    rounded = {k: round(v, 1) for k, v in found.items()} | {k: round(v, 3) for k, v in (ratios | aucs).items()}
    print(json.dumps(rounded | {"records": len(values), "broker": kind}))


if __name__ == "__main__":
    main()
