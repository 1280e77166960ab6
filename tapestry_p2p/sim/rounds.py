"""An honest member's rounds: train, publish, mix, and mix news when they come, as the daemon does.

A round is trained in parts, so that what mixing gives is added at the next step boundary and nobody
waits. Knows the Loom and one member; not time's source, not the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip.header import DIFFERENCE
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, Mixing
from tapestry_p2p.sim.member import Member

NEWS_MIN_S = 0.02


@dataclass(frozen=True)
class Pace:
    """How a member works."""

    round_s: float = 1.0
    slower: float = 1.0  # this machine takes so many times as long
    steps: int = 4  # inner steps of a round, on whatever machine
    parts: int = 4  # of a round's training: a correction is added after each
    news_share: float = 1 / 8  # of a round: news are mixed at most so often; 0: never
    mixes: bool = True  # False: only the protocol is of interest, nothing is learned (Publishing)


class Rounds:
    """One life of an honest member, row ``row`` of the learner."""

    def __init__(self, member: Member, row: int, pace: Pace) -> None:
        self._member, self._row, self._pace = member, row, pace
        self._training = member.stage.training
        own = PublicCopy(member.own.vector)
        self.loom: Loom[bytes] = Loom(member.stage.loom, member.x, own)
        for author, held in member.copies.items():
            self.loom.decoded(author, held.seq)
        self._round_s = pace.round_s * pace.slower
        self._part = 0
        self._stretch = 1.0  # of this round's time
        self._added: list[Vector] = []  # corrections that training has still to take up
        self._news_due = False
        self._adopted = False  # what is being trained began elsewhere

    def begin(self) -> None:
        """Training starts at some moment of a round."""
        wait = self._round_s * self._member.stage.world.random.random()
        self._member.later(wait, self._train)

    def arrived(self, author: bytes, seq: int) -> None:
        """A header came for the first time."""
        self.loom.arrived(author, seq)

    def moved(self, author: bytes, seq: int) -> None:
        """A copy moved: mix it before long."""
        self.loom.decoded(author, seq)
        if self._pace.news_share and not self._news_due:
            self._news_due = True
            wait = max(NEWS_MIN_S, self._pace.news_share * self._round_s)
            self._member.later(wait, self._mix_news)

    def forget(self, author: bytes) -> None:
        """The author is no neighbour any more."""
        self.loom.forget(author)

    def adopt(self) -> None:
        """The member's start is another than the first vector."""
        member = self._member
        self.loom = Loom(member.stage.loom, member.x, PublicCopy(member.own.vector))
        for author, held in member.copies.items():
            self.loom.decoded(author, held.seq)
        self._adopted, self._added = True, []

    def outgoing(self, send: ef.Send) -> bytes:
        """What the protocol says is what is sent."""
        return send.data

    # -- training

    def _train(self) -> None:
        """Begin the next part of a round."""
        member, pace = self._member, self._pace
        if member.hushed:
            return
        world = member.stage.world
        if self._part == 0:
            self._stretch = world.spread(0.95, 1.05)
        first, end = (pace.steps * part // pace.parts for part in (self._part, self._part + 1))
        done = member.rounds * pace.steps + first
        self._training.begin(self._row, member.x, end - first, done)
        member.later(self._round_s * self._stretch / pace.parts, self._trained)

    def _trained(self) -> None:
        """Take up what was trained and what was mixed meanwhile; publish after the last part."""
        member = self._member
        x = self._training.take(self._row)
        if self._adopted:  # train this round from the new start
            self._adopted, self._part = False, 0
            self._train()
            return
        for correction in self._added:
            x = x + correction
        self._added = []
        member.x = x
        self._part = (self._part + 1) % self._pace.parts
        if self._part == 0 and not member.hushed:
            self._finish_round(x)
        if member.is_up():
            self._train()

    def _finish_round(self, y: Vector) -> None:
        member, loom = self._member, self.loom
        if not member.may_publish(DIFFERENCE):
            loom.x = loom.latest = y  # kept back: the next difference holds it all
            return
        difference = loom.difference(y)
        after = member.stage.vault.after(member.own, loom.settings.codec, difference.payload)
        if not member.publish_difference(difference.payload, after.root):
            return
        member.stand(after)
        loom.published(difference, y)
        if self._pace.slower != 1.0:
            member.note("slow_round")
        self._mixed(loom.mix(y, *self._neighbourhood()), "mixed")
        member.x = loom.x

    # -- mixing

    def _mix_news(self) -> None:
        self._news_due = False
        member = self._member
        if member.hushed or not self.loom.rounds or not member.may_publish(DIFFERENCE):
            return
        mixing = self.loom.mix_news(*self._neighbourhood())
        self._mixed(mixing, "mixed_news")
        self._added.append(mixing.correction)

    def _neighbourhood(self) -> tuple[Mapping[bytes, Vector], int, Mapping[bytes, float]]:
        """Whom we mix with, how many share the weights, and how much of one each has."""
        member = self._member
        protocol = member.protocol
        assert protocol is not None
        shares = {author: protocol.share(author) for author in sorted(member.copies)}
        live = {a: member.copies[a].point.vector for a, share in shares.items() if share}
        return live, protocol.neighbours, shares

    def _mixed(self, mixing: Mixing[bytes], what: str) -> None:
        self.loom.mixed(mixing)
        member = self._member
        member.note(what, member.rounds, len(mixing.authors))
