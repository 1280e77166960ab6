"""Hostile programs beside a testnet: started when all is ready, gone when it ends.

Each is a process of its own, tethered by its standard input; at its end it tells what it did.
"""

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

from tapestry_p2p.cli.testnet.cluster import Cluster, python_path
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.invite import parse_invite

END_S = 10.0
NICE = ["nice", "-n", "19"]  # they are to trouble the network, not the processor


class Hostile:
    """Plays programs against all members of a cluster, inside a ``with`` block."""

    def __init__(self, names: tuple[str, ...], cluster: Cluster) -> None:
        self._names, self._cluster = names, cluster
        self._processes: list[subprocess.Popen[str]] = []
        self.rows: list[dict[str, Any]] = []  # what each did, once the block has ended

    def __enter__(self) -> "Hostile":
        network, addresses = self._targets() if self._names else ("", [])
        for name in self._names:
            command = [sys.executable, "-m", "tapestry_p2p.sim.hostile", name, network]
            self._processes.append(
                subprocess.Popen(
                    [*NICE, *command, *addresses],
                    env={**os.environ, "PYTHONPATH": python_path()},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,
                )
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, process in zip(self._names, self._processes, strict=True):
            try:
                said, _ = process.communicate(timeout=END_S)  # closes its standard input
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
            did = json.loads(said) if said.startswith("{") else {}
            self.rows.append({"program": name, "exit_code": process.returncode, "did": did})

    def _targets(self) -> tuple[str, list[str]]:
        """The network id, hex, and where each member listens on this machine."""
        found, network = [], ""
        for member in self._cluster.members:
            link = ask(member.home.paths.control_socket, {"do": "invite"}, 10.0)["link"]
            invite = parse_invite(link)
            network = invite.network_id.hex()
            here = [address for address in invite.addresses if address.host == "127.0.0.1"]
            found.append(str((here or list(invite.addresses))[0]))
        return network, found
