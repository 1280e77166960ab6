"""Our own stream: numbering, signing, falling silent when somebody knows more of it than we do.

States: speaking, mute (a head of ours turned up that we do not know, or the shell told us to
start mute), resuming (unmuted, but the next entry must be a ``resume``), stopped (another live
node signs with our key, or our key was retired). Knows no peers.
"""

from __future__ import annotations

from collections import deque
from random import Random

from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.events import Publish
from tapestry_p2p.gossip.fork import ForkProof, conflict, fork_proof
from tapestry_p2p.gossip.header import (
    GENESIS,
    INCARNATION_BYTES,
    NO_HASH,
    PROFILE,
    RESUME,
    RETIRE,
    SEQ_MAX,
    Header,
    Sign,
    SignedHeader,
    sign,
)
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.profile import decode_profile
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.gossip.streams import trim
from tapestry_p2p.gossip.validity import breach

LIFE_MAX = 4096  # hashes of entries signed in this life, to recognise a clone that builds on them


class ProtocolError(RuntimeError):
    """Our own code broke the protocol's rules: a bug, never a peer's fault."""


class OwnStream:
    """The entries that we signed."""

    def __init__(
        self, settings: Settings, public_key: bytes, signer: Sign, random: Random, mute: bool
    ) -> None:
        self._settings = settings
        self.public_key = public_key
        self._signer = signer
        self._random = random
        self.kept: dict[int, SignedHeader] = {}
        self.head: SignedHeader | None = None
        self.seen: SignedHeader | None = None  # highest head of ours shown by others, not in kept
        self.proofs: list[ForkProof] = []
        self.mute = mute
        self.must_resume = mute
        self.stopped = ""
        self.incarnation = random.randbytes(INCARNATION_BYTES)
        self._life: deque[bytes] = deque(maxlen=LIFE_MAX)
        self._advances = 0
        self._advanced_at: float | None = None

    @property
    def head_seq(self) -> int:
        """Seq of our last entry; -1 before genesis."""
        return self.head.header.seq if self.head else -1

    @property
    def highest(self) -> SignedHeader | None:
        """The highest head of our key that we know of, whoever signed it."""
        if self.seen and self.seen.header.seq > self.head_seq:
            return self.seen
        return self.head

    def restore(self, headers: list[SignedHeader], seen: SignedHeader | None) -> None:
        """Go on from what the store holds."""
        for signed in sorted(headers, key=lambda item: item.header.seq):
            self.kept[signed.header.seq] = signed
            self.head = signed
        if self.head:
            self.incarnation = self.head.header.incarnation
            trim(self.kept, self.head_seq, self._settings)
        if seen is not None:
            self.seen, self.must_resume = seen, True
            self._retired_if(seen)

    def publish(self, event: Publish) -> SignedHeader:
        """Sign the next entry. ProtocolError while mute, or if the entry is not a valid one."""
        self._check_may_speak(event.kind)
        resume = event.kind == RESUME
        last = self.highest if resume else self.head
        if resume:
            self.incarnation = self._random.randbytes(INCARNATION_BYTES)
        chunks, size = event.chunks, event.payload_bytes
        if event.kind == PROFILE:
            chunks, size = (chunk_hash(event.payload),), len(event.payload)
        cites = event.cites
        if resume and not cites and self.proofs:
            cites = self.proofs[-1].id
        header = Header(
            network=self._settings.network,
            author=self.public_key,
            incarnation=self.incarnation,
            seq=last.header.seq + 1 if last else 0,
            prev=last.header.hash if last else NO_HASH,
            kind=event.kind,
            codec=event.codec,
            chunks=tuple(chunks),
            payload_bytes=size,
            root=event.root,
            round=event.round,
            tokens=event.tokens,
            cites=cites,
        )
        self._check_sound(header, event)
        signed = sign(header, self._signer)
        self._take(signed)
        return signed

    def _check_may_speak(self, kind: str) -> None:
        if self.stopped:
            raise ProtocolError(f"publish while stopped: {self.stopped}")
        if self.mute:
            raise ProtocolError("publish while mute")
        if self.must_resume and self.highest is not None and kind != RESUME:
            raise ProtocolError("the next entry must be a resume")
        if (self.highest is None) != (kind == GENESIS):
            raise ProtocolError("a stream starts with its one genesis entry")

    def _check_sound(self, header: Header, event: Publish) -> None:
        reason = breach(header, self._settings)
        if reason:
            raise ProtocolError(f"entry of ours is not valid: {reason}")
        if header.kind == RETIRE:
            raise ProtocolError("a retire is signed by sign_retire, not published")
        if header.kind == PROFILE:
            try:
                decode_profile(event.payload)
            except Malformed as error:
                raise ProtocolError(f"profile of ours is not valid: {error}") from error

    def _take(self, signed: SignedHeader) -> None:
        if signed.header.kind in (GENESIS, RESUME):
            self.seen, self.must_resume = None, False
        self.head = signed
        self.kept[signed.header.seq] = signed
        self._life.append(signed.header.hash)
        trim(self.kept, self.head_seq, self._settings)

    # -- heads of ours that others show

    def knows(self, signed: SignedHeader) -> bool:
        """Whether the header tells us nothing new; decided without a signature check."""
        header = signed.header
        if self.seen and header.hash == self.seen.header.hash:
            return True
        held = self.kept.get(header.seq)
        if held is not None and conflict(held, signed):
            return any(proof.first.header.seq == header.seq for proof in self.proofs)
        highest = self.highest
        return highest is not None and header.seq <= highest.header.seq

    def learn(self, signed: SignedHeader, at: float) -> bool:
        """Take in a verified head of ours that we did not know; True if a clone is alive.

        We are mute afterwards: what we would sign next could contradict it.
        """
        header = signed.header
        held = self.kept.get(header.seq)
        if held is not None and conflict(held, signed):
            self.proofs = [*self.proofs[-7:], fork_proof(held, signed)]
        if self.highest is None or header.seq > self.highest.header.seq:
            self.seen = signed
        self.mute = self.must_resume = True
        self._retired_if(signed)
        if self._is_clone(header, at):
            self.stopped = self.stopped or "clone"
            return True
        return False

    def _is_clone(self, header: Header, at: float) -> bool:
        """Certain if it builds on an entry of this life; likely if it keeps growing meanwhile.

        An old life of ours can also turn up in pieces, as peers appear; so growth counts only
        once per ``clone_pause_s``.
        """
        if header.kind == RETIRE or not self._life:
            return False
        if header.prev in self._life:
            return True
        if self._advanced_at is None or at - self._advanced_at >= self._settings.clone_pause_s:
            self._advanced_at = at
            self._advances += 1
        return self._advances >= self._settings.clone_advances

    def _retired_if(self, signed: SignedHeader) -> None:
        if signed.header.kind == RETIRE:
            self.stopped = "retired"

    def unmute(self) -> None:
        """The shell has asked around. Stopped stays stopped."""
        self.mute = False


def sign_retire(network: bytes, public_key: bytes, signer: Sign) -> SignedHeader:
    """The entry that ends a stream for good, to be kept offline against theft of the key."""
    header = Header(
        network, public_key, bytes(INCARNATION_BYTES), SEQ_MAX, NO_HASH, RETIRE, "", (), 0,
        b"", 0, 0, b"",
    )  # fmt: skip
    return sign(header, signer)
