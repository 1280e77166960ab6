"""Which authors have a place, and which of them we follow. Everybody, up to the all-to-all limit.

A place held by somebody we never reached gives way to a connected author. Silent authors expire
with their profile. Judges no header and fetches nothing.
"""

from __future__ import annotations

from tapestry_p2p.gossip.bucket import Bucket
from tapestry_p2p.gossip.effects import Arrived, Unfollow
from tapestry_p2p.gossip.state import State
from tapestry_p2p.gossip.streams import Stream


class Roster:
    """The table of streams."""

    def __init__(self, state: State) -> None:
        self._state = state

    def has_room(self) -> bool:
        """Whether one more author could be taken in."""
        state = self._state
        if len(state.streams) < state.settings.streams_max:
            return True
        return any(self._is_idle(stream) for stream in state.streams.values())

    def open(self, author: bytes) -> Stream:
        """A new stream for an author; ``has_room`` must hold."""
        state = self._state
        if len(state.streams) >= state.settings.streams_max:
            idle = (key for key, stream in state.streams.items() if self._is_idle(stream))
            del state.streams[next(idle)]
        per_minute = state.settings.entries_per_minute_max
        rate = Bucket(per_minute / 60, max(per_minute, 4 * state.settings.ring))
        stream = Stream(author, state.settings, state.now, rate)
        stream.proof = state.proofs.get(author)
        state.streams[author] = stream
        self.consider(stream)
        return stream

    def followed(self) -> tuple[bytes, ...]:
        """Authors whose copies we keep, in the order we began."""
        return tuple(key for key, stream in self._state.streams.items() if stream.followed)

    def consider(self, stream: Stream) -> None:
        """Follow the author if there is a place, or one held by somebody never reached."""
        state = self._state
        if stream.followed or stream.has_left:
            return
        if len(self.followed()) >= state.settings.all_to_all_max - 1:
            if not state.links.is_greeted(stream.author):
                return
            others = (other for other in state.streams.values() if other.followed)
            victim = next((other for other in others if self._is_unreached(other)), None)
            if victim is None:
                return
            self.let_go(victim.author, "place_taken")
        stream.follow()
        state.touched.add(stream.author)
        if stream.newest is not None:
            self.note_arrival(stream, stream.newest.header.seq)

    def let_go(self, author: bytes, reason: str) -> None:
        """Stop following; the newest head stays."""
        stream = self._state.streams.get(author)
        if stream is not None and stream.followed:
            stream.unfollow()
            self._state.emit(Unfollow(author, reason))

    def note_arrival(self, stream: Stream, seq: int) -> None:
        """Tell the shell when a header of a followed author first came."""
        if stream.arrive(seq):
            self._state.emit(Arrived(stream.author, seq, self._state.now))

    def expire(self) -> None:
        """Forget members and streams that have been silent too long and are not connected."""
        state = self._state
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
        state.membership.forget(author, stream.newest_seq if stream else -1)

    def _is_idle(self, stream: Stream) -> bool:
        return not stream.followed and not self._state.links.is_greeted(stream.author)

    def _is_unreached(self, stream: Stream) -> bool:
        return stream.position < 0 and not self._state.links.is_greeted(stream.author)
