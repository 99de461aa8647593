"""All of it on one machine: broker -> topics -> worker, tuner, compressor, judge, server; watched, restarted, ended.

Each process is a child that dies with this one, even by ``kill -9``. One that crashes is started again
after a while; one that refuses (exit code 2) is not, for it would refuse again: its reason ends the rest.
"""

import fcntl
import functools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from models.spec import ModelSpec
from stream_app.broker import EmbeddedBroker, die_with_parent, free_port
from stream_app.dashboard.view import Frame, show
from stream_app.errors import SettingsError, StreamAppError
from stream_app.metrics import serve_metrics
from stream_app.monitor import Monitor, signalled
from stream_app.status import ProcessStatus
from stream_app.topics import connect, create_topics

REFUSED = 2
"""Exit code of a command that was given something it cannot work with."""
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
HEALTHY_S = 30.0
"""Who has run for so long begins again with the first backoff."""
STOP_S = 45.0
"""How long a process may take to end after SIGTERM: a worker gives itself 40 s (agents.STOP_S) to publish."""
ORPHANED_STOP_S = 5.0
"""The same where the broker is gone for good: there is nothing left to publish to."""
BACKGROUND_NICE = 5
BACKGROUND_DELAY_S = 3.0
"""Tuner and compressor have nothing to do before there is a version; they load while the worker joins its group."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Several processes share the cores, and batches are small: with two threads, each waiting for the
other at every step, a worker on a busy machine of two cores was 11 times slower than with one."""
_TAIL_BYTES = 4000
_TAIL_LINES = 8
_log = logging.getLogger("stream_app.up")


class Child:
    """One process, started again when it crashes. Use it from the main thread: see ``die_with_parent``.

    Args:
        name: what it is called; its output goes to ``<logs>/<name>.log``.
        argv: the command.
        nice: added to this process's own niceness.
        again: whether to start it again when it crashes.
        delay_s: after ``start``, how long it leaves the cores to others.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        logs: Path,
        *,
        nice: int = 0,
        again: bool = True,
        delay_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.log_path = name, logs / f"{name}.log"
        self._argv, self._nice, self._again, self._clock = list(argv), nice, again, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = self._due_s = 0.0
        self._backoff_s, self._delay_s = FIRST_BACKOFF_S, delay_s
        self._waiting = False
        self._starts = self._log_start = 0

    @property
    def restarts(self) -> int:
        return max(self._starts - 1, 0)

    @property
    def code(self) -> int | None:
        """Exit code of the last run; None while it runs or if it never has."""
        return None if self._process is None else self._process.poll()

    @property
    def refused(self) -> bool:
        return self.code == REFUSED

    def status(self) -> ProcessStatus:
        if self.refused:
            return ProcessStatus(self.name, "refused", None, self.restarts)
        if self._waiting:
            return ProcessStatus(self.name, "waiting", None, self.restarts)
        if self._process is None or self.code is not None:
            return ProcessStatus(self.name, "ended", None, self.restarts)
        return ProcessStatus(self.name, "running", self._process.pid, self.restarts)

    def start(self) -> None:
        self._waiting, self._due_s = True, self._clock() + self._delay_s
        self.tick()

    def _start(self) -> None:
        self._waiting = False
        self._starts += 1
        self._started_s = self._clock()
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = _spawn(self._argv, log, self._nice)

    def tick(self) -> None:
        """Start it when its time has come; notice a crash, and start it again after its backoff."""
        if self._waiting:
            if self._clock() >= self._due_s:
                self._start()
            return
        code = self.code
        if code is None or code == REFUSED or not self._again:
            return
        now_s = self._clock()
        if now_s - self._started_s >= HEALTHY_S:
            self._backoff_s = FIRST_BACKOFF_S
        _log.warning(
            "%s ended with code %d, starts again in %g s: %s",
            *(self.name, code, self._backoff_s, self.last_words()),
        )
        self._waiting, self._due_s = True, now_s + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)

    def terminate(self) -> None:
        """Ask it to end, and start it no more."""
        self._again = self._waiting = False
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def join(self, wait_s: float) -> None:
        """Wait for it to end; kill it if it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(max(wait_s, 0.0))
        except subprocess.TimeoutExpired:
            _log.warning("%s did not end in time and was killed", self.name)
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """The end of its log, as far as it is this run's."""
        return last_words(self.log_path, self._log_start)


def _spawn(argv: Sequence[str], log: IO[bytes], nice: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=_ONE_THREAD | os.environ,
        preexec_fn=functools.partial(_prepare, nice),
        # Ctrl-C reaches the whole foreground group: here the parent passes it on, in order.
        process_group=0,
    )


def _prepare(nice: int) -> None:
    die_with_parent()
    os.nice(nice)


