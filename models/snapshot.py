"""A model at rest: named arrays and a few texts <-> one safetensors file. Nothing in it is ever executed."""

import json
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]


_TEXTS = b'{"__metadata__":'
_decoder = json.JSONDecoder()


class SnapshotError(ValueError):
    """The bytes are not a snapshot."""


def pack(arrays: Mapping[str, NDArray[np.generic]], texts: Mapping[str, str]) -> bytes:
    """One file; the same arrays and texts give the same bytes."""
    whole = {name: np.ascontiguousarray(a) for name, a in sorted(arrays.items())}
    data = safetensors.numpy.save(whole)
    if not texts:
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    # safetensors would put the texts in any order; the hash of the bytes names the version.
    header = _TEXTS + json.dumps(dict(sorted(texts.items()))).encode() + b","[: len(whole)] + data[9:end].rstrip()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def unpack(data: bytes) -> tuple[Arrays, dict[str, str]]:
    """Arrays and texts of a packed snapshot.

    Raises:
        SnapshotError: the bytes are torn or something else.
    """
    try:
        arrays = safetensors.numpy.load(data)
        header = int.from_bytes(data[:8], "little")
        texts = _texts(data[8 : 8 + header])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise SnapshotError(f"not a snapshot ({len(data)} bytes): {error}") from error
    return arrays, texts


def spans(data: bytes) -> list[tuple[int, int]]:
    """Where the arrays of a packed snapshot lie in it: first byte and one after the last of each, in order.

    Raises:
        SnapshotError: the bytes are no snapshot.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:start])
        offsets = sorted(a["data_offsets"] for name, a in header.items() if name != "__metadata__")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"not a snapshot ({len(data)} bytes): {error}") from error
    return [(start + first, start + end) for first, end in offsets]


def _texts(header: bytes) -> dict[str, str]:
    text = header.decode()
    begins = text.startswith(_TEXTS.decode())
    found = _decoder.raw_decode(text, len(_TEXTS))[0] if begins else json.loads(text).get("__metadata__") or {}
    return {str(k): str(v) for k, v in found.items()}


def under(prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """The arrays whose names begin with ``prefix.``, without it."""
    cut = len(prefix) + 1
    return {name[cut:]: a for name, a in arrays.items() if name.startswith(prefix + ".")}


def prefixed(prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """The same arrays, each name with ``prefix.`` before it."""
    return {f"{prefix}.{name}": a for name, a in arrays.items()}
