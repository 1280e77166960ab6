"""`verify` says yes to a folder as it was exported, and no to any other."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from export_kit import ANA, BO, EVE, World

from tapestry_p2p.cli import folder as f
from tapestry_p2p.cli.main import main
from tapestry_p2p.cli.verify import judge
from tapestry_p2p.gossip.header import decode_signed, sign
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.lineage import sign_statement


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def exported(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.export(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_yes_to_what_was_exported(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(exported)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("YES")
    assert "from its beginning to entry 10: 11 entries" in said
    assert "1 other members" in said
    assert ANA.peer_id in said
    assert judge(exported).differs == pytest.approx(0.01, rel=1e-3)


def test_the_network_that_is_named_must_be_the_one(
    exported: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """--network is an option of this verb, not the choice among the networks of this machine."""
    right = world.manifest.network_id.hex()
    other = "0" if right[0] != "0" else "1"
    for form in (["--network", right], ["--network", right[:8]], [f"--network={right}"]):
        assert main(["verify", str(exported), *form]) == 0
    for wrong in (right[:8] + "x", other, "default"):
        for form in (["--network", wrong], [f"--network={wrong}"]):
            assert main(["verify", str(exported), *form]) == 1
            assert f"it is of network {right}, not of {wrong}" in capsys.readouterr().out
    assert main(["--network", "default", "verify", str(exported), "--network", other]) == 1


def test_yes_to_the_public_copy_itself(world: World, tmp_path: Path) -> None:
    folder = world.export(tmp_path / "copy", copy=True)
    assert not (folder / f.PUBLISHED).exists()
    found = judge(folder)
    assert not found.faults
    assert found.differs == 0


FILES = [f.MODEL, f.INT8, f.PUBLISHED, f.CARD, f.CONFIG, f.MANIFEST, f.LINEAGE, f.SIGNATURE]


@pytest.mark.parametrize("name", FILES)
def test_no_after_one_flipped_bit_anywhere(name: str, folder: Path) -> None:
    path = folder / name
    whole = path.read_bytes()
    drawn = random.Random(name)
    places = [0, len(whole) - 1, *(drawn.randrange(len(whole)) for _ in range(6))]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << drawn.randrange(8)
        path.write_bytes(flipped)
        assert judge(folder).faults, (name, place)
    path.write_bytes(whole)
    assert not judge(folder).faults


@pytest.mark.parametrize("name", FILES)
def test_no_to_a_missing_or_a_shortened_file(name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    assert judge(folder).faults
    (folder / name).unlink()
    (fault,) = judge(folder).faults
    assert name in fault


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda p: p.symlink_to("README.md")])
def test_no_to_what_was_added(make: Callable[[Path], None], folder: Path) -> None:
    make(folder / ".hidden")
    (fault,) = judge(folder).faults
    assert ".hidden was added" in fault


def test_no_to_a_file_that_is_a_link_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (folder / f.CARD).rename(tmp_path / "elsewhere")
    (folder / f.CARD).symlink_to(tmp_path / "elsewhere")
    assert "is no file" in judge(folder).faults[0]


def signed_anew(folder: Path, world: World, by: Identity, **changes: object) -> None:
    """The lineage with other values, every digest made anew, signed by that key."""
    lineage = {**f.read_json(folder / f.LINEAGE), **changes}
    lineage["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": f.digest_of(folder / name)}
        for name in lineage["files"]
    }
    f.write_json(folder / f.LINEAGE, lineage)
    digest = bytes.fromhex(f.digest_of(folder / f.LINEAGE))
    signature = sign_statement(world.manifest.network_id, digest, by.sign)
    (folder / f.SIGNATURE).write_bytes(signature)


def test_no_to_a_folder_that_somebody_else_signed(folder: Path, world: World) -> None:
    signed_anew(folder, world, EVE)
    assert judge(folder).faults == ["the signature of the lineage is not the member's"]


def test_no_to_another_members_stream_under_the_own_name(folder: Path, world: World) -> None:
    signed_anew(folder, world, EVE, member={"id": EVE.peer_id, "name": "Ana", "languages": []})
    assert judge(folder).faults == ["entry 0 is of another member"]


def test_a_forger_with_a_stream_of_their_own_is_shown_by_the_key(
    world: World, tmp_path: Path
) -> None:
    folder = world.export(tmp_path / "eve", by=EVE)
    found = judge(folder)
    assert not found.faults
    assert found.member == EVE.peer_id
    assert judge(folder, member=ANA.peer_id).faults
    assert judge(folder, network=world.manifest.network_id.hex()[:12]).faults == []
    assert judge(folder, network="00" * 32).faults


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [*rows[:4], *rows[5:]], "does not lead on"),
        (lambda rows: [*rows[:4], rows[5], rows[4], *rows[6:]], "does not lead on"),
        (lambda rows: rows[:-1], "another root"),
        (lambda rows: [], "no entry"),
        (lambda rows: [*rows[:-1], rows[-1][:-2] + "00"], "not signed by its author"),
        (lambda rows: [*rows, rows[-1] + "00"], ""),
        (lambda rows: [*rows, 7], ""),
        (lambda rows: None, ""),
    ],
)
def test_no_to_a_stream_with_a_hole_a_swap_or_a_stump(
    change: Callable[[list[str]], object], said: str, folder: Path, world: World
) -> None:
    rows = f.read_json(folder / f.LINEAGE)["entries"]
    signed_anew(folder, world, ANA, entries=change(rows))
    (fault,) = judge(folder).faults
    assert said in fault


def test_no_to_an_entry_that_somebody_else_wrote_into_the_stream(
    folder: Path, world: World
) -> None:
    rows = f.read_json(folder / f.LINEAGE)["entries"]
    last = decode_signed(bytes.fromhex(rows[-1])).header
    forged = sign(replace(last, round=9999), EVE.sign)
    signed_anew(folder, world, ANA, entries=[*rows[:-1], forged.encode().hex()])
    assert judge(folder).faults == ["entry 10 is not signed by its author"]


def test_no_to_a_stream_with_another_beginning(world: World, tmp_path: Path) -> None:
    own = world.stream(ANA, 10, genesis=b"\x07" * 32)
    folder = world.export(tmp_path / "other", own=own)
    assert judge(folder).faults == ["the stream does not begin at the network's first parameters"]


def test_no_to_a_copy_that_was_not_published(folder: Path, world: World) -> None:
    tensors = safetensors.numpy.load_file(folder / f.PUBLISHED)
    first = sorted(tensors)[0]
    tensors[first] = tensors[first] + np.float32(1e-3)
    safetensors.numpy.save_file(tensors, folder / f.PUBLISHED)
    signed_anew(folder, world, ANA)
    assert "another root" in judge(folder).faults[0]


def test_no_to_an_int8_model_that_is_another_one(folder: Path, world: World) -> None:
    tensors = safetensors.numpy.load_file(folder / f.INT8)
    name = next(name for name in tensors if tensors[name].dtype == np.int8)
    tensors[name].ravel()[0] ^= 3
    safetensors.numpy.save_file(tensors, folder / f.INT8)
    signed_anew(folder, world, ANA)
    assert "not model.safetensors rounded" in judge(folder).faults[0]


def test_no_to_a_config_of_another_model(folder: Path, world: World) -> None:
    config = f.read_json(folder / f.CONFIG)
    changes: list[dict[str, object]] = [
        {"options": {}},
        {"task": "x.py:make"},
        {"layout": config["layout"][:-1]},
    ]
    for change in changes:
        f.write_json(folder / f.CONFIG, {**config, **change})
        signed_anew(folder, world, ANA)
        assert judge(folder).faults, change


@pytest.mark.parametrize("key", ["id", "head"])
def test_no_to_a_head_that_is_not_its_members(key: str, folder: Path, world: World) -> None:
    (row,) = f.read_json(folder / f.LINEAGE)["mixed"]
    row[key] = EVE.peer_id if key == "id" else world.stream(EVE, 1).entries[-1].encode().hex()
    signed_anew(folder, world, ANA, mixed=[row])
    assert "is of another member" in judge(folder).faults[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "{" * 100_000, '{"format": '])
def test_no_to_what_is_no_lineage(text: str, folder: Path) -> None:
    (folder / f.LINEAGE).write_text(text)
    assert judge(folder).faults


def test_an_empty_or_missing_folder_is_a_no(tmp_path: Path) -> None:
    assert judge(tmp_path).faults
    assert main(["verify", str(tmp_path / "nowhere")]) == 1


def test_any_program_opens_it_without_our_package(exported: Path) -> None:
    code = (
        "import sys; sys.modules['tapestry_p2p'] = None\n"
        "from safetensors.numpy import load_file\n"
        "model, small = load_file(sys.argv[1]), load_file(sys.argv[2])\n"
        "print(sum(t.size for t in model.values()), small['embed/embedding'].dtype,"
        " small['embed/embedding:scale'].dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported / f.MODEL), str(exported / f.INT8)],
        capture_output=True,
        text=True,
        check=True,
    )
    parameters = json.loads((exported / f.CONFIG).read_text())["parameters"]
    assert done.stdout.split() == [str(parameters), "int8", "float32"]


def test_names_that_others_chose_are_no_markup(exported: Path) -> None:
    card = (exported / f.CARD).read_text()
    assert "Ana \\| \\<b\\>" in card
    assert BO.peer_id in card
    assert 'language: ["de", "en"]' in card
