"""Large versions in parts: whole when read, small when little changed, never used torn, never pruned while needed."""

import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from models.snapshot import Arrays, pack, unpack
from models.spec import Categorical, ModelSpec
from stream_app import stored
from stream_app.errors import RegistryError
from stream_app.following import LiveFollower
from stream_app.parts import GRACE_S, PART_BYTES, REUSE_S, SUFFIX, Contents, Part, Parts, cut, joined, ladder
from stream_app.registry import Artefact, Registry
from tests import streams
from tests.line import Line
from tests.stream_app.versions import until

ROWS, ROW = 4096, 16
"""A ring of 256 KB: 16 parts of 256 rows."""


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


@pytest.fixture(params=["folder", "store"])
def registry(request: pytest.FixtureRequest, folder: Registry) -> Iterator[Registry]:
    """One in a local folder, one in memory by its URL."""
    if request.param == "folder":
        yield folder
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield Registry(url)
    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


def ring(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"window.z": rng.normal(size=(ROWS, ROW)).astype(np.float32), "theta": rng.normal(size=300)}


def packed(arrays: Arrays, text: str = "") -> bytes:
    return pack(arrays, {"envelope": text})


def next_of(arrays: Arrays, step: int, rows: int = 20) -> Arrays:
    """The ring with its next rows written over the oldest, and other parameters."""
    changed = {name: array.copy() for name, array in arrays.items()}
    changed["window.z"][np.arange(step * rows, (step + 1) * rows) % ROWS] = step + 1.0
    changed["theta"] += 1.0
    return changed


def line(count: int) -> list[bytes]:
    """Packed versions, each 20 rows after the one before."""
    arrays, found = ring(), []
    for step in range(count):
        arrays = next_of(arrays, step)
        found.append(packed(arrays, f"number {step}"))
    return found


def parts_of(registry: Registry, clock: Clock) -> Parts:
    return Parts(registry, "versions", clock=clock)


def read(registry: Registry, artefact: Artefact, cache: dict[bytes, bytes] | None = None) -> bytes:
    return joined(registry, artefact.path, registry.read(artefact.path, artefact.sha256), cache)


def age(registry: Registry, path: str, seconds: float) -> None:
    """Make a local file older."""
    file = Path(registry.url, path)
    at = file.stat().st_mtime - seconds
    os.utime(file, (at, at))


# Cutting and joining ------------------------------------------------------------------------------------------

