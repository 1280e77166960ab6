"""A simulated member's fetches: one job per author, chunk by chunk, source by source.

Speaks the production request format and checks every byte by hash, as the real fetcher does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip.adoption import Reference
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchRequest,
    FrameRequest,
    LeavesRequest,
    decode_response,
    encode_request,
)
from tapestry_p2p.gossip.header import Header
from tapestry_p2p.gossip.merkle import HASH_BYTES, chunk_hash, leaf_hash, merkle_root
from tapestry_p2p.mix.copy import FRAME_BYTES

if TYPE_CHECKING:
    from tapestry_p2p.sim.member import Member

ANSWER_S = 2.0  # who has not answered by then is given up at the next tick


@dataclass(eq=False)
class Job:
    """One running fetch: the pieces still to ask for, from whom, and who waits for them.

    ``chunks`` names those of an entry's payload; None: the whole copy is wanted.
    """

    key: Hashable
    of: Header | Reference
    chunks: tuple[bytes, ...] | None
    sources: list[bytes]
    done: Callable[[list[bytes]], None]
    failed: Callable[[str], None]
    pieces: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    asked: FetchRequest | None = None  # what is under way; None: nothing
    asked_at: float = 0.0
    reason: str = "unreachable"

    def is_wanted(self, body: bytes) -> bool:
        """Whether the body is what was asked for."""
        asked = self.asked
        if isinstance(asked, ChunkRequest):
            return chunk_hash(body) == asked.hash
        if isinstance(asked, FrameRequest):
            return leaf_hash(body) == self.leaves[asked.index]
        return merkle_root(_leaves(body)) == self.of.root


class Fetching:
    """All jobs of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.jobs: dict[Hashable, Job] = {}

    def start(self, order: ef.Fetch | ef.FetchKeyframe) -> None:
        """Begin a job; it replaces the author's running one."""
        member, header = self._member, order.signed_header.header
        chunks = header.chunks if isinstance(order, ef.Fetch) else None
        done, failed = partial(member.fetched, order), partial(member.fetch_failed, order)
        self._begin(Job(order.author, header, chunks, list(order.sources), done, failed))

    def whole(
        self,
        reference: Reference,
        sources: Iterable[bytes],
        done: Callable[[list[bytes]], None],
        failed: Callable[[str], None],
    ) -> None:
        """Bring a copy that somebody's start names; its author's running job goes on."""
        self._begin(Job(reference, reference, None, list(sources), done, failed))

    def _begin(self, job: Job) -> None:
        self.jobs[job.key] = job
        self._next(job)

    def _next(self, job: Job) -> None:
        """Ask for the next missing piece, or finish."""
        of, place = job.of, len(job.pieces)
        if isinstance(of, Header) and job.chunks is not None:
            if place == len(job.chunks):
                self._done(job)
                return
            size = self._member.settings.chunk_bytes_max
            length = min(size, of.payload_bytes - place * size)
            self._ask(job, ChunkRequest(job.chunks[place], 0, length))
        elif not job.leaves:
            self._ask(job, LeavesRequest(of.author, of.seq, of.root))
        elif place == len(job.leaves):
            self._done(job)
        else:
            length = min(FRAME_BYTES, 4 * self._member.stage.d - place * FRAME_BYTES)
            request = FrameRequest(of.author, of.seq, of.root, place, 0, length)
            self._ask(job, request)

    def _ask(self, job: Job, request: FetchRequest) -> None:
        member, network = self._member, self._member.stage.network
        while job.sources and not network.is_connected(member.key, job.sources[0]):
            job.reason = "unreachable"
            self._forget_source(job)
        if not job.sources:
            self._failed(job)
            return
        if isinstance(request, FrameRequest) and not job.leaves:  # they went with their source
            self._next(job)
            return
        job.asked, job.asked_at = request, member.stage.world.now
        reply = partial(self._answered, job, request)
        network.ask(member.key, job.sources[0], _encoded(request), reply)

    def tick(self) -> None:
        """Give up whoever has not answered in time."""
        limit = self._member.stage.world.now - ANSWER_S
        for job in [job for job in self.jobs.values() if job.asked and job.asked_at <= limit]:
            self._give_up(job, "timeout")

    def _answered(self, job: Job, request: FetchRequest, head: bytes, body: bytes) -> None:
        if job.asked is not request or self.jobs.get(job.key) is not job:
            return  # too late
        if not _is_ok(head) or not job.is_wanted(body):
            self._give_up(job, "missing")
            return
        if isinstance(job.asked, LeavesRequest):
            job.leaves = _leaves(body)
        else:
            job.pieces.append(body)
        job.asked = None
        if job.chunks is not None and len(job.pieces) == len(job.chunks):
            self._done(job)
        else:
            self._next(job)

    def _give_up(self, job: Job, reason: str) -> None:
        """On to the next source; what is verified stays."""
        job.asked, job.reason = None, reason
        self._forget_source(job)
        self._next(job)

    def _forget_source(self, job: Job) -> None:
        job.sources.pop(0)
        if job.leaves:
            job.leaves, job.pieces = [], []

    def _failed(self, job: Job) -> None:
        del self.jobs[job.key]
        job.failed(job.reason)

    def _done(self, job: Job) -> None:
        del self.jobs[job.key]
        job.done(job.pieces)


def _leaves(body: bytes) -> list[bytes]:
    return [body[i : i + HASH_BYTES] for i in range(0, len(body), HASH_BYTES)]


@lru_cache(1024)  # all followers of an entry ask in the same words
def _encoded(request: FetchRequest) -> bytes:
    return encode_request(request)


@lru_cache(1024)
def _is_ok(head: bytes) -> bool:
    return decode_response(head).status == "ok"
