"""What a node keeps on disk: its own stream, its model, the copies it follows, what it knows.

One directory, 0700, one lock. Own entries go to a write-ahead log, synced before the entry may be
shown to anybody, so a crash never signs two entries with one seq. The model and the own copy are
saved in two generations; what the log holds beyond them is replayed. The highest seq is marked in
a file of its own, so a log that lost its end is known for it. Damage never goes unseen: it is
reported by ``OwnState.rolled_back``, and the node then asks its peers for its own head.
"""

import contextlib
import fcntl
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapestry_p2p import bulk, crash
from tapestry_p2p.bulk import Piece
from tapestry_p2p.daemon.files import (
    DamagedError,
    Mark,
    Pair,
    open_durably,
    sealed,
    sync_directory,
    unseal_part,
    write_all,
    write_file,
)
from tapestry_p2p.daemon.past import Past
from tapestry_p2p.daemon.upgrade import bring_up, need_readable
from tapestry_p2p.daemon.vectors import VectorSpace
from tapestry_p2p.errors import TEMPORARY, TapestryError
from tapestry_p2p.mix.codec import Vector

log = logging.getLogger("tapestry.store")

_COMPACT = 4  # the log is rewritten when it holds so many times the ring
_COPY = re.compile(r"[0-9a-f]{64}")  # an author's key; whatever else lies there is not ours
_LARGE = 1 << 20  # bytes of a payload that is left in the file
_FRAME = struct.Struct("!II")  # before each record: its length, and a check of these four bytes


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One own entry as it was signed, and its payload: a large one is a view of the log's file."""

    seq: int
    signed: bytes
    payload: Piece


@dataclass(slots=True)
class OwnState:
    """The newest whole state: after entry ``seq`` the model was x and the own copy was ``copy``.

    ``head`` is the signed header of that entry, ``entries`` are the logged ones in order (the last
    ring and more), ``rolled_back`` whether anything was found damaged or missing, ``reverted``
    whether x and copy are an earlier state that the operator wants, which no entry states yet.
    Vectors are float32[d], views of the state's file.
    """

    seq: int
    round: int
    x: Vector
    copy: Vector
    head: bytes
    entries: list[LoggedEntry]
    rolled_back: bool
    reverted: bool = False


@dataclass(frozen=True, slots=True)
class FollowedCopy:
    """A peer's public copy float32[d] as it stood after ``seq``, and the signed head for it.

    Loaded ones are views of their files.
    """

    author: bytes
    seq: int
    signed: bytes
    vector: Vector


def _vector(data: memoryview) -> Vector:
    return np.frombuffer(data, "<f4")


