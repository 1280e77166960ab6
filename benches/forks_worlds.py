"""The worlds of forks.py: disks that go back in time, a live clone, a forker; each counts claims.

Members, network and disks are sim/'s, the protocol is the production one. What a world looks at it
looks at from outside.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from random import Random
from typing import Any

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import DIFFERENCE, SignedHeader, sign
from tapestry_p2p.gossip.messages import Heads, encode_sync
from tapestry_p2p.sim.cluster import DIGEST_EVERY_S, Cluster, Plan
from tapestry_p2p.sim.disk import Disk
from tapestry_p2p.sim.member import Member, Trade
from tapestry_p2p.sim.network import Network, Reply, Weather
from tapestry_p2p.sim.publishing import Publishing
from tapestry_p2p.sim.rounds import Pace
from tapestry_p2p.sim.villains import Villain, equivocate

MEMBERS = 4
ROUND_S = 0.25
START_S, SETTLE_S = 12.0, 60.0
CLONE_S = 240.0  # a clone that was not noticed by then is not
EXCHANGE_S = DIGEST_EVERY_S  # every pair of peers exchanges digests at least so often
WEATHER = Weather(delay_s=(0.005, 0.05))
KINDS = ("backup", "cloned_disk", "older_generation", "cut_off", "stale_peer", "forgotten")
EXPIRY_S, PROFILE_S = 60.0, 10.0  # an hour of the others' memory, and what renews it


class Signed:
    """Every entry that was ever made durable, by key, incarnation and seq."""

    def __init__(self) -> None:
        self._hashes: defaultdict[tuple[bytes, bytes, int], set[bytes]] = defaultdict(set)

    def add(self, signed: SignedHeader) -> None:
        """Note one."""
        header = signed.header
        self._hashes[header.author, header.incarnation, header.seq].add(header.hash)

    @property
    def forks(self) -> int:
        """How many places hold two entries."""
        return sum(len(hashes) > 1 for hashes in self._hashes.values())


class WatchedDisk(Disk):
    """A disk whose own entries are also noted outside of the world."""

    ledger: Signed

    def append(self, signed: SignedHeader, payload: bytes) -> None:
        """An own entry is durable."""
        super().append(signed, payload)
        self.ledger.add(signed)


def watched(member: Member, ledger: Signed) -> None:
    """Give a member that has not started a disk that notes what it signs."""
    disk = WatchedDisk(member.stage.genesis)
    disk.ledger = ledger
    member.disk = disk


def image(disk: Disk) -> Disk:
    """A copy of all that is on a disk now, without what was not synced."""
    taken = copy(disk)
    taken.entries, taken.payloads = list(disk.entries), dict(disk.payloads)
    taken.copies, taken._saves, taken._unsynced = dict(disk.copies), list(disk._saves), []
    return taken


def plan_of(seed: int, byzantine: int = 0) -> Plan:
    """A small world in which nothing is mixed."""
    pace = Pace(round_s=ROUND_S, steps=1, parts=1, mixes=False)
    return Plan(seed, MEMBERS, byzantine, "mirror", d=16, pace=pace, weather=WEATHER)


class Forgetful(Cluster):
    """Members that forget in a minute, where the daemon's take an hour."""

    def _topology(self, n: int, near: list[int]) -> dict[str, Any]:
        times = {"member_expiry_s": EXPIRY_S, "profile_every_s": PROFILE_S}
        return {**super()._topology(n, near), **times}


