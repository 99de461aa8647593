"""Starting, killing and watching the service's real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stream_app.broker import die_with_parent
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope

T = TypeVar("T")


class Process:
    """One ``stream-app COMMAND``; its output goes to a file, shown when a test fails."""

    def __init__(self, command: str, folder: Path, *flags: str, failpoint: str = "") -> None:
        self.log = folder / f"{command}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream_app", command, *flags],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "STREAM_APP_FAILPOINT": failpoint},
                preexec_fn=die_with_parent,
            )

    def wait(self, timeout_s: float = 60.0) -> int:
        return self.process.wait(timeout_s)

    def terminate(self, timeout_s: float = 30.0) -> int:
        self.process.terminate()
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def wait_until(true: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """The first truthy answer; fails the test after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def head(log: LogClient) -> Envelope | None:
    log.poll(0.05)
    return log.head
