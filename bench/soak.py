"""Does anything grow? load -> worker, server, compressor, monitor for as long as one likes -> memory, lag, ledger.

    python -m bench.soak [--seconds N]          KAFKA_HOME set: against Apache Kafka

First a short backlog is drained, beside the other processes, to see what the worker can do here. Then the flights come
year after year (`bench/_load.py`) at 70% of that, with calls to the server at a steady rate. What is measured:

    rss_growth          resident memory, the median of the last quarter after the warm-up against that of the first
    lag_growth_events   slope of the lag (robust) over the time after the warm-up, times that time
    lost                events and pairs that the ledger of the last version lacks, and partitions whose XOR differs

The embedded broker keeps its log in memory: long runs want Apache Kafka. What grows by a little with every version or
call is sooner seen with many: `--publish-s 0.05 --calls-per-s 300`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench._load import Feeder, Sent
from bench.ingest import SPEC, broker
from examples.flights.data import load
from models.spec import ModelSpec, parse_spec
from stream_app.broker import free_port
from stream_app.client import StreamModelClient
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.topics import create_topics, end_offsets
from tests.processes import Process, wait_until

SHARE = 0.7
DRAINED_RECORDS = 200_000
WARM_UP_S = 120.0
"""Or a third of the run, if that is less."""
SAMPLE_S = 1.0
DRAIN_S = 300.0
ROW = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "hour": "5", "distance": 1400}


class Sample(NamedTuple):
    """One look at everything."""

    at_s: float
    """Since the load began."""
    rss_mb: dict[str, float]
    """Per process."""
    lag_events: int
    """Records in no version yet."""


class Caller:
    """Asks a server for predictions at a steady rate, in a thread."""

    def __init__(self, address: str, per_s: float) -> None:
        self.calls = self.failed = 0
        self._address, self._per_s = address, per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with StreamModelClient(self._address) as client:
            while not self._stop.wait(1 / self._per_s):
                self.calls += 1
                try:
                    client.predict([ROW])
                except Exception as error:  # whatever it is, it counts
                    self.failed += 1
                    print(f"call {self.calls}: {error!r}", file=sys.stderr)

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


class Service:
    """The processes of one model, as in production."""

    def __init__(self, stack: ExitStack, spec: ModelSpec, path: Path, servers: str) -> None:
        self.spec, self.servers, self.topics = spec, servers, Topics.of(spec.name)
        self.address = f"127.0.0.1:{free_port()}"
        shared = ("--spec", str(path), "--bootstrap-servers", servers)
        registry = ("--registry", str(path.parent / "registry"))
        flags = {
            "worker": registry,
            "serve": (*registry, "--listen", self.address),
            "compressor": registry,
            "monitor": ("--prometheus", f"127.0.0.1:{free_port()}"),
        }
        self.processes = {
            name: stack.enter_context(Process(name, path.parent, *shared, *more)) for name, more in flags.items()
        }
        self.log = stack.enter_context(closing(LogClient(servers, self.topics.models)))

    def head(self) -> Envelope | None:
        self.log.poll(0.05)
        return self.log.head

    def behind(self) -> int:
        """Records in no version yet."""
        head, ends = self.head(), end_offsets(self.servers, self.topics.events)
        return sum(ends.values()) - sum((head.offsets if head else {}).values())

    def drained(self) -> bool:
        for name, process in self.processes.items():
            if process.process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.process.returncode}:\n{process.output[-2000:]}")
        return self.behind() == 0

    def sample(self, at_s: float) -> Sample:
        rss_mb = {name: rss_bytes(process.process.pid) / 2**20 for name, process in self.processes.items()}
        return Sample(at_s, rss_mb, self.behind())

    def stop(self) -> dict[str, int]:
        """Exit codes."""
        return {name: process.terminate(60) for name, process in self.processes.items()}


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def drain(service: Service, feeder: Feeder) -> float:
    """Records a second that the worker learns of a backlog; all other processes run."""
    feeder.burst(1_000)
    wait_until(service.drained, "the first records learned", 120)
    begun_s = time.monotonic()
    feeder.burst(DRAINED_RECORDS)
    wait_until(service.drained, "the backlog learned", DRAIN_S)
    return DRAINED_RECORDS / (time.monotonic() - begun_s)


def watch(service: Service, seconds: float) -> list[Sample]:
    """Look once a second."""
    begun_s, found = time.monotonic(), list[Sample]()
    for i in count(1):
        time.sleep(max(0.0, begun_s + i * SAMPLE_S - time.monotonic()))
        found.append(service.sample(time.monotonic() - begun_s))
        if i % 30 == 0:
            print(_line(found[-1]), flush=True)
        if found[-1].at_s >= seconds:
            return found
    raise AssertionError("unreachable")


def _line(sample: Sample) -> str:
    memory = ", ".join(f"{name} {mb:.1f} MB" for name, mb in sample.rss_mb.items())
    return f"{sample.at_s:.0f} s: {memory}, lag {sample.lag_events:,}"


def growth(values: Sequence[float]) -> float:
    """Median of the last quarter against that of the first, less 1."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) / statistics.median(values[:quarter]) - 1


