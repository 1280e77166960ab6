"""A simulated member: the production Protocol and Loom in the smallest honest shell.

Persists before it publishes, asks before it speaks, resumes when its disk went back in time,
trains on while it mixes. Crashes where it is told to, also between two effects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import DIFFERENCE, GENESIS, PROFILE, RESUME, decode_signed
from tapestry_p2p.gossip.merkle import chunk_hash, merkle_root
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.codec import CodecError
from tapestry_p2p.mix.copy import PublicCopy, vector_of
from tapestry_p2p.mix.loom import Difference, Loom, LoomSettings
from tapestry_p2p.sim.attacks import Attack
from tapestry_p2p.sim.disk import NORM_MAX, Disk
from tapestry_p2p.sim.fetching import Fetching
from tapestry_p2p.sim.network import Network
from tapestry_p2p.sim.quadratic import Quadratic
from tapestry_p2p.sim.serving import Serving
from tapestry_p2p.sim.world import World

Vector = NDArray[np.float32]
TICK_S = 0.25
ASK_S = 2.0  # a restarted member waits so long for somebody to show it its own head
SAVE_EVERY = 5  # entries applied to a copy between two saves of it
GRACE = 0.1  # share of a round between publishing and mixing: neighbours' news may arrive


class Crashed(Exception):  # noqa: N818 - an event of the simulation, not a failure
    """The process died in the middle of an event."""


@dataclass(frozen=True)
class Person:
    """Who a member is and how it signs."""

    name: str
    key: bytes
    sign: Callable[[bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]


@dataclass(frozen=True)
class Work:
    """What a member does: its task or its attack, and its pace."""

    task: Quadratic
    round_s: float
    attack: Attack | None = None


class Copy:
    """A followed author's public copy and where it stands."""

    def __init__(self, vector: Vector, seq: int) -> None:
        self.public = PublicCopy(vector)
        self.seq = seq
        self.unsaved = 0

    def root(self) -> bytes:
        """Its Merkle root."""
        return merkle_root(self.public.leaves())


