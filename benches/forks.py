"""Restored backups, cloned disks, real forkers: who is proved a forker, how soon, in simulation.

    python benches/forks.py [--rounds 1000000] [--restores 1000] [--clones 100] [--forkers 100]
                            [--seed 0] [--minutes M] [--pieces FILE] [--json]

Small worlds of the production protocol, one seed each, with a stand-in signer. A member's disk goes
back in time in one of six ways while everybody publishes; every entry that an honest key ever
signed is compared with all others of that key, also where nobody saw it. Bounds: no two entries of
one incarnation and seq, no proof against an honest author, every copy equal to its author's log at
the end; a live clone noticed, by itself or its twin, and at most one of them going on; a real
forker proved at every honest member within two exchanges of digests, and of weight 0 until it
resumes. --pieces keeps what is done, and goes on from there.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.forks_worlds import EXCHANGE_S, KINDS, CloneWorld, ForkerWorld, RestoreWorld

ROUNDS_EACH = 1000  # honest rounds around one restore
RESTORES_EACH = 20  # of one world
BOUND_EXCHANGES = 2.0


def restores(seed: int, rounds: int, count: int) -> dict[str, Any]:
    """One world: ``count`` restores, evenly over ``rounds`` honest rounds."""
    return RestoreWorld(seed, rounds, count).run()


def clone(seed: int) -> dict[str, Any]:
    """One world with a live clone."""
    return CloneWorld(seed).run()


def forker(seed: int) -> dict[str, Any]:
    """One world with a forker."""
    return ForkerWorld(seed).run()


WORLDS: dict[str, Callable[..., dict[str, Any]]] = {
    "restores": restores,
    "clone": clone,
    "forker": forker,
}


def jobs(
    rounds: int, count: int, clones: int, forkers: int, seed: int
) -> list[tuple[str, tuple[int, ...]]]:
    """The worlds to run: a name of WORLDS and its arguments; kinds mixed."""
    worlds = max(1, -(-count // RESTORES_EACH))
    places: list[tuple[float, str, tuple[int, ...]]] = [
        (n / worlds, "restores", (seed + n, _share(rounds, worlds, n), _share(count, worlds, n)))
        for n in range(worlds)
    ]
    places += [(n / clones, "clone", (seed + n,)) for n in range(clones)]
    places += [(n / forkers, "forker", (seed + n,)) for n in range(forkers)]
    return [(name, arguments) for _, name, arguments in sorted(places)]


def _share(whole: int, parts: int, n: int) -> int:
    return whole // parts + (n < whole % parts)


class Pieces:
    """Results by job, in a file of JSON lines if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.done: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            self.done = {row["job"]: row["found"] for row in rows}

    def run(self, name: str, arguments: tuple[int, ...], may: bool) -> dict[str, Any] | None:
        """The result of a world; computed, unless it was before, if it still may be."""
        job = json.dumps([name, *arguments])
        if job in self.done or not may:
            return self.done.get(job)
        self.done[job] = found = WORLDS[name](*arguments)
        print(f"{name} {arguments}: {found}", file=sys.stderr, flush=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"job": job, "found": found}) + "\n")
        return found


