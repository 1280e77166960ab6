"""The control socket: one JSON line in, one JSON line out, for the local user alone.

AF_UNIX, mode 0600, and the caller's uid is checked. The asking half is ask.py.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from tapestry_p2p.errors import FAILURE, TapestryError

log = logging.getLogger("tapestry.control")

REQUEST_BYTES_MAX = 64 << 10
REQUEST_DEADLINE_S = 10.0
CALLERS_MAX = 16
ACCEPT_RETRY_S = 0.1

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve(
    path: Path, handler: Handler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer callers until cancelled; then remove the socket."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise TapestryError(
            f"cannot make the control socket {path}: {error}; use a shorter TAPESTRY_HOME", FAILURE
        ) from error
    os.chmod(path, 0o600)
    sock.listen(CALLERS_MAX)
    limit = trio.CapacityLimiter(CALLERS_MAX)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    caller, _ = await sock.accept()
                except OSError as error:  # out of descriptors, or the caller was gone again
                    log.warning("accept failed: %s", error)
                    await trio.sleep(ACCEPT_RETRY_S)
                    continue
                nursery.start_soon(_answer, trio.SocketStream(caller), handler, limit)
    finally:
        sock.close()
        path.unlink(missing_ok=True)


async def _answer(stream: trio.SocketStream, handler: Handler, limit: trio.CapacityLimiter) -> None:
    async with limit, stream:
        credentials = stream.socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in (0, os.getuid()):
            return
        try:
            with trio.move_on_after(REQUEST_DEADLINE_S):
                line = await _read_line(stream)
                answer = await _handled(line, handler)
                await stream.send_all(json.dumps(answer).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a caller left before the answer")


def parse_request(line: bytes) -> dict[str, Any]:
    """The map that a caller's line of JSON is. ValueError for anything else."""
    try:
        request = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(request, dict):
        raise ValueError("not a map")
    return request


async def _handled(line: bytes, handler: Handler) -> dict[str, Any]:
    try:
        request = parse_request(line)
    except ValueError:
        return {"error": "the request is not one line of JSON", "exit_code": FAILURE}
    try:
        return await handler(request)
    except TapestryError as error:
        return {"error": error.message, "exit_code": error.exit_code}
    except Exception as error:  # our own bug: the caller hears of it, the daemon lives
        log.exception("a request failed")
        return {
            "error": f"the daemon could not answer ({type(error).__name__}); its log says why",
            "exit_code": FAILURE,
        }


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = bytearray()
    while b"\n" not in line and len(line) < REQUEST_BYTES_MAX:
        part = await stream.receive_some(4096)
        if not part:
            break
        line += part
    return bytes(line)
