"""A network is cut in two for 100 rounds, then one again: how soon is it as if nothing had been?

    python benches/partitions.py [--seeds 1000] [--control] [--json] [--pieces FILE] [--write-docs]

Simulated worlds on the production protocol and mixing, one a seed: 4 to 6 members, where the cut
runs, the codec, the weather and rounds of 4 or 8 s are drawn from it. Members learn quadratics
with noise, so that a calm network too stands apart a little. Each world runs twice, once whole
and once cut. (A cut peer is dialled again after 30 s at most: with rounds of 1 s that alone
would be 30 rounds.)

  loss           1/2 ||x - c||^2, the mean over all members' models x and all members' optima c
  disagreement   members' mean distance to their average, relative to its norm

The clean value is the mean over 40 rounds of the whole run, after 60. A world has recovered in k
rounds if both figures of the cut run, each the mean over rounds k to k + 4 after the heal, are
at most 1.1 times the clean value. Bound: k <= 10 in every world, and while they were apart both
halves went on. ``--control`` heals nothing: then every world must miss the bound, or the bench
proves nothing. Exit code 1 if a world misses it (with ``--control``: if one does not).
"""

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benches.robustness_docs import write_docs
from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.network import Weather
from tapestry_p2p.sim.quadratics import Quadratics
from tapestry_p2p.sim.rounds import Pace

DOCS = Path(__file__).parents[1] / "docs" / "chaos.md"
D, SPREAD, NOISE = 64, 0.3, 0.05
BEFORE, APART, AFTER = 20, 100, 20  # rounds
WITHIN, ROUNDS_MAX, WINDOW = 1.1, 10, 5
TICK_S = 1.0  # the daemon's is .25: what is due is noticed later here, never sooner
CLEAN = 40  # rounds that the clean value is the mean of
NEVER = 99


@dataclass(frozen=True)
class World:
    """What is drawn from a seed."""

    seed: int
    members: int
    left: int  # members on one side of the cut
    codec: str
    loss: float  # of frames
    round_s: float

    @property
    def plan(self) -> Plan:
        """For the simulator."""
        return Plan(
            seed=self.seed, honest=self.members, loom=LoomSettings(codec=self.codec),
            weather=Weather(loss=self.loss), tick_s=TICK_S,
            pace=Pace(round_s=self.round_s, parts=1, news_share=0.5),
        )  # fmt: skip


