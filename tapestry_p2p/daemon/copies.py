"""The public copies a node holds, and what it can serve of them: payload chunks and keyframes.

Knows vectors, seqs and hashes; opens no socket. Everything kept for others is bounded: chunks by
entries of each author and by bytes, oldest first (own ones stay), keyframe snapshots by number. A
copy is served as it was when it was first asked for; ours is kept so for a while, since a joiner
may have named it as its start.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from tapestry_p2p.bulk import Piece
from tapestry_p2p.daemon.base import Held
from tapestry_p2p.gossip.fetch import (
    BODY_BYTES_MAX,
    BaseLeavesRequest,
    BaseRequest,
    ChunkRequest,
    FetchRequest,
    FetchResponse,
    FrameRequest,
    LeavesRequest,
    ManifestRequest,
    MoreLeavesRequest,
)
from tapestry_p2p.gossip.merkle import chunk_hash, merkle_root
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.space import MEMORY, Space

CACHE_BYTES_MAX = 64 << 20  # chunks of others kept to serve; more helps those who fell behind
ENTRIES_MAX = 64  # of one author, where the manifest's ring is not told
SNAPSHOTS_MAX = 4  # keyframes being served at once, each as large as the model
SNAPSHOTS_PER_PEER = 2  # ... of one asker: its next question ends its own, not another's
PIN_ENTRIES = 64  # so many own entries long our own copy is served as it was when asked for
OWN_PINS_MAX = 2  # at once; more would let joiners fill our memory


def copy_root(copy: PublicCopy) -> bytes:
    """The Merkle root (32 bytes) of a copy's frames."""
    return merkle_root(copy.leaves())


@dataclass
class Followed:
    """A peer's copy as it stands after entry ``seq``."""

    seq: int
    copy: PublicCopy
    root: bytes


@dataclass(frozen=True)
class _Snapshot:
    copy: PublicCopy
    leaves: bytes
    asker: bytes = b""  # for whom it was taken first


@dataclass(frozen=True)
class _Pin:
    snapshot: _Snapshot
    until: int  # own entry
    own: bool  # our own copy, asked for by others


class ChunkCache:
    """Payload chunks by hash; own ones are kept apart and are never pushed out by others'."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX, entries_max: int = ENTRIES_MAX) -> None:
        """``entries_max``: of each other author; nobody is sent differences for more of them."""
        self._bytes_max, self._entries_max = bytes_max, entries_max
        self._others: OrderedDict[bytes, tuple[bytes, Piece]] = OrderedDict()  # name: author, chunk
        self._entries: dict[bytes, deque[frozenset[bytes]]] = {}  # names of each, oldest first
        self._bytes = 0
        self._own: OrderedDict[int, dict[bytes, Piece]] = OrderedDict()

    def put(self, author: bytes, chunks: Mapping[bytes, Piece]) -> None:
        """Keep the chunks of another author's entry for a while."""
        entries = self._entries.setdefault(author, deque())
        if not entries or entries[-1] != chunks.keys():
            entries.append(frozenset(chunks))
        for name, chunk in chunks.items():
            if name not in self._others:
                self._others[name] = author, chunk
                self._bytes += len(chunk)
        while len(entries) > self._entries_max:
            for name in entries.popleft() - frozenset().union(*entries):
                self._drop(name)
        while self._bytes > self._bytes_max and self._others:
            self._drop(next(iter(self._others)))

    def forget(self, author: bytes) -> None:
        """Its entries are passed on no more."""
        for name in frozenset().union(*self._entries.pop(author, ())):
            self._drop(name)

    def _drop(self, name: bytes) -> None:
        _, dropped = self._others.pop(name, (b"", b""))
        self._bytes -= len(dropped)

    def put_own(self, seq: int, chunks: dict[bytes, Piece], ring: int) -> None:
        """Keep the chunks of our own entry ``seq``, and of the last ``ring`` entries."""
        self._own[seq] = chunks
        while len(self._own) > ring:
            self._own.popitem(last=False)

    def get(self, name: bytes) -> Piece | None:
        """The chunk of that hash, if held."""
        found = self._others.get(name)
        if found is not None:
            return found[1]
        return next((c[name] for c in self._own.values() if name in c), None)


def split(payload: Piece, chunk_bytes: int) -> list[tuple[bytes, Piece]]:
    """A payload as (hash, chunk) in order; where nothing changed, several may be the same.

    Chunks are views of the payload.
    """
    view = memoryview(payload)
    pieces = [view[i : i + chunk_bytes] for i in range(0, len(view), chunk_bytes)]
    return [(chunk_hash(piece), piece) for piece in pieces]


