"""Two people, as the README tells them: init, run, invite, join, run. No file is edited.

Real processes, real sockets, real training; a small model on the shipped sample.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

DEADLINE_S = 180
STATUS_S = 0.5


class Person:
    """A member with a home of its own, who types commands."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self._stack = stack
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home.parent),
            "TAPESTRY_HOME": str(home),
            "TAPESTRY_BUDGET__THREADS": "1",
        }
        self.log = home.parent / f"{home.name}.log"

    def types(self, *words: str) -> str:
        done = self.tries(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tries(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tapestry_p2p", *words],
            env=self._environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
        )

    def runs(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tapestry_p2p", "run"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.callback(_ended, process)
        return process

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.types("status", "--json"))
        return found

    def sees(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status that is as wanted."""
        deadline = time.monotonic() + DEADLINE_S
        found: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                found = self.status()
            except AssertionError:
                found = {}
            if found and wanted(found):
                return found
            time.sleep(0.5)
        pytest.fail(f"last status {found}; log: {self.log.read_text()[-2000:]}")


def _ended(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    with ExitStack() as stack:
        yield Person(tmp_path / "ana", stack), Person(tmp_path / "bo", stack)


def test_two_members_found_invite_join_and_learn(people: tuple[Person, Person]) -> None:
    ana, bo = people
    ana.types("init", "--name", "Ana", "--languages", "fr", "--task-option", "width=16")
    files = {name: (ana.home / name).read_bytes() for name in ("network.toml", "tapestry.toml")}
    first = ana.runs()
    ana.sees(lambda status: status["round"] >= 1)
    link = ana.types("invite").strip()
    bo.types("join", link, "--name", "Bo", "--languages", "de", "--yes")
    second = bo.runs()

    def together(status: dict[str, Any]) -> bool:
        return bool(status["peers"] == 1 and status["following"] == 1 and status["round"] >= 2)

    seen = [ana.sees(together), bo.sees(together)]
    assert seen[0]["network_id"] == seen[1]["network_id"]
    assert seen[0]["id"] != seen[1]["id"]
    assert all(status["isolation"] for status in seen)
    assert "Bo" in ana.types("peers")
    assert len(ana.types("generate", "Alle Menschen ", "--bytes", "40")) > len("Alle Menschen ")

    times = []
    for _ in range(5):
        began = time.monotonic()
        ana.status()
        times.append(time.monotonic() - began)
    assert min(times) < STATUS_S, times  # the others may have had to wait for a core

    for person, process in ((ana, first), (bo, second)):
        person.types("stop")
        assert process.wait(timeout=30) == 0
        left = json.loads(person.types("audit", "--verify", "--json"))
        assert left["entries"] >= 3
        assert left["faults"] == []
    assert {name: (ana.home / name).read_bytes() for name in files} == files
