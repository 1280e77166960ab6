"""What survives a simulated crash: own entries with payloads, copies, what was known of others.

Losing the newest entries is how a restored backup looks from inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.gossip.header import DIFFERENCE, SignedHeader
from tapestry_p2p.gossip.known import Known, decode_known
from tapestry_p2p.mix.copy import PublicCopy

Vector = NDArray[np.float32]
NORM_MAX = 1e6


@dataclass
class Disk:
    """One member's state directory."""

    entries: list[tuple[SignedHeader, bytes]] = field(default_factory=list)
    copies: dict[bytes, tuple[SignedHeader, Vector]] = field(default_factory=dict)
    known: bytes = b""
    rolled_back: bool = False  # and the member can tell (an older generation was used)

    def knowledge(self) -> Known:
        """What a restarted protocol starts from."""
        stored = decode_known(self.known) if self.known else Known()
        return Known(
            own=tuple(signed for signed, _ in self.entries),
            seen=stored.seen,
            copies=tuple(signed for signed, _ in self.copies.values()),
            profiles=stored.profiles,
            proofs=stored.proofs,
            retired=stored.retired,
        )

    def own_copy(self, genesis: Vector) -> PublicCopy:
        """Our public copy: genesis plus the differences of the log."""
        copy = PublicCopy(genesis)
        for signed, payload in self.entries:
            if signed.header.kind == DIFFERENCE:
                copy.add(copy.decoded(signed.header.codec, payload, float("inf")))
        return copy

    def lose(self, count: int) -> None:
        """The newest ``count`` entries are gone."""
        self.entries = self.entries[: max(0, len(self.entries) - count)]
        self.rolled_back = True
