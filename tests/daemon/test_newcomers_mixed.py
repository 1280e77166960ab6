"""What a node makes of probation and trust: manifest and configuration in, weights out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from daemon_kit import in_trio, key, make_manifest, make_node, vector

from tapestry_p2p.daemon.config import Config, Trust
from tapestry_p2p.daemon.copies import Followed
from tapestry_p2p.daemon.manifest import PROBATION_ROUNDS, Genesis, Manifest
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.run import node_options
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.trainer import TrainedVector, Trainer
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Mixing

FULL, HALF, NONE = (key(n).public_key for n in (2, 3, 4))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", 16)
    yield store
    store.close()


def _founded(**mixing: Any) -> Manifest:
    made = make_manifest(vector(), **mixing)
    members = [key(n).peer_id for n in (1, 2)]
    return Manifest(
        network=made.network,
        task=made.task,
        schema=made.schema,
        genesis=Genesis(seed=1, root=made.genesis.root, members=members),
        mixing=made.mixing,
    )


@in_trio
async def test_the_protocol_is_told_who_is_known_and_for_how_long_others_are_new(
    store: Store,
) -> None:
    ids: dict[str, Any] = {"trusted": (key(5).peer_id,), "blocked": (key(6).peer_id,)}
    settings = make_node(_founded(), store, **ids).protocol.settings
    assert settings.probation_rounds == PROBATION_ROUNDS == 64
    assert settings.founders == {key(1).public_key, key(2).public_key}
    assert settings.trusted == {key(5).public_key}
    assert settings.blocked == {key(6).public_key}
    assert make_node(_founded(probation_rounds=0), store).protocol.settings.probation_rounds == 0


def test_the_operators_words_reach_the_node() -> None:
    trust = Trust(members=[key(5).peer_id], blocked=[key(6).peer_id])
    options = node_options(Config(trust=trust))
    assert (options.trusted, options.blocked) == ((key(5).peer_id,), (key(6).peer_id,))


@pytest.mark.parametrize(
    ("members", "blocked", "word"),
    [
        (["nobody"], [], "members: 'nobody' is no peer id"),
        ([], ["12D3KooX"], "blocked: '12D3KooX' is no peer id"),
        ([key(5).peer_id], [key(5).peer_id], "decide"),
        ([key(n).peer_id for n in range(65)], [], "65 > 64"),
    ],
)
def test_trust_that_makes_no_sense_is_refused(
    members: list[str], blocked: list[str], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        Trust(members=members, blocked=blocked)


@in_trio
async def test_a_blocked_key_is_refused_at_the_door(store: Store) -> None:
    node = make_node(_founded(), store, blocked=(key(6).peer_id,))
    assert not node._admits(key(6).public_key)
    assert node._admits(key(5).public_key)


class Told:
    """A trainer's place."""

    life, adding = 1, False

    async def correct(self, *_: object) -> bool:
        return True


def _mixed_by(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Every call of the Loom's mixing."""
    calls: list[tuple[Any, ...]] = []
    loom = node.rounds.loom
    assert loom is not None
    mix = loom.mix

    def noted(y: Any, *rest: Any) -> Mixing[bytes]:
        calls.append(rest)
        return mix(y, *rest)

    monkeypatch.setattr(loom, "mix", noted)
    return calls


@in_trio
async def test_a_round_takes_as_much_of_each_as_the_protocol_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {FULL: 1.0, HALF: 0.5, NONE: 0.0}
    async with trio.open_nursery() as nursery:
        node = make_node(_founded(), store)
        await nursery.start(node.run)
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
        monkeypatch.setattr(node.protocol, "share", shares.__getitem__)
        for author in shares:
            node.copies.followed[author] = Followed(0, PublicCopy(vector(seed=9)), bytes(32))
        calls = _mixed_by(node, monkeypatch)
        record = {"seq": 1, "round": 1, "applied": 0, "added": 0, "tokens": 1, "seconds": 0.1}
        record["steps"] = 1
        await node.rounds._one_round(cast(Trainer, Told()), TrainedVector(vector(), record, 1))
        ((copies, _, told),) = calls
        assert set(copies) == {FULL, HALF}
        assert told == shares
        node.stop()
