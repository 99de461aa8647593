"""Tensors are read exactly or refused, and what is written is read again."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ServingError
from stream_app.serving import tensors
from stream_app.serving.tensors import DTYPES, Tensor
from stream_app.wire import open_inference_pb2 as pb

FITTING = [name for name in DTYPES if name != "FP16"]
"""Datatypes with typed contents."""


def said(datatype: str, *shape: int) -> tensors.Declared:
    return tensors.declared("x", datatype, shape)


def refused(text: str) -> Any:
    return pytest.raises(ServingError, match=text)


@pytest.mark.parametrize("datatype", DTYPES)
def test_raw_numbers_are_read_without_a_copy(datatype: str) -> None:
    raw = np.array([0, 1, 1], DTYPES[datatype]).tobytes()
    found = tensors.from_raw(said(datatype, 3), raw)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [0, 1, 1]
    assert not found.flags.owndata
    assert tensors.to_raw(Tensor("x", datatype, (3,), found)) == raw


@given(st.lists(st.binary(max_size=9)))
def test_raw_bytes_come_back(parts: list[bytes]) -> None:
    raw = tensors.to_raw(Tensor("x", "BYTES", (len(parts),), parts))
    assert tensors.from_raw(said("BYTES", len(parts)), raw) == parts


@given(st.sampled_from(["BYTES", *DTYPES]), st.lists(st.integers(-1, 5), max_size=3), st.binary(max_size=40))
def test_raw_contents_are_read_or_refused(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        what = tensors.declared("x", datatype, shape)
        found = tensors.from_raw(what, raw)
    except ServingError:
        return
    assert len(found) == what.elements


@pytest.mark.parametrize("datatype", FITTING)
def test_typed_numbers(datatype: str) -> None:
    contents = pb.InferTensorContents(**{tensors._CONTENTS[datatype]: [0, 1, 1]})
    found = tensors.from_contents(said(datatype, 3, 1), contents)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [0, 1, 1]


def test_typed_bytes() -> None:
    assert tensors.from_contents(said("BYTES", 2), pb.InferTensorContents(bytes_contents=[b"a", b""])) == [b"a", b""]


@pytest.mark.parametrize(
    ("data", "shape", "found"),
    [
        ([1, 2.5, None, 4], (2, 2), [1.0, 2.5, np.nan, 4.0]),
        ([[1, 2], [3, 4]], (2, 2), [1.0, 2.0, 3.0, 4.0]),
        ([[[1], [2]]], (1, 2, 1), [1.0, 2.0]),
        ([], (0,), []),
    ],
)
def test_json_numbers_flat_or_nested(data: list[Any], shape: tuple[int, ...], found: list[float]) -> None:
    np.testing.assert_array_equal(tensors.from_json(said("FP32", *shape), data), found)


def test_json_of_other_kinds() -> None:
    assert list(tensors.from_json(said("BYTES", 2, 1), [["a"], [None]])) == ["a", None]
    assert list(tensors.from_json(said("BOOL", 2), [True, False])) == [True, False]
    assert list(tensors.from_json(said("UINT64", 1), [2**64 - 1])) == [2**64 - 1]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "text"),
    [
        ("FP32", (2,), [1], "has 1 elements, wanted 2"),
        ("FP32", (2,), "no", "data is no list"),
        ("FP32", (2, 2), [[1, 2], [3]], "not nested as its shape is, at depth 1"),
        ("FP32", (2,), [[1], [2]], "data has \\[1\\], wanted numbers or null"),
        ("FP32", (1,), ["a"], "data has 'a', wanted numbers or null"),
        ("FP32", (1,), [True], "data has True, wanted numbers or null"),
        ("FP64", (1,), [10**400], "a number that FP64 cannot hold"),
        ("INT8", (1,), [128], "has 128, which INT8 cannot hold"),
        ("INT64", (1,), [2**63], "a number that INT64 cannot hold"),
        ("INT64", (1,), [1.0], "data has 1.0, wanted whole numbers"),
        ("UINT8", (1,), [-1], "cannot hold"),
        ("BYTES", (1,), [1], "data has 1, wanted texts or null"),
        ("BOOL", (1,), [1], "data has 1, wanted true or false"),
    ],
)
def test_json_that_does_not_fit(datatype: str, shape: tuple[int, ...], data: object, text: str) -> None:
    with refused(text) as caught:
        tensors.from_json(said(datatype, *shape), data)
    assert caught.value.status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "text"),
    [
        ("FP32", (2,), {"fp32_contents": [1]}, r"tensor 'x' \(FP32 \[2\]\): has 1 elements, wanted 2"),
        ("FP32", (1,), {"fp64_contents": [1]}, "its contents are in fp64_contents, wanted fp32_contents"),
        ("FP16", (1,), {}, "has no typed contents, wanted raw_input_contents"),
        ("INT8", (1,), {"int_contents": [-129]}, "has -129, which INT8 cannot hold"),
        ("BYTES", (2,), {"bytes_contents": [b"a"]}, "has 1 elements, wanted 2"),
    ],
)
def test_typed_contents_that_do_not_fit(
    datatype: str, shape: tuple[int, ...], contents: dict[str, Any], text: str
) -> None:
    with refused(text):
        tensors.from_contents(said(datatype, *shape), pb.InferTensorContents(**contents))


@pytest.mark.parametrize(
    ("datatype", "raw", "text"),
    [
        ("FP32", b"12345", "has 5 bytes of raw contents, wanted 4"),
        ("BYTES", b"\x05\x00\x00\x00abc", "raw contents end 2 bytes before element 0 does"),
        ("BYTES", b"\x05\x00", "raw contents end within a length"),
        ("BYTES", b"\x00\x00\x00\x00" * 2, "has 2 elements, wanted 1"),
    ],
)
def test_raw_contents_that_do_not_fit(datatype: str, raw: bytes, text: str) -> None:
    with refused(text):
        tensors.from_raw(said(datatype, 1), raw)


def test_what_no_tensor_is() -> None:
    with refused("datatype is 'BF16', wanted one of BOOL, "):
        tensors.declared("x", "BF16", (1,))
    for shape in ((-1,), (1,) * 9):
        with refused("wanted at most 8 numbers of at least 0"):
            tensors.declared("x", "FP32", shape)
