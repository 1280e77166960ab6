"""What left this machine, added up from the audit log's files as they grow.

Knows the form of a line (daemon/audit.py) and the manifest's number of parameters; reads only, and
reads each byte once. A file that cannot be read (another user's service) is said, not guessed.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from tapestry_p2p.page.facts import whole
from tapestry_p2p.page.names import clean

READ_BYTES_MAX = 16 << 20  # in one go
LINE_BYTES_MAX = 8192
RECENT = 8
FLOAT_BYTES = 4
MANIFEST_BYTES_MAX = 1 << 20
KINDS_MAX = 32


class Left:
    """Sums of the audit log in ``folder``. ``manifest``: network.toml, for the model's size."""

    def __init__(self, folder: Path, manifest: Path) -> None:
        self._folder, self._manifest = folder, manifest
        self._at: dict[str, int] = {}  # file -> bytes read
        self._kinds: dict[str, list[int]] = {}  # kind -> [entries, bytes]
        self._recent: list[dict[str, Any]] = []
        self._since = ""

    def look(self) -> dict[str, Any]:
        """Read what is new; the sums. Blocking."""
        try:
            paths = [p for p in self._folder.glob("audit-*.jsonl") if p.stem[6:].isdecimal()]
            for path in sorted(paths, key=lambda path: int(path.stem[6:])):
                self._read(path)
            readable = self._folder.is_dir()
        except OSError:
            readable = False
        differences = self._kinds.get("difference", [0, 0])
        return {
            "readable": readable,
            "kinds": [
                {"kind": kind, "entries": entries, "bytes": size}
                for kind, (entries, size) in sorted(self._kinds.items())
            ],
            "entries": sum(entries for entries, _ in self._kinds.values()),
            "bytes": sum(size for _, size in self._kinds.values()),
            "differences_bytes": differences[1],
            "dense_bytes": differences[0] * FLOAT_BYTES * parameters(self._manifest),
            "since": self._since,
            "recent": self._recent[::-1],
        }

    def _read(self, path: Path) -> None:
        start = self._at.get(path.name, 0)
        if path.stat().st_size <= start:
            return
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(READ_BYTES_MAX)
        end = data.rfind(b"\n") + 1
        if not end and len(data) > LINE_BYTES_MAX:
            end = len(data)  # no line of ours
        self._at[path.name] = start + end
        for line in data[:end].splitlines():
            self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            row = json.loads(line) if len(line) <= LINE_BYTES_MAX else None
        except (ValueError, RecursionError):
            return
        if not isinstance(row, dict):
            return
        kind = clean(row.get("kind"), 20)
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind = "else"
        size = whole(row.get("header_bytes")) + whole(row.get("payload_bytes"))
        counts = self._kinds.setdefault(kind, [0, 0])
        counts[0] += 1
        counts[1] += size
        at = clean(row.get("at"), 32)
        self._since = self._since or at
        shown = {"at": at, "kind": kind, "bytes": size, "round": whole(row.get("round"))}
        self._recent = [*self._recent[1 - RECENT :], shown]


def parameters(manifest: Path) -> int:
    """How many parameters the network shares; 0 if network.toml cannot be read."""
    try:
        with manifest.open("rb") as file:
            tables = tomllib.loads(file.read(MANIFEST_BYTES_MAX).decode())
        return whole(tables["schema"]["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def log_tail(
    path: Path, rows_max: int = 100, read_bytes_max: int = 48 << 10
) -> list[dict[str, str]]:
    """The newest lines of the node's own log; none if there is no file. Blocking."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - read_bytes_max))
            data = file.read(read_bytes_max)
    except OSError:
        return []
    rows = []
    for line in data.splitlines()[-rows_max:]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the first one is cut, the last one may still be written
        if isinstance(row, dict):
            rows.append(
                {
                    "at": clean(row.get("at"), 32),
                    "level": clean(row.get("level"), 10),
                    "message": clean(row.get("message"), 1000),
                }
            )
    return rows
