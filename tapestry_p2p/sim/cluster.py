"""A whole simulated network: who takes part, what goes wrong, what must hold at the end.

A Plan and its seed say everything. ``Cluster`` runs it; the checks look from outside, as nobody
in the network can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.codec import payload_bytes
from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.graphs import Graph
from tapestry_p2p.sim.member import Member, Trade
from tapestry_p2p.sim.network import Network, Weather
from tapestry_p2p.sim.publishing import Publishing
from tapestry_p2p.sim.quadratics import Quadratics
from tapestry_p2p.sim.rounds import Pace, Rounds
from tapestry_p2p.sim.stage import Stage, person, shared_parser
from tapestry_p2p.sim.training import Learner, Training
from tapestry_p2p.sim.vault import Vault
from tapestry_p2p.sim.villains import Villain, deed_of, is_learned
from tapestry_p2p.sim.world import World

Vector = NDArray[np.float32]
DIGEST_EVERY_S = 15.0  # as the daemon does
REACH_S = 4.0  # on a declared graph: who did not answer by then is out of reach


@dataclass(frozen=True)
class Plan:
    """One simulated run. Times are seconds of virtual time."""

    seed: int = 0
    honest: int = 5
    byzantine: int = 0
    attack: str = "mirror"  # of attacks.py or villains.py
    d: int = 64  # parameters, where no learner is handed in
    spread: float = 0.3  # of the members' centres around their common point, likewise
    pace: Pace = field(default_factory=Pace)
    slower: dict[int, float] = field(default_factory=dict)  # member -> how many times slower
    batched: dict[tuple[int, int], int] = field(default_factory=dict)  # link -> frames at a time
    late: dict[int, float] = field(default_factory=dict)  # member -> when it first starts
    loom: LoomSettings = field(default_factory=LoomSettings)
    weather: Weather = field(default_factory=Weather)
    links: int = 0  # of each member, chosen by secrets; 0: everyone follows everyone
    inviters: int = 0  # of each member, drawn from those with lower numbers; 0: member 0 alone
    graph: Graph | None = None  # declared: nobody else is within reach; honest members come first
    ring: int = 16
    tick_s: float = 0.25  # between two ticks of a member; the daemon's
    real_signatures: bool = False  # Ed25519; otherwise hashes, a hundred times cheaper


class Cluster:
    """All members of a plan. Members 0 .. honest-1 are honest, the rest attack."""

    def __init__(self, plan: Plan, learner: Learner | None = None) -> None:
        self.plan = plan
        self.world = world = World(plan.seed)
        self.learner = learner or Quadratics(plan.honest, plan.d, plan.spread, plan.seed)
        people = [
            person(plan.seed, n, plan.real_signatures) for n in range(plan.honest + plan.byzantine)
        ]
        vault = Vault(4 * plan.ring * len(people))
        genesis = vault.start(self.learner.genesis)
        self.network = Network(world, plan.weather)
        self.training = Training(self.learner)
        stage = Stage(
            world, self.network, self._settings(genesis.root), plan.loom, genesis, vault,
            self.training, shared_parser(), {one.key: one.name for one in people},
            plan.tick_s,
        )  # fmt: skip
        self.members = [Member(stage, one, self._trade(n)) for n, one in enumerate(people)]
        for n, member in enumerate(self.members):
            near = self._within_reach(n)
            member.settings = replace(member.settings, **self._topology(n, near or []))
            reach = None if near is None else {people[other].key for other in near}
            self.network.join(member, reach)
        for (source, target), frames in plan.batched.items():
            self.network.batch(people[source].key, people[target].key, frames)
        for n, member in enumerate(self.members):
            if n in plan.late:
                world.after(plan.late[n], self._join_late, member)
            else:
                member.start()

    def _settings(self, genesis_root: bytes) -> Settings:
        codec = self.plan.loom.codec
        return Settings(
            network=sha256(b"simulated network").digest(),
            codecs={codec: payload_bytes(codec, len(self.learner.genesis))},
            genesis_root=genesis_root,
            ring=self.plan.ring,
            digest_every_s=DIGEST_EVERY_S,
        )

    def _topology(self, n: int, near: list[int]) -> dict[str, Any]:
        """What one member's protocol is told of whom there is to meet."""
        plan, members = self.plan, self.plan.honest + self.plan.byzantine
        if plan.graph is not None:
            met = {"all_to_all_max": 2, "k": max(2, len(near)), "link_timeout_s": REACH_S}
        elif plan.links:
            near, met = [0], {"all_to_all_max": 2, "k": plan.links, "f": plan.loom.f}
        else:
            near, met = [0], {"all_to_all_max": members, "streams_max": max(64, members)}
        peers_max = max(64, members)
        if plan.inviters:
            before = range(n) or range(1, 2)  # the first two know each other
            near = Random(f"{plan.seed} {n}").sample(before, min(plan.inviters, len(before)))
            peers_max = 64
        addresses = [(self.members[m].key, (f"/dns4/m{m}/tcp/1",)) for m in near]
        return {"bootstrap": tuple(addresses), "peers_max": peers_max, **met}

    def _within_reach(self, n: int) -> list[int] | None:
        """Whom a member can connect to at all; None: everybody."""
        if self.plan.graph is None:
            return None
        return [int(other) for other in np.flatnonzero(self.plan.graph.weights[n])]

    def _trade(self, n: int) -> Callable[[Member], Trade]:
        plan = self.plan
        if n < plan.honest or is_learned(plan.attack):
            pace = replace(plan.pace, slower=plan.slower.get(n, 1.0))
            if not pace.mixes:
                return lambda member: Publishing(member, pace)
            return lambda member: Rounds(member, n, pace)
        deed = deed_of(plan.attack)
        return lambda member: Villain(member, plan.pace.round_s, deed)

    def _join_late(self, member: Member) -> None:
        self.world.note("joined_late", member.name)
        member.joins_late = True
        member.start()

    # -- running

    @property
    def honest(self) -> list[Member]:
        """Those who follow the rules."""
        return self.members[: self.plan.honest]

    @property
    def villains(self) -> list[Member]:
        """Those who do not."""
        return self.members[self.plan.honest :]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(self.world.now + seconds)

    def at(self, second: float, action: Callable[[], None]) -> None:
        """Plan something for a later moment."""
        self.world.at(second, action)

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

    def models(self) -> NDArray[np.float32]:
        """Where the honest members are, float32[honest, d]."""
        return np.stack([member.x for member in self.honest])

    def mean(self) -> Vector:
        """The honest members' average x, float32[d]."""
        return np.asarray(self.models().mean(axis=0, dtype=np.float64), dtype=np.float32)

    def measure(self) -> dict[str, float]:
        """The learner's measures of the honest average."""
        return {name: float(m[0]) for name, m in self.learner.evaluate(self.mean()[None]).items()}

    def distance(self, n: int | None = None) -> float:
        """How far a member (or the honest average) is from the optimum of the quadratics."""
        x = self.mean() if n is None else self.members[n].x
        return float(self.learner.evaluate(x[None])["distance"][0])

    def consensus_distance(self) -> float:
        """Honest members' mean distance to their average, relative to its norm; 0 if both are."""
        mean = self.mean()
        apart = float(np.linalg.norm(self.models() - mean, axis=1).mean())
        return apart / float(np.linalg.norm(mean)) if apart else 0.0

    def differing_copies(self) -> list[str]:
        """Every followed copy that is not, bit for bit, what its author's log adds up to."""
        wrong: list[str] = []
        for author in self.honest:
            seq = author.disk.entries[-1].header.seq if author.disk.entries else -1
            for member in self.honest:
                held = member.copies.get(author.key)
                if member is author or not self._should_hold(member, author):
                    continue
                if held is None or held.seq != seq:
                    stands = None if held is None else held.seq
                    wrong.append(f"{member.name}: {author.name} {stands} of {seq}")
                elif held.point.vector.tobytes() != author.own.vector.tobytes():
                    wrong.append(f"{member.name}: {author.name} differs at {seq}")
        return wrong

    def _should_hold(self, member: Member, author: Member) -> bool:
        """Everybody follows everybody, or each its neighbours."""
        if self.plan.graph is None and not self.plan.links:
            return True
        return member.protocol is not None and author.key in member.protocol.followed()

    def doubly_signed(self) -> list[str]:
        """Honest members against whom somebody holds a fork proof."""
        names = {member.key: member.name for member in self.honest}
        proofs = [p for m in self.members if m.protocol for p in m.protocol.snapshot().proofs]
        return sorted({names[proof.author] for proof in proofs if proof.author in names})

    def verdicts(self) -> dict[str, Counter[str]]:
        """How often honest members gave each verdict for each reason, since they last started."""
        total = {name: Counter[str]() for name in ("accept", "ignore", "reject")}
        for member in self.honest:
            if member.protocol is not None:
                table = member.protocol.statistics()
                for name, counts in total.items():
                    counts.update(table[name])
        return total

    def wrongly_barred(self) -> list[str]:
        """Honest members whom honest ones dropped for what they said."""
        names = {member.key: member.name for member in self.honest}
        return [
            f"{member.name}: {names[peer]} {reason}"
            for member in self.honest
            for peer, reason in member.dropped
            if peer in names and reason in ("too_many_rejects", "barred")
        ]

    def blamed(self) -> int:
        """How many REJECTs honest members gave."""
        return self.verdicts()["reject"].total()

    def bits(self) -> str:
        """Hash of every honest member's model and copies: the same seed on the same machine."""
        digest = sha256(self.models().tobytes())
        for member in self.honest:
            for author, held in sorted(member.copies.items()):
                digest.update(author + held.point.root)
        return digest.hexdigest()