class Store:
    """The state directory. Blocking: call it from a worker thread. ``close`` frees the lock."""

    def __init__(self, directory: Path, ring: int) -> None:
        """Open, lock, bring up to our format.

        TapestryError: 75 if another daemon holds it or it cannot be made, 7 if its format is newer.
        """
        self.directory = directory
        self._ring = ring
        try:
            need_readable(directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / "copies").mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory.parent)
            sync_directory(directory)
            self._lock = take_lock(directory)
        except OSError as error:
            raise _unusable(directory, error) from error
        try:
            logged = read_entries(directory)
            bring_up(directory, logged[-1].seq if logged else -1)
        except OSError as error:
            os.close(self._lock)
            raise _unusable(directory, error) from error
        self.space = VectorSpace(directory)
        self._own = Pair(directory / "own")
        self._known = Pair(directory / "known")
        self._shown = Mark(directory / "own.seq")  # the last entry that was safe
        self.past = Past(directory / "past", ring)
        self._rebased = False  # the copy has moved otherwise than by an entry
        self._log_path = directory / "own.log"
        self._log: int | None = None
        self._end: int | None = None  # where the next record begins; None: not read yet
        self._logged = 0
        self._compact_above = _COMPACT * ring
        self._damaged = False
        self._head = b""
        self._saved = self._saved_before = -1  # the last two own states' seqs

    def close(self) -> None:
        """Close files and give the lock back."""
        self._shown.close()
        if self._log is not None:
            os.close(self._log)
            self._log = None
        os.close(self._lock)

    def load_own(self) -> OwnState | None:
        """The own state, or None on a fresh directory."""
        entries = self._read_log()
        body = self._own.view()
        shown = self._shown.load()
        if body is None:
            if not entries and not self._own.fell_back and not self._damaged and shown < 0:
                return None
            empty = np.zeros(0, np.float32)
            return OwnState(-1, 0, empty, empty, b"", entries, True)
        state = bulk.views(body)
        if not entries and max(state["seq"], shown) < 0 and not self._damaged:
            return None  # a start that was made and never signed: look for another
        self._saved = self._saved_before = state["seq"]
        self._head = entries[-1].signed if entries else bytes(state["head"])
        gap = bool(entries) and entries[0].seq > state["seq"] + 1
        behind = not entries or entries[-1].seq < max(state["seq"], shown)
        reverted = state.get("reverted", False)
        self._rebased = self._damaged or gap or behind or reverted
        return OwnState(
            state["seq"],
            state["round"],
            _vector(state["x"]),
            _vector(state["copy"]),
            bytes(state["head"]),
            entries,
            self._damaged or gap or behind,
            reverted,
        )

    def save_own(
        self, seq: int, round_: int, x: Vector, copy: Vector, reverted: bool = False
    ) -> None:
        """Make the state after own entry ``seq``, the last appended one, durable.

        -1: the start that the first entry will name, where nobody else could make it again.
        ``reverted``: it is an earlier one; the next entry will state it.
        """
        document = {
            "seq": seq,
            "round": round_,
            "x": x,
            "copy": copy,
            "head": self._head,
            "reverted": reverted,
        }
        self._own.save_pieces(bulk.pieces(document))
        self._saved_before, self._saved = self._saved, seq
        self._rebased = self._rebased or reverted
        if seq >= 0 and not reverted and (self._rebased or self.past.due(seq)):
            with contextlib.suppress(OSError):  # the state is safe; the next one tries again
                self.past.keep(seq, round_, copy)
                self._rebased = False

    def append_entry(self, entry: LoggedEntry) -> None:
        """Write an own entry ahead: durable when this returns, and only then to be shown."""
        if self._end is None:
            sync_directory(self.directory)  # the log may have been replaced, and that refused
            logged = self._read_log()
            self._head = logged[-1].signed if logged else self._head
        if self._head != entry.signed:  # else only what came after it was refused: we try again
            if self._damaged:
                self._rewrite([*self._read_log(), entry])
            else:
                self._append(*_record(entry))
            self._head = entry.signed
        self._shown.note(entry.seq)
        if self._logged > self._compact_above:
            with contextlib.suppress(OSError):  # the entry is safe; the next one tries again
                self._compact()

    def _compact(self) -> None:
        """Keep the last twice the ring, and what saved and earlier states are led on by."""
        entries = self._read_log()
        oldest = max(0, len(entries) - 2 * self._ring)
        needed = min(self._saved_before, self.past.leads_on_from())
        kept = [e for i, e in enumerate(entries) if i >= oldest or e.seq > needed]
        if len(kept) < len(entries):
            self._rewrite(kept)
        room = max(self._ring, len(kept) // 4)
        self._compact_above = max(_COMPACT * self._ring, len(kept) + room)

    def _append(self, record: Iterable[Piece], length: int) -> None:
        if self._log is None:
            self._log = open_durably(self._log_path, os.O_WRONLY | os.O_APPEND)
        if os.lseek(self._log, 0, os.SEEK_END) != self._end:
            os.ftruncate(self._log, self._end or 0)  # half a record of a crash or a full disk
        crash.point("before appending to own.log")
        for piece in record:
            write_all(self._log, piece)
        crash.point("before syncing own.log")
        os.fsync(self._log)
        crash.point("after appending to own.log")
        self._end = (self._end or 0) + length
        self._logged += 1

    def last_payload(self, payload: Piece) -> Piece:
        """That of the entry appended last; a large one as a view of the log, if it can be had."""
        if len(payload) < _LARGE or self._end is None:
            return payload
        try:
            with self._log_path.open("rb") as file:
                return bulk.mapped(file.fileno())[self._end - len(payload) : self._end]
        except OSError as error:
            log.warning("%s: %s; an entry stays in memory", self._log_path, error.strerror)
            return payload

    def _rewrite(self, entries: list[LoggedEntry]) -> None:
        records = [_record(entry) for entry in entries]
        if self._log is not None:  # before: should a sync be refused the new file is there already
            os.close(self._log)
        self._log = self._end = None
        write_file(self._log_path, (piece for record, _ in records for piece in record))
        end = sum(length for _, length in records)
        self._end, self._logged, self._damaged = end, len(entries), False

    def _read_log(self) -> list[LoggedEntry]:
        """All whole records in order. Changes nothing on disk: damage stays to be seen again.

        ``_damaged`` is set until the log is written anew.
        """
        read = _records(self._log_path)
        self._end, self._logged, self._damaged = read.end, len(read.entries), read.damaged
        return read.entries

    def save_copy(self, followed: FollowedCopy) -> None:
        """Save a followed copy (two generations; lost ones are fetched again)."""
        document = {
            "seq": followed.seq,
            "signed": followed.signed,
            "vector": followed.vector,
        }
        pair = Pair(self.directory / "copies" / followed.author.hex())
        pair.view()
        pair.save_pieces(bulk.pieces(document))

    def load_copies(self) -> list[FollowedCopy]:
        """Every followed copy that is whole."""
        paths = (self.directory / "copies").glob("*.[01]")
        names = {path.stem for path in paths if _COPY.fullmatch(path.stem)}
        copies = []
        for name in sorted(names):
            body = Pair(self.directory / "copies" / name).view()
            if body is not None:
                found = bulk.views(body)
                vector, signed = _vector(found["vector"]), bytes(found["signed"])
                copies.append(FollowedCopy(bytes.fromhex(name), found["seq"], signed, vector))
        return copies

    def drop_copy(self, author: bytes) -> None:
        """Forget a followed copy."""
        for path in (self.directory / "copies").glob(f"{author.hex()}.[01]"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def load_known(self) -> bytes | None:
        """What the protocol knew (heads, profiles, proofs), as it was saved."""
        return self._known.load()

    def save_known(self, snapshot: bytes) -> None:
        """Save what the protocol knows."""
        self._known.save(snapshot)


def take_lock(directory: Path) -> int:
    """Its descriptor: a close gives it back. TapestryError (75) if it is taken; OSError."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise TapestryError(
            f"another daemon already runs on {directory}; stop it first (tapestry stop), "
            "or give this one a TAPESTRY_HOME of its own",
            TEMPORARY,
        ) from error
    return lock


def _unusable(directory: Path, error: OSError) -> TapestryError:
    return TapestryError(
        f"cannot use the state directory {directory}: {error.strerror}; "
        "check its owner and free space",
        TEMPORARY,
    )


@dataclass(slots=True)
class Log:
    """What a log holds: its whole records, where the next one begins, whether one is damaged."""

    entries: list[LoggedEntry]
    end: int = 0
    damaged: bool = False


def _records(path: Path) -> Log:
    """Read a log. A record cut short at the very end is none; any other wrong byte is damage."""
    log = Log([])
    try:
        with path.open("rb") as file:  # a running node may put another in its place meanwhile
            data = bulk.mapped(file.fileno())
            size = len(data)
            while log.end + _FRAME.size <= size:
                frame = os.pread(file.fileno(), _FRAME.size, log.end)
                length, check = _FRAME.unpack(frame)
                if check != _length_check(length):
                    log.damaged = True
                    break
                start = log.end + _FRAME.size
                if start + length > size:
                    break
                try:
                    log.entries.append(_entry(unseal_part(file.fileno(), data, start, length)[1]))
                except DamagedError:
                    log.damaged = True  # later entries were signed all the same
                log.end = start + length
    except FileNotFoundError:
        pass
    return log


def _entry(body: memoryview) -> LoggedEntry:
    seq, signed, payload = bulk.views(body)
    return LoggedEntry(seq, bytes(signed), payload if len(payload) >= _LARGE else bytes(payload))


def read_log(directory: Path) -> Log:
    """A store's log, without its lock: a running node may write meanwhile."""
    return _records(directory / "own.log")


def read_entries(directory: Path) -> list[LoggedEntry]:
    """The entries in it."""
    return read_log(directory).entries


def peek_entries(directory: Path) -> list[bytes]:
    """Their signed headers."""
    return [entry.signed for entry in read_entries(directory)]


def _record(entry: LoggedEntry) -> tuple[list[Piece], int]:
    """What the log holds of an entry, in pieces, and its length in bytes."""
    body = list(bulk.pieces([entry.seq, entry.signed, memoryview(entry.payload)]))
    found = sealed(entry.seq, body)
    length = sum(map(len, found))
    head = _FRAME.pack(length, _length_check(length))
    return [head, *found], _FRAME.size + length


def _length_check(length: int) -> int:
    """Tells a record cut short by a crash from one whose length was flipped."""
    return zlib.crc32(length.to_bytes(4, "big"))
