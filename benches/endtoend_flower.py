"""benches/endtoend.py with Flower's simulation: one process, a server that averages, no network.

    python benches/endtoend_flower.py MEMBERS STEPS ROUNDS TEST.csv OWN.csv ...

Prints a JSON line after each round: when it ended and how good the average is.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

from endtoend_learner import Learner, now, read
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

MEMBERS, STEPS, ROUNDS = (int(word) for word in sys.argv[1:4])
TEST, OWN = sys.argv[4], sys.argv[5:]


class Member(NumPyClient):
    """A client that makes so many steps; it keeps nothing between rounds, as Flower's do."""

    def __init__(self, number: int) -> None:
        self.learner = Learner(read(OWN[number]), number)

    def fit(self, parameters, config):
        for leaf, given in zip(self.learner.leaves, parameters, strict=True):
            leaf[...] = given
        self.learner.train(STEPS)
        return self.learner.leaves, 1, {}


def make_client(context):
    return Member(int(context.node_config["partition-id"])).to_client()


def judge(round_, parameters, config):
    learner = Learner(test, 0)
    for leaf, given in zip(learner.leaves, parameters, strict=True):
        leaf[...] = given
    if round_:
        line = {"round": round_, "at": now(), "ok": True, "accuracy": learner.accuracy(test)}
        sys.__stdout__.write(json.dumps(line) + "\n")
        sys.__stdout__.flush()
    return 0.0, {}


def make_server(context):
    strategy = FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_available_clients=MEMBERS,
        initial_parameters=ndarrays_to_parameters(Learner(test, 0).leaves),
        evaluate_fn=judge,
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))


if __name__ == "__main__":
    test = read(TEST)
    run_simulation(
        server_app=ServerApp(server_fn=make_server),
        client_app=ClientApp(client_fn=make_client),
        num_supernodes=MEMBERS,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
