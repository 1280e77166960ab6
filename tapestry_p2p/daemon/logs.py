"""The node's log: one line a message, so many of a kind, nothing in it that a terminal would obey.

Knows lines, levels and where they go; not what is logged. Whatever comes is cleaned first: control
characters become escapes, words that peers may have chosen are cut, and of one kind of message
(its template in the source) only so many lines are written: the next one tells how many more there
were. Under systemd lines go to the journal with their priority; else also into a file of JSON lines
that is kept small, which ``tapestry log`` reads.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

log = logging.getLogger("tapestry.logs")

FOREIGN = ("tapestry.transport", "tapestry.node", "tapestry.fetcher")  # these speak of peers
FOREIGN_CHARS_MAX = 64
WORD_CHARS_MAX = 300  # of any other
LINE_CHARS_MAX = 1000
TRACE_CHARS_MAX = 8000
AT_ONCE = 20  # lines of one kind
EVERY_S = 30.0  # afterwards
KINDS_MAX = 512  # the source has some sixty
FILE_BYTES_MAX = 4 << 20
FILES_KEPT = 2  # older ones
FILE_NAME = "node.jsonl"
PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # <syslog.h>


@dataclass(slots=True)
class Counts:
    """What was logged by this process, and what was only counted."""

    lines: Counter[str] = field(default_factory=Counter)  # by level
    held_back: int = 0


COUNTS = Counts()  # logging is one for a process, and so is this


def clean(text: str, most: int) -> str:
    """The text in one line: control and format characters escaped, at most so many characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@dataclass
class Limit:
    """So many messages of a kind at once, then one every so often."""

    clock: Callable[[], float] = time.monotonic
    _rows: dict[object, list[float]] = field(default_factory=dict)  # kind -> [paid, held]

    def more(self, kind: object) -> int | None:
        """None: hold it back. Else write it, and say how many like it were held back before."""
        now = self.clock()
        if kind not in self._rows and len(self._rows) >= KINDS_MAX:
            kind = None  # all further ones count as one
        saved = now - AT_ONCE * EVERY_S
        row = self._rows.setdefault(kind, [saved, 0])
        paid_at = max(row[0], saved) + EVERY_S
        if paid_at > now:
            row[1] += 1
            return None
        held, row[0], row[1] = int(row[1]), paid_at, 0
        return held


class Front(logging.Handler):
    """Takes every record, cleans it, and hands what may be written to the sinks."""

    def __init__(self, sinks: list[logging.Handler], limit: Limit) -> None:
        super().__init__()
        self._sinks, self._limit = sinks, limit

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it."""
        more = self._limit.more((record.name, record.levelno, record.msg))
        if more is None:
            COUNTS.held_back += 1
            return
        COUNTS.lines[record.levelname.lower()] += 1
        row = _row(record, more)
        for sink in self._sinks:
            sink.emit(logging.makeLogRecord({"levelname": record.levelname, "msg": row}))

    def close(self) -> None:
        """Close the sinks as well."""
        for sink in self._sinks:
            sink.close()
        super().close()


def _row(record: logging.LogRecord, more: int) -> dict[str, Any]:
    """A record as plain facts, clean."""
    most = FOREIGN_CHARS_MAX if record.name in FOREIGN else WORD_CHARS_MAX
    args = record.args
    if isinstance(args, tuple):
        args = tuple(a if isinstance(a, int | float) else clean(str(a), most) for a in args)
    try:
        text = str(record.msg) % args if args else str(record.msg)
    except (TypeError, ValueError):  # a template that does not fit is our own mistake: still told
        text = f"{record.msg} {args}"
    row: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": clean(text, LINE_CHARS_MAX),
    }
    if more:
        row["more"] = more
    if record.exc_info and record.exc_info[0] is not None:
        row["trace"] = _trace(record.exc_info[1])
    return row


def _trace(error: BaseException | None) -> list[str]:
    """Where it happened; what foreign bytes may have made of the error's words is cut."""
    if error is None:
        return []
    lines = "".join(traceback.format_exception(error))[-TRACE_CHARS_MAX:].splitlines()
    return [clean(line, WORD_CHARS_MAX) for line in lines]


def as_text(row: Mapping[str, Any], *, journal: bool = False) -> str:
    """A row for people; for the journal each line begins with its priority, and no time."""
    more = f" ({row['more']} more like this)" if row.get("more") else ""
    words = f"{row['logger']}: {row['message']}{more}"
    level = str(row["level"]).upper()
    lines = [words if journal else f"{row['at']} {level} {words}"]
    lines += [f"    {line}" for line in row.get("trace", ())]
    priority = f"<{PRIORITIES.get(level, 6)}>" if journal else ""
    return "\n".join(priority + line for line in lines)


class _Text(logging.Formatter):
    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        assert isinstance(record.msg, dict)
        return as_text(record.msg, journal=self._journal)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(record.msg, ensure_ascii=False)


class _File(RotatingFileHandler):
    """A file that is kept small, for this user alone. A disk that refuses costs its lines only."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """The same line went to stderr."""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def to_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to ``stream`` goes to systemd's journal (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def install(folder: Path, form: str, stream: TextIO = sys.stderr) -> Front:
    """Let everything that is logged go to ``stream``, as "text" or "json", and into a file.

    The file is ``node.jsonl`` in ``folder``; there is none where the journal keeps the log.
    """
    journal = to_journal(stream)
    sink = logging.StreamHandler(stream)
    sink.setFormatter(_Json() if form == "json" else _Text(journal))
    sinks: list[logging.Handler] = [sink]
    path, refused = folder / FILE_NAME, ""
    try:
        if journal:
            path.unlink(missing_ok=True)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = _File(path, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, encoding="utf-8")
            file.setFormatter(_Json())
            sinks.append(file)
    except OSError as error:
        refused = str(error)
    front = Front(sinks, Limit())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(front)
    if refused:
        log.warning("no log file: %s", refused)
    return front


def rotate(path: Path) -> None:
    """Begin a new file if this one, which another process appends to, is large."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            path.replace(path.with_name(path.name + ".1"))
    except FileNotFoundError:
        return
