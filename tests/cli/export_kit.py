"""An exported folder as a member writes it, made in a moment: a small model, ten rounds.

The code that writes it is the real one; the trainer's and the node's answers are made here.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tapestry_p2p.cli.export import complete
from tapestry_p2p.cli.folder import LOCAL, beside
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.manifest import Genesis, Manifest, Network, Schema, Task
from tapestry_p2p.daemon.published import Published
from tapestry_p2p.gossip.header import DIFFERENCE, GENESIS, NO_HASH, Header, SignedHeader, sign
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.lineage import sign_statement
from tapestry_p2p.learn.export import export
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data, layout_of
from tapestry_p2p.mix.copy import PublicCopy

OPTIONS = {"layers": 1, "width": 8, "heads": 1, "context": 16, "batch_size": 2}
TEXT = b"ring a ring o roses, a pocket full of posies. " * 40
ANA, BO, EVE = (Identity(bytes([n]) * 32) for n in (1, 2, 3))


class World:
    """One model and the network that trains it."""

    def __init__(self, local: str = "") -> None:
        """``local``: patterns of parameters that never leave."""
        options: dict[str, bool | int | float | str] = dict(OPTIONS)
        if local:
            options["local"] = local
        self.task = load("language", options, Data([], 1, content=TEXT))
        self.params = self.task.init(jax.random.key(1))
        self.layout = layout_of(self.task, self.params)
        self.genesis = self.layout.flatten(self.params)
        self.manifest = Manifest(
            network=Network(name="Roses", licence="CC-BY-4.0"),
            task=Task(name="language", options=options),
            schema=Schema(hash=self.layout.schema, parameters=self.layout.parameters),
            genesis=Genesis(
                seed=1, root=copy_root(PublicCopy(self.genesis)).hex(), members=[ANA.peer_id]
            ),
        )

    def stream(self, who: Identity, rounds: int, genesis: bytes = b"") -> Published:
        """A stream as ``who`` signs it; its copy moves a little in every round."""
        vector, entries = self.genesis.copy(), list[SignedHeader]()
        for round_ in range(rounds + 1):
            if round_:
                step = np.float32(0.001) * np.sin(np.arange(len(vector)) + round_)
                vector = vector + step.astype(np.float32)
            root = copy_root(PublicCopy(vector))
            header = Header(
                network=self.manifest.network_id,
                author=who.public_key,
                incarnation=bytes(16),
                seq=round_,
                prev=entries[-1].header.hash if entries else NO_HASH,
                kind=DIFFERENCE if round_ else GENESIS,
                codec="fp32" if round_ else "",
                chunks=(bytes(32),) if round_ else (),
                payload_bytes=4 * len(vector) if round_ else 0,
                root=root if round_ or not genesis else genesis,
                round=round_,
                tokens=0,
                cites=b"",
            )
            entries.append(sign(header, who.sign))
        return Published(vector, root, tuple(entries))

    def export(
        self, folder: Path, *, copy: bool = False, by: Identity = ANA, **changes: Any
    ) -> Path:
        """A folder of ``by``; ``changes``: other values of what node and store say."""
        folder.mkdir()
        own: Published = changes.pop("own", None) or self.stream(by, 10)
        vector = own.vector if copy else own.vector * np.float32(1.01)
        told = {"loss": {"own": 1.5}}
        found = export(folder, self.task, self.layout, vector, lambda _: told, self.params, True)
        if (folder / LOCAL).exists():
            (folder / LOCAL).rename(beside(folder))
        status = {
            "network": "Roses", "network_id": self.manifest.network_id.hex(), "id": by.peer_id,
            "name": "Ana | <b>", "licence": "CC-BY-4.0", "rule": "cs_plus", "tolerate": 0,
            "certificate": "CERTIFIED",
        }  # fmt: skip
        head = self.stream(BO, 3).entries[-1]
        row = {"id": BO.peer_id, "name": "Bo", "languages": ["de"], "head": head.encode().hex()}
        said = {"languages": ["en"], "mixed": [row], **changes}

        def signed(digest: str) -> bytes:
            return sign_statement(self.manifest.network_id, bytes.fromhex(digest), by.sign)

        complete(folder, self.manifest, status, said, own, found, signed)
        return folder
