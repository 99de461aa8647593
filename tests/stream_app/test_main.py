"""What is wrong with a command line is said at once: 2 for what someone must mend, 1 for what may pass."""

import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from stream_app import serve
from stream_app.__main__ import main
from stream_app.broker import free_port
from stream_app.serving.security import Security
from tests import streams

SPEC = "examples/flights/model.toml"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("serve", "--listen", "50051"), "--listen: got '50051', wanted HOST:PORT"),
        (("serve", "--rest", "8080"), "--rest: got '8080', wanted HOST:PORT"),
        (("serve", "--listen", "127.0.0.1:65536"), "--listen: got '127.0.0.1:65536', wanted HOST:PORT"),
        (("monitor", "--prometheus", "here"), "--prometheus: got 'here', wanted HOST:PORT"),
        (("lag", "--watch", "-1"), "--watch: got '-1', wanted seconds above 0"),
        (("lag", "--watch", "1e300"), "--watch: got '1e300', wanted seconds above 0 and at most 100000000"),
        (("worker", "--stuck-s", "nan"), "--stuck-s: got 'nan', wanted seconds above 0"),
        (("monitor", "--registry", "x"), "stream-app monitor: error: unrecognized arguments: --registry x"),
        (("lag", "--registry", "x"), "stream-app lag: error: unrecognized arguments: --registry x"),
        (("up", "--bogus"), "usage: stream-app up "),
        (("worker", "--bootstrap-servers", "a:1,b"), "--bootstrap-servers: got 'b', wanted HOST:PORT"),
    ],
)
def test_wrong_flag_is_named(
    flags: tuple[str, ...], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *rest = flags
    with pytest.raises(SystemExit, match="2"):
        main([command, "--spec", SPEC, "--bootstrap-servers", "127.0.0.1:9092", *rest])
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("command", ["worker", "tuner", "compressor", "lag", "up"])
def test_broker_that_is_not_there_is_said_at_once(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, started_s = f"127.0.0.1:{free_port()}", time.monotonic()
    flags = ["--spec", SPEC, "--bootstrap-servers", server]
    flags += ["--registry", str(tmp_path)] if command != "lag" else []
    flags += ["--run-dir", str(tmp_path)] if command == "up" else []
    assert main([command, *flags]) == 1
    assert f"broker {server!r}: " in capsys.readouterr().err
    assert time.monotonic() - started_s < 10.0  # 15 s and more, were it left to Kafka's clients


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"stream-app {metadata.version('stream-app')}\n"


def test_up_refuses_more_workers_than_there_are_partitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "model.toml"
    spec.write_text(streams.spec_text("many", partitions=2))
    assert main(["up", "--spec", str(spec), "--workers", "3", "--run-dir", str(tmp_path)]) == 2
    assert "--workers: got 3, wanted at most stream.partitions, which is 2" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--share-port",)])
def test_a_port_is_shared_only_where_it_is_asked_for(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(serve, "run", asked.update)
    assert main(["serve", "--spec", SPEC, "--bootstrap-servers", "127.0.0.1:9092", *flags]) == 0
    assert asked["share_port"] == bool(flags)


def test_what_a_server_is_told_about_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(serve, "run", asked.update)
    flags = ["--spec", SPEC, "--bootstrap-servers", "127.0.0.1:9092"]
    assert main(["serve", *flags]) == 0
    assert (asked["rest"], asked["security"], asked["reflect"]) == (None, Security(), False)
    flags += ["--rest", "127.0.0.1:0", "--tokens", "t", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"]
    assert main(["serve", *flags]) == 0
    assert asked["rest"] == "127.0.0.1:0"
    assert asked["security"] == Security(tokens="t", certificate="c", key="k", client_ca="a")


def test_a_tokens_file_that_is_wrong_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--spec", SPEC, "--bootstrap-servers", "127.0.0.1:9092", "--listen", "127.0.0.1:0"]
    assert main(["serve", *flags, "--tokens", str(tmp_path / "none")]) == 2
    assert "none cannot be read (No such file or directory)" in capsys.readouterr().err


def test_run_dir_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    flags = ("--spec", SPEC, "--registry", str(tmp_path), "--run-dir", str(tmp_path / "file"))
    assert main(["up", *flags]) == 2
    assert "File exists, wanted a folder to write to" in capsys.readouterr().err