class Member:
    """One process and its disk. ``protocol`` is None while it is down."""

    def __init__(
        self,
        world: World,
        network: Network,
        settings: Settings,
        loom_settings: LoomSettings,
        genesis: Vector,
        person: Person,
        work: Work,
    ) -> None:
        self.world, self.network = world, network
        self.settings, self.loom_settings = settings, loom_settings
        self.genesis = genesis
        self.person, self.key = person, person.key
        self.work = work
        self.chunk_bytes = settings.chunk_bytes_max
        self.disk = Disk()
        self.protocol: Protocol | None = None
        self.x: Vector = genesis
        self.rounds = 0
        self.crash_in: int | None = None  # effects until a crash
        self.life = 0
        self.hushed = False  # trains and publishes no more
        network.join(self)

    # -- life and death

    def is_up(self) -> bool:
        """Whether the process runs."""
        return self.protocol is not None

    def start(self) -> None:
        """Start, or start again from the disk."""
        if self.is_up():
            return
        self.life += 1
        disk, world = self.disk, self.world
        world.note("started", self.person.name, self.life)
        own = disk.own_copy(self.genesis)
        self.x = own.vector.copy()  # what the coding lost of x is lost with it, and heals
        self.loom: Loom[bytes] = Loom(self.loom_settings, self.x, own)
        self.copies = {a: Copy(v, s.header.seq) for a, (s, v) in disk.copies.items()}
        self.serving = Serving(self._standing, self.chunk_bytes)
        self.fetching = Fetching(self)
        for author, copy in self.copies.items():
            self.loom.decoded(author, copy.seq)
        for _, payload in disk.entries[-self.settings.ring :]:
            self.serving.keep(payload)
        self.protocol = Protocol(
            self.settings, self.key, self.person.sign, Random(world.random.getrandbits(64)),
            disk.knowledge(), at=world.now, mute=bool(disk.entries) or disk.rolled_back,
            verify=self.person.verify,
        )  # fmt: skip
        self._payload = b""
        self._alive(TICK_S * world.random.random(), self._tick)
        self._alive(self.work.round_s * world.random.random(), self._round)
        self._alive(ASK_S, self._speak)

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        if self.is_up():
            self.world.note("crashed", self.person.name)
            self.protocol, self.crash_in = None, None
            self.network.killed(self.key)

    def _alive(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later, in this life only."""
        life = self.life

        def act() -> None:
            if self.life == life and self.is_up():
                action()

        self.world.after(seconds, act)

    # -- events and effects

    def receive(self, event: ev.Event) -> None:
        """Step the protocol and do what it says, in order."""
        if self.protocol is None:
            return
        try:
            for effect in self.protocol.step(event):
                self._count_down()
                self._perform(effect)
        except Crashed:
            self.crash()

    def _count_down(self) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.world.note("crashed_between_effects")
                raise Crashed

    def _perform(self, effect: ef.Effect) -> None:
        assert self.protocol is not None
        self.world.note(type(effect).__name__, self.person.name)
        match effect:
            case ef.Send(peer, channel, data):
                self.network.send(self.key, peer, channel, data)
            case ef.Persist("own", _, data, _):
                self.disk.entries.append((decode_signed(data), self._payload))
            case ef.Persist():
                self.disk.known = self.protocol.snapshot().encode()
            case ef.Arrived(author, seq):
                self.loom.arrived(author, seq)
            case ef.Fetch() | ef.FetchKeyframe():
                self._begin(effect)
            case ef.Advanced(author, signed):
                self.copies[author].seq = signed.header.seq
            case ef.Unfollow(author):
                self._forget(author)
            case ef.Dial(peer):
                self.network.dial(self.key, peer)
            case ef.Drop(peer):
                self.network.close(self.key, peer)
            case ef.OwnHead():
                self._alive(ASK_S, self._speak)
            case ef.ProfileDue():
                self._alive(0.0, self._publish_profile)

    def _forget(self, author: bytes) -> None:
        self.copies.pop(author, None)
        self.disk.copies.pop(author, None)
        self.loom.forget(author)

    def _tick(self) -> None:
        self.receive(ev.Tick(self.world.now))
        self._alive(TICK_S, self._tick)

    # -- fetching

    def _begin(self, order: ef.Fetch | ef.FetchKeyframe) -> None:
        header, copy = order.signed_header.header, self.copies.get(order.author)
        if isinstance(order, ef.FetchKeyframe):
            self.fetching.start(order)
        elif copy is not None and copy.seq == header.seq:
            self._report(ev.Applied(order.author, header.seq, copy.root(), self.world.now))
        elif header.kind == GENESIS:
            self._stand(order, Copy(self.genesis, 0))
        elif copy is None or copy.seq != header.seq - 1:
            self._report(ev.ApplyFailed(order.author, header.seq, "root", self.world.now))
        else:
            self.fetching.start(order)

    def _report(self, event: ev.Event) -> None:
        """Answer an order after the effects that came with it."""
        self._alive(0.0, lambda: self.receive(event))

    def fetched(self, order: ef.Fetch | ef.FetchKeyframe, data: bytes) -> None:
        """All bytes are here and their hashes are right."""
        header = order.signed_header.header
        copy = self.copies.get(order.author)
        try:
            if isinstance(order, ef.FetchKeyframe):
                copy = Copy(vector_of(data, len(self.genesis), NORM_MAX), header.seq)
            elif copy is None or copy.seq != header.seq - 1:
                self.fetch_failed(order, "missing")
                return
            else:
                copy.public.add(copy.public.decoded(header.codec, data, NORM_MAX))
                copy.seq = header.seq
                self.serving.keep(data)
        except CodecError:
            self.fetch_failed(order, "content")
            return
        self._stand(order, copy)

    def _stand(self, order: ef.Fetch | ef.FetchKeyframe, copy: Copy) -> None:
        header = order.signed_header.header
        root = copy.root()
        if header.root and root != header.root:
            self.copies.pop(order.author, None)
            self.fetch_failed(order, "root")
            return
        self.copies[order.author] = copy
        self.loom.decoded(order.author, header.seq)
        copy.unsaved += 1
        if copy.unsaved >= SAVE_EVERY or isinstance(order, ef.FetchKeyframe):
            copy.unsaved = 0
            self.disk.copies[order.author] = (order.signed_header, copy.public.vector.copy())
        self._report(ev.Applied(order.author, header.seq, root, self.world.now))

    def fetch_failed(self, order: ef.Fetch | ef.FetchKeyframe, reason: str) -> None:
        """A job came to nothing."""
        self.world.note(f"fetch_{reason}", self.person.name)
        seq = order.signed_header.header.seq
        self._report(ev.ApplyFailed(order.author, seq, reason, self.world.now))

    def answer(self, request: bytes) -> tuple[bytes, bytes]:
        """Response and body of a peer's fetch."""
        return self.serving.answer(request)

    def _standing(self, author: bytes, seq: int) -> PublicCopy | None:
        """The copy of an author, if it stands at ``seq``; our own wherever it stands."""
        if author == self.key:
            return self.loom.own
        held = self.copies.get(author)
        return held.public if held and held.seq == seq else None

    # -- our own stream

    def _may_publish(self, kind: str) -> bool:
        protocol = self.protocol
        if protocol is None or protocol.mute:
            return False
        return kind == RESUME or not protocol.must_resume

    def _speak(self) -> None:
        """Ask before speaking; resume where others know more, or the disk went back in time."""
        protocol, disk = self.protocol, self.disk
        if protocol is None or protocol.stopped:
            return
        if protocol.mute and not protocol.greeted() and self.settings.bootstrap:
            self._alive(ASK_S, self._speak)
            return
        if protocol.mute:
            self.receive(ev.Unmute(self.world.now))
        while self._may_publish(RESUME) and protocol.own_highest is not None:
            if not protocol.must_resume and not disk.rolled_back:
                break
            disk.rolled_back = False
            self.world.note("resumed", self.person.name)
            self._publish(ev.Publish(RESUME, self.world.now, root=self._own_root()))
        if self._may_publish(GENESIS) and protocol.own_highest is None:
            disk.rolled_back = False
            self._publish(ev.Publish(GENESIS, self.world.now, root=self._own_root()))
            self._publish_profile()

    def _own_root(self) -> bytes:
        return merkle_root(self.loom.own.leaves())

    def _publish(self, event: ev.Publish, payload: bytes = b"") -> None:
        self._payload = payload
        self.serving.keep(payload)
        self.receive(event)

    def _publish_profile(self) -> None:
        if self._may_publish(PROFILE):
            address = (f"/dns4/{self.person.name}/tcp/1",)
            data = encode_profile(Profile(self.person.name, (), address))
            now, root = self.world.now, self._own_root()
            self._publish(ev.Publish(PROFILE, now, payload=data, root=root))

    # -- rounds

    def _round(self) -> None:
        """Train or attack, publish, and mix a little later, while training goes on."""
        if self.hushed:
            return
        self._alive(self.work.round_s * self.world.spread(0.95, 1.05), self._round)
        y = self._target()
        protocol = self.protocol
        if protocol is None or y is None:
            return
        self.x = y
        if not self._may_publish(DIFFERENCE) or protocol.own_highest is None:
            self.loom.x = y
            return
        self.rounds += 1
        self._publish_difference(self.loom.difference(y), y)
        if self.work.attack is None and self.is_up():
            self._alive(GRACE * self.work.round_s, lambda: self._mix(y))

    def _target(self) -> Vector | None:
        if self.work.attack is None:
            return self.work.task.train(self.x)
        seen = [copy.public.vector for _, copy in sorted(self.copies.items())]
        return self.work.attack(self.genesis, np.stack(seen)) if seen else None

    def _publish_difference(self, difference: Difference, y: Vector) -> None:
        size, payload = self.chunk_bytes, difference.payload
        after = PublicCopy(self.loom.own.vector)
        after.add(difference.vector)
        event = ev.Publish(
            DIFFERENCE, self.world.now, codec=self.loom_settings.codec,
            chunks=tuple(chunk_hash(payload[i : i + size]) for i in range(0, len(payload), size)),
            payload_bytes=len(payload), root=merkle_root(after.leaves()), round=self.rounds,
        )  # fmt: skip
        self._publish(event, payload)
        if self.is_up():
            self.loom.published(difference, y)

    def _mix(self, y: Vector) -> None:
        protocol = self.protocol
        if protocol is None:
            return
        copies = {a: c.public.vector for a, c in sorted(self.copies.items())}
        live = {a: v for a, v in copies.items() if not protocol.weight_zero(a)}
        mixing = self.loom.mix(y, live, len(protocol.followed()))
        self.loom.mixed(mixing)
        self.x = self.x + mixing.correction
        self.world.note("mixed", self.person.name, self.rounds, float(np.abs(self.x).sum()))
