"""`init` and `join`: what they write, and that no mistake leaves anything behind or overwrites.

The trainer that builds the model, and the peers who hand over the manifest, are played here.
"""

import hashlib
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tapestry_p2p.cli import founding, newcomer
from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon import manifest as m
from tapestry_p2p.daemon.address import parse_address
from tapestry_p2p.daemon.base import name_base
from tapestry_p2p.daemon.config import Config, load_config
from tapestry_p2p.daemon.describe import Description
from tapestry_p2p.daemon.invite import Invite
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.retirement import read_retirement
from tapestry_p2p.errors import BAD_CONFIG, FAILURE, OK, REFUSED, USAGE, VERSION, TapestryError
from tapestry_p2p.gossip.identity import Identity

BUILT = Description("ab" * 32, 1000, np.zeros(1000, np.float32), bytes(32), "played")
FOUNDER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Every model that was asked for; all of them come out as BUILT."""
    asked: list[tuple[object, ...]] = []

    def describe(*args: object) -> Description:
        asked.append(args)
        return BUILT

    monkeypatch.setattr("tapestry_p2p.cli.founding.describe", describe)
    monkeypatch.setattr("tapestry_p2p.cli.joining.describe", describe)
    return asked


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("text")
    return path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


# ---- init -----------------------------------------------------------------------------------


def test_init_makes_a_member_that_is_sound(
    home: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--name", "Ana", "--languages", "fr, de", "--data", text) == OK
    (retire,) = home.glob("retire-*.txt")
    assert files(home) == {"network.toml", "tapestry.toml", "state/key.pem", retire.name}
    assert retire.stat().st_mode & 0o777 == 0o600
    config = load_config(home / "tapestry.toml", {})
    manifest = m.load_manifest(home / "network.toml")
    identity = Identity(load_key(home / "state" / "key.pem"))
    assert config.member.languages == ["fr", "de"]
    assert config.data.paths == [str(text)]
    assert manifest.genesis.members == [identity.peer_id]
    assert manifest.schema.parameters == BUILT.parameters
    assert manifest.genesis.root == BUILT.root.hex()
    out = capsys.readouterr().out
    assert identity.peer_id in out
    assert manifest.network_id.hex() in out
    assert retire.name in out
    signed = read_retirement(retire)
    assert (signed.header.author, signed.header.network) == (
        identity.public_key, manifest.network_id,
    )  # fmt: skip
    assert run("config", "check") == OK


def test_two_networks_are_never_the_same(home: Path, tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        assert run("init", "--home", tmp_path / name) == OK
        ids.add(m.load_manifest(tmp_path / name / "network.toml").network_id)
    assert len(ids) == 2
    assert not home.exists()


def test_without_data_a_sample_in_the_members_language(home: Path) -> None:
    assert run("init", "--languages", "ja") == OK
    sample = home / "sample" / "jpn.txt"
    assert "人権" in sample.read_text()
    assert load_config(home / "tapestry.toml", {}).data.paths == [str(sample)]


def test_task_options_keep_their_types(home: Path, built: list[tuple[object, ...]]) -> None:
    options = {"width=64": 64, "rate=1e-3": 0.001, "tied=true": True, "kind=wide": "wide"}
    words = [word for option in options for word in ("--task-option", option)]
    assert run("init", *words) == OK
    wanted = {text.split("=")[0]: value for text, value in options.items()}
    assert m.load_manifest(home / "network.toml").task.options == wanted
    assert built[0][1] == wanted


def test_a_task_of_ones_own_is_copied_and_pinned(home: Path, tmp_path: Path, text: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("def make_task(): ...\n")
    assert run("init", "--task", f"{code}:make_task", "--data", text) == OK
    manifest = m.load_manifest(home / "network.toml")
    assert manifest.task.name == "mine.py:make_task"
    assert m.task_file(manifest, home) == home / "mine.py"


def test_a_network_on_open_weights(
    home: Path, tmp_path: Path, built: list[tuple[object, ...]]
) -> None:
    file = tmp_path / "open.safetensors"
    file.write_bytes(b"weights")
    words = ["--base", file, "--rank", 4, "--alpha", 8, "--adapt", "blocks/*"]
    assert run("init", *words) == OK
    base = m.load_manifest(home / "network.toml").base
    assert isinstance(base, m.Base)
    assert (base.bytes, base.rank, base.alpha, base.adapt) == (7, 4, 8.0, ["blocks/*"])
    assert (home / "state" / "base" / f"{base.digest}.safetensors").read_bytes() == b"weights"
    asked = built[0][5]
    assert isinstance(asked, dict)
    assert asked["base"]["digest"] == base.digest
    assert run("config", "check") == OK
    (home / "state" / "base" / f"{base.digest}.safetensors").unlink()
    assert run("config", "check") == BAD_CONFIG


def test_digits_need_no_data(home: Path) -> None:
    assert run("init", "--task", "digits") == OK
    assert load_config(home / "tapestry.toml", {}).data.paths == []
    assert run("config", "check") == OK


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--name", "x" * 65], USAGE, "at most 64 characters"),
        (["--tolerate", "6"], USAGE, "3f+1 <= all_to_all_max does not hold: 19 > 17"),
        (["--task-option", "width"], USAGE, "write it as key=value"),
        (["--task", "gone.py:make_task"], BAD_CONFIG, "cannot be read"),
        (["--rank", "4"], USAGE, "--rank, --alpha, --adapt go with --base FILE"),
        (["--base", "gone.safetensors"], BAD_CONFIG, "gone.safetensors cannot be read"),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    words: list[str], status: int, said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", *words) == status
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not home.exists()


def test_data_that_is_missing_makes_no_member(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--data", "gone.txt") == BAD_CONFIG
    assert "gone.txt does not exist" in capsys.readouterr().err
    assert files(home) == set()


def test_a_trainer_that_fails_makes_no_member(
    home: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def describe(*args: object) -> Description:
        raise TapestryError("the data is smaller than one batch", BAD_CONFIG)

    monkeypatch.setattr(founding, "describe", describe)
    assert run("init", "--data", text) == BAD_CONFIG
    assert files(home) == set()
    monkeypatch.undo()


@pytest.mark.parametrize("existing", ["network.toml", "tapestry.toml"])
@pytest.mark.parametrize("words", [["init"], ["join", "LINK", "--yes"]])
def test_an_existing_home_stays_as_it_is(
    existing: str, words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / existing).write_text("mine")
    assert run(*[LINK if word == "LINK" else word for word in words]) == REFUSED
    assert f"{existing} exists already and stays" in capsys.readouterr().err
    assert files(home) == {existing}
    assert (home / existing).read_text() == "mine"


def test_a_key_that_is_there_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "state").mkdir(parents=True)
    make_key(home / "state" / "key.pem")
    seed = load_key(home / "state" / "key.pem")
    assert run("init") == OK
    assert load_key(home / "state" / "key.pem") == seed
    assert "(the key was there)" in capsys.readouterr().out


def test_a_broken_key_makes_no_member(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "state").mkdir(parents=True)
    (home / "state" / "key.pem").write_text("no key")
    (home / "state" / "key.pem").chmod(0o600)
    assert run("init", "--task", "digits") == BAD_CONFIG
    assert "holds no Ed25519 key" in capsys.readouterr().err
    assert files(home) == {"state/key.pem"}


def test_the_listening_port_stays_out_of_the_systems_way() -> None:
    _, listen = newcomer.with_free_port([])
    assert parse_address(listen.addresses[0]).port in newcomer.PORTS


# ---- join -----------------------------------------------------------------------------------

MANIFEST = m.Manifest(
    network=m.Network(name="Ours", licence="CC0-1.0"),
    task=m.Task(name="digits"),
    schema=m.Schema(hash=BUILT.schema, parameters=BUILT.parameters),
    genesis=m.Genesis(seed=1, root=BUILT.root.hex()),
)
ADDRESS = parse_address(f"/ip4/127.0.0.1/tcp/4001/p2p/{FOUNDER}")


def link_to(manifest: m.Manifest) -> str:
    return str(Invite(manifest.network_id, (ADDRESS,)))


LINK = link_to(MANIFEST)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sets what the peers hand over as their manifest."""

    def serve(text: bytes) -> None:
        module = types.ModuleType("tapestry_p2p.daemon.join")
        module.fetch_manifest = lambda invite: text  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tapestry_p2p.daemon.join", module)

    serve(m.dump_manifest(MANIFEST).encode())
    return serve


