"""All at once, for as long as one likes: two workers, two servers, a fault every ten seconds -> exact, and never away.

    KAFKA_HOME=... python -m faults.endurance --seconds 600

On an Apache Kafka of its own, which is struck at, too. Servers are struck one at a time; a client that knows both asks
twenty times a second. The last line is one JSON object; the exit code is 1 if anything was lost, learned twice or
stuck, or if a call failed twice in a row.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

from faults import acts, oracle
from faults.load import Feeder
from faults.nursery import warm
from faults.rig import Rig, Stuck
from faults.scenario import CHEAP, Fault, Scenario
from stream_app.broker import free_port
from stream_app.client import StreamModelClient
from stream_app.errors import ServingError
from stream_app.replay import Reader
from tests.broker.apache_kafka import ApacheKafka
from tests.processes import Process

EVERY_S = 10.0
CALLS_PER_S = 20.0
DEADLINE_S = 1.0
"""Of a call with all its attempts: whoever waits longer has failed."""
FROZEN_S = 5.0
READY_S = 90.0
ROW = {"a": 0.5, "b": -1.0, "c": "x"}
KINDS = (*CHEAP, "freeze", "full disk", "freeze broker", "kill broker", "restart broker")


class Servers:
    """Two servers of one model; of these one may be away at any time, never both.

    Args:
        rig: whose model.
        stack: ends them.
    """

    def __init__(self, rig: Rig, stack: ExitStack) -> None:
        self._rig, self._stack = rig, stack
        self.targets = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self._processes = [self._start(target) for target in self.targets]

    def _start(self, target: str) -> Process:
        process = Process("serve", self._rig.folder, *self._rig.flags, "--listen", target)
        return self._stack.enter_context(process)

    def wait(self) -> None:
        """Until both answer.

        Raises:
            Stuck: one does not.
        """
        for target, process in zip(self.targets, self._processes, strict=True):
            until_s = time.monotonic() + READY_S
            with StreamModelClient(target, deadline_s=DEADLINE_S) as client:
                while not _answers(client):
                    if process.process.poll() is not None or time.monotonic() > until_s:
                        raise Stuck(f"the server at {target} does not answer: {process.output[-600:]}")
                    self._rig.wait(0.2)

    def strike(self, number: signal.Signals) -> None:
        """Kill or stop one of them and start it again, or freeze it for a while; both answer before and after."""
        self.wait()
        i = self._rig.rng.randrange(2)
        self._processes[i].process.send_signal(number)
        if number == signal.SIGSTOP:
            self._rig.wait(FROZEN_S)
            self._processes[i].process.send_signal(signal.SIGCONT)
            self._rig.fired["freeze server"] += 1
            return
        self._processes[i].wait(30)
        self._processes[i] = self._start(self.targets[i])
        self._rig.fired["kill server" if number == signal.SIGKILL else "stop server"] += 1


class Caller:
    """Asks both servers, in a thread; a call that fails is made once more."""

    def __init__(self, targets: list[str]) -> None:
        self.calls = self.failed = self.failed_after_retry = 0
        self.longest_s = 0.0
        self._targets, self._stop = targets, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with StreamModelClient(self._targets, deadline_s=DEADLINE_S) as client:
            while not self._stop.wait(1 / CALLS_PER_S):
                self.calls += 1
                if not self._call(client):
                    self.failed += 1
                    self.failed_after_retry += not self._call(client)

    def _call(self, client: StreamModelClient) -> bool:
        began_s = time.monotonic()
        try:
            client.predict([ROW])
            return True
        except ServingError as error:
            print(f"call {self.calls}: {error.status}: {error}", file=sys.stderr)
            return False
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


def _answers(client: StreamModelClient) -> bool:
    try:
        client.predict([ROW])
    except ServingError:
        return False
    return True


def endure(rig: Rig, servers: Servers, kafka: ApacheKafka, seconds: float) -> None:
    """A fault every ten seconds.

    Raises:
        Stuck: what should go on by itself does not.
    """
    began_s, i = time.monotonic(), 0
    while time.monotonic() - began_s < seconds:
        kind = rig.rng.choice(("a server", "a server", *KINDS)) if rig.rng.random() < 0.5 else rig.rng.choice(KINDS)
        print(f"{time.monotonic() - began_s:.0f} s: {kind}", flush=True)
        if kind == "a server":
            servers.strike(rig.rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)))
        else:
            acts.do(rig, Fault(kind, 0.0, rig.rng.uniform(6.0, 9.0), rig.rng.randint(1, 4)), kafka)
        i += 1
        rig.wait(max(0.0, began_s + i * EVERY_S - time.monotonic()))


def main() -> int:
    """Run it; 1 if anything went wrong."""
    options = _parser().parse_args()
    home = os.environ.get("KAFKA_HOME")
    if not home:
        print("KAFKA_HOME is not set, wanted an Apache Kafka 4 distribution", file=sys.stderr)
        return 2
    warm({_scenario(options).learner})
    lost = duplicated = stuck = struck = 0
    notes: tuple[str, ...] = ()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="endurance-", dir=options.folder))
    began_s = time.monotonic()
    with ExitStack() as stack:
        kafka = stack.enter_context(ApacheKafka(Path(home).resolve(), folder / "kafka"))
        rig = stack.enter_context(Rig(_scenario(options), kafka.bootstrap_servers, folder))
        feeder = Feeder(_scenario(options), rig.servers, rig.topics.events)
        feeder.start()
        rig.tend()
        servers = Servers(rig, stack)
        servers.wait()
        with Caller(servers.targets) as caller:
            try:
                endure(rig, servers, kafka, options.seconds)
                feeder.stop()
                struck = sum(rig.fired.values())
                rig.fired.update(feeder.wrong)
                head = rig.settle()
                with closing(Reader(rig.servers)) as reader:
                    lost, duplicated, notes = oracle.judge(reader, rig.topics, head)
            except Stuck as error:
                stuck, notes = 1, (str(error),)
    for note in notes:
        print(note)
    found = {
        "seconds": round(time.monotonic() - began_s, 1),
        "faults": struck,
        "faults_fired": dict(sorted(rig.fired.items())),
        "records": feeder.sent,
        "lost": lost,
        "duplicated": duplicated,
        "stuck": stuck,
        "calls": caller.calls,
        "failed": caller.failed,
        "failed_after_retry": caller.failed_after_retry,
        "longest_wait_ms": round(1000 * caller.longest_s, 1),
    }
    print(json.dumps(found))
    return int(bool(lost or duplicated or stuck or caller.failed_after_retry))


def _scenario(options: argparse.Namespace) -> Scenario:
    return Scenario(
        seed=options.seed,
        broker="own kafka",
        partitions=2,
        workers=2,
        publish="[publish]\nevery_s = 0.3\n",
        per_s=options.per_s,
        poison=0.002,
        duplicates=0.02,
        early=0.02,
        late=0.02,
        columnar=0.02,
        faults=(),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faults.endurance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults (default: %(default)g)")
    parser.add_argument("--per-s", type=float, default=300.0, help="records (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of the faults (default: any)")
    parser.add_argument("--folder", type=Path, help="where logs go (default: the system's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
