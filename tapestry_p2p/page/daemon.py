"""What the page may ask of the member, and no more: the daemon's and the trainer's own sockets.

Every call blocks in a thread of its own and raises TapestryError. Generated text comes from the
trainer's socket and never passes through the node; a model is taken out by the verb `export`, in a
process that ends.
"""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import FAILURE, NO_DAEMON, NOT_READY, TapestryError
from tapestry_p2p.page.left import Left, log_tail
from tapestry_p2p.page.names import clean

ASK_S = 12.0  # the daemon gives itself ten
TRAINER_S = 60.0  # it answers between two steps; the first text compiles
EXPORT_S = 300.0
LOG_FILE = "node.jsonl"
T = TypeVar("T")


class Member(Protocol):
    """The member as the page sees it; a test puts another in its place."""

    async def ask(self, verb: str) -> dict[str, Any]:
        """One of the control socket's verbs."""

    async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
        """A question to the trainer's own socket."""

    async def left(self) -> dict[str, Any]:
        """What left this machine."""

    async def log(self) -> list[dict[str, str]]:
        """The newest lines of the log."""

    async def export(self) -> dict[str, Any]:
        """Write the model into a fresh folder; where it is."""


class LocalMember:
    """The member of this user, by its ``paths``."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._left = Left(paths.state / "store", paths.manifest)
        self._limit = trio.CapacityLimiter(8)  # callers that wait for a daemon that hangs

    async def ask(self, verb: str) -> dict[str, Any]:
        """One of the control socket's verbs."""
        return await self._wait(functools.partial(self._ask, verb))

    async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
        """A question to the trainer's own socket."""
        return await self._wait(functools.partial(self._ask_trainer, request))

    async def left(self) -> dict[str, Any]:
        """What left this machine."""
        return await trio.to_thread.run_sync(self._left.look)

    async def log(self) -> list[dict[str, str]]:
        """The newest lines of the log."""
        return await self._wait(functools.partial(log_tail, self._paths.log / LOG_FILE))

    async def export(self) -> dict[str, Any]:
        """Write the model into a fresh folder; where it is."""
        folder = exports(self._paths) / time.strftime("%Y-%m-%d-%H%M%S")
        command = [sys.executable, "-P", "-m", "tapestry_p2p", "export", str(folder), "--json"]
        with trio.move_on_after(EXPORT_S):
            done = await trio.run_process(
                command,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            if done.returncode:
                words = clean(done.stderr.decode(errors="replace"), 300)
                raise TapestryError(words.removeprefix("tapestry: "), done.returncode)
            found = json.loads(done.stdout)
            return {"path": str(found["path"]), "parameters": found.get("parameters", 0)}
        raise TapestryError("the model could not be written in time", FAILURE)

    def _ask(self, verb: str) -> dict[str, Any]:
        return ask(self._paths.control_socket, {"do": verb}, ASK_S)

    def _ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return ask(self._paths.text_socket, request, TRAINER_S)
        except TapestryError as error:
            if error.exit_code != NO_DAEMON:
                raise
            raise TapestryError("the trainer is not there; try again soon", NOT_READY) from error

    async def _wait(self, job: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=self._limit)


def exports(paths: Paths) -> Path:
    """Where models are put that were taken out by a click: beside the member's other files."""
    return paths.state.parent / "exports"
