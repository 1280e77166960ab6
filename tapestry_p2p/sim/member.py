"""A simulated member: the production Protocol in the smallest honest shell, and a disk that fails.

Persists before it publishes, asks before it speaks, resumes when its disk went back in time. What
it does in its rounds is its trade's business (rounds.py, villains.py). Crashes where it is told to,
also between two effects.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any
from typing import Protocol as Interface

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import (
    ADOPT,
    DIFFERENCE,
    GENESIS,
    LEAVE,
    PROFILE,
    RESUME,
    decode_signed,
)
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.mix.codec import CodecError
from tapestry_p2p.sim.disk import Disk
from tapestry_p2p.sim.fetching import Fetching
from tapestry_p2p.sim.joining import LOOK_S, Joining
from tapestry_p2p.sim.serving import Serving
from tapestry_p2p.sim.stage import Person, Stage
from tapestry_p2p.sim.vault import Point

ASK_S, ASK_DEADLINE_S = 2.0, 10.0  # how often a restarted member looks for news of itself; how long
TELL_S, POLL_S = 6.0, 0.1  # how long a goodbye is told; between two looks at who holds it
SAVE_EVERY = 5  # entries applied to a copy between two writes of it
SYNC_TICKS = 20  # between two syncs: 5 s
Order = ef.Fetch | ef.FetchKeyframe


class Crashed(Exception):  # noqa: N818 - an event of the simulation, not a failure
    """The process died in the middle of an event."""


class Trade(Interface):
    """What a member does in its rounds, for one life of its process."""

    def begin(self) -> None:
        """The process has started."""
        ...

    def arrived(self, author: bytes, seq: int) -> None:
        """A header came for the first time."""
        ...

    def moved(self, author: bytes, seq: int) -> None:
        """The copy of an author stands at a new entry."""
        ...

    def forget(self, author: bytes) -> None:
        """The author is no neighbour any more."""
        ...

    def adopt(self) -> None:
        """Our copy starts elsewhere than at the first vector."""
        ...

    def outgoing(self, send: ef.Send) -> bytes:
        """The frame that is really sent; an honest trade changes nothing."""
        ...


class Held:
    """A followed author's public copy and where it stands."""

    __slots__ = ("point", "seq", "unsaved")

    def __init__(self, point: Point, seq: int) -> None:
        self.point, self.seq, self.unsaved = point, seq, 0


