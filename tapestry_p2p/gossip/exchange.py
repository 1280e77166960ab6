"""What two connected peers tell each other: hello, digests, and what the other lacks.

Anti-entropy: whatever push lost, the next digest heals. Where an author's push does not reach a
peer at all, we show it on (decisions/0013). Sends only signed headers and profiles that were
verified here; judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from tapestry_p2p.gossip.effects import Send
from tapestry_p2p.gossip.fork import ForkProof
from tapestry_p2p.gossip.header import SEQ_MAX, SignedHeader
from tapestry_p2p.gossip.links import Link
from tapestry_p2p.gossip.messages import (
    FRAME_BYTES,
    HEADS_MAX,
    HELLO,
    MARK_BYTES,
    ROWS_MAX,
    SYNC,
    Digest,
    Heads,
    Hello,
    Members,
    Row,
    Want,
    encode_hello,
    encode_sync,
    heads_frames,
    members_frames,
)
from tapestry_p2p.gossip.own import LEFT
from tapestry_p2p.gossip.state import State
from tapestry_p2p.gossip.streams import Stream, heals
from tapestry_p2p.gossip.verdict import Judgement, accept, ignore

RELAY_LAG_S = 1.0  # who has not heard of an entry after so long is not reached by its author
RELAY_DIGESTS = 8  # an author is shown on for so many digests' time; then it must lag again


class Exchange:
    """Frames that we send."""

    def __init__(self, state: State) -> None:
        self._state = state

    # -- unasked

    def say_hello(self, link: Link, ask: bool) -> None:
        """Who we are, what we hold, and the peer's own head as we know it."""
        state = self._state
        link.hello_at = state.now
        settings = state.settings
        heads, rows = self._hello_heads(link.peer), self._rows()
        hello = Hello(settings.network, settings.wire, heads, rows, ask)
        state.emit(Send(link.peer, HELLO, encode_hello(hello)))

    def tend(self, link: Link) -> None:
        """Keep one connection alive: a hello until it is answered, then a digest now and then."""
        state = self._state
        if not link.greeted:
            if state.now - link.connected_at >= state.settings.hello_timeout_s:
                state.drop(link.peer, "no_hello")
            elif state.now - link.hello_at >= state.settings.hello_retry_s:
                self.say_hello(link, ask=True)
        elif self._wants_receipt(link):
            self.say_hello(link, ask=True)
        elif state.now >= link.digest_at:
            rows = self._rows()
            state.links.next_digest(link, state.now, len(rows))
            state.emit(Send(link.peer, SYNC, encode_sync(Digest(rows))))

    def _wants_receipt(self, link: Link) -> bool:
        """Whether to ask a peer, by a hello, if it holds our goodbye: no digest comes so soon."""
        state = self._state
        own = state.own
        if own.stopped != LEFT or link.holds(state.public_key, own.head_seq):
            return False
        return state.now - link.hello_at >= state.settings.hello_retry_s

    def announce(self, signed: SignedHeader, profile: bytes) -> None:
        """Tell every peer of our new entry, with its payload if it is a profile."""
        state = self._state
        frames = [encode_sync(Heads((signed,)))]
        if profile:
            frames.append(encode_sync(Members(((signed, profile),))))
        for link in state.links.greeted():
            for frame in frames:
                state.emit(Send(link.peer, SYNC, frame))

    def tell(self, signed: SignedHeader) -> None:
        """Show a verified header to everybody."""
        for link in list(self._state.links.greeted()):
            self._send_heads(link.peer, (signed,))

    def pass_on(self, proof: ForkProof) -> None:
        """Show a new proof to everybody: to its author, who may be a restored backup, as well."""
        for link in list(self._state.links.greeted()):
            self._send_heads(link.peer, (proof.first, proof.second))

    def show_proofs(self, link: Link) -> None:
        """Show a peer that has just greeted the proofs against itself."""
        proof = self._state.proofs.get(link.peer)
        if proof is not None and link.peer not in link.heads:
            self._send_heads(link.peer, (proof.first, proof.second))

    def _show_unknown_proofs(self, link: Link, theirs: dict[bytes, Row]) -> None:
        """Show a peer the proofs against authors whose heads it holds, until it knows them."""
        for author, proof in self._state.proofs.items():
            row = theirs.get(author)
            if row is not None and row.mark != proof.id[:MARK_BYTES]:
                self._send_heads(link.peer, (proof.first, proof.second))

    def show(self, peer: bytes, heads: Iterable[SignedHeader]) -> None:
        """Send verified headers to a peer, if it is connected."""
        if self._state.links.is_greeted(peer):
            self._send_heads(peer, heads)

    def _hello_heads(self, peer: bytes) -> tuple[SignedHeader, ...]:
        """Our head, the receiver's own, then the followed ones, within half a frame.

        Where digests name few, the receiver answers ours with those that it lacks.
        """
        state = self._state
        streams = () if state.neighbours.wide else state.streams.values()
        others = (s.newest for s in streams if s.followed and s.author != peer)
        heads: list[SignedHeader] = []
        room = FRAME_BYTES // 2
        theirs = state.newest(peer) or state.membership.last_words(peer)
        for signed in (state.own.head, theirs, *others):
            if signed is None or len(heads) == HEADS_MAX:
                continue
            room -= len(signed.header.encoded) + 80
            if room < 0 and heads:
                break
            heads.append(signed)
        return tuple(heads)

    def _rows(self) -> tuple[Row, ...]:
        """What we hold of whom: ourselves, followed authors, then the rest, capped."""
        state = self._state
        number = state.membership.number
        own = state.own.head_seq + 1
        rows = [
            Row(state.public_key, number(state.public_key) + 1, own, own, _mark(state.own.head))
        ]
        wide = state.neighbours.wide
        streams = filter(self._is_heard, state.streams.values()) if wide else state.streams.values()
        for stream in sorted(streams, key=lambda stream: not stream.followed):
            newest, copy = stream.newest_seq + 1, stream.position + 1
            profile = number(stream.author) + 1
            mark = stream.proof.id[:MARK_BYTES] if stream.proof else _mark(stream.newest)
            rows.append(Row(stream.author, profile, newest, copy, mark))
        retired = (author for author in state.retired if author != state.public_key)
        rows.extend(Row(author, 0, SEQ_MAX, 0) for author in retired)
        if wide:
            return tuple(rows[:ROWS_MAX])
        seen = {row.author for row in rows}
        rows.extend(Row(key, number(key) + 1, 0, 0) for key in state.membership if key not in seen)
        return tuple(rows[:ROWS_MAX])

    def _is_heard(self, stream: Stream) -> bool:
        """Whether an author concerns us: we follow it, or are connected to it."""
        return stream.followed or self._state.links.is_greeted(stream.author)

    # -- answers, within the peer's own budget of bytes: asking is cheap, answering is not

    def take_digest(self, link: Link, rows: tuple[Row, ...]) -> Judgement:
        """Send what the peer lacks; remember what it claims to hold."""
        state = self._state
        link.claim(rows, state.settings.streams_max)
        theirs = {row.author: row for row in rows}
        wide = state.neighbours.wide
        strangers = self._strangers(link.peer, theirs) if wide else []
        self._send_profiles(link.peer, theirs, {*theirs, *strangers} if wide else None)
        self._send_heads(link.peer, filter(None, map(state.newest, strangers)))
        is_new = state.probation.is_new
        retired = (author for author in state.retired if author in theirs or not is_new(author))
        streams = filter(theirs.__contains__, state.streams) if wide else state.streams
        for author in (state.public_key, *streams, *retired):
            self._send_missing(link.peer, author, theirs.get(author, Row(author, 0, 0, 0)))
        self._show_unknown_proofs(link, theirs)
        for author, row in theirs.items():
            stream = state.streams.get(author)
            if stream is not None:
                stream.claimed = max(stream.claimed, row.copy - 1)
                state.touched.add(author)
                self._consider_relay(link, stream, row)
        return accept("digest")

    # -- store and forward: for those whom an author cannot reach

    def _consider_relay(self, link: Link, stream: Stream, row: Row) -> None:
        """Show an author's entries on to who follows it and lags behind us; not to who leads."""
        behind = stream.position - (row.head - 1)
        if behind < 0 or not row.copy or not stream.followed or stream.proof is not None:
            link.relays.pop(stream.author, None)
            return
        late = self._state.now - stream.fresh_at >= RELAY_LAG_S
        if stream.author != link.peer and behind > (0 if late else 1):
            until = self._state.now + RELAY_DIGESTS * self._state.settings.digest_every_s
            link.relays[stream.author] = until

    def relay(self, author: bytes) -> None:
        """Our copy of an author has moved: show what it moved by to those who rely on us."""
        state = self._state
        stream = state.streams.get(author)
        if stream is None or stream.proof is not None:
            return
        for link in state.links.greeted():
            if link.relays.get(author, state.now) <= state.now:
                continue
            shown = max(link.heads.get(author, -1), stream.position - state.settings.ring)
            news = [stream.kept[s] for s in sorted(stream.kept) if shown < s <= stream.position]
            self._send_heads(link.peer, news)
            link.heads[author] = max(shown, stream.position)

    def take_want(self, link: Link, want: Want) -> Judgement:
        """Send the headers asked for, as far as we hold them."""
        kept = dict(self._state.kept(want.author))
        newest = self._state.newest(want.author)
        if newest is not None:
            kept.setdefault(newest.header.seq, newest)
        found = [kept[seq] for seq in sorted(kept) if want.first <= seq <= want.last]
        if not found:
            return ignore("want_missing")
        self._send_heads(link.peer, found[-HEADS_MAX:])
        return accept("want")

    def _strangers(self, peer: bytes, theirs: dict[bytes, Row]) -> list[bytes]:
        """Members to show a peer that does not name them, drawn anew each time.

        Who names fewer than a member has links has just come, and is shown enough to choose from.
        """
        state = self._state
        settings = state.settings
        count = settings.sample if len(theirs) > settings.k else settings.k
        others = [a for a in state.membership if a not in theirs and a != peer]
        return state.random.sample(others, min(count, len(others)))

    def _send_profiles(
        self, peer: bytes, theirs: dict[bytes, Row], named: set[bytes] | None
    ) -> None:
        """Newer profiles than the peer has, of the ``named``; None: of all members."""
        missing: list[tuple[SignedHeader, bytes]] = []
        for author in self._state.membership:
            if named is not None and author not in named:
                continue
            member = self._state.membership.get(author)
            row = theirs.get(author)
            if member and author != peer and member.number >= (row.profile if row else 0):
                missing.append((member.signed, member.payload))
        for frame in members_frames(missing):
            self._answer(peer, frame)

    def _send_missing(self, peer: bytes, author: bytes, row: Row) -> None:
        newest, their_seq = self._state.newest(author), row.head - 1
        if newest is not None and (healing := self._healing(author, row)):
            self._send_heads(peer, (*healing, newest))
            return
        if newest is None or min(newest.header.seq, SEQ_MAX - 1) < their_seq:
            return
        if min(newest.header.seq, SEQ_MAX - 1) == their_seq:
            known = author in self._state.proofs  # then the proof was shown, or there is no need
            if row.mark and row.mark != _mark(newest) and not known:  # a fork, for one of us
                self._send_heads(peer, (newest,))
            return
        if newest.header.seq - max(their_seq, 0) > self._state.settings.ring:
            self._send_heads(peer, (newest,))
            return
        kept = self._state.kept(author)
        between = [kept[seq] for seq in sorted(kept) if their_seq < seq < newest.header.seq]
        self._send_heads(peer, (*between, newest))

    def _healing(self, author: bytes, row: Row) -> list[SignedHeader]:
        """The entry that ended the very fork whose proof the peer holds, if there is one."""
        if not row.mark or row.mark == _mark(self._state.newest(author)):
            return []  # nearly always
        kept = self._state.kept(author).values()
        return [s for s in kept if heals(s) and s.header.cites[:MARK_BYTES] == row.mark]

    def _send_heads(self, peer: bytes, heads: Iterable[SignedHeader]) -> None:
        for frame in heads_frames(heads):
            self._answer(peer, frame)

    def _answer(self, peer: bytes, frame: bytes) -> None:
        link = self._state.links.get(peer)
        if link is not None and link.volume.take(len(frame), self._state.now):
            self._state.emit(Send(peer, SYNC, frame))
        else:
            self._state.tally.add(ignore("answer_too_much"))


def _mark(newest: SignedHeader | None) -> bytes:
    return newest.header.hash[:MARK_BYTES] if newest else b""
