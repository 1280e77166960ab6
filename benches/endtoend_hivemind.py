"""One member of benches/endtoend.py with hivemind: local steps, then an average of parameters.

    python benches/endtoend_hivemind.py NUMBER MEMBERS STEPS ROUNDS OWN.csv TEST.csv [PEER_ADDRESS]

Prints JSON lines: its address, then after each averaging when it ended and how good the model is.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hivemind
import torch
from endtoend_learner import Learner, now, read
from hivemind.averaging import DecentralizedAverager

MATCHMAKING_S = 0.5


def say(**words: object) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def main() -> None:
    number, members, steps, rounds = (int(word) for word in sys.argv[1:5])
    near = sys.argv[7:]
    torch.set_num_threads(1)
    learner, test = Learner(read(sys.argv[5]), number), read(sys.argv[6])
    dht = hivemind.DHT(initial_peers=near, start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    say(address=str(dht.get_visible_maddrs()[0]))
    averager = DecentralizedAverager(
        [torch.from_numpy(learner.vector)],
        dht,
        start=True,
        prefix="digits",
        target_group_size=members,
        min_matchmaking_time=MATCHMAKING_S,
    )
    for round_ in range(1, rounds + 1):
        learner.train(steps)
        with averager.get_tensors() as tensors:
            tensors[0][:] = torch.from_numpy(learner.vector)
        ok = averager.step(timeout=30, allow_retries=False) is not None
        with averager.get_tensors() as tensors:
            learner.vector = tensors[0].numpy()
        say(round=round_, at=now(), ok=ok, accuracy=learner.accuracy(test))
    sys.stdin.read()  # the others may still need us
    averager.shutdown()
    dht.shutdown()


if __name__ == "__main__":
    main()
