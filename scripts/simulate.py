"""Tell simulated stories: python scripts/simulate.py FIRST_SEED [COUNT].

Prints each seed before its story, then what broke; at the end what was exercised. Exit code 1 if
anything broke, or if all stories together left out something that must happen.
"""

import sys
from collections import Counter

from tapestry_p2p.sim.story import Outcome, tell, unexercised


def main(first: int, count: int) -> int:
    """Tell ``count`` stories from seed ``first`` on."""
    outcomes: list[Outcome] = []
    for seed in range(first, first + count):
        print(f"seed {seed}", flush=True)
        outcomes.append(tell(seed))
        for fault in outcomes[-1].broken:
            print(f"  BROKEN {fault}")
    total: Counter[str] = sum((outcome.counts for outcome in outcomes), Counter())
    print(", ".join(f"{what} {times}" for what, times in sorted(total.items())))
    missing = unexercised(outcomes)
    if missing:
        print(f"never exercised: {', '.join(missing)}")
    return int(bool(missing) or any(outcome.broken for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10))
