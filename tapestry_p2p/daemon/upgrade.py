"""The store's format: which one lies there, how an older one becomes ours, why a newer is refused.

1   before there was a file `format`: no mark of the highest entry, less in what is known of others
2   a mark (own.seq), cited proofs, probation

Each step may be done twice: the file `format` is written last, so whoever is killed in between
begins again. Knows files; called by the store once it holds the lock.
"""

import logging
from pathlib import Path

import msgpack

from tapestry_p2p.daemon.files import DamagedError, Mark, Pair, seal, unseal, write_file
from tapestry_p2p.errors import VERSION, TapestryError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.known import decode_known

log = logging.getLogger("tapestry.store")

FORMAT = 2
FILE = "format"


def found_format(folder: Path) -> int:
    """The format that lies there; 0 if there is no store yet, 1 also if nobody can tell."""
    try:
        return unseal((folder / FILE).read_bytes())[0]
    except FileNotFoundError:
        begun = any((folder / name).exists() for name in ("own.log", "own.0", "known.0"))
        return 1 if begun else 0
    except DamagedError:
        return 1  # the steps from there on change nothing in a store that is newer


def need_readable(folder: Path) -> int:
    """`found_format`; TapestryError (7) if it is newer than ours."""
    found = found_format(folder)
    if found > FORMAT:
        raise TapestryError(
            f"{folder} was written by a newer version (store format {found}, this one reads up to"
            f" {FORMAT}): install that version again, or restore the backup made before it",
            VERSION,
        )
    return found


def bring_up(folder: Path, highest: int) -> None:
    """Make the store one of our format. ``highest``: seq of the last entry in its log. OSError."""
    found = need_readable(folder)
    if found == FORMAT:
        return
    if found == 1:
        _mark(folder, highest)
        _tell_more(folder)
        log.info("the store is of format %d now", FORMAT)
    write_file(folder / FILE, seal(FORMAT, b""))


def _mark(folder: Path, highest: int) -> None:
    """Mark the highest entry that is known to be durable."""
    body = Pair(folder / "own").load()
    if body is not None:
        highest = max(highest, msgpack.unpackb(body)["seq"])
    mark = Mark(folder / "own.seq")
    if mark.load() < highest:
        mark.note(highest)
    mark.close()


def _tell_more(folder: Path) -> None:
    """Write what is known of others as it is written today."""
    known = Pair(folder / "known")
    body = known.load()
    if body is None:
        return
    try:
        today = decode_known(body).encode()
    except Malformed:
        log.warning("what we knew of others cannot be read: it is asked for again")
        return
    if today != body:
        known.save(today)