class Member:
    """One process and its disk. ``protocol`` is None while it is down."""

    def __init__(self, stage: Stage, person: Person, trade: Callable[[Member], Trade]) -> None:
        self.stage = stage
        self.settings = stage.settings  # whom there is to meet differs from member to member
        self.person, self.key, self.name = person, person.key, person.name
        self.disk = Disk(stage.genesis)
        self.protocol: Protocol | None = None
        self.own = stage.genesis
        self.x = stage.genesis.vector  # float32[d]; its trade moves it
        self.rounds = 0
        self.crash_in: int | None = None  # effects until a crash
        self.life = 0
        self.dropped: Counter[tuple[bytes, str]] = Counter()  # (peer, reason)
        self.hushed = False  # trains and publishes no more
        self.joins_late = False  # others may have trained: it may begin where they are
        self._make_trade = trade
        self._performers: dict[type, Callable[[Any], None]] = {
            ef.Send: self._send,
            ef.Persist: self._persist,
            ef.Arrived: self._arrived,
            ef.Fetch: self._begin_fetch,
            ef.FetchKeyframe: self._begin_keyframe,
            ef.Advanced: self._advance,
            ef.Unfollow: self._unfollow,
            ef.Dial: self._dial,
            ef.Drop: self._drop,
            ef.OwnHead: self._shown_own_head,
            ef.CloneSeen: self._clone_seen,
            ef.Forked: self._forked,
            ef.Left: self._left,
            ef.ProfileDue: lambda _: self.later(0.0, self.publish_profile),
        }

    def note(self, what: str, *details: str | int) -> None:
        """Count what happened here."""
        self.stage.world.note(what, self.name, *details)

    # -- life and death

    def is_up(self) -> bool:
        """Whether the process runs."""
        return self.protocol is not None

    def start(self) -> None:
        """Start, or start again from the disk."""
        if self.is_up():
            return
        self.life += 1
        self.note("started" if self.life == 1 else "restarted", self.life)
        disk, stage = self.disk, self.stage
        self.own = disk.own_copy(stage.vault)
        self.x = self.own.vector  # what the coding lost of x is lost with it, and heals
        self.copies = {a: Held(point, s.header.seq) for a, (s, point) in disk.copies.items()}
        self.serving = Serving(self._standing)
        self.fetching = Fetching(self)
        self.joining = Joining(self)
        for payload in disk.payloads.values():
            self.keep(payload)
        self.protocol = Protocol(
            self.settings, self.key, self.person.sign,
            Random(stage.world.random.getrandbits(64)), disk.knowledge(self.person.verify),
            at=stage.world.now, mute=bool(disk.entries) or disk.rolled_back,
            verify=self.person.verify, parse=stage.parse,
        )  # fmt: skip
        self._payload = b""
        self._events: deque[ev.Event] = deque()  # the first one is being taken in
        self._asked_since = stage.world.now
        self.trade = self._make_trade(self)
        self.later(stage.tick_s * stage.world.random.random(), self._tick)
        self.later(ASK_S if self.protocol.mute else 0.0, self._speak)
        self.later(SYNC_TICKS * self.stage.tick_s, self._sync)
        self.trade.begin()

    def crash(self) -> None:
        """The process is killed; what it wrote is still on its way to the disk."""
        if self.is_up():
            self.note("crashed")
            self.disk.sync()
            self._die()

    def cut_power(self) -> None:
        """The machine dies, and with it what was not synced."""
        if self.is_up():
            self.note("power_cut")
            for _ in range(self.disk.cut_power(self.stage.world.random)):
                self.note("torn_write")
            self._die()

    def leave(self) -> None:
        """Say goodbye and end at once: who hears it is luck."""
        if self.may_publish(LEAVE):
            self.publish(ev.Publish(LEAVE, self.stage.world.now))
            self.note("left")
        if self.is_up():
            self.disk.sync()
            self._die()

    def say_goodbye(self) -> None:
        """Sign it, and end when everybody here holds it, or after a while; as the daemon does."""
        if self.may_publish(LEAVE):
            self.publish(ev.Publish(LEAVE, self.stage.world.now))
            self.note("left")
            self.later(POLL_S, self._end_when_told, self.stage.world.now + TELL_S)

    def _end_when_told(self, deadline: float) -> None:
        assert self.protocol is not None
        waiting = set(self.protocol.greeted()) - set(self.protocol.told())
        if waiting and self.stage.world.now < deadline:
            self.later(POLL_S, self._end_when_told, deadline)
            return
        self.disk.sync()
        self._die()

    def _die(self) -> None:
        self.protocol, self.crash_in = None, None
        self.fetching.jobs.clear()
        self.stage.network.killed(self.key)

    def later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do something later, in this life only."""
        self.stage.world.after(seconds, self._act, self.life, action, arguments)

    def _act(self, life: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.life == life and self.protocol is not None:
            action(*arguments)

    def _tick(self) -> None:
        self.fetching.tick()
        self.receive(ev.Tick(self.stage.world.now))
        self.later(self.stage.tick_s, self._tick)

    def _sync(self) -> None:
        """Now and then what was written becomes durable, and the newest knowledge is written."""
        assert self.protocol is not None
        self.disk.sync()
        self.disk.write_known(self.protocol.snapshot())
        self.later(SYNC_TICKS * self.stage.tick_s, self._sync)

    # -- events and effects

    def receive(self, event: ev.Event) -> None:
        """Step the protocol and do what it says, in order; what comes up meanwhile waits."""
        if self.protocol is None:
            return
        self._events.append(event)
        if len(self._events) > 1:
            return
        try:
            while self._events and self.protocol is not None:
                for effect in self.protocol.step(self._events[0]):
                    if self.crash_in is not None:
                        self._count_down()
                    self._performers[type(effect)](effect)
                self._events.popleft()
        except Crashed:
            self.crash()

    def _count_down(self) -> None:
        assert self.crash_in is not None
        self.crash_in -= 1
        if self.crash_in < 0:
            self.note("crashed_between_effects")
            raise Crashed

    def _send(self, effect: ef.Send) -> None:
        data = self.trade.outgoing(effect)
        if data.endswith(b"want"):  # the last key of a request for headers is its type
            self.note("gap_asked", self.stage.names[effect.peer])
        self.stage.network.send(self.key, effect.peer, effect.channel, data)

    def _persist(self, effect: ef.Persist) -> None:
        if effect.record == "own":
            self.note("published", effect.seq)
            self.disk.append(decode_signed(effect.data), self._payload)
            return
        assert self.protocol is not None
        self.disk.write_known(self.protocol.snapshot())
        self.disk.sync()

    def _arrived(self, effect: ef.Arrived) -> None:
        self.trade.arrived(effect.author, effect.seq)

    def _advance(self, effect: ef.Advanced) -> None:
        self.copies[effect.author].seq = effect.signed_header.header.seq

    def _unfollow(self, effect: ef.Unfollow) -> None:
        self.note("unfollowed", self.stage.names[effect.author], effect.reason)
        self.copies.pop(effect.author, None)
        self.disk.drop_copy(effect.author)
        self.trade.forget(effect.author)

    def _dial(self, effect: ef.Dial) -> None:
        self.stage.network.dial(self.key, effect.peer)

    def _drop(self, effect: ef.Drop) -> None:
        self.note("dropped", self.stage.names[effect.peer], effect.reason)
        self.dropped[effect.peer, effect.reason] += 1
        self.stage.network.close(self.key, effect.peer)

    def _shown_own_head(self, effect: ef.OwnHead) -> None:
        self.note("shown_own_head", effect.signed_header.header.seq)
        self._asked_since = self.stage.world.now
        self.later(ASK_S, self._speak)

    def _clone_seen(self, effect: ef.CloneSeen) -> None:
        self.note("clone_seen")

    def _forked(self, effect: ef.Forked) -> None:
        self.note("fork_proof", self.stage.names[effect.author])

    def _left(self, effect: ef.Left) -> None:
        self.note("goodbye", self.stage.names[effect.author])

    # -- fetching

    def _begin_keyframe(self, order: ef.FetchKeyframe) -> None:
        self.note("keyframe_asked", self.stage.names[order.author])
        self.fetching.start(order)

    def _begin_fetch(self, order: ef.Fetch) -> None:
        header, held = order.signed_header.header, self.copies.get(order.author)
        now = self.stage.world.now
        if held is not None and held.seq == header.seq:
            self.receive(ev.Applied(order.author, header.seq, held.point.root, now))
        elif header.kind == GENESIS:
            self.stand_at(order, self.stage.genesis)
        elif header.kind == ADOPT:
            self.fetching.start(order)
        elif held is None or held.seq != header.seq - 1:
            self.receive(ev.ApplyFailed(order.author, header.seq, "root", now))
        else:
            self.fetching.start(order)

    def fetched(self, order: Order, pieces: list[bytes]) -> None:
        """All chunks or frames are here and their hashes are right."""
        header, held = order.signed_header.header, self.copies.get(order.author)
        vault, data = self.stage.vault, b"".join(pieces)
        if header.kind == ADOPT and isinstance(order, ef.Fetch):
            self.serving.keep(pieces, header.chunks)
            self.joining.follow(order, data)
            return
        try:
            if isinstance(order, ef.FetchKeyframe):
                point = vault.whole(data, self.stage.d)
            elif held is None or held.seq != header.seq - 1:
                self.fetch_failed(order, "missing")
                return
            else:
                point = vault.after(held.point, header.codec, data)
                self.serving.keep(pieces, header.chunks)
        except CodecError:
            self.fetch_failed(order, "content")
            return
        self.stand_at(order, point)

    def stand_at(self, order: Order, point: Point) -> None:
        """The author's copy stands at the entry that was ordered, if its root says so."""
        header, author = order.signed_header.header, order.author
        if header.root and point.root != header.root:
            self.copies.pop(author, None)
            self.fetch_failed(order, "root")
            return
        held = self.copies.get(author)
        if held is None:
            held = self.copies[author] = Held(point, header.seq)
        held.point, held.seq = point, header.seq
        held.unsaved += 1
        whole = isinstance(order, ef.FetchKeyframe)
        if held.unsaved >= SAVE_EVERY or whole:
            held.unsaved = 0
            self.disk.write_copy(order.signed_header, point)
        self.note("keyframe" if whole else "applied", self.stage.names[author], header.seq)
        self.trade.moved(author, header.seq)
        self.receive(ev.Applied(author, header.seq, point.root, self.stage.world.now))

    def fetch_failed(self, order: Order, reason: str) -> None:
        """A job came to nothing."""
        self.note(f"fetch_{reason}", self.stage.names[order.author])
        seq = order.signed_header.header.seq
        self.receive(ev.ApplyFailed(order.author, seq, reason, self.stage.world.now))

    def keep(self, payload: bytes) -> tuple[bytes, ...]:
        """Have a payload of ours at hand for others; the names of its chunks."""
        size = self.settings.chunk_bytes_max
        chunks = [payload[place : place + size] for place in range(0, len(payload), size)]
        names = tuple(map(chunk_hash, chunks))
        self.serving.keep(chunks, names)
        return names

    def answer(self, request: bytes) -> tuple[bytes, bytes]:
        """Response and body of a peer's fetch."""
        return self.serving.answer(request)

    def _standing(self, author: bytes, seq: int) -> Point | None:
        """The copy of an author, if it stands at ``seq``; our own wherever it stands."""
        if author == self.key:
            return self.own
        held = self.copies.get(author)
        return held.point if held and held.seq == seq else None

    # -- our own stream

    def may_publish(self, kind: str) -> bool:
        """Whether an entry of ours may be signed now."""
        protocol = self.protocol
        if protocol is None or protocol.mute:
            return False
        if kind in (GENESIS, RESUME):
            return True
        return not protocol.must_resume and protocol.own_highest is not None

    def _speak(self) -> None:
        """Ask before speaking; resume where others know more, or the disk went back in time."""
        protocol, disk = self.protocol, self.disk
        if protocol is None or protocol.stopped:
            return
        if protocol.mute and not protocol.greeted() and self._must_ask():
            self.later(ASK_S, self._speak)
            return
        if protocol.mute:
            self.receive(ev.Unmute(self.stage.world.now))
        while self.may_publish(RESUME) and protocol.own_highest is not None:
            if not protocol.must_resume and not disk.rolled_back:
                break
            disk.rolled_back = False
            self.note("resumed")
            self.publish(ev.Publish(RESUME, self.stage.world.now, root=self.own.root))
        if self.may_publish(GENESIS) and protocol.own_highest is None:
            if self.joining.is_looking():
                self.later(LOOK_S, self._speak)
                return
            disk.rolled_back = False
            self._begin_stream()

    def _begin_stream(self) -> None:
        start, now = self.joining.start, self.stage.world.now
        if start is None:
            self.publish(ev.Publish(GENESIS, now, root=self.own.root))
        else:
            self.own, self.x = start, start.vector
            self.trade.adopt()
            self.keep(self.joining.payload)
            event = ev.Publish(ADOPT, now, root=start.root, payload=self.joining.payload)
            self.publish(event)
            self.disk.save_own(start)
            self.note("adopted")
        self.publish_profile()

    def _must_ask(self) -> bool:
        """Whether nobody has answered yet who must be heard before we speak."""
        if not self.settings.bootstrap:
            return False
        waited = self.stage.world.now - self._asked_since
        return self.disk.rolled_back or waited < ASK_DEADLINE_S

    def publish(self, event: ev.Publish, payload: bytes = b"") -> None:
        """Sign, store and announce an entry."""
        self._payload = payload
        self.receive(event)

    def publish_profile(self) -> None:
        """Say who we are, if we may."""
        if self.may_publish(PROFILE):
            data = encode_profile(Profile(self.name, (), (f"/dns4/{self.name}/tcp/1",)))
            now, root = self.stage.world.now, self.own.root
            self.publish(ev.Publish(PROFILE, now, payload=data, root=root, round=self.rounds))

    def publish_difference(self, payload: bytes, root: bytes) -> bool:
        """Publish a coded difference that leads our copy to ``root``; False if we died of it."""
        self.rounds += 1
        codec = self.stage.loom.codec
        event = ev.Publish(
            DIFFERENCE, self.stage.world.now, codec=codec, chunks=self.keep(payload),
            payload_bytes=self.settings.codecs[codec], root=root, round=self.rounds,
        )  # fmt: skip
        self.publish(event, payload)
        return self.is_up()

    def stand(self, point: Point) -> None:
        """Our own copy now stands there."""
        self.own = point
        if self.rounds % self.settings.ring == 0:
            self.disk.save_own(point)
