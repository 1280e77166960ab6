"""`log`: what the node wrote into its log file, or where systemd's journal has it."""

import time
from collections.abc import Iterator
from json import dumps, loads
from pathlib import Path
from typing import Any, Literal

from tapestry_p2p.cli.output import note, plain
from tapestry_p2p.daemon.logs import FILE_NAME, FILES_KEPT, PRIORITIES, as_text
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import NOT_READY, OK

FOLLOW_S = 0.5
Level = Literal["debug", "info", "warning", "error"]


def log(
    *, lines: int = 50, level: Level = "debug", follow: bool = False, json: bool = False
) -> int:
    """Show the last lines of this member's log. Under systemd the journal has it: it says how.

    Exit status 4 if there is no log here.

    Example: tapestry log --level warning --follow

    Parameters
    ----------
    lines
        How many.
    level
        Only messages at least so serious.
    follow
        Go on with what is written from now on, until Ctrl-C.
    json
        Print each message as one JSON object.
    """
    paths = find_paths()
    path = paths.log / FILE_NAME
    if not path.exists():
        note(where_else(paths))
        return NOT_READY
    least = PRIORITIES[level.upper()]
    rows = [row for row in read(path) if PRIORITIES.get(row["level"].upper(), 0) <= least]
    for row in rows[-lines:] if lines > 0 else []:
        _show(row, json)
    for row in _followed(path) if follow else ():
        if PRIORITIES.get(row["level"].upper(), 0) <= least:
            _show(row, json)
    return OK


def where_else(paths: Paths) -> str:
    """Where the log is, if not in a file."""
    if paths.text is not None:
        units = " ".join(
            f"-u {unit}@{paths.state.name}" for unit in ("tapestry", "tapestry-trainer")
        )
        return f"systemd keeps the log: journalctl {units}"
    return (
        f"no log in {paths.log}: this member never ran here, or your systemd keeps it:"
        " journalctl --user -u tapestry"
    )


def read(path: Path) -> Iterator[dict[str, Any]]:
    """All rows that are kept, the oldest first; half a line at a crash is left out."""
    older = (path.with_name(f"{path.name}.{n}") for n in range(FILES_KEPT, 0, -1))
    for each in (*older, path):
        try:
            text = each.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            continue
        yield from filter(None, map(_row, text.splitlines()))


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = loads(line)
        sound = all(type(row[key]) is str for key in ("at", "level", "logger", "message"))
    except (ValueError, KeyError, TypeError):
        return None
    return row if sound else None


def _followed(path: Path) -> Iterator[dict[str, Any]]:
    """Rows as they are written, also after the file was exchanged for a new one."""
    at, inode = path.stat().st_size, path.stat().st_ino
    part = ""
    while True:
        time.sleep(FOLLOW_S)
        try:
            status = path.stat()
            if status.st_ino != inode or status.st_size < at:
                at, inode, part = 0, status.st_ino, ""
            with path.open("rb") as file:
                file.seek(at)
                data = file.read()
        except FileNotFoundError:
            continue
        at += len(data)
        *whole, part = (part + data.decode("utf-8", errors="replace")).split("\n")
        yield from filter(None, map(_row, whole))


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(dumps(row, ensure_ascii=False))
    else:
        print("\n".join(map(plain, as_text(row).splitlines())), flush=True)
