"""A disk that loses what was not synced, or refuses: what a program writes, what a crash leaves.

Knows the system calls of tapestry_p2p/daemon/files.py and store.py, no meaning of any byte. What a
power cut may leave: of each file what was last synced plus any choice of the later sectors of 512
bytes; of each directory what was last synced plus any choice of its later changes, in order. A
killed process leaves exactly what it wrote.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tapestry_p2p.daemon import files, store

SECTOR = 512


@dataclass(frozen=True)
class Op:
    """One step. ``file``: a number for each file that was ever made; names are relative."""

    kind: str  # link, unlink, rename, write, truncate, sync, syncdir, mark
    file: int = -1
    name: str = ""
    other: str = ""  # the name that a rename takes away; the label of a mark
    at: int = 0  # offset of a write, size of a truncation, value of a mark
    data: bytes = b""


@dataclass
class _Open:
    file: int
    append: bool
    position: int = 0


class Recorder:
    """Stands in for the module ``os`` where files are written, and notes each step."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.ops: list[Op] = []
        self._names: dict[str, int] = {}
        self._sizes: list[int] = []
        self._open: dict[int, _Open | str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what the store does meanwhile."""
        with mock.patch.object(files, "os", self), mock.patch.object(store, "os", self):
            yield

    def mark(self, label: str, value: int) -> None:
        """Note that the program was told that something is safe."""
        self.ops.append(Op("mark", other=label, at=value))

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """As os.open."""
        fd = os.open(path, flags, mode)
        name = self._name(path)
        if flags & os.O_DIRECTORY:
            self._open[fd] = name
        elif flags & (os.O_WRONLY | os.O_RDWR):
            if name not in self._names:
                self._names[name] = len(self._sizes)
                self._sizes.append(0)
                self.ops.append(Op("link", self._names[name], name))
            elif flags & os.O_TRUNC:
                self._truncate(self._names[name], 0)
            self._open[fd] = _Open(self._names[name], bool(flags & os.O_APPEND))
        return fd

    def lseek(self, fd: int, at: int, whence: int) -> int:
        """As os.lseek."""
        now = os.lseek(fd, at, whence)
        seen = self._open[fd]
        assert isinstance(seen, _Open)
        seen.position = now
        return now

    def write(self, fd: int, data: bytes) -> int:
        """As os.write."""
        done = os.write(fd, data)
        seen = self._open[fd]
        assert isinstance(seen, _Open)
        at = self._sizes[seen.file] if seen.append else seen.position
        self.ops.append(Op("write", seen.file, at=at, data=bytes(data[:done])))
        seen.position = at + done
        self._sizes[seen.file] = max(self._sizes[seen.file], seen.position)
        return done

    def fsync(self, fd: int) -> None:
        """As os.fsync; the disk itself need not be asked."""
        seen = self._open[fd]
        if isinstance(seen, str):
            self.ops.append(Op("syncdir", name=seen))
        else:
            self.ops.append(Op("sync", seen.file))

    def ftruncate(self, fd: int, size: int) -> None:
        """As os.ftruncate."""
        os.ftruncate(fd, size)
        seen = self._open[fd]
        assert isinstance(seen, _Open)
        self._truncate(seen.file, size)

    def replace(self, old: Path, new: Path) -> None:
        """As os.replace."""
        os.replace(old, new)
        source, target = self._name(old), self._name(new)
        self._names[target] = self._names.pop(source)
        self.ops.append(Op("rename", self._names[target], target, source))

    def unlink(self, path: Path) -> None:
        """As os.unlink."""
        os.unlink(path)
        name = self._name(path)
        self.ops.append(Op("unlink", self._names.pop(name), name))

    def close(self, fd: int) -> None:
        """As os.close."""
        os.close(fd)
        self._open.pop(fd, None)

    def _truncate(self, file: int, size: int) -> None:
        self._sizes[file] = size
        self.ops.append(Op("truncate", file, at=size))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._root)


class Refusing:
    """Stands in for ``os``: from call ``at`` on, ``times`` calls fail with ``errno``.

    A write that is refused has taken half of its bytes.
    """

    CALLS = frozenset({"open", "write", "fsync", "ftruncate", "replace", "unlink"})

    def __init__(self, at: int, errno: int, times: int) -> None:
        self._errno, self._first, self._end = errno, at, at + times
        self.calls = 0
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return partial(self._call, name, real) if name in self.CALLS else real

    def _call(self, name: str, real: Callable[..., Any], *words: Any, **more: Any) -> Any:
        self.calls += 1
        if not self._first <= self.calls < self._end:
            return real(*words, **more)
        if name == "write":
            real(words[0], words[1][: len(words[1]) // 2])
        self.refused += 1
        raise OSError(self._errno, os.strerror(self._errno))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Refuse what the store does meanwhile."""
        with mock.patch.object(files, "os", self), mock.patch.object(store, "os", self):
            yield

    def mark(self, label: str, value: int) -> None:
        """What is safe is not of interest here: in the end all must be."""


@dataclass
class Left:
    """What is on the disk: contents by file number, names to file numbers."""

    contents: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def do(self, op: Op) -> None:
        """Let a step happen."""
        content = self.contents.setdefault(op.file, bytearray()) if op.file >= 0 else bytearray()
        if op.kind == "write":
            _put(content, op.at, op.data)
        elif op.kind == "truncate":
            del content[op.at :]
            content.extend(bytes(op.at - len(content)))
        elif op.kind in ("link", "rename"):
            self.names.pop(op.other, None)
            self.names[op.name] = op.file
        elif op.kind == "unlink":
            self.names.pop(op.name, None)

    def write_to(self, folder: Path) -> None:
        """Make ``folder`` hold exactly this."""
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.unlink()
        for name, file in self.names.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(self.contents.get(file, b"")))


def _put(content: bytearray, at: int, data: bytes) -> None:
    content.extend(bytes(max(0, at + len(data) - len(content))))
    content[at : at + len(data)] = data


def killed(ops: list[Op], cut: int | None = None) -> Left:
    """After SIGKILL: all that was done; of the last step, a write, only ``cut`` bytes if given."""
    left = Left()
    for op in ops if cut is None else ops[:-1]:
        left.do(op)
    if cut is not None:
        last = ops[-1]
        left.do(Op(last.kind, last.file, at=last.at, data=last.data[:cut]))
    return left


def without_power(ops: list[Op], random: Random) -> Left:
    """After a power cut: what was synced, and of the rest whatever chance kept."""
    left = Left()
    waiting: list[Op] = []
    for op in ops:
        if op.kind in ("sync", "syncdir"):
            waiting = _let(left, waiting, op)
        elif op.kind != "mark":
            waiting.append(op)
    share = random.choice((0.0, 0.5, 0.9, 1.0))
    for op in waiting:
        for part in _sectors(op):
            if random.random() < share:
                left.do(part)
    return left


def _let(left: Left, waiting: list[Op], sync: Op) -> list[Op]:
    """Do what ``sync`` makes durable; the rest still waits."""
    rest = []
    for op in waiting:
        content = op.kind in ("write", "truncate")
        if sync.kind == "sync":
            settled = content and op.file == sync.file
        else:
            settled = not content and str(Path(op.name).parent) == sync.name
        if settled:
            left.do(op)
        else:
            rest.append(op)
    return rest


def _sectors(op: Op) -> Iterator[Op]:
    """A write as the pieces that reach the disk as one; any other step as it is."""
    if op.kind != "write":
        yield op
        return
    at, end = op.at, op.at + len(op.data)
    while at < end:
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        yield Op("write", op.file, at=at, data=op.data[at - op.at : stop - op.at])
        at = stop
