"""A trainer that somebody else starts (another unit): the socket at which it reports for work.

AF_UNIX, mode 0600, and the caller's uid must be ours. One trainer at a time: others wait in line.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path

import trio

from tapestry_p2p.errors import FAILURE, TapestryError

WAITING_MAX = 2


class Door:
    """Listens at ``path``. ``close`` removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        try:
            self._sock.bind(str(path))
        except OSError as error:
            self._sock.close()
            raise TapestryError(
                f"cannot make the trainer's socket {path}: {error}; use a shorter TAPESTRY_HOME",
                FAILURE,
            ) from error
        os.chmod(path, 0o600)
        self._sock.listen(WAITING_MAX)

    async def trainer(self) -> tuple[socket.socket, int]:
        """The next trainer's link, and its process id. Waits until one comes."""
        while True:
            try:
                found, _ = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                continue
            size = struct.calcsize("3i")
            credentials = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid, uid, _ = struct.unpack("3i", credentials)
            if uid == os.getuid():
                found.setblocking(False)
                return found, pid
            found.close()

    def close(self) -> None:
        """No trainer is taken any more."""
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
