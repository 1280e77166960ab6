"""Where a member's files lie: sockets under a home with a long name, and what is left of them."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import make_manifest, vector

from tapestry_p2p.daemon import logs, run
from tapestry_p2p.daemon.config import Config, Testing, dump_config
from tapestry_p2p.daemon.keyfile import make_key
from tapestry_p2p.daemon.manifest import dump_manifest
from tapestry_p2p.daemon.paths import SOCKET_PATH_BYTES_MAX, find_paths
from tapestry_p2p.daemon.store import Store


def test_sockets_of_a_home_with_a_long_name_leave_no_folder_behind(tmp_path: Path) -> None:
    paths = find_paths({"TAPESTRY_HOME": str(tmp_path / ("long" * 30))})
    paths.make()
    assert len(str(paths.control_socket)) <= SOCKET_PATH_BYTES_MAX
    assert paths.runtime.parent == Path("/tmp")
    in_use = paths.runtime / "page.sock"
    in_use.touch()
    paths.tidy()
    assert in_use.exists()
    in_use.unlink()
    paths.tidy()
    assert not paths.runtime.exists()
    paths.make()
    paths.tidy()


def test_a_folder_in_the_home_stays() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # a short name
        paths = find_paths({"TAPESTRY_HOME": home})
        paths.make()
        paths.tidy()
        assert paths.runtime == Path(home) / "run"
        assert paths.runtime.exists()


def test_a_start_makes_the_folder_that_its_forerunner_took_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = find_paths({"TAPESTRY_HOME": str(tmp_path / ("long" * 30))})
    paths.make()
    make_key(paths.key)
    paths.manifest.write_text(dump_manifest(make_manifest(vector())))
    paths.member.write_text(dump_config(Config(testing=Testing(attack="mirror"))))
    there = []

    def forerunner_ends(*words: Any) -> Store:
        paths.tidy()
        return Store(*words)

    monkeypatch.setattr(run, "Store", forerunner_ends)
    monkeypatch.setattr(logs, "install", lambda *_: None)
    monkeypatch.setattr(run, "run_unwrapped", lambda *_: there.append(paths.runtime.exists()))
    run.run(paths)
    assert there == [True]
    assert not paths.runtime.exists()
