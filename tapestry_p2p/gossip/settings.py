"""Every number the protocol depends on, with its unit and what moving it costs.

The first block comes from the manifest and is equal for all members; the rest is one machine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tapestry_p2p.gossip.header import CHUNKS_MAX
from tapestry_p2p.gossip.merkle import CHUNK_BYTES


@dataclass(frozen=True)
class Settings:
    """The manifest's part and the machine's part of the protocol's knobs."""

    network: bytes  # 32, the network id
    codecs: Mapping[str, int]  # codec name -> exact payload bytes of a difference
    genesis_root: bytes = b""  # 32, root of the manifest's vector; b"" leaves it unchecked
    wire: int = 1
    ring: int = 16  # entries kept; a larger gap goes by keyframe, so more costs only disk
    chunk_bytes_max: int = CHUNK_BYTES
    all_to_all_max: int = 17  # members that all follow one another, oneself included
    k: int = 16  # links of each member where there are more; fewer cost less and tolerate less
    f: int = 0  # hostile neighbours tolerated
    entries_per_minute_max: int = 6000  # per author; lower holds back a flood, and a fast member
    probation_rounds: int = 0  # own rounds for which a new author weighs little; 0: no probation
    founders: frozenset[bytes] = frozenset()  # genesis members: never new

    bootstrap: tuple[tuple[bytes, tuple[str, ...]], ...] = ()  # inviters: (public key, addresses)
    trusted: frozenset[bytes] = frozenset()  # by this machine's operator: never new
    blocked: frozenset[bytes] = frozenset()  # by the same: never followed, connections refused
    milestone: int = 64  # headers at multiples are kept, so that old forks can be proved
    milestones_max: int = 32
    message_bytes_max: int = 65_536
    peers_max: int = 64  # connections, and remembered ones
    streams_max: int = 64  # authors with a head held; more costs some 10 kB each
    members_max: int = 256
    view_max: int = 96  # members listed where they are more than streams_max: a sample of them
    sample: int = 1  # strangers shown to a peer after each of its digests, where there are so many
    members_per_block_max: int = 8  # profiles only heard of, per address block
    tombstones_max: int = 512
    proofs_max: int = 64

    digest_every_s: float = 5.0  # anti-entropy with each peer; lower heals sooner, costs 1 kB each
    hello_retry_s: float = 2.0
    hello_timeout_s: float = 60.0
    want_retry_s: float = 1.0
    want_tries: int = 3  # unanswered requests for headers before a keyframe is taken instead
    fetch_tries: int = 3  # times nobody had a payload before a keyframe is taken instead
    fetch_timeout_s: float = 120.0  # a job the shell never answered counts as failed
    retry_s: float = 0.5  # first wait after a failed fetch; doubles
    retry_max_s: float = 30.0
    dial_retry_s: float = 1.0
    dial_retry_max_s: float = 30.0  # who is back is noticed so late at most; lower dials more
    dial_timeout_s: float = 30.0
    dial_patience_s: float = 4.0  # how long the higher key waits for the lower one to dial
    profile_every_s: float = 600.0
    member_expiry_s: float = 3600.0  # without a higher-numbered profile; >= 3 profile_every_s
    link_ask_s: float = 2.0  # a link asked for is asked for again
    link_timeout_s: float = 30.0  # dialling included; then the next in our order is asked
    link_asks_max: int = 4  # links asked for at once
    link_refused_s: float = 15.0  # first wait before a refuser is asked again; doubles
    link_refused_max_s: float = 120.0
    link_absent_s: float = 600.0  # a neighbour away for so long gives way to another
    link_silent_s: float = 3600.0  # and one that publishes nothing, unless most do not
    guest_s: float = 600.0  # one link may change hands so often; lower serves newcomers sooner
    renew_every_s: float = 7200.0  # a chosen link is exchanged; lower mixes more, costs copies
    strays_max: int = 8  # connections kept to members that are no neighbours
    messages_per_s: float = 64.0  # per peer, burst of 8 seconds' worth
    bytes_per_s: float = 1_048_576.0  # per peer, burst of 8 seconds' worth
    repeats_per_s: float = 16.0  # frames of a peer that hold nothing new; more of them is a fault
    repeats_max: float = 512.0  # ... that may come at once
    blames_max: int = 8  # rejects per peer and blame_window_s before it is dropped
    blame_window_s: float = 600.0
    shunned_s: float = 60.0  # an author of malformed content is left alone so long; doubles
    shunned_max_s: float = 86_400.0  # at each return it costs a whole copy, so once a day
    clone_advances: int = 3  # times our own stream may grow by another hand before we stop
    clone_pause_s: float = 10.0  # growth within this time counts once

    def __post_init__(self) -> None:
        _require(len(self.network) == 32, "network id must have 32 bytes")
        _require(len(self.genesis_root) in (0, 32), "genesis root must have 32 bytes")
        _require(self.ring >= 2, "ring >= 2")
        _require(self.message_bytes_max >= 65_536, "message_bytes_max >= 65536")
        _require(self.member_expiry_s >= 3 * self.profile_every_s, "expiry >= 3 profile periods")
        _require(self.all_to_all_max <= self.streams_max, "all_to_all_max <= streams_max")
        _require(self.all_to_all_max <= self.peers_max, "all_to_all_max <= peers_max")
        _require(0 <= 3 * self.f <= self.k, "3f <= k")
        _require(self.probation_rounds >= 0, "probation_rounds >= 0")
        _require(2 <= self.k <= self.streams_max, "2 <= k <= streams_max")
        _require(self.k <= self.peers_max, "k <= peers_max")
        _require(
            all(0 < size <= CHUNKS_MAX * self.chunk_bytes_max for size in self.codecs.values()),
            f"payload <= {CHUNKS_MAX} chunks",
        )

    def chunks_of(self, payload_bytes: int) -> int:
        """How many chunks a payload of that size has."""
        return -(-payload_bytes // self.chunk_bytes_max)


def _require(condition: bool, inequality: str) -> None:
    if not condition:
        raise ValueError(f"impossible settings: {inequality}")
