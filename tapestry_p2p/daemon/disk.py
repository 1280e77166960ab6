"""Writing to a disk that may refuse: in a thread, again and again, saying so meanwhile.

Knows the store's directory by name only; what is written is the caller's.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import trio

log = logging.getLogger("tapestry.node")

RETRY_S = 2.0


class Disk:
    """Where a node's state goes. ``fault`` says in plain words why nothing can be written now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.fault = ""

    async def write(self, job: Callable[[], None]) -> None:
        """Run ``job`` until it is not refused (OSError)."""
        while True:
            try:
                await trio.to_thread.run_sync(job)
                self.fault = ""
                return
            except OSError as error:
                self.fault = f"cannot write to {self._directory}: {error.strerror}"
                log.error("%s; trying again", self.fault)
                await trio.sleep(RETRY_S)
