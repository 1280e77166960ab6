"""What the parts of the protocol share: tables, the time, the tally, the effects of this step.

Holds no rule of the protocol. Only protocol.py makes one; inbox, exchange, roster and pursuit
each get the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tapestry_p2p.gossip.effects import Drop, Effect
from tapestry_p2p.gossip.fork import ForkProof
from tapestry_p2p.gossip.header import SignedHeader, Verify
from tapestry_p2p.gossip.links import Links
from tapestry_p2p.gossip.membership import Membership
from tapestry_p2p.gossip.neighbours import Neighbours
from tapestry_p2p.gossip.own import OwnStream
from tapestry_p2p.gossip.probation import Probation
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.gossip.shunned import Shunned
from tapestry_p2p.gossip.streams import Stream
from tapestry_p2p.gossip.verdict import Judgement, Tally, Verdict


@dataclass
class State:
    """One member's protocol state."""

    settings: Settings
    public_key: bytes
    random: Random
    verify: Verify
    now: float
    own: OwnStream
    links: Links
    membership: Membership
    neighbours: Neighbours
    probation: Probation
    shunned: Shunned
    round: int = 0  # our own newest
    turn: bytes | None = None  # the newcomer who is followed, and mixed a little
    streams: dict[bytes, Stream] = field(default_factory=dict)
    retired: dict[bytes, SignedHeader] = field(default_factory=dict)
    proofs: dict[bytes, ForkProof] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    effects: list[Effect] = field(default_factory=list)
    touched: set[bytes] = field(default_factory=set)  # authors to look at after this event

    def emit(self, effect: Effect) -> None:
        """Add an effect of this step."""
        self.effects.append(effect)

    def newest(self, author: bytes) -> SignedHeader | None:
        """The highest signed header held of anybody."""
        if author in self.retired:
            return self.retired[author]
        if author == self.public_key:
            return self.own.head
        stream = self.streams.get(author)
        return stream.newest if stream else None

    def kept(self, author: bytes) -> dict[int, SignedHeader]:
        """The headers held of anybody, by seq."""
        if author == self.public_key:
            return self.own.kept
        stream = self.streams.get(author)
        return stream.kept if stream else {}

    def count(self, judgement: Judgement, peer: bytes) -> None:
        """Count a verdict; a peer that earned too many REJECTs is dropped."""
        self.tally.add(judgement)
        if judgement.verdict is not Verdict.REJECT:
            return
        link = self.links.get(peer)
        if link is not None and link.connected:
            link.blames.take(1, self.now)
            if link.is_barred(self.now):
                self.drop(peer, "too_many_rejects", fault=True)

    def drop(self, peer: bytes, reason: str, fault: bool = False) -> None:
        """Close a connection and do not dial soon."""
        self.emit(Drop(peer, reason, fault))
        self.links.disconnect(peer, self.now)
        self.links.shun(peer, self.now)
