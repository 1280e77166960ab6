"""Give memory that was freed back to the system: many connections at once leave holes in the heap.

Knows the C library and nothing else. glibc keeps what small objects were in; after thirty strangers
have gone that is 4 MB, and it would count as ours until the next thirty come. Of a big model's
leaves it keeps far more: once one was freed, those of its size come from heaps that do not shrink.
"""

import contextlib
import ctypes


def give_back() -> bool:
    """Whether anything was given back; False too where the C library has no way to."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        return bool(ctypes.CDLL("libc.so.6").malloc_trim(0))
    return False
