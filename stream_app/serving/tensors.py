"""Tensors of the Open Inference Protocol: bytes, typed contents or JSON -> [tensors] -> arrays and lists, and back.

Numbers become arrays that look into the bytes they came in; BYTES become lists of bytes, texts or None.
"""

import math
import struct
from collections.abc import Mapping, Sequence, Sized
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import ServingError
from stream_app.wire import open_inference_pb2 as pb

DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Of all datatypes but BYTES, and BF16, which numpy lacks."""
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_MOST_DIMENSIONS = 8
_LENGTH = struct.Struct("<I")

Numbers = NDArray[Any]
Texts = Sequence[bytes | str | None]
Parameter = bool | int | float | str
T = TypeVar("T", bound=Sized)


class Declared(NamedTuple):
    """What a tensor says of itself."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"tensor {self.name!r} ({self.datatype} {list(self.shape)})"


class Tensor(NamedTuple):
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Numbers | Texts
    """Flat; an array, or for BYTES a list."""
    parameters: Mapping[str, Parameter] = {}


def declared(name: str, datatype: str, shape: Sequence[int]) -> Declared:
    """Raises ServingError: INVALID_ARGUMENT: no such datatype, or no shape."""
    if datatype != "BYTES" and datatype not in DTYPES:
        raise _wrong(f"tensor {name!r}: datatype is {datatype!r}, wanted one of {', '.join(DTYPES)}, BYTES")
    if len(shape) > _MOST_DIMENSIONS or any(n < 0 for n in shape):
        wanted = f"at most {_MOST_DIMENSIONS} numbers of at least 0"
        raise _wrong(f"tensor {name!r}: shape is {list(shape)}, wanted {wanted}")
    return Declared(name, datatype, tuple(shape))


def from_raw(said: Declared, raw: bytes | memoryview) -> Numbers | Texts:
    """Elements of raw contents; numbers are not copied.

    Raises:
        ServingError: INVALID_ARGUMENT: there are more or fewer than the shape says.
    """
    if said.datatype == "BYTES":
        return _counted(said, _split(said, bytes(raw)))
    dtype = DTYPES[said.datatype]
    if len(raw) != said.elements * dtype.itemsize:
        wanted = f"{said.elements * dtype.itemsize}"
        raise _wrong(f"{said}: has {len(raw)} bytes of raw contents, wanted {wanted}")
    return np.frombuffer(raw, dtype)


def _split(said: Declared, raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH.size
        if start > len(raw):
            raise _wrong(f"{said}: raw contents end within a length, wanted 4 bytes of it")
        at = start + _LENGTH.unpack_from(raw, at)[0]
        if at > len(raw):
            raise _wrong(f"{said}: raw contents end {at - len(raw)} bytes before element {len(found)} does")
        found.append(raw[start:at])
    return found


def from_contents(said: Declared, contents: pb.InferTensorContents) -> Numbers | Texts:
    """Elements of typed contents.

    Raises:
        ServingError: INVALID_ARGUMENT: there are more or fewer than the shape says, or in another field.
    """
    field = _CONTENTS.get(said.datatype)
    if field is None:
        raise _wrong(f"{said}: has no typed contents, wanted raw_input_contents")
    for other, _ in contents.ListFields():
        if other.name != field:
            raise _wrong(f"{said}: its contents are in {other.name}, wanted {field}")
    values = getattr(contents, field)
    if said.datatype == "BYTES":
        return _counted(said, list(values))
    return _counted(said, _within(said, np.array(values, _widest(said))))


def from_json(said: Declared, data: object) -> Numbers | Texts:
    """Elements of JSON: a list, flat or nested as the shape is; null is NaN, or a missing text.

    Raises:
        ServingError: INVALID_ARGUMENT: another shape, or elements of another type.
    """
    if not isinstance(data, list):
        raise _wrong(f"{said}: data is no list")
    flat = _flat(said, data)
    if said.datatype == "BYTES":
        return _counted(said, [_typed(said, v, (str, type(None)), "texts or null") for v in flat])
    if said.datatype == "BOOL":
        return _counted(said, np.array([_typed(said, v, (bool,), "true or false") for v in flat], bool))
    if said.datatype.startswith("FP"):
        numbers = [_typed(said, v, (int, float, type(None)), "numbers or null") for v in flat]
    else:
        numbers = [_typed(said, v, (int,), "whole numbers") for v in flat]
    try:
        return _counted(said, _within(said, np.array(numbers, _widest(said))))
    except OverflowError as error:
        raise _wrong(f"{said}: data has a number that {said.datatype} cannot hold") from error


def _flat(said: Declared, data: list[Any]) -> list[Any]:
    if not data or not isinstance(data[0], list):
        return data
    level = [data]
    for depth, size in enumerate(said.shape):
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise _wrong(f"{said}: data is not nested as its shape is, at depth {depth}")
        level = [inner for part in level for inner in part]
    return level


def _typed(said: Declared, value: Any, kinds: tuple[type, ...], wanted: str) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _wrong(f"{said}: data has {_shown(value)}, wanted {wanted}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _widest(said: Declared) -> np.dtype[Any]:
    """What numbers are read as before it is seen that they fit."""
    dtype = DTYPES[said.datatype]
    return np.dtype({"i": "i8", "u": "u8", "f": "f8"}.get(dtype.kind, "?"))


def _within(said: Declared, values: Numbers) -> Numbers:
    dtype = DTYPES[said.datatype]
    if dtype.kind in "iu" and len(values):
        limits: Any = np.iinfo(dtype.type)
        for value in (values.min(), values.max()):
            if not limits.min <= value <= limits.max:
                raise _wrong(f"{said}: has {value}, which {said.datatype} cannot hold")
    return values


def _counted(said: Declared, values: T) -> T:
    if len(values) != said.elements:
        raise _wrong(f"{said}: has {len(values)} elements, wanted {said.elements}")
    return values


def to_raw(tensor: Tensor) -> bytes:
    """Raw contents, as ``from_raw`` reads them."""
    if isinstance(tensor.values, np.ndarray):
        return tensor.values.astype(DTYPES[tensor.datatype], copy=False).tobytes()
    parts = [v if isinstance(v, bytes) else (v or "").encode() for v in tensor.values]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def to_json(tensor: Tensor) -> list[Any]:
    """Flat data, as ``from_json`` reads it."""
    return tensor.values.tolist() if isinstance(tensor.values, np.ndarray) else list(tensor.values)


def _wrong(text: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", text)
