"""What glibc's malloc does with memory, where its own ways cost too much; with another one nothing happens."""

import ctypes
import sys

KEPT_BYTES = 64 << 20
"""Of freed memory, at the end of each heap."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h


def keep_freed() -> None:
    """Keep what is freed: a fetch's buffers, given back and asked for anew, cost a page fault per 4 KB."""
    _set((_TRIM_THRESHOLD, KEPT_BYTES), (_MMAP_THRESHOLD, 32 << 20))  # its largest


def share_heaps() -> None:
    """Two for all threads, instead of one for each up to eight per processor: gRPC has many that allocate little."""
    _set((_ARENA_MAX, 2))


def _set(*settings: tuple[int, int]) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for name, value in settings:
                libc.mallopt(name, value)