def test_join_writes_the_same_network(
    home: Path, served: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("join", LINK, "--yes", "--name", "Bo") == OK
    assert m.load_manifest(home / "network.toml").network_id == MANIFEST.network_id
    config = load_config(home / "tapestry.toml", {})
    assert config.bootstrap.peers == [str(ADDRESS)]
    assert config.member.name == "Bo"
    shown = capsys.readouterr().err
    for words in ("Ours, licence CC0-1.0", "digits", "seed 1", "50 steps", "cs_plus"):
        assert words in shown
    assert run("config", "check") == OK


@pytest.mark.parametrize("where", ["file", "folder"])
def test_join_by_a_manifest_at_hand(
    where: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a git checkout: nothing is fetched, and where members are is said by --peer."""
    checkout = tmp_path / "git"
    checkout.mkdir()
    (checkout / "network.toml").write_text(m.dump_manifest(MANIFEST))
    given = checkout / "network.toml" if where == "file" else checkout
    assert run("join", given, "--peer", "nowhere", "--yes") == USAGE
    assert run("join", given, "--peer", ADDRESS, "--yes", "--name", "Bo") == OK
    assert f"…{FOUNDER[-8:]} at 127.0.0.1" in capsys.readouterr().err
    assert m.load_manifest(home / "network.toml").network_id == MANIFEST.network_id
    assert load_config(home / "tapestry.toml", {}).bootstrap.peers == [str(ADDRESS)]


def test_join_by_a_manifest_alone_says_what_is_missing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ours.toml").write_text(m.dump_manifest(MANIFEST))
    assert run("join", tmp_path / "ours.toml", "--yes") == OK
    assert "no address of a member is known" in capsys.readouterr().err
    assert load_config(home / "tapestry.toml", {}).bootstrap.peers == []


def test_join_shows_the_base_and_takes_the_one_at_hand(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "open.safetensors"
    file.write_bytes(b"weights")
    based = msgspec.structs.replace(MANIFEST, base=name_base(file, rank=2))
    (tmp_path / "ours.toml").write_text(m.dump_manifest(based))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"weighty")
    join = ("join", tmp_path / "ours.toml", "--yes", "--base")
    assert run(*join, other) == BAD_CONFIG
    assert "is not the base that the network names" in capsys.readouterr().err
    assert not (home / "network.toml").exists()
    assert run(*join, file) == OK
    said = capsys.readouterr().err
    assert "adapters of rank 2" in said
    assert hashlib.sha256(b"weights").hexdigest() in said
    (tmp_path / "none.toml").write_text(m.dump_manifest(MANIFEST))
    another = ("--home", tmp_path / "b", "--base", file)
    assert run("join", tmp_path / "none.toml", "--yes", *another) == USAGE


def test_join_asks_nobody_without_a_terminal(
    home: Path, served: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run("join", LINK) == USAGE
    assert not home.exists()


@pytest.mark.parametrize(("answer", "status"), [("y", OK), ("", REFUSED), ("no", REFUSED)])
def test_join_asks_on_a_terminal(
    answer: str,
    status: int,
    home: Path,
    served: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert run("join", LINK) == status
    assert home.exists() == (status == OK)


def changed(**sections: object) -> m.Manifest:
    import msgspec

    return msgspec.structs.replace(MANIFEST, **sections)


@pytest.mark.parametrize(
    ("offered", "link", "status", "said"),
    [
        (changed(task=m.Task(name="language")), LINK, REFUSED, "ask for a new link"),
        (changed(schema=m.Schema(hash="cd" * 32, parameters=1000)), "", VERSION, "with cdcd"),
        (changed(schema=m.Schema(hash="ab" * 32, parameters=999)), "", VERSION, "has 999"),
        (changed(genesis=m.Genesis(seed=1, root="cd" * 32)), "", VERSION, "first parameters"),
        (
            changed(task=m.Task(name="x.py:make", digest="ab" * 32)), "", BAD_CONFIG,
            "give it with --task-file",
        ),
    ],
)  # fmt: skip
def test_a_network_that_is_not_what_it_says_is_not_joined(
    offered: m.Manifest,
    link: str,
    status: int,
    said: str,
    home: Path,
    served: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    served(m.dump_manifest(offered).encode())
    assert run("join", link or link_to(offered), "--yes") == status
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert files(home) == set() if home.exists() else True


def test_foreign_bytes_for_a_manifest(
    home: Path, served: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    served(b"\xff\x1b[31m")
    assert run("join", LINK, "--yes") == BAD_CONFIG
    assert capsys.readouterr().err.startswith("tapestry: the network's manifest: not UTF-8")


def test_what_peers_wrote_cannot_speak_to_the_terminal(
    home: Path, served: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sly = changed(task=m.Task(name="digits", options={"a": "\x1b[2Jgone", "\nb": 1}))
    served(m.dump_manifest(sly).encode())
    assert run("join", link_to(sly), "--yes") == OK
    assert "\x1b" not in capsys.readouterr().err


def test_a_bad_link_is_refused_before_anything(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("join", "tapestry:nonsense") == USAGE
    assert "copy it whole" in capsys.readouterr().err
    assert not home.exists()


def test_code_given_for_joining_must_be_the_networks(
    home: Path, tmp_path: Path, served: Callable[[bytes], None]
) -> None:
    import hashlib

    code = tmp_path / "x.py"
    code.write_text("def make(): ...\n")
    digest = hashlib.sha256(code.read_bytes()).hexdigest()
    theirs = changed(task=m.Task(name="x.py:make", digest=digest))
    served(m.dump_manifest(theirs).encode())
    other = tmp_path / "y.py"
    other.write_text("import os\n")
    assert run("join", link_to(theirs), "--yes", "--task-file", other) == BAD_CONFIG
    assert not home.exists()
    assert run("join", link_to(theirs), "--yes", "--task-file", code.rename(other)) == OK
    assert (home / "x.py").read_text() == "def make(): ...\n"


def test_nothing_is_written_over_by_a_race(home: Path) -> None:
    paths = newcomer.new_paths(None)
    paths.make()
    paths.member.write_text("other")
    with pytest.raises(TapestryError) as caught:
        newcomer.write(paths, MANIFEST, Config(), Identity(bytes(32)))
    assert caught.value.exit_code == FAILURE
    assert paths.member.read_text() == "other"
    assert not paths.manifest.exists()
