"""Our own stream: numbering, signing, falling silent when somebody knows more of it than we do.

Knows no peers. TRANSITIONS is the whole life of a member's voice: whoever meets a head of its own
that it does not hold is mute until the shell has asked around, must then ``resume``, and stops
where another live node signs with the same key. A ``leave`` is the last entry of a process; who
comes back says so by a ``resume``. So must whoever started anew and did not hear from
everybody: its disk may be a restored backup, and a new incarnation contradicts no old entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from random import Random

from tapestry_p2p.gossip.adoption import decode_adoption
from tapestry_p2p.gossip.canonical import INTEGER_MAX, Malformed
from tapestry_p2p.gossip.events import Publish
from tapestry_p2p.gossip.fork import ForkProof, conflict, fork_proof
from tapestry_p2p.gossip.header import (
    ADOPT,
    FIRST,
    INCARNATION_BYTES,
    LEAVE,
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
PROOFS_MAX = 16
LEFT = "left"  # why we are stopped, once we said goodbye


class ProtocolError(RuntimeError):
    """Our own code broke the protocol's rules: a bug, never a peer's fault."""


class Shown(Enum):
    """What a head of our own key, shown by others, means."""

    NEWS = "own_head"  # we must resume after it
    BESIDE = "beside"  # another incarnation below our head: an old life, or a clone that is behind
    CLONE = "clone"


class Voice(Enum):
    """Whether we may sign."""

    SPEAKING = "speaking"
    ASKING = "asking"  # started anew: nothing may be signed before the neighbours were asked
    MUTE = "mute"  # somebody knows more of our stream than we do
    RESUMING = "resuming"  # only a resume may be signed
    STOPPED = "stopped"  # nothing, ever again in this process


class Cue(Enum):
    """What changes the voice."""

    SHOWN = "shown"  # a head of ours that we do not hold
    UNMUTED = "unmuted"  # the shell has asked around, and everybody answered
    DOUBTED = "doubted"  # it has, and somebody did not: our newest entries may be theirs alone
    RESUMED = "resumed"  # a resume was signed that leaves nothing uncited
    REFUTED = "refuted"  # a live clone, our retirement, or our own goodbye


TRANSITIONS: dict[tuple[Voice, Cue], Voice] = {
    (Voice.ASKING, Cue.SHOWN): Voice.MUTE,
    (Voice.ASKING, Cue.UNMUTED): Voice.SPEAKING,
    (Voice.ASKING, Cue.DOUBTED): Voice.RESUMING,
    (Voice.ASKING, Cue.REFUTED): Voice.STOPPED,
    (Voice.SPEAKING, Cue.SHOWN): Voice.MUTE,
    (Voice.SPEAKING, Cue.UNMUTED): Voice.SPEAKING,
    (Voice.SPEAKING, Cue.DOUBTED): Voice.SPEAKING,
    (Voice.SPEAKING, Cue.RESUMED): Voice.SPEAKING,
    (Voice.SPEAKING, Cue.REFUTED): Voice.STOPPED,
    (Voice.MUTE, Cue.SHOWN): Voice.MUTE,
    (Voice.MUTE, Cue.UNMUTED): Voice.RESUMING,
    (Voice.MUTE, Cue.DOUBTED): Voice.RESUMING,
    (Voice.MUTE, Cue.REFUTED): Voice.STOPPED,
    (Voice.RESUMING, Cue.SHOWN): Voice.MUTE,
    (Voice.RESUMING, Cue.UNMUTED): Voice.RESUMING,
    (Voice.RESUMING, Cue.DOUBTED): Voice.RESUMING,
    (Voice.RESUMING, Cue.RESUMED): Voice.SPEAKING,
    (Voice.RESUMING, Cue.REFUTED): Voice.STOPPED,
    (Voice.STOPPED, Cue.SHOWN): Voice.STOPPED,
    (Voice.STOPPED, Cue.UNMUTED): Voice.STOPPED,
    (Voice.STOPPED, Cue.DOUBTED): Voice.STOPPED,
    (Voice.STOPPED, Cue.REFUTED): Voice.STOPPED,
}


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
        self.seen: SignedHeader | None = None  # a higher head of ours that only others hold
        self.proofs: list[ForkProof] = []  # against us
        self.uncited: list[bytes] = []  # ids of those that no resume has cited yet
        self.voice = Voice.ASKING if mute else Voice.SPEAKING
        self.stopped = ""  # why
        self._incarnation = random.randbytes(INCARNATION_BYTES)
        self._life: deque[bytes] = deque(maxlen=LIFE_MAX)
        self._foreign_seq = -1  # of the highest entry of our key that we did not sign in this life
        self._growths = 0
        self._grown_at: float | None = None

    @property
    def head_seq(self) -> int:
        """Seq of our last entry; -1 before genesis."""
        return self.head.header.seq if self.head else -1

    @property
    def highest(self) -> SignedHeader | None:
        """The highest head of our key that we know of, whoever holds it."""
        if self.seen and self.seen.header.seq > self.head_seq:
            return self.seen
        return self.head

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be signed now."""
        return self.voice in (Voice.ASKING, Voice.MUTE, Voice.STOPPED)

    def hear(self, cue: Cue) -> None:
        """Change the voice. ProtocolError where the table has no row."""
        if (self.voice, cue) not in TRANSITIONS:
            raise ProtocolError(f"{cue.value} while {self.voice.value}")
        self.voice = TRANSITIONS[self.voice, cue]

    @property
    def cited(self) -> tuple[bytes, ...]:
        """Ids of the proofs that a resume has cited: the ring soon forgets the resume itself."""
        return tuple(proof.id for proof in self.proofs if proof.id not in self.uncited)

    def restore(
        self,
        headers: tuple[SignedHeader, ...],
        seen: SignedHeader | None,
        proofs: list[ForkProof],
        cited: Iterable[bytes] = (),
    ) -> None:
        """Go on from what the store holds."""
        for signed in sorted(headers, key=lambda item: item.header.seq):
            self.kept[signed.header.seq] = signed
            self.head = signed
        if self.head:
            self._incarnation = self.head.header.incarnation
            trim(self.kept, self.head_seq, self._settings)
        self.proofs = proofs[-PROOFS_MAX:]
        known = {*cited, *(signed.header.cites for signed in headers)}
        self.uncited = [proof.id for proof in self.proofs if proof.id not in known]
        if seen is not None and seen.header.kind == RETIRE:
            self._stop("retired")
        elif seen is not None or self.uncited:  # it died before it could resume
            self.seen = seen
            self.hear(Cue.SHOWN)

    # -- signing

    def publish(self, event: Publish) -> SignedHeader:
        """Sign the next entry. ProtocolError if we may not, or if the entry is not a valid one."""
        self._check_may_sign(event.kind)
        resume = event.kind == RESUME
        incarnation, cites = self._incarnation, event.cites
        if resume:
            incarnation = self._random.randbytes(INCARNATION_BYTES)
            cites = cites or (self.uncited[0] if self.uncited else b"")
        chunks, size = event.chunks, event.payload_bytes
        if event.payload:
            chunks, size = (chunk_hash(event.payload),), len(event.payload)
        last = self.highest
        header = Header(
            network=self._settings.network,
            author=self.public_key,
            incarnation=incarnation,
            seq=last.header.seq + 1 if last else 0,
            prev=last.header.hash if last else NO_HASH,
            kind=event.kind,
            codec=event.codec,
            chunks=tuple(chunks),
            payload_bytes=size,
            root=event.root,
            round=event.round,
            tokens=min(INTEGER_MAX, event.tokens + (last.header.tokens if last else 0)),
            cites=cites,
        )
        self._check_sound(header, event.payload)
        signed = sign(header, self._signer)
        self._take(signed)
        return signed

    def _check_may_sign(self, kind: str) -> None:
        if self.is_silent:
            raise ProtocolError(f"publish while {self.voice.value} {self.stopped}")
        if self.must_resume and kind != RESUME:
            raise ProtocolError("the next entry must be a resume")
        if (self.highest is None) != (kind in FIRST):
            raise ProtocolError("a stream starts with its one genesis or adopt entry")

    @property
    def must_resume(self) -> bool:
        """Whether the next entry must be a resume: also where the last one said goodbye."""
        if self.highest is None or self.voice is Voice.STOPPED:
            return False
        return self.voice is Voice.RESUMING or self.highest.header.kind == LEAVE

    def _check_sound(self, header: Header, payload: bytes) -> None:
        reason = breach(header, self._settings)
        if reason:
            raise ProtocolError(f"entry of ours is not valid: {reason}")
        try:
            if header.kind == PROFILE:
                decode_profile(payload)
            if header.kind == ADOPT:
                decode_adoption(payload, self.public_key, self._settings)
        except Malformed as error:
            raise ProtocolError(f"{header.kind} of ours is not valid: {error}") from error

    def _take(self, signed: SignedHeader) -> None:
        header = signed.header
        if header.kind in (*FIRST, RESUME):
            self.seen = None
            self.uncited = [proof for proof in self.uncited if proof != header.cites]
            if not self.uncited:
                self.hear(Cue.RESUMED)
        self._incarnation = header.incarnation
        self.head = signed
        self.kept[header.seq] = signed
        self._life.append(header.hash)
        trim(self.kept, self.head_seq, self._settings)
        if header.kind == LEAVE:
            self._stop(LEFT)

    def stay_away(self) -> None:
        """Started anew only to tell the goodbye that we signed: nothing is signed after it."""
        if self.head is not None and self.head.header.kind == LEAVE and self.seen is None:
            self._stop(LEFT)

    # -- heads of ours that others show

    def knows(self, signed: SignedHeader) -> bool:
        """Whether the header tells us nothing new; decided without a signature check."""
        header = signed.header
        if self.seen and header.hash == self.seen.header.hash:
            return True
        if self.highest is None or header.seq > self.highest.header.seq:
            return False
        held = self.kept.get(header.seq)
        if held is None or held.header.hash == header.hash:
            return True
        if conflict(held, signed):
            return any(proof.first.header.seq == header.seq for proof in self.proofs)
        return header.seq <= self._foreign_seq  # another incarnation, beside ours

    def learn(self, signed: SignedHeader, at: float) -> Shown:
        """Take in a verified head of ours that we did not know.

        We are mute afterwards if what we would sign next could contradict it.
        """
        header = signed.header
        if header.kind == RETIRE:
            self.seen = signed
            self._stop("retired")
            return Shown.NEWS
        news = self._take_foreign(signed)
        if self._is_clone(header, at):
            self._stop("clone")
            return Shown.CLONE
        return Shown.NEWS if news else Shown.BESIDE

    def _take_foreign(self, signed: SignedHeader) -> bool:
        """Note an entry of our key from another life; whether we must resume after it."""
        held = self.kept.get(signed.header.seq)
        higher = self.highest is None or signed.header.seq > self.highest.header.seq
        if higher:
            self.seen = signed
        elif held is not None and conflict(held, signed):
            proof = fork_proof(held, signed)
            self.proofs = [*self.proofs, proof][-PROOFS_MAX:]
            self.uncited = [*self.uncited, proof.id][-PROOFS_MAX:]
        else:
            return False
        self.hear(Cue.SHOWN)
        return True

    def _is_clone(self, header: Header, at: float) -> bool:
        """Certain if it builds on an entry of this life; likely if it keeps growing meanwhile.

        An old life of ours can also turn up in pieces, as peers appear; so growth counts only
        once per ``clone_pause_s``.
        """
        grew = header.seq > self._foreign_seq
        self._foreign_seq = max(self._foreign_seq, header.seq)
        if not self._life:
            return False
        if header.prev in self._life:
            return True
        paused = self._grown_at is None or at - self._grown_at >= self._settings.clone_pause_s
        if grew and paused:
            self._grown_at = at
            self._growths += 1
        return self._growths >= self._settings.clone_advances

    def _stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        self.hear(Cue.REFUTED)


def sign_retire(network: bytes, public_key: bytes, signer: Sign) -> SignedHeader:
    """The entry that ends a stream for good, to be kept offline against theft of the key."""
    header = Header(
        network, public_key, bytes(INCARNATION_BYTES), SEQ_MAX, NO_HASH, RETIRE, "", (), 0,
        b"", 0, 0, b"",
    )  # fmt: skip
    return sign(header, signer)
