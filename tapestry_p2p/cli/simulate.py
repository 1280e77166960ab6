"""``simulate``: a whole network in virtual time, in this process, from one seed.

Says first what it will run, shows what came of it. The worlds are sim/'s, the learning is learn/'s.
"""

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tapestry_p2p.cli.output import note, say
from tapestry_p2p.cli.simulation.plan import (
    DEFAULT_ROUNDS,
    PICTURES,
    Asked,
    check,
    refused,
    trial_of,
)
from tapestry_p2p.errors import FAILURE, OK

SHOWN = 8  # points of a curve on the terminal


def simulate(
    *,
    task: str = "quadratics",
    members: int = 8,
    rounds: int | None = None,
    topology: str = "complete",
    attack: str | None = None,
    byzantine: int = 0,
    tolerate: int | None = None,
    rule: str = "cs_plus",
    codec: str = "2bit",
    speeds: str = "",
    loss: float = 0.0,
    churn: float = 0.0,
    seed: int = 0,
    inner_steps: int | None = None,
    split: str = "dirichlet:1",
    data: Path | None = None,
    runs: int = 10,
    out: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Run a network in virtual time, from one seed: the production protocol and mixing.

    Example: tapestry simulate --task digits --members 8 --byzantine 1 --attack alie+ --out DIR

    Parameters
    ----------
    task
        quadratics (exact), digits, fashion or language (learning in the loop), average (mixing
        alone, attacks line-searched), protocol (nothing mixed: how fast), chaos (drawn faults).
    members
        How many, the Byzantine ones counted.
    rounds
        Of a member at full speed; 60 unless given.
    topology
        complete, keyed:K (K links chosen by secrets), or declared: ring, regular:K, two-worlds:K,
        dumbbell, er, two-castle.
    attack
        What the hostile ones do; all, or one of more, for average.
    byzantine
        How many are hostile.
    tolerate
        f, the hostile neighbours that the rule reckons with; as many as a member has unless given.
    rule
        The mixing rule.
    codec
        How differences are coded.
    speeds
        Share of full speed of each honest member, such as 1,1,0.25.
    loss
        Share of the frames that are lost.
    churn
        Share of the members that go down, and come back, in 60 rounds.
    seed
        Draws everything.
    inner_steps
        Steps of a round; 10 with learning, else 4.
    split
        Of pictures among the members: iid, labels or dirichlet:ALPHA.
    data
        A folder: for fashion its pictures (tapestry data fashion), for language one .txt a member
        instead of the texts in the package.
    runs
        With chaos: so many seeds, from --seed on.
    out
        Write curves.json and curves.svg into this folder.
    as_json
        Print the report on stdout.
    """
    learns = task in (*PICTURES, "language")
    steps = (10 if learns else 4) if inner_steps is None else inner_steps
    asked = Asked(
        task, members, rounds, topology, attack, byzantine, tolerate, rule, codec, speeds, loss,
        churn, seed, steps, split, data,
    )  # fmt: skip
    check(asked)
    if runs < 1:
        raise refused(f"runs >= 1 does not hold: {runs}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if task == "average":
        return _average(asked, out, as_json)
    if task == "chaos":
        return _chaos(asked, runs, out, as_json)
    return _world(asked, out, as_json)


# -- a world


def _world(asked: Asked, out: Path | None, as_json: bool) -> int:
    from tapestry_p2p.sim.experiment import HEAL_ROUNDS, experiment

    trial, word = trial_of(asked)
    plan = trial.plan
    hostile = f", {plan.byzantine} of them {plan.attack}" if plan.byzantine else ""
    said = (
        f"seed {asked.seed}: {asked.task}, {asked.members} members{hostile}, {asked.topology},"
        f" {asked.rule} f {plan.loom.f} ({word}), {asked.codec}, loss {asked.loss:g},"
        f" churn {asked.churn:g}, speeds {asked.speeds or 'equal'}, {trial.rounds} rounds"
        + (f" and {HEAL_ROUNDS} healed" if trial.is_faulty else "")
    )
    (note if as_json else say)(said)
    learner = None
    if asked.task in (*PICTURES, "language"):
        from tapestry_p2p.cli.simulation.learners import make_learner

        learner = make_learner(asked, trial.end * asked.inner_steps)
    _spare_the_collector()
    started = time.process_time()
    found = experiment(trial, learner, _progress(trial.end))
    report = {
        "task": asked.task,
        "said": said,
        "options": _options(asked),
        "certificate": word,
        "f": plan.loom.f,
        "cpu_s": round(time.process_time() - started, 3),
        **found,
    }
    if out is not None:
        from tapestry_p2p.cli.simulation.curves import draw_curves

        _write(report, out, draw_curves)
    if as_json:
        print(json.dumps(report))
    else:
        say(*_told(report))
    return FAILURE if report["broken"] else OK


def _told(report: dict[str, Any]) -> list[str]:
    """The report in a few lines."""
    curve = report["curve"]
    names = list(curve[0]["mean"])
    lines = ["  ".join(["round", *(f"{name:>14}" for name in names), "consensus distance"])]
    places = sorted({round(i * (len(curve) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    for point in (curve[place] for place in places):
        values = [f"{point['mean'][name]:14.4f}" for name in names]
        apart = f"{point['consensus_distance']:.4f}"
        lines.append("  ".join([f"{point['round']:5}", *values, apart]))
    reached = ", ".join(f"{name} {count}" for name, count in report["exercise"].items() if count)
    lines += [
        f"reached: {reached}",
        f"{report['cpu_s']:.1f} s of this machine; trace {report['trace']}",
    ]
    return lines + [f"BROKEN: {what}" for what in report["broken"]]


# -- mixing alone


def _average(asked: Asked, out: Path | None, as_json: bool) -> int:
    from tapestry_p2p.sim.average import ROUNDS, report

    rounds = asked.rounds if asked.rounds is not None else ROUNDS
    said = (
        f"seed {asked.seed}: average, {asked.members} members, {asked.byzantine} hostile,"
        f" {asked.topology}, {asked.rule}, {rounds} rounds"
    )
    (note if as_json else say)(said)
    try:
        found = report(
            asked.topology, asked.members, asked.byzantine, asked.attack or "all", asked.rule,
            asked.seed, rounds, _line,
        )  # fmt: skip
    except ValueError as error:
        raise refused(str(error)) from error
    found = {"said": said, **found}
    if out is not None:
        from tapestry_p2p.cli.simulation.curves import draw_average

        _write(found, out, draw_average)
    if as_json:
        print(json.dumps(found))
        return OK
    rules = list(found["worst"])
    say(f"{found['certificate']}, f {found['f']}; worst normalised MSE, 1: nothing gained")
    say("  ".join([f"{'attack':14}", *(f"{each:>12}" for each in rules)]))
    for name, rows in found["attacks"].items():
        say("  ".join([f"{name:14}", *(f"{rows[each]['worst_mse']:12.3g}" for each in rules)]))
    say("  ".join([f"{'worst':14}", *(f"{found['worst'][each]:12.3g}" for each in rules)]))
    return OK


# -- drawn faults


def _chaos(asked: Asked, runs: int, out: Path | None, as_json: bool) -> int:
    """Stories: everything is drawn from the seed; the other options do not matter."""
    from tapestry_p2p.sim.experiment import exercise
    from tapestry_p2p.sim.story import draw, tell

    _spare_the_collector()
    stories, total = [], Counter[str]()
    for seed in range(asked.seed, asked.seed + runs):
        script = draw(seed)
        (note if as_json else say)(str(script))
        outcome = tell(script)
        total.update(outcome.counts)
        stories.append(
            {
                "seed": seed,
                "said": str(script),
                "drawn": list(script.kinds),
                "trace": outcome.trace,
                "broken": list(outcome.broken),
            }
        )
        if not as_json:
            say(*(f"  BROKEN: {what}" for what in outcome.broken))
    reached = exercise(total)
    report = {"task": "chaos", "stories": stories, "exercise": reached}
    if out is not None:
        (out / "curves.json").write_text(json.dumps(report))
    if as_json:
        print(json.dumps(report))
    else:
        say("reached: " + ", ".join(f"{name} {count}" for name, count in reached.items()))
    return FAILURE if any(story["broken"] for story in stories) else OK


# -- what they share


def _options(asked: Asked) -> dict[str, Any]:
    given = {name: getattr(asked, name) for name in asked.__dataclass_fields__}
    rounds = DEFAULT_ROUNDS if asked.rounds is None else asked.rounds
    return {**given, "rounds": rounds, "data": str(asked.data) if asked.data else None}


def _spare_the_collector() -> None:
    """Nearly all that a world makes lives to its end: to look for garbage takes a tenth of it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def _progress(rounds: int) -> Callable[[dict[str, Any]], None]:
    def show(point: dict[str, Any]) -> None:
        name, value = next(iter(point["mean"].items()))
        _line(f"round {point['round']} of {rounds}: {name} {value:.4f}")

    return show


def _line(text: str) -> None:
    """Replace the line on the terminal; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}\r", end="", file=sys.stderr, flush=True)


def _write(report: dict[str, Any], out: Path, draw: Callable[[dict[str, Any], Path], None]) -> None:
    (out / "curves.json").write_text(json.dumps(report))
    draw(report, out / "curves.svg")
