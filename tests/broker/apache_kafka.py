"""One Apache Kafka 4 broker (KRaft) on loopback, from the ``libs`` of any official distribution."""

import base64
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Self

from stream_app.broker import answers_metadata, die_with_parent, free_port

_READY_WAIT_S = 90.0
"""It takes 3 to 5 s on an idle machine."""

_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""

_LOG4J2 = """\
Configuration:
  status: WARN
  Appenders: {Console: {name: out, PatternLayout: {pattern: "%d %p %c{1} %m%n"}}}
  Loggers: {Root: {level: INFO, AppenderRef: {ref: out}}}
"""


class ApacheKafka:
    """A real broker for tests and benches; Java 17 or newer is needed.

    Its data stay in ``folder``: after ``stop()`` or ``kill()``, ``start()`` resumes them on the
    same ports (after ``kill()`` in about 13 s: the controller must give up the old one first).
    Started with ``die_with_parent``, so from the main thread.
    """

    def __init__(self, home: Path, folder: Path, *, heap_mb: int = 512) -> None:
        self.bootstrap_servers = ""
        self._home = home
        self._folder = folder
        self._heap_mb = heap_mb
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """While it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers a metadata request."""
        if not (self._folder / "data").exists():
            self._format()
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", "server.properties"),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
                process_group=0,
            )
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM: a controlled shutdown, about a second; killed after 20."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def tool(self, main_class: str, *arguments: str) -> str:
        """Run one of the distribution's tools and return what it printed."""
        done = subprocess.run(self._java(main_class, *arguments), cwd=self._folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{main_class} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _format(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.bootstrap_servers = f"127.0.0.1:{self._port}"
        properties = _SERVER_PROPERTIES.format(port=self._port, controller_port=free_port(), data=self._folder / "data")
        (self._folder / "server.properties").write_text(properties)
        (self._folder / "log4j2.yaml").write_text(_LOG4J2)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.tool(
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "-c",
            "server.properties",
        )

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise RuntimeError("KAFKA_HOME is set but there is no java on PATH, wanted Java 17+")
        libs = self._home / "libs"
        if not any(libs.glob("kafka_*.jar")):
            raise RuntimeError(f"KAFKA_HOME: no kafka_*.jar in {libs}, wanted a Kafka distribution")
        return [
            java,
            f"-Xmx{self._heap_mb}m",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.yaml'}",
            "-cp",
            f"{libs}/*",
            main_class,
            *arguments,
        ]

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _READY_WAIT_S
        while not answers_metadata("127.0.0.1", self._port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                tail = (self._folder / "broker.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"Apache Kafka did not start (code {process.poll()}):\n{tail}")
            time.sleep(0.1)
