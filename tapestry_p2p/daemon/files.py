"""Files that survive a crash: atomic replace, a digest on everything, two generations.

Knows bytes and paths; not what they mean. ``write_file`` is durable when it returns. ``Pair``
keeps the last two versions, so that a torn or flipped one costs one step back, never all. ``Mark``
remembers how far something has gone at the cost of one sync. What is as large as the model goes by
in pieces (tapestry_p2p/bulk.py): it is never whole in memory.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tapestry_p2p import bulk, crash
from tapestry_p2p.bulk import Piece

_MAGIC = b"TPSTRY1\n"
_HEAD_BYTES = len(_MAGIC) + 8 + 32
_SECTOR = 512  # what a disk writes as one


class DamagedError(Exception):
    """A file is torn, flipped, or not ours."""


def sync_directory(path: Path) -> None:
    """Make a rename inside ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def seal(number: int, body: bytes) -> bytes:
    """``body`` with magic, generation number and SHA-256 in front."""
    return b"".join(sealed(number, [body]))


def sealed(number: int, body: list[Piece]) -> list[Piece]:
    """The same in pieces: one more than the body has."""
    head = number.to_bytes(8, "big")
    hasher = hashlib.sha256(head)
    for piece in body:
        hasher.update(piece)
    return [_MAGIC + hasher.digest() + head, *body]


def unseal(data: bytes) -> tuple[int, bytes]:
    """(generation number, body); DamagedError if a single bit is not as it was written."""
    number = _check(data[:_HEAD_BYTES], [data[_HEAD_BYTES:]])
    return number, data[_HEAD_BYTES:]


def unseal_file(path: Path) -> tuple[int, memoryview]:
    """The same of a file; the body is a view of it, not in memory. OSError."""
    with path.open("rb") as file:
        data = bulk.mapped(file.fileno())
        return unseal_part(file.fileno(), data, 0, len(data))


def unseal_part(fd: int, data: memoryview, start: int, length: int) -> tuple[int, memoryview]:
    """The same of a part of a file that is mapped as ``data``. OSError.

    It is read before the map is looked at: a bad disk is an error then, and no SIGBUS.
    """
    head = os.pread(fd, min(length, _HEAD_BYTES), start)
    body = bulk.read(fd, start + _HEAD_BYTES, max(0, length - _HEAD_BYTES))
    return _check(head, body), data[start + _HEAD_BYTES : start + length]


def _check(head: bytes, body: Iterable[Piece]) -> int:
    """The number in the head of a sealed file, if the body is the one that it was made for."""
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        raise DamagedError("not a file of ours, or cut short")
    digest, number = head[len(_MAGIC) : -8], head[-8:]
    hasher = hashlib.sha256(number)
    for piece in body:
        hasher.update(piece)
    if hasher.digest() != digest:
        raise DamagedError("its digest does not match")
    return int.from_bytes(number, "big")


def write_all(fd: int, data: Piece) -> None:
    """All of ``data`` to ``fd``, however little the disk takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _give_to_owner(fd: int, folder: Path) -> None:
    """What root writes, by a verb, belongs to whom the folder belongs: a service is not root."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid:
        with contextlib.suppress(OSError):  # a root that may not is no root of this folder
            os.fchown(fd, owner.st_uid, owner.st_gid)


def open_durably(path: Path, flags: int) -> int:
    """Open a file to write to, made if need be: that it is there is durable. OSError."""
    fd = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        _give_to_owner(fd, path.parent)
        sync_directory(path.parent)
    except OSError:
        os.close(fd)
        raise
    return fd


def write_file(path: Path, data: bytes | Iterable[Piece], mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``, whole or in pieces, atomically and durably.

    OSError if the disk refuses.
    """

    def fill(fd: int) -> None:
        for piece in [data] if isinstance(data, bytes) else data:
            write_all(fd, piece)

    _replace(path, fill, mode)


def write_sealed(path: Path, number: int, body: Iterable[Piece]) -> None:
    """`write_file` of ``seal(number, body)``, the body in pieces that are made once. OSError."""

    def fill(fd: int) -> None:
        head = number.to_bytes(8, "big")
        hasher = hashlib.sha256(head)
        write_all(fd, _MAGIC + bytes(hasher.digest_size) + head)
        for piece in body:
            hasher.update(piece)
            write_all(fd, piece)
        os.lseek(fd, len(_MAGIC), os.SEEK_SET)
        write_all(fd, hasher.digest())

    _replace(path, fill, 0o600)


def _replace(path: Path, fill: Callable[[int], None], mode: int) -> None:
    draft = path.with_name(path.name + ".new")
    crash.point(f"before writing {path.name}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            _give_to_owner(fd, path.parent)
            fill(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        crash.point(f"before replacing {path.name}")
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)  # a full disk needs the room
        raise
    crash.point(f"before syncing {path.name}")
    sync_directory(path.parent)
    crash.point(f"after writing {path.name}")


class Pair:
    """One document in two generations, ``path.0`` and ``path.1``, written in turn."""

    def __init__(self, path: Path) -> None:
        self._paths = (path.with_name(path.name + ".0"), path.with_name(path.name + ".1"))
        self._number = -1
        self.fell_back = False

    def load(self) -> bytes | None:
        """The newest whole generation, or None if there is none.

        ``fell_back`` is then True if a generation was found damaged.
        """
        body = self.view()
        return None if body is None else bytes(body)

    def view(self) -> memoryview | None:
        """The same as a view of the file: it stays as it is, whatever is saved later."""
        best: tuple[int, memoryview] | None = None
        for path in self._paths:
            try:
                found = unseal_file(path)
            except FileNotFoundError:
                continue
            except (DamagedError, OSError):
                self.fell_back = True
                continue
            if best is None or found[0] > best[0]:
                best = found
        if best is None:
            return None
        self._number = best[0]
        return best[1]

    def save(self, body: bytes) -> None:
        """Write the next generation over the older one."""
        self.save_pieces([body])

    def save_pieces(self, body: Iterable[Piece]) -> None:
        """The same, the body in pieces."""
        number = self._number + 1
        write_sealed(self._paths[number % 2], number, body)
        self._number = number


class Mark:
    """The highest number that was noted, in two sectors written in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._sector = 0  # to write next: never that of the highest number

    def load(self) -> int:
        """The highest number whose sector is whole, -1 if there is none."""
        return max(self._numbers())

    def _numbers(self) -> list[int]:
        """What the two sectors hold, -1 for one that is not whole."""
        try:
            data = self._path.read_bytes()
        except OSError:
            data = b""
        found = [-1, -1]
        for place in range(2):
            with contextlib.suppress(DamagedError):
                sector = data[place * _SECTOR : place * _SECTOR + _HEAD_BYTES]
                found[place] = unseal(sector)[0]
        return found

    def note(self, number: int) -> None:
        """Make ``number`` durable; a write that is cut leaves the one before. OSError."""
        if self._fd is None:
            self._sector = 1 - max(range(2), key=self._numbers().__getitem__)
            self._fd = open_durably(self._path, os.O_WRONLY)
        os.lseek(self._fd, self._sector * _SECTOR, os.SEEK_SET)
        crash.point(f"before marking {self._path.name}")
        write_all(self._fd, seal(number, b""))
        os.fsync(self._fd)
        self._sector = 1 - self._sector
        crash.point(f"after marking {self._path.name}")

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
