"""The trainer's own state on disk: moments, cursor, parameters. Private: moments leak data.

Rule: two generations, each written whole (new file, fsync, rename, directory fsync) under a digest;
a torn or flipped byte is found at load and the older generation is used. Arrays and whole numbers
only, never code. Saving takes at most 1/50 of the time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from tapestry_p2p import bulk, crash

MAGIC = b"tapestry trainer state 1\n"
DIGEST_BYTES = 32
PAUSE_SHARE = 50  # after a save that took t seconds none for 50 t
PAUSE_S = 2.0


class StateStore:
    """Saves and loads a pytree of arrays and some counters in one directory.

    ``identity``: a hash of what the state belongs to (schema, optimizer); a state of another
    identity is not loaded.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self._directory = directory
        self._identity = identity
        self._generation = 0
        self._not_before = 0.0

    def due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return time.monotonic() >= self._not_before

    def save(self, tree: Any, counters: Mapping[str, Any]) -> None:
        """Write the next generation over the older of the two. OSError if the disk is full."""
        begin = time.monotonic()
        generation = self._generation + 1
        body = bulk.pieces(
            {
                "identity": self._identity,
                "generation": generation,
                "counters": dict(counters),
                "leaves": [_pack(leaf) for leaf in jax.tree.leaves(tree)],
            }
        )

        def fill(file: IO[bytes]) -> None:
            hasher = hashlib.sha256()
            file.write(MAGIC + bytes(DIGEST_BYTES))
            for piece in body:
                hasher.update(piece)
                file.write(piece)
            file.seek(len(MAGIC))
            file.write(hasher.digest())

        try:
            _replace(self._directory / f"state.{generation % 2}", fill)
            self._generation = generation
        finally:  # a full disk is not tried more often either
            now = time.monotonic()
            self._not_before = now + max(PAUSE_S, PAUSE_SHARE * (now - begin))

    def load(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest whole state in the form of ``like`` with its counters; None if there is none.

        A state whose arrays have other shapes or dtypes than ``like`` counts as none.
        """
        found = [_read(self._directory / f"state.{slot}") for slot in (0, 1)]
        states = [state for state in found if state and state["identity"] == self._identity]
        for state in sorted(states, key=lambda state: -state["generation"]):
            self._generation = max(self._generation, state["generation"])
            arrays = [_unpack(*leaf) for leaf in state["leaves"]]
            wanted, treedef = jax.tree.flatten(like)
            if [(a.shape, a.dtype) for a in arrays] == [(w.shape, w.dtype) for w in wanted]:
                return jax.tree.unflatten(treedef, arrays), state["counters"]
        return None


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, 0600, durable when this returns."""

    def fill(file: IO[bytes]) -> None:
        file.write(content)

    _replace(path, fill)


def _replace(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    fresh = path.with_name(path.name + ".new")
    crash.point(f"before writing {path.name}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        fresh.unlink(missing_ok=True)  # on a full disk the node waits for this room
        raise
    crash.point(f"before replacing {path.name}")
    os.replace(fresh, path)
    crash.point(f"before syncing {path.name}")
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    crash.point(f"after writing {path.name}")


def _read(path: Path) -> dict[str, Any] | None:
    """The document in a file, whose arrays are views of it. It is read before it is mapped."""
    start = len(MAGIC) + DIGEST_BYTES
    try:
        with path.open("rb") as file:
            head = file.read(start)
            hasher = hashlib.sha256()
            for piece in bulk.read(file.fileno(), start, os.fstat(file.fileno()).st_size):
                hasher.update(piece)
            if head != MAGIC + hasher.digest():
                return None
            state: dict[str, Any] = bulk.views(bulk.mapped(file.fileno())[start:])
    except OSError:
        return None
    return state


def _pack(leaf: Any) -> tuple[str, list[int], Any]:
    array = np.asarray(leaf)
    return array.dtype.name, list(array.shape), array


def _unpack(dtype: str, shape: list[int], content: memoryview) -> Any:
    return np.frombuffer(content, jax.numpy.dtype(dtype)).reshape(shape)
