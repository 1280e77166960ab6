"""The one door of the gossip room: an event goes in, effects come out. No clock, no I/O, no chance.

Puts together what the other files decide: inbox.py judges foreign frames, exchange.py answers them,
roster.py says whom we follow, pursuit.py brings copies to their heads, own.py signs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.adoption import Reference, choose, decode_adoption, may_be_named
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.effects import Dial, Drop, Effect, Persist, ProfileDue
from tapestry_p2p.gossip.exchange import Exchange
from tapestry_p2p.gossip.header import (
    DIFFERENCE,
    LEAVE,
    PROFILE,
    RETIRE,
    Sign,
    SignedHeader,
    Verify,
)
from tapestry_p2p.gossip.inbox import Inbox, Parse
from tapestry_p2p.gossip.known import Known
from tapestry_p2p.gossip.links import Links
from tapestry_p2p.gossip.membership import Membership
from tapestry_p2p.gossip.messages import decode_sync
from tapestry_p2p.gossip.neighbours import SECRET_BYTES, Neighbours
from tapestry_p2p.gossip.own import Cue, OwnStream, ProtocolError, Voice
from tapestry_p2p.gossip.probation import SHARE, Probation
from tapestry_p2p.gossip.profile import Profile, decode_profile
from tapestry_p2p.gossip.pursuit import Pursuit
from tapestry_p2p.gossip.roster import Roster
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.gossip.shunned import Shunned
from tapestry_p2p.gossip.state import State
from tapestry_p2p.gossip.verdict import Verdict

__all__ = ["Protocol", "ProtocolError"]


class Protocol:
    """A member's protocol state. All changes go through ``step``."""

    def __init__(
        self,
        settings: Settings,
        public_key: bytes,
        signer: Sign,
        random: Random,
        known: Known | None = None,
        *,
        at: float = 0.0,
        mute: bool = False,
        leaving: bool = False,
        verify: Verify = identity.verify,
        parse: Parse = decode_sync,
    ) -> None:
        """``mute``: publish nothing before Unmute; a restarted node asks its neighbours first.

        ``leaving``: started only to say goodbye, or to tell the one that was signed before.
        ``parse`` reads a sync frame; a simulator hands in one that remembers what it read.
        """
        self.settings = settings
        self.public_key = public_key
        own = OwnStream(settings, public_key, signer, random, mute)
        probation = Probation(settings, public_key)
        links = Links(settings, public_key, random, probation.is_new)
        membership = Membership(settings, random.randbytes(16), probation.is_new)
        neighbours = Neighbours(settings, random.randbytes(SECRET_BYTES))
        self._state = State(
            settings, public_key, random, verify, at, own, links, membership, neighbours,
            probation, Shunned(settings),
        )  # fmt: skip
        self._roster = Roster(self._state)
        self._exchange = Exchange(self._state)
        self._pursuit = Pursuit(self._state)
        self._inbox = Inbox(self._state, self._roster, self._exchange, parse)
        self._own_profile_at = at - settings.profile_every_s
        self._doors: dict[type, Callable[[Any], None]] = {
            ev.Connected: self._on_connected,
            ev.Disconnected: self._on_disconnected,
            ev.DialFailed: self._on_dial_failed,
            ev.Message: self._inbox.take,
            ev.Applied: self._on_applied,
            ev.ApplyFailed: self._on_apply_failed,
            ev.Publish: self._on_publish,
            ev.Unmute: self._on_unmute,
            ev.Retire: self._on_retire,
            ev.Tick: self._on_tick,
        }
        self._restore(known or Known())
        if leaving:
            own.stay_away()

    def step(self, event: ev.Event) -> list[Effect]:
        """Take in one event; the effects to perform, in order.

        Raises ProtocolError for what our own shell must not do (a Publish while mute, an unknown
        reason of failure), and nothing else, whatever bytes a peer sent.
        """
        state = self._state
        state.now = max(state.now, event.at)
        state.effects, state.touched = [], set()
        self._doors[type(event)](event)
        for author in sorted(state.touched):
            self._pursuit.pursue(author)
        return state.effects

    def _on_connected(self, event: ev.Connected) -> None:
        state = self._state
        if event.peer == self.public_key:
            state.emit(Drop(event.peer, "self"))
            return
        self._roster.make_way(event.peer)
        link = state.links.connect(event.peer, state.now, event.address)
        if link is None:
            state.emit(Drop(event.peer, "full"))
        elif link.is_barred(state.now):
            state.drop(event.peer, "barred")
        else:
            self._exchange.say_hello(link, ask=False)

    def _on_disconnected(self, event: ev.Disconnected) -> None:
        self._state.links.disconnect(event.peer, self._state.now)

    def _on_dial_failed(self, event: ev.DialFailed) -> None:
        self._state.links.dial_failed(event.peer, self._state.now)

    def _on_applied(self, event: ev.Applied) -> None:
        self._pursuit.applied(event)
        self._exchange.relay(event.author)

    def _on_apply_failed(self, event: ev.ApplyFailed) -> None:
        if event.reason not in ev.REASONS:
            raise ProtocolError(f"unknown reason of a failed fetch: {event.reason}")
        if event.reason == "content" and event.seq > 0:  # what a start names is others' affair
            self._roster.shun(event.author)
        else:
            self._pursuit.failed(event)

    def _on_publish(self, event: ev.Publish) -> None:
        state = self._state
        signed = state.own.publish(event)
        state.emit(Persist("own", signed.header.seq, signed.encode(), event.payload))
        profile = b""
        if event.kind == PROFILE:
            self._own_profile_at, profile = state.now, event.payload
            words = decode_profile(profile)
            state.membership.put(signed, profile, words, state.now, trusted=True)
        if event.kind == LEAVE:
            state.membership.forget(self.public_key)
        if event.kind == DIFFERENCE:
            self._roster.count_round(event.round)
        self._exchange.announce(signed, profile)

    def _on_unmute(self, event: ev.Unmute) -> None:
        heard = self.has_heard_all() and self._is_known_to_all()
        self._state.own.hear(Cue.UNMUTED if heard else Cue.DOUBTED)

    def has_heard_all(self) -> bool:
        """Whether everybody whose copy we keep (or, keeping none, whom we know) is here."""
        return all(map(self._state.links.is_greeted, self._asked()))

    def _asked(self) -> Iterable[bytes]:
        """Whose word counts on what there is of our stream."""
        return self.followed() or self._known()

    def _is_known_to_all(self) -> bool:
        """Whether each of them knew our stream before we spoke: who forgot us can warn of nothing.

        A backup that is older than our last entries then goes on by a resume, which contradicts
        none of them.
        """
        if self._state.own.head is None:
            return True
        links = map(self._state.links.get, self._asked())
        return all(link is not None and link.knew_us is True for link in links)

    def _known(self) -> set[bytes]:
        """Everybody else that we know of."""
        return {*self.members(), *dict(self.settings.bootstrap)} - {self.public_key}

    @property
    def is_calm(self) -> bool:
        """Whether all whom we follow are here, and nobody's copy is behind: time brings little."""
        behind = any(s.followed and not s.is_settled for s in self._state.streams.values())
        return not behind and self.has_heard_all()

    def _on_retire(self, event: ev.Retire) -> None:
        judgement = self._inbox.take_retire(event)
        self._state.tally.add(judgement)
        if event.signed_header.header.kind != RETIRE or judgement.verdict is Verdict.REJECT:
            raise ProtocolError(f"no retire entry of this network: {judgement.reason}")

    def _on_tick(self, event: ev.Tick) -> None:
        state = self._state
        for link in list(state.links.connected()):
            self._exchange.tend(link)
        self._roster.expire()
        self._roster.take_turns()
        self._roster.tend_links()
        self._pursuit.give_up_late_jobs()
        for stream in list(state.streams.values()):
            self._roster.consider(stream)
        behind = (k for k, s in state.streams.items() if s.followed and not s.is_settled)
        state.touched.update(behind)
        self._dial()
        state.links.forget_spent(state.now)
        speaking = state.own.voice is Voice.SPEAKING and state.own.head is not None
        if speaking and state.now - self._own_profile_at >= self.settings.profile_every_s:
            self._own_profile_at = state.now
            state.emit(ProfileDue())

    def _dial(self) -> None:
        """Dial whoever we follow, want as a neighbour or were told of, and are not connected to."""
        state = self._state
        addresses = self._roster.wanted()
        for peer in addresses:
            self._roster.make_way(peer)
        for peer in state.links.due(addresses, state.now):
            state.emit(Dial(peer, addresses[peer]))

    # -- starting from others' copies

    def read_adoption(self, payload: bytes, author: bytes) -> tuple[Reference, ...]:
        """The references in the payload of an adopt entry of ``author``.

        Malformed if a rule is broken, or where we hold the named entry and it is another.
        """
        references = decode_adoption(payload, author, self.settings)
        for reference in references:
            held = self._state.kept(reference.author).get(reference.seq)
            if held is None:
                continue
            if held.header.root != reference.root or not may_be_named(held.header):
                raise Malformed("a reference names an entry that may not be named")
        return references

    def references(self) -> tuple[Reference, ...]:
        """Entries of followed authors from which a stream of our own could start now; or ()."""
        blocks = self._roster.blocks()
        found = []
        for stream in self._state.streams.values():
            if not stream.followed or stream.proof is not None:
                continue
            seqs = [s for s, signed in stream.kept.items() if may_be_named(signed.header)]
            seq = max((seq for seq in seqs if seq <= stream.position), default=0)
            if seq:
                reference = Reference(stream.author, seq, stream.kept[seq].header.root)
                found.append((reference, blocks.get(stream.author, "none")))
        return choose(found, self.settings, self._state.neighbours.rank)

    def trained(self) -> int:
        """How many authors are known to have trained since they began."""
        heads = (stream.newest for stream in self._state.streams.values())
        return sum(head is not None and head.header.round > 0 for head in heads)

    @property
    def is_untrained(self) -> bool:
        """Whether everybody we know of is here, and nobody has trained: a network that begins."""
        return not self.trained() and all(map(self._state.links.is_greeted, self._known()))

    # -- what is stored

    def _restore(self, known: Known) -> None:
        state = self._state
        own_proofs = [proof for proof in known.proofs if proof.author == self.public_key]
        state.own.restore(known.own, known.seen, own_proofs, known.cited)
        state.retired = {signed.header.author: signed for signed in known.retired}
        others = (proof for proof in known.proofs if proof.author != self.public_key)
        state.proofs = {p.author: p for p in others if p.author not in state.retired}
        state.probation.restore(known.probation)
        state.round = state.own.head.header.round if state.own.head else 0
        for signed, payload in known.profiles:
            profile = decode_profile(payload)
            state.membership.put(signed, payload, profile, state.now, trusted=True)
        blocked = self.settings.blocked
        if known.secret:
            kept = tuple(row for row in known.neighbours if row[0] not in blocked)
            state.neighbours.restore(known.secret, known.epoch, kept)
        places = max(self.settings.all_to_all_max - 1, self.settings.k)
        copies = [signed for signed in known.copies if signed.header.author not in blocked]
        for signed in copies[:places]:
            self._roster.open(signed.header.author).restore(signed)
        state.effects = []

    def snapshot(self) -> Known:
        """What to store, so that a restarted node goes on. Own entries also come as Persist."""
        state = self._state
        members = (state.membership.get(author) for author in state.membership)
        return Known(
            own=tuple(state.own.kept.values()),
            seen=state.own.seen,
            copies=tuple(s.standing for s in state.streams.values() if s.standing),
            profiles=tuple((member.signed, member.payload) for member in members if member),
            proofs=(*state.proofs.values(), *state.own.proofs),
            cited=state.own.cited,
            retired=tuple(state.retired.values()),
            probation=state.probation.rows,
            secret=state.neighbours.secret,
            epoch=state.neighbours.epoch,
            neighbours=tuple(
                (peer, state.neighbours.ties[peer].chosen) for peer in state.neighbours.agreed()
            ),
        )

    # -- what is shown

    @property
    def mute(self) -> bool:
        """Whether a Publish would raise: others may know more of our stream than we do."""
        return self._state.own.is_silent

    @property
    def must_resume(self) -> bool:
        """Whether the next entry must be a ``resume``; stays true until every proof is cited."""
        return self._state.own.must_resume

    @property
    def stopped(self) -> str:
        """``clone``, ``retired`` or ``left`` if this process must not publish again; else empty."""
        return self._state.own.stopped

    def told(self) -> tuple[bytes, ...]:
        """Connected peers that say they hold our newest entry."""
        own = self._state.own
        links = self._state.links.greeted()
        return tuple(link.peer for link in links if link.holds(self.public_key, own.head_seq))

    @property
    def own_highest(self) -> SignedHeader | None:
        """The highest head of our key that we know of, also one that only others hold."""
        return self._state.own.highest

    def own_headers(self) -> dict[int, SignedHeader]:
        """Our kept headers by seq, a copy."""
        return dict(self._state.own.kept)

    def greeted(self) -> tuple[bytes, ...]:
        """Peers that are connected and have told us what they hold, our own head included."""
        return tuple(link.peer for link in self._state.links.greeted())

    def is_barred(self, peer: bytes, at: float) -> bool:
        """Whether a peer has been blamed too often of late: its connections are not wanted."""
        link = self._state.links.get(peer)
        return link is not None and link.is_barred(at)

    def members(self) -> dict[bytes, Profile]:
        """The newest profile of every member, our own included."""
        membership = self._state.membership
        found = ((author, membership.get(author)) for author in membership)
        return {author: member.profile for author, member in found if member}

    def followed(self) -> tuple[bytes, ...]:
        """Authors whose copies we keep, in the order we began."""
        return self._roster.followed()

    @property
    def is_sparse(self) -> bool:
        """Whether members are too many for everyone to follow everyone."""
        return self._state.neighbours.sparse

    @property
    def neighbours(self) -> int:
        """How many share the weights with us, newcomers apart: k where links are sparse."""
        if self.is_sparse:
            return self.settings.k
        return sum(not self._state.probation.is_new(author) for author in self.followed())

    def head(self, author: bytes) -> SignedHeader | None:
        """The newest signed header held of anybody, ourselves included."""
        return self._state.newest(author)

    def position(self, author: bytes) -> int:
        """Seq that our copy of the author stands at; -1 if there is none."""
        stream = self._state.streams.get(author)
        return stream.position if stream else -1

    def retired(self) -> frozenset[bytes]:
        """Keys that have ended for good."""
        return frozenset(self._state.retired)

    def share(self, author: bytes) -> float:
        """How much of a neighbour's weight w = 1/(neighbours+1) the author has: 1, less, or 0.

        0: forked, retired, gone, blocked, not followed, or a newcomer. Only the newcomer whose turn
        it is has some, so that all of them together stay well within b = f w; none for f = 0.
        """
        state = self._state
        stream = state.streams.get(author)
        if author in state.retired or author in state.proofs or stream is None:
            return 0.0
        if author in self.settings.blocked:
            return 0.0
        if stream.proof is not None or stream.has_left or not stream.followed:
            return 0.0
        if not state.probation.is_new(author):
            return 1.0
        return SHARE if self.settings.f > 0 and author == state.turn else 0.0

    def weight_zero(self, author: bytes) -> bool:
        """Whether the author must not be mixed."""
        return self.share(author) == 0

    def probation(self, author: bytes) -> int:
        """Own rounds for which the author is still a newcomer, if it stays; 0 if it is none."""
        return self.settings.probation_rounds - self._state.probation.rounds(author)

    def statistics(self) -> dict[str, dict[str, int]]:
        """Counts of verdicts by reason, and the sizes of all tables."""
        state = self._state
        streams = state.streams.values()
        tables = {
            "links": len(state.links),
            "greeted": len(self.greeted()),
            "streams": len(streams),
            "followed": len(self.followed()),
            "neighbours": len(state.neighbours.agreed()),
            "members": len(state.membership),
            "tombstones": state.membership.tombstones,
            "proofs": len(state.proofs),
            "retired": len(state.retired),
            "shunned": len(state.shunned),
            "barred": state.links.barred(state.now),
            "headers": sum(len(stream.kept) for stream in streams),
        }
        return {**state.tally.table(), "tables": tables}
