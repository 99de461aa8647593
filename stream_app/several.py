"""Several servers on one port: [Several] -> as many processes, each started again if it crashes, ended together.

The kernel spreads connections over them (SO_REUSEPORT), not calls: a client's stay with the process that it reached.
Each process follows the models log by itself, so two connections may for a moment be told different versions.
"""

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from stream_app.broker import die_with_parent
from stream_app.errors import SettingsError

REFUSED = 2
"""Exit code of what another start would not help."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""Before a crashed process starts again; doubled each time, until one has run for HEALTHY_S."""
HEALTHY_S = 60.0
LOOK_EVERY_S = 0.1
KILL_AFTER_S = 5.0
"""Beyond the time that servers have to drain."""

_log = logging.getLogger(__name__)


class _Server:
    """One of the processes."""

    def __init__(self, argv: Sequence[str], clock: Callable[[], float]) -> None:
        self._argv, self._clock = argv, clock
        self._backoff_s = FIRST_BACKOFF_S
        self._due_s: float | None = None
        self.start()

    def start(self) -> None:
        self._due_s, self._began_s = None, self._clock()
        # A group of its own: Ctrl-C reaches the parent alone, which passes it on once.
        self.process = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, process_group=0
        )

    def tick(self) -> None:
        """Notice a crash, and start again when it is time."""
        if self._due_s is not None:
            if self._clock() >= self._due_s:
                self.start()
        elif (code := self.process.poll()) is not None:
            now_s = self._clock()
            if now_s - self._began_s >= HEALTHY_S:
                self._backoff_s = FIRST_BACKOFF_S
            _log.warning(
                "server %d ended with code %d, another starts in %g s", self.process.pid, code, self._backoff_s
            )
            self._due_s = now_s + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)


def run(
    argv: Sequence[str],
    count: int,
    stop: threading.Event,
    *,
    drain_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Keep ``count`` processes running until ``stop`` is set; returns the exit code.

    Call it from the main thread: the processes end with the thread that starts them.

    Args:
        argv: the command of each; it ends at SIGTERM within ``drain_s``, and with REFUSED if it will never work.
    """
    servers = [_Server(argv, clock) for _ in range(count)]
    try:
        while not stop.wait(LOOK_EVERY_S):
            if any(server.process.poll() == REFUSED for server in servers):
                return REFUSED
            for server in servers:
                server.tick()
        return 0
    finally:
        _end([server.process for server in servers], drain_s + KILL_AFTER_S)


def _end(processes: "Sequence[subprocess.Popen[bytes]]", within_s: float) -> None:
    for process in processes:
        process.terminate()
    until_s = time.monotonic() + within_s
    for process in processes:
        try:
            process.wait(max(until_s - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            _log.warning("server %d did not end in time and was killed", process.pid)
            process.kill()
            process.wait()


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """``listen`` with a port that stays ours while other processes share it; port 0 becomes a free one.

    A socket that is bound and does not listen gets no connections.

    Raises:
        SettingsError: the address cannot be had.
    """
    host, _, port = listen.rpartition(":")
    bare = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((bare, int(port)))
        except OSError as error:
            raise SettingsError(f"listen is {listen!r}, wanted a free host:port ({error})") from error
        yield f"{host}:{held.getsockname()[1]}"
