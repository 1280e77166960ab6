"""The page beside the node: another process, started again when it ends, missed by nobody.

Nothing of the page runs in this process, and nothing that goes wrong with it reaches the node: that
is a log line and another try, later each time. It ends with us: its standard input is our pipe.
"""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import trio

log = logging.getLogger("tapestry")

USUAL_PORT = 8420
AGAIN_S, AGAIN_S_MAX = 5.0, 600.0
LONG_S = 60.0  # a page that lived so long begins anew with short waits
END_S = 1.0
LOG_NAME = "page.log"


def command(port: int) -> list[str]:
    """What starts the page, whatever environment ours is."""
    chosen = ["--port", str(port)] if port != USUAL_PORT else []  # else the next that is free
    return [sys.executable, "-m", "tapestry_p2p", "page", "--tether", *chosen]


async def keep_page(port: int, folder: Path) -> None:
    """Keep a page at 127.0.0.1:``port``, its complaints in ``folder``; until cancelled."""
    wait = AGAIN_S
    while True:
        began = trio.current_time()
        reason = await _one(port, folder)
        wait = AGAIN_S if trio.current_time() > began + LONG_S else min(2 * wait, AGAIN_S_MAX)
        log.warning("the page ended (%s); again in %.0f s", reason, wait)
        await trio.sleep(wait)


async def _one(port: int, folder: Path) -> str:
    """Run one page to its end; why it ended."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(folder / LOG_NAME, "wb", opener=_private) as errors:
            process = await trio.lowlevel.open_process(
                command(port), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors
            )
    except OSError as error:
        return str(error)
    try:
        return f"exit status {await process.wait()}, see {folder / LOG_NAME}"
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _end(process: trio.Process) -> None:
    """Nobody waits long for a page."""
    assert process.stdin is not None
    await process.stdin.aclose()
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with trio.move_on_after(END_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
