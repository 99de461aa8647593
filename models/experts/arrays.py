"""Names for the arrays that members are made of, and how they widen."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Scalar = TypeVar("Scalar", bound=np.generic)


def widened(array: NDArray[Scalar], shape: tuple[int, ...], blank: float = 0.0) -> NDArray[Scalar]:
    """The same numbers in the first corner of a larger array, ``blank`` around them."""
    if array.shape == shape:
        return array
    larger = np.full(shape, blank, dtype=array.dtype)
    larger[tuple(slice(n) for n in array.shape)] = array
    return larger