class Copies:
    """All copies of one node: its own, those it follows, and the genesis vector."""

    def __init__(
        self,
        own_key: bytes,
        genesis_root: bytes,
        network: bytes,
        text: bytes,
        ring: int = ENTRIES_MAX,
        space: Space = MEMORY,
    ) -> None:
        """``network``: the manifest's id, ``text``: the manifest itself, for those who join.

        Copies live in ``space``.
        """
        self.space = space
        self._own_key = own_key
        self._network, self._text = network, text
        self.genesis_root = genesis_root
        self.genesis: PublicCopy | None = None
        self.own: Followed | None = None
        self.base: Held | None = None  # the file of open weights that the manifest names
        self.followed: dict[bytes, Followed] = {}
        self.chunks = ChunkCache(entries_max=ring)
        self._snapshots: OrderedDict[bytes, _Snapshot] = OrderedDict()
        self._pins: dict[bytes, _Pin] = {}

    def set_genesis(self, vector: Vector) -> bool:
        """Take the manifest's first vector float32[d]; False if its root is another."""
        copy = self.copy(vector)
        if copy_root(copy) != self.genesis_root:
            return False
        self.genesis = copy
        return True

    def copy(self, vector: Vector) -> PublicCopy:
        """A new public copy, float32[d], where ours live."""
        return PublicCopy(vector, self.space)

    def vectors(self, without: frozenset[bytes] = frozenset()) -> dict[bytes, Vector]:
        """Followed copies float32[d] by author, in author order, without some authors."""
        return {a: self.followed[a].copy.vector for a in sorted(self.followed) if a not in without}

    def answer(self, request: FetchRequest, peer: bytes = b"") -> tuple[FetchResponse, bytes]:
        """What we can give ``peer`` of a request: response and body."""
        if isinstance(request, ChunkRequest):
            chunk = self.chunks.get(request.hash)
            return _slice(chunk, request.offset, request.length)
        if isinstance(request, ManifestRequest):
            found = self._text if request.network == self._network else None
            return _slice(found, 0, len(self._text))
        if isinstance(request, BaseLeavesRequest | BaseRequest):
            missing = FetchResponse("missing"), b""
            return missing if self.base is None else self.base.answer(request)
        snapshot = self._snapshot(request, peer)
        if snapshot is None:
            return FetchResponse("missing"), b""
        if isinstance(request, MoreLeavesRequest):
            return _slice(snapshot.leaves, request.offset, request.length)
        if isinstance(request, LeavesRequest):
            return _slice(snapshot.leaves, 0, BODY_BYTES_MAX)
        return _slice(snapshot.copy.frame(request.index), request.offset, request.length)

    def _snapshot(
        self, request: LeavesRequest | MoreLeavesRequest | FrameRequest, peer: bytes
    ) -> _Snapshot | None:
        """The copy with that root as it stood when its leaves were first asked for."""
        pin = self._pins.get(request.root)
        if pin is not None:
            return pin.snapshot
        held = self._snapshots.get(request.root)
        if held is not None:
            self._snapshots.move_to_end(request.root)
            return held
        if not isinstance(request, LeavesRequest):
            return None
        copy = self._standing(request.author, request.root)
        if copy is None:
            return None
        if request.author == self._own_key and self._may_pin(peer):
            return self._pin(request.root, copy, True, peer)
        held = self._frozen(copy, peer)
        self._snapshots[request.root] = held
        self._make_room(peer)
        return held

    def _make_room(self, peer: bytes) -> None:
        """Too many snapshots: the oldest of whoever has the most goes, so one peer ends its own."""
        count = Counter(held.asker for held in self._snapshots.values())
        if count[peer] > SNAPSHOTS_PER_PEER:
            greedy = peer
        elif len(self._snapshots) > SNAPSHOTS_MAX:
            greedy = count.most_common(1)[0][0]
        else:
            return
        del self._snapshots[next(r for r, held in self._snapshots.items() if held.asker == greedy)]

    def _may_pin(self, peer: bytes) -> bool:
        """Whether our own copy may be held for a peer for long: one for each, and few in all."""
        pins = self._own_pins()
        return len(pins) < OWN_PINS_MAX and peer not in (pin.snapshot.asker for pin in pins)

    def must_freeze(self, request: LeavesRequest) -> bool:
        """Whether the answer takes a snapshot that is not held yet: a copy and a digest of all."""
        if request.root in self._pins or request.root in self._snapshots:
            return False
        return self._standing(request.author, request.root) is not None

    def _standing(self, author: bytes, root: bytes) -> PublicCopy | None:
        """The author's copy, if it stands where that is its root; a seq would say no more."""
        if root == self.genesis_root:
            return self.genesis
        followed = self.own if author == self._own_key else self.followed.get(author)
        return followed.copy if followed is not None and followed.root == root else None

    # -- copies that are named as a start

    def pin(self, root: bytes, copy: PublicCopy) -> None:
        """Serve this copy for a while; for those who follow us from it."""
        self._pin(root, copy, False, b"")

    def _pin(self, root: bytes, copy: PublicCopy, own: bool, asker: bytes) -> _Snapshot:
        self._own_pins()
        self._pins[root] = _Pin(self._frozen(copy, asker), self._own_seq + PIN_ENTRIES, own)
        return self._pins[root].snapshot

    def _frozen(self, copy: PublicCopy, asker: bytes) -> _Snapshot:
        frozen = self.copy(copy.vector)
        return _Snapshot(frozen, b"".join(frozen.leaves()), asker)

    @property
    def _own_seq(self) -> int:
        return self.own.seq if self.own is not None else 0

    def _own_pins(self) -> list[_Pin]:
        """The pins of our own copy, once those are gone whose time is over."""
        now = self._own_seq
        self._pins = {root: pin for root, pin in self._pins.items() if now <= pin.until}
        return [pin for pin in self._pins.values() if pin.own]

    def named(self, author: bytes, root: bytes) -> Vector | None:
        """The author's copy with that root as we hold it, float32[d] to keep; None if we do not."""
        copy = self._standing(author, root)
        if copy is not None:
            return self.space.copy(copy.vector)
        held = self._pins[root].snapshot if root in self._pins else self._snapshots.get(root)
        return None if held is None else self.space.copy(held.copy.vector)


def _slice(data: Piece | None, offset: int, length: int) -> tuple[FetchResponse, bytes]:
    piece = b"" if data is None else bytes(data[offset : offset + length])
    if not piece or data is None:
        return FetchResponse("missing"), b""
    return FetchResponse("ok", len(piece), len(data)), piece
