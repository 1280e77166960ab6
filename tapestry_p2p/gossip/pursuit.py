"""Bring every copy to its author's head: one job per stream, whom to ask, what came of it.

The stream decides what it needs (streams.py); here it becomes an order with sources. Whoever
claims to hold something is only asked first; every byte is checked by hash in the end.
"""

from __future__ import annotations

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.effects import Advanced, Fetch, FetchKeyframe, Send
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.messages import SYNC, Want, encode_sync
from tapestry_p2p.gossip.state import State
from tapestry_p2p.gossip.streams import Do, Plan, Stream
from tapestry_p2p.gossip.verdict import ignore

SOURCES_MAX = 8


class Pursuit:
    """Fetch orders for all streams."""

    def __init__(self, state: State) -> None:
        self._state = state

    def pursue(self, author: bytes) -> None:
        """Ask for missing headers, then do what the copy needs until it waits for somebody."""
        stream = self._state.streams.get(author)
        if stream is None or not stream.followed or stream.is_settled:
            return
        self._ask_headers(stream)
        plan = stream.plan(self._state.now)
        while plan.do is Do.ADVANCE:
            stream.advance(plan.headers[0])
            self._state.emit(Advanced(author, plan.headers[0]))
            plan = stream.plan(self._state.now)
        if plan.do is not Do.NOTHING:
            self._order(stream, plan)

    def _order(self, stream: Stream, plan: Plan) -> None:
        whole = plan.do is Do.KEYFRAME
        signed = self._choose(stream, plan.headers) if whole else plan.headers[0]
        header = signed.header
        sources = self._sources(stream, header.seq)
        if not sources and (whole or header.chunks):
            stream.lacks_sources(signed, whole)
            self._ask_headers(stream)
            return
        if header.seq - stream.head_seq > self._state.settings.ring:
            self._ask_milestone(stream, sources)
        stream.start(signed, whole, self._state.now)
        order = FetchKeyframe if whole else Fetch
        self._state.emit(order(stream.author, signed, sources))
        if whole:
            self._ask_headers(stream)

    def _choose(self, stream: Stream, headers: tuple[SignedHeader, ...]) -> SignedHeader:
        """The newest header, unless only an older copy is within reach.

        A holder can serve its copy only where it stands. The author stands at its head; where it
        is away, or has failed us, look for a header at which somebody else's copy stands.
        """
        newest = headers[0]
        away = not self._state.links.is_greeted(stream.author)
        if away or stream.fails % 2:
            links = self._state.links.greeted()
            stands = {link.copies.get(stream.author, -1) for link in links}
            served = (signed for signed in headers if signed.header.seq in stands)
            return next(served, newest)
        return newest

    def _ask_headers(self, stream: Stream) -> None:
        gap = stream.gap(self._state.now)
        holders = self._holders(stream.author, gap[1]) if gap else []
        if gap is None or not holders:
            return
        peer = holders[stream.wants % len(holders)]
        stream.wanted(self._state.now)
        self._state.emit(Send(peer, SYNC, encode_sync(Want(stream.author, *gap))))

    def _ask_milestone(self, stream: Stream, sources: tuple[bytes, ...]) -> None:
        """Before a jump: if the new branch left ours earlier, an old header proves it."""
        seq = stream.milestone
        if seq > 0:
            want = Want(stream.author, seq, seq)
            self._state.emit(Send(sources[-1], SYNC, encode_sync(want)))

    def _holders(self, author: bytes, seq: int) -> list[bytes]:
        """Greeted peers that should hold the headers up to ``seq``; the author first."""
        peers = (link for link in self._state.links.greeted() if link.peer != author)
        rest = sorted(link.peer for link in peers if link.heads.get(author, -1) >= seq)
        return ([author] if self._state.links.is_greeted(author) else []) + rest

    def _sources(self, stream: Stream, seq: int) -> tuple[bytes, ...]:
        """Greeted peers that should hold what belongs to ``seq``; the author first."""
        author, links = stream.author, self._state.links
        rest: list[bytes] = []
        if seq <= stream.claimed:
            rest = [link.peer for link in links.greeted() if link.copies.get(author, -1) >= seq]
            rest = [peer for peer in rest if peer != author]
            self._state.random.shuffle(rest)
        first = [author] if links.is_greeted(author) else []
        return tuple((first + rest)[:SOURCES_MAX])

    def applied(self, event: ev.Applied) -> None:
        """The shell built a copy; if its root is not what the author signed, it is spoilt."""
        state = self._state
        stream = state.streams.get(event.author)
        if stream is None or not stream.followed:
            return
        state.touched.add(event.author)
        job = stream.job.signed if stream.job and stream.job.seq == event.seq else None
        signed = job or stream.kept.get(event.seq)
        stated = signed.header.root if signed else b""
        if event.root and stated and event.root != stated:
            self._fail(stream, "root")
        elif not stream.applied(event.seq, event.root):
            state.tally.add(ignore("applied_unasked"))

    def failed(self, event: ev.ApplyFailed) -> None:
        """The shell gave up a job. A spoilt copy counts whichever job spoilt it."""
        stream = self._state.streams.get(event.author)
        if stream is None or not stream.followed:
            return
        if event.reason == "missing":
            self._withdraw(event.author, event.seq)
        current = stream.job is not None and stream.job.seq == event.seq
        if current or event.reason in ("root", "content"):
            self._fail(stream, event.reason)
            self._state.touched.add(event.author)

    def _withdraw(self, author: bytes, seq: int) -> None:
        """Nobody asked has the entry: who showed its header does not keep it yet."""
        for link in self._state.links.greeted():
            link.withdraw(author, seq)

    def give_up_late_jobs(self) -> None:
        """A job the shell never answered counts as failed."""
        state = self._state
        for stream in state.streams.values():
            job = stream.job
            if job is not None and state.now - job.since > state.settings.fetch_timeout_s:
                self._fail(stream, "timeout")

    def _fail(self, stream: Stream, reason: str) -> None:
        self._state.tally.add(ignore(f"fetch_{reason}"))
        stream.failed(reason, self._state.now, self._state.random.random())
