"""A simulated newcomer's start from the middle of its peers' copies, and how others follow it.

Speaks the production formats, as daemon/joiner.py and daemon/fetcher.py do. A newcomer judges its
start by the learner's own measure, where the daemon asks its trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip.adoption import Reference, encode_adoption, most
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.mix.codec import CodecError
from tapestry_p2p.sim.vault import Point

if TYPE_CHECKING:
    from tapestry_p2p.sim.member import Member

LOOK_S = 1.0  # how often a newcomer looks whether it has what it needs
ASK_DEADLINE_S = 10.0  # how long it waits for somebody to tell it anything
PATIENCE_S = 30.0  # then the first vector must do
MEASURES = ("loss", "distance")  # of a learner; the first that it has, less is better


class Joining:
    """One life of a member; nothing to do for one that has a stream."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._since = member.stage.world.now
        self._gathering = self._judged = False
        self.start: Point | None = None  # found, and better than the first vector
        self.payload = b""

    # -- our own start

    def is_looking(self) -> bool:
        """Whether our stream has to wait: others have trained, and their copies are on the way."""
        member = self._member
        protocol, stage = member.protocol, member.stage
        assert protocol is not None
        has_stream = bool(member.disk.entries) or member.disk.rolled_back
        if not member.joins_late or has_stream or self._judged:
            return False
        waited = stage.world.now - self._since
        if not protocol.greeted():
            return waited < ASK_DEADLINE_S
        trained = protocol.trained()
        if waited > PATIENCE_S or trained <= 2 * member.settings.f:
            return False
        references = protocol.references()
        if not self._gathering and len(references) >= min(most(member.settings), trained):
            self._gathering = True
            found = partial(self._judge, references)
            self._gather(references, (), found, self._missed)
        return True

    def _missed(self, reason: str) -> None:
        self._gathering = False  # an author moved on: look again

    def _judge(self, references: tuple[Reference, ...], points: list[Point]) -> None:
        member = self._member
        self._judged = True
        middle, genesis = member.stage.vault.middle(points), member.stage.genesis
        for point in points:
            member.serving.hold(point)
        if self._measure(middle) < self._measure(genesis):
            self.start, self.payload = middle, encode_adoption(references)
        else:
            member.note("adopted_nothing")

    def _measure(self, point: Point) -> float:
        found = self._member.stage.training.learner.evaluate(point.vector[None])
        return float(next(found[name][0] for name in MEASURES if name in found))

    # -- somebody else's start

    def follow(self, order: ef.Fetch, payload: bytes) -> None:
        """An adopt entry's payload is here: bring the copies it names, then stand at it."""
        member = self._member
        assert member.protocol is not None
        try:
            references = member.protocol.read_adoption(payload, order.author)
        except Malformed:
            member.fetch_failed(order, "content")
            return
        done, failed = partial(self._make, order), partial(member.fetch_failed, order)
        self._gather(references, order.sources, done, failed)

    def _make(self, order: ef.Fetch, points: list[Point]) -> None:
        member = self._member
        if order.author in member.copies:
            return  # it came whole meanwhile
        member.note("started_from_others", member.stage.names[order.author])
        member.stand_at(order, member.stage.vault.middle(points))

    # -- the copies that are named

    def _gather(
        self,
        references: Iterable[Reference],
        sources: Iterable[bytes],
        done: Callable[[list[Point]], None],
        failed: Callable[[str], None],
    ) -> None:
        todo, found = list(references), list[Point]()

        def bring() -> None:
            while len(found) < len(todo):
                reference = todo[len(found)]
                held = self._member.serving.named(reference.author, reference.seq, reference.root)
                if held is None:
                    named = dict.fromkeys((reference.author, *sources))
                    holders = [peer for peer in named if peer != self._member.key]
                    self._member.fetching.whole(reference, holders, came, failed)
                    return
                found.append(held)
            done(found)

        def came(pieces: list[bytes]) -> None:
            stage = self._member.stage
            try:
                found.append(stage.vault.whole(b"".join(pieces), stage.d))
            except CodecError:
                failed("content")
                return
            bring()

        bring()
