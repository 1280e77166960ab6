"""Pin the golden traces anew: python tests/sim/make_traces.py

A change of the protocol changes them, and nothing else may. Look at the difference of the counts
before you commit it.
"""

import json
from pathlib import Path

from tapestry_p2p.sim.story import draw, tell

PATH = Path(__file__).parents[1] / "vectors" / "traces.json"
SEEDS = (4, 10)


def traces() -> dict[str, dict[str, object]]:
    """For each seed the hash of its story, and how often things happened in it."""
    outcomes = {str(seed): tell(draw(seed)) for seed in SEEDS}
    return {
        seed: {"trace": outcome.trace, "counts": dict(sorted(outcome.counts.items()))}
        for seed, outcome in outcomes.items()
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(traces(), indent=1) + "\n")
