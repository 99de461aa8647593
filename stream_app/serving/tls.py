"""Certificates: files -> [TLS] -> what gRPC and HTTP servers show, new ones when the files change."""

import logging
import os
import ssl
from pathlib import Path
from typing import NamedTuple

from stream_app.errors import SettingsError
from stream_app.serving.security import Security

_log = logging.getLogger(__name__)


class Pems(NamedTuple):
    """The files' contents."""

    key: bytes
    chain: bytes
    client_ca: bytes | None


def of(security: Security) -> "TLS | None":
    """None without a certificate.

    Raises:
        SettingsError: some of what TLS needs is missing, or wrong.
    """
    if security.certificate is None and security.key is None and security.client_ca is None:
        return None
    if security.certificate is None or security.key is None:
        raise SettingsError("TLS: a certificate and its key belong together, wanted both")
    return TLS(Path(security.certificate), Path(security.key), Path(security.client_ca) if security.client_ca else None)


class TLS:
    """A certificate and its key; with ``client_ca``, callers must have a certificate that it signed.

    Raises:
        SettingsError: a file cannot be read, or they do not fit together.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = [path for path in (chain, key, client_ca) if path is not None]
        self._chain, self._key, self._client_ca = chain, key, client_ca
        self._seen = self._state()
        self.context = _context(chain, key, client_ca)
        """For HTTP; shows new certificates once ``refresh`` has seen them."""
        self.pems = self._read()

    @property
    def certified(self) -> bool:
        """Whether callers must have a certificate."""
        return self._client_ca is not None

    def refresh(self) -> bool:
        """Whether the files have changed and fit together; then ``pems`` and ``context`` are new."""
        if (state := self._state()) == self._seen:
            return False
        self._seen = state
        try:
            _context(self._chain, self._key, self._client_ca)  # half a change breaks no server
            self.pems = self._read()
            self.context.load_cert_chain(self._chain, self._key, password=lambda: "none")
        except (SettingsError, OSError) as error:
            _log.error("%s; the certificate read before stays", error)
            return False
        _log.info("%s: read again", self._chain)
        return True

    def _state(self) -> list[tuple[int, int, int]]:
        try:
            return [(s.st_ino, s.st_mtime_ns, s.st_size) for s in map(os.stat, self._files)]
        except OSError:
            return []

    def _read(self) -> Pems:
        ca = self._client_ca.read_bytes() if self._client_ca else None
        return Pems(self._key.read_bytes(), self._chain.read_bytes(), ca)


def _context(chain: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain, key, password=lambda: "none")  # else OpenSSL asks on the terminal for one
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(map(str, filter(None, (chain, key, client_ca))))
        raise SettingsError(f"TLS: {files}: {error}, wanted a certificate and its key as PEM") from error
    return context
