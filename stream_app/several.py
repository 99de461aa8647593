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
_LAST_PORT = 65535
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
    argvs: Sequence[Sequence[str]],
    stop: threading.Event,
    *,
    drain_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Keep a process of each command running until ``stop`` is set; returns the exit code.

    Call it from the main thread: the processes end with the thread that starts them.

    Args:
        argvs: the commands; each ends at SIGTERM within ``drain_s``, and with REFUSED if it will never work.
    """
    servers = [_Server(argv, clock) for argv in argvs]
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


def ports_from(prometheus: str, count: int) -> list[tuple[str, str]]:
    """A flag for each of ``count`` processes, with the port given and those after it; port 0 is a free one each time.

    Raises:
        SettingsError: there are not so many ports.
    """
    host, _, first = prometheus.rpartition(":")
    ports = [int(first) + i if int(first) else 0 for i in range(count)]
    if ports[-1] > _LAST_PORT:
        text = f"prometheus is {prometheus!r}, wanted {count} ports from there on, up to {_LAST_PORT}"
        raise SettingsError(text)
    return [("--prometheus", f"{host}:{port}") for port in ports]


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