class RestoreWorld:
    """``count`` restores, one after the other, while everybody publishes."""

    def __init__(self, seed: int, rounds: int, count: int) -> None:
        self.cluster = Forgetful(plan_of(seed))
        self.signed = Signed()
        for member in self.cluster.honest:
            watched(member, self.signed)
        self.random = Random(seed)
        self.kinds: Counter[str] = Counter()
        self.forgotten = 0
        self._count, self._wanted = count, rounds
        self._each_s = max(45.0, rounds / MEMBERS * ROUND_S / max(1, count))

    def run(self) -> dict[str, Any]:
        """The whole story; what it counted."""
        cluster = self.cluster
        cluster.run(START_S)
        for n in range(self._count):
            end = cluster.world.now + self._each_s
            self._restore(KINDS[(cluster.plan.seed + n) % len(KINDS)])
            cluster.run(end - cluster.world.now)
        while self._rounds() < self._wanted:
            cluster.run(1.0)
        cluster.heal()
        cluster.hush()
        cluster.run(SETTLE_S)
        counts = cluster.world.counts
        return {
            "seed": cluster.plan.seed,
            "rounds": self._rounds(),
            "kinds": dict(self.kinds),
            "forgotten": self.forgotten,
            "resumed": counts["resumed"],
            "forks_signed": self.signed.forks,
            "proofs": counts["fork_proof"],
            "differing": len(cluster.differing_copies()),
        }

    def _rounds(self) -> int:
        return sum(member.rounds for member in self.cluster.honest)

    def _restore(self, kind: str) -> None:
        """A disk goes back in time; the member is up again when this returns."""
        self.kinds[kind] += 1
        member, friend = self.random.sample(self.cluster.honest, 2)
        others = [other.key for other in self.cluster.honest if other is not member]
        apart = [key for key in others if key != friend.key]
        if kind == "stale_peer":  # a friend that learns of nothing while the backup grows old
            self._cut([friend.key], [member.key, *apart])
        backup = image(member.disk)
        self._pass(0.3 if kind == "cloned_disk" else 2.0, 3.0 if kind == "cloned_disk" else 30.0)
        member.crash()
        if kind == "older_generation":
            member.disk.lose(self.random.randint(1, 12))
        else:
            member.disk = backup
        if kind == "stale_peer":
            self.cluster.network.unite()
            self._cut(apart, [member.key, friend.key])
        elif kind == "cut_off":
            self._cut([member.key], others)
        if kind == "forgotten":  # nobody holds its stream any more
            self.forgotten += self._wait_until_forgotten(member.key)
        self._pass(0.5, 5.0)
        member.start()
        if kind in ("stale_peer", "cut_off"):
            self._pass(5.0, 25.0)
            self.cluster.network.unite()

    def _wait_until_forgotten(self, key: bytes) -> bool:
        """Whoever learned of a last entry late remembers for longer."""
        peers = [one.protocol for one in self.cluster.honest if one.protocol]
        for _ in range(6):
            self._pass(EXPIRY_S / 2, EXPIRY_S)
            if all(protocol.head(key) is None for protocol in peers):
                return True
        return False

    def _cut(self, one: list[bytes], other: list[bytes]) -> None:
        self.cluster.network.partition(one, other)

    def _pass(self, low: float, high: float) -> None:
        self.cluster.run(self.random.uniform(low, high))


class Half(Network):
    """The network as one of two processes with one key sees it: some peers are out of its reach."""

    def __init__(self, whole: Network, near: set[bytes], receive: Callable[[ev.Event], None]):
        self._whole, self._near, self._receive = whole, near, receive

    def dial(self, source: bytes, target: bytes) -> None:
        """Try to connect; whoever is out of reach does not answer."""
        if target in self._near:
            self._whole.dial(source, target)
        else:
            self._receive(ev.DialFailed(target, self._whole._world.now))

    def send(self, source: bytes, target: bytes, channel: str, data: bytes) -> None:
        """Carry one frame, if there is a connection."""
        if target in self._near:
            self._whole.send(source, target, channel, data)

    def ask(self, source: bytes, target: bytes, request: bytes, reply: Reply) -> None:
        """Carry a fetch request."""
        if target in self._near:
            self._whole.ask(source, target, request, reply)

    def close(self, source: bytes, target: bytes) -> None:
        """Cut one connection."""
        if target in self._near:
            self._whole.close(source, target)

    def is_connected(self, source: bytes, target: bytes) -> bool:
        """Whether a connection of ours is open."""
        return target in self._near and self._whole.is_connected(source, target)


