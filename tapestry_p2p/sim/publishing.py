"""A member that publishes and follows, learns nothing and mixes nothing: the protocol alone.

Its differences are a few coded steps, drawn once and taken in turn, so that what a run costs is
what the protocol costs. Followers fetch, decode and check them like any others.
"""

from __future__ import annotations

from itertools import cycle

import numpy as np

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip.header import DIFFERENCE
from tapestry_p2p.mix.codec import encode
from tapestry_p2p.sim.member import Member
from tapestry_p2p.sim.rounds import Pace

STEP = 1e-3  # of a coordinate in a round
STEPS = 64  # then the first is taken again: nobody holds a chunk for so long


class Publishing:
    """One life of a member that only publishes."""

    def __init__(self, member: Member, pace: Pace) -> None:
        self._member, self._pace = member, pace
        self._round_s = pace.round_s * pace.slower
        random, stage = np.random.default_rng(list(member.key)), member.stage
        steps = STEP * random.standard_normal((STEPS, stage.d)).astype(np.float32)
        self._payloads = cycle([encode(stage.loom.codec, step) for step in steps])

    def begin(self) -> None:
        """Rounds start at some moment of a round."""
        self._member.later(self._round_s * self._member.stage.world.random.random(), self._wait)

    def arrived(self, author: bytes, seq: int) -> None:
        """Of no interest."""

    def moved(self, author: bytes, seq: int) -> None:
        """Of no interest."""

    def forget(self, author: bytes) -> None:
        """Of no interest."""

    def adopt(self) -> None:
        """Any start will do."""

    def outgoing(self, send: ef.Send) -> bytes:
        """What the protocol says is what is sent."""
        return send.data

    def _wait(self) -> None:
        member = self._member
        if not member.hushed:
            member.later(self._round_s * member.stage.world.spread(0.95, 1.05), self._publish)

    def _publish(self) -> None:
        member, stage = self._member, self._member.stage
        if not member.hushed and member.may_publish(DIFFERENCE):
            payload = next(self._payloads)
            after = stage.vault.after(member.own, stage.loom.codec, payload)
            if member.publish_difference(payload, after.root):
                member.stand(after)
                if self._pace.slower != 1.0:
                    member.note("slow_round")
        if member.is_up():
            self._wait()
