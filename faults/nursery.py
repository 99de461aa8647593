"""Workers by the hundred: [imports, once] -> fork -> stream-app worker.

Starting Python and importing what a worker needs is 2.5 s of a processor's time, nearly all that a run costs. Here a
process that has imported everything forks each worker: a process of its own, which runs the command's own ``main``.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable
from multiprocessing.context import ForkServerContext
from pathlib import Path

from stream_app import failpoints, learn, records
from stream_app.broker import die_with_parent
from tests import streams

PRELOADED = ["stream_app.__main__", "stream_app.agents", "stream_app.learn", "stream_app.seed", "models.torch_learner"]


def warm(kinds: Iterable[str]) -> None:
    """Compiled code comes into its cache before any run: no worker takes a minute to begin.

    Args:
        kinds: of learners, as in a spec.
    """
    for learner in kinds:
        learn.warm(streams.spec("warm", learner=learner))
    records.warm()


class Worker:
    """One ``stream-app worker``; its output goes to a file.

    Args:
        folder: for that file.
        flags: of the command.
        failpoint: where it is to die (stream_app/failpoints.py).
    """

    def __init__(self, folder: Path, *flags: str, failpoint: str = "") -> None:
        self._log = folder / f"worker-{time.monotonic_ns()}.log"
        context = _context()
        self._process = context.Process(target=_work, args=(self._log, ["worker", *flags], failpoint))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def signal(self, number: signal.Signals) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if it still runs then."""
        self._process.join(seconds)
        return self.code

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(10)

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _work(log: Path, argv: list[str], failpoint: str) -> None:
    die_with_parent()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    os.environ["STREAM_APP_FAILPOINT"] = failpoint
    importlib.reload(failpoints)  # it has read the environment before
    sys.argv = ["stream-app", *argv]
    from stream_app.__main__ import main

    sys.exit(main(argv))
