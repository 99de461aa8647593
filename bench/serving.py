"""How fast does the server answer, and can a swap be noticed? beside the limit, a naive server, and itself in a storm.

    python -m bench.serving [--rounds 5] [--seconds 3] [--kinds torch mixture] [--processes 1]

    noop     a grpc.aio server that parses the same requests and says the same: the limit of gRPC in Python
    torch    lists -> tensors -> an eager MLP 64-64 -> softmax, as one writes first
    ours     stream-app serve with tokens and metrics, following a models log

Two models, both of the flights: an MLP 64-64 (kind torch, served by compiled code), whose figures are the JSON line's,
and the standard mixture, under "mixture". All servers get the same requests from the same load generator, a process
of its own (``bench._serving_load``), a round of each after the other; medians over rounds count. Latencies: open
loop at half of our unary maximum. Storm: the models log gets SWAPS_PER_S versions a second, as a worker announces
them, and each is prepared, checked and swapped in. Answers are checked: none fails, and none is older than one that
came before it.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from bench._serving_versions import SPEC, publish
from examples.flights.data import Flight, load
from models.spec import read_spec
from stream_app.broker import EmbeddedBroker, free_port
from stream_app.client import StreamModelClient
from stream_app.errors import ServingError
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.topics import create_topics
from stream_app.wire import stream_app_pb2 as pb

BATCH = 32
SWAPS_PER_S = 10.0
TOKEN = "bench-" + "0" * 32
READY_S = 60.0
WARM_S = 5.0
"""For our server to load its compiled code, which it does while it answers."""
Result = dict[str, Any]


def row_of(flight: Flight) -> pb.Row:
    given = msgspec.to_builtins(flight.features)
    return pb.Row(features={name: _value(v) for name, v in given.items() if v is not None})


def _value(value: float | str) -> pb.Value:
    return pb.Value(text=value) if isinstance(value, str) else pb.Value(number=value)


def columns_of(flights: Sequence[Flight]) -> pb.Columns:
    rows = [msgspec.to_builtins(flight.features) for flight in flights]
    columns = []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if any(isinstance(v, str) for v in values):
            texts = sorted({v for v in values if v is not None})
            columns.append(pb.Column(name=name, texts=texts, at=[texts.index(v) + 1 if v else 0 for v in values]))
        else:
            columns.append(pb.Column(name=name, numbers=np.array(values, "<f8").tobytes()))
    return pb.Columns(rows=len(rows), columns=columns)


def requests_into(folder: Path, flights: Sequence[Flight]) -> None:
    """Files that the load generator reads: one row, BATCH rows, BATCH rows as columns; 64 different of each."""
    batches = [flights[at : at + BATCH] for at in range(0, 64 * BATCH, BATCH)]
    for name, found in {
        "unary": [pb.PredictRequest(rows=[row_of(batch[0])]) for batch in batches],
        "rows": [pb.PredictRequest(rows=[row_of(flight) for flight in batch]) for batch in batches],
        "columns": [pb.PredictRequest(columns=columns_of(batch)) for batch in batches],
    }.items():
        (folder / name).write_bytes(msgspec.msgpack.encode([request.SerializeToString() for request in found]))


@contextmanager
def process(argv: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as out:
        child = subprocess.Popen([sys.executable, "-m", *argv], stdout=out, stderr=out)
        try:
            yield child
        finally:
            child.terminate()
            child.wait(30)


class Bench:
    """Servers that stand by, and the load on them.

    Args:
        folder: has requests and logs.
        ports: server -> port.
        connections: of the load generator; with several processes more than two, which the kernel spreads.
    """

    def __init__(self, folder: Path, ports: dict[str, int], seconds: float, connections: int) -> None:
        self._folder, self._ports, self._seconds, self._connections = folder, ports, seconds, connections
        self.calls, self.failed, self.backwards = 0, 0, 0

    def load(self, server: str, requests: str, *options: object) -> Result:
        argv = ["bench._serving_load", f"127.0.0.1:{self._ports[server]}", str(self._folder / requests)]
        said = ["--seconds", self._seconds, "--connections", self._connections, "--token", TOKEN, *options]
        done = subprocess.run(
            [sys.executable, "-m", *argv, *map(str, said)], stdout=subprocess.PIPE, text=True, check=True
        )
        result: Result = json.loads(done.stdout.splitlines()[-1])
        failed = sum(result["failed"].values())
        if server.startswith("ours"):
            self.calls, self.failed = self.calls + result["calls"] + failed, self.failed + failed
            self.backwards += result["backwards"]
        if failed:
            print(f"{server} {requests}: failed {result['failed']}", flush=True)
        return result

    def rates(self, rounds: int, wanted: Sequence[tuple[str, str, str]]) -> dict[str, float]:
        """Calls per second; (name, server, requests) one after the other, round by round."""
        found: dict[str, list[float]] = {name: [] for name, _, _ in wanted}
        for _ in range(rounds):
            for name, server, requests in wanted:
                stream = ("--method", "PredictStream", "--depth", 2) if name.endswith("stream") else ()
                found[name].append(self.load(server, requests, *stream)["per_s"])
            print({name: round(per_s[-1]) for name, per_s in found.items()}, flush=True)
        return {name: median(per_s) for name, per_s in found.items()}


def wait_until_live(port: int) -> int:
    """The live version's number, once there is one."""
    deadline_s = time.monotonic() + READY_S
    with StreamModelClient(f"127.0.0.1:{port}", token=TOKEN) as client:
        while True:
            try:
                return client.model().version.number
            except ServingError as error:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"no version is live after {READY_S:g} s") from error
                time.sleep(0.05)


