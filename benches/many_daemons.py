"""Members of benches/many.py as processes: start them, read what each says once a second, end them.

Knows processes and their lines; what must hold is many.py's business.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMBER = str(Path(__file__).with_name("many_member.py"))
PATIENCE_S = 60.0
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Daemon:
    """One process and the lines that it has said."""

    def __init__(self, words: Sequence[str], before: Sequence[str] = ()) -> None:
        self.started_at = time.monotonic()
        self.lines: list[dict[str, Any]] = []
        path = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [*before, sys.executable, MEMBER, *words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def address(self, host: str = "127.0.0.1") -> str:
        """Where it listens, once it has said so."""
        until = time.monotonic() + PATIENCE_S
        while not self.lines:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError("a member did not start")
            time.sleep(0.05)
        return f"/ip4/{host}/tcp/{self.lines[0]['port']}/p2p/{self.lines[0]['id']}"

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Its lines, the first (its address) apart."""
        return self.lines[1:]

    def end(self) -> None:
        """Close its standard input; then it ends by itself, or is ended."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def wait(self) -> None:
        """Until it is gone."""
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Daemons:
    """All members of a run. Use as a context: leaving it ends them."""

    def __init__(self) -> None:
        self.all: list[Daemon] = []

    def __enter__(self) -> "Daemons":
        return self

    def __exit__(self, *exc: object) -> None:
        for daemon in self.all:
            daemon.end()
        for daemon in self.all:
            daemon.wait()

    def add(self, *words: str, before: Sequence[str] = ()) -> Daemon:
        """Start one more."""
        self.all.append(Daemon(words, before))
        return self.all[-1]

    def until(self, true: Callable[[dict[str, Any]], bool], seconds: float) -> float | None:
        """Seconds from the last start until ``true`` of everybody's newest line; None: too long."""
        began = max(daemon.started_at for daemon in self.all)
        while time.monotonic() < began + seconds:
            newest = [daemon.facts[-1] for daemon in self.all if daemon.facts]
            if len(newest) == len(self.all) and all(map(true, newest)):
                return time.monotonic() - began
            time.sleep(0.1)
        return None
