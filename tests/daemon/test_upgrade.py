"""Stores of other formats: an older one goes on with nothing lost, a newer one is refused.

format_1/ is a member's folder as the revision before the mark (own.seq) wrote it.
"""

import shutil
from pathlib import Path

import pytest
import trio
from daemon_kit import Author, in_trio, make_node, same, vector

from tapestry_p2p import crash
from tapestry_p2p.cli.main import main
from tapestry_p2p.daemon import voice
from tapestry_p2p.daemon.files import Mark, seal
from tapestry_p2p.daemon.manifest import load_manifest
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.store import Store, peek_entries
from tapestry_p2p.daemon.upgrade import FILE, FORMAT, bring_up, found_format
from tapestry_p2p.errors import VERSION, TapestryError
from tapestry_p2p.gossip.header import decode_signed
from tapestry_p2p.gossip.known import decode_known

FORMAT_1 = Path(__file__).parent / "format_1"
MANIFEST = load_manifest(FORMAT_1 / "network.toml")
D, LAST = MANIFEST.schema.parameters, 8


@pytest.fixture
def home(tmp_path: Path) -> Path:
    shutil.copytree(FORMAT_1, tmp_path / "home")
    return tmp_path / "home"


def test_the_old_store_is_of_the_network_whose_manifest_lies_beside_it() -> None:
    headers = [decode_signed(s).header for s in peek_entries(FORMAT_1 / "state" / "store")]
    assert {header.network for header in headers} == {MANIFEST.network_id}
    assert [header.seq for header in headers] == list(range(LAST + 1))


def test_an_old_store_is_brought_up_and_has_lost_nothing(home: Path) -> None:
    folder = home / "state" / "store"
    assert found_format(folder) == 1
    store = Store(folder, MANIFEST.streams.ring)
    try:
        found = recover(store, D, MANIFEST.limits.norm_max)
    finally:
        store.close()
    assert found_format(folder) == FORMAT
    assert Mark(folder / "own.seq").load() == LAST
    assert (found.seq, found.round, found.rolled_back, found.reverted) == (LAST, LAST, False, False)
    author = Author(1, d=D, network=MANIFEST.network_id).genesis()
    author.write("profile", b"")
    author.grow(7)
    assert found.copy is not None
    assert same(found.copy, author.copy.vector)
    assert len(found.copies) == 1
    known = found.known
    assert len(known.own) == LAST + 1
    assert (len(known.proofs), known.epoch, len(known.neighbours)) == (1, 3, 1)
    assert known.secret == b"s" * 16


def test_what_was_known_is_written_anew_and_read_without_any_leniency(home: Path) -> None:
    folder = home / "state" / "store"
    Store(folder, 16).close()
    store = Store(folder, 16)
    body = store.load_known()
    store.close()
    assert body is not None
    assert decode_known(body).encode() == body


@in_trio
async def test_a_node_goes_on_from_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "ASK_DEADLINE_S", 0.2)
    store = Store(home / "state" / "store", MANIFEST.streams.ring)
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, store)
        await nursery.start(node.run)
        node.copies.set_genesis(vector(D))
        await node.rounds.settle_stream()
        while node.voice.is_silent():
            await trio.sleep(0.01)
        loom = node.rounds.loom
        assert loom is not None
        async with node.rounds.speaking:
            difference = loom.difference(loom.latest + vector(D, scale=0.01))
            await node.rounds.publish_difference(difference, LAST + 1, 0)
        node.stop()
    headers = [decode_signed(signed).header for signed in peek_entries(store.directory)]
    store.close()
    assert [header.seq for header in headers] == list(range(len(headers)))
    assert len(headers) > LAST + 1


@pytest.mark.parametrize("step", range(1, 9))
def test_killed_at_any_step_the_next_start_finishes_it(
    home: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, passed = home / "state" / "store", 0

    class Killed(BaseException):
        pass

    def point(_name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(crash, "point", point)
        with pytest.raises(Killed):
            bring_up(folder, LAST)
    store = Store(folder, 16)
    try:
        found = recover(store, D, MANIFEST.limits.norm_max)
    finally:
        store.close()
    assert (found.seq, found.rolled_back, len(found.known.proofs)) == (LAST, False, 1)
    assert found_format(folder) == FORMAT


def test_a_fresh_store_is_of_our_format_and_a_damaged_word_of_it_is_no_new_format(
    tmp_path: Path,
) -> None:
    Store(tmp_path, 16).close()
    path = tmp_path / FILE
    assert found_format(tmp_path) == FORMAT
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert found_format(tmp_path) == 1
    Store(tmp_path, 16).close()
    assert found_format(tmp_path) == FORMAT


def test_a_newer_store_is_refused_and_left_as_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "state" / "store"
    (folder / FILE).write_bytes(seal(FORMAT + 1, b""))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(TapestryError, match="newer version") as caught:
        Store(folder, 16)
    assert caught.value.exit_code == VERSION
    monkeypatch.setenv("TAPESTRY_HOME", str(home))
    assert main(["rollback", "--rounds", "1"]) == VERSION
    assert "restore the backup" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
