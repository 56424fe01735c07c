"""Memory of large answers goes back to the kernel once they were sent.

The status of 10,000 nodes is 14 MB of JSON. glibc's allocator learns from the first one that is freed to take blocks
of that size from its heap from then on, and what lies above one small block that stays is never given back: a root
that was asked a few times kept 20 MiB for nothing. With a threshold that was set it does not learn.
"""

from __future__ import annotations

import ctypes

#: Blocks of this size and more are mapped one by one: the pages of answers and of batches are smaller.
LARGE = 256 * 1024
#: Of /usr/include/malloc.h.
_MMAP_THRESHOLD = -3


def give_large_back() -> bool:
    """Have large blocks mapped one by one, in this process; False where the C library knows no such thing."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE))
    except (OSError, AttributeError):
        return False
