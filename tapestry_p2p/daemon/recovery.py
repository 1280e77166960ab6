"""What a restarted node starts from: the stored state with the log's entries replayed onto it.

Reads the store, decodes entries, checks roots. Opens no socket and decides nothing but whether the
store went back in time, which the node then heals by a ``resume``.
"""

import logging
from dataclasses import dataclass, field, replace

from tapestry_p2p.bulk import Piece
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.store import FollowedCopy, LoggedEntry, OwnState, Store
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.header import DIFFERENCE, Header, SignedHeader, decode_signed
from tapestry_p2p.gossip.known import Known, decode_known
from tapestry_p2p.mix.codec import CodecError, Vector
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.space import Space

log = logging.getLogger("tapestry.recovery")


@dataclass
class Recovered:
    """Vectors are float32[d]; ``seq`` is -1 and the vectors None on a fresh start."""

    seq: int = -1
    round: int = 0
    x: Vector | None = None
    copy: Vector | None = None
    entries: list[LoggedEntry] = field(default_factory=list)
    copies: list[FollowedCopy] = field(default_factory=list)
    known: Known = field(default_factory=Known)
    rolled_back: bool = False
    reverted: bool = False  # the operator wants an earlier state, which the next entry states


def recover(store: Store, parameters: int, norm_max: float) -> Recovered:
    """Everything that the store still holds, consistent with itself."""
    found = Recovered(known=_known(store))
    state = store.load_own()
    if state is not None:
        _replay(found, state, parameters, norm_max, store.space)
    own = _own_headers(found.known, state)
    if own and own[-1].header.seq > found.seq:
        found.rolled_back = True  # we signed more than the copy holds
    found.copies = [copy for copy in store.load_copies() if len(copy.vector) == parameters]
    found.known = replace(
        found.known, own=own, copies=tuple(decode_signed(copy.signed) for copy in found.copies)
    )
    return found


def _own_headers(known: Known, state: OwnState | None) -> tuple[SignedHeader, ...]:
    """What we are known to have signed, by seq, wherever it is written; the log knows best."""
    by_seq = {signed.header.seq: signed for signed in known.own}
    if state is not None:
        logged = [entry.signed for entry in state.entries]
        for signed in map(decode_signed, [*filter(None, [state.head]), *logged]):
            by_seq[signed.header.seq] = signed
    return tuple(by_seq[seq] for seq in sorted(by_seq))


def _known(store: Store) -> Known:
    data = store.load_known()
    try:
        return decode_known(data) if data is not None else Known()
    except Malformed:
        log.warning("what we knew of others is of another version; starting without it")
        return Known()


def _replay(
    found: Recovered, state: OwnState, parameters: int, norm_max: float, space: Space
) -> None:
    """Move the stored copy along the logged entries; stop at the first that does not fit."""
    found.entries, found.rolled_back = state.entries, state.rolled_back
    found.round = state.round
    if len(state.copy) != parameters:
        found.rolled_back = True
        return
    copy = PublicCopy(state.copy, space)
    found.seq, found.x = state.seq, state.x
    for entry in state.entries:
        if entry.seq <= found.seq:
            continue
        header = decode_signed(entry.signed).header
        if not moved(copy, header, entry.payload, found.seq, norm_max):
            found.rolled_back = True
            break
        found.seq = entry.seq
        if header.kind == DIFFERENCE:
            found.round = header.round
            found.x = copy.vector  # what the coding lost of x is lost with it, and heals
    found.reverted = state.reverted and found.seq == state.seq
    found.copy = copy.vector


def moved(copy: PublicCopy, header: Header, payload: Piece, seq: int, norm_max: float) -> bool:
    """Whether an entry of ours leads on from ``seq``; the copy then stands at it."""
    if header.kind == DIFFERENCE:
        if header.seq != seq + 1:
            return False
        try:
            copy.advance(header.codec, payload, norm_max)
        except CodecError:
            return False
    return not header.root or copy_root(copy) == header.root
