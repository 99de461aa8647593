"""The one home of numba: a plain function over arrays -> [compiled] -> the same function, as fast as C.

Compiled once per machine and kept beside the source (or in the user's cache where that cannot be written):
the first call of a fresh installation takes seconds, later processes load it in milliseconds. What is kept
follows changes of the function's own file only: after changing a compiled function that another file calls,
remove the other's ``__pycache__``.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
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


def release_compiler() -> None:
    """Give back the memory that LLVM's code takes, some 50 MB; it is read again from its file if it is needed again.

    Linux drops such pages when memory is short, but counts them as this process' until then.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libllvmlite" in line and " r-xp " in line:
            begin, end = (int(place, 16) for place in line.split()[0].split("-"))
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
