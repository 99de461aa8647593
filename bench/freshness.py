"""How soon does an event change the served answer? SDK -> broker -> worker -> [version] -> server -> answer.

    python -m bench.freshness [--seconds 60] [--probes 360] [--ratio 2.2]      KAFKA_HOME set: against Apache Kafka

Amid a steady load of flights, ``--ratio`` times what a plain Faust agent that does nothing reaches in this run, some
labelled records a second are probes. A client asks a server over gRPC all the time and notes when it first sees each
version; the models topic says which records a version includes. A probe's freshness is the time from before it is
sent to the first answer of a version that includes it. The probes of the first tenth of the run do not count. Then the
same without a load. Broker, worker, server, load and client are processes of their own.
"""

import argparse
import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.ingest import SPEC, Topic, broker, faust_noop
from examples.flights.data import load
from models.spec import read_spec
from models.torch_learner import use_one_thread
from stream_app import learn
from stream_app.broker import free_port
from stream_app.client import StreamModelClient
from stream_app.errors import ServingError
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope

NOOP_RECORDS = 40_000
ASK_EVERY_S = 0.003
READY_S = 120.0


class Seen(NamedTuple):
    """The first answer that a version gave."""

    number: int
    at_s: float
    """Monotonic, when the answer was there."""


class Asking:
    """Asks a server for a prediction, again and again, in a thread of its own."""

    def __init__(self, target: str) -> None:
        self._client, self._stop = StreamModelClient(target), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: list[Seen] = []
        self.asked = 0

    def _run(self) -> None:
        while not self._stop.wait(ASK_EVERY_S):
            try:
                number = self._client.predict([{"distance": 1400.0, "carrier": "UA"}]).version.number
            except ServingError:
                continue
            self.asked += 1
            if not self.seen or number > self.seen[-1].number:
                self.seen.append(Seen(number, time.monotonic()))

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


class Run(NamedTuple):
    """What one load gave."""

    sent_per_s: float
    fresh_ms: list[float]
    versions_per_s: float
    publish_share: float
    cpu: dict[str, float]
    """Cores used, by process."""


