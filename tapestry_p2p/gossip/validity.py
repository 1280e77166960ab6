"""What a lone header must satisfy under this manifest: a table of kinds, and no state.

Everything here could have been checked by whoever sent or passed on the header, so a breach is
always its sender's fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from tapestry_p2p.gossip.adoption import ADOPT_BYTES_MAX
from tapestry_p2p.gossip.header import (
    ADOPT,
    DIFFERENCE,
    GENESIS,
    INCARNATION_BYTES,
    LEAVE,
    NO_HASH,
    PROFILE,
    RESUME,
    RETIRE,
    SEQ_MAX,
    Header,
)
from tapestry_p2p.gossip.profile import PROFILE_BYTES_MAX
from tapestry_p2p.gossip.settings import Settings


@dataclass(frozen=True)
class Form:
    """What entries of one kind look like. ``root`` is ``must``, ``may`` or ``never``."""

    position: str  # "first" seq 0, "later" 1 .. SEQ_MAX-1, "last" SEQ_MAX
    payload: str  # "none", "difference", or one chunk of a "profile" or an "adoption"
    root: str
    cites: bool  # whether it may cite a hash


FORMS = {
    GENESIS: Form("first", "none", "must", False),
    DIFFERENCE: Form("later", "difference", "may", False),
    PROFILE: Form("later", "profile", "may", False),
    RESUME: Form("later", "none", "must", True),
    LEAVE: Form("later", "none", "may", False),
    RETIRE: Form("last", "none", "never", False),  # signed in advance, valid after any entry
    ADOPT: Form("first", "adoption", "must", False),
}


CHUNK_BYTES_MAX = {"profile": PROFILE_BYTES_MAX, "adoption": ADOPT_BYTES_MAX}


def breach(header: Header, settings: Settings) -> str:
    """The reason to refuse the header whoever wrote it, or ``""``."""
    form = FORMS[header.kind]
    if header.network != settings.network:
        return "other_network"
    if not _position_fits(header, form):
        return "position"
    if not _payload_fits(header, form, settings):
        return "payload"
    if (form.root == "must" and not header.root) or (form.root == "never" and header.root):
        return "root_missing"
    if header.cites and not form.cites:
        return "cites"
    if header.kind == GENESIS and settings.genesis_root not in (b"", header.root):
        return "other_genesis"
    return ""


def _position_fits(header: Header, form: Form) -> bool:
    if form.position == "first":
        return header.seq == 0 and header.prev == NO_HASH
    if form.position == "last":
        unbound = header.prev == NO_HASH and header.incarnation == bytes(INCARNATION_BYTES)
        return header.seq == SEQ_MAX and unbound
    return 0 < header.seq < SEQ_MAX


def _payload_fits(header: Header, form: Form, settings: Settings) -> bool:
    if form.payload == "difference":
        wanted = settings.codecs.get(header.codec, 0)
        sized = wanted > 0 and header.payload_bytes == wanted
        return sized and len(header.chunks) == settings.chunks_of(wanted)
    if header.codec:
        return False
    if form.payload in CHUNK_BYTES_MAX:
        fits = 0 < header.payload_bytes <= CHUNK_BYTES_MAX[form.payload]
        return fits and len(header.chunks) == 1
    return header.payload_bytes == 0 and not header.chunks
