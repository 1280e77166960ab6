"""Which authors have a place, and which of them we follow.

Everybody, up to the all-to-all limit: there a place held by somebody we never reached gives way to
a connected author, and of newcomers (probation.py) only the one whose turn it is has a place. Where
members are more, those with whom neighbours.py keeps a link; here its choices become dials, words
and copies. Strangers change neither: whether there are many is asked of those who are no newcomers.
Silent authors expire with their profile. Judges no header and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from tapestry_p2p.gossip.adoption import most
from tapestry_p2p.gossip.bucket import Bucket
from tapestry_p2p.gossip.effects import Arrived, Drop, Send, Unfollow
from tapestry_p2p.gossip.membership import address_block
from tapestry_p2p.gossip.messages import ASK, ASK_GUEST, SYNC, TELL, Following, encode_sync
from tapestry_p2p.gossip.neighbours import Tie
from tapestry_p2p.gossip.state import State
from tapestry_p2p.gossip.streams import Stream
from tapestry_p2p.gossip.verdict import Judgement, accept, reject

COMPANY = 3  # with so many peers connected those of the configuration need not be dialled
STRAY_S = 5.0  # a connection to no neighbour lasts so long at least: enough for an exchange


class Roster:
    """The table of streams."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._at = state.now

    def has_room(self, author: bytes) -> bool:
        """Whether an author could be taken in."""
        state = self._state
        return len(state.streams) < state.settings.streams_max or bool(self._replaceable(author))

    def _replaceable(self, author: bytes) -> bytes:
        """Whose stream gives way to that of ``author``: an idle one's, or a newcomer's; or b""."""
        streams, is_new = self._state.streams, self._state.probation.is_new
        idle = next((key for key, stream in streams.items() if self._is_idle(stream)), b"")
        if idle or is_new(author):
            return idle
        return next((k for k, s in streams.items() if is_new(k) and not s.followed), b"")

    def make_way(self, peer: bytes) -> None:
        """Where there is no room for one who is no newcomer, close a newcomer's connection."""
        state = self._state
        if not state.links.is_full_for(peer) or state.probation.is_new(peer):
            return
        links = (link for link in state.links.connected() if state.probation.is_new(link.peer))
        victim = min(links, key=lambda link: link.connected_at, default=None)
        if victim is not None:
            state.emit(Drop(victim.peer, "place_taken"))
            state.links.disconnect(victim.peer, state.now)

    def open(self, author: bytes) -> Stream:
        """A new stream for an author; ``has_room`` must hold."""
        state = self._state
        if len(state.streams) >= state.settings.streams_max:
            del state.streams[self._replaceable(author)]
        per_minute = state.settings.entries_per_minute_max
        rate = Bucket(per_minute / 60, max(per_minute, 4 * state.settings.ring))
        stream = Stream(author, state.settings, state.now, rate)
        stream.proof = state.proofs.get(author)
        claims = (link.copies.get(author, -1) for link in state.links.greeted())
        stream.claimed = max(claims, default=-1)
        state.streams[author] = stream
        self.consider(stream)
        return stream

    def followed(self) -> tuple[bytes, ...]:
        """Authors whose copies we keep, in the order we began."""
        return tuple(key for key, stream in self._state.streams.items() if stream.followed)

    def wanted(self) -> dict[bytes, tuple[str, ...]]:
        """Whom we want to be connected to and are not, and the addresses known of them."""
        state = self._state
        bootstrap = dict(state.settings.bootstrap)
        found: dict[bytes, tuple[str, ...]] = {}
        sparse = state.neighbours.sparse
        if not sparse or len(list(state.links.greeted())) < COMPANY:
            found.update(state.settings.bootstrap)
        for author in (*state.neighbours.ties, *self.followed()) if sparse else self.followed():
            link = state.links.get(author)
            if link is not None and link.connected:
                continue
            member = state.membership.get(author)
            told = member.profile.addresses if member else ()
            known = bootstrap.get(author, ())
            if told or known:
                found[author] = tuple(dict.fromkeys((*told, *known)))
        found.pop(state.public_key, None)
        return found

    def consider(self, stream: Stream) -> None:
        """Follow the author if it has a place with us, or takes one of somebody never reached."""
        state = self._state
        sparse = state.neighbours.sparse
        if stream.followed or (sparse and not self._keeps(stream.author)):
            return
        if stream.has_left or self._is_unwelcome(stream.author):
            return
        if sparse:
            self._follow(stream)
            return
        if state.probation.is_new(stream.author) and stream.author != state.turn:
            return
        if len(self.followed()) >= state.settings.all_to_all_max - 1:
            victim = self._victim(stream)
            if victim is None:
                return
            self.let_go(victim.author, "place_taken")
        self._follow(stream)

    def _is_unwelcome(self, author: bytes) -> bool:
        """Whether it may not even be followed."""
        state = self._state
        return author in state.settings.blocked or state.shunned.holds(author, state.now)

    def shun(self, author: bytes) -> None:
        """What a followed author signed is malformed, and nobody else can have made it."""
        state = self._state
        stream = state.streams.get(author)
        if stream is None or not stream.followed:
            return
        state.shunned.add(author, state.now)
        self.let_go(author, "content")
        state.count(reject("content"), author)

    def _victim(self, stream: Stream) -> Stream | None:
        """Whose place an author may take: the newcomer's, or that of somebody never reached."""
        state = self._state
        others = [other for other in state.streams.values() if other.followed]
        if not state.probation.is_new(stream.author):
            for other in others:
                if state.probation.is_new(other.author):
                    return other
        if not state.links.is_greeted(stream.author):
            return None
        return next((other for other in others if self._is_unreached(other)), None)

    def _follow(self, stream: Stream) -> None:
        stream.follow()
        self._state.touched.add(stream.author)
        if stream.newest is not None:
            self.note_arrival(stream, stream.newest.header.seq)

    def let_go(self, author: bytes, reason: str) -> None:
        """Stop following, and give up the link; the newest head stays."""
        self._state.neighbours.part(author)
        stream = self._state.streams.get(author)
        if stream is not None and stream.followed:
            stream.unfollow()
            self._state.emit(Unfollow(author, reason))

    def note_arrival(self, stream: Stream, seq: int) -> None:
        """Tell the shell when a header of a followed author first came."""
        if stream.arrive(seq):
            self._state.emit(Arrived(stream.author, seq, self._state.now))

    # -- newcomers

    def count_round(self, round_: int) -> None:
        """A round of ours is over: it counts for every newcomer who is here."""
        state = self._state
        state.round = round_
        for stream in list(state.streams.values()):
            if state.probation.is_new(stream.author) and self._is_here(stream):
                state.probation.count(stream.author, self._is_gone)

    def _is_gone(self, author: bytes) -> bool:
        stream = self._state.streams.get(author)
        return author not in self._state.membership and (stream is None or stream.has_left)

    def is_heard_of(self, author: bytes) -> bool:
        """Whether we hold anything of an author, or its key is one that we were told to know."""
        state = self._state
        held = author in state.membership or author in state.streams
        return held or author in state.probation.exempt or state.probation.has_row(author)

    def take_turns(self) -> None:
        """See whose turn it is among the newcomers; the others keep no place."""
        state = self._state
        streams = [s for s in state.streams.values() if state.probation.is_new(s.author)]
        here = [stream for stream in streams if self._is_here(stream)]
        sparse = state.neighbours.sparse
        found = (stream.author for stream in here if stream.followed or not sparse)
        state.turn = state.probation.turn(found, state.round, state.neighbours.secret)
        if sparse:
            return
        for stream in streams:
            if stream.followed and stream.author != state.turn:
                self.let_go(stream.author, "probation")

    def _is_here(self, stream: Stream) -> bool:
        """Whether an author counts as here: it trains, signs on, and proved itself to us.

        Who has not trained would only draw us back to where we began. Where links are sparse
        nobody meets everybody, and a signed head that moves is enough. Whom we cannot reach may
        have proved itself to others: more than f of them follow it, and are no newcomers.
        """
        state = self._state
        if stream.proof is not None or stream.has_left or stream.heard_round is None:
            return False
        if self._is_unwelcome(stream.author) or not self._has_trained(stream.author):
            return False
        if state.round - stream.heard_round > state.settings.ring:
            return False
        member = state.membership.get(stream.author)
        met = state.links.is_greeted(stream.author) or (member is not None and member.worked)
        return met or state.neighbours.sparse or self._is_vouched_for(stream.author)

    def _is_vouched_for(self, author: bytes) -> bool:
        state = self._state
        links = (x for x in state.links.greeted() if x.copies.get(author, -1) >= 0)
        return sum(not state.probation.is_new(link.peer) for link in links) > state.settings.f

    @property
    def _is_young(self) -> bool:
        """Whether we have just come to a network that was there: everybody is new to us."""
        state = self._state
        founder = state.public_key in state.settings.founders
        return state.round < state.settings.probation_rounds and not founder

    def _newcomers(self, authors: Iterable[bytes]) -> frozenset[bytes]:
        """Those on probation, whose links have a share; who is young itself has no choice."""
        if self._is_young:
            return frozenset()
        return frozenset(filter(self._state.probation.is_new, authors))

    def _company(self) -> int:
        """How many members there are, ourselves included, as far as that may change our ways.

        Names cost nothing, so newcomers do not count; but to one who has just come itself
        everybody is new, and there may be a crowd.
        """
        state = self._state
        strange = state.public_key not in state.membership
        if self._is_young:
            return len(state.membership) + strange
        known = sum(not state.probation.is_new(author) for author in state.membership)
        return known + strange

    # -- links, where members are too many for everyone to follow everyone

    def tend_links(self) -> None:
        """Once a tick: ask whom we want, tell neighbours where we stand, drop what is too much."""
        state, neighbours = self._state, self._state.neighbours
        if neighbours.crowd(self._company()):
            self._change_mode()
        state.membership.wide = neighbours.wide
        if not neighbours.sparse:
            return
        alone = next(state.links.greeted(), None) is None
        neighbours.note(state.now, self._present(), alone)
        for peer in neighbours.unanswered(state.now):
            self._give_up(peer)
        if not alone:
            places = self._places()
            room = neighbours.room(state.now, places) > 0
            found = self._candidates(None if room else state.settings.trusted)
            neighbours.pick(found, state.now, places, self._newcomers(found))
        for peer, tie in list(neighbours.ties.items()):
            self._talk(peer, tie)
        self._drop_strays()

    def _change_mode(self) -> None:
        """Followed authors become neighbours; the way back leaves the copies as they are."""
        neighbours = self._state.neighbours
        if not neighbours.sparse:
            neighbours.ties.clear()
            return
        for author in neighbours.enter(self.followed(), self._state.now):
            self.let_go(author, "too_many")

    @property
    def _is_reading(self) -> bool:
        """Whether we have no stream yet that anybody could follow."""
        return self._state.own.head is None

    def _candidates(self, among: Iterable[bytes] | None) -> dict[bytes, str | None]:
        """Whom we may ask; a newcomer reads those who have trained."""
        blocks = self.blocks(among)
        if not self._is_reading:
            return blocks
        return {author: block for author, block in blocks.items() if self._has_trained(author)}

    def _has_trained(self, author: bytes) -> bool:
        head = self._state.newest(author)
        return head is not None and head.header.round > 0

    def _places(self) -> int:
        settings, ties = self._state.settings, self._state.neighbours.ties
        if not self._is_reading:
            return settings.k
        useless = sum(not self._has_trained(peer) for peer in ties)
        return min(settings.k, most(settings) + useless)

    def _keeps(self, author: bytes) -> bool:
        tie = self._state.neighbours.ties.get(author)
        return tie is not None and (tie.agreed or self._is_reading)

    def _present(self) -> set[bytes]:
        """Neighbours that are here and publish; where most are silent, silence is no fault."""
        state = self._state
        limit = state.now - state.settings.link_silent_s
        here = [s for s in map(state.streams.get, state.neighbours.ties) if s and s.proof is None]
        here = [stream for stream in here if state.links.is_greeted(stream.author)]
        heard = [stream for stream in here if stream.fresh_at >= limit]
        return {stream.author for stream in (heard if 2 * len(heard) >= len(here) else here)}

    def blocks(self, among: Iterable[bytes] | None = None) -> dict[bytes, str | None]:
        """Members that may become neighbours, and the address block that each counts for.

        ``among``: only these are looked at; None: all.
        """
        state = self._state
        blocks: dict[bytes, str | None] = {}
        for author in state.membership if among is None else among:
            member = state.membership.get(author)
            if member is None or author in state.proofs or author == state.public_key:
                continue
            addresses, seen = member.profile.addresses, state.links.seen_at(author)
            reached = addresses or state.links.is_greeted(author)
            if not reached or self._is_unwelcome(author):
                continue
            said = seen or next(iter(addresses), "")  # what it says of itself may be made up
            exempt = author in state.probation.exempt
            blocks[author] = None if exempt else address_block(said) if said else "none"
        return blocks

    def _talk(self, peer: bytes, tie: Tie) -> None:
        """Ask for the link until it is answered; repeat now and then that it stands."""
        state = self._state
        if not state.links.is_greeted(peer):
            return
        if self._is_reading:
            tie.since = state.now if not tie.agreed else tie.since
            return
        settings = state.settings
        every = 2 * settings.digest_every_s if tie.agreed else settings.link_ask_s
        if state.now - tie.told_at >= every:
            guest = state.neighbours.need_place(len(state.membership))
            self._tell(peer, TELL if tie.agreed else ASK_GUEST if guest else ASK)

    def take_following(self, peer: bytes, message: Following) -> Judgement:
        """A peer says whether it follows us, or would."""
        neighbours = self._state.neighbours
        if neighbours.sparse and message.follow:
            self._link(peer, message.ask == ASK_GUEST)
        elif neighbours.sparse and peer in neighbours.ties:
            self._give_up(peer)
        unwanted = neighbours.sparse and message.follow and not self._stands_with(peer)
        if message.ask or unwanted:
            self._tell(peer)
        return accept("link")

    def _link(self, peer: bytes, guest: bool) -> None:
        """A peer wants, or confirms, a link."""
        state, neighbours = self._state, self._state.neighbours
        tie, stream = neighbours.ties.get(peer), state.streams.get(peer)
        if tie is not None and tie.agreed:
            return
        if stream is None or stream.proof is not None or stream.has_left:
            return
        if self._is_unwelcome(peer):
            return
        blocks = self.blocks({*neighbours.ties, peer})  # a share is of the links that there are
        new = self._newcomers(blocks)
        if tie is not None:
            replaced = neighbours.agree(peer, blocks, state.now, new)
        else:
            replaced = neighbours.grant(peer, blocks, state.now, guest, new)
        if replaced is None:
            if tie is not None:
                self._give_up(peer)
            return
        for victim in replaced:
            self.let_go(victim, "replaced")
            self._tell(victim)
        self.consider(stream)

    def _give_up(self, peer: bytes) -> None:
        self._state.neighbours.refuse(peer, self._state.now)
        self.let_go(peer, "no_link")

    def _stands_with(self, peer: bytes) -> bool:
        """Whether we follow a peer, or asked to."""
        state = self._state
        stream = state.streams.get(peer)
        followed = stream is not None and stream.followed
        return peer in state.neighbours.ties if state.neighbours.sparse else followed

    def _tell(self, peer: bytes, ask: int = TELL) -> None:
        state = self._state
        if not state.links.is_greeted(peer):
            return
        tie = state.neighbours.ties.get(peer)
        if tie is not None:
            tie.told_at = state.now
        frame = encode_sync(Following(self._stands_with(peer), ask))
        state.emit(Send(peer, SYNC, frame))

    def _drop_strays(self) -> None:
        """Close the oldest connections to members that are no neighbours, beyond some."""
        state = self._state
        limit = state.now - STRAY_S
        strays = [link for link in state.links.greeted() if link.peer not in state.neighbours.ties]
        old = sorted(
            (link for link in strays if link.connected_at <= limit),
            key=lambda link: link.connected_at,
        )
        for link in old[: max(0, len(strays) - state.settings.strays_max)]:
            state.emit(Drop(link.peer, "no_neighbour"))
            state.links.disconnect(link.peer, state.now)

    # -- expiry

    def expire(self) -> None:
        """Forget members and streams that have been silent too long and are not connected.

        While nobody at all is connected it is we who are away, and nobody grows older.
        """
        state = self._state
        passed, self._at = state.now - self._at, state.now
        if next(state.links.greeted(), None) is None:
            state.membership.wait(passed)
            for stream in state.streams.values():
                stream.fresh_at += passed
            return
        for author in state.membership.expired(state.now):
            if not state.links.is_greeted(author):
                self._bury(author)
        limit = state.now - state.settings.member_expiry_s
        for author, stream in list(state.streams.items()):
            silent = stream.fresh_at < limit and author not in state.membership
            if silent and not state.links.is_greeted(author):
                self._bury(author)

    def _bury(self, author: bytes) -> None:
        state = self._state
        if author == state.public_key:
            return
        self.let_go(author, "expired")
        stream = state.streams.pop(author, None)
        state.membership.forget(author, stream.newest if stream else None)

    def _is_idle(self, stream: Stream) -> bool:
        return not stream.followed and not self._state.links.is_greeted(stream.author)

    def _is_unreached(self, stream: Stream) -> bool:
        return stream.position < 0 and not self._state.links.is_greeted(stream.author)
