"""Artefacts: durable, named by their content, checked when read; tried on a folder and on an object store."""

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from stream_app.errors import RegistryError, SettingsError
from stream_app.registry import ABANDONED_S, Registry, checked


@pytest.fixture(params=["folder", "store"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """One in a local folder that does not exist yet, one in memory by its URL."""
    if request.param == "folder":
        yield Registry(str(tmp_path / "new" / "registry"))
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield Registry(url)
    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def write_in_turn(registry: Registry, *datas: bytes) -> list[str]:
    """Paths; file systems may tell times apart by no less than a tick of the clock."""
    paths = []
    for data in datas:
        paths.append(registry.write("versions", ".bin", data).path)
        time.sleep(0.01)
    return paths


def overwrite(registry: Registry, path: str, data: bytes) -> None:
    fs, root = fsspec.core.url_to_fs(registry.url)
    fs.pipe_file(f"{root}/{path}", data)


def test_what_is_written_is_read_back(registry: Registry) -> None:
    artefact = registry.write("versions", ".bin", b"parameters")
    digest = hashlib.sha256(b"parameters").hexdigest()
    assert artefact == (f"versions/{digest[:16]}.bin", digest, 10)
    assert artefact.id == digest[:16]
    assert registry.read(artefact.path, artefact.sha256) == b"parameters"
    assert registry.read_named(artefact.path) == (artefact, b"parameters")


def test_no_bytes_are_bytes_too(registry: Registry) -> None:
    artefact = registry.write("versions", ".bin", b"")
    assert registry.read(artefact.path, artefact.sha256) == b""


def test_the_same_content_is_the_same_artefact(registry: Registry) -> None:
    assert registry.write("versions", ".bin", b"x") == registry.write("versions", ".bin", b"x")
    assert len(registry.list("versions")) == 1


@pytest.mark.parametrize("spoilt", [b"param", b"Parameters", b""])
def test_what_is_torn_or_tampered_with_is_not_read(registry: Registry, spoilt: bytes) -> None:
    artefact = registry.write("versions", ".bin", b"parameters")
    overwrite(registry, artefact.path, spoilt)
    got = hashlib.sha256(spoilt).hexdigest()[:16]
    text = rf"{artefact.path}: sha256 is {got}\.\.\., wanted {artefact.id}\.\.\."
    with pytest.raises(RegistryError, match=text):
        registry.read(artefact.path, artefact.sha256)
    with pytest.raises(RegistryError, match=text[:-6]):
        registry.read_named(artefact.path)


def test_what_is_missing_is_not_read(registry: Registry) -> None:
    registry.write("versions", ".bin", b"x")
    for path in ("versions/0.bin", "elsewhere/0.bin", "versions"):
        with pytest.raises(RegistryError, match=f"cannot read {path} from {registry.url}"):
            registry.read(path, "0" * 64)
        with pytest.raises(RegistryError, match=f"cannot read {path} from"):
            registry.read_named(path)


def test_inline_bytes_are_checked_alike() -> None:
    assert checked("p", b"x", hashlib.sha256(b"x").hexdigest()) == b"x"
    with pytest.raises(RegistryError, match=r"p: sha256 is 2d711642b726b044\.\.\., wanted 0{16}\.\.\. \(1 b"):
        checked("p", b"x", "0" * 64)


def test_the_list_is_oldest_first(registry: Registry) -> None:
    assert registry.list("versions") == []
    paths = write_in_turn(registry, *(str(i).encode() for i in range(6)))
    assert registry.list("versions") == paths
    assert paths != sorted(paths), "names must not give the order away"
    assert registry.list("variants") == []


def test_ages_are_counted_from_the_newest(folder: Registry, tmp_path: Path) -> None:
    assert folder.ages("versions") == {}
    old, new = write_in_turn(folder, b"a", b"b")
    at = (tmp_path / new).stat().st_mtime - 30.0
    os.utime(tmp_path / old, (at, at))
    assert folder.ages("versions") == {old: pytest.approx(30.0), new: 0.0}


@pytest.mark.parametrize(
    ("told", "age_s"),
    [
        ([{"mtime": 5.0}, {"mtime": 35.0}], 30.0),
        (
            [{"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}, {"LastModified": datetime(2026, 1, 2, tzinfo=UTC)}],
            86400,
        ),
        ([{"updated": "2026-01-01T00:00:00.5Z"}, {"updated": "2026-01-01T00:00:01Z"}], 0.5),
        ([{}, {}], 0.0),
    ],
    ids=["seconds", "datetime", "text", "nothing"],
)
def test_every_store_tells_the_time_in_its_own_way(
    told: list[dict[str, object]], age_s: float, folder: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store:
        def exists(self, where: str) -> bool:
            return True

        def ls(self, where: str, detail: bool) -> list[dict[str, object]]:
            return [{"type": "file", "name": f"{where}/{n}"} | known for n, known in enumerate(told)]

    monkeypatch.setattr(folder, "_fs", Store())
    assert folder.ages("v") == {"v/0": age_s, "v/1": 0.0}


def test_pieces_are_read_in_the_order_asked_for(registry: Registry) -> None:
    a, b = (registry.write("versions", ".bin", data).path for data in (b"0123456789", b"abc"))
    assert registry.read_ranges([(b, 1, 3), (a, 0, 2), (a, 8, 99), (b, 0, 0)]) == [b"bc", b"01", b"89", b""]
    assert registry.read_ranges([]) == []
    with pytest.raises(RegistryError, match=f"cannot read versions/gone.bin from {registry.url}: "):
        registry.read_ranges([(a, 0, 1), ("versions/gone.bin", 0, 1)])


def test_writing_anew_makes_young(registry: Registry) -> None:
    a, b, _ = write_in_turn(registry, b"a", b"b", b"a")
    assert registry.list("versions") == [b, a]


def test_prune_keeps_the_newest_and_what_is_needed(registry: Registry) -> None:
    paths = write_in_turn(registry, *(str(i).encode() for i in range(6)))
    assert registry.prune("versions", keep=2, always=frozenset(paths[:1])) == 3
    assert registry.list("versions") == [paths[0], *paths[-2:]]
    assert registry.prune("versions", keep=2, always=frozenset(paths[:1])) == 0


@pytest.mark.parametrize(("keep", "left"), [(0, 0), (3, 3), (9, 3)])
def test_prune_keeps_no_more_than_there_are(registry: Registry, keep: int, left: int) -> None:
    write_in_turn(registry, b"a", b"b", b"c")
    assert registry.prune("versions", keep=keep) == 3 - left
    assert len(registry.list("versions")) == left
    assert registry.prune("nothing", keep=keep) == 0


def test_what_another_process_pruned_first_is_no_harm(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_in_turn(registry, b"a", b"b", b"c")
    files = registry._files
    monkeypatch.setattr(registry, "_files", lambda folder: [(f"{folder}/gone.bin", 9.0), *files(folder)])
    registry.prune("versions", keep=1)
    monkeypatch.undo()
    assert registry.list("versions") == paths[-1:]


def test_what_a_dead_writer_left_half_written_is_no_artefact(folder: Registry, tmp_path: Path) -> None:
    kept = folder.write("versions", ".bin", b"x")
    (tmp_path / "versions" / ".0123456789abcdef.bin.77").write_bytes(b"half")
    (tmp_path / "versions" / "subfolder").mkdir()
    assert folder.list("versions") == [kept.path]
    folder.prune("versions", keep=1)
    assert folder.list("versions") == [kept.path]


def test_what_a_dead_writer_left_goes_once_nobody_can_be_writing_it(folder: Registry, tmp_path: Path) -> None:
    old, new = (tmp_path / "versions" / f".0123456789abcdef.bin.{n}" for n in ("old", "new"))
    kept = folder.write("versions", ".bin", b"x")
    for left, age_s in ((old, ABANDONED_S + 1), (new, ABANDONED_S - 1)):
        left.write_bytes(b"half")
        at = (tmp_path / kept.path).stat().st_mtime - age_s
        os.utime(left, (at, at))
    assert folder.prune("versions", keep=1) == 0
    assert (old.exists(), new.exists()) == (False, True)


def test_a_full_disk_leaves_nothing_behind(folder: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RegistryError, match=r"cannot write versions/\w{16}\.bin \(4 bytes\) to .*: .*No space left"):
        folder.write("versions", ".bin", b"data")
    assert list((tmp_path / "versions").iterdir()) == []


def test_the_name_appears_only_when_the_bytes_are_on_disk(folder: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(fd: int) -> None:
        steps.append(f"fsync with {len(folder.list('versions'))} there")
        fsync(fd)

    def seen_replace(self: Path, target: Path) -> Path:
        assert self.read_bytes() == b"data"
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    folder.write("versions", ".bin", b"data")
    assert steps == ["fsync with 0 there", "rename", "fsync with 1 there"]


def test_two_writers_do_not_disturb_each_other(folder: Registry) -> None:
    datas = [bytes([i % 4]) * 200_000 for i in range(24)]  # some the same at the same time
    with ThreadPoolExecutor(6) as pool:
        artefacts = list(pool.map(lambda data: folder.write("versions", ".bin", data), datas))
    assert len(folder.list("versions")) == 4
    for artefact, data in zip(artefacts, datas, strict=True):
        assert folder.read(artefact.path, artefact.sha256) == data


def test_a_file_url_is_a_folder_too(tmp_path: Path) -> None:
    artefact = Registry(tmp_path.as_uri()).write("versions", ".bin", b"x")
    assert (tmp_path / artefact.path).read_bytes() == b"x"
    assert Registry(f"{tmp_path}/").list("versions") == [artefact.path]


def test_a_url_that_nothing_here_can_read_is_refused() -> None:
    with pytest.raises(SettingsError, match="registry 'nosuch://bucket/models': "):
        Registry("nosuch://bucket/models")
