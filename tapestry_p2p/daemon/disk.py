"""Writing to a disk that may refuse: in a thread, again and again, saying so meanwhile.

Knows the store's directory by name only; what is written is the caller's.
"""

import functools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

log = logging.getLogger("tapestry.node")

RETRY_S = 2.0


class Disk:
    """Where a node's state goes. ``fault`` says in plain words why nothing can be written now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.fault = ""
        self._waiting = 0  # writes that were refused and are tried again

    async def write(self, job: Callable[[], None]) -> None:
        """Run ``job`` until it is not refused (OSError)."""
        self._waiting += 1
        try:
            await self.insist(functools.partial(self._tried, job, alone=1))
        finally:
            self._waiting -= 1

    async def attempt(self, job: Callable[[], None]) -> bool:
        """Run ``job`` once; whether it was not refused. The caller tries again."""
        return await self._tried(job, alone=0)

    async def insist(self, attempt: Callable[[], Awaitable[bool]]) -> None:
        """Attempt again and again until it is not refused."""
        while not await attempt():
            log.error("%s; trying again", self.fault)
            await trio.sleep(RETRY_S)

    async def _tried(self, job: Callable[[], None], alone: int) -> bool:
        try:
            await trio.to_thread.run_sync(job)
        except OSError as error:
            self.fault = f"cannot write to {self._directory}: {error.strerror or error}"
            return False
        if self._waiting <= alone:  # else another one says when it is over
            self.fault = ""
        return True
