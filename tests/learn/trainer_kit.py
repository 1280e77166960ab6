"""The node's side of the link, played by a test: starts real trainers, asks, kills."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p import link

TINY = {"layers": 1, "width": 16, "heads": 1, "context": 16, "batch_size": 4}
PATIENCE_S = 90.0  # a start takes 4 s on an idle machine; tests may run on a busy one

Vector = NDArray[np.float32]


def text_file(folder: Path, size: int = 20_000) -> Path:
    """Words with some pattern to learn."""
    words = np.random.default_rng(0).choice(["warp ", "weft ", "loom ", "thread ", "knot.\n"], size)
    path = folder / "text.txt"
    path.write_bytes("".join(words).encode()[:size])
    return path


class Node:
    """One trainer process and our end of its link."""

    def __init__(self, home: Path, cache: Path, **changes: Any) -> None:
        self.home = home
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tapestry_p2p.learn.trainer"]
            self.process = subprocess.Popen(
                [*command, "--link-fd", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        ours.settimeout(PATIENCE_S)
        self.link = ours
        self.vectors: link.SharedVectors | None = None
        self.genesis: Vector = np.empty(0, np.float32)
        configure = {
            "task": "language",
            "options": TINY,
            "data": [],
            "seed": 7,
            "threads": 1,
            "state_dir": str(home),
            "cache_dir": str(cache),
            "text_socket": str(home / "text.sock"),
            "schedule_steps": 0,
            "speed": 1.0,
            "judge": None,
        }
        link.send(ours, {"t": "configure", **configure, **changes})

    def receive(self) -> dict[str, Any]:
        """The next record; {"t": "end"} if the trainer is gone."""
        packet, fds = link.receive(self.link, fds_max=1)
        if not packet:
            return {"t": "end"}
        record = link.parse_from_trainer(packet)
        if record["t"] == "hello":
            self.vectors = link.SharedVectors.from_fd(fds[0], record["parameters"])
            self.genesis = self.vectors.read(link.OUT, 0, record["genesis_digest"])
        return record

    def expect(self, kind: str) -> dict[str, Any]:
        """The next record, which must be of that type."""
        record = self.receive()
        assert record["t"] == kind, (record, self.log())
        return record

    def quiet(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        self.link.settimeout(seconds)
        try:
            self.link.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.link.settimeout(PATIENCE_S)
        return False

    def vector(self, record: dict[str, Any]) -> Vector:
        """float32[d] that a vector record speaks of."""
        assert self.vectors is not None
        return self.vectors.read(link.OUT, record["seq"], record["digest"])

    def start(self, seq: int, round_: int, step: int, vector: Vector) -> None:
        self.order("start", seq=seq, round=round_, step=step, digest=self._write(seq, vector))

    def correct(self, seq: int, vector: Vector) -> None:
        self.order("correct", seq=seq, digest=self._write(seq, vector))

    def train(self, round_: int, steps: int, last_round: int) -> None:
        self.order("train", round=round_, steps=steps, last_round=last_round)

    def order(self, kind: str, **fields: Any) -> None:
        link.send(self.link, {"t": kind, **fields})

    def run(self, rounds: int, correction: float = 0.0) -> list[dict[str, Any]]:
        """Answer every vector with a constant correction until the last was applied."""
        told = []
        while True:
            record = self.receive()
            if record["t"] == "vector":
                told.append(record)
                self.correct(record["seq"], np.full_like(self.genesis, correction))
            elif record == {"t": "applied", "seq": rounds}:
                return told
            else:
                assert record["t"] == "applied", (record, self.log())

    def ask(self, **request: Any) -> dict[str, Any]:
        """One question on the text socket."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.home / "text.sock"))
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile() as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
        return answer

    def log(self) -> str:
        path = self.home / "trainer.log"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def hang_up(self) -> int:
        """Close the link; the trainer's exit status."""
        self.link.close()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Whatever happened, leave nothing running."""
        self.link.close()
        if self.vectors:
            self.vectors.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def _write(self, seq: int, vector: Vector) -> str:
        assert self.vectors is not None
        return self.vectors.write(link.IN, seq, vector)
