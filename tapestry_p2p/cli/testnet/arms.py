"""What the members' models are worth: each arm judged by the trainers themselves, all in parallel.

Talks to trainers over their own local sockets (text and scores never pass through a node), and
runs one more trainer, without any network at all, on everybody's data: the central arm.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tapestry_p2p import link
from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.cli.testnet.homes import Prepared
from tapestry_p2p.cli.testnet.plan import Plan
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.base import base_record
from tapestry_p2p.errors import FAILURE, NO_DAEMON, TapestryError

ARM_TIMEOUT_S = 8 * 3600.0  # a whole training; whose process dies is known at once
START_TIMEOUT_S = 300.0
AWAY_S = 120.0  # so long a trainer may take to be back
THERE_S = 1.0  # a refused connection takes less
BASELINES = ("alone", "sovereign")

Scores = dict[str, Any]  # as learn/judge.py reports: bits_per_byte and bits_per_char by language


def judge_together(members: list[Member]) -> dict[str, Scores]:
    """The together arm of each member, by peer id."""
    return _everywhere(members, "together")


def judge_baselines(
    plan: Plan, prepared: Prepared, members: list[Member]
) -> tuple[dict[str, dict[str, Scores]], Scores, Scores]:
    """(alone and sovereign by arm and peer id, untrained, central); trained as they are asked."""
    with _asking(1) as (pool, given_up), Central(plan, prepared) as central:
        asked = pool.submit(central.judge, given_up)
        untrained = next(iter(_everywhere(members[:1], "untrained").values()))
        found = {arm: _everywhere(members, arm) for arm in BASELINES}
        return found, untrained, asked.result()


@contextmanager
def _asking(workers: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """Threads that ask, and the event by which they give up.

    Nobody waits for them when something went wrong: they end with those whom they ask.
    """
    pool, given_up = ThreadPoolExecutor(max(1, workers)), threading.Event()
    try:
        yield pool, given_up
    finally:
        given_up.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _everywhere(members: list[Member], arm: str) -> dict[str, Scores]:
    with _asking(len(members)) as (pool, given_up):
        jobs = {
            member.home.peer_id: pool.submit(ask_arm, member.home.paths.text_socket, arm, given_up)
            for member in members
        }
        return {peer_id: job.result() for peer_id, job in jobs.items()}


def ask_arm(text_socket: Path, arm: str, given_up: threading.Event) -> Scores:
    """One arm of one trainer; a trainer that dies meanwhile is asked again when it is back.

    Where a task has no bits per byte, its loss stands in their place. TapestryError if the
    trainer stays away or refuses.
    """
    deadline = time.monotonic() + AWAY_S
    while True:
        asked = time.monotonic()
        try:
            scores = ask(text_socket, {"do": "arm", "name": arm}, ARM_TIMEOUT_S)
            return {**scores, "bits_per_byte": scores["bits_per_byte"] or scores["loss"]}
        except TapestryError as error:
            if time.monotonic() > asked + THERE_S:  # it was there, and is away from now on
                deadline = time.monotonic() + AWAY_S
            late = time.monotonic() > deadline or given_up.wait(0.5)
            if error.exit_code != NO_DAEMON or late:
                raise


class Central:
    """A trainer on all honest members' data, drawn evenly, with one member's batch and steps."""

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        self._folder = prepared.folder / "central"
        self._folder.mkdir(exist_ok=True)
        self._socket = prepared.homes[0].paths.runtime / "central.sock"
        manifest = prepared.manifest
        self._configure = {
            "t": "configure",
            "task": plan.model.task,
            "options": dict(manifest.task.options),
            "data": [str(path) for home in prepared.homes for path in home.data],
            "seed": manifest.genesis.seed,
            "threads": 1,
            "state_dir": str(self._folder),
            "cache_dir": str(prepared.cache),
            "text_socket": str(self._socket),
            "schedule_steps": manifest.training.schedule_steps,
            "speed": 1.0,
            "judge": prepared.judge,
            **(base_record(plan.base[1], plan.base[0]) if plan.base else {}),
        }

    def __enter__(self) -> "Central":
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(self._folder / "stderr", "wb") as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tapestry_p2p.learn.trainer",
                    "--link-fd",
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        link.send(self._link, self._configure)
        return self

    def __exit__(self, *exc: object) -> None:
        self._link.close()
        self._process.kill()
        self._process.wait()

    def judge(self, given_up: threading.Event) -> Scores:
        """Train and judge it: all languages count."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._socket.exists():
            late = time.monotonic() > deadline or given_up.is_set()
            if self._process.poll() is not None or late:
                raise TapestryError(
                    f"the central trainer did not start; see {self._folder}", FAILURE
                )
            time.sleep(0.1)
        return ask_arm(self._socket, "alone", given_up)
