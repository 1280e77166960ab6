"""Training without an end on the Loom, against a cosine that knows its end: for benches/loom.py.

The arms, averages and the schedule-free optimizer are those of benches/schedules.py. What counts is
the mean over members of the model that an arm would show: the newest parameters of the cosine, an
average of past rounds of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from benches import schedules
from benches.loom_setup import Field, Outcome, Setup, Watch
from benches.loom_tables import Case
from benches.robustness_docs import markdown
from tapestry_p2p.mix.codec import payload_bytes

ARMS = {  # rates that are tried; the best counts
    "cosine": (0.0025, 0.005),
    "constant": (0.0025,),
    "inverse sqrt": (0.005,),
    "schedule-free": (0.005,),
}


def endless(setup: Setup, seeds: Sequence[int]) -> list[Case]:
    """Every arm with every rate of its own."""
    cases = []
    for arm, rates in ARMS.items():
        for rate in rates:
            chosen = replace(setup, rate=rate, schedule=arm)
            cases += [Case(arm, "endless", "synchronous", chosen, seed, run) for seed in seeds]
    return cases


def run(learning: Field, setup: Setup) -> Outcome:
    """Synchronous rounds with the Loom's defaults."""
    x = learning.start()
    watch, mixer = Watch(learning), schedules.Network(learning.genesis, setup.members)
    averages = schedules.Averages(x)
    for done in range(setup.rounds):
        y = learning.crowd.train(x, setup.inner_steps, done * setup.inner_steps)
        averages.follow(y)
        x = mixer.round(y)
    models = schedules.shown(setup.schedule, learning.crowd, y, averages)
    shown = {name: float(learning.judge(rows.mean(axis=0)).mean()) for name, rows in models.items()}
    d = len(learning.genesis)
    size = payload_bytes("2bit", d) / d
    outcome = watch.stop(learning.outcome(x, range(setup.members), size))
    return replace(outcome, shown=shown)


def endless_lines(cases: Sequence[Case], found: Mapping[str, Any], setup: Setup) -> list[str]:
    """A row an arm and kind of model; how much worse than the best cosine."""
    losses: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for arm, rates in ARMS.items():
        for rate in rates:
            runs = [found[c.key] for c in cases if (c.row, c.setup.rate) == (arm, rate)
                    and c.key in found]  # fmt: skip
            for name in runs[0]["shown"] if runs else ():
                loss = fmean(one["shown"][name] for one in runs)
                losses.setdefault((arm, name), []).append((loss, rate, len(runs)))
    goal = min(losses.get(("cosine", "newest"), []), default=None)
    lines = []
    for (arm, name), tried in losses.items():
        loss, rate, seeds = min(tried)
        worse = f"{100 * (loss / goal[0] - 1):+.1f} %" if goal else ""
        lines.append([arm, name, f"{loss:.3f}", worse, f"{rate:g}", str(seeds)])
    head = ("schedule", "model shown", "bits per byte", "against cosine", "best rate", "seeds")
    return markdown(head, lines)