@contextmanager
def process(folder: Path, name: str, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen([sys.executable, "-m", *argv], stdout=log, stderr=log)
        try:
            yield started
        finally:
            started.terminate()
            started.wait(60)


def measure(
    servers: str, topic: Topic, asking: Asking, pids: dict[str, int], *, per_s: float, seconds: float, probes: int
) -> Run:
    """Let the load run, and see how fresh its probes were answered."""
    events = topic.topics.events
    argv = [sys.executable, "-m", "bench._probes", servers, events, str(per_s), str(seconds), str(probes)]
    with closing(LogClient(servers, topic.topics.models)) as log:
        log.catch_up()
        loading = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert loading.stdout is not None
        loading.stdout.readline()  # its records are made
        before, begun_s = _cpu_s(pids), time.monotonic()
        heads = [change.head for change in _changes(log, loading)]
        wall_s = time.monotonic() - begun_s
        said = json.loads(loading.stdout.read().splitlines()[-1])
        cpu = {name: (used - before[name]) / wall_s for name, used in _cpu_s(pids).items()}
        last = max(offset for _, offset in said["probes"])
        deadline_s = time.monotonic() + READY_S
        while not (heads and heads[-1].offsets[0] > last) and time.monotonic() < deadline_s:
            heads += [change.head for change in log.poll(0.1)]
        while asking.seen[-1].number < heads[-1].number and time.monotonic() < deadline_s:
            time.sleep(0.05)
    counted = said["probes"][probes // 10 :]
    first_s, last_s = counted[0][0], counted[-1][0]
    during = [s for s in asking.seen if first_s <= s.at_s <= last_s]
    shares = [h.metrics["publish_share"] for h in heads if "publish_share" in h.metrics]
    return Run(
        said["sent_per_s"],
        fresh_ms(counted, heads, asking.seen),
        len(during) / (last_s - first_s),
        statistics.median(shares) if shares else 0.0,
        cpu,
    )


def fresh_ms(probes: Sequence[tuple[float, int]], heads: Sequence[Envelope], seen: Sequence[Seen]) -> list[float]:
    """Per probe (sent_s, offset) the milliseconds to the first answer of a version that includes it.

    Args:
        heads: as they came in the models topic.
        seen: in the order of their numbers.
    """
    ends, numbers = [h.offsets[0] for h in heads], [s.number for s in seen]
    found = []
    for sent_s, offset in probes:
        number = heads[bisect.bisect_right(ends, offset)].number
        found.append(1000 * (seen[bisect.bisect_left(numbers, number)].at_s - sent_s))
    return found


def _changes(log: LogClient, until: "subprocess.Popen[str]") -> Iterator[Any]:
    while until.poll() is None:
        yield from log.poll(0.2)


def _cpu_s(pids: dict[str, int]) -> dict[str, float]:
    """Processor time used so far."""
    found = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        found[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _ready(target: str) -> None:
    deadline_s = time.monotonic() + READY_S
    with StreamModelClient(target) as client:
        while True:
            try:
                client.predict([{}])
                return
            except ServingError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(run: Run, prefix: str = "") -> dict[str, Any]:
    found = {
        "p50_ms": quantile(run.fresh_ms, 0.5),
        "p99_ms": quantile(run.fresh_ms, 0.99),
        "versions_per_s": run.versions_per_s,
        "publish_share": run.publish_share,
        **{f"cpu_{name}": used for name, used in run.cpu.items()},
    }
    return {prefix + name: round(value, 3 if value < 10 else 1) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.freshness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load (default: %(default)s)")
    parser.add_argument("--probes", type=int, default=360, help="of the load (default: %(default)s)")
    parser.add_argument("--ratio", type=float, default=2.2, help="load per Faust's no-op (default: %(default)s)")
    parser.add_argument("--per-s", type=float, help="load, records a second, whatever Faust reaches")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="0: not measured (default: %(default)s)")
    options = parser.parse_args()
    use_one_thread()
    spec = read_spec(str(SPEC))
    learn.warm(spec)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        servers, kind = stack.enter_context(broker(folder))
        noop = Topic(servers, msgspec.structs.replace(spec, name="noop"))
        noop.fill(load()[:NOOP_RECORDS])
        noop_per_s = faust_noop(servers, noop.topics.events, NOOP_RECORDS)
        topic = Topic(servers, spec)
        flags = ["--spec", str(SPEC), "--bootstrap-servers", servers, "--registry", str(folder / "registry")]
        target = f"127.0.0.1:{free_port()}"
        worker = stack.enter_context(process(folder, "worker", "stream_app", "worker", *flags))
        serve = stack.enter_context(process(folder, "serve", "stream_app", "serve", *flags, "--listen", target))
        _ready(target)
        pids, asking = {"worker": worker.pid, "server": serve.pid}, stack.enter_context(Asking(target))
        per_s = options.per_s or options.ratio * noop_per_s
        loaded = measure(servers, topic, asking, pids, per_s=per_s, seconds=options.seconds, probes=options.probes)
        idle = None
        if options.idle_seconds:
            count = int(options.idle_seconds * options.probes / options.seconds)
            idle = measure(servers, topic, asking, pids, per_s=0.0, seconds=options.idle_seconds, probes=count)
    found = {
        "load_events_per_s": round(loaded.sent_per_s, 1),
        "load_ratio_faust_noop": round(loaded.sent_per_s / noop_per_s, 3),
        "faust_noop_per_s": round(noop_per_s, 1),
        "probes": len(loaded.fresh_ms),
        "broker": kind,
        **(summary(idle, "idle_") if idle else {}),
    }
    print(json.dumps(summary(loaded) | found))


if __name__ == "__main__":
    main()
