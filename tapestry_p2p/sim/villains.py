"""Byzantine members: the honest shell around a hostile trade. Each deed is a function and a row.

A vector attack of attacks.py steers the villain's public copy and keeps to the protocol. The deeds
here break the protocol itself, in ways that a real process could: they know what a member knows and
sign with the villain's own key alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import DIFFERENCE, RESUME, sign
from tapestry_p2p.gossip.messages import SYNC, Heads, encode_sync
from tapestry_p2p.mix.codec import Vector, encode, payload_bytes
from tapestry_p2p.sim.attacks import ATTACKS, spoil
from tapestry_p2p.sim.member import Member

HEARD_MAX = 64
WRONG_ROOT = bytes([0xAA]) * 32


class Villain:
    """One life of a hostile member: does its deed once a round."""

    def __init__(self, member: Member, round_s: float, deed: Deed) -> None:
        self.member, self.stage = member, member.stage
        self._round_s = round_s
        self._deed = deed
        self.random = member.stage.world.random
        self.said: list[bytes] = []  # frames of the past, to be sent again
        self.second_face: tuple[tuple[bytes, ...], bytes] | None = None  # chunks and root

    def begin(self) -> None:
        """It acts at some moment of every round."""
        self.member.later(self._round_s * self.random.random(), self._round)

    def arrived(self, author: bytes, seq: int) -> None:
        """Of no interest."""

    def moved(self, author: bytes, seq: int) -> None:
        """Of no interest."""

    def forget(self, author: bytes) -> None:
        """Of no interest."""

    def adopt(self) -> None:
        """A start from others' copies is as good as any to attack from."""

    def outgoing(self, send: ef.Send) -> bytes:
        """Every second peer is shown the second face of a new entry, if it has one."""
        if send.channel == SYNC:
            self.said = [*self.said, send.data][-HEARD_MAX:]
        place = list(self.stage.names).index(send.peer)
        if self.second_face is None or place % 2 == 0 or self.member.protocol is None:
            return send.data
        head = self.member.protocol.head(self.member.key)
        if head is None or send.data != encode_sync(Heads((head,))):
            return send.data
        chunks, root = self.second_face
        twin = sign(replace(head.header, chunks=chunks, root=root), self.member.person.sign)
        self.member.note("two_faced", self.stage.names[send.peer])
        return encode_sync(Heads((twin,)))

    def _round(self) -> None:
        member = self.member
        if member.hushed:
            return
        member.later(self._round_s * self.random.uniform(0.95, 1.05), self._round)
        self._come_back()
        if member.may_publish(DIFFERENCE) and self.said:
            self._deed(self)

    def _come_back(self) -> None:
        """Caught: resume at once, as an honest member whose disk went back in time would."""
        member, now = self.member, self.stage.world.now
        protocol = member.protocol
        if protocol is None or not protocol.greeted():
            return
        if protocol.stopped:  # its own protocol takes the second face for a clone
            member.crash()
            self.stage.world.after(1.0, member.start)
            return
        if protocol.mute:
            member.receive(ev.Unmute(now))
        while protocol.must_resume and member.may_publish(RESUME):
            member.publish(ev.Publish(RESUME, now, root=member.own.root))

    # -- what deeds are made of

    @property
    def codec(self) -> str:
        """The network's."""
        return self.stage.loom.codec

    def steer(self, target: Vector) -> None:
        """Publish a difference towards a vector float32[d], as the protocol asks for it."""
        member = self.member
        payload = encode(self.codec, target - member.own.vector)
        after = self.stage.vault.after(member.own, self.codec, payload)
        if member.publish_difference(payload, after.root):
            member.stand(after)

    def step(self, size: float) -> Vector:
        """A point near our own, as if something had been learned, float32[d]."""
        jitter = [self.random.uniform(-size, size) for _ in range(self.stage.d)]
        return np.asarray(self.member.own.vector + np.array(jitter), dtype=np.float32)

    def say(self, data: bytes) -> None:
        """Send a frame to every greeted peer."""
        assert self.member.protocol is not None
        for peer in self.member.protocol.greeted():
            self.stage.network.send(self.member.key, peer, SYNC, data)


Deed = Callable[[Villain], None]


def equivocate(villain: Villain) -> None:
    """Sign two entries with one seq and show each to half of the peers."""
    member = villain.member
    other = encode(villain.codec, villain.step(0.1) - member.own.vector)
    after = villain.stage.vault.after(member.own, villain.codec, other)
    villain.second_face = (member.keep(other), after.root)
    villain.steer(villain.step(0.1))
    villain.second_face = None


def replay(villain: Villain) -> None:
    """Say again what was said before, whatever it was."""
    villain.member.note("replayed")
    villain.say(villain.random.choice(villain.said))
    villain.steer(villain.step(0.01))


def corrupt(villain: Villain) -> None:
    """Send a frame with one byte changed, or one cut short."""
    frame = bytearray(villain.random.choice(villain.said))
    villain.member.note("corrupted")
    if villain.random.random() < 0.5:
        frame[villain.random.randrange(len(frame))] ^= 1 << villain.random.randrange(8)
    else:
        del frame[villain.random.randrange(len(frame)) :]
    villain.say(bytes(frame))
    villain.steer(villain.step(0.01))


def false_root(villain: Villain) -> None:
    """Now and then sign an entry that does not lead where it says."""
    if villain.random.random() < 0.8:
        villain.steer(villain.step(0.1))
        return
    villain.member.note("false_root")
    payload = encode(villain.codec, villain.step(0.1) - villain.member.own.vector)
    villain.member.publish_difference(payload, WRONG_ROOT)


def withhold(villain: Villain) -> None:
    """Announce an entry and serve nothing of it."""
    villain.member.note("withheld")
    villain.steer(villain.step(0.1))
    villain.member.serving.clear()


DEEDS: dict[str, Deed] = {
    "equivocate": equivocate,
    "replay": replay,
    "corrupt": corrupt,
    "false_root": false_root,
    "withhold": withhold,
}


def is_learned(name: str) -> bool:
    """Whether the attack is an honest member's trade on poisoned data."""
    return name in ATTACKS and ATTACKS[name].needs_learning


def deed_of(name: str) -> Deed:
    """The deed of that name, or the vector attack. KeyError if there is neither."""
    if name in DEEDS:
        return DEEDS[name]
    row = ATTACKS[name]

    def attack(villain: Villain) -> None:
        member = villain.member
        if row.spoils:
            member.note("spoiled")
            payload = spoil(row.spoils, bytes(payload_bytes(villain.codec, villain.stage.d)))
            member.publish_difference(payload, member.own.root)
            return
        copies = [held.point.vector for _, held in sorted(member.copies.items())]
        if copies:
            member.note("attacked", len(copies))
            villain.steer(row.play(villain.stage.genesis.vector, np.stack(copies)))

    return attack