def latencies(bench: Bench, port: int, folder: Path, servers: str, rounds: int, per_s: float, swaps: int) -> Result:
    """Open loop, in turns: steady, and in a storm."""
    argv = [sys.executable, "-m", "bench._serving_versions", "publish", str(folder), servers]
    steady, storm, swapped, rates = [], [], 0, []
    for i in range(rounds):
        steady.append(bench.load("ours", "unary", "--per_s", per_s))
        before = wait_until_live(port)
        publisher = subprocess.Popen(
            [*argv, str(2 + i * swaps), str(swaps), str(SWAPS_PER_S)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert publisher.stdout is not None
        publisher.stdout.readline()  # it has read the log and begins
        storm.append(bench.load("ours", "unary", "--per_s", per_s))
        rates.append(float(publisher.communicate()[0]))
        swapped += wait_until_live(port) - before
        print({"steady": steady[-1], "storm": storm[-1], "swaps_per_s": rates[-1]}, flush=True)
    found = {
        "p99_ms": median(r["p99_ms"] for r in steady),
        "swap_p99_ms": median(r["p99_ms"] for r in storm),
        "p50_ms": median(r["p50_ms"] for r in steady),
        "swap_p50_ms": median(r["p50_ms"] for r in storm),
        "swap_p99_ratio": median(b["p99_ms"] / a["p99_ms"] for a, b in zip(steady, storm, strict=True)),
    }
    return found | {"open_per_s": per_s, "swaps": swapped, "swaps_per_s": median(rates)}


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status says no VmRSS")


def tokens_into(folder: Path) -> Path:
    path = folder / "tokens.toml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    path.write_text(f'[[tokens]]\nname = "bench"\nsha256 = "{digest}"\npermissions = ["predict"]\n')
    return path


def measured(kind: str, options: argparse.Namespace, folder: Path) -> Result:
    """One kind of model."""
    swaps = int(options.seconds * SWAPS_PER_S)
    subprocess.run(
        [sys.executable, "-m", "bench._serving_versions", "make", folder, kind, str(1 + swaps * options.rounds)],
        check=True,
    )
    requests_into(folder, load()[20_000 : 20_000 + 64 * BATCH])
    spec = read_spec(SPEC)
    with ExitStack() as stack:
        servers = stack.enter_context(EmbeddedBroker()).bootstrap_servers
        create_topics(servers, spec.name, partitions=1, retention_s=604_800, max_record_bytes=65_536)
        with closing(LogClient(servers, Topics.of(spec.name).models)) as log:
            publish(log, folder, (1,), SWAPS_PER_S)
        ports = {name: free_port() for name in ("ours", "noop", "torch")}
        serve = ["stream_app", "serve", "--spec", SPEC, "--bootstrap-servers", servers, "--registry", str(folder)]
        serve += ["--tokens", str(tokens_into(folder)), "--prometheus", "127.0.0.1:0", "--log-level", "warning"]
        began_s = time.monotonic()
        serve += ["--listen", f"127.0.0.1:{ports['ours']}", "--processes", str(options.processes)]
        ours = stack.enter_context(process(serve, folder / "ours.log"))
        wait_until_live(ports["ours"])
        start_s = time.monotonic() - began_s
        time.sleep(WARM_S)
        for name in ("noop", "torch"):
            for _ in range(options.processes):
                stack.enter_context(process(["bench._serving_peers", name, str(ports[name])], folder / f"{name}.log"))
            wait_until_answered(ports[name])
        bench = Bench(folder, ports, options.seconds, 2 if options.processes == 1 else 4 * options.processes)
        rates = bench.rates(
            options.rounds,
            [
                ("unary", "ours", "unary"),
                ("noop_unary", "noop", "unary"),
                ("columns", "ours", "columns"),
                ("noop_columns", "noop", "columns"),
                ("torch_columns", "torch", "columns"),
                ("rows", "ours", "rows"),
                ("noop_rows", "noop", "rows"),
                ("torch_rows", "torch", "rows"),
                ("stream", "ours", "unary"),
                ("noop_stream", "noop", "unary"),
            ],
        )
        open_loop = latencies(bench, ports["ours"], folder, servers, options.rounds, rates["unary"] / 2, swaps)
        memory = {"start_s": start_s, "rss_mb": rss_mb(ours.pid), "processes": options.processes}
        return (
            summary(rates)
            | open_loop
            | memory
            | {
                "calls": bench.calls,
                "failed": bench.failed,
                "backwards": bench.backwards,
            }
        )


def wait_until_answered(port: int) -> None:
    deadline_s = time.monotonic() + READY_S
    with StreamModelClient(f"127.0.0.1:{port}") as client:
        while True:
            try:
                client.predict([{}])
                return
            except ServingError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)


def summary(rates: dict[str, float]) -> Result:
    """Batched figures are of columns, the form for many rows; the same of rows by name are named so."""
    rows = {name: BATCH * per_s for name, per_s in rates.items()}
    return {
        "unary_per_s": rates["unary"],
        "noop_per_s": rates["noop_unary"],
        "ratio_noop": rates["unary"] / rates["noop_unary"],
        "batched_rows_per_s": rows["columns"],
        "noop_rows_per_s": rows["noop_columns"],
        "naive_torch_rows_per_s": rows["torch_columns"],
        "ratio_rows_naive": rows["columns"] / rows["torch_columns"],
        "ratio_rows_noop": rows["columns"] / rows["noop_columns"],
        "by_name_rows_per_s": rows["rows"],
        "by_name_noop_rows_per_s": rows["noop_rows"],
        "by_name_naive_torch_rows_per_s": rows["torch_rows"],
        "by_name_ratio_rows_naive": rows["rows"] / rows["torch_rows"],
        "by_name_ratio_rows_noop": rows["rows"] / rows["noop_rows"],
        "stream_per_s": rates["stream"],
        "noop_stream_per_s": rates["noop_stream"],
        "ratio_noop_stream": rates["stream"] / rates["noop_stream"],
    }


def rounded(found: Result) -> Result:
    return {k: round(v, 3 if abs(v) < 100 else 1) if isinstance(v, float) else v for k, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="medians over them count (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="of each server (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=("torch", "mixture"), default=["torch", "mixture"])
    options = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    found = {}
    for kind in options.kinds:
        print(f"== {kind}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = rounded(measured(kind, options, Path(folder)))
    first, *others = found
    print(json.dumps(found[first] | {kind: found[kind] for kind in others}))


if __name__ == "__main__":
    main()
