"""Members under conditions: production Looms in ticks of a fifth of a fast member's round.

A member trains a round in parts. At the end of a part it mixes news; at the end of a round it
publishes and mixes, as the daemon does. Knows vectors, who is away and when copies arrive; the wire
is simulated elsewhere (tapestry simulate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benches.loom_setup import Field, Outcome, Setup, Watch
from tapestry_p2p.mix.adoption import coordinate_median
from tapestry_p2p.mix.codec import payload_bytes
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings

PARTS = 5  # of a round
MIRROR = 3.0  # how far behind genesis the mirror attackers stand

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Condition:
    """What a world does to its members."""

    name: str
    late: int = 0  # rounds by which every copy is late
    missed: float = 0.0  # chance that a member is cut off for its next round
    speeds: tuple[float, ...] = (1.0,)  # in turn; a member of speed s takes 1/s as long a round
    staggered: bool = False  # rounds end at different times
    joiners: float = 0.0  # share of the members, the last, who come when half the time is over
    hostile: float = 0.0  # share of mirrors, the last members
    absent: float = 0.0  # share of the members, the last, who are never there
    links: tuple[int, ...] = ()  # member i with i ± these; none: everyone with everyone


SYNCHRONOUS = Condition("synchronous")


@dataclass
class Member:
    """One honest member."""

    loom: Loom[int]
    copies: dict[int, PublicCopy]
    x: Vector
    period: int  # ticks of a round
    phase: int
    trained: Vector | None = None  # the part in hand, finished when its time is over
    heard: bool = False  # something came since the last mixing
    back: int = 0  # the tick from which it is connected


@dataclass(frozen=True)
class Entry:
    """A difference on its way."""

    due: int
    to: int
    author: int
    seq: int
    step: Vector


class World:
    """One run. ``who`` are the honest members; hostile and absent ones train nothing."""

    def __init__(
        self, learning: Field, settings: LoomSettings, condition: Condition, setup: Setup
    ) -> None:
        self.field, self.settings, self.condition, self.setup = learning, settings, condition, setup
        self._random = np.random.default_rng([learning.seed, 77])
        present = round(setup.members * (1 - condition.absent))
        self.who = list(range(present - round(setup.members * condition.hostile)))
        self._hostile = {b: PublicCopy(learning.genesis) for b in range(len(self.who), present)}
        self._seq = [0] * setup.members
        self._queue: list[Entry] = []
        joiners = round(setup.members * condition.joiners)
        first = self.who[: len(self.who) - joiners]
        self.members = {i: self._member(i, learning.genesis) for i in first}
        self._meet(self.members)
        speeds = [self._speed(i) for i in range(setup.members)]
        worked = sum(speeds) - joiners / 2  # rounds a unit of time: equal steps for all
        self.ticks = round(PARTS * setup.rounds * setup.members / worked)

    def _speed(self, member: int) -> float:
        return self.condition.speeds[member % len(self.condition.speeds)]

    def _member(self, i: int, x: Vector) -> Member:
        period = round(PARTS / self._speed(i))
        place = i // len(self.condition.speeds)
        phase = place * (PARTS // 2) % period if self.condition.staggered else 0
        return Member(Loom(self.settings, x, PublicCopy(x)), {}, x, period, phase)

    def _meet(self, whom: Sequence[int] | dict[int, Member]) -> None:
        """Everyone holds everyone's copy where one of the two is new."""
        for i, member in self.members.items():
            for j in [*self.members, *self._hostile]:
                if j != i and self._linked(i, j) and (i in whom or j in whom):
                    copy = self._hostile[j] if j in self._hostile else self.members[j].loom.own
                    member.copies[j] = PublicCopy(copy.vector)
                    member.loom.decoded(j, self._seq[j])

    def _linked(self, i: int, j: int) -> bool:
        apart = (i - j) % self.setup.members
        links = self.condition.links
        return not links or apart in links or self.setup.members - apart in links

    def run(self) -> Outcome:
        """Train to the end and judge."""
        self.field.start()
        watch = Watch(self.field)
        for tick in range(self.ticks):
            watch.look(tick / self.ticks, self._models().mean(axis=0), self.who)
            if self.condition.joiners and tick == self.ticks // 2:
                self._join()
            self._begin(tick)
            self._end(tick + 1)
        d = len(self.field.genesis)
        size = payload_bytes(self.settings.codec, d) / d
        return watch.stop(self.field.outcome(self._models(), self.who, size))

    def _models(self) -> NDArray[np.float32]:
        return np.stack([member.x for member in self.members.values()])

    def _begin(self, tick: int) -> None:
        """Parts that begin now; they are finished when their time is over."""
        who = [i for i, m in self.members.items() if (tick + m.phase) % (m.period // PARTS) == 0]
        if not who:
            return
        place = round(tick / self.ticks * self.setup.steps)
        x = np.stack([self.members[i].x for i in who])
        y = self.field.crowd.train(x, self.setup.inner_steps // PARTS, place, who)
        for i, row in zip(who, y, strict=True):
            self.members[i].trained = row

    def _end(self, now: int) -> None:
        """Parts and rounds that end now: publish, deliver, mix."""
        ready, rounds = [], {}
        for i, member in self.members.items():
            if (now + member.phase) % (member.period // PARTS) or member.trained is None:
                continue
            ready.append(i)
            member.x, member.trained = member.trained, None
            if (now + member.phase) % member.period == 0:
                rounds[i] = member.x
        for i, y in rounds.items():
            self._publish(i, y, now)
        if self._hostile and now % PARTS == 0:
            self._mirror(now)
        self._deliver(now)
        for i in ready:
            self._mix(self.members[i], rounds.get(i))

    def _publish(self, i: int, y: Vector, now: int) -> None:
        member = self.members[i]
        if self._random.random() < self.condition.missed and now >= member.back:
            member.back = now + member.period
        difference = member.loom.difference(y)
        member.loom.published(difference, y)
        self._send(i, difference.vector, now, member.back)

    def _send(self, author: int, step: Vector, now: int, back: int = 0) -> None:
        self._seq[author] += 1
        due = max(now, back) + PARTS * self.condition.late
        for i, member in self.members.items():
            if author in member.copies:
                self._queue.append(Entry(due, i, author, self._seq[author], step))

    def _deliver(self, now: int) -> None:
        later = []
        for entry in self._queue:
            member = self.members[entry.to]
            if entry.due > now or member.back > now:
                later.append(entry)
                continue
            member.loom.arrived(entry.author, entry.seq)
            member.copies[entry.author].add(entry.step)
            member.loom.decoded(entry.author, entry.seq)
            member.heard = True
        self._queue = later

    def _mix(self, member: Member, y: Vector | None) -> None:
        """At the end of a round with y; else with news, if there are any."""
        copies = {author: copy.vector for author, copy in member.copies.items()}
        if y is not None:
            mixing = member.loom.mix(y, copies, len(copies))
        elif member.heard and member.loom.rounds:
            mixing = member.loom.mix_news(copies, len(copies))
        else:
            return
        member.loom.mixed(mixing)
        member.x = member.x + mixing.correction
        member.heard = False

    def _mirror(self, now: int) -> None:
        """Mirror attackers publish genesis - 3 (mean - genesis), coded as everyone's."""
        genesis = self.field.genesis
        mean = np.mean([m.loom.own.vector for m in self.members.values()], axis=0)
        wanted = (genesis - np.float32(MIRROR) * (mean - genesis)).astype(np.float32)
        for b, copy in self._hostile.items():
            step = Loom(self.settings, genesis, copy).difference(wanted).vector
            copy.add(step)
            self._send(b, step, now)

    def _join(self) -> None:
        """Newcomers begin from the median of an odd number of copies, without momentum."""
        own = [member.loom.own.vector for member in self.members.values()]
        start = coordinate_median(own[: len(own) - 1 + len(own) % 2])
        new = self.who[len(self.members) :]
        for i in new:
            self.members[i] = self._member(i, start)
        self._meet(new)
