"""Let the C library keep freed memory, or give it back to the system."""

from __future__ import annotations

import ctypes

# Numbers of the options in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep memory that it has freed for its next allocations (glibc; elsewhere nothing happens).

    glibc hands every block of some megabytes back to the system at once and asks for it anew, page by page, a thousand
    times an image: `benchmarks/forward.py` shows what that costs on a CPU.

    Returns
    -------
    Whether it took effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> None:
    """Give memory that was freed back to the system (glibc; elsewhere nothing happens).

    With several threads that allocate megabytes, glibc keeps the pieces that they free, and a long step would seem
    to need ever more memory. A call takes about a millisecond.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)
