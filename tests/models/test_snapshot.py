"""Arrays and texts at rest."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.snapshot import SnapshotError, pack, prefixed, spans, under, unpack

ARRAYS = {
    "b": np.array([[1.5, np.nan], [-np.inf, 0.0]], np.float32),
    "a": np.arange(3, dtype=np.int64),
    "a.long": np.array([np.pi]),
    "bytes": np.frombuffer(b"\x00\xff", np.uint8),
    "counts": np.array([65535], np.uint16),
    "none": np.zeros((0, 4), np.float32),
}
TEXTS = {"spec": '{"name": "é\\n"}', "envelope": "", "z": "1", "y": "2"}


def test_what_is_packed_is_unpacked_to_the_bit() -> None:
    arrays, texts = unpack(pack(ARRAYS, TEXTS))
    assert texts == TEXTS
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes()


def test_nothing_can_be_packed_too() -> None:
    assert unpack(pack({}, {})) == ({}, {})


def test_views_are_packed_as_what_they_show() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    arrays, _ = unpack(pack({"t": grid.T, "s": grid[:, ::2]}, {}))
    assert np.array_equal(arrays["t"], grid.T)
    assert np.array_equal(arrays["s"], grid[:, ::2])


def test_a_number_comes_back_as_a_vector_of_one() -> None:
    assert unpack(pack({"step": np.array(3.0, np.float32)}, {}))[0]["step"].tolist() == [3.0]


def test_the_same_content_gives_the_same_bytes_whatever_its_order() -> None:
    backwards = pack(dict(reversed(ARRAYS.items())), dict(reversed(TEXTS.items())))
    assert {pack(ARRAYS, TEXTS) for _ in range(20)} == {backwards}


def test_the_same_content_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib, numpy as np; from models.snapshot import pack;"
        "print(hashlib.sha256(pack({'b': np.ones(3), 'a': np.zeros(2)}, dict(zip('vwxyz', '12345')))).hexdigest())"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1


def test_tensors_are_aligned() -> None:
    data = pack(ARRAYS, TEXTS)
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0


@pytest.mark.parametrize("cut", [0, 7, 8, 40, -1])
def test_torn_bytes_are_refused(cut: int) -> None:
    data = pack(ARRAYS, TEXTS)
    with pytest.raises(SnapshotError, match=r"not a snapshot \(\d+ bytes\): "):
        unpack(data[:cut])


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=64))
def test_rubbish_is_refused(data: bytes) -> None:
    for rubbish in (data, len(data).to_bytes(8, "little") + data):
        with pytest.raises(SnapshotError, match="not a snapshot"):
            unpack(rubbish + b"!")


def test_arrays_are_found_in_the_packed_bytes() -> None:
    data = pack(ARRAYS, TEXTS)
    found = spans(data)
    assert sorted(data[start:end] for start, end in found) == sorted(a.tobytes() for a in ARRAYS.values())
    assert found == sorted(found)
    assert found[-1][1] == len(data)
    assert spans(pack({}, {})) == []


@pytest.mark.parametrize(
    "data", [b"", b"torn", (5).to_bytes(8, "little") + b"[1,2]", (9).to_bytes(8, "little") + b'{"a": {}}']
)
def test_there_are_no_arrays_in_rubbish(data: bytes) -> None:
    with pytest.raises(SnapshotError, match=rf"not a snapshot \({len(data)} bytes\): "):
        spans(data)


def test_prefixes_come_and_go() -> None:
    arrays = {"a": np.zeros(1), "a.b": np.ones(1)}
    assert under("x", prefixed("x", arrays) | {"xy.a": np.zeros(2), "x": np.zeros(3)}) == arrays