def last_words(path: Path, start: int = 0) -> str:
    """The last lines of a log file, not before ``start``; "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


class Service:
    """Everything that one model needs, on this machine.

    Start it, call ``tick`` a few times a second, and stop it, all from the main thread.

    Args:
        spec_path: the model.toml, for the commands.
        spec: the same, read.
        bootstrap_servers: of a broker that is there; None starts an embedded one.
        registry: folder or URL.
        listen: of the server; port 0 takes a free one.
        run_dir: where logs go.
        workers: how many share the events topic's partitions.
        worker_flags: further flags of each worker.
        server_flags: further flags of the server.
    """

    def __init__(
        self,
        spec_path: str,
        spec: ModelSpec,
        *,
        bootstrap_servers: str | None,
        registry: str,
        listen: str,
        run_dir: Path,
        workers: int = 1,
        worker_flags: Sequence[str] = (),
        server_flags: Sequence[str] = (),
    ) -> None:
        self._spec_path, self._spec = spec_path, spec
        self._broker = EmbeddedBroker() if bootstrap_servers is None else None
        self._bootstrap_servers = bootstrap_servers or ""
        self._registry, self._worker_flags, self._server_flags = registry, worker_flags, server_flags
        self._workers = workers
        self.logs = run_dir / "logs"
        self.listen = listen
        """``host:port`` of the server; the port is known after ``start``."""
        self._children: list[Child] = []

    @property
    def bootstrap_servers(self) -> str:
        return self._broker.bootstrap_servers if self._broker else self._bootstrap_servers

    def start(self) -> None:
        """Start broker and processes; returns before they are ready.

        Raises:
            BrokerError: the broker does not start or answer.
            TopicError: the topics are not as they must be.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"{self.logs}: {error.strerror}, wanted a folder for the logs") from error
        self.listen = _with_port(self.listen)
        if self._broker is not None:
            self._broker.start()
        connect(self.bootstrap_servers)
        stream = self._spec.stream
        create_topics(
            self.bootstrap_servers,
            self._spec.name,
            partitions=stream.partitions,
            retention_s=stream.retention_s,
            max_record_bytes=stream.max_record_bytes,
        )
        self._children = list(self._commands())
        for child in self._children:
            child.start()

    def _commands(self) -> Iterator[Child]:
        yield self._child("worker", *self._worker_flags)
        for number in range(2, self._workers + 1):
            yield self._child("worker", *self._worker_flags, number=number)
        yield self._child("serve", "--listen", self.listen, "--log-events", *self._server_flags)
        for command in ("tuner", "compressor", "judge"):
            yield self._child(command, nice=BACKGROUND_NICE, delay_s=BACKGROUND_DELAY_S)

    def _child(self, command: str, *flags: str, nice: int = 0, delay_s: float = 0.0, number: int = 1) -> Child:
        argv = [sys.executable, "-m", "stream_app", command, "--spec", self._spec_path]
        argv += ["--bootstrap-servers", self.bootstrap_servers, "--registry", self._registry]
        name = command if number == 1 else f"{command}-{number}"
        return Child(name, [*argv, *flags], self.logs, nice=nice, delay_s=delay_s)

    def tick(self) -> None:
        """Start again what has crashed.

        Raises:
            BrokerError: the embedded broker died.
            StreamAppError: a process refuses to work; its own words.
        """
        if self._broker is not None:
            self._broker.check()
        for child in self._children:
            child.tick()
            if child.refused:
                error = StreamAppError(
                    f"{child.name} refuses to work; the end of {child.log_path}:\n{child.last_words()}"
                )
                error.exit_code = REFUSED  # as the child's
                raise error

    def processes(self) -> list[ProcessStatus]:
        return [child.status() for child in self._children]

    def stop(self) -> None:
        """End all: worker, tuner, compressor, judge, then the server, then the broker."""
        servers = [c for c in self._children if c.name == "serve"]
        for group in ([c for c in self._children if c not in servers], servers):
            for child in group:
                child.terminate()
            orphaned = self._broker is not None and self._broker.died
            deadline_s = time.monotonic() + (ORPHANED_STOP_S if orphaned else STOP_S)
            for child in group:
                child.join(deadline_s - time.monotonic())
        if self._broker is not None:
            self._broker.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _with_port(listen: str) -> str:
    """A port instead of 0, so that others can be told of it.

    Raises:
        SettingsError: it is no ``host:port``.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"listen is {listen!r}, wanted HOST:PORT")
    return listen if int(port) else f"{host}:{free_port()}"


# The command --------------------------------------------------------------------------------------


def run(
    spec_path: str,
    spec: ModelSpec,
    *,
    bootstrap_servers: str | None,
    registry: str,
    listen: str,
    rest: str | None,
    prometheus: str,
    run_dir: str,
    workers: int,
    on_mismatch: str,
    stuck_s: float,
) -> int:
    """``stream-app up``: until SIGTERM or Ctrl-C.

    Raises:
        StreamAppError: it could not start, or a process refuses to work.
    """
    if workers > spec.stream.partitions:
        raise SettingsError(
            f"--workers: got {workers}, wanted at most stream.partitions, which is {spec.stream.partitions}: "
            "the others would have nothing to learn"
        )
    folder = Path(run_dir)
    service = Service(
        spec_path,
        spec,
        bootstrap_servers=bootstrap_servers,
        registry=registry,
        listen=listen,
        run_dir=folder,
        workers=workers,
        worker_flags=("--on-mismatch", on_mismatch, "--stuck-s", str(stuck_s)),
        server_flags=("--rest", rest) if rest else (),
    )
    with signalled() as stop, locked(folder / "lock"), service, logging_to(service.logs / "up.log"):
        monitor = Monitor(spec.name, spec.task, bootstrap_servers=service.bootstrap_servers)
        with serve_metrics(prometheus, monitor.status) as server:
            print(f"metrics on {server.url}, logs in {service.logs}", flush=True)
            monitor.start()
            try:
                _watch(service, monitor, stop)
            finally:
                monitor.stop()
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else has ``path`` locked meanwhile.

    Raises:
        SettingsError: somebody has, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise SettingsError(f"{path.parent}: {error.strerror}, wanted a folder to write to") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another process has {path}, wanted it to end first") from None
        yield


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log to a file meanwhile: lines on the terminal would tear the live view."""
    root, file = logging.getLogger(), logging.FileHandler(path)
    before, root.handlers = root.handlers, [file]
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    try:
        yield
    finally:
        root.handlers = before
        file.close()


def _watch(service: Service, monitor: Monitor, stop: threading.Event) -> None:
    note = f"broker {service.bootstrap_servers} · server {service.listen}"

    def frame() -> Frame:
        service.tick()
        return Frame(monitor.status(), processes=service.processes(), note=note)

    show(frame, stop)
