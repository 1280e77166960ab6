"""A stand-in for the trainer of a model of any size: hands a vector over every so many seconds.

    python benches/big_stand_in.py SOCKET PARAMETERS ROUND_S FOLDER SCHEMA

Reports at SOCKET like a trainer of `tapestry run --trainer-apart`. It trains nothing: each round it
moves one block in sixteen by a little. Its vector is a mapped file in FOLDER, so that what is
measured is the node. The first vector is one pattern again and again: its root is quickly found.
In a network with another one its node fetches that from a member.
"""

import os
import selectors
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p import link
from tapestry_p2p.bulk import Shelf
from tapestry_p2p.gossip.merkle import leaf_hash, merkle_root
from tapestry_p2p.learn.trainer import _reported

SCHEMA = "cd" * 32
FRAME = 1 << 16  # parameters of a copy's frame
MOVED = 16  # one frame of so many, each round
STEP = 1e-3
Vector = NDArray[np.float32]


def pattern() -> Vector:
    """One frame of the first vector."""
    return np.random.default_rng(0).normal(0, 0.02, FRAME).astype(np.float32)


def genesis_root(parameters: int) -> bytes:
    """The Merkle root of the first vector of that length."""
    one = pattern()
    whole, rest = divmod(parameters, FRAME)
    leaves = [leaf_hash(one.tobytes())] * whole
    return merkle_root(leaves + ([leaf_hash(one[:rest].tobytes())] if rest else []))


class StandIn:
    """What a trainer is to its node."""

    def __init__(
        self, sock: Any, parameters: int, round_s: float, folder: Path, schema: str
    ) -> None:
        self._sock, self._round_s = sock, round_s
        link.receive(sock)  # configure
        self._shelf = Shelf(folder, 1 << 20)
        self._shared = link.SharedVectors.create(parameters)
        self._x = self._shelf.empty(parameters)
        one = pattern()
        for start in range(0, parameters, FRAME):
            part = self._x[start : start + FRAME]
            part[:] = one[: len(part)]
        hello = {
            "t": "hello",
            "version": link.VERSION,
            "pid": os.getpid(),
            "parameters": parameters,
            "schema": schema,
            "isolated": False,
            "isolation": link.ISOLATION_LINES[3],
            "genesis_digest": self._shared.write_parts(link.OUT, 0, self._parts()),
        }
        link.send(sock, hello, [self._shared.fileno()])
        self._seq = self._round = self._last = self._applied = self._added = 0
        self._due = float("inf")

    def run(self) -> None:
        """Until the node is gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            while True:
                wait_s = None if self._due == float("inf") else self._due - time.monotonic()
                if selector.select(wait_s if wait_s is None else max(0.0, wait_s)):
                    if not self._obey(link.receive(self._sock)[0]):
                        return
                elif self._seq - self._applied < 2:
                    self._hand_over()

    def _parts(self) -> Iterator[Vector]:
        for start in range(0, len(self._x), 1 << 22):
            yield self._x[start : start + (1 << 22)]
            self._shelf.settle()

    def _obey(self, packet: bytes) -> bool:
        if not packet:
            return False
        record = link.parse_from_node(packet)
        match record["t"]:
            case "start":
                self._take(link.IN, record, whole=True)
                self._seq = self._applied = record["seq"]
                self._added = 0
            case "train":
                self._round, self._last = record["round"], record["last_round"]
                self._due = time.monotonic() + self._round_s
            case "correct":
                self._take(link.IN, record)
                self._applied = record["seq"]
            case "add":
                self._take(link.MORE, record)
                self._added = record["seq"]
                link.send(self._sock, {"t": "added", "seq": record["seq"]})
            case "stop":
                return False
        return True

    def _take(self, direction: str, record: dict[str, Any], whole: bool = False) -> None:
        found = self._shared.read(direction, record["seq"], record["digest"], self._shelf.empty)
        for start in range(0, len(found), 1 << 22):
            block = slice(start, start + (1 << 22))
            self._x[block] = found[block] if whole else self._x[block] + found[block]
            self._shelf.settle()

    def _hand_over(self) -> None:
        for start in range(self._round % MOVED * FRAME, len(self._x), MOVED * FRAME):
            self._x[start : start + FRAME] += np.float32(STEP)
        self._seq += 1
        record = {"t": "vector", "seq": self._seq, "round": self._round, "applied": self._applied}
        digest = self._shared.write_parts(link.OUT, self._seq, self._parts())
        told = {"steps": 1, "skipped": 0, "tokens": 1, "loss": 0.0, "added": self._added}
        seconds = {"seconds": self._round_s, "busy_s": self._round_s}
        link.send(self._sock, {**record, **told, **seconds, "digest": digest})
        over = self._round == self._last
        self._round += 1
        self._due = float("inf") if over else time.monotonic() + self._round_s


def main() -> None:
    """Until the node is gone."""
    sock = _reported(sys.argv[1])
    if sock is None:
        raise SystemExit(1)
    parameters, round_s, folder, schema = sys.argv[2:6]
    StandIn(sock, int(parameters), float(round_s), Path(folder), schema).run()


if __name__ == "__main__":
    main()
