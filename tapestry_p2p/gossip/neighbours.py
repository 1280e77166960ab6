"""Whom we keep links with, where members are too many for everyone to follow everyone.

A link is mutual: both ends follow each other. At least half of the k links are of our choosing:
members in the order of a hash keyed with a local secret, which nobody outside can grind; who
refuses drops in that order. The rest is granted to whoever asks; the newest of these changes hands
for guests: newcomers who lack several links (one exchange evens things out, and so they end), and
those who renew. For now and then the order is keyed anew and the oldest chosen link exchanged,
which switches two edges of a full graph. Whom the operator trusts comes before all others. A link
is given up for another one or because its other end says so, never for want of an answer: nothing
that happens to us alone empties the table.
Knows keys, times and what it is told; sends nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from tapestry_p2p.gossip.settings import Settings

SECRET_BYTES = 16
NEVER = float("-inf")
REFUSALS_MAX = 8  # counted; more would only lengthen a wait that is at its longest by then
VAIN = 16  # questions asked in vain before the last missing links are asked for ever later

Blocks = Mapping[bytes, str | None]  # member -> its address block, None where no share applies
Newcomers = Container[bytes]  # those on probation
NOBODY: frozenset[bytes] = frozenset()


@dataclass
class Tie:
    """A neighbour, or a member that we asked to become one."""

    chosen: bool  # by us; the others asked us
    since: float  # when it was asked, then when it agreed
    agreed: bool
    seen_at: float  # when it was last there, and not silent
    told_at: float = NEVER  # when we last told it where we stand


@dataclass
class Refusal:
    """How often a member refused us, and until when it is left alone."""

    count: int
    until: float
    broke: bool  # it gave up a link that stood


class Neighbours:
    """The table of links. ``sparse`` says whether it is in force."""

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self._settings = settings
        self.secret = secret
        self.epoch = 0  # how often the order was keyed anew
        self.sparse = False
        self.wide = False  # members are more than anybody lists: digests name those we hear alone
        self.ties: dict[bytes, Tie] = {}
        self._refusals: dict[bytes, Refusal] = {}
        self._at: float | None = None
        self._renew_at = 0.0
        self._renewing = False
        self._guest_at = NEVER  # when the place that changes hands last did
        self._vain = 0  # times that we asked in vain; half of them count once a link is agreed
        self._ask_at = NEVER  # before that we do not ask for the last missing links

    @property
    def _half(self) -> int:
        return self._settings.k // 2

    def agreed(self) -> list[bytes]:
        """Those with whom there is a link."""
        return [peer for peer, tie in self.ties.items() if tie.agreed]

    def rank(self, peer: bytes) -> bytes:
        """The peer's place in our order: 8 bytes, lower is earlier."""
        salt = self.epoch.to_bytes(8, "big")
        return blake2b(peer, key=self.secret, salt=salt, digest_size=8).digest()

    # -- when the table is in force

    def crowd(self, members: int) -> bool:
        """Note how many members are known; whether this changes ``sparse``.

        The way back needs an eighth fewer, so that one who comes and goes changes nothing.
        """
        limit = self._settings.all_to_all_max
        if self.sparse:
            limit -= max(1, limit // 8)
        changed = (members > limit) != self.sparse
        self.sparse = members > limit
        self.wide = self.sparse and members > self._settings.streams_max
        return changed

    def enter(self, followed: Iterable[bytes], at: float) -> list[bytes]:
        """Everyone was followed until now: the first k stay, as links. The rest is returned."""
        ranked = sorted(followed, key=lambda peer: (peer not in self.ties, self.rank(peer)))
        kept = ranked[: self._settings.k]
        for place, peer in enumerate(kept):
            self.ties.setdefault(peer, Tie(place < self._half, at, True, at))
        return ranked[len(kept) :]

    def restore(self, secret: bytes, epoch: int, ties: Iterable[tuple[bytes, bool]]) -> None:
        """Go on with the links that a restarted member had: (peer, whether we chose it)."""
        self.secret, self.epoch = secret, epoch
        for peer, chosen in ties:
            self.ties[peer] = Tie(chosen, 0.0, True, 0.0)
        self.sparse = bool(self.ties)

    # -- time

    def note(self, at: float, present: Collection[bytes], alone: bool) -> None:
        """Who is there now. While nobody at all is, it is we who are away: no time passes."""
        if self._at is None:
            self._begin(at)
        passed = 0.0 if self._at is None else at - self._at
        self._at = at
        if alone:
            self._renew_at += passed
            for tie in self.ties.values():
                tie.since, tie.seen_at = tie.since + passed, tie.seen_at + passed
            return
        for peer in present:
            if peer in self.ties:
                self.ties[peer].seen_at = at
        if at >= self._renew_at:
            self._rekey(at)

    def _begin(self, at: float) -> None:
        phase = int.from_bytes(self.rank(b"phase"), "big") / 2**64
        self._renew_at = at + self._settings.renew_every_s * (0.5 + phase)
        for tie in self.ties.values():  # those restored
            tie.since, tie.seen_at = max(tie.since, at), max(tie.seen_at, at)

    def _rekey(self, at: float) -> None:
        """A new order for the choices to come; old refusals count half."""
        self.epoch += 1
        self._renewing = True
        self._renew_at = at + self._settings.renew_every_s
        for peer, refusal in list(self._refusals.items()):
            refusal.count //= 2
            if not refusal.count:
                del self._refusals[peer]

    def _is_stale(self, tie: Tie, at: float) -> bool:
        """Whether the link may be given up for another one."""
        return tie.agreed and at - tie.seen_at >= self._settings.link_absent_s

    def unanswered(self, at: float) -> list[bytes]:
        """Those who were asked and have not answered in time."""
        limit = at - self._settings.link_timeout_s
        return [peer for peer, tie in self.ties.items() if not tie.agreed and tie.since <= limit]

    # -- our choice

    def pick(self, blocks: Blocks, at: float, places: int, new: Newcomers = NOBODY) -> list[bytes]:
        """Whom of ``blocks`` to ask now, the trusted first, newcomers last; they are noted.

        No untrusted member keeps a trusted one waiting: made-up names never answer.
        """
        trusted = self._settings.trusted
        room = self.room(at, places)
        room_of_trusted = max(room, places - sum(peer in trusted for peer in self.ties))
        free = [peer for peer in blocks if peer not in self.ties and not self._is_waiting(peer, at)]
        free.sort(key=lambda peer: (peer in new, self._refused(peer), self.rank(peer)))
        free.sort(key=trusted.__contains__, reverse=True)  # stable
        picked: list[bytes] = []
        for peer in free:
            if len(picked) >= (room_of_trusted if peer in trusted else room):
                break
            if not self._is_share_taken(peer, blocks, new):
                self.ties[peer] = Tie(True, at, False, at)
                picked.append(peer)
        return picked

    def room(self, at: float, places: int) -> int:
        """How many more to ask now, so that ``places`` links are held.

        For the last quarter ever later: where most are full, each question costs a connection.
        """
        firm = sum(not self._is_stale(tie, at) for tie in self.ties.values())
        asked = sum(not tie.agreed for tie in self.ties.values())
        room = places - firm
        if self._renewing and not asked:
            room = max(room, 1)
        if 4 * room <= places and at < self._ask_at:
            return 0
        return min(room, self._settings.link_asks_max - asked)

    def need_place(self, members: int) -> bool:
        """Whether to ask as a guest: we lack more than one link, or renew one."""
        most = min(self._settings.k, members - 1)
        return self._renewing or most - len(self.agreed()) > 1

    def agree(
        self, peer: bytes, blocks: Blocks, at: float, new: Newcomers = NOBODY
    ) -> list[bytes] | None:
        """One that we asked says yes: whom it replaces. None if its place is gone meanwhile."""
        if self._is_share_taken(peer, blocks, new):
            return None  # connected, it turned out to be at another address than it claimed
        replaced = self._make_room(peer, at)
        if replaced is not None:
            tie = self.ties[peer]
            tie.agreed, tie.since, tie.seen_at = True, at, at
            self._refusals.pop(peer, None)
            self._vain //= 2
        return replaced

    def _make_room(self, comer: bytes, at: float) -> list[bytes] | None:
        agreed, trusted = self.agreed(), self._settings.trusted
        if len(agreed) < self._settings.k:
            return []
        stale = [peer for peer in agreed if self._is_stale(self.ties[peer], at)]
        if stale:
            return [min(stale, key=lambda peer: self.ties[peer].seen_at)]
        others = [peer for peer in agreed if peer not in trusted]
        if comer in trusted and others:
            return [max(others, key=lambda peer: self.ties[peer].since)]
        chosen = [peer for peer in others if self.ties[peer].chosen]
        if not self._renewing or not chosen:
            return None
        self._renewing = False
        return [min(chosen, key=lambda peer: self.ties[peer].since)]

    # -- theirs

    def grant(
        self, peer: bytes, blocks: Blocks, at: float, guest: bool, new: Newcomers = NOBODY
    ) -> list[bytes] | None:
        """One that we do not ask now wants a link: whom it replaces, None if it is refused.

        ``guest``: it would take the place that changes hands. One that we asked before, in vain,
        counts as chosen by us.
        """
        refusal = self._refusals.get(peer)
        broke = refusal is not None and refusal.broke and at < refusal.until
        if broke or self._is_share_taken(peer, blocks, new):
            return None
        trusted = peer in self._settings.trusted
        chosen = trusted or (refusal is not None and not refusal.broke)
        firm = [tie for tie in self.ties.values() if tie.agreed and not self._is_stale(tie, at)]
        granted = sum(not tie.chosen for tie in firm)
        allowed = chosen or granted < self._settings.k - self._half
        if trusted or (allowed and len(firm) < self._settings.k):
            replaced = self._make_room(peer, at)
        else:
            replaced = self._newest(at) if guest else None
            chosen = False
        if replaced is not None:
            self.ties[peer] = Tie(chosen, at, True, at)
            self._refusals.pop(peer, None)
            self._vain //= 2
        return replaced

    def _newest(self, at: float) -> list[bytes] | None:
        """The newest link beyond the half that is our choice; it gives way now and then only."""
        if at - self._guest_at < self._settings.guest_s:
            return None
        chosen = [peer for peer in self.agreed() if self.ties[peer].chosen]
        firm = sorted(chosen, key=lambda peer: self.ties[peer].since)[: self._half]
        others = [p for p in self.agreed() if p not in firm and p not in self._settings.trusted]
        if not others:
            return None
        self._guest_at = at
        return [max(others, key=lambda peer: self.ties[peer].since)]

    # -- the end of a link

    def part(self, peer: bytes) -> None:
        """We gave it up; nobody is to blame."""
        self.ties.pop(peer, None)

    def refuse(self, peer: bytes, at: float) -> None:
        """It said no, or nothing: the next time it comes later, and longer."""
        tie = self.ties.pop(peer, None)
        broke = tie is not None and tie.agreed
        settings = self._settings
        if not broke:
            self._vain += 1
            self._ask_at = at + min(settings.guest_s, 2.0 ** min(self._vain - VAIN, 16))
        count = min(REFUSALS_MAX, self._refused(peer) + 1)
        wait = min(settings.link_refused_max_s, settings.link_refused_s * 2 ** (count - 1))
        self._refusals.pop(peer, None)
        self._refusals[peer] = Refusal(count, at + wait, broke)
        while len(self._refusals) > settings.members_max:
            del self._refusals[next(iter(self._refusals))]

    def _refused(self, peer: bytes) -> int:
        refusal = self._refusals.get(peer)
        return refusal.count if refusal else 0

    def _is_waiting(self, peer: bytes, at: float) -> bool:
        refusal = self._refusals.get(peer)
        return refusal is not None and at < refusal.until

    def _is_share_taken(self, peer: bytes, blocks: Blocks, new: Newcomers) -> bool:
        """Whether the peer's address block, or newcomers, have their quarter of the links."""
        share = max(1, self._settings.k // 4)
        others = [other for other in self.ties if other != peer]
        if peer in new and sum(other in new for other in others) >= share:
            return True
        block = blocks.get(peer, "none")
        return block is not None and share <= sum(
            blocks.get(other, "none") == block for other in others
        )
