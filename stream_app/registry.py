"""Where artefacts live: snapshot -> [registry] -> announce; read back, checked, by all who follow the log."""

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import fsspec.implementations.local

from stream_app import failpoints
from stream_app.errors import RegistryError, SettingsError

ABANDONED_S = 600.0
"""A temporary file that old has no writer any more."""


class Artefact(NamedTuple):
    """A durable, immutable file of the registry."""

    path: str
    """Relative to the registry, such as versions/0123456789abcdef.safetensors."""
    sha256: str
    size_bytes: int

    @property
    def id(self) -> str:
        return self.sha256[:16]


class Found(NamedTuple):
    """An artefact that vouches for itself: its name begins with its hash."""

    artefact: Artefact
    data: bytes


class Registry:
    """A folder of artefacts, named by their content.

    Args:
        url: a local path, or any fsspec URL.

    Raises:
        SettingsError: nothing here can read such a URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs: Any
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:  # an unknown scheme, or its package is not installed
            raise SettingsError(f"registry {url!r}: {error}") from error
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, fsspec.implementations.local.LocalFileSystem)

    def write(self, folder: str, suffix: str, data: bytes) -> Artefact:
        """Make ``data`` durable as ``folder/<id><suffix>``; only then does it return.

        Raises:
            RegistryError: the disk is full, or the store refuses.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = f"{folder}/{digest[:16]}{suffix}"
        try:
            if self._local:
                _write_local(Path(self._root, path), data)
            else:
                self._fs.pipe_file(f"{self._root}/{path}", data)
        except OSError as error:
            raise RegistryError(f"cannot write {path} ({len(data)} bytes) to {self.url}: {error}") from error
        return Artefact(path, digest, len(data))

    def read(self, path: str, sha256: str) -> bytes:
        """Read an artefact and check its hash before anyone parses it.

        Raises:
            RegistryError: it is missing, torn or tampered with.
        """
        return checked(path, self._read(path), sha256)

    def read_named(self, path: str) -> Found:
        """Read an artefact of which only the name is known, and check the hash in its name.

        Raises:
            RegistryError: it is missing, torn or tampered with.
        """
        data = self._read(path)
        digest = hashlib.sha256(data).hexdigest()
        name = path.rsplit("/", 1)[-1]
        if not name.startswith(digest[:16]):
            raise RegistryError(f"{path}: sha256 is {digest[:16]}..., wanted {name[:16]}...")
        return Found(Artefact(path, digest, len(data)), data)

    def _read(self, path: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(f"{self._root}/{path}")
        except OSError as error:
            raise RegistryError(f"cannot read {path} from {self.url}: {error}") from error
        return data

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Pieces of files, each [start, end) of a path; at once where the store can. Nothing is checked.

        Raises:
            RegistryError: a file is missing. One that is too short gives a short piece.
        """
        paths = [f"{self._root}/{path}" for path, _, _ in ranges]
        found = self._fs.cat_ranges(paths, [start for _, start, _ in ranges], [end for _, _, end in ranges])
        for (path, _, _), data in zip(ranges, found, strict=True):
            if isinstance(data, Exception):
                raise RegistryError(f"cannot read {path} from {self.url}: {data}") from data
        return list(found)

    def list(self, folder: str) -> list[str]:
        """Paths in ``folder``, oldest first."""
        return list(self.ages(folder))

    def ages(self, folder: str) -> dict[str, float]:
        """Paths in ``folder``, oldest first, and how many seconds older than the newest each is by the store's clock.

        All are of the same age in a store that does not tell.
        """
        return {path: age_s for path, age_s in self._files(folder) if not _temporary(path)}

    def _files(self, folder: str) -> Sequence[tuple[str, float]]:
        where = f"{self._root}/{folder}"
        if not self._fs.exists(where):
            return []
        files = [f for f in self._fs.ls(where, detail=True) if f["type"] == "file"]
        found = sorted((_written_s(f), str(f["name"]).rsplit("/", 1)[-1]) for f in files)
        return [(f"{folder}/{name}", found[-1][0] - written_s) for written_s, name in found]

    def prune(
        self,
        folder: str,
        *,
        keep: int,
        always: frozenset[str] = frozenset(),
        spare: Callable[[Mapping[str, float], frozenset[str]], frozenset[str]] = lambda ages_s, kept: frozenset(),
    ) -> int:
        """Delete all but the newest ``keep`` files of ``folder`` and those in ``always``, and what dead writers left.

        Args:
            spare: told all ages and what is kept so far, says what else must be. Only what it was told of is deleted.

        Returns:
            How many artefacts that were.
        """
        files = self._files(folder)
        ages_s = {path: age_s for path, age_s in files if not _temporary(path)}
        kept = always | frozenset([*ages_s][-keep:] if keep else [])
        kept |= spare(ages_s, kept)
        old = [path for path in ages_s if path not in kept]
        for path in [*old, *(p for p, age_s in files if _temporary(p) and age_s > ABANDONED_S)]:
            try:
                self._fs.rm_file(f"{self._root}/{path}")
            except FileNotFoundError:
                pass  # another process pruned it just now
        return len(old)


def _temporary(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(".")


def _written_s(file: dict[str, Any]) -> float:
    """When the file was last written, in seconds; fsspec's file systems differ in what they call it and say it as."""
    known = (file.get(k) for k in ("mtime", "LastModified", "last_modified", "updated", "created"))
    at = next((t for t in known if t is not None), 0.0)
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    return at.timestamp() if isinstance(at, datetime) else float(at)


def checked(path: str, data: bytes, sha256: str) -> bytes:
    """``data`` itself if its hash is as announced.

    Raises:
        RegistryError: it is not.
    """
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise RegistryError(f"{path}: sha256 is {got[:16]}..., wanted {sha256[:16]}... ({len(data)} bytes)")
    return data


def _write_local(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder: there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: in containers that share a folder it is 1 everywhere.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            failpoints.reach("writing")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        failpoints.reach("renamed")
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk must not be kept full
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
