"""A large version sends only what is new in it: bytes -> [cut -> hash] -> new parts, and where the others lie.

A file of parts begins with the parts that are new in it, one after another; behind them stands the list of all
parts of the whole (``Contents``, msgpack), and the list's length (8 bytes, little-endian). The file's name is its
hash, as everywhere in the registry, and the list has the hash of every part: nothing is used unchecked.

No clean-up can take away what a version needs. A writer refers only to files of its own that were begun less
than ``REUSE_S`` before, and gives a version up that took longer than that to write; so all it refers to is
younger than ``GRACE_S`` until its own file can be seen, and from then on that file says what it needs.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import msgspec

from models.snapshot import spans
from stream_app.errors import RegistryError
from stream_app.registry import Artefact, Registry

SUFFIX = ".parts"
PART_BYTES = 16_384
"""Arrays at least this long are cut this often."""
REUSE_S = 20.0
"""How long a writer refers to a file of its own, before it writes again what has not changed."""
GRACE_S = 60.0
"""Files of parts are not removed before, needed or not: twice REUSE_S, and some for clocks."""


class Part(msgspec.Struct, array_like=True, frozen=True):
    """A piece of the whole, and where it lies."""

    sha256: bytes
    holder: int
    """Which of ``Contents.holders`` has it."""
    at: int
    size: int


class Contents(msgspec.Struct, array_like=True, frozen=True):
    """What a version is made of, in order."""

    holders: tuple[str, ...]
    """Files of parts; the first is "", the file that says so."""
    parts: tuple[Part, ...]


class Place(NamedTuple):
    """Where this process wrote a part, and when it began to."""

    holder: str
    at: int
    since_s: float


class Parts:
    """One process's writer of large versions; what a folder keeps is decided here too.

    Args:
        registry: has the folder.
        folder: of versions.
        clock: seconds; only differences count.
    """

    def __init__(self, registry: Registry, folder: str, *, clock: Callable[[], float] = time.time) -> None:
        self._registry, self._folder, self._clock = registry, folder, clock
        self._places: dict[bytes, Place] = {}
        self._holders: dict[str, tuple[str, ...]] = {}

    def write(self, data: bytes) -> Artefact:
        """Make a packed snapshot durable; what is not of the last version written here is in its own file.

        Raises:
            RegistryError: the disk is full, or the store refuses.
        """
        began_s = self._clock()
        lately = {d: p for d, p in self._places.items() if 0.0 <= began_s - p.since_s < REUSE_S}
        file, contents = _file(data, lately)
        artefact = self._registry.write(self._folder, SUFFIX, file)
        if len(contents.holders) > 1 and not 0.0 <= self._clock() - began_s < REUSE_S:
            self.forget()
            return self.write(data)
        self._holders[artefact.path] = contents.holders
        own = {p.sha256: Place(artefact.path, p.at, began_s) for p in contents.parts if p.holder == 0}
        self._places = {p.sha256: lately[p.sha256] for p in contents.parts if p.holder} | own
        return artefact

    def forget(self) -> None:
        """Refer to nothing written so far: some of it was lost, or may have been."""
        self._places = {}

    def prune(self, *, keep: int, always: frozenset[str] = frozenset()) -> int:
        """``Registry.prune``, but files that a kept version needs stay, young ones, and ever fewer of the old ones."""
        return self._registry.prune(self._folder, keep=keep, always=always, spare=self._spared)

    def _spared(self, ages_s: Mapping[str, float], kept: frozenset[str]) -> frozenset[str]:
        old = ladder(ages_s)
        return old | self._needed(ages_s, kept | old)

    def _needed(self, ages_s: Mapping[str, float], kept: frozenset[str]) -> frozenset[str]:
        files = {p: age_s for p, age_s in ages_s.items() if p.endswith(SUFFIX)}
        try:
            self._holders = {p: self._holders_of(p) for p in files if p in kept}
        except RegistryError:  # nobody knows what is needed, so all is; a torn file is not kept for ever
            return frozenset(ages_s)
        young = (p for p, age_s in files.items() if age_s < GRACE_S)
        return frozenset(h for holders in self._holders.values() for h in holders) | frozenset(young)

    def _holders_of(self, path: str) -> tuple[str, ...]:
        known = self._holders.get(path)
        return known or _contents(path, self._registry.read_named(path).data).holders


def ladder(ages_s: Mapping[str, float]) -> frozenset[str]:
    """The oldest file between each power of two of seconds and the next, to roll back to.

    As files grow older there is always one between a quarter of any age and four times that age, if files have come
    at least once a second or so all along.
    """
    oldest: dict[int, str] = {}
    for path, age_s in ages_s.items():
        rung = math.frexp(age_s)[1]  # 2^(rung - 1) <= age_s < 2^rung
        if age_s >= 1.0 and age_s >= ages_s.get(oldest.get(rung, ""), 0.0):
            oldest[rung] = path
    return frozenset(oldest.values())


def cut(data: bytes) -> list[tuple[int, int]]:
    """Where a packed snapshot is cut, each piece [start, end): long arrays by themselves, what lies between as it is.

    Counted from an array's beginning, so that what changes in size before it moves no cut. A ring of rows, of which
    the newest change, has most of its pieces unchanged.
    """
    cuts = {0, len(data)}
    for start, end in spans(data):
        if end - start >= PART_BYTES:
            cuts.update(range(start, end, PART_BYTES), [end])
    return list(pairwise(sorted(cuts)))


def joined(registry: Registry, path: str, file: bytes, cache: dict[bytes, bytes] | None = None) -> bytes:
    """The whole that a version's ``file`` says; of other files than those of parts, the file itself.

    Args:
        path: the file's; its hash has been checked.
        cache: parts of the version read before, by their hash; this version's when it returns.

    Raises:
        RegistryError: a part is missing, torn or tampered with.
    """
    if not path.endswith(SUFFIX):
        return file
    contents = _contents(path, file)
    found = dict(cache or {})
    found |= {p.sha256: file[p.at : p.at + p.size] for p in contents.parts if p.holder == 0}
    found |= _fetched(registry, path, contents, found)
    if cache is not None:
        cache.clear()
        cache.update((p.sha256, found[p.sha256]) for p in contents.parts)
    return b"".join(found[p.sha256] for p in contents.parts)


def _fetched(registry: Registry, path: str, contents: Contents, have: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What lies in other files and is not at hand."""
    missing = [p for p in contents.parts if p.sha256 not in have]
    if not missing:
        return {}
    datas = registry.read_ranges([(contents.holders[p.holder], p.at, p.at + p.size) for p in missing])
    for part, data in zip(missing, datas, strict=True):
        if (got := hashlib.sha256(data).digest()) != part.sha256:
            where = f"{contents.holders[part.holder]}: part at {part.at} ({part.size} bytes) of {path}"
            raise RegistryError(f"{where}: sha256 is {got.hex()[:16]}..., wanted {part.sha256.hex()[:16]}...")
    return {part.sha256: data for part, data in zip(missing, datas, strict=True)}


