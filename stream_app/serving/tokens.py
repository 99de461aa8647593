"""Who may call: a file of hashes -> [tokens] -> the entry that a secret belongs to.

    [[tokens]]
    name = "dashboard"
    sha256 = "..."            # of the secret, in hex; the secret itself is nowhere
    permissions = ["predict"]
    expires = 2027-06-30T00:00:00Z   # never, if left out

Hashes are fast ones: secrets must be long and random (32 bytes), not words that somebody can think of.
"""

import datetime
import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from stream_app.errors import SettingsError
from stream_app.serving.permissions import Permission

LOOK_EVERY_S = 1.0
"""How soon a changed file is read again."""

_log = logging.getLogger(__name__)


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One who may call."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    """For the log and for errors."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    permissions: Annotated[tuple[Permission, ...], msgspec.Meta(min_length=1)]
    expires: Annotated[datetime.datetime, msgspec.Meta(tz=True)] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: tuple[Token, ...] = ()


class TokenFile:
    """The tokens of a file, as it is now: read again when it has changed.

    A file that is gone or wrong changes nothing but the log: to revoke a token take its entry out.

    Args:
        now_s: monotonic.

    Raises:
        SettingsError: it cannot be read, or holds something else.
    """

    def __init__(self, path: Path, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now_s = path, now_s
        self._state = _state(path)
        self._tokens = _read(path)
        self._known: dict[str, Token] = {}  # by secret: those of the file that have come
        self._looked_s = now_s()

    def find(self, secret: str) -> Token | None:
        """Whose it is. Every hash is compared, each in constant time: how long it takes tells nothing.

        A secret that was right is remembered, by a hash that nobody outside knows the key of.
        """
        self._look()
        if (known := self._known.get(secret)) is not None:
            return known
        digest = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = self._known[secret] = token
        return found

    def _look(self) -> None:
        now_s = self._now_s()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        if (state := _state(self._path)) == self._state:
            return
        self._state = state
        try:
            self._tokens = _read(self._path)
            self._known.clear()
            _log.info("%s: read again, %d tokens", self._path, len(self._tokens))
        except SettingsError as error:
            _log.error("%s; the tokens read before stay", error)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file does; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> tuple[Token, ...]:
    try:
        tokens = msgspec.toml.decode(path.read_bytes(), type=_File).tokens
    except OSError as error:
        raise SettingsError(f"tokens: {path} cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise SettingsError(f"tokens: {path}: {error}") from error
    for field in ("name", "sha256"):
        values = [getattr(token, field) for token in tokens]
        for value in values:
            if values.count(value) > 1:
                raise SettingsError(f"tokens: {path}: {field} {value!r} is there twice, wanted once")
    return tokens
