"""One followed author: which headers we hold, where the copy stands, what to do next.

Pure bookkeeping of verified headers. Decides with ``plan`` which single job the shell should have;
sends nothing, verifies nothing, knows no peers. Invariants: headers ``base .. head`` are linked by
``prev``; at most one header beyond them is held (``ahead``); at most one job runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tapestry_p2p.gossip.fork import ForkProof, conflict
from tapestry_p2p.gossip.header import (
    ADOPT,
    DIFFERENCE,
    GENESIS,
    LEAVE,
    RESUME,
    RETIRE,
    SignedHeader,
)
from tapestry_p2p.gossip.settings import Bucket, Settings
from tapestry_p2p.gossip.verdict import Judgement, ignore


class Do(Enum):
    """What a stream needs now."""

    NOTHING = "nothing"
    WANT = "want"  # headers first .. last
    FETCH = "fetch"  # the payload of the next entry
    KEYFRAME = "keyframe"  # the whole copy at a header
    ADVANCE = "advance"  # the next entry changes no copy


@dataclass(frozen=True)
class Plan:
    """One thing to do, with the header or the range it is about."""

    do: Do
    signed: SignedHeader | None = None
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
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
SPOILT = frozenset({"root", "content"})  # failures after which the copy must come whole


@dataclass
class Stream:
    """What we know of one author's stream."""

    author: bytes
    settings: Settings
    fresh_at: float
    rate: Bucket
    followed: bool = False
    head: SignedHeader | None = None
    ahead: SignedHeader | None = None
    kept: dict[int, SignedHeader] = field(default_factory=dict)
    position: int = -1  # seq the copy stands at; -1 no copy
    root: bytes = b""  # of the copy, where known
    standing: SignedHeader | None = None  # the header at ``position``
    job: Job | None = None
    rebase: bool = False  # the copy must come whole
    suspect: bool = False  # a signed successor does not link to our head: ask for its twin
    fails: int = 0
    retry_at: float = 0.0
    wants: int = 0
    want_at: float = 0.0
    proof: ForkProof | None = None
    arrived: set[int] = field(default_factory=set)

    @property
    def newest(self) -> SignedHeader | None:
        """The highest signed header we hold."""
        return self.ahead or self.head

    @property
    def newest_seq(self) -> int:
        """Its seq; -1 if none."""
        return self.newest.header.seq if self.newest else -1

    @property
    def head_seq(self) -> int:
        """Seq of the last linked header; -1 if none."""
        return self.head.header.seq if self.head else -1

    @property
    def has_left(self) -> bool:
        """The newest entry says goodbye."""
        return self.newest is not None and self.newest.header.kind == LEAVE

    def held(self, seq: int) -> SignedHeader | None:
        """The header we hold at ``seq``, if any."""
        if self.ahead and self.ahead.header.seq == seq:
            return self.ahead
        return self.kept.get(seq)

    # -- judging a header, before and after its signature is checked

    def triage(self, signed: SignedHeader) -> Judgement | None:
        """The cheap verdict on a header; None if it deserves a signature check."""
        header = signed.header
        if header.kind == ADOPT:
            return ignore("adopt_unsupported")
        other = self.held(header.seq)
        if other is not None and other.header.hash == header.hash:
            return ignore("duplicate")
        if self.proof is not None:
            cited = header.kind == RESUME and header.cites == self.proof.id
            return None if cited and header.seq > self.newest_seq else ignore("forked")
        if other is not None and conflict(other, signed):
            return None
        if header.seq <= self.head_seq:
            return ignore("stale")
        if self.ahead and self._beyond(header.seq):
            return ignore("beyond")
        return None

    def _beyond(self, seq: int) -> bool:
        """Whether a header could neither be linked now nor replace the one held ahead."""
        return self.followed and self.head_seq + 1 < seq <= self.newest_seq

    def admit(self, signed: SignedHeader) -> str:
        """Take in a verified header that passed ``triage``; the reason it is counted under."""
        header = signed.header
        if self.proof is not None:
            self.proof = None
            self._jump(signed)
            return "resume"
        if not self.followed:
            if header.seq > self.newest_seq:
                self.ahead = signed
                return "head"
            return "unlinked"
        if self._links(signed):
            self._append(signed)
            return header.kind
        if header.seq == self.head_seq + 1:
            self._mark_unlinked(signed)
        if header.seq > self.newest_seq:
            self.ahead = signed
            return "ahead"
        return "unlinked"

    def _mark_unlinked(self, signed: SignedHeader) -> None:
        if self.head and signed.header.incarnation == self.head.header.incarnation:
            self.suspect = True
        elif self.head:
            self.rebase = True

    def _jump(self, signed: SignedHeader) -> None:
        """Go on from a header that need not link to what we had."""
        self.head, self.ahead = signed, None
        self.rebase, self.suspect, self.job = True, False, None
        self.fails, self.wants, self.retry_at = 0, 0, 0.0
        self._keep(signed)

    def _links(self, signed: SignedHeader) -> bool:
        header = signed.header
        if self.head is None:
            return header.kind == GENESIS
        last = self.head.header
        same = header.incarnation == last.incarnation or header.kind == RESUME
        return header.seq == last.seq + 1 and header.prev == last.hash and same

    def _append(self, signed: SignedHeader) -> None:
        self.head = signed
        self.suspect = False
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

    def _keep(self, signed: SignedHeader) -> None:
        """Hold a linked header; let go of those outside the ring that are no milestone."""
        self.kept[signed.header.seq] = signed
        trim(self.kept, self.head_seq, self.settings)

    # -- what to do next

    def plan(self, at: float) -> Plan:
        """The one thing this stream needs now."""
        if not self.followed or self.proof is not None or self.job or at < self.retry_at:
            return NOTHING
        if self.newest_seq <= self.position and not self.rebase:
            return NOTHING
        if self.newest_seq - max(self.position, 0) > self.settings.ring:
            self.rebase = True
        if self.rebase:
            return self._plan_whole()
        entry = self.kept.get(self.position + 1) if self.position < self.head_seq else None
        if entry is None:
            return self._plan_want(at)
        return self._plan_entry(entry)

    def _plan_whole(self) -> Plan:
        """A keyframe at the newest header that states a root and whose sequel is at hand."""
        oldest = max(self.position, self.newest_seq - self.settings.ring)
        linked = (self.kept.get(seq) for seq in range(self.head_seq, max(oldest, 0) - 1, -1))
        for signed in (self.ahead, *linked):
            if signed and signed.header.root:
                return Plan(Do.KEYFRAME, signed)
        return NOTHING

    def _plan_want(self, at: float) -> Plan:
        if at < self.want_at:
            return NOTHING
        if self.wants >= self.settings.want_tries:
            self.rebase = True
            return self._plan_whole()
        first = self.head_seq if self.suspect else self.head_seq + 1
        return Plan(Do.WANT, None, first, max(first, self.newest_seq - 1))

    def _plan_entry(self, entry: SignedHeader) -> Plan:
        header = entry.header
        if header.kind in (GENESIS, DIFFERENCE):
            return Plan(Do.FETCH, entry)
        if header.root and header.root != self.root and (self.root or header.kind == RESUME):
            self.rebase = True
            return self._plan_whole()
        return Plan(Do.ADVANCE, entry)

    # -- what came of it

    def start(self, signed: SignedHeader, whole: bool, at: float) -> None:
        """The shell was told to fetch."""
        if whole and signed.header.seq > self.head_seq:
            fails, retry_at = self.fails, self.retry_at
            later = self.ahead
            self._jump(signed)
            self.fails, self.retry_at = fails, retry_at
            if later and later.header.seq > signed.header.seq:
                self.ahead = later
        self.job = Job(signed, whole, at)

    def wanted(self, at: float) -> None:
        """Headers were asked for."""
        self.wants += 1
        self.want_at = at + self.settings.want_retry_s * 2 ** (self.wants - 1)

    def advance(self, signed: SignedHeader) -> None:
        """The copy now stands at an entry that changed nothing."""
        self._stand(signed, self.root)

    def applied(self, seq: int, root: bytes) -> bool:
        """The shell's copy stands at ``seq``; False if that is news we cannot place."""
        job = self.job
        if job and job.seq == seq:
            signed: SignedHeader | None = job.signed
        elif not self.rebase and seq == self.position + 1 <= self.head_seq:
            signed = self.kept.get(seq)
        else:
            signed = None
        if signed is None:
            return False
        self.job, self.fails, self.retry_at = None, 0, 0.0
        self.rebase = False
        self._stand(signed, root or signed.header.root)
        return True

    def _stand(self, signed: SignedHeader, root: bytes) -> None:
        self.standing, self.root = signed, root
        self.position = signed.header.seq
        self.arrived = {seq for seq in self.arrived if seq > self.position}

    def failed(self, reason: str, at: float, jitter: float) -> None:
        """The job came to nothing; wait, and after some tries take the copy whole."""
        self.job = None
        self.fails += 1
        if reason in SPOILT:
            self.rebase, self.position, self.root, self.standing = True, -1, b"", None
        elif self.fails >= self.settings.fetch_tries:
            self.rebase = True
        longest = self.settings.retry_max_s
        wait = min(longest, self.settings.retry_s * 2 ** min(self.fails - 1, 16))
        self.retry_at = at + (longest if reason == "content" else wait) * (0.5 + jitter / 2)

    def unfollow(self) -> None:
        """Keep only the newest head."""
        newest = self.newest
        self.followed, self.head, self.ahead, self.kept = False, None, newest, {}
        self.position, self.root, self.standing, self.job = -1, b"", None, None
        self.rebase, self.suspect, self.fails, self.wants = False, False, 0, 0
        self.arrived = set()

    def follow(self) -> None:
        """Start to keep a copy of this author."""
        self.followed = True
        newest = self.ahead
        if newest and newest.header.kind == GENESIS:
            self.ahead = None
            self._append(newest)


def trim(kept: dict[int, SignedHeader], head_seq: int, settings: Settings) -> None:
    """Drop headers older than the ring, except the newest ``milestones_max`` milestones."""
    oldest = head_seq - settings.ring
    for seq in [seq for seq in kept if seq < oldest and seq % settings.milestone]:
        del kept[seq]
    milestones = sorted(seq for seq in kept if seq < oldest)
    for seq in milestones[1 : -settings.milestones_max]:  # seq 0 anchors the stream
        del kept[seq]


def is_final(signed: SignedHeader) -> bool:
    """Whether the entry ends its stream for good."""
    return signed.header.kind == RETIRE
