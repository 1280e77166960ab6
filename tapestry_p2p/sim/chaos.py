"""Faults drawn at random, kind after kind, until the storm ends: a seed gives one story.

Knows what can go wrong in a Cluster and what a kind of fault must leave in the counts; what must
hold afterwards is the caller's to demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

from tapestry_p2p.sim.cluster import Cluster
from tapestry_p2p.sim.member import Member
from tapestry_p2p.sim.network import Weather

STORM = Weather(delay_s=(0.01, 0.4), loss=0.1, double=0.05, reorder=True)
WAIT_S = (1.0, 5.0)  # between two faults

# what each kind of fault must have done at least once, or the run has proven nothing about it
EXERCISES: dict[str, tuple[str, ...]] = {
    "kill": ("crashed", "restarted"),
    "kill_between_effects": ("crashed_between_effects", "restarted"),
    "cut_power": ("power_cut", "torn_write", "restarted"),
    "roll_back": ("rolled_back", "resumed"),
    "lose_copies": ("lost_copies", "keyframe"),
    "partition": ("partitioned", "lost_on_dead_link", "united"),
    "partition_one_way": ("partitioned_one_way", "lost_on_dead_link", "united"),
    "leave": ("left", "returned"),
    "weather": ("weather",),
    "lose_frames": ("lost", "gap_asked"),
    "double_frames": ("doubled",),
    "reorder_frames": ("reordered",),
    "churn": ("crashed", "restarted"),
    "join_late": ("joined_late", "keyframe"),
    "slow_members": ("slow_round",),
    "batch_links": ("batch",),
    "equivocate": ("two_faced", "fork_proof"),
    "replay": ("replayed",),
    "corrupt": ("corrupted", "dropped"),
    "false_root": ("false_root", "fetch_root"),
    "withhold": ("withheld", "fetch_missing"),
}
STRIKES = tuple(list(EXERCISES)[:9])  # those that Chaos brings; the rest is the plan's


def unexercised(kinds: Iterable[str], counts: Counter[str]) -> list[str]:
    """What should have happened and did not: ``kind: count`` for every gap."""
    return [f"{kind}: {what}" for kind in kinds for what in EXERCISES[kind] if not counts[what]]


class Chaos:
    """Brings faults of some kinds to a cluster for ``seconds``, then until each has happened."""

    def __init__(self, cluster: Cluster, seconds: float, kinds: Iterable[str] = STRIKES) -> None:
        self._cluster = cluster
        self._random = Random(cluster.plan.seed + 1)
        self._end = cluster.world.now + seconds
        self._kinds = sorted(kinds)
        self._turn: list[str] = []
        self.calm = False  # no more of it
        self._strikes: dict[str, Callable[[Member], None]] = {
            "kill": self._kill,
            "kill_between_effects": self._kill_between_effects,
            "cut_power": self._cut_power,
            "roll_back": self._roll_back,
            "lose_copies": self._lose_copies,
            "partition": lambda member: self._isolate(member, one_way=False),
            "partition_one_way": lambda member: self._isolate(member, one_way=True),
            "leave": self._leave,
            "weather": self._change_weather,
        }
        if self._kinds:
            self._later()

    def missing(self) -> list[str]:
        """What its faults have not yet done."""
        return unexercised(self._kinds, self._cluster.world.counts)

    def _later(self) -> None:
        world = self._cluster.world
        wait = self._random.uniform(*WAIT_S)
        if world.now + wait < self._end or self.missing():
            world.after(wait, self._strike)

    def _strike(self) -> None:
        if not self._turn:
            self._turn = self._random.sample(self._kinds, len(self._kinds))
        up = [member for member in self._cluster.honest if member.is_up() and member.disk.entries]
        if up and not self.calm:
            self._strikes[self._turn.pop()](self._random.choice(up))
        self._later()

    def _back_soon(self, member: Member) -> None:
        self._cluster.world.after(self._random.uniform(0.5, 15.0), member.start)

    def _kill(self, member: Member) -> None:
        member.crash()
        self._back_soon(member)

    def _kill_between_effects(self, member: Member) -> None:
        member.crash_in = self._random.randrange(40)
        self._cluster.world.after(15.0, member.start)

    def _cut_power(self, member: Member) -> None:
        member.cut_power()
        self._back_soon(member)

    def _lose_copies(self, member: Member) -> None:
        member.crash()
        member.disk.copies, member.disk.known = {}, None
        member.note("lost_copies")
        self._back_soon(member)

    def _roll_back(self, member: Member) -> None:
        member.crash()
        if member.disk.lose(self._random.randint(1, 6)):
            member.note("rolled_back")
        self._back_soon(member)

    def _leave(self, member: Member) -> None:
        member.leave()
        self._cluster.world.after(self._random.uniform(5.0, 15.0), self._return, member)

    def _return(self, member: Member) -> None:
        member.note("returned")
        member.start()

    def _isolate(self, member: Member, one_way: bool) -> None:
        others = [other.key for other in self._cluster.members if other is not member]
        one, other = [member.key], others
        if self._random.random() < 0.5:
            one, other = other, one
        self._cluster.network.partition(one, other, one_way)
        self._cluster.world.after(self._random.uniform(2.0, 15.0), self._cluster.network.unite)

    def _change_weather(self, member: Member) -> None:
        network, usual = self._cluster.network, self._cluster.plan.weather
        slow = replace(usual, delay_s=(usual.delay_s[0], 2 * usual.delay_s[1]))
        network.weather = self._random.choice([slow, replace(usual, watchdog_s=1.0), usual])
        self._cluster.world.note("weather")


class Churn:
    """Members go down and come back, without end: a ``share`` of them in 60 rounds.

    Half are killed, half say goodbye; each is back 3 to 15 rounds later.
    """

    def __init__(self, cluster: Cluster, share: float, rounds: int) -> None:
        self._cluster = cluster
        self._random = Random(cluster.plan.seed + 2)
        self._round_s = cluster.plan.pace.round_s
        self._end = cluster.world.now + rounds * self._round_s
        self._every = 60.0 * self._round_s / (share * len(cluster.honest)) if share else 0.0
        self._killed = False
        if share:
            first = self._random.uniform(0.1, 0.5) * rounds * self._round_s
            cluster.world.after(min(first, self._every), self._strike)

    def _strike(self) -> None:
        world = self._cluster.world
        if world.now > self._end:
            return
        up = [member for member in self._cluster.honest if member.is_up() and member.disk.entries]
        if up:
            member = self._random.choice(up)
            self._killed = not self._killed
            member.crash() if self._killed else member.leave()
            world.after(self._random.uniform(3.0, 15.0) * self._round_s, member.start)
        world.after(self._random.expovariate(1.0 / self._every), self._strike)
