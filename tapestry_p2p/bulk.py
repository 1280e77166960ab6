"""Arrays as large as the model without as much memory: mapped vectors, documents by the piece.

Knows files, numpy and msgpack's form; not what a vector or a document means. A ``Shelf`` makes long
vectors as mapped files that no name leads to, so nothing is left of them when the process ends; the
system writes their pages out and takes them back as it needs. ``pieces`` and ``views`` write and
read a msgpack document whose arrays never stand in memory a second time.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("tapestry.bulk")

MAPPED_FROM = 1 << 24  # parameters: 64 MB a vector; below, files would only cost writes to the disk
PIECE = 4 << 20  # bytes of an array that are hashed, written or read at a time
SETTLE_EVERY = 64 << 20  # bytes of a vector that is read or written
_STEP = 1 << 20  # parameters
Piece = bytes | memoryview


class Shelf:
    """Makes float32[d]: in memory, or from ``MAPPED_FROM`` parameters on in files of ``folder``."""

    def __init__(self, folder: Path, mapped_from: int = MAPPED_FROM) -> None:
        self._folder, self._mapped_from = folder, mapped_from
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._changing = threading.Lock()  # several threads make and settle vectors

    def empty(self, d: int) -> NDArray[np.float32]:
        """float32[d] with anything in it. Where the disk has no room it is in memory after all."""
        import numpy as np

        if d >= self._mapped_from:
            try:
                return np.frombuffer(self._mapped(4 * d), np.float32)
            except OSError as error:
                log.warning("%s: %s; a vector stays in memory", self._folder, error.strerror)
        return np.empty(d, np.float32)

    def is_mapped(self, d: int) -> bool:
        """Whether vectors of that length are files."""
        return d >= self._mapped_from

    def bytes(self, size: int) -> NDArray[np.uint8]:
        """uint8[size] as `empty` gives ``size / 4`` parameters."""
        import numpy as np

        return self.empty(-(-size // 4)).view(np.uint8)[:size]

    def settle(self) -> None:
        """The pages of all mapped vectors may leave this process; what they hold is kept."""
        with self._changing:
            maps = list(self._maps)
        for held in maps:
            held.madvise(mmap.MADV_DONTNEED)

    def made(self, step: Callable[..., Any], *vectors: NDArray[np.float32]) -> Any:
        """float32[d] of equal vectors: ``step(block of each, ..., out=)`` for every block."""
        out = self.empty(len(vectors[0]))
        for start in range(0, len(out), _STEP):
            block = slice(start, start + _STEP)
            step(*(vector[block] for vector in vectors), out=out[block])
            if start % (8 * _STEP) == 0:
                self.settle()
        self.settle()
        return out

    def _mapped(self, size: int) -> mmap.mmap:
        with tempfile.TemporaryFile(dir=self._folder, prefix="vector-") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk must refuse now, not kill us
            found = mmap.mmap(file.fileno(), size)
        with self._changing:
            self._maps.add(found)
        return found


IN_MEMORY = Shelf(Path(), 1 << 62)


# ---- documents -----------------------------------------------------------------------------------


def pieces(value: Any) -> Iterator[Piece]:
    """The bytes of ``msgpack.packb(value)``, an array standing for its bytes, in many pieces.

    dict, list, tuple, numbers, text, bytes; arrays and memoryviews of any length.
    """
    if isinstance(value, dict):
        yield msgpack.Packer().pack_map_header(len(value))
        for key, item in value.items():
            yield msgpack.packb(key)
            yield from pieces(item)
    elif isinstance(value, list | tuple):
        yield msgpack.Packer().pack_array_header(len(value))
        for item in value:
            yield from pieces(item)
    elif hasattr(value, "__array__") or isinstance(value, memoryview):
        yield from _array(value)
    else:
        yield msgpack.packb(value)


def _array(value: Any) -> Iterator[Piece]:
    import numpy as np

    if isinstance(value, memoryview):
        data = value.cast("B")
    else:
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    size = len(data)
    if size < 1 << 8:
        yield struct.pack(">BB", 0xC4, size)
    elif size < 1 << 16:
        yield struct.pack(">BH", 0xC5, size)
    else:
        yield struct.pack(">BI", 0xC6, size)  # struct.error from 4 GiB on
    for start in range(0, size, PIECE):
        yield data[start : start + PIECE]
        if start % SETTLE_EVERY == 0:
            _settle(value)
    _settle(value)


def _settle(array: Any) -> None:
    """The pages of an array in a mapped file may leave this process."""
    while (below := getattr(array, "base", getattr(array, "obj", None))) is not None:
        array = below
    if isinstance(array, mmap.mmap):
        array.madvise(mmap.MADV_DONTNEED)


def views(data: memoryview) -> Any:
    """The document in ``data``; its byte strings are views of ``data``. ValueError if malformed."""
    try:
        value, end = _value(data, 0)
    except (IndexError, struct.error) as error:
        raise ValueError("the document is cut short") from error
    if end != len(data):
        raise ValueError("there is more than one document")
    return value


_SIZES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
          0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}  # fmt: skip
_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
            0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}  # fmt: skip
_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}


def _value(data: memoryview, at: int) -> tuple[Any, int]:
    """The value that begins at ``at``, and where the next one does."""
    tag = data[at]
    at += 1
    if tag < 0x80 or tag >= 0xE0:
        return (tag if tag < 0x80 else tag - 256), at
    if tag in _PLAIN:
        return _PLAIN[tag], at
    if tag in _NUMBERS:
        form = struct.Struct(_NUMBERS[tag])
        return form.unpack_from(data, at)[0], at + form.size
    if tag in _SIZES:
        form = struct.Struct(_SIZES[tag])
        size, at = form.unpack_from(data, at)[0], at + form.size
    elif tag < 0xC0:
        size = tag & (0x1F if tag >= 0xA0 else 0x0F)
    else:
        raise ValueError(f"{tag:#x} is no part of our documents")
    if tag in (0xC4, 0xC5, 0xC6):
        return _bytes(data, at, size), at + size
    if 0xA0 <= tag < 0xC0 or tag in (0xD9, 0xDA, 0xDB):
        return str(_bytes(data, at, size), "utf-8"), at + size
    pairs = tag < 0x90 or tag in (0xDE, 0xDF)
    found = []
    for _ in range(2 * size if pairs else size):
        item, at = _value(data, at)
        found.append(item)
    return (dict(zip(found[::2], found[1::2], strict=True)) if pairs else found), at


def _bytes(data: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]


# ---- files ---------------------------------------------------------------------------------------


def read(fd: int, start: int, length: int) -> Iterator[bytes]:
    """So many bytes of a file from ``start`` on, or up to its end, in pieces. OSError."""
    end = start + length
    while start < end and (piece := os.pread(fd, min(PIECE, end - start), start)):
        yield piece
        start += len(piece)


def mapped(fd: int) -> memoryview:
    """A file's bytes as they are now, read when they are looked at; the descriptor may be closed.

    Only for files that are replaced whole, or that only get longer. OSError.
    """
    if os.fstat(fd).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))


def vector(data: Piece, empty: Callable[[int], Any], settle: Callable[[], None]) -> Any:
    """float32[n] of its little-endian bytes, in memory that ``empty`` gives, piece by piece."""
    import numpy as np

    source = np.frombuffer(data, "<f4")
    out = empty(len(source))
    step = SETTLE_EVERY // 4
    for start in range(0, len(source), step):
        out[start : start + step] = source[start : start + step]
        settle()
        _settle(data)
    return out
