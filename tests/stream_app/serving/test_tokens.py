"""A secret finds its entry; the file may change at any time and never harm."""

import hashlib
import logging
import os
from pathlib import Path

import pytest

from stream_app.errors import SettingsError
from stream_app.serving.tokens import LOOK_EVERY_S, TokenFile


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def entry(name: str, secret: str, more: str = "") -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\npermissions = ["predict"]\n{more}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "tokens.toml"
    found.write_text(entry("one", "first secret") + entry("two", "second secret", "expires = 2030-01-01T00:00:00Z"))
    return found


def name(tokens: TokenFile, secret: str) -> str | None:
    found = tokens.find(secret)
    return found and found.name


def test_a_secret_finds_its_entry(path: Path) -> None:
    tokens = TokenFile(path)
    assert (name(tokens, "first secret"), name(tokens, "second secret")) == ("one", "two")
    for unknown in ("", "first", "first secret ", "\udcff", "x" * 100_000):
        assert tokens.find(unknown) is None


def test_a_changed_file_is_read_again(path: Path) -> None:
    clock = Clock()
    tokens = TokenFile(path, clock)
    path.write_text(entry("three", "third secret"))
    assert name(tokens, "first secret") == "one"
    clock.now_s = LOOK_EVERY_S
    assert (name(tokens, "first secret"), name(tokens, "third secret")) == (None, "three")


def test_a_replaced_file_is_read_again(path: Path, tmp_path: Path) -> None:
    clock = Clock()
    tokens = TokenFile(path, clock)
    new = tmp_path / "new"
    new.write_text(path.read_text().replace("one", "uno"))  # as long, and as old
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.replace(path)
    clock.now_s = LOOK_EVERY_S
    assert name(tokens, "first secret") == "uno"


@pytest.mark.parametrize("break_it", [Path.unlink, lambda path: path.write_text("[[tokens")])
def test_a_file_that_breaks_changes_nothing_but_the_log(
    break_it: object, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    tokens = TokenFile(path, clock)
    assert callable(break_it)
    break_it(path)
    with caplog.at_level(logging.ERROR):
        for clock.now_s in (LOOK_EVERY_S, 2 * LOOK_EVERY_S, 3 * LOOK_EVERY_S):
            assert name(tokens, "first secret") == "one"
    assert len([r for r in caplog.records if "the tokens read before stay" in r.getMessage()]) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[[tokens", "tokens.toml: "),
        ('[[tokens]]\nname = "a"', r"missing required field `sha256` - at `\$.tokens\[0\]`"),
        (entry("", "s"), r"length >= 1 - at `\$.tokens\[0\].name`"),
        (entry("a", "s").replace("predict", "everything"), "Invalid enum value 'everything'"),
        (entry("a", "s").replace('"predict"', ""), "length >= 1"),
        (entry("a", "s", "secret = 1"), "unknown field `secret`"),
        (entry("a", "s", "expires = 2030-01-01T00:00:00"), "Expected `datetime` with a timezone"),
        ('[[tokens]]\nname = "a"\nsha256 = "ABC"\npermissions = ["admin"]', "matching regex"),
        (entry("a", "s") + entry("a", "t"), "name 'a' is there twice, wanted once"),
        (entry("a", "s") + entry("b", "s"), "sha256 '.*' is there twice, wanted once"),
        ("\xff", "tokens.toml: "),
    ],
)
def test_a_file_that_is_wrong_from_the_start_is_refused(text: str, wanted: str, path: Path) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=wanted):
        TokenFile(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.toml cannot be read \(No such file or directory\)"):
        TokenFile(tmp_path / "none.toml")
