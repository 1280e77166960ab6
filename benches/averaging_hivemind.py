"""One hivemind peer of benches/averaging.py, in an environment of its own: imports nothing of ours.

    python benches/averaging_hivemind.py NUMBER MEMBERS PARAMETERS SCALE [PEER_ADDRESS]

Orders come as JSON lines on standard input, answers go to standard output:
prepare (make the vector of a round), hand (take part in averaging it), dump (write what came of
it), sleep (nothing: for idle figures). Ends with its input. All of hivemind's settings stay as
they are but those that cost it time here: the group's size is known, and nobody waits for more.
"""

import json
import os
import sys
import time

import hivemind
import numpy as np
import torch
from hivemind.averaging import DecentralizedAverager

MATCHMAKING_S = 0.5  # it starts as soon as the group is full
GIVE_UP_S = 60.0


def say(**words: object) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class Peer:
    """A vector, and the averager that holds its copy in shared memory."""

    def __init__(self, number: int, members: int, parameters: int, scale: float, near: str) -> None:
        self.number, self.parameters, self.scale = number, parameters, scale
        self.vector = np.random.default_rng(0).standard_normal(parameters, np.float32)
        self.vector *= np.float32(scale)
        self.handed = self.vector
        self.dht = hivemind.DHT(
            initial_peers=[near] if near else [], start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"]
        )
        self.averager = DecentralizedAverager(
            [torch.from_numpy(self.vector.copy())],
            self.dht,
            start=True,
            prefix="bench",
            target_group_size=members,
            min_group_size=2,
            min_matchmaking_time=MATCHMAKING_S,
        )

    def prepare(self, round_: int, spoil: float | None = None) -> None:
        """x + step of this member and round, float32[d]."""
        draw = np.random.default_rng([round_, self.number])
        step = draw.standard_normal(self.parameters, np.float32)
        self.vector += np.float32(self.scale) * step
        if spoil is not None:
            self.vector[: len(self.vector) // 2] = spoil

    def hand(self, timeout_s: float) -> list[int] | None:
        """Average; with whom, as step() says. None: it says that it failed."""
        with self.averager.get_tensors() as tensors:
            tensors[0][:] = torch.from_numpy(self.vector)
        try:
            gathered = self.averager.step(
                gather=self.number, timeout=timeout_s, allow_retries=False
            )
        except Exception as error:
            print(f"step: {error!r}", file=sys.stderr)
            gathered = None
        with self.averager.get_tensors() as tensors:
            self.vector[:] = tensors[0].numpy()
        return None if gathered is None else sorted(gathered.values())


def main() -> None:
    number, members, parameters = (int(word) for word in sys.argv[1:4])
    near = sys.argv[5] if len(sys.argv) > 5 else ""
    torch.set_num_threads(1)
    peer = Peer(number, members, parameters, float(sys.argv[4]), near)
    maddrs = [str(address) for address in peer.dht.get_visible_maddrs()]
    say(ready=True, address=maddrs[0], pid=os.getpid())
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "prepare":
            peer.prepare(order["round"], order.get("spoil"))
            say(prepared=order["round"])
        elif order["do"] == "hand":
            if order["keep"]:
                peer.handed = peer.vector.copy()
            began = time.monotonic()
            among = peer.hand(order.get("timeout_s", GIVE_UP_S))
            ok, at = among is not None, time.monotonic()
            say(mixed=order["round"], began=began, at=at, ok=ok, among=among or [])
        elif order["do"] == "dump":
            np.savez(order["path"], handed=peer.handed, now=peer.vector)
            say(dumped=order["path"])
    peer.averager.shutdown()
    peer.dht.shutdown()


if __name__ == "__main__":
    main()
