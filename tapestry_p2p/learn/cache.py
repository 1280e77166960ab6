"""A lock between the trainers of one machine: the first compiles, the others find it in the cache.

Rule: a file lock, freed by the system when its holder dies, so a killed trainer blocks nobody.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any


class CompileLock:
    """A context manager, used again and again; waits until no other trainer compiles."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "compile.lock"
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: Any) -> None:
        os.close(self._fd)  # frees the lock
