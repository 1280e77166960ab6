"""What a node keeps on disk: its own stream, its model, the copies it follows, what it knows.

One directory, 0700, one lock. Own entries go to a write-ahead log, synced before the entry may be
shown to anybody, so a crash never signs two entries with one seq. The model and the own copy are
saved in two generations; what the log holds beyond them is replayed. Damage never goes unseen:
it is reported by ``OwnState.rolled_back``, and the node then asks its peers for its own head.
"""

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from tapestry_p2p.daemon.files import (
    DamagedError,
    Pair,
    seal,
    sync_directory,
    unseal,
    write_all,
    write_file,
)
from tapestry_p2p.errors import TEMPORARY, TapestryError
from tapestry_p2p.mix.codec import Vector

_COMPACT = 4  # the log is rewritten when it holds so many times the ring


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One own entry as it was signed, and its payload."""

    seq: int
    signed: bytes
    payload: bytes


@dataclass(slots=True)
class OwnState:
    """The newest whole state: after entry ``seq`` the model was x and the own copy was ``copy``.

    ``entries`` are the logged entries in order (the last ring and more), ``rolled_back`` whether
    anything was found damaged or missing. Vectors are float32[d].
    """

    seq: int
    round: int
    x: Vector
    copy: Vector
    entries: list[LoggedEntry]
    rolled_back: bool


@dataclass(frozen=True, slots=True)
class FollowedCopy:
    """A peer's public copy float32[d] as it stood after ``seq``, and the signed head for it."""

    author: bytes
    seq: int
    signed: bytes
    vector: Vector


def _pack(document: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(document)
    return packed


def _vector(data: bytes) -> Vector:
    return np.frombuffer(data, "<f4").astype(np.float32)


class Store:
    """The state directory. Blocking: call it from a worker thread. ``close`` frees the lock."""

    def __init__(self, directory: Path, ring: int) -> None:
        """Open and lock; TapestryError (75) if another daemon holds it or it cannot be made."""
        self.directory = directory
        self._ring = ring
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / "copies").mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise TapestryError(
                f"cannot use the state directory {directory}: {error.strerror}; "
                "check its owner and free space",
                TEMPORARY,
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise TapestryError(
                f"another daemon already runs on {directory}; stop it first (tapestry stop), "
                "or give this one a TAPESTRY_HOME of its own",
                TEMPORARY,
            ) from error
        self._own = Pair(directory / "own")
        self._known = Pair(directory / "known")
        self._log_path = directory / "own.log"
        self._log: int | None = None
        self._logged = 0

    def close(self) -> None:
        """Close files and give the lock back."""
        if self._log is not None:
            os.close(self._log)
            self._log = None
        os.close(self._lock)

    def load_own(self) -> OwnState | None:
        """The own state, or None on a fresh directory."""
        entries, torn_middle = self._read_log()
        body = self._own.load()
        if body is None:
            if not entries and not self._own.fell_back:
                return None
            empty = np.zeros(0, np.float32)
            return OwnState(-1, 0, empty, empty, entries, True)
        state = msgpack.unpackb(body)
        gap = bool(entries) and entries[0].seq > state["seq"] + 1
        behind = not entries or entries[-1].seq < state["seq"]
        rolled_back = torn_middle or gap or behind
        return OwnState(
            state["seq"],
            state["round"],
            _vector(state["x"]),
            _vector(state["copy"]),
            entries,
            rolled_back,
        )

    def save_own(self, seq: int, round_: int, x: Vector, copy: Vector) -> None:
        """Make the state after own entry ``seq`` durable."""
        document = {"seq": seq, "round": round_, "x": x.tobytes(), "copy": copy.tobytes()}
        self._own.save(_pack(document))

    def append_entry(self, entry: LoggedEntry) -> None:
        """Write an own entry ahead: durable when this returns, and only then to be shown."""
        if self._log is None:
            self._log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            sync_directory(self.directory)
        start = os.lseek(self._log, 0, os.SEEK_END)
        try:
            write_all(self._log, _record(entry))
            os.fsync(self._log)
        except OSError:
            os.ftruncate(self._log, start)  # a full disk must not leave half a record behind
            raise
        self._logged += 1
        if self._logged > _COMPACT * self._ring:
            self._compact()

    def discard_log(self) -> None:
        """Forget logged entries (after a resume they no longer lead to the copy)."""
        if self._log is not None:
            os.close(self._log)
            self._log = None
        write_file(self._log_path, b"")
        self._logged = 0

    def _compact(self) -> None:
        entries, _ = self._read_log()
        kept = entries[-2 * self._ring :]
        if self._log is not None:
            os.close(self._log)
            self._log = None
        write_file(self._log_path, b"".join(_record(entry) for entry in kept))
        self._logged = len(kept)

    def _read_log(self) -> tuple[list[LoggedEntry], bool]:
        """Whole records in order, and whether damage lies before the end.

        A record cut short at the very end was never shown to anybody: it is dropped silently.
        """
        try:
            data = self._log_path.read_bytes()
        except FileNotFoundError:
            return [], False
        entries: list[LoggedEntry] = []
        position = 0
        damaged = False
        while position + 4 <= len(data):
            (length,) = struct.unpack_from("!I", data, position)
            piece = data[position + 4 : position + 4 + length]
            if len(piece) < length:
                break
            try:
                _, body = unseal(piece)
            except DamagedError:
                damaged = True
                break
            seq, signed, payload = msgpack.unpackb(body)
            entries.append(LoggedEntry(seq, signed, payload))
            position += 4 + length
        if position < len(data) and self._log is None:
            with open(self._log_path, "r+b") as file:
                file.truncate(position)
                os.fsync(file.fileno())
        self._logged = len(entries)
        return entries, damaged

    def save_copy(self, followed: FollowedCopy) -> None:
        """Save a followed copy (two generations; lost ones are fetched again)."""
        document = {
            "seq": followed.seq,
            "signed": followed.signed,
            "vector": followed.vector.tobytes(),
        }
        pair = Pair(self.directory / "copies" / followed.author.hex())
        pair.load()
        pair.save(_pack(document))

    def load_copies(self) -> list[FollowedCopy]:
        """Every followed copy that is whole."""
        names = {path.stem for path in (self.directory / "copies").glob("*.[01]")}
        copies = []
        for name in sorted(names):
            body = Pair(self.directory / "copies" / name).load()
            if body is not None:
                found = msgpack.unpackb(body)
                vector = _vector(found["vector"])
                copies.append(
                    FollowedCopy(bytes.fromhex(name), found["seq"], found["signed"], vector)
                )
        return copies

    def drop_copy(self, author: bytes) -> None:
        """Forget a followed copy."""
        for path in (self.directory / "copies").glob(f"{author.hex()}.[01]"):
            path.unlink(missing_ok=True)

    def load_known(self) -> bytes | None:
        """What the protocol knew (heads, profiles, proofs), as it was saved."""
        return self._known.load()

    def save_known(self, snapshot: bytes) -> None:
        """Save what the protocol knows."""
        self._known.save(snapshot)


def _record(entry: LoggedEntry) -> bytes:
    sealed = seal(entry.seq, msgpack.packb([entry.seq, entry.signed, entry.payload]))
    return struct.pack("!I", len(sealed)) + sealed
