"""Asks a running daemon over its control socket: one JSON line out, one JSON line back.

Knows the socket alone: no trio, no libp2p, no numpy, so that a verb answers at once.
"""

import json
import socket
from pathlib import Path
from typing import Any

from tapestry_p2p.errors import FAILURE, NO_DAEMON, TIMEOUT, TapestryError

LINE_BYTES_MAX = 16 << 20


def ask(path: Path, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request to the daemon at ``path`` and return its answer.

    TapestryError: 3 if no daemon listens there, 5 if it does not answer, or what it answered.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps(request).encode() + b"\n")
            data = _drain(sock)
        except TimeoutError as error:
            raise TapestryError(
                f"the daemon at {path} gave no answer in {timeout_s:.0f} s; is it overloaded?",
                TIMEOUT,
            ) from error
        except OSError as error:
            raise TapestryError(
                f"no daemon answers at {path}; start it with: tapestry run", NO_DAEMON
            ) from error
    if not data:
        raise TapestryError(f"the daemon at {path} closed the connection; try again", NO_DAEMON)
    try:
        answer = json.loads(data)
        if not isinstance(answer, dict):
            raise ValueError("no map")
        if "error" in answer:
            raise TapestryError(str(answer["error"]), int(answer.get("exit_code", FAILURE)))
    except (ValueError, RecursionError) as error:
        raise TapestryError(
            f"what answers at {path} is no daemon of this version; stop it and start it again",
            FAILURE,
        ) from error
    return answer


def is_well(state: str) -> bool:
    """Whether a member whose status has that state does what it should."""
    return state in ("training", "finished") or state.startswith("paused")


def _drain(sock: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < LINE_BYTES_MAX:
        part = sock.recv(1 << 16)
        if not part:
            break
        data += part
    return bytes(data)
