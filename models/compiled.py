"""The one home of numba: a plain function over arrays -> [compiled] -> the same function, as fast as C.

Compiled once per machine and kept beside the source (or in the user's cache where that cannot be written):
the first call of a fresh installation takes seconds, later processes load it in milliseconds.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_REORDER = {"nsz", "arcp", "contract", "reassoc"}
"""What sums may do to be vectorised; NaN and infinity keep their meaning."""


def compiled(function: F) -> F:
    """Compile for the types it is first called with. Releases the GIL; equal inputs give equal bits."""
    return cast(F, numba.njit(cache=True, nogil=True, fastmath=_REORDER, error_model="numpy")(function))
