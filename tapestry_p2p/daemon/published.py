"""Our public copy as peers hold it, with the entries that prove it, read beside a running node.

Reads the store's files without its lock, as `audit` does; a file that is being replaced meanwhile
is read again. Writes nothing.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapestry_p2p import bulk
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.files import Pair
from tapestry_p2p.daemon.recovery import moved
from tapestry_p2p.daemon.store import LoggedEntry, read_entries
from tapestry_p2p.errors import NOT_READY, TapestryError
from tapestry_p2p.gossip.header import SignedHeader, decode_signed
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy

TRIES = 5
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Published:
    """The copy float32[d] after the last of ``entries``, which follow one another; its root."""

    vector: Vector
    root: bytes
    entries: tuple[SignedHeader, ...]


def published(store: Path, norm_max: float) -> Published:
    """What this member has published, up to the newest entry that states a root.

    TapestryError (4) if nothing is there yet, or is being rolled back; OSError.
    """
    for attempt in range(TRIES):
        if attempt:
            time.sleep(RETRY_S)
        found = _read(store, norm_max)
        if found is not None:
            return found
    raise TapestryError("nothing was published yet; try again in a minute", NOT_READY)


def _read(store: Path, norm_max: float) -> Published | None:
    body = Pair(store / "own").view()  # before the log: that only gets longer
    if body is None:
        return None
    state = bulk.views(body)
    logged = read_entries(store)
    copy = PublicCopy(np.frombuffer(state["copy"], "<f4"))
    seq, stood = state["seq"], None
    for entry in logged:
        header = decode_signed(entry.signed).header
        if header.seq > seq:
            if not moved(copy, header, entry.payload, seq, norm_max):
                return None
            seq = header.seq
        if header.seq == seq and header.root:
            stood = seq, copy.vector.copy()
    if stood is None:
        return None
    seq, vector = stood
    entries = _leading_to(seq, logged)
    root = copy_root(PublicCopy(vector))
    if root != entries[-1].header.root:  # rolled back: the next entry states another copy
        return None
    return Published(vector, root, entries)


def _leading_to(seq: int, logged: list[LoggedEntry]) -> tuple[SignedHeader, ...]:
    """The longest run of entries without a gap that ends with entry ``seq``."""
    by_seq = {entry.seq: decode_signed(entry.signed) for entry in logged}
    run = [by_seq[seq]]
    while (before := by_seq.get(run[0].header.seq - 1)) and (
        run[0].header.prev == before.header.hash
    ):
        run.insert(0, before)
    return tuple(run)
