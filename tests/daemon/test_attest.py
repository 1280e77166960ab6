"""What a node signs for an export, and what its store holds of the published copy."""

from pathlib import Path

import pytest
import trio
from daemon_kit import Author, in_trio, make_manifest, make_node, same, vector

from tapestry_p2p.daemon import published as reading
from tapestry_p2p.daemon.published import published
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.errors import NOT_READY, USAGE, TapestryError
from tapestry_p2p.gossip.lineage import check_statement
from tapestry_p2p.mix.codec import Vector

NORM_MAX = 1e6


@in_trio
async def test_a_node_signs_digests_under_a_domain_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path, 16)
    manifest = make_manifest(vector())
    node = make_node(manifest, store)
    control = Control(node)
    digest = bytes(range(32))
    told = await control.answer({"do": "attest", "digest": digest.hex()})
    signature = bytes.fromhex(told["signature"])
    check_statement(manifest.network_id, digest, node.key, signature)
    assert told["id"] == node.identity.peer_id
    for wrong in ("", "ab", "zz" * 32, None, 7, digest.hex() * 2):
        with pytest.raises(TapestryError) as caught:
            await control.answer({"do": "attest", "digest": wrong})
        assert caught.value.exit_code == USAGE
    assert await control.answer({"do": "lineage"}) == {"languages": [], "mixed": []}
    store.close()
    await trio.lowlevel.checkpoint()


def lived(folder: Path, author: Author, save_at: int) -> Store:
    """A store to which the author's entries were appended, saved after entry ``save_at``."""
    store = Store(folder, 16)
    x = author.copy.vector
    for entry in author.entries:
        store.append_entry(entry)
        if entry.seq == save_at:
            store.save_own(entry.seq, entry.seq, x, COPIES[entry.seq])
    return store


COPIES: dict[int, Vector] = {}


@pytest.fixture
def author() -> Author:
    found = Author().genesis()
    COPIES[0] = found.copy.vector.copy()
    for _ in range(9):
        found.difference()
        COPIES[found.seq] = found.copy.vector.copy()
    return found


@pytest.mark.parametrize("save_at", [0, 4, 9])
def test_the_copy_is_replayed_to_the_newest_entry(
    save_at: int, tmp_path: Path, author: Author
) -> None:
    store = lived(tmp_path, author, save_at)
    found = published(tmp_path, NORM_MAX)  # beside the open store, without its lock
    assert same(found.vector, COPIES[9])
    assert [signed.header.seq for signed in found.entries] == list(range(10))
    assert found.root == author.signed[-1].header.root
    store.close()


def test_an_entry_without_a_root_is_left_out(tmp_path: Path, author: Author) -> None:
    author.difference(root=b"")
    store = lived(tmp_path, author, 4)
    found = published(tmp_path, NORM_MAX)
    assert found.entries[-1].header.seq == 9
    assert same(found.vector, COPIES[9])
    store.close()


@pytest.mark.parametrize("what", ["nothing", "rolled back"])
def test_where_nothing_can_be_shown_it_says_so(
    what: str, tmp_path: Path, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "RETRY_S", 0.0)
    folder = tmp_path / "store"
    if what == "rolled back":
        store = lived(folder, author, 9)
        store.save_own(9, 9, COPIES[2], COPIES[2], reverted=True)
        store.close()
    with pytest.raises(TapestryError) as caught:
        published(folder, NORM_MAX)
    assert caught.value.exit_code == NOT_READY
