"""A member's folders and its key: private, found again, never overwritten."""

import os
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import BAD_CONFIG, TapestryError


def test_one_folder_holds_all(home: Path) -> None:
    paths = find_paths()
    assert paths.manifest == home / "network.toml"
    assert paths.key == home / "state" / "key.pem"
    paths.make()
    for folder in (paths.config, paths.state, paths.trainer, paths.cache, paths.runtime):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert paths.trainer not in [paths.state, *paths.state.parents]


def test_without_a_home_the_xdg_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAPESTRY_HOME")
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name))
    paths = find_paths()
    assert paths.member == home / "CONFIG" / "tapestry" / "tapestry.toml"
    assert paths.key == home / "STATE" / "tapestry" / "node" / "key.pem"
    assert paths.cache == home / "CACHE" / "tapestry"


def test_sockets_of_a_long_home_can_be_bound_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"TAPESTRY_HOME": str(tmp_path / ("long" * 30))}
    paths = find_paths(environ)
    assert paths == find_paths({**environ, "XDG_RUNTIME_DIR": "/elsewhere", "TMPDIR": "/other"})
    assert paths.runtime != find_paths({"TAPESTRY_HOME": str(tmp_path / ("loop" * 30))}).runtime
    paths.make()
    try:
        assert paths.runtime.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(paths.control_socket))
        paths.control_socket.unlink()
    finally:
        paths.runtime.rmdir()


def test_a_socket_folder_that_is_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "run").symlink_to(tmp_path)
    with pytest.raises(TapestryError, match="not a folder of yours"):
        find_paths().make()


def test_a_home_that_cannot_be_made(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(TapestryError, match="set TAPESTRY_HOME to a folder"):
        find_paths().make()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    assert make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    seed = load_key(path)
    assert len(seed) == 32
    assert not make_key(path)
    assert load_key(path) == seed
    assert os.listdir(tmp_path) == ["key.pem"]


def test_a_key_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TapestryError, match="cannot be written"):
        make_key(tmp_path / "file" / "key.pem")


def test_two_keys_differ(tmp_path: Path) -> None:
    make_key(tmp_path / "a")
    make_key(tmp_path / "b")
    assert load_key(tmp_path / "a") != load_key(tmp_path / "b")


def wrong_kind() -> bytes:
    pem = X25519PrivateKey.generate()
    return pem.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"-----BEGIN", b"x" * 9000, wrong_kind()])
def test_a_file_that_is_no_key_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(TapestryError, match="holds no Ed25519 key") as caught:
        load_key(path)
    assert caught.value.exit_code == BAD_CONFIG
    assert not make_key(path)
    assert path.read_bytes() == content


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    make_key(path)
    path.chmod(0o640)
    with pytest.raises(TapestryError, match="chmod 600") as caught:
        load_key(path)
    assert caught.value.exit_code == BAD_CONFIG


def test_a_key_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TapestryError, match="tapestry init"):
        load_key(tmp_path / "key.pem")
    with pytest.raises(TapestryError, match="cannot be read"):
        load_key(tmp_path)
