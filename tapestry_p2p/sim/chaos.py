"""Faults drawn at random, then a healed network: a seed gives one story of crashes, cuts and loss.

Knows what can go wrong in a Cluster; what must hold afterwards is the caller's to demand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tapestry_p2p.sim.cluster import Cluster
from tapestry_p2p.sim.member import Member
from tapestry_p2p.sim.network import Weather

STORM = Weather(delay_s=(0.01, 0.4), loss=0.1, double=0.05, reorder=True)


class Chaos:
    """Plans faults for a cluster over ``seconds`` of virtual time, from its own seed."""

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        self._cluster = cluster
        self._random = Random(cluster.plan.seed + 1)
        self._end = cluster.world.now + seconds
        self._faults: tuple[Callable[[Member], None], ...] = (
            self._kill,
            self._kill_between_effects,
            self._lose_copies,
            self._roll_back,
            self._isolate,
            self._change_weather,
        )
        self._later()

    def _later(self) -> None:
        world = self._cluster.world
        wait = self._random.uniform(1.0, 6.0)
        if world.now + wait < self._end:
            world.after(wait, self._strike)

    def _strike(self) -> None:
        fault = self._random.choice(self._faults)
        fault(self._random.choice(self._cluster.honest))
        self._later()

    def _back_soon(self, member: Member) -> None:
        self._cluster.world.after(self._random.uniform(0.5, 20.0), member.start)

    def _kill(self, member: Member) -> None:
        member.crash()
        self._back_soon(member)

    def _kill_between_effects(self, member: Member) -> None:
        member.crash_in = self._random.randrange(40)
        self._cluster.world.after(20.0, member.start)

    def _lose_copies(self, member: Member) -> None:
        member.crash()
        member.disk.copies, member.disk.known = {}, b""
        self._cluster.world.note("lost_copies")
        self._back_soon(member)

    def _roll_back(self, member: Member) -> None:
        if member.disk.entries:
            member.crash()
            member.disk.lose(self._random.randint(1, 6))
            self._cluster.world.note("rolled_back")
            self._back_soon(member)

    def _isolate(self, member: Member) -> None:
        others = [m.key for m in self._cluster.members if m is not member]
        self._cluster.network.partition([member.key], others)
        self._cluster.world.after(self._random.uniform(2.0, 20.0), self._cluster.network.unite)

    def _change_weather(self, member: Member) -> None:
        storm = replace(STORM, reorder=self._random.random() < 0.5)
        self._cluster.network.weather = self._random.choice([Weather(), storm])
        self._cluster.world.note("weather")
