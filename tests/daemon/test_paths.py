"""Where a member's files lie: sockets under a home with a long name, and what is left of them."""

import tempfile
from pathlib import Path

from tapestry_p2p.daemon.paths import SOCKET_PATH_BYTES_MAX, find_paths


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
