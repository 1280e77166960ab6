"""A hostile process plays every attack that says it can: well signed entries, hostile vectors."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from daemon_kit import in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon.attacker import Attacker
from tapestry_p2p.daemon.copies import Followed, copy_root
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.mix.codec import CodecError
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.sim.attacks import ATTACKS, PLAYABLE

MANIFEST = make_manifest(vector())
HONEST = [vector(seed=n) for n in (1, 2, 3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", MANIFEST.streams.ring)
    yield store
    store.close()


async def hostile(nursery: trio.Nursery, store: Store) -> Node:
    """A running node that follows three honest members."""
    node = make_node(MANIFEST, store)
    await nursery.start(node.run)
    node.copies.set_genesis(vector())
    await node.rounds.settle_stream()
    while node.voice.is_silent():
        await trio.sleep(0.01)
    for n, honest in enumerate(HONEST):
        copy = PublicCopy(honest)
        node.copies.followed[bytes([n]) * 32] = Followed(3, copy, copy_root(copy))
    return node


@in_trio
async def test_every_playable_attack_is_published(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        node = await hostile(nursery, store)
        own = node.copies.own
        assert own is not None
        for round_, name in enumerate(PLAYABLE, start=1):
            before, seq = own.copy.vector.copy(), own.seq
            await Attacker(node, name)._publish(round_)
            assert (own.seq, node.rounds.round) == (seq + 1, round_), name
            head = node.protocol.head(node.key)
            assert head is not None
            assert head.header.root == copy_root(own.copy), name
            if ATTACKS[name].spoils:
                np.testing.assert_array_equal(own.copy.vector, before)
                with pytest.raises(CodecError):
                    PublicCopy(before).advance("2bit", node.rounds.payload, 1e6)
            else:
                target = ATTACKS[name].play(vector(), np.stack(HONEST))
                left = np.linalg.norm(own.copy.vector - target)
                assert left <= 0.75 * np.linalg.norm(before - target), name
        assert node.rounds.round == len(PLAYABLE)
        node.stop()


@pytest.mark.parametrize("name", ["nice", "dissensus", "label_flip"])
@in_trio
async def test_what_no_process_can_play_is_refused_with_the_choices(
    store: Store, name: str
) -> None:
    with pytest.raises(TapestryError, match=f"no attack '{name}'; choose from alie") as refused:
        Attacker(make_node(MANIFEST, store), name)
    assert refused.value.exit_code == BAD_CONFIG
