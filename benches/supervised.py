"""A trainer that is killed, hangs, raises, goes astray: named, started again, nothing bad let out.

    python benches/supervised.py [--times 25] [--json]

One real trainer process under the node's own supervisor (tapestry_p2p/daemon/trainer.py). In turn:

  killed     SIGKILL, as the kernel's OOM killer sends it
  hang       SIGSTOP: it says nothing more (the supervisor's looks are made a hundred times quicker)
  exception  the user's task raises an error while it trains
  nan loss   the loss is not a number three times in a row
  bad batch  once: the way back is taken inside, without a restart

Each time it is demanded that the trainer's state names it as `status` shows it, that a new process
goes on from the last vector that was handed over, and that every vector is finite. Exit code 1
otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p.daemon import tempo, trainer
from tapestry_p2p.daemon.describe import describe
from tapestry_p2p.daemon.trainer import FAILURES, Trainer
from tapestry_p2p.mix.codec import Vector

TASK = '''
"""Fits a line; a file beside its data tells it to fail."""
from pathlib import Path
import jax.numpy as jnp
import numpy as np


class Line:
    name = "line"

    def __init__(self, folder):
        self.folder, self.astray = folder, 0

    def init(self, key):
        return {"a": jnp.zeros(3), "b": jnp.zeros(())}

    def loss(self, params, batch, key):
        x, y = batch
        return jnp.mean((x @ params["a"] + params["b"] - y) ** 2), {}

    def batches(self, split, seed):
        def batch(cursor):
            if self.told("exception"):
                raise RuntimeError("a mistake of the user's")
            self.astray += 3 * self.told("nan loss") + self.told("bad batch")
            x = np.random.default_rng([seed, cursor]).normal(size=(8, 3)).astype(np.float32)
            y = x @ np.array([1, 2, 3], np.float32) + 1
            if self.astray:
                self.astray -= 1
                y = y * np.float32("nan")
            return x, y

        return batch

    def told(self, word):
        path = self.folder / word
        if path.exists():
            path.unlink()
            return True
        return False


def make_task(options, data):
    return Line(Path(data.paths[0]))
'''
RESTARTED = {"killed": "killed", "hang": "hang", "exception": "task_error", "nan loss": "nonfinite"}
KINDS = (*RESTARTED, "bad batch")
PATIENCE_S = 300.0
STEPS = 20


@dataclass
class Seen:
    """The node's side, played here: answers every vector, keeps the newest."""

    vectors: int = 0
    newest: Vector | None = None
    round: int = 0
    life: int = 0
    begun: int = 0
    wrong: list[str] = field(default_factory=list)

    async def begin(self, trainer: Trainer, genesis: Vector) -> None:
        """As rounds.py: from the newest vector."""
        self.begun += 1
        start = genesis if self.newest is None else self.newest
        await trainer.start(start, self.round, self.round * STEPS)
        await trainer.train(self.round + 1, STEPS, 0)

    async def answer(self, trainer: Trainer) -> None:
        """Until cancelled."""
        async for trained in trainer.vectors():
            if not np.isfinite(trained.vector).all():
                self.wrong.append("a vector that is not finite was handed over")
            if trained.record["round"] != self.round + 1:
                self.wrong.append(f"round {trained.record['round']} after {self.round}")
            self.newest, self.round = trained.vector, trained.record["round"]
            self.vectors, self.life = self.vectors + 1, trained.life
            await trainer.correct(
                trained.record["seq"], np.zeros_like(trained.vector), trained.life
            )


def supervised(folder: Path, times: int) -> dict[str, Any]:
    """The whole run."""
    return trio.run(_supervised, folder, times)


async def _supervised(folder: Path, times: int) -> dict[str, Any]:
    told = folder / "told"
    told.mkdir()
    (folder / "line.py").write_text(TASK)
    task = f"{folder / 'line.py'}:make_task"
    found = await trio.to_thread.run_sync(describe, task, {}, 1, [told], folder / "cache")
    configure = {
        "task": task, "options": {}, "data": [str(told)], "seed": 1, "threads": 1,
        "state_dir": str(folder / "trainer"), "cache_dir": str(folder / "cache"),
        "text_socket": "", "schedule_steps": 0, "speed": 0.2, "judge": None,
    }  # fmt: skip
    seen = Seen()
    subject = Trainer(
        configure, folder / "trainer" / "trainer.log", seen.begin, found.parameters, found.schema
    )
    tally: Counter[str] = Counter()
    began = time.monotonic()
    with _quicker():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.answer, subject)
            nursery.start_soon(subject.run)
            await _until(lambda: seen.vectors > 0)
            for _ in range(times):
                for kind in KINDS:
                    tally[kind] += await _happened(kind, subject, seen, told)
            await subject.stop()
            await subject.stopped.wait()
            nursery.cancel_scope.cancel()
    wanted = dict.fromkeys(KINDS, times)
    return {
        "times": dict(tally), "wanted": wanted, "vectors": seen.vectors, "lives": seen.begun,
        "wrong": seen.wrong, "seconds": round(time.monotonic() - began),
        "sound": not seen.wrong and tally == wanted,
    }  # fmt: skip


def _quicker() -> mock._patch_dict:
    """Backoff and looks of a hundredth: what is waited for is the same."""
    short = {"BACKOFF_S": (0.1,), "LOOK_S": tempo.LOOK_S / 100}
    return mock.patch.dict(vars(trainer), short)


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.02)


async def _happened(kind: str, subject: Trainer, seen: Seen, told: Path) -> bool:
    """Let it happen once; whether it was named, and training goes on from the last vector."""
    state, restarts, bad = subject.state, subject.state.restarts, subject.state.bad_batches
    vectors, life, round_ = seen.vectors, seen.life, seen.round
    state.last_failure = ""
    if kind in ("killed", "hang"):
        os.kill(state.pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
    else:
        (told / kind).touch()
    if kind == "bad batch":
        await _until(lambda: state.bad_batches > bad and seen.vectors > vectors)
        return state.restarts == restarts and state.bad_batches == bad + 1
    await _until(lambda: seen.life > life and seen.vectors > vectors)
    named = state.last_failure == FAILURES[RESTARTED[kind]][0]
    if not named:
        seen.wrong.append(f"{kind}: it was called {state.last_failure!r}")
    return named and state.restarts == restarts + 1 and seen.round > round_


def main() -> int:
    """Run, print, 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=25, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapestry-supervised-") as folder:
        report = supervised(Path(folder), asked.times)
    print(json.dumps(report, indent=1) if asked.json else table(report))
    return 0 if report["sound"] else 1


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| what happened | named, and trained on | of |", "|---|---|---|"]
    lines += [f"| {kind} | {report['times'][kind]} | {report['wanted'][kind]} |" for kind in KINDS]
    wrong = report["wrong"][:3] or "none"
    lines.append(f"\n{report['vectors']} vectors, {report['lives']} lives, wrong: {wrong};"
                 f" {report['seconds']} s")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
