"""Judge what strangers send, the cheapest check first; nothing costly happens for a stale message.

Frame length, connected, token bucket, parse, manifest, window, duplicate, signature. Everything
foreign ends here as a counted verdict; nothing foreign raises beyond this file.
"""

from __future__ import annotations

from collections.abc import Callable

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.effects import CloneSeen, Forked, Left, OwnHead, Persist
from tapestry_p2p.gossip.exchange import Exchange
from tapestry_p2p.gossip.fork import conflict, fork_proof
from tapestry_p2p.gossip.header import PROFILE, RETIRE, SEQ_MAX, SignedHeader
from tapestry_p2p.gossip.links import Link
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.messages import (
    HELLO,
    Digest,
    Heads,
    Hello,
    Members,
    Sync,
    Want,
    decode_hello,
)
from tapestry_p2p.gossip.own import Shown
from tapestry_p2p.gossip.profile import Unprintable, decode_profile
from tapestry_p2p.gossip.roster import Roster
from tapestry_p2p.gossip.state import State
from tapestry_p2p.gossip.streams import Stream
from tapestry_p2p.gossip.validity import breach
from tapestry_p2p.gossip.verdict import Judgement, Verdict, accept, ignore, reject

REPEATS = frozenset({"duplicate", "stale", "own"})  # reasons to ignore what we have already

Parse = Callable[[bytes, int], Sync]  # a frame and its longest length; Malformed and nothing else


