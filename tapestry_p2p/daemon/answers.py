"""Answers peers' fetch requests, in whatever time that takes, so that nobody else waits for it.

Knows the copies and what a request asks for; judges no peer. Whoever may connect may ask, a
stranger too, so what takes long is done in a thread and one at a time: to freeze the copy of a big
model takes seconds in which that copy must not move, to read a base file's piece takes a disk.
Whoever asks meanwhile hears "busy" and asks again; so does who asks for too many copies.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import trio

from tapestry_p2p.bulk import MAPPED_FROM
from tapestry_p2p.daemon.copies import Copies
from tapestry_p2p.daemon.gate import Buckets
from tapestry_p2p.daemon.rates import Traffic
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.fetch import (
    BaseRequest,
    ChunkRequest,
    FetchRequest,
    FetchResponse,
    FrameRequest,
    LeavesRequest,
    MoreLeavesRequest,
    decode_request,
    encode_response,
)

READS = 2  # of the base file at a time
FREEZES_PER_S, FREEZES = 0.2, 32.0  # snapshots for one peer; and at once: who joins asks for many
BUSY = FetchResponse("busy"), b""


@dataclass
class Answers:
    """``mixing`` is held whenever a followed copy moves, ``speaking`` whenever our own does."""

    copies: Copies
    own_key: bytes
    parameters: int
    mixing: trio.Lock
    speaking: trio.Lock
    traffic: Traffic
    _freezing: trio.Lock = field(default_factory=trio.Lock)
    _freezes: Buckets[bytes] = field(default_factory=lambda: Buckets(FREEZES_PER_S, FREEZES))
    _reads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(READS))

    async def give(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer to the bytes of a peer's request."""
        try:
            asked = decode_request(request)
        except Malformed:
            return encode_response(FetchResponse("refused")), b""
        response, body = await self._answer(peer, asked)
        if isinstance(asked, ChunkRequest):
            self.traffic.useful_sent += len(body)
        elif isinstance(asked, FrameRequest | LeavesRequest | MoreLeavesRequest):
            self.traffic.keyframe_sent += len(body)
        return encode_response(response), body

    async def _answer(self, peer: bytes, asked: FetchRequest) -> tuple[FetchResponse, bytes]:
        if isinstance(asked, BaseRequest):
            return await trio.to_thread.run_sync(self.copies.answer, asked, limiter=self._reads)
        if not isinstance(asked, LeavesRequest) or not self.copies.must_freeze(asked):
            return self.copies.answer(asked, peer)
        now = trio.current_time()
        if self._freezing.locked() or not self._freezes.has(peer, now):
            return BUSY
        self._freezes.charge(peer, 1.0, now)
        if self.parameters < MAPPED_FROM:
            return self.copies.answer(asked, peer)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._freezing)
            if asked.author == self.own_key:
                await stack.enter_async_context(self.speaking)
            await stack.enter_async_context(self.mixing)
            return await trio.to_thread.run_sync(self.copies.answer, asked, peer)
