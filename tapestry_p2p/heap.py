"""Memory: how much a process holds; giving back what was freed; no search for garbage in vain.

Knows the C library, the interpreter's collector and nothing else. glibc keeps what small objects
were in; after thirty strangers have gone that is 4 MB, and it would count as ours until the next
thirty come. Of a big model's leaves it keeps far more: once one was freed, those of its size come
from heaps that do not shrink.
"""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process; 0 if it is gone, or not ours to see."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def give_back() -> bool:
    """Whether anything was given back; False too where the C library has no way to."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        return bool(ctypes.CDLL("libc.so.6").malloc_trim(0))
    return False


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """What is made inside stays: modules, as they are imported. The collector leaves it out.

    Modules make a million objects and hardly any garbage, and to look at them all again and again
    is a fifth of what it takes to import them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
