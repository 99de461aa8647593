"""The commands by which people decide: what they print, and what they refuse before anything is decided."""

from pathlib import Path

import pytest

from stream_app.__main__ import main
from stream_app.broker import free_port
from stream_app.catalogue import Listed
from stream_app.operator import COMMANDS, table
from tests import streams
from tests.line import Line
from tests.stream_app.heads import head_of, metrics_of


def test_versions_are_listed_a_line_each() -> None:
    head = head_of(12, metrics=metrics_of(rows=40), labels=1_234, epoch=3)
    number = head_of(3, metrics={"window_rmse": 1.5})
    text = table(
        [
            Listed(envelope=head, where="log", roles=("head",), variants=("int8",)),
            Listed(envelope=number, where="held", roles=("pinned", "canary")),
        ]
    )
    heading, first, second = (line.split() for line in text.splitlines())
    assert heading[:3] == ["number", "id", "epoch"]
    assert first[:3] == ["12", head.id, "3"]
    assert first[5:7] == ["123.5", "1,234"]
    assert first[-4:] == ["fp32,", "int8", "log", "head"]
    assert second[-6:] == ["1.5000", "-", "fp32", "held", "pinned,", "canary"]


def test_a_version_is_exported_rolled_back_to_and_pinned(
    embedded: str, app_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec_file, file = tmp_path / "model.toml", tmp_path / "version"
    spec_file.write_text(streams.spec_text(app_name))
    line = Line(embedded, streams.spec(app_name), tmp_path)
    line.registry = type(line.registry)(str(tmp_path / "registry" / app_name))
    seeder = line.seeder()
    seeded = seeder.seed()
    streams.produce(embedded, line.topics.events, streams.records(50))
    line.learn(seeded)
    line.publish(seeder, seeded)
    flags = ["--spec", str(spec_file), "--bootstrap-servers", embedded, "--registry", str(tmp_path / "registry")]

    def said(command: str, *more: str, code: int = 0) -> str:
        assert main([command, *flags, "--log-level", "error", *more]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    assert said("export", "1", str(file)).startswith("version 1 (")
    assert "wanted a new file" in said("export", "1", str(file), code=2)
    assert "is held; `stream-app shadow`" in said("import", str(file))
    assert "wanted a file to read" in said("import", str(tmp_path / "none"), code=2)
    assert said("rollback", "--to", "1", "--reason", "r").startswith("version 3 (")
    assert said("pin", "2", "--reason", "r").endswith("is pinned: servers answer with it, learning goes on\n")
    assert "version 2 is pinned; unpin it first" in said("shadow", "--version", "1", "--reason", "r", code=2)
    assert said("unpin", "--reason", "r").endswith("servers follow the head\n")
    said_of = said("canary", "--version", "2", "--percent", "5", "--reason", "r")
    assert said_of.endswith("is out as canary, 5 % of calls; 5000 labels decide\n")
    assert said("withdraw", "--reason", "r").startswith("version 2 (")
    assert "there is no version 99" in said("promote", "99", "--reason", "r", code=2)
    assert [row.split()[0] for row in said("versions").splitlines()] == ["number", "3", "2", "1"]
    line.close()


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (
            ("canary", "--version", "1", "--reason", "r", "--percent", "101"),
            "--percent: got '101', wanted a number from 0",
        ),
        (("pin", "1"), "required: --reason"),
        (("rollback", "--reason", "r"), "required: --to"),
    ],
)
def test_wrong_flags_are_named(flags: tuple[str, ...], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = flags
    with pytest.raises(SystemExit, match="2"):
        main([command, "--spec", "examples/flights/model.toml", "--bootstrap-servers", "127.0.0.1:9092", *rest])
    assert wanted in capsys.readouterr().err


MORE = {"rollback": ["--to", "1"], "export": ["1", "f"], "canary": ["--version", "1"], "shadow": ["--version", "1"]}
MORE |= {"promote": ["1"], "pin": ["1"]}


@pytest.mark.parametrize("command", sorted({name for name, _, _ in COMMANDS} - {"import"}))
def test_broker_that_is_not_there_is_said_at_once(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = f"127.0.0.1:{free_port()}"
    flags = ["--spec", "examples/flights/model.toml", "--bootstrap-servers", server, "--registry", str(tmp_path)]
    reason = [] if command in ("versions", "export", "judge") else ["--reason", "r"]
    assert main([command, *flags, *MORE.get(command, []), *reason]) == 1
    assert f"broker {server!r}: " in capsys.readouterr().err


def test_a_canary_goes_by_a_feature_that_there_is(
    embedded: str, app_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Line(embedded, streams.spec(app_name), tmp_path).close()
    (tmp_path / "model.toml").write_text(streams.spec_text(app_name))
    flags = ["--spec", str(tmp_path / "model.toml"), "--bootstrap-servers", embedded, "--registry", str(tmp_path)]
    assert main(["canary", *flags, "--version", "1", "--reason", "r", "--key", "user"]) == 2
    assert "--key is 'user', wanted the name of a feature" in capsys.readouterr().err
