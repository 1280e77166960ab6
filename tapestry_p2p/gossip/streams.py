"""One followed author: which headers we hold, where the copy stands, what to do next.

Pure bookkeeping of verified headers. Decides what the shell should fetch (``plan``) and which
headers to ask for (``gap``); sends nothing, verifies nothing, knows no peers. Invariants: headers
``base .. head`` are linked by ``prev``; at most one header beyond them is held (``ahead``); at
most one job runs; whatever a peer can make grow is cut to the ring.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tapestry_p2p.gossip.bucket import Bucket
from tapestry_p2p.gossip.fact import fact
from tapestry_p2p.gossip.fork import ForkProof, conflict
from tapestry_p2p.gossip.header import (
    DIFFERENCE,
    FIRST,
    LEAVE,
    RESUME,
    SignedHeader,
)
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.gossip.verdict import Judgement, ignore


class Do(Enum):
    """What a copy needs next."""

    NOTHING = "nothing"
    FETCH = "fetch"  # the payload of the next entry
    KEYFRAME = "keyframe"  # the whole copy, at one of several headers
    ADVANCE = "advance"  # the next entry changes no copy


@fact
class Plan:
    """What to do, and the header it is about; for a keyframe the candidates, newest first."""

    do: Do
    headers: tuple[SignedHeader, ...] = ()


@fact
class Job:
    """A Fetch or FetchKeyframe that the shell runs."""

    signed: SignedHeader
    whole: bool
    since: float

    @property
    def seq(self) -> int:
        """Where the copy will stand."""
        return self.signed.header.seq


NOTHING = Plan(Do.NOTHING)
HEALING_MAX = 8  # entries of one author that ended a fork, kept for good
PASSING = frozenset({"missing", "busy"})  # a source answered; it may have more in a moment
SPOILT = frozenset({"root", "content"})  # failures after which the copy must come whole


@dataclass
class Stream:
    """What we know of one author's stream."""

    author: bytes
    settings: Settings
    fresh_at: float  # when the newest head last rose
    rate: Bucket  # entries per minute that we will verify
    followed: bool = False
    head: SignedHeader | None = None  # the last linked header
    base: int = 0  # seq of the first linked header
    ahead: SignedHeader | None = None  # the newest header, if it does not link to the head yet
    kept: dict[int, SignedHeader] = field(default_factory=dict)
    standing: SignedHeader | None = None  # the header that the copy stands at
    root: bytes = b""  # of the copy, where known
    job: Job | None = None
    proof: ForkProof | None = None
    rival: bytes = b""  # hash of the last head seen beside ours, of another incarnation
    spoilt: bool = False  # our copy is not what the author's headers say
    broken: bool = False  # a later incarnation goes on from something we do not hold
    suspect: bool = False  # a signed successor does not link to our head: ask for its twin
    unserved: bool = False  # nobody within reach has what we want
    fails: int = 0
    misses: int = 0  # times nobody had the payload of the next entry
    retry_at: float = 0.0
    wants: int = 0
    want_at: float = 0.0
    arrived: set[int] = field(default_factory=set)
    claimed: int = -1  # no peer has said that its copy stands beyond this seq
    heard_round: int | None = None  # own round in which the newest head last rose in this life

    @property
    def newest(self) -> SignedHeader | None:
        """The highest signed header we hold."""
        return self.ahead or self.head

    @property
    def newest_seq(self) -> int:
        """Its seq; -1 if none."""
        newest = self.ahead or self.head
        return newest.header.seq if newest else -1

    @property
    def head_seq(self) -> int:
        """Seq of the last linked header; -1 if none."""
        return self.head.header.seq if self.head else -1

    @property
    def position(self) -> int:
        """Seq that the copy stands at; -1 if there is none."""
        return self.standing.header.seq if self.standing else -1

    @property
    def is_settled(self) -> bool:
        """The copy stands at the newest header: ``gap`` and ``plan`` have nothing to say."""
        return self.ahead is None and self.standing is self.head

    @property
    def milestone(self) -> int:
        """The newest multiple of the milestone at which a header is kept; 0 if none."""
        return max((seq for seq in self.kept if seq % self.settings.milestone == 0), default=0)

    @property
    def has_left(self) -> bool:
        """The newest entry says goodbye."""
        return self.newest is not None and self.newest.header.kind == LEAVE

    def held(self, seq: int) -> SignedHeader | None:
        """The header we hold at ``seq``, if any."""
        if self.ahead and self.ahead.header.seq == seq:
            return self.ahead
        return self.kept.get(seq)

    # -- judging a header: before its signature is checked, and after

    def triage(self, signed: SignedHeader) -> Judgement | None:
        """The cheap verdict on a header; None if it deserves a signature check."""
        header = signed.header
        if self.proof is None and header.seq > self.newest_seq:
            return None  # by far the most
        other = self.held(header.seq)
        if other is not None and other.header.hash == header.hash:
            return ignore("duplicate")
        if self.proof is not None:
            cited = header.kind == RESUME and header.cites == self.proof.id
            return None if cited and header.seq > self.newest_seq else ignore("forked")
        if (other is not None and conflict(other, signed)) or self._fills(signed):
            return None
        if self._is_rival(signed):
            return None
        if header.seq <= (self.head_seq if self.followed else self.newest_seq):
            return ignore("stale")
        if self.head_seq + 1 < header.seq <= self.newest_seq:
            return ignore("beyond")
        return None

    def admit(self, signed: SignedHeader) -> str:
        """Take in a verified header that ``triage`` let through; what it is counted as."""
        header = signed.header
        if self.proof is not None:
            self.proof = None
            self.kept = {}
            self._jump(signed)
            return "resume"
        newer = header.seq > self.newest_seq
        if not newer and self._is_rival(signed):
            self.rival = header.hash
            return "rival"
        if not self.followed:
            self.ahead = signed
            return "head"
        if not newer and self._fills(signed):
            self.base = header.seq
            self.wants, self.want_at = 0, 0.0
            self._keep(signed)
            return "filled"
        if self._links(signed):
            self._append(signed)
            return header.kind
        if header.seq == self.head_seq + 1:
            self._mark_unlinked(signed)
        if header.seq > self.newest_seq:
            self.ahead = signed
            return "ahead"
        return "unlinked"

    def _links(self, signed: SignedHeader) -> bool:
        """Whether the header is the next one after our head."""
        header = signed.header
        if self.head is None:
            return header.kind in FIRST
        last = self.head.header
        same = header.incarnation == last.incarnation or header.kind == RESUME
        return header.seq == last.seq + 1 and header.prev == last.hash and same

    def _fills(self, signed: SignedHeader) -> bool:
        """Whether the header is the one before our first linked one, and of use."""
        header = signed.header
        if header.seq != self.base - 1 or not self.followed:
            return False
        first = self.kept.get(self.base)
        oldest = max(self.head_seq - self.settings.ring, self.position + 1)
        return first is not None and oldest <= header.seq and first.header.prev == header.hash

    def _is_rival(self, signed: SignedHeader) -> bool:
        """Whether another incarnation of the author stands beside our newest head: news to it."""
        header, newest = signed.header, self.newest
        beside = newest is not None and header.seq == newest.header.seq
        return beside and newest != signed and header.hash != self.rival

    def _mark_unlinked(self, signed: SignedHeader) -> None:
        if self.head and signed.header.incarnation == self.head.header.incarnation:
            self.suspect = True
        elif self.head:
            self.broken = True

    def _append(self, signed: SignedHeader) -> None:
        if self.head is None:
            self.base = signed.header.seq
        self.head = signed
        self.suspect = self.broken = False
        self.wants, self.want_at = 0, 0.0
        self._keep(signed)
        ahead = self.ahead
        if ahead is None:
            return
        if ahead.header.seq <= self.head_seq:
            self.ahead = None
        elif self._links(ahead):
            self.ahead = None
            self._append(ahead)
        elif ahead.header.seq == self.head_seq + 1:
            self._mark_unlinked(ahead)

    def _jump(self, signed: SignedHeader) -> None:
        """Go on from a header that need not link to what we had."""
        later = self.ahead if self.newest_seq > signed.header.seq else None
        self.head, self.base, self.ahead = signed, signed.header.seq, later
        self.suspect = self.broken = False
        self.wants, self.want_at, self.job = 0, 0.0, None
        self._keep(signed)

    def _keep(self, signed: SignedHeader) -> None:
        """Hold a linked header; let go of those outside the ring that are no milestone."""
        self.kept[signed.header.seq] = signed
        head_seq = self.head_seq
        trim(self.kept, head_seq, self.settings)
        self.base = max(self.base, head_seq - self.settings.ring)

    def arrive(self, seq: int) -> bool:
        """Note the arrival of a header; False if it was noted before, or is of no use."""
        if not self.followed or seq in self.arrived or seq <= self.position:
            return False
        self.arrived.add(seq)
        if len(self.arrived) > 2 * self.settings.ring:
            self.arrived.remove(min(self.arrived))
        return True

    # -- which headers to ask for

    def gap(self, at: float) -> tuple[int, int] | None:
        """The range of headers to ask for now, or None."""
        stuck = self.fails > 0 or self.unserved
        if self.ahead is None and not stuck:
            return None
        if not self.followed or self.proof is not None or at < self.want_at:
            return None
        if self.wants >= self.settings.want_tries or self.broken:
            return None
        ring = self.settings.ring
        if self.ahead is not None:
            if self.newest_seq - max(self.head_seq, 0) > ring:
                return None  # a keyframe will do
            first = self.head_seq if self.suspect else self.head_seq + 1
            return first, max(first, self.newest_seq - 1)
        oldest = max(self.position + 1, self.head_seq - ring)
        if self.head is not None and self.base > max(oldest, 0):
            return max(oldest, 0), self.base - 1  # whoever holds an older copy can serve that
        return None

    def wanted(self, at: float) -> None:
        """Headers were asked for."""
        self.wants += 1
        self.want_at = at + self.settings.want_retry_s * 2 ** (self.wants - 1)

    # -- what to do with the copy

    def plan(self, at: float) -> Plan:
        """The one thing this copy needs now."""
        if not self.followed or self.proof is not None or self.job or at < self.retry_at:
            return NOTHING
        if self.newest_seq <= self.position:
            return NOTHING
        entry = self._next_entry()
        if self._needs_whole(entry):
            headers = self._rooted()
            return Plan(Do.KEYFRAME, headers) if headers else NOTHING
        if entry is None:
            return NOTHING
        kind = entry.header.kind
        return Plan(Do.FETCH if kind in (*FIRST, DIFFERENCE) else Do.ADVANCE, (entry,))

    def _next_entry(self) -> SignedHeader | None:
        """The linked header after the copy's position."""
        seq = self.position + 1
        entry = self.kept.get(seq) if self.base <= seq <= self.head_seq else None
        if entry and self.standing and entry.header.prev != self.standing.header.hash:
            return None
        return entry

    def _needs_whole(self, entry: SignedHeader | None) -> bool:
        if self.spoilt or self.misses >= self.settings.fetch_tries:
            return True
        if self.newest_seq - max(self.position, 0) > self.settings.ring:
            return True
        if entry is None:
            stranded = self.position < self.head_seq
            return stranded or self.broken or self.wants >= self.settings.want_tries
        header = entry.header
        if header.kind in (*FIRST, DIFFERENCE) or not header.root:
            return False
        known = self.root or header.kind == RESUME  # a copy of unknown root cannot be compared
        return bool(known) and header.root != self.root

    def _rooted(self) -> tuple[SignedHeader, ...]:
        """Headers at which a whole copy would be of use, newest first."""
        oldest = max(self.position + 1, self.newest_seq - self.settings.ring, 0)
        linked = () if self.broken else range(self.head_seq, max(oldest, self.base) - 1, -1)
        headers = (self.ahead, *(self.kept.get(seq) for seq in linked))
        return tuple(signed for signed in headers if signed and signed.header.root)

    # -- what came of it

    def start(self, signed: SignedHeader, whole: bool, at: float) -> None:
        """The shell was told to fetch."""
        if whole and signed.header.seq > self.head_seq:
            self._jump(signed)
        self.unserved = False
        self.job = Job(signed, whole, at)

    def lacks_sources(self, signed: SignedHeader, whole: bool) -> None:
        """Nobody within reach has this; an older copy may do, so go on from its header."""
        if whole and signed.header.seq > self.head_seq:
            self._jump(signed)
        self.unserved = True

    def advance(self, signed: SignedHeader) -> None:
        """The copy now stands at an entry that changed nothing."""
        self._stand(signed, self.root)

    def applied(self, seq: int, root: bytes) -> bool:
        """The shell's copy stands at ``seq``; False if that is news we cannot place."""
        entry = self._next_entry()
        if self.job is not None and self.job.seq == seq:
            signed = self.job.signed
        elif entry is not None and entry.header.seq == seq and not self.spoilt:
            signed = entry
        else:
            return False
        self.job, self.fails, self.misses, self.retry_at = None, 0, 0, 0.0
        self.spoilt = False
        self._stand(signed, root or signed.header.root)
        return True

    def _stand(self, signed: SignedHeader, root: bytes) -> None:
        self.standing, self.root = signed, root
        self.arrived = {seq for seq in self.arrived if seq > self.position}

    def failed(self, reason: str, at: float, jitter: float) -> None:
        """The job came to nothing: wait; when nobody has the payload, take the copy whole.

        ``jitter`` is a number in [0, 1).
        """
        whole = self.job is not None and self.job.whole
        self.job = None
        self.fails += 1
        if reason in SPOILT:
            self.spoilt, self.standing, self.root = True, None, b""
        self.misses = 0 if whole else self.misses + (reason == "missing")
        longest = self.settings.retry_max_s
        if reason in PASSING:
            longest = min(longest, 4 * self.settings.retry_s)
        wait = min(longest, self.settings.retry_s * 2 ** min(self.fails - 1, 16))
        self.retry_at = at + (longest if reason == "content" else wait) * (0.5 + jitter / 2)

    def revive(self) -> None:
        """A source is back: what failed for want of it may be tried again at once."""
        self.retry_at, self.want_at, self.wants = 0.0, 0.0, 0

    # -- following

    def unfollow(self) -> None:
        """Keep only the newest head."""
        self.ahead, self.head, self.kept, self.base = self.newest, None, {}, 0
        self.followed, self.standing, self.root, self.job = False, None, b"", None
        self.spoilt = self.broken = self.suspect = self.unserved = False
        self.fails, self.misses, self.wants, self.retry_at, self.want_at = 0, 0, 0, 0.0, 0.0
        self.arrived = set()

    def follow(self) -> None:
        """Start to keep a copy of this author."""
        self.followed = True
        newest = self.ahead
        if newest and newest.header.kind in FIRST:
            self.ahead = None
            self._append(newest)

    def restore(self, signed: SignedHeader) -> None:
        """A copy on disk stands at this header."""
        self.followed = True
        self.head = self.standing = signed
        self.base, self.root = signed.header.seq, signed.header.root
        self.kept = {signed.header.seq: signed}


def heals(signed: SignedHeader) -> bool:
    """Whether the entry ends a fork for whoever holds the proof of it."""
    return signed.header.kind == RESUME and bool(signed.header.cites)


def trim(kept: dict[int, SignedHeader], head_seq: int, settings: Settings) -> None:
    """Drop headers older than the ring, except the newest ``milestones_max`` milestones.

    The newest entries that end a fork stay too: who is shown the old proof needs them.
    """
    oldest, period = head_seq - settings.ring, settings.milestone
    past = sorted(seq for seq in kept if seq < oldest)
    healing = [seq for seq in past if heals(kept[seq])][-HEALING_MAX:]
    milestones = []
    for seq in past:
        if seq in healing:
            continue
        if seq % period:
            del kept[seq]
        else:
            milestones.append(seq)
    if len(milestones) > settings.milestones_max:
        for seq in sorted(milestones)[1 : -settings.milestones_max]:  # seq 0 anchors the stream
            del kept[seq]
