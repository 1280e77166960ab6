"""The one door of the gossip room: an event goes in, effects come out. No clock, no I/O, no chance.

Puts together what the other files decide: own.py (our stream), streams.py (each followed one),
membership.py (who is there), links.py (connections). Order of checks for a foreign frame, cheapest
first: length, connected, token bucket, parse, manifest, window, duplicate, signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.effects import (
    Advanced,
    Arrived,
    CloneSeen,
    Dial,
    Drop,
    Effect,
    Fetch,
    FetchKeyframe,
    Forked,
    OwnHead,
    Persist,
    ProfileDue,
    Send,
    Unfollow,
)
from tapestry_p2p.gossip.fork import conflict, fork_proof
from tapestry_p2p.gossip.header import LEAVE, PROFILE, SEQ_MAX, Sign, SignedHeader, Verify
from tapestry_p2p.gossip.known import Known
from tapestry_p2p.gossip.links import Link, Links
from tapestry_p2p.gossip.membership import Membership
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.messages import (
    FRAME_BYTES,
    HEADS_MAX,
    HELLO,
    ROWS_MAX,
    SYNC,
    Digest,
    Heads,
    Hello,
    Members,
    Row,
    Want,
    decode_hello,
    decode_sync,
    encode_hello,
    encode_sync,
    heads_frames,
    members_frames,
)
from tapestry_p2p.gossip.own import OwnStream, ProtocolError
from tapestry_p2p.gossip.profile import Profile, decode_profile
from tapestry_p2p.gossip.settings import Bucket, Settings
from tapestry_p2p.gossip.streams import Do, Plan, Stream
from tapestry_p2p.gossip.validity import breach
from tapestry_p2p.gossip.verdict import Judgement, Tally, Verdict, accept, ignore, reject

SOURCES_MAX = 8

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
        verify: Verify = identity.verify,
    ) -> None:
        self.settings = settings
        self.public_key = public_key
        self._random = random
        self._verify = verify
        self._now = at
        self._own = OwnStream(settings, public_key, signer, random, mute)
        self._links = Links(settings, public_key, random)
        self._membership = Membership(settings, random.randbytes(16))
        self._streams: dict[bytes, Stream] = {}
        self._retired: dict[bytes, SignedHeader] = {}
        self._proofs: dict[bytes, Any] = {}
        self._tally = Tally()
        self._effects: list[Effect] = []
        self._touched: set[bytes] = set()
        self._own_profile_at = at - settings.profile_every_s
        self._doors: dict[type, Callable[[Any], None]] = {
            ev.Connected: self._on_connected,
            ev.Disconnected: self._on_disconnected,
            ev.DialFailed: self._on_dial_failed,
            ev.Message: self._on_message,
            ev.Applied: self._on_applied,
            ev.ApplyFailed: self._on_apply_failed,
            ev.Publish: self._on_publish,
            ev.Unmute: self._on_unmute,
            ev.Tick: self._on_tick,
        }
        self._restore(known or Known())

    def step(self, event: ev.Event) -> list[Effect]:
        """Take in one event; the effects to perform, in order.

        Raises ProtocolError for a Publish that our own code must not make; nothing else.
        """
        self._now = max(self._now, event.at)
        self._effects, self._touched = [], set()
        self._doors[type(event)](event)
        for author in sorted(self._touched):
            self._pursue(author)
        return self._effects

    # -- connections

    def _on_connected(self, event: ev.Connected) -> None:
        if event.peer == self.public_key:
            self._effects.append(Drop(event.peer, "self"))
            return
        link = self._links.connect(event.peer, self._now)
        if link is None:
            self._effects.append(Drop(event.peer, "full"))
            return
        self._membership.mark_worked(event.peer)
        self._say_hello(link, ask=False)

    def _on_disconnected(self, event: ev.Disconnected) -> None:
        self._links.disconnect(event.peer, self._now)

    def _on_dial_failed(self, event: ev.DialFailed) -> None:
        self._links.dial_failed(event.peer, self._now)

    def _say_hello(self, link: Link, ask: bool) -> None:
        link.hello_at = self._now
        heads = self._hello_heads(link.peer)
        rows = self._rows()
        hello = Hello(self.settings.network, self.settings.wire, heads, rows, ask)
        self._effects.append(Send(link.peer, HELLO, encode_hello(hello)))

    def _hello_heads(self, peer: bytes) -> tuple[SignedHeader, ...]:
        """Our head, the receiver's own, then the followed ones, within half a frame."""
        theirs = self._newest(peer)
        others = (s.newest for s in self._streams.values() if s.followed and s.author != peer)
        heads: list[SignedHeader] = []
        room = FRAME_BYTES // 2
        for signed in (self._own.head, theirs, *others):
            if signed is None or len(heads) == HEADS_MAX:
                continue
            room -= len(signed.header.encoded) + 80
            if room < 0 and heads:
                break
            heads.append(signed)
        return tuple(heads)

    def _newest(self, author: bytes) -> SignedHeader | None:
        if author in self._retired:
            return self._retired[author]
        stream = self._streams.get(author)
        return stream.newest if stream else None

    # -- foreign frames, cheapest check first

    def _on_message(self, event: ev.Message) -> None:
        link = self._links.get(event.peer)
        judgement = self._judge_frame(link, event)
        if judgement is not None:
            self._count(judgement, event.peer)

    def _judge_frame(self, link: Link | None, event: ev.Message) -> Judgement | None:
        """The verdict on a whole frame, or None if its parts were judged one by one."""
        if len(event.data) > self.settings.message_bytes_max:
            return reject("frame_too_long")
        if link is None or not link.connected:
            return ignore("not_connected")
        if not (link.messages.take(1, self._now) and link.volume.take(len(event.data), self._now)):
            return ignore("too_fast")
        try:
            if event.channel == HELLO:
                return self._on_hello(link, decode_hello(event.data, len(event.data)))
            if not link.greeted:
                return ignore("before_hello")
            message = decode_sync(event.data, len(event.data))
        except Malformed:
            return reject("malformed")
        if isinstance(message, Heads):
            self._take_heads(link, message.heads)
        elif isinstance(message, Want):
            return self._on_want(link, message)
        elif isinstance(message, Digest):
            return self._on_digest(link, message.rows)
        else:
            self._take_members(link, message)
        return None

    def _count(self, judgement: Judgement, peer: bytes) -> None:
        """Count a verdict; a peer that earned too many REJECTs is dropped."""
        self._tally.add(judgement)
        link = self._links.get(peer)
        if judgement.verdict is not Verdict.REJECT or link is None or not link.connected:
            return
        if not link.blames.take(1, self._now):
            self._drop(peer, "too_many_rejects")

    def _drop(self, peer: bytes, reason: str) -> None:
        self._effects.append(Drop(peer, reason))
        self._links.disconnect(peer, self._now)
        self._links.shun(peer, self._now)

    def _on_hello(self, link: Link, hello: Hello) -> Judgement | None:
        if hello.network != self.settings.network or hello.wire != self.settings.wire:
            theirs, ours = hello.network.hex()[:16], self.settings.network.hex()[:16]
            mine, wire = self.settings.wire, hello.wire
            self._drop(link.peer, f"network {theirs} wire {wire}, ours is {ours} wire {mine}")
            return ignore("other_network")
        if hello.ask:
            self._say_hello(link, ask=False)
        first = not link.greeted
        link.greeted = True
        link.attempts = 0
        if first:
            self._revive(link.peer)
        self._take_heads(link, hello.heads)
        self._on_digest(link, hello.rows)
        return accept("hello")

    def _revive(self, peer: bytes) -> None:
        """A source is back: what failed for want of it may be tried again now."""
        stream = self._streams.get(peer)
        if stream is not None:
            stream.retry_at, stream.want_at, stream.wants = 0.0, 0.0, 0
            self._touched.add(peer)

    # -- signed headers

    def _take_heads(self, link: Link, heads: Iterable[SignedHeader]) -> None:
        """Judge each header; ours from the highest down, others' from the lowest up."""
        for signed in sorted(heads, key=self._reading_order):
            self._count(self._judge_header(signed, link.peer), link.peer)

    def _reading_order(self, signed: SignedHeader) -> tuple[bytes, int]:
        header = signed.header
        return header.author, -header.seq if header.author == self.public_key else header.seq

    def _judge_header(self, signed: SignedHeader, peer: bytes) -> Judgement:
        header = signed.header
        reason = breach(header, self.settings)
        if reason:
            return reject(reason)
        if header.author == self.public_key:
            return self._judge_own(signed)
        if header.author in self._retired:
            return ignore("retired")
        if header.seq == SEQ_MAX:
            return self._judge_retire(signed)
        stream = self._streams.get(header.author)
        if stream is None:
            if not self._has_room():
                return ignore("streams_full")
        else:
            verdict = stream.triage(signed)
            if verdict is not None:
                return verdict
            if not stream.rate.take(1, self._now):
                return ignore("author_too_fast")
        if not signed.is_signed(self._verify):
            return reject("signature")
        stream = stream or self._open_stream(header.author)
        return self._admit(stream, signed)

    def _admit(self, stream: Stream, signed: SignedHeader) -> Judgement:
        """Place a verified header."""
        held = stream.held(signed.header.seq)
        if stream.proof is None and held is not None and conflict(held, signed):
            self._fork(stream, held, signed)
            return accept("fork")
        before = stream.newest_seq
        reason = stream.admit(signed)
        self._touched.add(stream.author)
        if reason == "unlinked":
            return ignore(reason)
        if reason == "resume" and stream.proof is None:
            self._proofs.pop(stream.author, None)
        if stream.newest_seq > before:
            stream.fresh_at = self._now
        self._note_arrival(stream, signed.header.seq)
        if stream.has_left:
            self._let_go(stream.author, "left")
        return accept(reason)

    def _note_arrival(self, stream: Stream, seq: int) -> None:
        if stream.followed and seq not in stream.arrived and seq > stream.position:
            stream.arrived.add(seq)
            self._effects.append(Arrived(stream.author, seq, self._now))

    def _fork(self, stream: Stream, held: SignedHeader, signed: SignedHeader) -> None:
        """Two signed headers with one seq: weight 0, and show the author what it signed."""
        proof = fork_proof(held, signed)
        stream.proof, stream.job = proof, None
        while len(self._proofs) >= self.settings.proofs_max:
            del self._proofs[next(iter(self._proofs))]
        self._proofs[stream.author] = proof
        self._effects.append(Persist("proof", signed.header.seq, proof.encode()))
        self._effects.append(Forked(stream.author, proof))
        if self._links.is_greeted(stream.author):
            self._send_heads(stream.author, (proof.first, proof.second))

    def _judge_own(self, signed: SignedHeader) -> Judgement:
        if self._own.knows(signed):
            return ignore("own")
        if not signed.is_signed(self._verify):
            return reject("signature")
        clone = self._own.learn(signed, self._now)
        self._effects.append(Persist("seen", signed.header.seq, signed.encode()))
        self._effects.append(CloneSeen(signed) if clone else OwnHead(signed))
        return accept("own_head")

    def _judge_retire(self, signed: SignedHeader) -> Judgement:
        if len(self._retired) >= self.settings.members_max:
            return ignore("retired_full")
        if not signed.is_signed(self._verify):
            return reject("signature")
        author = signed.header.author
        self._let_go(author, "retired")
        self._streams.pop(author, None)
        self._membership.forget(author)
        self._retired[author] = signed
        return accept("retire")

    # -- which authors we follow

    def _has_room(self) -> bool:
        if len(self._streams) < self.settings.streams_max:
            return True
        return any(self._is_idle(stream) for stream in self._streams.values())

    def _is_idle(self, stream: Stream) -> bool:
        return not stream.followed and not self._links.is_greeted(stream.author)

    def _open_stream(self, author: bytes) -> Stream:
        if len(self._streams) >= self.settings.streams_max:
            idle = (key for key, stream in self._streams.items() if self._is_idle(stream))
            del self._streams[next(idle)]
        per_minute = self.settings.entries_per_minute_max
        rate = Bucket(per_minute / 60, max(per_minute, 4 * self.settings.ring))
        stream = Stream(author, self.settings, self._now, rate)
        self._streams[author] = stream
        self._consider(stream)
        return stream

    def _consider(self, stream: Stream) -> None:
        """Follow the author if there is a place, or one held by somebody never reached."""
        if stream.followed or stream.has_left:
            return
        if len(self.followed()) >= self.settings.all_to_all_max - 1:
            if not self._links.is_greeted(stream.author):
                return
            others = (other for other in self._streams.values() if other.followed)
            victim = next((other for other in others if self._is_unreached(other)), None)
            if victim is None:
                return
            self._let_go(victim.author, "place_taken")
        stream.follow()
        self._touched.add(stream.author)
        newest = stream.newest
        if newest is not None:
            self._note_arrival(stream, newest.header.seq)

    def _is_unreached(self, stream: Stream) -> bool:
        return stream.position < 0 and not self._links.is_greeted(stream.author)

    def _let_go(self, author: bytes, reason: str) -> None:
        stream = self._streams.get(author)
        if reason == "left":
            self._membership.forget(author)
        if stream is not None and stream.followed:
            stream.unfollow()
            self._effects.append(Unfollow(author, reason))

    # -- one job per stream

    def _pursue(self, author: bytes) -> None:
        """Do what the stream's plan says, until it waits for somebody."""
        stream = self._streams.get(author)
        while stream is not None:
            plan = stream.plan(self._now)
            if plan.do is not Do.ADVANCE or plan.signed is None:
                self._carry_out(stream, plan)
                return
            stream.advance(plan.signed)
            self._effects.append(Advanced(author, plan.signed))

    def _carry_out(self, stream: Stream, plan: Plan) -> None:
        if plan.do is Do.WANT:
            self._ask_headers(stream, plan)
        elif plan.signed is not None:
            sources = self._sources(stream.author, plan.signed.header.seq)
            free = not plan.signed.header.chunks and plan.do is Do.FETCH
            if not sources and not free:
                return
            whole = plan.do is Do.KEYFRAME
            stream.start(plan.signed, whole, self._now)
            order = FetchKeyframe if whole else Fetch
            self._effects.append(order(stream.author, plan.signed, sources))

    def _ask_headers(self, stream: Stream, plan: Plan) -> None:
        holders = self._holders(stream.author, plan.last)
        if not holders:
            return
        peer = holders[stream.wants % len(holders)]
        want = encode_sync(Want(stream.author, plan.first, plan.last))
        stream.wanted(self._now)
        self._effects.append(Send(peer, SYNC, want))

    def _holders(self, author: bytes, seq: int) -> list[bytes]:
        """Greeted peers that should hold the headers up to ``seq``; the author first."""
        peers = [link for link in self._links.greeted() if link.heads.get(author, -1) >= seq]
        rest = sorted(link.peer for link in peers if link.peer != author)
        return ([author] if self._links.is_greeted(author) else []) + rest

    def _sources(self, author: bytes, seq: int) -> tuple[bytes, ...]:
        """Greeted peers that should hold what belongs to ``seq``; the author first."""
        peers = [link for link in self._links.greeted() if link.copies.get(author, -1) >= seq]
        rest = [link.peer for link in peers if link.peer != author]
        self._random.shuffle(rest)
        first = [author] if self._links.is_greeted(author) else []
        return tuple((first + rest)[:SOURCES_MAX])

    def _on_applied(self, event: ev.Applied) -> None:
        stream = self._streams.get(event.author)
        if stream is None or not stream.followed:
            return
        signed = stream.held(event.seq) if stream.job is None else stream.job.signed
        stated = signed.header.root if signed and signed.header.seq == event.seq else b""
        self._touched.add(event.author)
        if event.root and stated and event.root != stated:
            self._fail(stream, "root")
        elif not stream.applied(event.seq, event.root):
            self._tally.add(ignore("applied_unasked"))

    def _on_apply_failed(self, event: ev.ApplyFailed) -> None:
        if event.reason not in ev.REASONS:
            raise ProtocolError(f"unknown reason of a failed fetch: {event.reason}")
        stream = self._streams.get(event.author)
        if stream is None or stream.job is None or stream.job.seq != event.seq:
            return
        self._fail(stream, event.reason)
        self._touched.add(event.author)

    def _fail(self, stream: Stream, reason: str) -> None:
        self._tally.add(ignore(f"fetch_{reason}"))
        stream.failed(reason, self._now, self._random.random())

    # -- anti-entropy

    def _rows(self) -> tuple[Row, ...]:
        """What we hold of whom: ourselves, followed authors, then the rest, capped."""
        own = self._own.head_seq + 1
        rows = [Row(self.public_key, self._membership.number(self.public_key) + 1, own, own)]
        order = sorted(self._streams.values(), key=lambda stream: not stream.followed)
        for stream in order:
            number = self._membership.number(stream.author) + 1
            rows.append(Row(stream.author, number, stream.newest_seq + 1, stream.position + 1))
        rows.extend(Row(author, 0, SEQ_MAX, 0) for author in self._retired)
        for author in self._membership:
            if author not in self._streams and author != self.public_key:
                rows.append(Row(author, self._membership.number(author) + 1, 0, 0))
        return tuple(rows[:ROWS_MAX])

    def _on_digest(self, link: Link, rows: tuple[Row, ...]) -> Judgement:
        """Send what the peer lacks; remember what it claims to hold."""
        link.claim(rows, self.settings.streams_max)
        theirs = {row.author: row for row in rows}
        self._send_profiles(link.peer, theirs)
        for author in (self.public_key, *self._streams, *self._retired):
            row = theirs.get(author)
            self._send_missing_heads(link, author, row.head - 1 if row else -1)
        self._touched.update(key for key in theirs if key in self._streams)
        return accept("digest")

    def _send_profiles(self, peer: bytes, theirs: dict[bytes, Row]) -> None:
        missing: list[tuple[SignedHeader, bytes]] = []
        for author in self._membership:
            member = self._membership.get(author)
            row = theirs.get(author)
            if member and member.number > (row.profile if row else 0) - 1 and author != peer:
                missing.append((member.signed, member.payload))
        for frame in members_frames(missing):
            self._answer(peer, frame)

    def _send_missing_heads(self, link: Link, author: bytes, their_seq: int) -> None:
        newest = self._own.head if author == self.public_key else self._newest(author)
        if newest is None or newest.header.seq <= their_seq:
            return
        kept = self._kept(author)
        if newest.header.seq - their_seq > self.settings.ring:
            self._send_heads(link.peer, (newest,))
            return
        between = [kept[seq] for seq in sorted(kept) if seq > their_seq]
        self._send_heads(link.peer, between if newest in between else [*between, newest])

    def _kept(self, author: bytes) -> dict[int, SignedHeader]:
        if author == self.public_key:
            return self._own.kept
        stream = self._streams.get(author)
        return stream.kept if stream else {}

    def _on_want(self, link: Link, want: Want) -> Judgement:
        kept = self._kept(want.author)
        found = [kept[seq] for seq in sorted(kept) if want.first <= seq <= want.last]
        newest = self._newest(want.author)
        if newest and newest not in found and want.first <= newest.header.seq <= want.last:
            found.append(newest)
        if not found:
            return ignore("want_missing")
        self._send_heads(link.peer, found[-HEADS_MAX:])
        return accept("want")

    def _send_heads(self, peer: bytes, heads: Iterable[SignedHeader]) -> None:
        for frame in heads_frames(heads):
            self._answer(peer, frame)

    def _answer(self, peer: bytes, frame: bytes) -> None:
        """Send, within the peer's own budget of bytes: asking is cheap, answering is not."""
        link = self._links.get(peer)
        if link is not None and link.volume.take(len(frame), self._now):
            self._effects.append(Send(peer, SYNC, frame))
        else:
            self._tally.add(ignore("answer_too_much"))

    # -- members

    def _take_members(self, link: Link, message: Members) -> None:
        for signed, payload in message.profiles:
            self._count(self._judge_profile(signed, payload, link.peer), link.peer)

    def _judge_profile(self, signed: SignedHeader, payload: bytes, peer: bytes) -> Judgement:
        header = signed.header
        reason = breach(header, self.settings)
        if reason:
            return reject(reason)
        if header.kind != PROFILE or len(payload) != header.payload_bytes:
            return reject("not_a_profile")
        author = header.author
        if author in self._retired:
            return ignore("retired")
        if author == self.public_key or header.seq <= self._membership.number(author):
            return ignore("profile_known")
        if header.chunks[0] != chunk_hash(payload):
            return reject("profile_hash")
        try:
            profile = decode_profile(payload)
        except Malformed:
            return reject("profile_malformed")
        trusted = self._links.is_greeted(author)
        if not self._membership.has_room(author, profile, trusted):
            return ignore("members_full")
        if not signed.is_signed(self._verify):
            return reject("signature")
        self._membership.put(signed, payload, profile, self._now, trusted)
        self._place_profile(signed)
        return accept("profile")

    def _place_profile(self, signed: SignedHeader) -> None:
        """The profile's header is also an entry of its stream."""
        author = signed.header.author
        stream = self._streams.get(author)
        if stream is None:
            if not self._has_room():
                return
            stream = self._open_stream(author)
        if stream.triage(signed) is None:
            self._admit(stream, signed)

    # -- our own stream

    def _on_publish(self, event: ev.Publish) -> None:
        signed = self._own.publish(event)
        header = signed.header
        self._effects.append(Persist("own", header.seq, signed.encode(), event.payload))
        if header.kind == PROFILE:
            self._take_own_profile(signed, event.payload)
        frame = encode_sync(Heads((signed,)))
        for link in self._links.greeted():
            self._effects.append(Send(link.peer, SYNC, frame))
            if header.kind == PROFILE:
                profile = encode_sync(Members(((signed, event.payload),)))
                self._effects.append(Send(link.peer, SYNC, profile))
        if header.kind == LEAVE:
            self._membership.forget(self.public_key)

    def _take_own_profile(self, signed: SignedHeader, payload: bytes) -> None:
        self._own_profile_at = self._now
        profile = decode_profile(payload)
        self._membership.put(signed, payload, profile, self._now, trusted=True)

    def _on_unmute(self, event: ev.Unmute) -> None:
        self._own.unmute()

    # -- time

    def _on_tick(self, event: ev.Tick) -> None:
        for link in list(self._links.connected()):
            self._tend(link)
        self._expire()
        for stream in list(self._streams.values()):
            job = stream.job
            if job and self._now - job.since > self.settings.fetch_timeout_s:
                self._fail(stream, "timeout")
            self._consider(stream)
        self._touched.update(self._streams)
        self._dial()
        speaking = self._own.head is not None and not self._own.mute and not self._own.stopped
        if speaking and self._now - self._own_profile_at >= self.settings.profile_every_s:
            self._own_profile_at = self._now
            self._effects.append(ProfileDue())

    def _tend(self, link: Link) -> None:
        """Keep one connection alive: a hello until it is answered, then a digest now and then."""
        config = self.settings
        if not link.greeted:
            if self._now - link.connected_at >= config.hello_timeout_s:
                self._drop(link.peer, "no_hello")
            elif self._now - link.hello_at >= config.hello_retry_s:
                self._say_hello(link, ask=True)
        elif self._now >= link.digest_at:
            self._links.next_digest(link, self._now)
            frame = encode_sync(Digest(self._rows()))
            self._effects.append(Send(link.peer, SYNC, frame))

    def _expire(self) -> None:
        """Forget members and streams that have been silent too long and are not connected."""
        gone = set(self._membership.expire(self._now))
        limit = self._now - self.settings.member_expiry_s
        for author, stream in list(self._streams.items()):
            silent = stream.fresh_at < limit and author not in self._membership
            if (author in gone or silent) and not self._links.is_greeted(author):
                self._let_go(author, "expired")
                del self._streams[author]

    def _dial(self) -> None:
        addresses: dict[bytes, tuple[str, ...]] = {}
        for author in self._membership:
            member = self._membership.get(author)
            stream = self._streams.get(author)
            if member and member.profile.addresses and stream and stream.followed:
                addresses[author] = member.profile.addresses
        for peer, places in self.settings.bootstrap:
            addresses[peer] = tuple(dict.fromkeys((*places, *addresses.get(peer, ()))))
        addresses.pop(self.public_key, None)
        for peer in self._links.due(addresses, self._now):
            self._effects.append(Dial(peer, addresses[peer]))

    # -- what is stored, what is shown

    def _restore(self, known: Known) -> None:
        own_proofs = [proof for proof in known.proofs if proof.author == self.public_key]
        self._own.restore(list(known.own), known.seen)
        self._own.proofs = own_proofs
        for signed, payload in known.profiles:
            profile = decode_profile(payload)
            self._membership.put(signed, payload, profile, self._now, trusted=True)
        for signed in known.copies[: self.settings.all_to_all_max - 1]:
            stream = self._open_stream(signed.header.author)
            stream.head = stream.standing = signed
            stream.kept[signed.header.seq] = signed
            stream.position, stream.root = signed.header.seq, signed.header.root
        self._proofs = {proof.author: proof for proof in known.proofs}
        for proof in known.proofs:
            if proof.author in self._streams:
                self._streams[proof.author].proof = proof
        self._retired = {signed.header.author: signed for signed in known.retired}

    def snapshot(self) -> Known:
        """What to store, so that a restarted node goes on. Own entries also come as Persist."""
        members = (self._membership.get(author) for author in self._membership)
        return Known(
            own=tuple(self._own.kept.values()),
            seen=self._own.seen,
            copies=tuple(s.standing for s in self._streams.values() if s.standing),
            profiles=tuple((member.signed, member.payload) for member in members if member),
            proofs=tuple(self._proofs.values()),
            retired=tuple(self._retired.values()),
        )

    @property
    def mute(self) -> bool:
        """Whether a Publish would raise because others may know more of our stream than we do."""
        return self._own.mute

    @property
    def must_resume(self) -> bool:
        """Whether the next entry must be a ``resume``."""
        return self._own.must_resume and self._own.highest is not None

    @property
    def stopped(self) -> str:
        """``clone`` or ``retired`` if this key must not publish again; else empty."""
        return self._own.stopped

    @property
    def own_head(self) -> SignedHeader | None:
        """Our last entry."""
        return self._own.head

    @property
    def own_highest(self) -> SignedHeader | None:
        """The highest head of our key known, also one that we do not hold."""
        return self._own.highest

    def own_headers(self) -> dict[int, SignedHeader]:
        """Our kept headers by seq, a copy."""
        return dict(self._own.kept)

    def greeted(self) -> tuple[bytes, ...]:
        """Peers that are connected and have told us what they hold, our own head included."""
        return tuple(link.peer for link in self._links.greeted())

    def members(self) -> dict[bytes, Profile]:
        """The newest profile of every member, our own included."""
        found = ((author, self._membership.get(author)) for author in self._membership)
        return {author: member.profile for author, member in found if member}

    def followed(self) -> tuple[bytes, ...]:
        """Authors whose copies we keep, in the order we began."""
        return tuple(author for author, stream in self._streams.items() if stream.followed)

    def head(self, author: bytes) -> SignedHeader | None:
        """The newest signed header held of an author."""
        return self._own.head if author == self.public_key else self._newest(author)

    def position(self, author: bytes) -> int:
        """Seq that our copy of the author stands at; -1 if there is none."""
        stream = self._streams.get(author)
        return stream.position if stream else -1

    def weight_zero(self, author: bytes) -> bool:
        """Whether the author must not be mixed: forked, retired, or gone."""
        stream = self._streams.get(author)
        if author in self._retired or author in self._proofs or stream is None:
            return True
        return stream.proof is not None or stream.has_left

    def statistics(self) -> dict[str, dict[str, int]]:
        """Counts of verdicts by reason, and the sizes of all tables."""
        tables = {
            "links": len(self._links),
            "greeted": len(self.greeted()),
            "streams": len(self._streams),
            "followed": len(self.followed()),
            "members": len(self._membership),
            "tombstones": self._membership.tombstones,
            "proofs": len(self._proofs),
            "retired": len(self._retired),
            "headers": sum(len(stream.kept) for stream in self._streams.values()),
        }
        return {**self._tally.table(), "tables": tables}
