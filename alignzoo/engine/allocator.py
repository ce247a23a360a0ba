"""trainer.keep_memory: memory that tensors have freed stays with the process.

The C library gives large blocks back to the system as soon as they are free, and the system clears every page it hands out
again: for the tensors of a small network's step that takes longer than what is computed on them.
"""

from __future__ import annotations

import ctypes
import sys

# of mallopt (malloc.h): the free bytes at the top of the heap above which it shrinks, and the size from which on a block is
# mapped, and unmapped, by itself
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM, MAPPED = 2**31 - 1, 2**30


def keep_freed() -> bool:
    """Whether it could be had: the GNU C library can, others have no such call or refuse it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(*given) for given in ((M_TRIM_THRESHOLD, TRIM), (M_MMAP_THRESHOLD, MAPPED)))
