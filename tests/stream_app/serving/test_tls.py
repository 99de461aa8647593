"""Certificates are read, refused, and read again."""

import logging
from pathlib import Path

import pytest
import trustme

from stream_app.errors import SettingsError
from stream_app.serving import tls
from stream_app.serving.security import Security
from tests.stream_app.serving.certificates import Files, issue


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> Files:
    return issue(ca, tmp_path)


def test_without_files_there_is_none() -> None:
    assert tls.of(Security()) is None


def test_certificate_and_key_belong_together(files: Files, ca: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = issue(ca, tmp_path / "other")
    for security in (
        Security(certificate=str(files.chain)),
        Security(key=str(files.key)),
        Security(client_ca=str(files.ca)),
        Security(certificate=str(files.chain), key=str(other.key)),
        Security(certificate=str(files.chain), key=str(tmp_path / "none")),
        Security(certificate=str(files.chain), key=str(files.key), client_ca=str(files.key)),
    ):
        with pytest.raises(SettingsError, match=r"TLS: .*wanted"):
            tls.of(security)


def test_only_a_client_ca_wants_callers_certified(files: Files) -> None:
    assert not tls.TLS(files.chain, files.key).certified
    assert tls.TLS(files.chain, files.key, files.ca).certified


def test_a_new_certificate_is_shown(files: Files, ca: trustme.CA, tmp_path: Path) -> None:
    shown = tls.TLS(files.chain, files.key)
    assert not shown.refresh()
    issue(ca, tmp_path)
    assert shown.refresh()
    assert shown.pems.chain == files.chain.read_bytes()
    assert not shown.refresh()


def test_half_a_change_is_not_shown(files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shown = tls.TLS(files.chain, files.key)
    before = shown.pems
    files.key.write_text("no key")
    with caplog.at_level(logging.ERROR):
        assert not shown.refresh()
    assert "the certificate read before stays" in caplog.text
    assert shown.pems == before
    files.key.unlink()
    assert not shown.refresh()
    files.key.write_bytes(before.key)
    assert shown.refresh()
