"""A stolen key is ended by a file: through a running member, or given to addresses by a guest."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from daemon_kit import in_trio, key, make_manifest, make_node, vector

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.give import _give_all
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.retirement import checked, read_retirement, write_retirement
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.errors import BAD_CONFIG, REFUSED, USAGE, TapestryError
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.gossip.own import sign_retire

MANIFEST = make_manifest(vector(), probation_rounds=0)
NETWORK = MANIFEST.network_id
THIEF = key(7)
END = sign_retire(NETWORK, THIEF.public_key, THIEF.sign)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    made = [Store(tmp_path / str(n), MANIFEST.streams.ring) for n in range(3)]
    yield made
    for store in made:
        store.close()


async def _running(nursery: trio.Nursery, stores: list[Store]) -> list[Node]:
    """Two members and one whose key was stolen, all connected."""
    nodes = [make_node(MANIFEST, stores[0], 1), make_node(MANIFEST, stores[1], 2)]
    nodes.append(make_node(MANIFEST, stores[2], 7))
    for node in nodes:
        await nursery.start(node.run)
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
    first, *others = nodes
    for other in others:
        assert await other.transport.dial(first.key, [first.transport.addresses[0]])
    await _until(lambda: all(THIEF.public_key in node.copies.followed for node in nodes[:2]))
    return nodes


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await trio.sleep(0.02)


@pytest.mark.parametrize("way", ["a running member", "a guest"])
@in_trio
async def test_every_follower_gives_the_key_weight_zero(way: str, stores: list[Store]) -> None:
    async with trio.open_nursery() as nursery:
        first, second, stolen = nodes = await _running(nursery, stores)
        assert not any(node.protocol.weight_zero(THIEF.public_key) for node in nodes[:2])
        if way == "a guest":
            bound = second.transport.addresses[0]
            address = Address(bound.kind, bound.host, bound.port, peer_id_of(second.key))
            assert await _give_all(END, (address,)) == [peer_id_of(second.key)]
        else:
            request = {"do": "retire", "entry": END.encode().hex()}
            answer = await Control(first).answer(request)
            assert answer == {"id": THIEF.peer_id, "told": 2}
        await _until(lambda: all(THIEF.public_key in n.protocol.retired() for n in nodes))
        assert stolen.protocol.stopped == "retired"
        for node in nodes[:2]:
            assert node.protocol.weight_zero(THIEF.public_key)
            assert THIEF.public_key not in node.copies.followed
        for node in nodes:
            node.stop()
    again = make_node(MANIFEST, stores[0], 1)
    assert THIEF.public_key in again.protocol.retired(), "it is on disk at once"


@in_trio
async def test_what_is_no_end_of_a_key_here_is_refused(stores: list[Store]) -> None:
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, stores[0])
        await nursery.start(node.run)
        elsewhere = sign_retire(bytes(32), THIEF.public_key, THIEF.sign)
        unsigned = SignedHeader(END.header, bytes(64))
        for entry, code in ((elsewhere, REFUSED), (unsigned, USAGE)):
            with pytest.raises(TapestryError) as caught:
                await Control(node).answer({"do": "retire", "entry": entry.encode().hex()})
            assert caught.value.exit_code == code
        assert not node.protocol.retired()
        node.stop()


def test_the_file_is_new_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "retire.txt"
    write_retirement(path, NETWORK, THIEF)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_retirement(path) == END
    assert THIEF.peer_id in path.read_text()
    with pytest.raises(TapestryError, match="cannot be written"):
        write_retirement(path, NETWORK, THIEF)


@pytest.mark.parametrize("text", ["", "\n\n", "zz", "00", END.header.encoded.hex(), "\xff" * 9])
def test_a_file_that_is_none_is_said_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "retire.txt"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(TapestryError) as caught:
        read_retirement(path)
    assert caught.value.exit_code == BAD_CONFIG
    with pytest.raises(TapestryError, match="cannot be read"):
        read_retirement(tmp_path / "missing")


def test_an_unsigned_one_is_none() -> None:
    with pytest.raises(ValueError, match="retire"):
        checked(SignedHeader(END.header, bytes(64)).encode().hex())
