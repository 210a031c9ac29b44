"""Memory that has been freed goes back to the system.

glibc keeps what a program frees between blocks that are still in use. Sampling and updates free
tensors of many sizes in turns, so a run's resident memory grows step after step, to two or three
times what it holds. Elsewhere, and on a GPU, nothing is to be done.
"""

from __future__ import annotations

import ctypes
from functools import cache


def return_freed_memory() -> None:
    """Hand freed pages back; some hundredths of a second for each GB."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim():  # type: ignore[no-untyped-def]
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return None