def report(
    rounds: int, count: int, clones: int, forkers: int, seed: int,
    path: Path | None = None, minutes: float = math.inf,
) -> dict[str, Any]:  # fmt: skip
    """Run everything, or what the time allows; figures, and what did not hold."""
    pieces, found = Pieces(path), dict[str, list[dict[str, Any]]]()
    started, end = time.process_time(), time.monotonic() + 60 * minutes
    for name, arguments in jobs(rounds, count, clones, forkers, seed):
        result = pieces.run(name, arguments, may=time.monotonic() < end)
        if result is not None:
            found.setdefault(name, []).append(result)
    worlds, twins = found.get("restores", []), found.get("clone", [])
    forks = found.get("forker", [])
    kinds: Counter[str] = sum((Counter(world["kinds"]) for world in worlds), Counter())
    return {
        "seed": seed,
        "rounds": sum(world["rounds"] for world in (*worlds, *twins)),
        "restores": dict(kinds),
        "forgotten": sum(world["forgotten"] for world in worlds),
        "resumes": sum(world["resumed"] for world in worlds),
        "forks_signed": sum(world["forks_signed"] for world in (*worlds, *twins)),
        "proofs_against_honest": sum(world["proofs"] for world in (*worlds, *twins)),
        "copies_that_differ": sum(world["differing"] for world in worlds),
        "clones": len(twins),
        "clones_noticed": sum(twin["noticed_s"] is not None for twin in twins),
        "clones_both_speak": sum(twin["both_speak"] for twin in twins),
        "noticed_s": _worst(twin["noticed_s"] for twin in twins),
        "forkers": len(forks),
        "proved_everywhere": sum(fork["proved_s"] is not None for fork in forks),
        "proved_exchanges": _worst(_exchanges(fork["proved_s"]) for fork in forks),
        "weight_before_resume": sum(fork["weighed_again"] for fork in forks),
        "back_after_resume": sum(fork["back"] for fork in forks),
        "cpu_s": round(time.process_time() - started, 1),
    }


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(known), 2) if known else None


def _exchanges(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / EXCHANGE_S


def rows(found: dict[str, Any]) -> list[tuple[str, Any, str, bool]]:
    """What, figure, bound, whether it holds."""
    total, clones, forkers = sum(found["restores"].values()), found["clones"], found["forkers"]
    exchanges = found["proved_exchanges"]
    return [
        (f"forks signed in {total} restores and {clones} clonings", found["forks_signed"], "0",
         found["forks_signed"] == 0),
        (f"proofs against honest authors in {found['rounds']} rounds",
         found["proofs_against_honest"], "0", found["proofs_against_honest"] == 0),
        ("restored after everybody had forgotten them", found["forgotten"],
         f"{found['restores'].get('forgotten', 0)}",
         found["forgotten"] == found["restores"].get("forgotten", 0)),
        ("copies unlike their author's log at the end", found["copies_that_differ"], "0",
         found["copies_that_differ"] == 0),
        ("live clones noticed", found["clones_noticed"], f"{clones}",
         found["clones_noticed"] == clones),
        ("clones of which both go on", found["clones_both_speak"], "0",
         found["clones_both_speak"] == 0),
        ("forkers proved at every honest member", found["proved_everywhere"], f"{forkers}",
         found["proved_everywhere"] == forkers),
        ("slowest proof, in exchanges of digests", exchanges, f"<= {BOUND_EXCHANGES:g}",
         exchanges is None or exchanges <= BOUND_EXCHANGES),
        ("times a forker weighed before it resumed", found["weight_before_resume"], "0",
         found["weight_before_resume"] == 0),
        ("forkers followed again after their resume", found["back_after_resume"], f"{forkers}",
         found["back_after_resume"] == forkers),
    ]  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Figure beside bound."""
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(found["restores"].items()))
    lines = [f"restores: {kinds}; {found['resumes']} resumes; slowest clone {found['noticed_s']} s"]
    for what, figure, bound, holds in rows(found):
        lines.append(f"{what:52} {figure!s:>8}  bound {bound:>8}  {'' if holds else 'MISSED'}")
    return "\n".join([*lines, f"{found['cpu_s']} s of this machine"])


def main() -> int:
    """Parse, run, print; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=1_000_000, help="honest rounds, in all")
    parser.add_argument("--restores", type=int, default=1000, help=f"of {', '.join(KINDS)}")
    parser.add_argument("--clones", type=int, default=100, help="worlds with a live clone")
    parser.add_argument("--forkers", type=int, default=100, help="worlds with a forker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no world after")
    parser.add_argument("--pieces", type=Path, help="keep results here, and go on from them")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    said = f"seed {asked.seed}: {asked.rounds} rounds, {asked.restores} restores"
    print(f"{said}, {asked.clones} clones, {asked.forkers} forkers", file=sys.stderr, flush=True)
    found = report(
        asked.rounds, asked.restores, asked.clones, asked.forkers, asked.seed, asked.pieces,
        asked.minutes,
    )  # fmt: skip
    print(json.dumps(found) if asked.json else table(found))
    return 0 if all(holds for *_, holds in rows(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