DTYPES = st.sampled_from(["bool", "uint8", "int16", "int32", "int64", "float32", "float64"])
SHAPES = st.one_of(
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    st.tuples(st.sampled_from([PART_BYTES // 8, PART_BYTES, 3 * PART_BYTES + 1]), st.integers(1, 2)),
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.dictionaries(st.text("abc.", max_size=4), st.tuples(DTYPES, SHAPES, st.integers(0, 9)), max_size=4))
def test_whatever_is_cut_is_joined_to_the_bit(drawn: dict[str, tuple[str, tuple[int, ...], int]]) -> None:
    arrays: Arrays = {
        name: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
        for name, (dtype, shape, seed) in drawn.items()
    }
    data = pack(arrays, {"spec": "s"})
    cuts = cut(data)
    assert b"".join(data[start:end] for start, end in cuts) == data
    registry = Registry("memory://cut-and-joined")
    written = Parts(registry, "versions").write(data)
    assert read(registry, written) == data
    back, texts = unpack(read(registry, written))
    assert texts == {"spec": "s"}
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].tobytes()) == (array.dtype, array.tobytes())


def test_no_arrays_are_one_part() -> None:
    data = pack({}, {})
    assert cut(data) == [(0, len(data))]


def test_cuts_are_counted_from_where_an_array_begins() -> None:
    z = np.arange(PART_BYTES, dtype=np.float32)
    short, long = pack({"z": z}, {"t": ""}), pack({"z": z, "a": np.zeros(99, np.float32)}, {"t": "x" * 999})

    def pieces(data: bytes) -> set[bytes]:
        return {data[start:end] for start, end in cut(data)}

    assert len(pieces(short) & pieces(long)) == z.nbytes // PART_BYTES


# What is sent -------------------------------------------------------------------------------------------------


def test_only_what_changed_is_written(registry: Registry, clock: Clock) -> None:
    parts = parts_of(registry, clock)
    for number, data in enumerate(line(5)):
        written = parts.write(data)
        assert written.path == f"versions/{written.sha256[:16]}{SUFFIX}"
        assert read(registry, written) == data
        if number:
            assert written.size_bytes < 2.5 * PART_BYTES < len(data) / 6


def test_equal_parts_of_one_version_are_written_once(folder: Registry, clock: Clock) -> None:
    data = packed({"zeros": np.zeros((ROWS, ROW), np.float32)})
    written = parts_of(folder, clock).write(data)
    assert written.size_bytes < 2 * PART_BYTES
    assert read(folder, written) == data


def test_a_writer_refers_to_nothing_that_it_has_not_written_itself_of_late(folder: Registry, clock: Clock) -> None:
    data = line(1)[0]
    parts = parts_of(folder, clock)
    first = parts.write(data)
    clock.now_s += REUSE_S - 1.0
    assert parts.write(data).size_bytes < PART_BYTES
    clock.now_s += 1.0
    assert parts.write(data).size_bytes == first.size_bytes
    clock.now_s -= 3600.0  # set back
    assert parts.write(data).size_bytes == first.size_bytes
    parts.forget()
    assert parts.write(data).size_bytes == first.size_bytes
    assert parts_of(folder, clock).write(data).size_bytes == first.size_bytes


def test_what_took_too_long_to_write_is_written_whole(
    folder: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that was paused: what it refers to may have been removed meanwhile."""
    first, second = line(2)
    parts = parts_of(folder, clock)
    held = parts.write(first)
    write = folder.write

    def slow(where: str, suffix: str, data: bytes) -> Artefact:
        clock.now_s += REUSE_S
        return write(where, suffix, data)

    monkeypatch.setattr(folder, "write", slow)
    written = parts.write(second)
    Path(folder.url, held.path).unlink()
    assert read(folder, written) == second


def test_a_write_that_failed_is_referred_to_by_none(
    folder: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = line(3)
    parts = parts_of(folder, clock)
    parts.write(first)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(RegistryError, match=r"cannot write versions/\w{16}\.parts .*No space left"):
            parts.write(second)
    assert read(folder, parts.write(third)) == third


def _full(fd: int) -> None:
    raise OSError(28, "No space left on device")


# What is read -------------------------------------------------------------------------------------------------


def two_versions(registry: Registry, clock: Clock) -> tuple[Artefact, Artefact, list[bytes]]:
    """The second refers to the first."""
    datas, parts = line(2), parts_of(registry, clock)
    return parts.write(datas[0]), parts.write(datas[1]), datas


def test_a_reader_with_the_version_before_fetches_nothing_but_the_new_file(folder: Registry, clock: Clock) -> None:
    first, second, datas = two_versions(folder, clock)
    cache: dict[bytes, bytes] = {}
    assert read(folder, first, cache) == datas[0]
    Path(folder.url, first.path).unlink()
    assert read(folder, second, cache) == datas[1]
    assert sum(map(len, cache.values())) == len(datas[1])
    with pytest.raises(RegistryError, match=f"cannot read {first.path} from"):
        read(folder, second)


def test_a_torn_part_is_never_used(registry: Registry, clock: Clock) -> None:
    first, second, datas = two_versions(registry, clock)
    fs, root = fsspec.core.url_to_fs(registry.url)
    whole = fs.cat_file(f"{root}/{first.path}")
    at = whole.index(datas[1][-100:])
    spoilt = whole[: at + 50] + bytes([whole[at + 50] ^ 1]) + whole[at + 51 :]
    cache: dict[bytes, bytes] = {}
    for torn in (spoilt, whole[:at], b""):
        fs.pipe_file(f"{root}/{first.path}", torn)
        wanted = rf"^{first.path}: part at \d+ \(\d+ bytes\) of {second.path}: sha256 is \w+\.\.\., wanted \w+\.\.\.$"
        with pytest.raises(RegistryError, match=wanted):
            read(registry, second, cache)
        assert cache == {}
    fs.pipe_file(f"{root}/{first.path}", whole)
    assert read(registry, second, cache) == datas[1]


def test_a_torn_list_is_refused_before_it_is_looked_at(folder: Registry, clock: Clock) -> None:
    _, second, _ = two_versions(folder, clock)
    file = Path(folder.url, second.path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RegistryError, match=f"^{second.path}: sha256 is "):
        read(folder, second)


def test_lists_that_no_writer_here_made_are_refused() -> None:
    registry = Registry("memory://strangers")
    far = msgspec.msgpack.encode(Contents(("",), (Part(b"", 1, 0, 5),)))
    for file, problem in (
        (b"", "holds no list of parts: "),
        (b"short", "holds no list of parts: "),
        (b"x" * 99, "holds no list of parts: "),
        (far + len(far).to_bytes(8, "little"), "a part is in holder 1, wanted 0 to 0$"),
    ):
        with pytest.raises(RegistryError, match=rf"^v{SUFFIX}: {problem}"):
            joined(registry, f"v{SUFFIX}", file)
    assert joined(registry, "v.safetensors", b"whole") == b"whole"


# What is kept -------------------------------------------------------------------------------------------------


def test_what_a_kept_version_needs_stays_however_old(folder: Registry, clock: Clock) -> None:
    datas, parts = line(60), parts_of(folder, clock)
    written = [parts.write(data) for data in datas]
    for number, artefact in enumerate(written):
        age(folder, artefact.path, 10_000.0 - number)
    parts.write(packed(ring(9)))  # the newest: others are old beside it
    needed = _holders(folder, written[-1])
    assert 1 < len(needed) < len(written) / 2

    parts_of(folder, clock).prune(keep=2)  # of a process that wrote none of them

    assert read(folder, written[-1]) == datas[-1]
    assert set(folder.list("versions")[:-2]) == needed


def _holders(registry: Registry, artefact: Artefact) -> set[str]:
    file = registry.read(artefact.path, artefact.sha256)
    start = len(file) - 8 - int.from_bytes(file[-8:], "little")
    return {h for h in msgspec.msgpack.decode(file[start:-8], type=Contents).holders if h}


def test_what_nobody_needs_goes_once_it_is_old(folder: Registry, clock: Clock) -> None:
    parts = parts_of(folder, clock)
    for seed in range(4):
        old = parts.write(packed(ring(seed)))
        age(folder, old.path, GRACE_S + 100.0 - seed)
    young = parts.write(packed(ring(7)))
    newest = parts.write(packed(ring(8)))
    age(folder, young.path, GRACE_S - 1.0)
    first = folder.list("versions")[0]  # the oldest of 128 to 256 s stays
    assert parts.prune(keep=1, always=frozenset([old.path])) == 2
    assert folder.list("versions") == [first, old.path, young.path, newest.path]


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.floats(0.2, 1.0), st.integers(200, 3_000))
def test_of_old_versions_ever_fewer_stay_but_one_near_any_age(every_s: float, count: int) -> None:
    made = list[float]()
    for n in range(count):
        now_s = n * every_s
        ages_s = {str(at_s): now_s - at_s for at_s in made}
        kept = ladder(ages_s)
        made = [at_s for at_s in made if str(at_s) in kept or now_s - at_s < 1.0] + [now_s]
    ages = [now_s - at_s for at_s in made]
    assert len(ages) < 20
    for wanted_s in (2.0, 10.0, 30.0, now_s / 2):
        assert any(wanted_s / 4 <= age_s <= 4 * wanted_s for age_s in ages)


def test_the_head_keeps_what_it_needs_though_many_came_after_it(folder: Registry, clock: Clock) -> None:
    first, head, datas = two_versions(folder, clock)
    for artefact in (first, head):
        age(folder, artefact.path, 10_000.0)
    rival = parts_of(folder, clock)
    for seed in range(3):
        rival.write(packed(ring(seed)))
    rival.prune(keep=1, always=frozenset([head.path]))
    assert read(folder, head) == datas[1]


def test_a_rival_that_prunes_while_a_version_is_written_takes_nothing_from_it(
    folder: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = line(2)
    parts, rival = parts_of(folder, clock), parts_of(folder, clock)
    held = parts.write(first)
    age(folder, held.path, GRACE_S - 1.0)
    write = folder.write

    def late(where: str, suffix: str, data: bytes) -> Artefact:
        monkeypatch.undo()
        for seed in range(3):  # by now nothing that can be seen needs ``held``
            rival.write(packed(ring(seed)))
        rival.prune(keep=1)
        return write(where, suffix, data)

    monkeypatch.setattr(folder, "write", late)
    written = parts.write(second)
    assert read(folder, written) == second
    assert _holders(folder, written) == {held.path}


def test_who_prunes_late_by_an_old_list_takes_nothing_that_came_since(
    folder: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was paused between looking and deleting."""
    datas, parts, rival = line(3), parts_of(folder, clock), Registry(folder.url)
    parts.write(packed(ring(5)))
    files = rival._files
    written: list[Artefact] = []

    def looked_long_ago(where: str) -> Sequence[tuple[str, float]]:
        found = files(where)
        written.extend(map(parts.write, datas))
        return found

    monkeypatch.setattr(rival, "_files", looked_long_ago)
    parts_of(rival, clock).prune(keep=1)
    assert [read(folder, artefact) for artefact in written] == datas


def test_who_cannot_read_what_a_version_needs_removes_nothing(folder: Registry, clock: Clock) -> None:
    first, second, datas = two_versions(folder, clock)
    for artefact in (first, second):
        age(folder, artefact.path, 10_000.0)
    newest = parts_of(folder, clock).write(packed(ring(5)))
    file = Path(folder.url, second.path)
    sound = file.read_bytes()
    file.write_bytes(b"torn")
    age(folder, second.path, 10_000.0)
    stranger = parts_of(folder, clock)
    assert stranger.prune(keep=2) == 0
    assert len(folder.list("versions")) == 3
    file.write_bytes(sound)
    assert stranger.prune(keep=2) == 0
    assert read(folder, second) == datas[1]
    assert newest.path in folder.list("versions")


def test_whole_versions_are_pruned_by_number_alone(folder: Registry, clock: Clock) -> None:
    head, *_ = [folder.write("versions", ".safetensors", bytes([i])).path for i in range(5)]
    age(folder, head, 1.0)
    assert parts_of(folder, clock).prune(keep=2, always=frozenset([head])) == 2
    assert len(folder.list("versions")) == 3
    assert head in folder.list("versions")


def test_two_writers_at_once(folder: Registry, clock: Clock) -> None:
    datas = line(12)

    def publish(parts: Parts) -> list[Artefact]:
        found = []
        for data in datas:
            found.append(parts.write(data))
            parts.prune(keep=3)
        return found

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(publish, (parts_of(folder, clock), parts_of(folder, clock))):
            assert [read(folder, artefact) for artefact in found] == datas


# End to end ---------------------------------------------------------------------------------------------------


def large(name: str) -> ModelSpec:
    """A network whose embeddings, and what the optimiser knows of them, do not fit into an announcement."""
    replace, spec = msgspec.structs.replace, streams.spec(name)
    wide = {"c": Categorical(size=8192, dim=8)}
    return replace(
        spec,
        features=replace(spec.features, categorical=wide),
        publish=replace(spec.publish, inline_bytes=100_000),
    )


@pytest.fixture
def large_line(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Line]:
    found = Line(embedded, large(app_name), tmp_path)
    yield found
    found.close()


class Watched(Registry):
    """A server's registry; says how often parts of older files were asked for."""

    asked = 0

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        self.asked += 1
        return super().read_ranges(ranges)


def test_large_versions_reach_servers_and_successors_in_parts(large_line: Line) -> None:
    registry, watched = large_line.registry, Watched(large_line.registry.url)
    seeder = large_line.seeder()
    seeded = seeder.seed()
    follower = LiveFollower(large_line.bootstrap_servers, large_line.topics.models, registry=watched)
    follower.start()
    try:
        until(lambda: follower.live is not None)
        streams.produce(large_line.bootstrap_servers, large_line.topics.events, streams.records(300))
        large_line.learn(seeded)
        head, won = large_line.publish(seeder, seeded)
        until(lambda: follower.live is not None and follower.live.envelope == head)
        assert (follower.refused, watched.asked) == (0, 0)
    finally:
        follower.stop()

    assert won
    assert head.artefact.endswith(SUFFIX)
    sent = Path(registry.url, head.artefact).stat().st_size
    assert large_line.spec.publish.inline_bytes < sent < head.size_bytes
    successor = large_line.seeder().seed()
    assert successor.head == head
    assert pack(successor.core.state(), {}) == pack(seeded.core.state(), {})
    found, _ = stored.self_described(registry, head.artefact)
    assert (found.id, found.size_bytes) == (head.id, head.size_bytes)


def test_a_head_with_a_torn_part_gives_way_to_a_version_without(large_line: Line) -> None:
    first = large_line.seeder().seed().head
    seeder = large_line.seeder()
    seeded = seeder.seed()
    streams.produce(large_line.bootstrap_servers, large_line.topics.events, streams.records(100))
    large_line.learn(seeded)
    parent, _ = large_line.publish(seeder, seeded)
    head, _ = large_line.publish(seeder, seeded._replace(head=parent))
    assert _holders(large_line.registry, Artefact(head.artefact, head.sha256, 0)) == {parent.artefact}
    torn = Path(large_line.registry.url, parent.artefact)
    torn.write_bytes(bytes(torn.stat().st_size))

    assert seeder.mend_head()

    again = seeder.seed()
    assert (again.head.epoch, again.head.offsets) == (head.epoch + 1, first.offsets)
    large_line.learn(again)
    mended, won = large_line.publish(seeder, again)
    assert won
    assert mended.ledger == head.ledger
    stored.read_version(mended, large_line.registry)