class Inbox:
    """Verdicts on foreign frames, and what follows from them."""

    def __init__(self, state: State, roster: Roster, exchange: Exchange, parse: Parse) -> None:
        self._state = state
        self._parse = parse
        self._roster = roster
        self._exchange = exchange

    def take(self, event: ev.Message) -> None:
        """Judge one frame."""
        judgement = self._judge_frame(event)
        if judgement is not None:
            self._state.count(judgement, event.peer)

    def _judge_frame(self, event: ev.Message) -> Judgement | None:
        """The verdict on a whole frame, or None if its parts were judged one by one."""
        state = self._state
        if len(event.data) > state.settings.message_bytes_max:
            return reject("frame_too_long")
        link = state.links.get(event.peer)
        if link is None or not link.connected:
            return ignore("not_connected")
        if not (link.messages.take(1, state.now) and link.volume.take(len(event.data), state.now)):
            return ignore("too_fast")
        try:
            if event.channel == HELLO:
                return self._take_hello(link, decode_hello(event.data, len(event.data)))
            if not link.greeted:
                return ignore("before_hello")
            message = self._parse(event.data, len(event.data))
        except Malformed:
            return reject("malformed")
        if isinstance(message, Heads):  # most of all
            self._take_heads(link, message.heads)
            return None
        if isinstance(message, Members):
            self._take_members(link, message)
            return None
        if isinstance(message, Want):
            return self._exchange.take_want(link, message)
        if isinstance(message, Digest):
            if not link.digests.take(1, state.now):
                self._note_repeat(link)
                return ignore("digest_too_soon")
            return self._exchange.take_digest(link, message.rows)
        return self._roster.take_following(link.peer, message)

    def _take_hello(self, link: Link, hello: Hello) -> Judgement:
        state = self._state
        settings = state.settings
        if hello.network != settings.network or hello.wire != settings.wire:
            theirs, ours = hello.network.hex()[:16], settings.network.hex()[:16]
            reason = f"network {theirs} wire {hello.wire}, ours is {ours} wire {settings.wire}"
            state.drop(link.peer, reason, fault=True)
            return ignore("other_network")
        in_time = link.digests.take(1, state.now)  # a hello holds a digest
        if hello.ask and in_time:
            self._exchange.say_hello(link, ask=False)
        if not link.greeted:
            link.greeted, link.attempts = True, 0
            if link.knew_us is None:  # later it may only repeat what we told it
                own = state.public_key
                link.knew_us = any(row.author == own and row.head > 0 for row in hello.rows)
            self._welcome(link.peer)
        self._take_heads(link, hello.heads)
        if link.connected and in_time:
            self._exchange.take_digest(link, hello.rows)
            self._exchange.show_proofs(link)
        return accept("hello")

    def _welcome(self, peer: bytes) -> None:
        """A source is back: what failed for want of it may be tried again now."""
        stream = self._state.streams.get(peer)
        if stream is not None:
            stream.revive()
            self._roster.consider(stream)
            self._state.touched.add(peer)
        self._state.membership.mark_worked(peer)

    # -- signed headers

    def _take_heads(self, link: Link, heads: tuple[SignedHeader, ...]) -> None:
        if len(heads) == 2 and conflict(*heads) and self._is_old_fork(heads[0]):
            self._state.count(self._judge_old_fork(*heads), link.peer)
            return
        news = not heads
        for signed in heads if len(heads) < 2 else sorted(heads, key=self._reading_order):
            judgement = self._judge_header(signed)
            self._state.count(judgement, link.peer)
            if judgement.reason == "signature" or not link.connected:
                return  # the rest of the frame is not worth its checks
            news = news or judgement.reason not in REPEATS
            self._note_shown(link, signed, judgement)
        if not news:
            self._note_repeat(link)

    def _note_repeat(self, link: Link) -> None:
        """A frame held nothing new: that happens, but not for ever."""
        if not link.repeats.take(1, self._state.now):
            self._state.count(reject("repeats"), link.peer)

    def _note_shown(self, link: Link, signed: SignedHeader, judgement: Judgement) -> None:
        """Who shows us an author that does not reach us should have its entry as well."""
        author, seq = signed.header.author, signed.header.seq
        known = judgement.verdict is Verdict.ACCEPT or judgement.reason == "duplicate"
        stream = self._state.streams.get(author)
        if not known or stream is None or self._state.links.is_greeted(author):
            return
        unasked = stream.wants == 0  # an answer may be ahead of the copies
        if unasked and link.shows(author, seq):
            stream.claimed = max(stream.claimed, seq)

    def _reading_order(self, signed: SignedHeader) -> tuple[bytes, bool, int]:
        """From the lowest seq up; what lies before the linked headers, and our own, downwards."""
        header = signed.header
        stream = self._state.streams.get(header.author)
        own = header.author == self._state.public_key
        downwards = own or (stream is not None and header.seq < stream.base)
        return header.author, downwards, -header.seq if downwards else header.seq

    def _judge_header(self, signed: SignedHeader, from_operator: bool = False) -> Judgement:
        state = self._state
        header = signed.header
        reason = breach(header, state.settings)
        if reason:
            return reject(reason)
        if header.author == state.public_key:
            return self._judge_own(signed)
        if header.author in state.retired:
            return ignore("retired")
        if header.seq == SEQ_MAX:
            return self._judge_retire(signed, from_operator)
        stream = state.streams.get(header.author)
        verdict = self._triage(stream, signed)
        if verdict is not None:
            return verdict
        if not signed.is_signed(state.verify):
            return reject("signature")
        return self._admit(stream or self._roster.open(header.author), signed)

    def _is_old_fork(self, signed: SignedHeader) -> bool:
        """Whether a fork here is behind our head, too old to be held, and no resume ended it."""
        stream = self._state.streams.get(signed.header.author)
        if stream is None or stream.proof is not None or stream.newest is None:
            return False
        newest, header = stream.newest.header, signed.header
        behind = header.seq < newest.seq and stream.held(header.seq) is None
        return behind and header.incarnation == newest.incarnation

    def _judge_old_fork(self, one: SignedHeader, other: SignedHeader) -> Judgement:
        """The two halves of a proof, shown together: they need nothing that we hold."""
        state = self._state
        stream = state.streams[one.header.author]
        reason = breach(one.header, state.settings) or breach(other.header, state.settings)
        if reason:
            return reject(reason)
        if not stream.rate.take(2, state.now):
            return ignore("author_too_fast")
        if not (one.is_signed(state.verify) and other.is_signed(state.verify)):
            return reject("signature")
        self._fork(stream, one, other)
        return accept("fork")

    def _triage(self, stream: Stream | None, signed: SignedHeader) -> Judgement | None:
        """The cheap verdict; None if the header deserves a signature check."""
        if stream is None:
            if self._state.membership.is_buried(signed.header.author, signed.header.seq):
                return ignore("expired")
            room = self._roster.has_room(signed.header.author)
            return None if room else ignore("streams_full")
        verdict = stream.triage(signed)
        if verdict is None and not stream.rate.take(1, self._state.now):
            return ignore("author_too_fast")
        return verdict

    def _admit(self, stream: Stream, signed: SignedHeader) -> Judgement:
        """Place a verified header."""
        state = self._state
        held = stream.held(signed.header.seq)
        if stream.proof is None and held is not None and conflict(held, signed):
            self._fork(stream, held, signed)
            return accept("fork")
        was_forked, before = stream.proof is not None, stream.newest_seq
        reason = stream.admit(signed)
        state.touched.add(stream.author)
        if reason == "rival":  # the author may have a twin that it cannot see
            self._exchange.show(stream.author, (signed,))
        if reason in ("unlinked", "rival"):
            return ignore(reason)
        if was_forked:
            state.proofs.pop(stream.author, None)
            state.probation.begin_anew(stream.author)
            state.emit(Persist("resumed", signed.header.seq, signed.encode()))
        if stream.newest_seq > before:
            stream.fresh_at, stream.heard_round = state.now, state.round
        self._roster.note_arrival(stream, signed.header.seq)
        if stream.has_left and stream.newest_seq > before:
            state.membership.forget(stream.author, stream.newest)
            self._roster.let_go(stream.author, "left")
            state.emit(Left(stream.author, signed))
            return accept("leave")
        return accept(reason)

    def _fork(self, stream: Stream, held: SignedHeader, signed: SignedHeader) -> None:
        """Two signed headers with one seq: weight 0, and everybody is shown them, once."""
        state = self._state
        proof = fork_proof(held, signed)
        stream.proof, stream.job = proof, None
        if not self._matters(stream):
            return
        while len(state.proofs) >= state.settings.proofs_max:
            strangers = (author for author in state.proofs if author not in state.streams)
            del state.proofs[next(strangers, next(iter(state.proofs)))]
        state.proofs[stream.author] = proof
        state.emit(Persist("proof", signed.header.seq, proof.encode()))
        state.emit(Forked(stream.author, proof))
        self._exchange.pass_on(proof)

    def _matters(self, stream: Stream) -> bool:
        """Whether a fork of this author is news: keys are free, and a name alone is nobody."""
        state, author = self._state, stream.author
        met = author in state.membership or state.links.is_greeted(author)
        known = author in state.probation.exempt or state.probation.has_row(author)
        return stream.followed or met or known

    def _judge_own(self, signed: SignedHeader) -> Judgement:
        """A head of our own key: known, or a sign of another life of ours."""
        state = self._state
        if state.own.knows(signed):
            return ignore("own")
        if not signed.is_signed(state.verify):
            return reject("signature")
        shown = state.own.learn(signed, state.now)
        if signed.header.kind == RETIRE:
            self._retire(signed, news=True)
        if shown is not Shown.BESIDE:
            state.emit(Persist("seen", signed.header.seq, signed.encode()))
            state.emit(CloneSeen(signed) if shown is Shown.CLONE else OwnHead(signed))
        return accept(shown.value)

    def _judge_retire(self, signed: SignedHeader, from_operator: bool) -> Judgement:
        state = self._state
        author = signed.header.author
        full = len(state.retired) >= state.settings.members_max
        victim = self._replaceable_retired(author) if full else b""
        if full and not victim:
            return ignore("retired_full")
        if not signed.is_signed(state.verify):
            return reject("signature")
        state.retired.pop(victim, None)
        news = from_operator or self._roster.is_heard_of(author)
        self._roster.let_go(author, "retired")
        state.streams.pop(author, None)
        state.membership.forget(author)
        self._retire(signed, news)
        return accept("retire")

    def _retire(self, signed: SignedHeader, news: bool) -> None:
        """A key has ended: kept for good; written at once and shown to everybody if it is news.

        Keys are free: the end of one that nobody here has heard of is none.
        """
        state = self._state
        state.retired[signed.header.author] = signed
        state.proofs.pop(signed.header.author, None)  # adds nothing, and no resume will cite it
        if news:
            state.emit(Persist("retired", signed.header.seq, signed.encode()))
            self._exchange.tell(signed)

    def _replaceable_retired(self, author: bytes) -> bytes:
        """A newcomer's row, for who is none: retired, it would only be a newcomer again; or b""."""
        retired, is_new = self._state.retired, self._state.probation.is_new
        return b"" if is_new(author) else next(filter(is_new, retired), b"")

    def take_retire(self, event: ev.Retire) -> Judgement:
        """Judge a ``retire`` that our operator hands in, as if a peer had shown it."""
        return self._judge_header(event.signed_header, from_operator=True)

    # -- profiles

    def _take_members(self, link: Link, message: Members) -> None:
        news = False
        for signed, payload in message.profiles:
            judgement = self._judge_profile(signed, payload)
            self._state.count(judgement, link.peer)
            news = news or judgement.verdict is Verdict.ACCEPT
        if not news:
            self._note_repeat(link)

    def _judge_profile(self, signed: SignedHeader, payload: bytes) -> Judgement:
        state = self._state
        header = signed.header
        reason = breach(header, state.settings)
        if reason:
            return reject(reason)
        if header.kind != PROFILE or len(payload) != header.payload_bytes:
            return reject("not_a_profile")
        author = header.author
        if author in state.retired:
            return ignore("retired")
        if author == state.public_key or header.seq <= state.membership.number(author):
            return ignore("profile_known")
        if state.membership.is_buried(author, header.seq):
            return ignore("expired")
        if header.chunks[0] != chunk_hash(payload):
            return reject("profile_hash")
        try:
            profile = decode_profile(payload)
        except Unprintable:  # what is, follows Unicode's version: whoever passed it on meant well
            return ignore("profile_text")
        except Malformed:
            return reject("profile_malformed")
        trusted = state.links.is_greeted(author)
        if not state.membership.has_room(author, profile, trusted):
            return ignore("members_full")
        if not signed.is_signed(state.verify):
            return reject("signature")
        state.membership.put(signed, payload, profile, state.now, trusted)
        self._place_profile(signed)
        return accept("profile")

    def _place_profile(self, signed: SignedHeader) -> None:
        """The header of a verified profile is also an entry of its stream."""
        stream = self._state.streams.get(signed.header.author)
        if self._triage(stream, signed) is None:
            self._admit(stream or self._roster.open(signed.header.author), signed)
