"""Processes that share a port are kept running, and end together."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from stream_app import several
from stream_app.errors import SettingsError
from tests.stream_app.versions import until

NOTE = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1], str(os.getpid())).touch(); "


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def watching(folder: Path, stop: threading.Event) -> None:
    """Kill one of two, wait for the third, then say stop."""
    try:
        until(lambda: len(pids(folder)) == 2)
        os.kill(pids(folder)[0], signal.SIGKILL)
        until(lambda: len(pids(folder)) == 3)
    finally:
        stop.set()


def test_a_crashed_process_is_replaced_and_all_end_with_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "FIRST_BACKOFF_S", 0.01)
    stop = threading.Event()
    watcher = threading.Thread(target=watching, args=(tmp_path, stop))
    watcher.start()
    argv = [sys.executable, "-c", NOTE + "time.sleep(60)", str(tmp_path)]
    assert several.run([argv] * 2, stop, drain_s=5.0) == 0
    watcher.join()
    assert len(pids(tmp_path)) == 3
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_what_will_never_work_is_not_tried_again(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", NOTE + "sys.exit(2)", str(tmp_path)]
    assert several.run([argv], threading.Event(), drain_s=1.0) == several.REFUSED
    assert len(pids(tmp_path)) == 1


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "KILL_AFTER_S", 0.0)
    stop = threading.Event()
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + NOTE + "time.sleep(60)"

    def end() -> None:
        until(lambda: pids(tmp_path))
        stop.set()

    threading.Thread(target=end).start()
    assert several.run([[sys.executable, "-c", stubborn, str(tmp_path)]], stop, drain_s=0.2) == 0
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_a_crash_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    server = several._Server([sys.executable, "-c", "raise SystemExit(3)"], lambda: now_s)
    waits = []
    for _ in range(3):
        server.process.wait(20)
        server.tick()
        assert server._due_s is not None
        waits.append(server._due_s - now_s)
        now_s = server._due_s
        server.tick()
    server.process.wait(20)
    assert waits == [0.5, 1.0, 2.0]


def test_a_reserved_port_is_shared_and_gets_no_connections() -> None:
    with several.reserved("127.0.0.1:0") as listen, socket.socket() as server:
        port = int(listen.rpartition(":")[2])
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), 5.0):
                server.accept()[0].close()


def test_a_port_of_somebody_else_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(SettingsError, match="wanted a free host:port"), several.reserved(taken):
            pass


def test_each_process_has_a_port_for_its_metrics() -> None:
    assert several.ports_from("[::1]:9500", 2) == [("--prometheus", "[::1]:9500"), ("--prometheus", "[::1]:9501")]
    assert several.ports_from("localhost:0", 2) == [("--prometheus", "localhost:0")] * 2
    with pytest.raises(SettingsError, match=r"prometheus is 'localhost:65535', wanted 2 ports from there on"):
        several.ports_from("localhost:65535", 2)
