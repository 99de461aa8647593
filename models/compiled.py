"""The one home of numba: a plain function over arrays -> [compiled] -> the same function, as fast as C.

Compiled once per machine and kept beside the source (or in the user's cache where that cannot be written):
the first call of a fresh installation takes seconds, later processes load it in milliseconds. What is kept
follows changes of the function's own file only: after changing a compiled function that another file calls,
remove the other's ``__pycache__``.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_REORDER = {"nsz", "arcp", "contract", "reassoc"}
"""What sums may do to be vectorised; NaN and infinity keep their meaning."""


def compiled(function: F) -> F:
    """Compile for the types it is first called with. Releases the GIL; equal inputs give equal bits."""
    compile_with = numba.njit(cache=True, nogil=True, fastmath=_REORDER, error_model="numpy")
    return cast(F, compile_with(function))


def compiled_exactly(function: F) -> F:
    """As ``compiled``, but each operation on floats is done as written, and rounded as IEEE 754 says.

    It may not make arrays. In return it counts no references to those it is given (``_nrt``, an option of numba that is
    not documented), and it becomes part of whatever compiled function calls it: small functions that hand tuples of
    arrays to one another are ten times faster so. What is called often from many places is better ``compiled``.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False, "forceinline": True}
    return cast(F, numba.njit(**options)(function))
