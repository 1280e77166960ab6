"""Many production protocols in virtual time, without vectors: who links with whom, and how long.

Frames take a moment and arrive; a fetch succeeds if one of its sources is connected. Signatures
are hashes, since nobody here forges any.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any

from gossip_kit import PAYLOAD, key, make_settings, root_of

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol

TICK_S = 0.5
DELAY_S = 0.05


def mark(author: bytes, message: bytes) -> bytes:
    """A stand-in for a signature."""
    return sha256(author + message).digest() * 2


class One:
    """A member: its protocol while it is up, and what it kept."""

    def __init__(self, crowd: "Crowd", n: int, address: str) -> None:
        self.crowd, self.n, self.address = crowd, n, address
        self.key = key(n).public_key
        self.protocol: Protocol | None = None
        self.entries = 0
        self.stored = b""
        self.copies: dict[bytes, int] = {}
        self.life = 0
        self.unfollowed: Counter[str] = Counter()
        self.fewest = 0  # neighbours at once, since the last look

    @property
    def links(self) -> set[bytes]:
        """Those that it follows."""
        return set(self.protocol.followed()) if self.protocol else set()

    def start(self) -> None:
        self.life += 1
        known = decode_known(self.stored) if self.stored else None
        self.protocol = Protocol(
            self.crowd.settings, self.key, lambda message: mark(self.key, message),
            Random(1000 * self.n + self.life), known, at=self.crowd.now,
            verify=lambda author, signature, message: signature == mark(author, message),
        )  # fmt: skip
        if not self.entries:
            self.publish("genesis")
        self.publish("profile")
        self._later(TICK_S * self.crowd.random.random(), self._tick)
        self._later(self.crowd.round_s * self.crowd.random.random(), self._round)

    def crash(self, keep: bool = True) -> None:
        assert self.protocol is not None
        self.stored = self.protocol.snapshot().encode() if keep else b""
        self.protocol = None
        for pair in [pair for pair in self.crowd.open if self.key in pair]:
            self.crowd.cut(pair)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        life = self.life
        self.crowd.after(seconds, lambda: action() if life == self.life and self.protocol else None)

    def publish(self, kind: str) -> None:
        seq, now = self.entries, self.crowd.now
        root = self.crowd.settings.genesis_root if seq == 0 else root_of(1000 * self.n + seq)
        fields: dict[str, Any] = {"root": root}
        if kind == "profile":
            fields = {"payload": encode_profile(Profile(f"m{self.n}", (), (self.address,)))}
        elif kind == "difference":
            chunk = (root[:16] * 2,)
            fields |= {"codec": "2bit", "chunks": chunk, "payload_bytes": PAYLOAD}
        self.step(ev.Publish(kind, now, **fields))
        self.entries += 1

    def _tick(self) -> None:
        self.step(ev.Tick(self.crowd.now))
        self.fewest = min(self.fewest, len(self.links))
        self._later(TICK_S, self._tick)

    def _round(self) -> None:
        self.publish("difference")
        self._later(self.crowd.round_s, self._round)

    def step(self, event: ev.Event) -> None:
        if self.protocol is not None:
            for effect in self.protocol.step(event):
                self._perform(effect)

    def _perform(self, effect: ef.Effect) -> None:
        crowd = self.crowd
        match effect:
            case ef.Send(peer, channel, data):
                crowd.send(self.key, peer, channel, data)
            case ef.Fetch() | ef.FetchKeyframe():
                self._later(DELAY_S, lambda: self._fetched(effect))
            case ef.Unfollow(author, reason):
                self.unfollowed[reason] += 1
                self.copies.pop(author, None)
            case ef.Dial(peer):
                crowd.after(2 * DELAY_S, lambda: crowd.connect(self.key, peer))
            case ef.Drop(peer, reason):
                crowd.drops[reason] += 1
                crowd.cut(frozenset((self.key, peer)))
            case ef.ProfileDue():
                self._later(0.0, lambda: self.publish("profile"))

    def _fetched(self, effect: ef.Fetch | ef.FetchKeyframe) -> None:
        author, header = effect.author, effect.signed_header.header
        free = header.kind == "genesis"
        if free or any(frozenset((self.key, s)) in self.crowd.open for s in effect.sources):
            self.crowd.fetches[type(effect).__name__] += 1
            self.copies[author] = header.seq
            self.step(ev.Applied(author, header.seq, header.root, self.crowd.now))
        else:
            self.step(ev.ApplyFailed(author, header.seq, "missing", self.crowd.now))


class Crowd:
    """Members 1 .. count; all know the first one's address."""

    def __init__(
        self,
        count: int,
        seed: int = 0,
        round_s: float = 10.0,
        address: Callable[[int], str] = lambda n: f"/ip4/10.0.0.{n}/tcp/1",
        **settings: Any,
    ) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.round_s = round_s
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.open: dict[frozenset[bytes], int] = {}
        self._epoch = 0
        self.drops: Counter[str] = Counter()
        self.fetches: Counter[str] = Counter()
        self._apart: set[bytes] = set()
        bootstrap = ((key(1).public_key, (address(1),)),)
        self.settings = make_settings(bootstrap=bootstrap, **settings)
        self.members = [One(self, n, address(n)) for n in range(1, count + 1)]
        self.by_key = {one.key: one for one in self.members}

    def add(self, n: int, address: str) -> One:
        """One more member, not yet started."""
        one = One(self, n, address)
        self.members.append(one)
        self.by_key[one.key] = one
        return one

    def start(self, spread_s: float = 5.0) -> None:
        """Everybody starts, within ``spread_s``."""
        for one in self.members:
            self.after(spread_s * self.random.random(), one.start)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + seconds, self._order, action))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def connect(self, one: bytes, other: bytes) -> None:
        source, target = self.by_key[one], self.by_key[other]
        if target.protocol is None or self._apart & {one, other}:
            source.step(ev.DialFailed(other, self.now))
            return
        self._epoch += 1
        self.open.setdefault(frozenset((one, other)), self._epoch)
        source.step(ev.Connected(other, self.now))
        target.step(ev.Connected(one, self.now))

    def isolate(self, one: One) -> None:
        """Nothing reaches it, and it reaches nobody."""
        self._apart.add(one.key)
        for pair in [pair for pair in self.open if one.key in pair]:
            self.cut(pair)

    def unite(self) -> None:
        """One network again."""
        self._apart.clear()

    def cut(self, pair: frozenset[bytes]) -> None:
        if self.open.pop(pair, None) is not None:
            one, other = pair
            for end, peer in ((one, other), (other, one)):
                event = ev.Disconnected(peer, self.now)
                self.after(0.0, lambda end=end, event=event: self.by_key[end].step(event))  # type: ignore[misc]

    def send(self, source: bytes, target: bytes, channel: str, data: bytes) -> None:
        pair = frozenset((source, target))
        epoch = self.open.get(pair)

        def arrive() -> None:
            if self.open.get(pair) == epoch:
                self.by_key[target].step(ev.Message(source, channel, data, self.now))

        if epoch is not None:
            self.after(DELAY_S, arrive)

    # -- looking from outside

    def up(self) -> list[One]:
        return [one for one in self.members if one.protocol]

    def one_sided(self) -> list[tuple[int, int]]:
        """Pairs of whom only the first follows the second."""
        up = {one.key: one for one in self.up()}
        return [
            (one.n, up[peer].n)
            for one in up.values()
            for peer in one.links
            if peer in up and one.key not in up[peer].links
        ]

    def degrees(self) -> list[int]:
        return sorted(len(one.links) for one in self.up())

    def reached(self) -> int:
        """How many members can be reached over links from the first that is up."""
        up = self.up()
        seen, todo = {up[0].key}, deque([up[0]])
        while todo:
            for peer in todo.popleft().links - seen:
                seen.add(peer)
                todo.append(self.by_key[peer])
        return len(seen)

    def blamed(self) -> int:
        return sum(
            sum(one.protocol.statistics()["reject"].values()) for one in self.up() if one.protocol
        )
