"""A member written in JavaScript from docs/wire.md, against a real node: each follows the other.

Skipped with a word where Node.js or its packages are not to be had.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_kit import make_manifest, make_node, vector

from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.gossip.identity import peer_id_of

pytestmark = pytest.mark.integration

CODE = Path(__file__).parents[1] / "interop" / "js"
DEADLINE_S = 120.0
GENESIS = vector()
MANIFEST = make_manifest(GENESIS, probation_rounds=0)
ROUNDS = 5


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client and its packages, in a folder of their own."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    folder = tmp_path_factory.mktemp("js")
    for file in CODE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch the packages here: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", MANIFEST.streams.ring)
    yield store
    store.close()


class Client:
    """The JavaScript process and what it said."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._buffer = b""

    async def until(self, what: str, **more: object) -> dict[str, Any]:
        """The next thing of that kind that it says, or has said."""
        assert self.process.stdout is not None
        while True:
            for message in self.said:
                assert message["what"] != "error", message
                if message["what"] == what and more.items() <= message.items():
                    return message
            part = await self.process.stdout.receive_some()
            assert part, f"it ended before {what}: {self.said}"
            *lines, self._buffer = (self._buffer + part).split(b"\n")
            self.said += map(json.loads, lines)

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")


async def publish(node: Node, number: int) -> bytes:
    """One round's difference of ours; the root after it."""
    rounds, loom = node.rounds, node.rounds.loom
    assert loom is not None
    y = loom.latest + vector(seed=number, scale=0.01)
    async with node.rounds.speaking:
        difference = loom.difference(y)
        await rounds.publish_difference(difference, number, 0)
        loom.published(difference, y)
        rounds.round = number
    assert node.copies.own is not None
    return node.copies.own.root


def test_each_follows_the_other_bit_for_bit(client: Path, store: Store) -> None:
    async def bounded() -> None:
        with trio.fail_after(DEADLINE_S):
            await follow_each_other(client, store)

    trio.run(bounded)


async def follow_each_other(client: Path, store: Store) -> None:
    genesis = client / "genesis.bin"
    genesis.write_bytes(GENESIS.astype("<f4").tobytes())
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, store)
        await nursery.start(node.run)
        node.copies.set_genesis(GENESIS)
        await node.rounds.settle_stream()
        for number in range(1, ROUNDS):
            await publish(node, number)
        address = f"{node.transport.addresses[0]}/p2p/{peer_id_of(node.key)}"
        command = ["node", "member.mjs", address, MANIFEST.network_id.hex(), str(len(GENESIS))]
        process = await trio.lowlevel.open_process(
            [*command, str(genesis)], cwd=client, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        other = Client(process)
        try:
            author = bytes.fromhex((await other.until("ready"))["author"])
            assert MANIFEST.network.name in (await other.until("manifest"))["text"]
            root = await publish(node, ROUNDS)  # announced while it listens
            assert node.copies.own is not None
            await other.until("followed", seq=node.copies.own.seq, root=root.hex())
            await other.tell("keyframe")
            assert (await other.until("keyframe"))["equal"]

            for number in range(1, ROUNDS + 1):
                await other.tell(f"publish {number}")
                told = await other.until("published", seq=number + 1)
                with trio.fail_after(20):
                    while not _stands(node, author, told):
                        await trio.sleep(0.02)
            profile = node.protocol.members()[author]
            assert (profile.name, profile.languages) == ("JavaScript", ("epo",))
            assert not node.protocol.weight_zero(author)
            assert sum(node.protocol.statistics()["reject"].values()) == 0
            assert process.stdin is not None
            await process.stdin.aclose()
            assert await process.wait() == 0
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        await pipe.aclose()
        node.stop()


def _stands(node: Node, author: bytes, told: dict[str, Any]) -> bool:
    followed = node.copies.followed.get(author)
    return (
        followed is not None and followed.seq == told["seq"] and followed.root.hex() == told["root"]
    )
