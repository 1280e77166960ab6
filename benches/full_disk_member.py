"""A member whose disk refuses when it is told to: `tapestry run` with a seam under the store.

    python benches/full_disk_member.py SOCKET [K ERRNO SECONDS]

From the K-th call on that writes (open, write, fsync, ftruncate, replace, unlink of the store's
modules, the audit log's too) every such call fails with ERRNO for SECONDS. Datagrams "K ERRNO
SECONDS" to SOCKET arm it anew, counted from then; "at ERRNO SECONDS CALL FILE" from the next such
call on. Each is answered by a JSON object: how many calls there were and how many were refused, at
which places (call and file) there were calls, and at which of them a refusal began.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon import audit, files, store

CALLS = frozenset({"open", "write", "fsync", "ftruncate", "replace", "unlink", "truncate"})


class Seam:
    """Stands in for ``os``; counts what writes, and refuses while it is told to."""

    def __init__(self) -> None:
        self.calls = self.refused = 0
        self.places: set[str] = set()
        self.begun: set[str] = set()
        self._names: dict[int, str] = {}
        self._at, self._errno, self._for_s, self._until = 0, 0, 0.0, 0.0
        self._place = ""  # any

    def arm(self, at: int, errno: int, for_s: float) -> None:
        """Refuse from the ``at``-th call from now on."""
        self._at, self._errno, self._for_s, self._until = self.calls + at, errno, for_s, 0.0
        self._place = ""

    def arm_at(self, place: str, errno: int, for_s: float) -> None:
        """Refuse from the next call at that place on."""
        self.arm(1, errno, for_s)
        self._place = place

    def call(self, name: str, real: Any, *words: Any, **more: Any) -> Any:
        """One call: done, or refused; a write that is refused has taken half of its bytes."""
        reads = name == "open" and len(words) > 1 and not words[1] & (os.O_WRONLY | os.O_RDWR)
        if reads:
            return real(*words, **more)  # a folder, to sync it
        self.calls += 1
        place = f"{name} {self._file(words[0])}"
        self.places.add(place)
        due = self._at and self.calls >= self._at and self._place in ("", place)
        if due and not self._until:
            self._until = time.monotonic() + self._for_s
            self.begun.add(place)
        if not self._until or time.monotonic() >= self._until:
            done = real(*words, **more)
            if name == "open":
                self._names[done] = os.fspath(words[0])
            return done
        self.refused += 1
        if name == "write":
            real(words[0], words[1][: len(words[1]) // 2])
        raise OSError(self._errno, os.strerror(self._errno))

    def _file(self, which: Any) -> str:
        """A file's name, with what differs from run to run taken out."""
        path = self._names.get(which, "a folder") if isinstance(which, int) else os.fspath(which)
        name = re.sub(r"^[0-9a-f]{64}(?=\.[01])", "copy", os.path.basename(path))
        return re.sub(r"^\d+\.\d+(?=\.past)", "n", name)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return partial(self.call, name, real) if name in CALLS else real

    def named(self, fd: int, path: str) -> None:
        """A descriptor that was not opened through us."""
        self._names[fd] = path

    def opened(self, path: str | Path, mode: str = "r", **more: Any) -> Any:
        """As the built-in ``open``, for a module that writes by it."""
        file = cast(BinaryIO, open(path, mode, **more))  # noqa: SIM115
        return _File(file, self) if "a" in mode or "w" in mode else file


class _File:
    """A file whose writes can be refused."""

    def __init__(self, file: BinaryIO, seam: Seam) -> None:
        self._file, self._seam = file, seam

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        """Through the seam."""
        fd = self._file.fileno()
        self._seam.named(fd, self._file.name)
        return cast(int, self._seam.call("write", os.write, fd, data))


def listen(path: str, seam: Seam) -> None:
    """Obey datagrams for ever."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    Path(path).unlink(missing_ok=True)
    sock.bind(path)
    while True:
        data, sender = sock.recvfrom(100)
        words = data.decode().split(" ", 3)
        if words[0] == "at":
            seam.begun.clear()
            seam.arm_at(words[3], int(words[1]), float(words[2]))
        elif len(words) == 3:
            seam.arm(int(words[0]), int(words[1]), float(words[2]))
        told = {"calls": seam.calls, "refused": seam.refused}
        places = {"places": sorted(seam.places), "begun": sorted(seam.begun)}
        sock.sendto(json.dumps({**told, **places}).encode(), sender)


def main() -> int:
    """Run the member."""
    seam = Seam()
    if len(sys.argv) > 2:
        seam.arm(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    for module in (files, store, audit):
        module.os = seam  # type: ignore[attr-defined]
    audit.open = seam.opened  # type: ignore[attr-defined]
    threading.Thread(target=listen, args=(sys.argv[1], seam), daemon=True).start()
    return cli.main(["run"])


if __name__ == "__main__":
    sys.exit(main())
