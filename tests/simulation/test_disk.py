"""What survives a loss of power."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from simulation.disk import Disk, FileSystem, Os, Path
from simulation.loop import Loop, Process


@pytest.fixture
def loop() -> Loop:
    found = Loop()
    found.disk = Disk(random.Random(1), lambda: 0.0)
    return found


def done(loop: Loop, work: Callable[[], Any]) -> Any:
    """What blocking work of a process returns."""
    found = list[Any]()
    process = Process(loop, "one")
    process.call(lambda: found.append(work()))
    assert loop.run(lambda: bool(found), 1e9)
    return found[0]


def written(name: str, *, synced: bool, folder_synced: bool) -> bool:
    temporary = Path("/r/v", f".{name}")
    with temporary.open("wb") as file:
        file.write(name.encode())
        if synced:
            Os().fsync(file.fileno())
    temporary.replace(Path("/r/v", name))
    if folder_synced:
        Os().fsync(Os().open(Path("/r/v"), 0))
    return True


def test_what_was_synced_survives_whole(loop: Loop) -> None:
    done(loop, lambda: written("a", synced=True, folder_synced=True))
    loop.disk.lose_power()
    assert done(loop, lambda: FileSystem(loop.disk).cat_file("/r/v/a")) == b"a"
    assert loop.disk.archive == {"/r/v/a": b"a"}


def test_a_name_whose_folder_was_not_synced_may_be_lost_and_bytes_that_were_not_may_be_torn(loop: Loop) -> None:
    for i in range(40):
        done(loop, lambda i=i: written(f"name-{i}", synced=i % 2 == 0, folder_synced=False))
    loop.disk.lose_power()
    left = {path.rpartition("/")[2]: file.data for path, file in loop.disk.files.items()}
    assert 0 < len(left) < 40
    assert all(data == name.encode() for name, data in left.items() if int(name[5:]) % 2 == 0)
    assert any(data != name.encode() for name, data in left.items())
    assert loop.disk.archive == {}


def test_a_full_disk_refuses(loop: Loop) -> None:
    loop.disk.full = True

    def work() -> str:
        with pytest.raises(OSError, match="no space left"):
            written("a", synced=True, folder_synced=True)
        return "refused"

    assert done(loop, work) == "refused"
