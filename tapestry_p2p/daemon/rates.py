"""Keeps what this node sends and receives within the rates of its operator: one pacer each way.

Knows bytes and time; not sockets, streams or peers. Every byte on a socket is charged with what it
costs on the wire, headers of IP and TCP included. The limit is kept by waiting, never by dropping:
answers to fetches wait for their turn before they are sealed, our own requests before they are
sent. Talk (frames of control, pings, headers, requests) goes first and only waits when it alone
is more than the limit, so that a slow link is not taken for a dead one.

The pacer is a token bucket told by one number: the time at which all that was charged is paid for
(the virtual scheduling of ITU-T I.371, the generic cell rate algorithm).
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

SEGMENT_BYTES = 1460  # of data in a TCP segment over Ethernet
SEGMENT_HEADER_BYTES = 40  # of each segment: IPv4 and TCP; time stamps take another 12, not charged
BURST_S = 0.75  # of unused rate is saved: a busy machine catches up, a minute is exceeded by 1.25 %
DEBT_S = 1.5  # talk may run so far ahead of the rate: another 2.5 % of a minute
CONTROL_DEBT_S = 2.0  # frames of control (pongs, windows) a little further: .8 % more
OWED_S = 60.0  # at most: what somebody sends us unasked does not mute us for hours
ASK_SHARE = 0.5  # of the rate is asked for whatever else comes in
BULK_SHARE = 0.8  # of the rate that our own entries may take; the rest is talk and whole copies
TURN_SHARE = 0.5  # of the rate is for turns, however much talk somebody makes us send
QUANTUM_S = 0.1  # of the rate is sent in one turn
QUANTUM_BYTES_MIN = 2_896
LOOK_S = 0.1
TICK_S = 1e-6


def wire_bytes(size: int) -> int:
    """What ``size`` bytes, handed to a socket at once, take on the wire."""
    return size + SEGMENT_HEADER_BYTES * -(-size // SEGMENT_BYTES)


@dataclass
class Pacer:
    """One direction of one node: all its connections together. ``rate``: bytes/s; 0: no limit."""

    rate: float = 0.0
    charged: int = 0  # bytes, headers included
    _paid_at: float = 0.0
    _turn_at: float = 0.0  # when the next turn comes at the latest
    _asked: int = 0  # bytes that we asked for and that did not come yet
    _ask_at: float = 0.0  # when we ask again, even if others send us more than the rate
    _line: "deque[tuple[Hashable, Callable[[], object]]]" = field(default_factory=deque)
    _blocked: set[Hashable] = field(default_factory=set)  # of those in line
    _turn: trio.Lock = field(default_factory=trio.Lock)

    def charge(self, size: int) -> None:
        """``size`` bytes go over a socket now."""
        if not self.rate:
            return
        cost = wire_bytes(size)
        self.charged += cost
        now = trio.current_time()
        owed_until = max(self._paid_at, now - BURST_S) + cost / self.rate
        self._paid_at = min(owed_until, now + OWED_S)

    @property
    def waiting(self) -> int:
        """Connections that would send, or ask, if they might."""
        drawing = self._turn.statistics()
        return len(self._line) + drawing.tasks_waiting + drawing.locked

    # -- sending: whoever has bulk stands in line

    @property
    def quantum(self) -> int:
        """Bytes of one turn."""
        return max(QUANTUM_BYTES_MIN, int(self.rate * QUANTUM_S))

    def line_up(self, who: Hashable, call: Callable[[], object]) -> None:
        """Stand in line, once; ``call`` is called when ``who`` becomes the first."""
        if all(each != who for each, _ in self._line):
            self._line.append((who, call))

    def take_turn(self, who: Hashable) -> None:
        """Send a quantum now; who sends more than it stands in line again."""
        took_s = wire_bytes(self.quantum) / (TURN_SHARE * self.rate)
        self._turn_at = trio.current_time() + took_s
        self.leave(who)

    def leave(self, who: Hashable) -> None:
        """Give up the place in line."""
        if not self._line:
            return
        was_first = self._is_first(who)
        self._line = deque(entry for entry in self._line if entry[0] != who)
        if was_first:
            self._call_first()

    @contextmanager
    def sending(self, who: Hashable) -> Iterator[None]:
        """Within the block ``who`` keeps its place but takes no turn: it may be stuck for long."""
        was_first = self._is_first(who)
        self._blocked.add(who)
        if was_first:
            self._call_first()
        try:
            yield
        finally:
            self._blocked.discard(who)

    def _is_first(self, who: Hashable) -> bool:
        """Whether ``who`` is the first in line of those who could send."""
        return who == next((each for each, _ in self._line if each not in self._blocked), None)

    def _call_first(self) -> None:
        for who, call in self._line:
            if who not in self._blocked:
                call()
                return

    def bulk_wait_s(self, who: Hashable) -> float:
        """Seconds until ``who``, who stands in line, may have its turn; inf if not the first."""
        if not self._is_first(who):
            return float("inf")
        return self._sooner(self._debt_s(0.0), self._turn_at)

    def turns_s(self, size: int) -> float:
        """How long ``size`` bytes of one take when all who wait take turns; 0 without a limit."""
        return wire_bytes(size) * (len(self._line) + 1) / self.rate if self.rate else 0.0

    def share_s(self, size: int, times: int) -> float:
        """How long ``size`` bytes for each of so many peers keep the most of the rate busy."""
        return times * wire_bytes(size) / (BULK_SHARE * self.rate) if self.rate else 0.0

    def talk_wait_s(self) -> float:
        """Seconds until talk may be sent; nearly always 0."""
        return self._debt_s(DEBT_S) if self.rate else 0.0

    def control_wait_s(self) -> float:
        """Seconds until frames of control may be sent; 0 but for a flood of what asks for them."""
        return self._debt_s(CONTROL_DEBT_S) if self.rate else 0.0

    def _debt_s(self, allowed_s: float) -> float:
        """How long until no more than so much is owed; less than a clock can tell is nothing."""
        debt = self._paid_at - allowed_s - trio.current_time()
        return debt if debt > TICK_S else 0.0

    # -- receiving: who asks for bulk waits before it asks

    @asynccontextmanager
    async def asking_for(self, size: int) -> AsyncIterator[None]:
        """Wait until ``size`` bytes may be asked for; within the block they are on their way."""
        async with self._turn:
            while self.rate and (wait := self._ask_wait_s()):
                await trio.sleep(min(wait, LOOK_S))
            self._asked += size
            if self.rate:
                took_s = wire_bytes(size) / (ASK_SHARE * self.rate)
                self._ask_at = trio.current_time() + took_s
        try:
            yield
        finally:
            self._asked -= size

    def _ask_wait_s(self) -> float:
        """Who sends us unasked what fills the rate must not keep us from asking."""
        owed_s = self._debt_s(-self._asked / self.rate)
        return self._sooner(owed_s, self._ask_at)

    def _sooner(self, wait_s: float, at: float) -> float:
        """So long, or until then if that is sooner."""
        wait = min(wait_s, at - trio.current_time())
        return wait if wait > TICK_S else 0.0


@dataclass(slots=True)
class Traffic:
    """Bytes on the sockets; of the sent ones, what the node says were entries and chunks of
    streams, and what were whole copies (frames and their leaves)."""

    sent: int = 0
    received: int = 0
    useful_sent: int = 0
    keyframe_sent: int = 0


@dataclass
class Paces:
    """Both directions."""

    upload: Pacer = field(default_factory=Pacer)
    download: Pacer = field(default_factory=Pacer)
