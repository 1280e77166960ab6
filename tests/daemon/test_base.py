"""Base weights: named by digest, fetched in verified pieces, whole only when all are verified."""

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from daemon_kit import key
from transport_kit import LOOPBACK, Peer

from tapestry_p2p.daemon import manifest as m
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.base import (
    Held,
    base_path,
    base_record,
    is_held,
    name_base,
    need_base,
    root_of,
    take_base,
)
from tapestry_p2p.daemon.base_fetch import Draft, _fetch, fetch_base, mend_base
from tapestry_p2p.daemon.manifest import Base, Manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import BAD_CONFIG, FAILURE, REFUSED, TEMPORARY, USAGE, TapestryError
from tapestry_p2p.gossip.fetch import (
    BaseLeavesRequest,
    BaseRequest,
    FetchResponse,
    decode_request,
    encode_response,
)
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, leaf_hash

CONTENT = bytes(range(256)) * 2560 + b"the end"  # two whole pieces and a half
NETWORK = bytes(32)
Answer = tuple[FetchResponse, bytes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "open.safetensors"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def base(file: Path) -> Base:
    return name_base(file)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find_paths({"TAPESTRY_HOME": str(tmp_path / "home")})


def test_a_file_is_named_by_its_digest_size_and_pieces(file: Path) -> None:
    base = name_base(file, rank=4, adapt=["blocks/*"])
    assert (base.digest, base.bytes) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    cut = [CONTENT[at : at + CHUNK_BYTES] for at in range(0, len(CONTENT), CHUNK_BYTES)]
    assert base.root == root_of(b"".join(map(leaf_hash, cut)))
    said = base_record(base, file)["base"]
    assert said == {
        "path": str(file),
        "digest": base.digest,
        "rank": 4,
        "alpha": 4.0,
        "adapt": ["blocks/*"],
    }
    assert base_record(name_base(file), file)["base"]["rank"] == 0


@pytest.mark.parametrize(
    ("content", "given", "code"),
    [(b"", {}, BAD_CONFIG), (None, {}, BAD_CONFIG), (b"x", {"alpha": 2.0}, USAGE)],
)
def test_what_cannot_be_a_base_is_refused(
    tmp_path: Path, content: bytes | None, given: dict[str, float], code: int
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TapestryError) as caught:
        name_base(path, **given)  # type: ignore[arg-type]
    assert caught.value.exit_code == code


def test_another_file_never_gets_the_name(file: Path, base: Base, paths: Paths) -> None:
    wrong = file.with_name("wrong")
    wrong.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(TapestryError, match="not the base that the network names"):
        take_base(wrong, base, paths)
    assert list(base_path(paths, base).parent.iterdir()) == []
    assert take_base(file, base, paths).read_bytes() == CONTENT
    assert is_held(base_path(paths, base), base)
    base_path(paths, base).write_bytes(CONTENT[:-1])
    assert not is_held(base_path(paths, base), base)


def test_a_service_keeps_it_where_both_its_processes_see_it(base: Base) -> None:
    paths = find_paths({"TAPESTRY_SERVICE": "ana"})
    assert base_path(paths, base) == Path(f"/etc/tapestry/ana/base/{base.digest}.safetensors")


def _pieces(held: Held, base: Base) -> bytes:
    root = bytes.fromhex(base.root)
    found = b""
    for index in range(-(-base.bytes // CHUNK_BYTES)):
        for offset in range(0, CHUNK_BYTES, CHUNK_BYTES // 2):
            found += held.answer(BaseRequest(root, index, offset, CHUNK_BYTES // 2))[1]
    return found


def test_a_holder_gives_hashes_and_pieces(file: Path, base: Base, paths: Paths) -> None:
    target = take_base(file, base, paths)
    held = Held(target, base)
    response, leaves = held.answer(BaseLeavesRequest(bytes.fromhex(base.root)))
    assert (response.status, len(leaves)) == ("ok", 96)
    assert root_of(leaves) == base.root
    assert _pieces(held, base) == CONTENT
    root = bytes.fromhex(base.root)
    for request in (
        BaseLeavesRequest(bytes(32)),
        BaseRequest(bytes(32), 0, 0, 10),
        BaseRequest(root, 3, 0, 10),
        BaseRequest(root, 2, CHUNK_BYTES - 5, 5),
        BaseRequest(root, 2**20 - 1, 0, 1),
    ):
        assert held.answer(request) == (FetchResponse("missing"), b"")
    target.with_name(target.name + ".leaves").unlink()
    assert Held(target, base).answer(BaseLeavesRequest(root))[1] == leaves
    target.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(TapestryError, match="damaged"):
        Held(target, base)
    target.unlink()
    assert held.answer(BaseRequest(root, 0, 0, 10))[0].status == "missing"


def test_the_vectors_of_the_wire_page(tmp_path: Path, paths: Paths) -> None:
    """What another implementation has to reproduce."""
    given = json.loads((Path(__file__).parents[1] / "vectors" / "base.json").read_text())
    path = tmp_path / "vector"
    path.write_bytes(bytes(i % 251 for i in range(given["bytes"])))
    base = name_base(path)
    assert (base.digest, base.root) == (given["digest"], given["root"])
    held = Held(take_base(path, base, paths), base)
    for name, body in (
        ("base_leaves", bytes.fromhex("".join(given["leaves"]))),
        ("base", path.read_bytes()[2 * CHUNK_BYTES + 10 :][:900]),
    ):
        response, found = held.answer(_asked(bytes.fromhex(given["requests"][name])))
        assert encode_response(response).hex() == given["responses"][name]
        assert found == body


def _asked(request: bytes) -> BaseLeavesRequest | BaseRequest:
    asked = decode_request(request)
    assert isinstance(asked, BaseLeavesRequest | BaseRequest)
    return asked


# ---- over the wire --------------------------------------------------------------------------


def _serving(answer: Callable[[BaseLeavesRequest | BaseRequest], Answer]) -> object:
    async def serve(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        response, body = answer(_asked(request))
        return encode_response(response), body

    return serve


def _fetched(
    draft: Draft, base: Base, answers: list[Callable[[BaseLeavesRequest | BaseRequest], Answer]]
) -> str:
    """What comes of asking members that answer so, in that order."""

    async def main() -> str:
        peers = [Peer(number, _serving(each)) for number, each in enumerate(answers, 1)]  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            for peer in peers:
                await peer.transport.listen([LOOPBACK])
                await nursery.start(peer.transport.serve)
            addresses = [
                Address("ip4", "127.0.0.1", peer.address.port, key(peer.number).peer_id)
                for peer in peers
            ]
            with trio.fail_after(60):
                why = await _fetch(draft, base, NETWORK, addresses, lambda held, count: None)
            nursery.cancel_scope.cancel()
        return why

    return trio.run(main)


def test_a_stranger_gets_the_whole_in_verified_pieces(file: Path, base: Base, paths: Paths) -> None:
    draft = Draft(base_path(paths, base), base)
    assert _fetched(draft, base, [Held(file, base).answer]) == ""
    assert not draft.path.exists()  # it has no name before all of it is hashed
    draft.finish()
    assert draft.path.read_bytes() == CONTENT
    assert {path.name for path in draft.path.parent.iterdir()} == {
        draft.path.name,
        draft.path.name + ".leaves",
    }


def test_liars_are_passed_over_and_what_was_verified_is_kept(
    file: Path, base: Base, paths: Paths
) -> None:
    honest = Held(file, base)
    asked: list[int] = []

    def flipped(request: BaseLeavesRequest | BaseRequest) -> Answer:
        """Right but for the second piece."""
        response, body = honest.answer(request)
        if isinstance(request, BaseRequest) and request.index == 1:
            body = bytes([body[0] ^ 1]) + body[1:]
        return response, body

    def other_hashes(request: BaseLeavesRequest | BaseRequest) -> Answer:
        return FetchResponse("ok", 96, 96), bytes(96)

    def counted(request: BaseLeavesRequest | BaseRequest) -> Answer:
        if isinstance(request, BaseRequest):
            asked.append(request.index)
        return honest.answer(request)

    def nothing(request: BaseLeavesRequest | BaseRequest) -> Answer:
        return FetchResponse("missing"), b""

    draft = Draft(base_path(paths, base), base)
    assert "not the file's" in _fetched(draft, base, [other_hashes, nothing, flipped])
    assert draft.held == 1
    again = Draft(base_path(paths, base), base)  # another start of the program
    assert _fetched(again, base, [counted]) == ""
    assert asked == [1, 2]
    again.finish()
    assert again.path.read_bytes() == CONTENT


def test_a_disk_that_fills_up_is_told_in_one_line(
    file: Path, base: Base, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(draft: Draft, piece: bytes) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Draft, "add", full)
    peer, target = Peer(1, _serving(Held(file, base).answer)), base_path(paths, base)  # type: ignore[arg-type]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await peer.transport.listen([LOOPBACK])
            await nursery.start(peer.transport.serve)
            address = Address("ip4", "127.0.0.1", peer.address.port, key(1).peer_id)
            with pytest.raises(TapestryError, match="cannot be written: No space left") as caught:
                await trio.to_thread.run_sync(
                    fetch_base, base, NETWORK, [address], target, lambda held, count: None
                )
            assert caught.value.exit_code == FAILURE
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_part_that_the_disk_spoilt_is_asked_for_again(
    file: Path, base: Base, paths: Paths
) -> None:
    path = base_path(paths, base)
    path.parent.mkdir(parents=True)
    spoilt = bytearray(CONTENT[: 2 * CHUNK_BYTES + 9])
    spoilt[CHUNK_BYTES + 3] ^= 1
    path.with_name(path.name + ".part").write_bytes(spoilt)
    draft = Draft(path, base)
    leaves = Held(file, base).answer(BaseLeavesRequest(bytes.fromhex(base.root)))[1]
    assert draft.learn(leaves)
    assert draft.held == 1


def test_a_manifest_that_contradicts_itself_is_found_out(
    file: Path, base: Base, paths: Paths
) -> None:
    wrong = Base(digest="ab" * 32, bytes=base.bytes, root=base.root)
    draft = Draft(base_path(paths, wrong), wrong)
    assert _fetched(draft, wrong, [Held(file, base).answer]) == ""
    with pytest.raises(TapestryError) as caught:
        draft.finish()
    assert caught.value.exit_code == REFUSED
    assert list(draft.path.parent.iterdir()) == []


def test_with_nobody_to_ask_it_says_what_to_do(base: Base, paths: Paths) -> None:
    with pytest.raises(TapestryError, match="give it with --base") as caught:
        fetch_base(base, NETWORK, [], base_path(paths, base), lambda held, count: None)
    assert caught.value.exit_code == TEMPORARY


def test_a_disk_without_room_is_found_out_before_a_byte_is_fetched(
    base: Base, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    with pytest.raises(TapestryError, match="make room") as caught:
        fetch_base(base, NETWORK, [], base_path(paths, base), lambda held, count: None)
    assert caught.value.exit_code == FAILURE


def _manifest(base: Base) -> Manifest:
    return Manifest(
        network=m.Network(name="Test"),
        task=m.Task(name="language"),
        schema=m.Schema(hash="ab" * 32, parameters=1000),
        genesis=m.Genesis(seed=1, root="ab" * 32),
        base=base,
    )


def test_a_member_whose_file_is_gone_is_told_where_it_belongs(base: Base, paths: Paths) -> None:
    mend_base(_manifest(base), paths, [])  # it knows nobody
    with pytest.raises(TapestryError, match=base.digest) as caught:
        need_base(_manifest(base), paths)
    assert caught.value.exit_code == BAD_CONFIG


def test_a_member_whose_file_is_gone_fetches_it_when_it_starts(
    file: Path, base: Base, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetched(draft: Draft, *rest: object) -> str:
        await trio.lowlevel.checkpoint()
        held = Held(file, base)
        assert draft.learn(held.answer(BaseLeavesRequest(bytes.fromhex(base.root)))[1])
        for at in range(0, len(CONTENT), CHUNK_BYTES):
            assert draft.add(CONTENT[at : at + CHUNK_BYTES])
        return ""

    monkeypatch.setattr("tapestry_p2p.daemon.base_fetch._fetch", fetched)
    anybody = [Address("ip4", "127.0.0.1", 1, key(1).peer_id)]
    mend_base(_manifest(base), paths, anybody)
    found = need_base(_manifest(base), paths)
    assert found is not None
    assert found.read_bytes() == CONTENT
    assert found.stat().st_mode & 0o777 == 0o644
    monkeypatch.delattr("tapestry_p2p.daemon.base_fetch._fetch")
    mend_base(_manifest(base), paths, anybody)  # it is there: nobody is asked
