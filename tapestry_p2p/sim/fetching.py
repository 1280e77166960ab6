"""A simulated member's fetches: one job per author, chunk by chunk, source by source.

Speaks the production request format and checks every byte by hash, as the real fetcher does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchRequest,
    FrameRequest,
    LeavesRequest,
    decode_response,
    encode_request,
)
from tapestry_p2p.gossip.merkle import HASH_BYTES, chunk_hash, leaf_hash, merkle_root
from tapestry_p2p.mix.copy import FRAME_BYTES

if TYPE_CHECKING:
    from tapestry_p2p.sim.member import Member

ANSWER_S = 2.0  # an answer that takes longer does not come
Want = Callable[[bytes], bool]  # whether a body is what was asked for


@dataclass
class Job:
    """One running fetch: the pieces still to ask for, and from whom."""

    order: ef.Fetch | ef.FetchKeyframe
    sources: list[bytes]
    pieces: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    reason: str = "unreachable"


class Fetching:
    """All jobs of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.jobs: dict[bytes, Job] = {}

    def start(self, order: ef.Fetch | ef.FetchKeyframe) -> None:
        """Begin a job; it replaces the author's running one."""
        job = Job(order, list(order.sources))
        self.jobs[order.author] = job
        self._member.world.note("keyframe" if isinstance(order, ef.FetchKeyframe) else "fetch")
        self._next(job)

    def _is_current(self, job: Job) -> bool:
        return self.jobs.get(job.order.author) is job and self._member.is_up()

    def _next(self, job: Job) -> None:
        """Ask for the next missing piece, or finish."""
        header = job.order.signed_header.header
        if isinstance(job.order, ef.Fetch):
            if len(job.pieces) == len(header.chunks):
                self._done(job)
                return
            name = header.chunks[len(job.pieces)]
            whole = header.payload_bytes - len(job.pieces) * self._member.chunk_bytes
            length = min(self._member.chunk_bytes, whole)
            self._ask(job, ChunkRequest(name, 0, length), lambda b: chunk_hash(b) == name)
        elif not job.leaves:
            request = LeavesRequest(header.author, header.seq, header.root)
            self._ask(job, request, lambda b: self._are_leaves(b, header.root))
        elif len(job.pieces) == len(job.leaves):
            self._done(job)
        else:
            self._ask_frame(job)

    def _ask_frame(self, job: Job) -> None:
        header, index = job.order.signed_header.header, len(job.pieces)
        size = 4 * len(self._member.genesis)
        length = min(FRAME_BYTES, size - index * FRAME_BYTES)
        request = FrameRequest(header.author, header.seq, header.root, index, 0, length)
        self._ask(job, request, lambda b: leaf_hash(b) == job.leaves[index])

    def _are_leaves(self, body: bytes, root: bytes) -> bool:
        leaves = [body[i : i + HASH_BYTES] for i in range(0, len(body), HASH_BYTES)]
        return merkle_root(leaves) == root

    def _ask(self, job: Job, request: FetchRequest, is_wanted: Want) -> None:
        if not job.sources:
            self._failed(job)
            return
        source = job.sources[0]
        answered = [False]

        def reply(head: bytes, body: bytes) -> None:
            if self._is_current(job) and not answered[0]:
                answered[0] = True
                self._answered(job, request, decode_response(head).status, body, is_wanted)

        def silence() -> None:
            if self._is_current(job) and not answered[0]:
                answered[0] = True
                self._give_up(job, "timeout")

        member = self._member
        if not member.network.is_connected(member.key, source):
            self._give_up(job, "unreachable")
            return
        member.network.ask(member.key, source, encode_request(request), reply)
        member.world.after(ANSWER_S, silence)

    def _answered(
        self, job: Job, request: FetchRequest, status: str, body: bytes, is_wanted: Want
    ) -> None:
        if status != "ok" or not body or not is_wanted(body):
            self._give_up(job, "missing")
        elif isinstance(request, LeavesRequest):
            job.leaves = [body[i : i + HASH_BYTES] for i in range(0, len(body), HASH_BYTES)]
            self._next(job)
        else:
            job.pieces.append(body)
            self._next(job)

    def _give_up(self, job: Job, reason: str) -> None:
        """On to the next source; what is verified stays."""
        job.reason = reason
        job.sources.pop(0)
        job.leaves, job.pieces = ([], []) if job.leaves else (job.leaves, job.pieces)
        self._next(job)

    def _failed(self, job: Job) -> None:
        del self.jobs[job.order.author]
        self._member.fetch_failed(job.order, job.reason)

    def _done(self, job: Job) -> None:
        del self.jobs[job.order.author]
        self._member.fetched(job.order, b"".join(job.pieces))
