"""What was freed goes back to the system, what stays is not looked at again; and what is held."""

import ctypes
import gc
import mmap
import os
from pathlib import Path

import pytest

from tapestry_p2p.heap import give_back, lasting, resident_bytes

HOLE = 100_000  # bytes: below what glibc maps by itself
C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
C.free.argtypes = [ctypes.c_void_p]


def resident_mb() -> float:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in row)
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not hasattr(C, "malloc_trim"), reason="only glibc has it")
def test_holes_in_the_heap_are_given_back() -> None:
    give_back()
    blocks = [C.malloc(HOLE) for _ in range(400)]
    for block in blocks:
        ctypes.memset(block, 1, HOLE)
    for block in blocks[:-1]:  # the last one keeps the top of the heap where it is
        C.free(block)
    before = resident_mb()
    assert give_back()
    assert before - resident_mb() > 0.9 * 400 * HOLE / 2**20
    C.free(blocks[-1])


def test_a_c_library_without_it_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not give_back()


def test_what_is_imported_is_left_to_itself_and_later_garbage_is_found() -> None:
    class Ring:
        def __init__(self) -> None:
            self.itself = self

    try:
        with lasting():
            assert not gc.isenabled()
            kept = Ring()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert not any(found is kept for found in gc.get_objects())
        gc.collect()
        Ring()
        assert gc.collect() > 0
        with pytest.raises(ImportError), lasting():
            raise ImportError("broken")
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_resident_memory_is_measured() -> None:
    before = resident_bytes("self")
    assert before == resident_bytes(os.getpid()) or before > 1e6
    with mmap.mmap(-1, 30_000_000) as held:  # new pages, whatever was freed before
        held.write(b"x" * len(held))
        assert resident_bytes("self") - before > 20e6
    assert resident_bytes(2**22 + 1) == 0
