"""One model's service under fire: processes that are killed, frozen, replaced -> [rig] -> head at the log's end.

Workers that end by themselves are started again, as a supervisor does; whoever ends with 2 refuses to go on, and
that is a failure of the run.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from faults.nursery import Worker
from faults.scenario import Scenario
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.registry import Registry
from stream_app.topics import create_topics, end_offsets
from tests import streams

STUCK_S = 30.0
"""Without progress for so long after the last fault, while records wait: stuck."""
AGAIN_S = 1.0
"""Between a worker's end and its successor's start."""
DIES_S = 30.0
"""A worker that has not reached its failpoint by then never will: another one has the partitions."""
_UNLIMITED = resource.RLIM_INFINITY


class Stuck(Exception):
    """No progress, or a worker that refuses."""


class Rig:
    """The workers of one run.

    Args:
        scenario: says how many, and how the model is.
        bootstrap_servers: of the broker.
        folder: for spec, registry and logs.
    """

    def __init__(self, scenario: Scenario, bootstrap_servers: str, folder: Path) -> None:
        self.name = f"f{scenario.seed}x{os.getpid()}"
        self.servers, self.folder, self.topics = bootstrap_servers, folder, Topics.of(self.name)
        self.rng = random.Random(scenario.seed)
        self.fired: Counter[str] = Counter()
        self.restarts = 0
        self.wanted = scenario.workers
        self.next_failpoint = ""
        """Of the worker that is started next."""
        self.file_limit_bytes = _UNLIMITED
        self.workers: list[Worker] = []
        self._again_s = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        spec = streams.spec_text(self.name, partitions=scenario.partitions, learner=scenario.learner)
        spec_file = folder / "model.toml"
        spec_file.write_text(spec.replace("[publish]\nevery_s = 0.05\n", scenario.publish))
        self.registry = folder / "registry"
        self.flags = (
            *("--spec", str(spec_file), "--bootstrap-servers", bootstrap_servers),
            *("--registry", str(self.registry)),
        )
        create_topics(
            bootstrap_servers,
            self.name,
            partitions=scenario.partitions,
            retention_s=86_400,
            max_record_bytes=65_536,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self.workers:
            worker.kill()  # frozen ones, too

    # --- workers --------------------------------------------------------------------------------------------

    def start(self) -> Worker:
        failpoint, self.next_failpoint = self.next_failpoint, ""
        worker = Worker(self.folder, *self.flags, failpoint=failpoint)
        self.workers.append(worker)
        self._limit(worker)
        return worker

    def alive(self) -> list[Worker]:
        return [w for w in self.workers if w.code is None]

    def tend(self) -> None:
        """Start what is missing.

        Raises:
            Stuck: a worker refuses to go on.
        """
        for worker in [w for w in self.workers if w.code is not None]:
            self.workers.remove(worker)
            self.restarts += worker.code == 1
            self._again_s = time.monotonic() + AGAIN_S
            if worker.code == 2:
                raise Stuck(f"a worker refuses to go on: {worker.output[-600:]}")
        while len(self.workers) < self.wanted and time.monotonic() >= self._again_s:
            self.start()

    def wait(self, seconds: float) -> None:
        """Let the service run."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.tend()
            time.sleep(0.05)

    def dies(self, worker: Worker) -> bool:
        """Wait until a worker reaches its failpoint; False if it does not."""
        until_s = time.monotonic() + DIES_S
        while worker.code is None and time.monotonic() < until_s:
            time.sleep(0.02)
        return worker.code == -signal.SIGKILL

    def stop(self, worker: Worker, seconds: float = 60.0) -> None:
        """SIGTERM.

        Raises:
            Stuck: it does not end in time.
        """
        worker.signal(signal.SIGTERM)
        if worker.wait(seconds) is None:
            raise Stuck(f"a worker did not end {seconds:g} s after SIGTERM: {worker.output[-600:]}")

    def limit_files(self, size_bytes: int = _UNLIMITED) -> None:
        """No process of the service may write beyond that size into a file."""
        self.file_limit_bytes = size_bytes
        for worker in self.alive():
            self._limit(worker)

    def _limit(self, worker: Worker) -> None:
        if worker.code is None:
            limits = (self.file_limit_bytes, _UNLIMITED)
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, limits)

    def command(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """An operator's."""
        argv = [sys.executable, "-m", "stream_app", name, *self.flags, "--log-level", "error", *more]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    # --- how far it has come ----------------------------------------------------------------------------------

    @property
    def versions(self) -> Registry:
        """Their files."""
        return Registry(str(self.registry / self.name))

    def log(self) -> "closing[LogClient]":
        return closing(LogClient(self.servers, self.topics.models))

    def settle(self) -> Envelope:
        """Wait until the head has all of the log, then end the workers; returns the last head.

        Raises:
            Stuck: there is no progress.
        """
        ends = end_offsets(self.servers, self.topics.events)
        with self.log() as log:
            far, moved_s = -1, time.monotonic()
            while log.head is None or log.head.offsets != ends:
                self.tend()
                log.poll(0.1)
                reached = sum(log.head.offsets.values()) if log.head else 0
                if reached > far:
                    far, moved_s = reached, time.monotonic()
                if time.monotonic() - moved_s > STUCK_S:
                    said = "".join(w.output[-400:] for w in self.workers)
                    raise Stuck(f"at {log.head and log.head.offsets}, wanted {ends}: {said}")
            for worker in self.alive():
                self.stop(worker)
            log.catch_up()
            assert log.head is not None
            return log.head
