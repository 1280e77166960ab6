"""XLA's compiled programs on disk, and a lock between the trainers of one machine.

Rule: programs are found by what they compute, wherever the folder lies, so members share them. The
first trainer compiles, the others find it; the system frees the lock of one that is killed. XLA's
cache notices a file half written, says so, and compiles.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any


def use_cache(directory: Path) -> None:
    """Keep what is compiled in this folder, and look for it there. OSError."""
    import jax

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # Caches of XLA's own for GPUs: their path would be part of what a program is found by.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


class CompileLock:
    """A context manager, used again and again: of those who compile ``what``, one at a time.

    Once it was compiled (`compiled`) nobody waits: it is found. Should that be wrong, since the
    code behind the name changed, some compile it at once, which costs time and nothing else.
    """

    def __init__(self, directory: Path, *what: object) -> None:
        named = hashlib.sha256(repr(what).encode()).hexdigest()
        self._path = directory / "compile.lock"
        self._done = directory / f"{named[:32]}.compiled"
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not self._done.exists():
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        if self._done.exists():
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def __exit__(self, *_: Any) -> None:
        os.close(self._fd)  # frees the lock

    def compiled(self) -> None:
        """All of it is in the folder."""
        self._done.touch(mode=0o600)
