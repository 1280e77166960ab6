"""The trainer's own socket for the local user: generated text never passes through the node.

Rule: one AF_UNIX stream socket, 0600, JSON lines: one request, one answer. Requests are answered
between two inner steps; a client that does not read its answer is dropped, never waited for.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINE_BYTES_MAX = 1 << 17
CLIENTS_MAX = 16
ANSWER_S = 2.0  # how long one answer may take to be read

Answerer = Callable[[dict[str, Any]], dict[str, Any]]


class TextSocket:
    """Listens at ``path``. Whoever holds one calls `close`, which also removes the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[socket.socket, bytes] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        fresh = path.with_name(path.name + "~")  # the name appears when it answers, not before
        fresh.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._listener.bind(str(fresh))
        finally:
            os.umask(mask)
        self._listener.listen(CLIENTS_MAX)
        fresh.replace(path)

    @property
    def sockets(self) -> list[socket.socket]:
        """What to watch for reading."""
        return [self._listener, *self._lines]

    def serve(self, readable: socket.socket, answer: Answerer) -> None:
        """Accept a client, or read from one and answer its whole lines."""
        if readable is self._listener:
            self._accept()
        elif readable in self._lines:
            self._read(readable, answer)

    def close(self) -> None:
        """Close all and remove the socket file."""
        for sock in self.sockets:
            sock.close()
        self._lines.clear()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it went away before we came to it
        client.settimeout(ANSWER_S)
        if len(self._lines) < CLIENTS_MAX:
            self._lines[client] = b""
        else:
            client.close()

    def _read(self, client: socket.socket, answer: Answerer) -> None:
        try:
            received = client.recv(65536)
            lines = (self._lines[client] + received).split(b"\n")
            for line in lines[:-1]:
                client.sendall(json.dumps(_answer(line, answer)).encode() + b"\n")
        except OSError:
            received, lines = b"", [b""]
        self._lines[client] = lines[-1]
        if not received or len(lines[-1]) > LINE_BYTES_MAX:
            del self._lines[client]
            client.close()


def _answer(line: bytes, answer: Answerer) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "not JSON"}
    if not isinstance(request, dict):
        return {"error": "not a JSON object"}
    return answer(request)
