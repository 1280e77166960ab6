"""benches/endtoend.py with p2pfl: one process, a node for each member, gRPC between them.

    python benches/endtoend_p2pfl.py MEMBERS STEPS ROUNDS TEST.csv OWN.csv ...

Its own learner is replaced by the bench's numpy one (endtoend_learner.py), so that no framework's
time is counted. Prints a JSON line whenever a node judges its model, as it does in each round.
"""

# ruff: noqa: E402 (some of its settings are read where its modules are imported)
import json
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

from p2pfl.settings import Settings

Settings.general.DISABLE_RAY = True  # its nodes are then threads: quicker here
Settings.general.LOG_LEVEL = "ERROR"

from endtoend_learner import BATCH, now, read
from endtoend_learner import Learner as Digits
from p2pfl.communication.protocols.protobuff.grpc import GrpcCommunicationProtocol
from p2pfl.learning.frameworks.learner import Learner
from p2pfl.learning.frameworks.p2pfl_model import P2PFLModel
from p2pfl.node import Node
from p2pfl.utils.topologies import TopologyFactory, TopologyType
from p2pfl.utils.utils import wait_convergence, wait_to_finish

MEMBERS, STEPS, ROUNDS = (int(word) for word in sys.argv[1:4])
out = threading.Lock()


class Model(P2PFLModel):
    """The numpy perceptron in p2pfl's clothes."""

    def get_parameters(self):
        return [leaf.copy() for leaf in self.model.leaves]

    def set_parameters(self, params):
        if isinstance(params, bytes):
            params, self.additional_info = self.decode_parameters(params)
        for leaf, given in zip(self.model.leaves, params, strict=True):
            leaf[...] = given

    def get_framework(self) -> str:
        return "numpy"


class Trainer(Learner):
    """Steps and judgements."""

    fitted = 0

    def get_data(self):
        """What a node asks of its data: a name."""
        return SimpleNamespace(dataset_name="digits", batch_size=BATCH)

    def fit(self) -> P2PFLModel:
        self.get_model().model.train(STEPS)
        self.fitted += 1
        self.get_model().set_contribution([self.addr], 1)
        return self.get_model()

    def interrupt_fit(self) -> None:
        pass

    def evaluate(self) -> dict[str, float]:
        accuracy = self.get_model().model.accuracy(test)
        if self.fitted:
            line = {"round": self.fitted, "at": now(), "ok": True, "accuracy": accuracy}
            with out:
                sys.__stdout__.write(json.dumps(line) + "\n")
                sys.__stdout__.flush()
        return {"accuracy": accuracy}

    def get_framework(self) -> str:
        return "numpy"

    def indicate_aggregator(self, aggregator) -> None:
        """FedAvg needs no callbacks."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Settings.general.LOG_DIR = folder
        nodes = []
        for number in range(MEMBERS):
            model = Model(Digits(read(sys.argv[5 + number]), number))
            node = Node(
                model,
                None,
                addr="127.0.0.1",
                learner=Trainer(),
                protocol=GrpcCommunicationProtocol(),
            )
            node.start()
            nodes.append(node)
        TopologyFactory.connect_nodes(
            TopologyFactory.generate_matrix(TopologyType.FULL, MEMBERS), nodes
        )
        wait_convergence(nodes, MEMBERS - 1, only_direct=False, wait=60)
        nodes[0].set_start_learning(rounds=ROUNDS, epochs=1)
        wait_to_finish(nodes, timeout=600)
        for node in nodes:
            node.stop()


if __name__ == "__main__":
    test = read(sys.argv[4])
    main()