def _file(data: bytes, lately: Mapping[bytes, Place]) -> tuple[bytes, Contents]:
    """The bytes to write: parts that are nowhere yet, and the list of all."""
    view, body = memoryview(data), bytearray()
    holders, own, parts = {"": 0}, dict[bytes, int](), []
    for start, end in cut(data):
        digest = hashlib.sha256(view[start:end]).digest()
        if place := lately.get(digest):
            parts.append(Part(digest, holders.setdefault(place.holder, len(holders)), place.at, end - start))
            continue
        if digest not in own:
            own[digest] = len(body)
            body += view[start:end]
        parts.append(Part(digest, 0, own[digest], end - start))
    contents = Contents(tuple(holders), tuple(parts))
    listed = msgspec.msgpack.encode(contents)
    return bytes(body) + listed + len(listed).to_bytes(8, "little"), contents


def _contents(path: str, file: bytes) -> Contents:
    start = len(file) - 8 - int.from_bytes(file[-8:], "little")
    try:
        contents = msgspec.msgpack.decode(file[max(start, 0) : -8], type=Contents)
    except ValueError as error:  # msgspec's decode and validation errors
        raise RegistryError(f"{path}: holds no list of parts: {error}") from error
    if strange := [p.holder for p in contents.parts if not 0 <= p.holder < len(contents.holders)]:
        raise RegistryError(f"{path}: a part is in holder {strange[0]}, wanted 0 to {len(contents.holders) - 1}")
    return contents
