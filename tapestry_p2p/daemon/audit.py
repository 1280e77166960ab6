"""What left this machine: a line for each entry of ours that was signed, each sealed by the next.

Knows the form of a line and the files. Every line holds the SHA-256 of the line before, so that
none can be changed or taken out unseen; the newest few could be cut off, which the store's own log
shows. It is a record, not evidence: who may write here may write it all anew. Old files go as a
whole when there is too much; from then on what is left is a chain from its first line on.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tapestry_p2p import crash
from tapestry_p2p.bulk import Piece
from tapestry_p2p.gossip.header import decode_signed

FILE_BYTES_MAX = 8 << 20  # then the next file begins
FILES_MAX = 8  # some 250,000 entries
LINE_BYTES_MAX = 4096
BEGINNING = "0" * 64
FIRST = "audit-0.jsonl"
LOOKED_AT = 2  # newest files, at a start


@dataclass(frozen=True, slots=True)
class Left:
    """One entry that left: its kind, numbers and hashes (64 hex)."""

    kind: str
    seq: int
    round: int
    header: str  # the header's hash, by which peers know the entry
    header_bytes: int
    payload: str  # SHA-256 of the payload
    payload_bytes: int


def left_by(signed: bytes, payload: Piece) -> Left:
    """What an entry of ours, as it was signed, says of itself."""
    header = decode_signed(signed).header
    digest = hashlib.sha256(payload).hexdigest()
    return Left(
        header.kind, header.seq, header.round, header.hash.hex(), len(signed), digest, len(payload)
    )


class AuditLog:
    """Appends to ``audit-N.jsonl`` in a folder. Blocking; OSError if the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.written = 0  # lines, since this began
        self._last: str | None = None  # hash of the last line; None: to be read

    def append(self, left: Left, at: float) -> None:
        """Note an entry, at a time in seconds since 1970.

        Not synced: after a power cut the last lines may be gone; `catch_up` notes them again.
        """
        path = self._newest()
        line = json.dumps(
            {
                "at": datetime.fromtimestamp(int(at), UTC).isoformat(),
                **{name: getattr(left, name) for name in Left.__slots__},
                "before": self._last,
            },
            separators=(",", ":"),
        ).encode()
        self._last = None  # if the disk takes half of it
        crash.point("before noting what leaves")
        with open(path, "ab", opener=_private) as file:
            file.write(line + b"\n")
        crash.point("after noting what leaves")
        self._last = hashlib.sha256(line).hexdigest()
        self.written += 1

    def catch_up(self, entries: list[Left], at: float) -> None:
        """Note which of these, the newest that the store holds, are not noted.

        Looks at the newest files alone: they hold far more entries than a store.
        """
        found = numbered(self._folder)
        wanted = {left.header for left in entries}
        noted, oldest = set(), None
        for _, line in _lines(found[-LOOKED_AT:]):
            row = _row(line)
            if row is not None:
                oldest = row["seq"] if oldest is None else min(oldest, row["seq"])
                if row["header"] in wanted:
                    noted.add(row["header"])
        let_go = -1 if oldest is None or found[-LOOKED_AT:][0] == self._folder / FIRST else oldest
        for left in entries:
            if left.header not in noted and left.seq >= let_go:
                self.append(left, at)

    def _newest(self) -> Path:
        """The file to write to, whole up to its end."""
        found = numbered(self._folder)
        path = found[-1] if found else self._folder / FIRST
        if self._last is None:
            lasts = (_mended(each) for each in reversed(found))
            self._last = next((last for last in lasts if last), BEGINNING)
        if path.exists() and path.stat().st_size > FILE_BYTES_MAX:
            path = self._folder / f"audit-{_number(path) + 1}.jsonl"
            for old in found[: len(found) + 1 - FILES_MAX]:
                old.unlink(missing_ok=True)
        return path


def numbered(folder: Path) -> list[Path]:
    """The log's files, oldest first."""
    paths = [path for path in folder.glob("audit-*.jsonl") if path.stem[6:].isdecimal()]
    return sorted(paths, key=_number)


def _number(path: Path) -> int:
    return int(path.stem[6:])


def _mended(path: Path) -> str:
    """Cut half a line off the end of ``path`` (a crash); the hash of the last whole one, or ''."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    lines = whole.splitlines()
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@dataclass(slots=True)
class Verified:
    """What a reading of the log found."""

    rows: list[dict[str, Any]]
    faults: list[str]


def verify(folder: Path, signed: dict[int, str]) -> Verified:
    """Read all files: is the chain whole, does it hold every entry that the store holds?

    ``signed``: seq -> header hash of the entries that the store's log holds.
    """
    found = Verified([], [])
    paths = numbered(folder)
    whole = not paths or paths[0].name == FIRST  # no file was let go yet
    before: str | None = BEGINNING if whole else None
    for name, line in _lines(paths):
        row = _row(line)
        if row is None:
            found.faults.append(f"{name}: not a line of ours")
        else:
            found.rows.append(row)
            if before is not None and row["before"] != before:
                found.faults.append(f"{name}: the line before was changed or is missing")
        before = hashlib.sha256(line).hexdigest()
    held = {(row["seq"], row["header"]) for row in found.rows}
    oldest = -1 if whole else min((row["seq"] for row in found.rows), default=0)
    missing = [seq for seq, header in signed.items() if (seq, header) not in held]
    if lost := sorted(seq for seq in missing if seq >= oldest):
        found.faults.append(f"entries that were signed are not in it: {lost[0]} to {lost[-1]}")
    return found


def _row(line: bytes) -> dict[str, Any] | None:
    """A line's content; None if it is none of ours."""
    try:
        row = json.loads(line)
        sound = type(row["seq"]) is int and {type(row[key]) for key in ("header", "before")} == {
            str
        }
    except (ValueError, KeyError, TypeError):
        return None
    return row if sound else None


def _lines(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX):
                number += 1
                yield f"{path.name} line {number}", line.rstrip(b"\n")