class CloneWorld:
    """A member's disk is copied and both processes run, behind different peers."""

    def __init__(self, seed: int) -> None:
        self.cluster = Cluster(plan_of(seed))
        self.random = Random(seed)
        self.signed = Signed()
        for member in self.cluster.honest:
            watched(member, self.signed)

    def run(self) -> dict[str, Any]:
        """The whole story; what it counted."""
        cluster = self.cluster
        cluster.run(START_S + self.random.uniform(0.0, 10.0))
        twin = self._clone(self.random.choice(cluster.honest[1:]))
        started, noticed = cluster.world.now, None
        twin.start()
        while noticed is None and cluster.world.now < started + CLONE_S:
            cluster.run(1.0)
            if cluster.world.counts["clone_seen"]:
                noticed = cluster.world.now - started
        cluster.run(30.0)
        pair = [member for member in (*cluster.honest, twin) if member.key == twin.key]
        speaking = [one for one in pair if one.protocol and not one.protocol.stopped]
        return {
            "seed": cluster.plan.seed,
            "rounds": sum(member.rounds for member in (*cluster.honest, twin)),
            "noticed_s": noticed,
            "both_speak": len(speaking) > 1,
            "forks_signed": self.signed.forks,
            "proofs": cluster.world.counts["fork_proof"],
        }

    def _clone(self, member: Member) -> Member:
        """A second process from a copy of the disk, which takes over some of the peers."""
        cluster, pace = self.cluster, self.cluster.plan.pace
        others = [other.key for other in cluster.honest if other is not member]
        near = set(self.random.sample(others[1:], self.random.randint(1, 2)))
        whole, stage = cluster.network, member.stage
        for peer in near:
            whole.close(member.key, peer)
        member.stage = replace(stage, network=Half(whole, set(others) - near, member.receive))
        twin = Member(stage, member.person, lambda one: Publishing(one, pace))
        twin.stage = replace(stage, network=Half(whole, near, twin.receive))
        bootstrap = tuple((peer, (f"/dns4/{stage.names[peer]}/tcp/1",)) for peer in sorted(near))
        twin.settings = replace(member.settings, bootstrap=bootstrap)
        twin.disk = image(member.disk)
        whole.join(twin, near)
        return twin


class TwoFaced(Villain):
    """A member that publishes, forks when told, goes on as if nothing were, resumes when told."""

    def _round(self) -> None:
        self.member.later(ROUND_S, self._round)
        if self.member.may_publish(DIFFERENCE) and self.said:
            self.steer(self.step(0.01))

    def go_on(self) -> None:
        """Show everybody a next entry, signed, whatever our own protocol thinks of it."""
        protocol = self.member.protocol
        head = protocol.head(self.member.key) if protocol else None
        if head is not None:
            after = replace(head.header, seq=head.header.seq + 1, prev=head.header.hash)
            self.say(encode_sync(Heads((sign(after, self.member.person.sign),))))

    def resume(self) -> None:
        """Cite the proof, as an honest member would whose disk went back in time."""
        self._come_back()


class ForkerCluster(Cluster):
    """Its villain forks when told."""

    def _trade(self, n: int) -> Callable[[Member], Trade]:
        if n < self.plan.honest:
            return super()._trade(n)
        return lambda member: TwoFaced(member, ROUND_S, equivocate)


class ForkerWorld:
    """A forker among honest members: when has everybody the proof, and what weight has it then?"""

    def __init__(self, seed: int) -> None:
        self.cluster = ForkerCluster(plan_of(seed, byzantine=1))
        self.random = Random(seed)
        self.forker = self.cluster.villains[0]

    def run(self) -> dict[str, Any]:
        """The whole story; what it counted."""
        self.cluster.run(START_S + self.random.uniform(0.0, 10.0))
        equivocate(self.trade)
        proved_s = self._until(lambda: self._outcasts() == MEMBERS, 0.25, 8 * EXCHANGE_S)
        weighed_again = 0
        for _ in range(30):
            self.trade.go_on()
            self.cluster.run(1.0)
            weighed_again += MEMBERS - self._outcasts()
        back_s = self._until(self._is_back, 1.0, 8 * EXCHANGE_S)
        return {
            "seed": self.cluster.plan.seed,
            "proved_s": proved_s,
            "weighed_again": weighed_again,
            "back": back_s is not None,
            "back_s": back_s,
        }

    @property
    def trade(self) -> TwoFaced:
        """What the forker does in this life."""
        assert isinstance(self.forker.trade, TwoFaced)
        return self.forker.trade

    def _outcasts(self) -> int:
        """How many honest members give the forker no weight."""
        protocols = [member.protocol for member in self.cluster.honest]
        return sum(p is not None and p.weight_zero(self.forker.key) for p in protocols)

    def _is_back(self) -> bool:
        self.trade.resume()
        return self._outcasts() == 0

    def _until(self, holds: Callable[[], bool], step: float, limit: float) -> float | None:
        """Seconds until something holds; None if it never does."""
        started = self.cluster.world.now
        while not holds():
            if self.cluster.world.now - started > limit:
                return None
            self.cluster.run(step)
        return self.cluster.world.now - started
