"""One testnet from plan to report.json: prepare, start, gossip, compare copies, judge, stop."""

import json
import math
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tapestry_p2p.cli.testnet import arms, report
from tapestry_p2p.cli.testnet.cluster import Cluster
from tapestry_p2p.cli.testnet.homes import Prepared, prepare
from tapestry_p2p.cli.testnet.hostile import Hostile
from tapestry_p2p.cli.testnet.plan import Plan
from tapestry_p2p.cli.testnet.table import LiveTable
from tapestry_p2p.errors import FAILURE, TapestryError


@dataclass
class Clock:
    """Seconds by phase."""

    def __post_init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._began = self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """The phase ends now."""
        now = time.monotonic()
        self.phases[phase] = round(self.phases.get(phase, 0.0) + now - self._last, 2)
        self._last = now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._began, 2)


class Keeper:
    """A thread that starts again who dies while the models are judged."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._end.wait(1.0):
            try:
                self._cluster.revive()
            except TapestryError:
                return  # whoever asks that member will say so

    def stop(self) -> None:
        """End the thread; nobody is started again afterwards."""
        self._end.set()
        self._thread.join()


def run_testnet(plan: Plan, quiet: bool = False) -> dict[str, Any]:
    """Run it, write DIR/report.json, return the report. TapestryError if it cannot be done."""
    _make_empty(plan)
    clock = Clock()
    found = _one(plan, plan.rule, "run", clock, quiet, baselines=True)
    if plan.compare:
        other = _one(plan, plan.compare, f"compare-{plan.compare}", clock, quiet, baselines=False)
        found["compare"] = _compared(found, other)
    found["wall_s"] = clock.total
    found["phases_s"] = clock.phases
    found["trainers_cpu_s"] = round(os.times().children_user + os.times().children_system, 2)
    path = plan.out / "report.json"
    path.write_text(json.dumps(plain_numbers(found), indent=2, ensure_ascii=False) + "\n")
    return found


def _make_empty(plan: Plan) -> None:
    if (plan.out / "run").exists() or (plan.out / "report.json").exists():
        raise TapestryError(
            f"{plan.out} already holds a testnet; name another --out or remove it", FAILURE
        )
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TapestryError(f"--out {plan.out}: {error.strerror}", FAILURE) from error


def _one(
    plan: Plan, rule: str, name: str, clock: Clock, quiet: bool, baselines: bool
) -> dict[str, Any]:
    title = f"{plan.members} members, rule {rule}"
    with LiveTable(plan.rounds, title, quiet) as table:
        table.phase("preparing the members ...")
        prepared = prepare(plan, rule, plan.out / name)
        clock.lap("prepare")
        with (
            Cluster(prepared.homes, plan.out / "members.json", table.show, plan.links) as cluster,
            ExitStack() as stack,
        ):
            size = prepared.manifest.schema.parameters
            table.phase(f"starting the members; each compiles its model of {size:,} parameters ...")
            cluster.wait_until_ready()
            clock.lap("start")
            table.phase("training together")
            with Hostile(plan.hostile, cluster) as hostile:
                cluster.wait_until_finished(plan.timeout_s)
            clock.lap("gossip")
            equal = cluster.wait_until_equal()
            for member in cluster.members:
                member.look()
            clock.lap("settle")
            keeper = Keeper(cluster)
            stack.callback(keeper.stop)
            scores = {"together": arms.judge_together(cluster.honest)}
            central = None
            if baselines:
                table.phase("for comparison: each member alone, and one model with all data ...")
                more, untrained, central = arms.judge_baselines(plan, prepared, cluster.honest)
                everyone = [m.home.peer_id for m in cluster.honest]
                scores = {
                    "untrained": dict.fromkeys(everyone, untrained),
                    "alone": more["alone"],
                    **scores,
                    "sovereign": more["sovereign"],
                }
            for member in cluster.members:
                if not member.status:  # died while the models were judged, and is back
                    member.look()
            clock.lap("judge")
        clock.lap("stop")
    found = _report(plan, rule, prepared, cluster, scores, equal, central)
    return {**found, "hostile": hostile.rows} if plan.hostile else found


def _report(
    plan: Plan,
    rule: str,
    prepared: Prepared,
    cluster: Cluster,
    scores: dict[str, dict[str, arms.Scores]],
    equal: dict[str, bool],
    central: arms.Scores | None,
) -> dict[str, Any]:
    manifest = prepared.manifest
    members = cluster.members
    return {
        "network_id": manifest.network_id.hex(),
        "seed": plan.seed,
        "wall_s": 0.0,
        "rounds": plan.rounds,
        "inner_steps": plan.inner_steps,
        "parameters": manifest.schema.parameters,
        "codec": plan.codec,
        "rule": rule,
        "tolerate": plan.tolerate,
        "certificate": plan.promise(rule).word,
        "certificate_why": plan.promise(rule).why,
        "members": report.member_rows(members, scores, equal),
        "all_languages": report.all_languages(scores, central),
        "consensus_distance": report.consensus_distance(prepared),
        "bytes_per_parameter_per_round": report.bytes_per_parameter_per_round(
            plan, prepared, members
        ),
        "wire_efficiency": report.wire_efficiency(members),
    }


def _compared(found: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The same testnet under another rule, beside the first: ratios above 1 mean worse."""

    def own(rows: dict[str, Any]) -> float:
        bits = [r["bits_per_byte"]["together"] for r in rows["members"] if not r["byzantine"]]
        return float(sum(bits) / len(bits))

    return {
        "rule": other["rule"],
        "members": other["members"],
        "all_languages": other["all_languages"],
        "consensus_distance": other["consensus_distance"],
        "own_language_ratio": own(other) / own(found),
        "all_languages_ratio": other["all_languages"]["together"]
        / found["all_languages"]["together"],
    }


def plain_numbers(value: Any) -> Any:
    """JSON has no NaN or infinity: null."""
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
