"""A whole simulated network: who takes part, what goes wrong, what must hold at the end.

A Plan and its seed say everything. ``Cluster`` runs it; the checks look from outside, as nobody
in the network can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.merkle import merkle_root
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.codec import payload_bytes
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.attacks import ATTACKS
from tapestry_p2p.sim.member import Member, Person, Work
from tapestry_p2p.sim.network import Network, Weather
from tapestry_p2p.sim.quadratic import Quadratic, centres
from tapestry_p2p.sim.world import World

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """One simulated run. Times are seconds of virtual time."""

    seed: int = 0
    honest: int = 5
    byzantine: int = 0
    attack: str = "mirror"
    d: int = 64  # parameters
    spread: float = 0.3  # of the members' centres around their common point
    round_s: float = 1.0
    slower: dict[int, float] = field(default_factory=dict)  # member -> how many times slower
    batched: dict[tuple[int, int], int] = field(default_factory=dict)  # link -> frames at a time
    loom: LoomSettings = field(default_factory=LoomSettings)
    weather: Weather = field(default_factory=Weather)
    ring: int = 16
    real_signatures: bool = False  # Ed25519; otherwise hashes, ten times cheaper


class Cluster:
    """All members of a plan. Members 0 .. honest-1 are honest, the rest attack."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = World(plan.seed)
        self.network = Network(self.world, plan.weather)
        count = plan.honest + plan.byzantine
        self.genesis: Vector = np.zeros(plan.d, dtype=np.float32)
        self.centres = centres(plan.honest, plan.d, plan.spread, plan.seed)
        people = [self._person(n) for n in range(count)]
        settings = self._settings(people)
        self.members = [
            Member(
                self.world, self.network, settings, plan.loom, self.genesis, person, self._work(n)
            )
            for n, person in enumerate(people)
        ]
        for (source, target), frames in plan.batched.items():
            self.network.batch(people[source].key, people[target].key, frames)
        for member in self.members:
            member.start()

    def _person(self, n: int) -> Person:
        me = Identity(sha256(f"{self.plan.seed} {n}".encode()).digest())
        if self.plan.real_signatures:
            return Person(f"m{n}", me.public_key, me.sign, identity.verify)
        return Person(f"m{n}", me.public_key, lambda m: _mark(me.public_key, m), _is_marked)

    def _settings(self, people: list[Person]) -> Settings:
        codec = self.plan.loom.codec
        return Settings(
            network=sha256(b"simulated network").digest(),
            codecs={codec: payload_bytes(codec, self.plan.d)},
            genesis_root=merkle_root(PublicCopy(self.genesis).leaves()),
            ring=self.plan.ring,
            bootstrap=((people[0].key, ("/dns4/m0/tcp/1",)),),
        )

    def _work(self, n: int) -> Work:
        pace = self.plan.round_s * self.plan.slower.get(n, 1.0)
        if n < self.plan.honest:
            return Work(Quadratic(self.centres[n]), pace)
        return Work(Quadratic(self.genesis), pace, ATTACKS[self.plan.attack])

    # -- running

    @property
    def honest(self) -> list[Member]:
        """Those who follow the rules."""
        return self.members[: self.plan.honest]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(self.world.now + seconds)

    def at(self, second: float, action: Callable[[], None]) -> None:
        """Plan something for a later moment."""
        self.world.after(second - self.world.now, action)

    def heal(self) -> None:
        """Good weather, no partition, everybody up."""
        self.network.heal()
        for member in self.members:
            member.crash_in = None
            member.start()

    def hush(self) -> None:
        """Nobody trains or publishes any more; what is under way still arrives."""
        for member in self.members:
            member.hushed = True

    # -- looking from outside

    @property
    def optimum(self) -> Vector:
        """Where the honest sum is least: the mean of their centres, float32[d]."""
        return np.asarray(np.mean(self.centres, axis=0), dtype=np.float32)

    def mean(self) -> Vector:
        """The honest members' average x, float32[d]."""
        return np.asarray(np.mean([m.x for m in self.honest], axis=0), dtype=np.float32)

    def distance(self, n: int | None = None) -> float:
        """How far a member (or the honest average) is from the optimum; genesis is at 1."""
        x = self.mean() if n is None else self.members[n].x
        whole = float(np.linalg.norm(self.genesis - self.optimum))
        return float(np.linalg.norm(x - self.optimum)) / whole

    def consensus_distance(self) -> float:
        """Honest members' mean distance to their average, relative to its norm."""
        mean = self.mean()
        apart = np.mean([float(np.linalg.norm(m.x - mean)) for m in self.honest])
        return float(apart) / float(np.linalg.norm(mean))

    def differing_copies(self) -> list[str]:
        """Every followed copy that is not, bit for bit, what its author's log adds up to."""
        wrong: list[str] = []
        for author in self.honest:
            own = author.disk.own_copy(self.genesis)
            seq = author.disk.entries[-1][0].header.seq if author.disk.entries else -1
            for member in self.honest:
                copy = member.copies.get(author.key)
                if member is author:
                    continue
                if copy is None or copy.seq != seq:
                    stands = None if copy is None else copy.seq
                    wrong.append(f"{member.person.name}: {author.person.name} {stands} of {seq}")
                elif copy.public.vector.tobytes() != own.vector.tobytes():
                    wrong.append(f"{member.person.name}: {author.person.name} differs at {seq}")
        return wrong

    def doubly_signed(self) -> list[str]:
        """Honest members against whom somebody holds a fork proof."""
        names = {member.key: member.person.name for member in self.honest}
        proofs = [p for m in self.members if m.protocol for p in m.protocol.snapshot().proofs]
        return sorted({names[proof.author] for proof in proofs if proof.author in names})

    def blamed(self) -> int:
        """How many REJECTs honest members gave."""
        tables = [m.protocol.statistics()["reject"] for m in self.honest if m.protocol]
        return sum(sum(table.values()) for table in tables)


def _mark(key: bytes, message: bytes) -> bytes:
    """A cheap stand-in for a signature; only for runs in which nobody forges any."""
    return sha256(key + message).digest() * 2


def _is_marked(key: bytes, signature: bytes, message: bytes) -> bool:
    return signature == _mark(key, message)
