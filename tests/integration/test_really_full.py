"""A file system that is really full: both stay, say so, and go on once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_kit import TINY, answered, environment, left_behind, started, tapestry, until

pytestmark = pytest.mark.integration

SIZE = "12m"
RESUMES_S = 30.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A member's home on a small file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        yield folder / "home"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        for block in (1 << 16, 1 << 10, 1):
            try:
                while file.write(bytes(block)) == block:
                    pass
            except OSError:
                continue


def test_it_stays_and_goes_on(home: Path) -> None:
    options = [word for key, value in TINY.items() for word in ("--task-option", f"{key}={value}")]
    done = tapestry(home, "init", "--name", "One", *options)
    assert done.returncode == 0, done.stderr
    log = home.parent.parent / "node.log"
    with started(log, "run", **environment(home, TAPESTRY_BUDGET__THREADS="1")) as process:
        until(lambda: answered(home, "status").get("round", 0) > 3, "rounds")
        fill(home.parent / "ballast")
        until(lambda: "No space left" in answered(home, "status").get("fault", ""), "the word")
        status = answered(home, "status")
        assert status["state"] == "degraded"
        assert tapestry(home, "status").returncode == 4
        assert tapestry(home, "doctor").returncode == 4
        assert process.poll() is None
        round_, pid = status["round"], status["trainer"]["pid"]
        assert Path(f"/proc/{pid}").exists(), "the trainer stays as well"
        (home.parent / "ballast").unlink()
        until(lambda: answered(home, "status").get("round", 0) > round_, "a round", RESUMES_S)
        assert answered(home, "status")["fault"] == ""
        process.terminate()
        assert process.wait(10) == 0
    assert left_behind(home) == []
    assert "Traceback" not in log.read_text()
