"""A stand-in for the trainer: hands vectors over through the node's own link, and adds corrections.

    python benches/averaging_member.py SOCKET NUMBER MEMBERS PARAMETERS SCALE

Reports at SOCKET like a trainer of `tapestry run --apart`; speaks its records, writes its shared
memory, trains nothing. Orders come as JSON lines on standard input (as averaging_hivemind.py):
prepare, hand, dump. A round's step marks one block of BLOCK parameters that nobody else has ever
touched; who finds another's mark in its own vector has that vector mixed in.
"""

import json
import os
import selectors
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p import link
from tapestry_p2p.learn.trainer import _reported

BLOCK = 256  # of codecs: one scale each
SCHEMA = "ab" * 32
SEEN = 1e-3  # of a mark's height
Vector = NDArray[np.float32]


def say(**words: Any) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def genesis(parameters: int, scale: float) -> Vector:
    """Everyone's first vector, float32[d]; its end, where the marks go, is zero."""
    vector = np.random.default_rng(0).standard_normal(parameters, np.float32)
    vector *= np.float32(scale)
    vector[marks_from(parameters) :] = 0
    return vector


def marks_from(parameters: int) -> int:
    """Where the last tenth begins, at a block's edge: the marks' own place."""
    return parameters * 9 // 10 // BLOCK * BLOCK


def mark(parameters: int, members: int, round_: int, member: int) -> slice:
    """The block of one member's mark in one round. Those of old rounds come again in the end."""
    first = marks_from(parameters)
    blocks = (parameters - first) // BLOCK
    at = first + BLOCK * ((round_ * members + member) % blocks)
    return slice(at, at + BLOCK)


def step(parameters: int, scale: float, members: int, round_: int, member: int) -> Vector:
    """What a member's training of that round would have done, float32[d]."""
    drawn = np.random.default_rng([round_, member]).standard_normal(parameters, np.float32)
    drawn *= np.float32(scale)
    drawn[marks_from(parameters) :] = 0
    drawn[mark(parameters, members, round_, member)] = scale
    return drawn


class StandIn:
    """What a trainer is to its node."""

    def __init__(self, path: str, number: int, members: int, parameters: int, scale: float) -> None:
        self.number, self.members, self.parameters = number, members, parameters
        self.scale = scale
        sock = _reported(path)
        if sock is None:
            raise SystemExit(1)
        self.sock = sock
        link.receive(sock)  # configure
        self.shared = link.SharedVectors.create(parameters)
        self.x = genesis(parameters, scale)
        hello = {
            "t": "hello",
            "version": link.VERSION,
            "pid": os.getpid(),
            "parameters": parameters,
            "schema": SCHEMA,
            "isolated": False,
            "isolation": link.ISOLATION_LINES[3],
            "genesis_digest": self.shared.write(link.OUT, 0, self.x),
        }
        link.send(sock, hello, [self.shared.fileno()])
        self.seq = self.round = self.applied = self.added = 0
        self.handed = self.x
        self.unmixed: set[int] = set()
        self.began = 0.0
        self.seen: dict[int, float] = {}

    def obey(self, packet: bytes) -> bool:
        """A record of the node's; False at the end."""
        if not packet:
            return False
        record = link.parse_from_node(packet)
        match record["t"]:
            case "start":
                self.x = self.shared.read(link.IN, record["seq"], record["digest"])
                self.applied = self.added = 0
                self.seq = record["seq"]
            case "train":
                say(ready=True, pid=os.getpid())
            case "correct":
                self.x += self.shared.read(link.IN, record["seq"], record["digest"])
                self.applied = record["seq"]
                self.look()
            case "add":
                self.x += self.shared.read(link.MORE, record["seq"], record["digest"])
                self.added = record["seq"]
                link.send(self.sock, {"t": "added", "seq": record["seq"]})
                self.look()
            case "stop":
                return False
        return True

    def order(self, order: dict[str, Any]) -> None:
        """The bench's."""
        match order["do"]:
            case "prepare":
                self.round = order["round"]
                self.step = step(self.parameters, self.scale, self.members, self.round, self.number)
                if order.get("spoil") is not None:
                    self.step[: self.parameters // 2] = order["spoil"]
                say(prepared=self.round)
            case "hand":
                if order["note"]:
                    np.save(order["note"], self.x + self.step)
                self.hand(set(order["from"]), order["keep"])
            case "dump":
                np.savez(order["path"], handed=self.handed, now=self.x)
                say(dumped=order["path"])

    def hand(self, others: set[int], keep: bool) -> None:
        """The round's vector goes to the node; ``others``: whose marks to wait for."""
        if keep:
            self.handed = self.x + self.step
        self.began = time.monotonic()
        self.unmixed, self.seen = set(others), {}
        self.x += self.step
        self.seq += 1
        record = {"t": "vector", "seq": self.seq, "round": self.round, "applied": self.applied}
        told = {"steps": 1, "skipped": 0, "tokens": 0, "loss": 0.0}
        digest = self.shared.write(link.OUT, self.seq, self.x)
        record |= {"added": self.added, **told, "seconds": 0.0, "busy_s": 0.0, "digest": digest}
        link.send(self.sock, record)

    def look(self) -> None:
        """Whose marks have come; say so once all have."""
        if not self.unmixed:
            return
        now = time.monotonic()
        for other in list(self.unmixed):
            where = mark(self.parameters, self.members, self.round, other)
            if abs(float(self.x[where].mean())) > SEEN * self.scale:
                self.unmixed.discard(other)
                self.seen[other] = now
        if not self.unmixed:
            among = sorted([self.number, *self.seen])
            say(mixed=self.round, began=self.began, at=now, ok=True, among=among)


def main() -> None:
    path = sys.argv[1]
    number, members, parameters = (int(word) for word in sys.argv[2:5])
    stand_in = StandIn(path, number, members, parameters, float(sys.argv[5]))
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stand_in.sock, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is stand_in.sock:
                    if not stand_in.obey(link.receive(stand_in.sock)[0]):
                        return
                    continue
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    stand_in.order(json.loads(line))


if __name__ == "__main__":
    main()
