"""Children are watched, restarted, ended in order, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.spec import ModelSpec
from stream_app import up
from stream_app.errors import BrokerError, SettingsError, StreamAppError
from stream_app.up import Child, Service, last_words, locked
from tests.stream_app.versions import spec_of, until

SLEEP = "import time; time.sleep(60)"
SLEEP_ON = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + (
    "print('deaf', flush=True); time.sleep(60)"
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def child(code: str, logs: Path, clock: Clock | None = None, *, again: bool = True) -> Child:
    return Child("dummy", [sys.executable, "-c", code], logs, again=again, clock=clock or Clock())


def ended(process: Child) -> bool:
    return process.code is not None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_crashed_child_starts_again_after_a_growing_while(tmp_path: Path) -> None:
    clock = Clock()
    dummy = child("print('oops'); raise SystemExit(1)", tmp_path, clock)
    dummy.start()
    for backoff_s in (0.5, 1.0, 2.0):
        until(lambda: ended(dummy))
        dummy.tick()
        assert dummy.status().state == "waiting"
        clock.now_s += backoff_s - 0.01
        dummy.tick()
        assert dummy.status().state == "waiting"
        clock.now_s += 0.01
        dummy.tick()
    assert dummy.restarts == 3
    dummy.terminate()
    dummy.join(5.0)
    assert dummy.log_path.read_text().count("oops") >= 3
    assert dummy.last_words() in ("", "oops")  # of the last run alone


def test_start_may_be_delayed(tmp_path: Path) -> None:
    clock = Clock()
    dummy = Child("dummy", [sys.executable, "-c", SLEEP], tmp_path, delay_s=8.0, clock=clock)
    dummy.start()
    assert dummy.status() == ("dummy", "waiting", None, 0)
    clock.now_s += 8.0
    dummy.tick()
    assert (dummy.status().state, dummy.restarts) == ("running", 0)
    dummy.terminate()
    dummy.join(5.0)


def test_backoff_begins_again_after_a_healthy_while(tmp_path: Path) -> None:
    clock = Clock()
    dummy = child("raise SystemExit(1)", tmp_path, clock)
    dummy.start()
    until(lambda: ended(dummy))
    dummy.tick()
    clock.now_s += 0.5
    dummy.tick()
    until(lambda: ended(dummy))
    clock.now_s += up.HEALTHY_S
    dummy.tick()
    clock.now_s += up.FIRST_BACKOFF_S
    dummy.tick()
    assert dummy.restarts == 2
    dummy.join(5.0)


def test_refusal_is_final(tmp_path: Path) -> None:
    dummy = child("print('the spec does not fit'); raise SystemExit(2)", tmp_path)
    dummy.start()
    until(lambda: ended(dummy))
    dummy.tick()
    assert dummy.status().state == "refused"
    assert dummy.last_words() == "the spec does not fit"


def test_child_that_may_end_is_left_alone(tmp_path: Path) -> None:
    dummy = child("pass", tmp_path, again=False)
    dummy.start()
    until(lambda: ended(dummy))
    dummy.tick()
    assert (dummy.status().state, dummy.code) == ("ended", 0)


def test_deaf_child_is_killed(tmp_path: Path) -> None:
    dummy = child(SLEEP_ON, tmp_path)
    dummy.start()
    until(lambda: "deaf" in dummy.last_words())
    dummy.terminate()
    dummy.join(0.1)
    assert dummy.code == -signal.SIGKILL


def test_child_is_niced_and_uses_one_thread(tmp_path: Path) -> None:
    code = "import os; print(os.nice(0), os.environ['OMP_NUM_THREADS'])"
    dummy = Child("dummy", [sys.executable, "-c", code], tmp_path, nice=5, again=False)
    dummy.start()
    dummy.join(10.0)
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    assert dummy.last_words() == f"{os.nice(0) + 5} {threads}"


def test_last_words_are_the_last(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_words(log) == ""
    log.write_text("".join(f"line {n}\n" for n in range(5_000)))
    assert last_words(log).splitlines() == [f"line {n}" for n in range(4_992, 5_000)]


def test_kill_9_of_the_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from stream_app.up import Child\n"
        f"c = Child('dummy', [sys.executable, '-c', {SLEEP!r}], Path({str(tmp_path)!r}))\n"
        "c.start(); print(c.status().pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))


# The service, with dummies for its commands -------------------------------------------------------


class Dummies(Service):
    """Its children write down when they end."""

    codes: dict[str, str]

    def _child(self, command: str, *flags: str, nice: int = 0, delay_s: float = 0.0) -> Child:
        last = self.logs / "order"
        code = self.codes.get(command) or (
            "import signal, sys, time\n"
            f"def end(*_): open({str(last)!r}, 'a').write('{command} '); sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
        )
        return Child(command, [sys.executable, "-c", code], self.logs, nice=nice)


def dummies(spec: ModelSpec, run_dir: Path, **codes: str) -> Dummies:
    service = Dummies(
        "model.toml",
        spec,
        bootstrap_servers=None,
        registry="r",
        listen="127.0.0.1:0",
        run_dir=run_dir,
    )
    service.codes = codes
    return service


def test_server_ends_last_and_the_broker_with_it(app_name: str, tmp_path: Path) -> None:
    with dummies(spec_of(app_name), tmp_path) as service:
        host, port = service.bootstrap_servers.split(":")
        assert not service.listen.endswith(":0")
        for name in ("worker", "serve", "tuner", "compressor", "judge"):
            until(lambda name=name: last_words(service.logs / f"{name}.log") == "up")
        service.tick()
        assert [p.state for p in service.processes()] == ["running"] * 5
    order = (service.logs / "order").read_text().split()
    assert sorted(order[:4]) == ["compressor", "judge", "tuner", "worker"]
    assert order[4:] == ["serve"]
    assert not up_at(host, int(port))


def test_flags_of_worker_and_server_reach_them(app_name: str, tmp_path: Path) -> None:
    asked: dict[str, tuple[str, ...]] = {}

    class Noting(Service):
        def _child(self, command: str, *flags: str, nice: int = 0, delay_s: float = 0.0) -> Child:
            asked[command] = flags
            return Child(command, [], self.logs)

    service = Noting(
        "model.toml",
        spec_of(app_name),
        bootstrap_servers="127.0.0.1:1",
        registry="r",
        listen="127.0.0.1:2",
        run_dir=tmp_path,
        worker_flags=("--stuck-s", "3"),
        server_flags=("--rest", "127.0.0.1:4"),
    )
    list(service._commands())
    assert asked["worker"] == ("--stuck-s", "3")
    assert asked["serve"][:2] == ("--listen", "127.0.0.1:2")
    assert asked["serve"][-2:] == ("--rest", "127.0.0.1:4")


def test_several_workers_have_names_and_logs_of_their_own(app_name: str, tmp_path: Path) -> None:
    service = Service(
        "model.toml",
        spec_of(app_name),
        bootstrap_servers="127.0.0.1:1",
        registry="r",
        listen="127.0.0.1:2",
        run_dir=tmp_path,
        workers=3,
    )
    names = [child.name for child in service._commands()]
    assert names[:3] == ["worker", "worker-2", "worker-3"]
    assert len(set(names)) == len(names)


def up_at(host: str, port: int) -> bool:
    from stream_app.broker import answers_metadata

    return answers_metadata(host, port)


def test_refusing_worker_ends_the_service_with_its_words(app_name: str, tmp_path: Path) -> None:
    code = "print('stream-app worker: EpochError: does not fit'); raise SystemExit(2)"
    with dummies(spec_of(app_name), tmp_path, worker=code) as service:
        until(lambda: service.processes()[0].state == "refused")
        wanted = r"worker refuses to work; .*worker\.log:\n.*EpochError: does not fit"
        with pytest.raises(StreamAppError, match=wanted) as caught:
            service.tick()
        assert caught.value.exit_code == 2


def test_wrong_listen_is_named(app_name: str, tmp_path: Path) -> None:
    service = dummies(spec_of(app_name), tmp_path)
    service.listen = "50051"
    started_s = time.monotonic()
    with pytest.raises(SettingsError, match="listen is '50051', wanted HOST:PORT"), service:
        pass
    assert time.monotonic() - started_s < 10.0


def test_embedded_broker_that_died_ends_the_service(app_name: str, tmp_path: Path) -> None:
    with dummies(spec_of(app_name), tmp_path) as service:
        assert service._broker is not None
        os.kill(service._broker.pid, signal.SIGKILL)
        with pytest.raises(BrokerError, match=r"embedded broker: ended with code -9, .* what it held is lost"):
            until(service.tick)


def test_two_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / "lock"
    wanted = r"another process has .*lock, wanted it to end first"
    with locked(lock), pytest.raises(SettingsError, match=wanted), locked(lock):
        pass
    with locked(lock):
        pass
    lock.chmod(0o644)
    with pytest.raises(SettingsError, match="wanted a folder to write to"), locked(lock / "in" / "a" / "file"):
        pass


FORKS = """
import collections, os, subprocess
from concurrent import futures
from stream_app.up import die_with_parent
import grpc
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
grpc.channel_ready_future(channel).result(10)
codes = [subprocess.run(["/bin/true"], preexec_fn=die_with_parent).returncode for _ in range(150)]
print(dict(collections.Counter(codes)), flush=True)
os._exit(0)
"""


def test_children_survive_being_forked_beside_grpc() -> None:
    env = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    argv = [sys.executable, "-c", FORKS]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.stdout.strip() == "{0: 150}", done.stderr
