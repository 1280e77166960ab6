"""The mark that a member has left its network: written before the goodbye, taken away by `join`.

Knows the file alone, and imports nothing heavy: every verb may look.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tapestry_p2p.daemon.files import sync_directory, write_file
from tapestry_p2p.errors import REFUSED, TapestryError

MARK = "left"  # in the store's folder
MARK_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Departure:
    """What is noted of it. ``entry`` is -1 while nothing is signed; ``told``: how many hold it."""

    network_id: str
    network: str
    entry: int = -1
    told: int = 0


def departure(store: Path) -> Departure | None:
    """How this member left its network; None if it did not. TapestryError (1) if unreadable."""
    path = store / MARK
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MARK_BYTES_MAX))
        return Departure(
            str(found["network_id"]), str(found["network"]), int(found["entry"]), int(found["told"])
        )
    except (FileNotFoundError, NotADirectoryError):  # a broken store is told of elsewhere
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TapestryError(
            f"{path} says that this member has left, and cannot be read; remove it if it has not"
        ) from error


def note(store: Path, found: Departure) -> None:
    """Write it down, durably. OSError if the disk refuses."""
    write_file(store / MARK, json.dumps(asdict(found)).encode() + b"\n")


def come_back(store: Path) -> None:
    """Take the mark away: the next start asks, and goes on by a ``resume``. OSError."""
    (store / MARK).unlink(missing_ok=True)
    if store.exists():
        sync_directory(store)


def need_member(store: Path) -> None:
    """TapestryError (6) if this member has left, or was about to."""
    found = departure(store)
    if found is None:
        return
    again = "" if found.told else "; perhaps nobody has heard yet: tapestry leave tells them again"
    raise TapestryError(
        f"this member has left {found.network} ({found.network_id[:16]}...) and does not run;"
        f" to come back: tapestry join, with an invite link or with its network.toml{again}",
        REFUSED,
    )