def slope(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Per second: the median over all pairs (Theil and Sen), which a moment of a busy machine does not move."""
    x, y = np.array(at_s), np.array(values, np.float64)
    later, earlier = np.tril_indices(len(x), -1)
    return float(np.median((y[later] - y[earlier]) / (x[later] - x[earlier])))


def lost(sent: Sent, head: Envelope) -> int:
    """What the version lacks of what was sent, however it was lost; 0 if all is there, once."""
    events = abs(sent.features - int(head.metrics["events"]))
    pairs = sum(abs(pairs - head.ledger[p][0]) for p, (pairs, _) in sent.ledger.items())
    return events + pairs + sum(xor != head.ledger[p][1] for p, (_, xor) in sent.ledger.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of load (default: %(default)g)")
    parser.add_argument("--partitions", type=int, default=1, help="of the events topic (default: %(default)s)")
    parser.add_argument("--per-s", type=float, help="load, if not 70%% of what is drained")
    parser.add_argument("--calls-per-s", type=float, default=20.0, help="to the server (default: %(default)g)")
    parser.add_argument("--publish-s", type=float, default=1.0, help="between versions (default: %(default)g)")
    options = parser.parse_args()
    text = SPEC.read_text().replace("partitions = 1 ", f"partitions = {options.partitions} ", 1)
    text = text.replace("[publish]\nevery_s = 1.0 ", f"[publish]\nevery_s = {options.publish_s} ", 1)
    spec = parse_spec(text, str(SPEC))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers, kind = stack.enter_context(broker(folder))
        create_topics(
            servers,
            spec.name,
            partitions=options.partitions,
            retention_s=spec.stream.retention_s,
            max_record_bytes=spec.stream.max_record_bytes,
        )
        feeder = Feeder(servers, Topics.of(spec.name).events, load(), partitions=options.partitions)
        path = folder / "model.toml"
        path.write_text(text)
        service = Service(stack, spec, path, servers)
        drained_per_s = drain(service, feeder)
        per_s = options.per_s or SHARE * drained_per_s
        print(f"drained {drained_per_s:,.0f} records/s; the load is {per_s:,.0f}/s", flush=True)
        with Caller(service.address, options.calls_per_s) as caller:
            feeder.pace(per_s, options.seconds)
            samples = watch(service, options.seconds)
            sent = feeder.wait()
            wait_until(service.drained, "all learned", DRAIN_S)
        head = service.head()
        assert head is not None
        codes = service.stop()
        feeder.close()
    warm_s = min(WARM_UP_S, options.seconds / 3)
    warm = [s for s in samples if s.at_s >= warm_s]
    past_s = warm[-1].at_s - warm[0].at_s
    found = {
        "rss_growth": {name: round(growth([s.rss_mb[name] for s in warm]), 4) for name in codes},
        "rss_mb": {name: round(statistics.median(s.rss_mb[name] for s in warm), 1) for name in codes},
        "lag_growth_events": round(past_s * slope([s.at_s for s in warm], [s.lag_events for s in warm])),
        "lag_events": round(statistics.median(s.lag_events for s in warm)),
        "lost": lost(sent, head),
        "seconds": round(samples[-1].at_s, 1),
        "load_events_per_s": round(per_s, 1),
        "drained_events_per_s": round(drained_per_s, 1),
        "records": sent.records,
        "versions": head.number,
        "calls": caller.calls,
        "failed_calls": caller.failed,
        "exit_codes": codes,
        "broker": kind,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