def draw(seed: int) -> World:
    """The world of a seed."""
    random = Random(seed)
    members = random.randint(4, 6)
    return World(
        seed, members, random.randint(1, members // 2), random.choice(["2bit", "int8", "fp32"]),
        random.choice([0.0, 0.0, 0.02, 0.05]), random.choice([4.0, 8.0]),
    )  # fmt: skip


class Run:
    """One world, round by round: loss and disagreement after each."""

    def __init__(self, world: World) -> None:
        self._world = world
        learner = Quadratics(world.members, D, SPREAD, world.seed, noise=NOISE)
        self.cluster = Cluster(world.plan, learner)
        self._centres = learner.centres.astype(np.float64)
        self.losses: list[float] = []
        self.apart: list[float] = []

    def rounds(self, count: int) -> None:
        """Let ``count`` rounds pass."""
        for _ in range(count):
            self.cluster.run(self._world.round_s)
            x = self.cluster.models().astype(np.float64)
            off = x[:, None] - self._centres[None]
            self.losses.append(0.5 * float((off**2).sum(axis=2).mean()))
            self.apart.append(self.cluster.consensus_distance())

    def cut(self) -> None:
        """Nothing passes between the two sides."""
        keys = [member.key for member in self.cluster.members]
        left = self._world.left
        self.cluster.network.partition(keys[:left], keys[left:])

    def published(self) -> list[int]:
        """Rounds that each member has done."""
        return [member.rounds for member in self.cluster.members]


@dataclass(frozen=True)
class Outcome:
    """What one world showed. Ratios are to the clean value."""

    seed: int
    loss_rounds: int  # until the loss was within 1.1; NEVER: not in 16 rounds
    apart_rounds: int  # until the disagreement was
    worst_loss: float  # just before the heal
    worst_apart: float
    end_loss: float  # in the window that begins 10 rounds after
    end_apart: float
    least_share: float  # of the rounds that should be, done by the slowest member while apart
    world: str

    @property
    def rounds(self) -> int:
        """Until both were."""
        return max(self.loss_rounds, self.apart_rounds)

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        return self.rounds <= ROUNDS_MAX and self.least_share >= 0.9


def try_world(seed: int, heals: bool = True) -> Outcome:
    """Run a world twice, and compare."""
    world = draw(seed)
    clean = Run(world)
    clean.rounds(BEFORE + 2 * CLEAN)
    run = Run(world)
    run.rounds(BEFORE)
    run.cut()
    before = run.published()
    run.rounds(APART)
    done = [now - then for now, then in zip(run.published(), before, strict=True)]
    if heals:
        run.cluster.network.unite()
    run.rounds(AFTER)
    loss = _ratios(run.losses, clean.losses)
    apart = _ratios(run.apart, clean.apart)
    return Outcome(
        seed, _first(loss), _first(apart), loss[-AFTER - 1], apart[-AFTER - 1],
        _window(loss, ROUNDS_MAX), _window(apart, ROUNDS_MAX), min(done) / APART, str(world),
    )  # fmt: skip


def _ratios(values: list[float], clean: list[float]) -> list[float]:
    usual = statistics.mean(clean[-CLEAN:])
    return [value / usual for value in values]


def _window(ratios: list[float], k: int) -> float:
    """The mean over rounds k to k + WINDOW - 1 after the heal."""
    after = ratios[-AFTER:]
    return statistics.mean(after[k - 1 : k - 1 + WINDOW])


def _first(ratios: list[float]) -> int:
    """The first k for which the window is within bounds."""
    for k in range(1, AFTER - WINDOW + 2):
        if _window(ratios, k) <= WITHIN:
            return k
    return NEVER


# ---- all worlds ----------------------------------------------------------------------------------


def run_all(seeds: Iterable[int], heals: bool, pieces: Path | None) -> list[Outcome]:
    """One after the other; what ``pieces`` holds is not done again, what is done is added to it."""
    held: dict[int, Outcome] = {}
    if pieces and pieces.exists():
        rows = [Outcome(**json.loads(line)) for line in pieces.read_text().splitlines()]
        held = {row.seed: row for row in rows}
    found = []
    for seed in seeds:
        outcome = held.get(seed)
        if outcome is None:
            outcome = try_world(seed, heals)
            if pieces:
                with pieces.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
        found.append(outcome)
    return found


def report(outcomes: list[Outcome], heals: bool = True) -> dict[str, Any]:
    """Figures; ``sound`` is what the exit code says."""
    held = sum(outcome.holds for outcome in outcomes)
    rounds = sorted(outcome.rounds for outcome in outcomes)
    worst = sorted(outcomes, key=lambda o: (o.rounds, o.end_apart), reverse=True)[:5]
    return {
        "worlds": len(outcomes), "within the bound": held,
        "rounds": {
            "median": statistics.median(rounds), "p99": rounds[min(len(rounds) - 1,
            int(0.99 * len(rounds)))], "most": rounds[-1], "bound": ROUNDS_MAX,
        },
        "loss rounds": dict(sorted(Counter(o.loss_rounds for o in outcomes).items())),
        "disagreement rounds": dict(sorted(Counter(o.apart_rounds for o in outcomes).items())),
        "apart before the heal, times the clean value": round(
            statistics.median(o.worst_apart for o in outcomes), 2),
        "slowest member while apart, share of its rounds": min(o.least_share for o in outcomes),
        "worst": [asdict(o) for o in worst],
        "sound": held == (len(outcomes) if heals else 0),
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """As text."""
    rounds = found["rounds"]
    lines = [
        f"worlds                                   {found['worlds']}",
        f"... as if nothing had been in <= 10      {found['within the bound']}",
        f"rounds: median, p99, most                {rounds['median']:g}, {rounds['p99']},"
        f" {rounds['most']}   <= {rounds['bound']}",
        f"rounds until the loss was: worlds        {found['loss rounds']}",
        f"rounds until the disagreement was        {found['disagreement rounds']}",
        "disagreement before the heal, median     "
        f"{found['apart before the heal, times the clean value']} times the clean one",
        "slowest member while apart               "
        f"{found['slowest member while apart, share of its rounds']:.2f} of its rounds",
        "worst:",
    ]
    lines += [
        f"  {o['world']}: loss {o['loss_rounds']}, disagreement {o['apart_rounds']} rounds;"
        f" after 10: {o['end_loss']:.3f}, {o['end_apart']:.3f}"
        for o in found["worst"]
    ]
    return "\n".join(lines)


def main() -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--control", action="store_true", help="never heal: all must miss the bound"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write-docs", action="store_true", help=f"the table into {DOCS.name}")
    parser.add_argument("--pieces", type=Path, help="keep what is done in this file")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    found = report(run_all(seeds, not asked.control, asked.pieces), not asked.control)
    if asked.write_docs:
        write_docs(DOCS, "partitions", f"```\n{table(found)}\n```")
    print(json.dumps(found, indent=1) if asked.json else table(found))
    return 0 if found["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
