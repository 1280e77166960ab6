"""Gets what the protocol asked for: payloads by chunk hash, whole copies by Merkle root.

Knows connections and copies; decides nothing about streams. Each piece is verified before use and
may come from any holder; what was already verified is kept when a source fails, so a fetch resumes
where it broke. The outcome is a root, or one of gossip.events.REASONS.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

import trio

from tapestry_p2p.bulk import Piece
from tapestry_p2p.daemon.copies import Copies, Followed, copy_root
from tapestry_p2p.daemon.partial import Partial, Partials
from tapestry_p2p.daemon.patience import Patience
from tapestry_p2p.daemon.rates import Pacer
from tapestry_p2p.gossip.adoption import Reference
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.fetch import (
    BODY_BYTES_MAX,
    ChunkRequest,
    FetchRequest,
    FrameRequest,
    LeavesRequest,
    MoreLeavesRequest,
    decode_response,
    encode_request,
)
from tapestry_p2p.gossip.header import ADOPT, GENESIS, Header
from tapestry_p2p.gossip.merkle import HASH_BYTES, chunk_hash, leaf_hash, merkle_root
from tapestry_p2p.mix.adoption import coordinate_median
from tapestry_p2p.mix.codec import CodecError, Vector
from tapestry_p2p.mix.copy import FRAME_BYTES, PublicCopy, need_sane

log = logging.getLogger("tapestry.fetcher")
T = TypeVar("T")

THREAD_ABOVE = 500_000  # parameters; work on shorter vectors is quicker than a thread switch
SETTLE_EVERY = 256  # frames: 64 MB

BUSY_WAIT_S = 0.005
BUSY_TRIES = 400
GENESIS_WAIT_S = 60.0  # below the protocol's deadline for a fetch; else a whole copy would be sent
GENESIS_POLL_S = 0.1


class Source(Protocol):
    """A connection that answers fetches; raises an OSError-like TransportError when it breaks."""

    async def fetch(self, request: bytes, body_bytes_max: int) -> tuple[bytes, bytes]: ...


class FetchError(Exception):
    """A fetch came to nothing; ``reason`` is one of gossip.events.REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Fetcher:
    """Fetches over ``connections`` (by public key) into ``copies``.

    ``mixing`` is held whenever a copy changes, so that a round never reads half a step.
    ``unreachable`` is the exception type that a broken source raises; ``wanted`` says whether an
    author is still followed when its copy has come; ``read_adoption`` gives the references in the
    payload of an author's adopt entry, or raises Malformed.
    """

    connections: Mapping[bytes, Source]
    copies: Copies
    parameters: int
    norm_max: float
    chunk_bytes: int
    unreachable: type[Exception]
    wanted: Callable[[bytes], bool]
    read_adoption: Callable[[bytes, bytes], tuple[Reference, ...]]
    mixing: trio.Lock = field(default_factory=trio.Lock)
    patience: Patience = field(default_factory=Patience)
    download: Pacer = field(default_factory=Pacer)  # what it keeps waiting is no peer's fault
    partials: Partials = field(init=False)
    _turns: dict[bytes, trio.Lock] = field(default_factory=dict)
    fetched: dict[str, int] = field(default_factory=lambda: {"entries": 0, "copies": 0})  # bytes

    def __post_init__(self) -> None:
        self.partials = Partials(self.copies.space)

    async def entry(self, author: bytes, header: Header, sources: Sequence[bytes]) -> bytes:
        """Bring the author's copy from seq-1 to seq; its new root (b"" if the header has none)."""
        if header.kind == GENESIS:
            return await self._begin(author, header)
        if header.kind == ADOPT:
            return await self._adopt(author, header, sources)
        followed = self.copies.followed.get(author)
        if followed is None or followed.seq != header.seq - 1:
            raise FetchError("root")
        payload = await self._payload(header, sources)
        async with self.mixing:
            if self.copies.followed.get(author) is not followed or followed.seq != header.seq - 1:
                raise FetchError("missing")  # let go or replaced meanwhile; the newer job decides
            with trio.CancelScope(shield=True):  # never half way, and never without its root
                await self._advance(author, followed, header, payload)
            if self.copies.followed.get(author) is not followed:
                raise FetchError("missing")  # let go meanwhile
            if followed.root != header.root:
                del self.copies.followed[author]
                raise FetchError("root")
        return followed.root

    async def _advance(
        self, author: bytes, followed: Followed, header: Header, payload: Piece
    ) -> None:
        """Move the copy by the entry's payload. FetchError if it is not what an encoder makes."""
        copy, before = followed.copy, followed.root
        followed.root = b""  # nobody is given it as it is half way
        try:
            await self._in_thread(partial(copy.advance, header.codec, payload, self.norm_max))
        except CodecError as error:
            followed.root = before
            log.warning("entry %d of %s: %s", header.seq, author.hex()[:8], error)
            raise FetchError("content") from error
        followed.seq = header.seq
        if header.root:
            followed.root = await self._in_thread(partial(copy_root, copy))

    async def _in_thread(self, job: Callable[[], T]) -> T:
        """Peers must not wait for work on a long vector."""
        if self.parameters < THREAD_ABOVE:
            return job()
        return await trio.to_thread.run_sync(job)

    async def whole(self, author: bytes, header: Header, sources: Sequence[bytes]) -> bytes:
        """Replace the author's copy by the vector with the header's root."""
        vector = await self._sane(author, header.seq, header.root, sources, b"copy")
        async with self.mixing:
            self._need_wanted(author, header)
            copy = PublicCopy.holding(vector, self.copies.space)
            self.copies.followed[author] = Followed(header.seq, copy, header.root)
        return header.root

    async def _sane(
        self, author: bytes, seq: int, root: bytes, sources: Sequence[bytes], purpose: bytes
    ) -> Vector:
        """`keyframe`, finite and not too long; else FetchError."""
        vector = await self.keyframe(author, seq, root, sources, purpose)
        try:
            await self._in_thread(partial(need_sane, vector, self.norm_max))
        except CodecError as error:
            raise FetchError("content") from error
        return vector

    def _need_wanted(self, author: bytes, header: Header) -> None:
        """FetchError if nobody waits for this copy any more, or a newer one is here."""
        held = self.copies.followed.get(author)
        if not self.wanted(author) or (held is not None and held.seq > header.seq):
            raise FetchError("missing")

    async def keyframe(
        self,
        author: bytes,
        seq: int,
        root: bytes,
        sources: Sequence[bytes],
        purpose: bytes = b"genesis",
    ) -> Vector:
        """The copy with that root, float32[d] to keep; frames that came are asked for once."""
        failed = FetchError("unreachable")
        name = purpose + author + root  # never one vector for two owners
        found = self.partials.of(author, name, 4 * self.parameters)
        for source in sources:
            try:
                await self._frames(source, LeavesRequest(author, seq, root), found)
            except FetchError as error:
                failed = error
                continue
            self.partials.done(name)
            return found.vector
        raise failed

    async def _begin(self, author: bytes, header: Header) -> bytes:
        """Start a copy at the manifest's vector, which a trainer may still be making."""
        with trio.move_on_after(GENESIS_WAIT_S):
            while self.copies.genesis is None:
                await trio.sleep(GENESIS_POLL_S)
        genesis = self.copies.genesis
        if genesis is None:
            raise FetchError("missing")
        self._need_wanted(author, header)
        copy = await self._in_thread(partial(self.copies.copy, genesis.vector))
        self._need_wanted(author, header)
        self.copies.followed[author] = Followed(header.seq, copy, self.copies.genesis_root)
        return self.copies.followed[author].root

    # -- copies that start from others

    async def _adopt(self, author: bytes, header: Header, sources: Sequence[bytes]) -> bytes:
        """Start a copy as the median of the copies that the entry names; its root."""
        payload = bytes(await self._payload(header, sources))
        try:
            references = self.read_adoption(payload, author)
        except Malformed as error:
            log.warning("the start of %s: %s", author.hex()[:8], error)
            raise FetchError("content") from error
        vectors = [await self.referenced(reference, sources) for reference in references]
        copy = await self._in_thread(lambda: self.copies.copy(coordinate_median(vectors)))
        root = await self._in_thread(partial(copy_root, copy))
        if root != header.root:
            raise FetchError("root")
        async with self.mixing:
            self._need_wanted(author, header)
            self.copies.followed[author] = Followed(header.seq, copy, root)
        return root

    async def referenced(self, reference: Reference, sources: Sequence[bytes]) -> Vector:
        """The copy that a reference names, float32[d]: ours, or from its author or ``sources``."""
        author, root = reference.author, reference.root
        held = self.copies.named(author, root)
        if held is not None:
            return held
        holders = dict.fromkeys((author, *sources))
        return await self._sane(author, reference.seq, root, list(holders), b"reference")

    async def ask_to_keep(self, reference: Reference) -> None:
        """Have the author of a reference serve that copy for a while. FetchError if it cannot."""
        author = reference.author
        frames = -(-4 * self.parameters // FRAME_BYTES)
        request = LeavesRequest(author, reference.seq, reference.root)
        await self._ask(author, request, min(frames * HASH_BYTES, BODY_BYTES_MAX))

    async def _payload(self, header: Header, sources: Sequence[bytes]) -> memoryview:
        """The entry's payload; chunks that came are asked for once, and are passed on from it."""
        failed = FetchError("unreachable")
        size = self.chunk_bytes
        found = self.partials.of(header.author, header.hash, header.payload_bytes)
        for source in sources:
            try:
                for index, name in enumerate(header.chunks):
                    first = header.chunks.index(name)
                    if index in found.got:
                        continue
                    if first < index:  # where nothing changed, chunks are equal
                        chunk: Piece = found.data[first * size : (first + 1) * size]
                    else:
                        held = self.copies.chunks.get(name)
                        chunk = held or await self._chunk(source, header, index)
                    if len(chunk) != min(size, header.payload_bytes - index * size):
                        raise FetchError("content")  # the author named a chunk of another length
                    found.put(index, index * size, chunk)
            except FetchError as error:
                failed = error
                continue
            self.partials.done(header.hash)
            views = (found.data[i : i + size] for i in range(0, header.payload_bytes, size))
            self.copies.chunks.put(header.author, dict(zip(header.chunks, views, strict=True)))
            return found.data
        raise failed

    async def _chunk(self, source: bytes, header: Header, index: int) -> bytes:
        length = min(self.chunk_bytes, header.payload_bytes - index * self.chunk_bytes)
        name = header.chunks[index]
        chunk = await self._pieces(source, ChunkRequest(name, 0, length))
        if chunk_hash(chunk) != name:
            raise FetchError("missing")
        return chunk

    async def _frames(self, source: bytes, copy: LeavesRequest, found: Partial) -> None:
        """Put the missing frames into ``found``. Any source's leaves fit the root or do not."""
        frames = -(-4 * self.parameters // FRAME_BYTES)
        joined = await self._leaves(source, copy, frames * HASH_BYTES)
        leaves = [joined[i : i + HASH_BYTES] for i in range(0, len(joined), HASH_BYTES)]
        if merkle_root(leaves) != copy.root:
            raise FetchError("missing")
        for index, leaf in enumerate(leaves):
            if index in found.got:
                continue
            length = min(FRAME_BYTES, 4 * self.parameters - index * FRAME_BYTES)
            request = FrameRequest(copy.author, copy.seq, copy.root, index, 0, length)
            frame = await self._pieces(source, request)
            if leaf_hash(frame) != leaf:
                raise FetchError("missing")
            found.put(index, index * FRAME_BYTES, frame)
            if index % SETTLE_EVERY == 0:
                self.copies.space.settle()
        self.copies.space.settle()

    async def _leaves(self, source: bytes, copy: LeavesRequest, length: int) -> bytes:
        """The joined leaf hashes of a copy, in as many answers as they take."""
        joined = await self._ask(source, copy, min(length, BODY_BYTES_MAX))
        while len(joined) < length:
            size = min(length - len(joined), BODY_BYTES_MAX)
            more = MoreLeavesRequest(copy.author, copy.seq, copy.root, len(joined), size)
            joined += await self._ask(source, more, size)
        return joined

    async def _pieces(self, source: bytes, request: ChunkRequest | FrameRequest) -> bytes:
        """All that is asked for; of a slow source piece by piece, each with a deadline of its own.

        Else what takes longer than any deadline would be asked for again for ever.
        """
        whole = bytearray()
        while len(whole) < request.length:
            size = self.patience.piece(source, request.length - len(whole))
            whole += await self._ask(source, replace(request, offset=len(whole), length=size), size)
        return bytes(whole)

    async def _ask(self, source: bytes, request: FetchRequest, length: int) -> bytes:
        """Exactly ``length`` bytes from ``source``."""
        if length > BODY_BYTES_MAX:
            raise FetchError("missing")
        for _ in range(BUSY_TRIES):
            connection = self.connections.get(source)
            if connection is None:
                raise FetchError("unreachable")
            head, body = await self._exchange(source, connection, encode_request(request), length)
            try:
                response = decode_response(head)
            except Malformed as error:
                raise FetchError("unreachable") from error
            kind = "entries" if isinstance(request, ChunkRequest) else "copies"
            self.fetched[kind] += len(body)
            if response.status == "ok" and len(body) == response.length == length:
                return body
            if response.status != "busy":
                raise FetchError("missing")
            await trio.sleep(BUSY_WAIT_S)
        raise FetchError("busy")

    async def _exchange(
        self, source: bytes, connection: Source, request: bytes, length: int
    ) -> tuple[bytes, bytes]:
        """One question and its answer, within the time that this source's answers take."""
        async with self._turn(source), self.download.asking_for(length):
            began = trio.current_time()
            try:
                with trio.fail_after(self.patience.allowed_s(source, length)):
                    head, body = await connection.fetch(request, length)
            except self.unreachable as error:
                raise FetchError("unreachable") from error
            except trio.TooSlowError as error:
                self.patience.missed(source)
                raise FetchError("unreachable") from error
            self.patience.took(source, len(body), trio.current_time() - began)
            return head, body

    def _turn(self, source: bytes) -> trio.Lock:
        """Who waits for another of our questions to this source does not wait for its answer."""
        self._turns = {peer: turn for peer, turn in self._turns.items() if turn.locked()}
        return self._turns.setdefault(source, trio.Lock())
