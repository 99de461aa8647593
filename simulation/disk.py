"""A disk shared by all hosts, that forgets what was not synced when it loses power: registry -> [disk] -> registry.

A file's bytes survive a loss of power if the file was synced; its name, if its folder was synced after it got it.
What was not may survive or not, and bytes may be torn.
"""

import errno
import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from simulation.loop import current, pause


def _disk() -> "Disk":
    """Of the host that the running process is on."""
    process = current()
    assert process is not None
    disk: Disk = process.loop.disk
    return disk


class _File:
    """An inode."""

    def __init__(self, data: bytes, written_s: float) -> None:
        self.data, self.written_s = data, written_s
        self.synced = b""


class Disk:
    """The files, by path.

    Args:
        rng: decides how long operations take and what is torn.
        wall: seconds.
    """

    def __init__(self, rng: random.Random, wall: Callable[[], float]) -> None:
        self.rng, self.wall = rng, wall
        self.files: dict[str, _File] = {}
        self._safe: dict[str, _File] = {}
        """Names as they would survive."""
        self._dirty: dict[str, None] = {}
        """Folders with names that would not."""
        self.full = False
        self.archive: dict[str, bytes] = {}
        """What was once durable under a path, whatever happened to it later."""

    def step(self) -> None:
        process = current()
        assert process is not None
        process.step()
        chance = self.rng.random()
        if chance < 0.6:
            pause(self.rng.random() * (0.003 if chance > 0.02 else 0.2))

    def rename(self, old: str, new: str) -> None:
        self.files[new] = self.files.pop(old)
        self._dirty[_folder(new)] = None

    def sync(self, path: str) -> None:
        file = self.files[path]
        file.synced = file.data

    def sync_folder(self, folder: str) -> None:
        self._safe = {p: f for p, f in self._safe.items() if _folder(p) != folder}
        for path, file in self.files.items():
            if _folder(path) == folder:
                self._safe[path] = file
                if file.synced == file.data:
                    self.archive[path] = file.data
        self._dirty.pop(folder, None)

    def lose_power(self) -> None:
        """Everything that was not synced may be gone."""
        for path, file in self.files.items():
            if self._safe.get(path) is not file and self.rng.random() < 0.3:
                self._safe[path] = file
        self.files = dict(self._safe)
        for file in self.files.values():
            if file.data != file.synced:
                file.data = file.synced = file.data[: self.rng.randint(0, len(file.data))]
        self._dirty = {}

    def change(self, path: str, data: bytes) -> None:
        """Behind everybody's back."""
        self.files[path].data = data

    def remove(self, path: str) -> None:
        """As if never written."""
        del self.files[path]
        self._safe.pop(path, None)

    def put(self, path: str, data: bytes) -> None:
        """As if it had always been there."""
        file = self.files[path] = self._safe[path] = _File(data, self.wall())
        file.synced = data

    def get(self, path: str) -> bytes | None:
        """As it is now; no time passes."""
        file = self.files.get(path)
        return file.data if file else None

    def durable(self, path: str, sha256: str) -> bytes | None:
        """What was once durable there, if it has that hash."""
        data = self.archive.get(path)
        return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


class FileSystem(LocalFileSystem):  # type: ignore[misc]
    """The disk as fsspec shows it. Not cached: each simulation has its own."""

    cachable = False

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk

    def exists(self, path: str, **_: Any) -> bool:
        return any(p.startswith(f"{path}/") for p in self._disk.files)

    def ls(self, path: str, detail: bool = False, **_: Any) -> list[Any]:
        self._disk.step()
        return [
            {"name": p, "type": "file", "mtime": f.written_s} for p, f in self._disk.files.items() if _folder(p) == path
        ]

    def cat_file(self, path: str, **_: Any) -> bytes:
        self._disk.step()
        return self._data(path)

    def cat_ranges(self, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int], **_: Any) -> list[Any]:
        self._disk.step()
        found: list[Any] = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            try:
                found.append(self._data(path)[start:end])
            except FileNotFoundError as error:
                found.append(error)
        return found

    def _data(self, path: str) -> bytes:
        if path not in self._disk.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._disk.files[path].data

    def rm_file(self, path: str) -> None:
        self._disk.step()
        if path not in self._disk.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        self._disk.remove(path)


class Path:
    """What the registry asks of ``pathlib.Path``."""

    def __init__(self, *parts: str) -> None:
        self._path = PurePosixPath(*parts)
        self.disk = _disk()

    def __str__(self) -> str:
        return str(self._path)

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def parent(self) -> "Path":
        return Path(str(self._path.parent))

    def with_name(self, name: str) -> "Path":
        return Path(str(self._path.with_name(name)))

    def mkdir(self, **_: Any) -> None:
        """Folders are there as soon as a file is in them."""

    def open(self, mode: str) -> "_Open":
        assert mode == "wb"
        return _Open(self.disk, str(self))

    def replace(self, target: "Path") -> None:
        self.disk.step()
        self.disk.rename(str(self), str(target))

    def unlink(self, **_: Any) -> None:
        self.disk.step()
        self.disk.files.pop(str(self), None)


class _Open:
    """A file that is being written."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk, self._path = disk, path
        disk.step()
        disk.files[path] = _File(b"", disk.wall())

    def __enter__(self) -> "_Open":
        return self

    def __exit__(self, *_: object) -> None:
        """Bytes are where ``write`` put them."""

    def write(self, data: bytes) -> None:
        self._disk.files[self._path].data = data[: self._disk.rng.randint(0, len(data))]
        self._disk.step()
        if self._disk.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._disk.files[self._path].data = data

    def flush(self) -> None:
        """Bytes are where ``write`` put them."""

    def fileno(self) -> str:
        return self._path


class Os:
    """What the registry asks of ``os``."""

    O_RDONLY = 0

    def open(self, path: Any, flags: int) -> str:
        return str(path)

    def fsync(self, what: str) -> None:
        disk = _disk()
        disk.step()
        if what in disk.files:
            disk.sync(what)
        else:
            disk.sync_folder(what)

    def close(self, what: str) -> None:
        """Nothing is held."""
