"""The embedded broker starts, answers, stops, dies with its parent, says why it cannot start."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import TopicPartition

from stream_app import kafka_clients
from stream_app.broker import EmbeddedBroker, answers_metadata, free_port
from stream_app.errors import BrokerError
from stream_app.topics import create_topics


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def gone_within(pid: int, wait_s: float) -> bool:
    deadline_s = time.monotonic() + wait_s
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not alive(pid)


def test_records_come_back(app_name: str) -> None:
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap_servers, app_name, partitions=1, retention_s=60, max_record_bytes=1000)
        with kafka_clients.producer(broker.bootstrap_servers) as producer:
            for i in range(10):
                producer.send(f"{app_name}.events", b"%d" % i)
            producer.flush()
        consumer = kafka_clients.consumer(
            broker.bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=5000
        )
        consumer.assign([TopicPartition(f"{app_name}.events", 0)])
        got = [next(consumer).value for _ in range(10)]
        consumer.close()
    assert got == [b"%d" % i for i in range(10)]


def test_start_and_stop_twice() -> None:
    broker = EmbeddedBroker()
    broker.start()
    broker.start()
    pid, (host, port) = broker.pid, broker.bootstrap_servers.split(":")
    assert answers_metadata(host, int(port))
    broker.stop()
    broker.stop()
    assert not alive(pid)
    assert not answers_metadata(host, int(port))
    broker.start()
    assert broker.pid != pid
    broker.stop()


def test_a_given_port_is_used_again() -> None:
    port = free_port()
    for _ in range(2):
        with EmbeddedBroker(port) as broker:
            assert broker.bootstrap_servers == f"127.0.0.1:{port}"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux only")
def test_dies_with_its_parent_under_kill_9() -> None:
    code = (
        "import time; from stream_app.broker import EmbeddedBroker; b = EmbeddedBroker();"
        "b.start(); print(b.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    assert gone_within(pid, 5.0)


def test_not_running_is_refused() -> None:
    with pytest.raises(BrokerError, match=r"embedded broker: not running, wanted start\(\) first"):
        _ = EmbeddedBroker().bootstrap_servers


def test_a_taken_port_is_refused(embedded: str) -> None:
    port = int(embedded.split(":")[1])
    with pytest.raises(BrokerError, match=rf"port {port} is taken .*, wanted a free one"):
        EmbeddedBroker(port).start()


def test_a_missing_binary_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "nowhere"))
    with pytest.raises(BrokerError, match=r"no binary for .*nowhere.*--bootstrap-servers instead"):
        EmbeddedBroker().start()


def fake_binary(folder: Path, script: str) -> str:
    path = folder / "tansu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_dying_broker_gives_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", fake_binary(tmp_path, "echo 'no memory left' >&2; exit 3"))
    with pytest.raises(BrokerError, match=r"ended with code 3 while starting[\s\S]*no memory left"):
        EmbeddedBroker().start()


def test_a_silent_broker_is_given_up_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; echo still thinking; exec sleep 60"
    monkeypatch.setenv("CALF_TANSU_BIN", fake_binary(tmp_path, script))
    with pytest.raises(BrokerError, match=r"no answer on port \d+ after 0.5 s[\s\S]*still thinking"):
        EmbeddedBroker(start_wait_s=0.5).start()
    assert not alive(int(pid_file.read_text()))


def test_a_stolen_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between finding the port and using it somebody else took it: the next one is tried."""
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        ports = iter([thief.getsockname()[1], free_port()])
        monkeypatch.setattr("stream_app.broker.free_port", lambda: next(ports))
        with EmbeddedBroker() as broker:
            assert broker.bootstrap_servers != f"127.0.0.1:{thief.getsockname()[1]}"
