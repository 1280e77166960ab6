"""Compiled programs are found again, wherever their folder lies; one trainer compiles at a time."""

import subprocess
import sys
import threading
from pathlib import Path

from tapestry_p2p.learn.cache import CompileLock

SCRIPT = """
import sys
from pathlib import Path
from tapestry_p2p.learn.cache import use_cache
use_cache(Path(sys.argv[1]))
import jax
print(jax.jit(lambda x: x * 2 + 1)(3))
"""


def _programs(folder: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "7\n"
    return {path.name for path in folder.iterdir() if path.name.endswith("-cache")}


def test_what_one_member_compiled_is_found_by_another_under_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    found = []
    for member in ("ana", "bo"):  # as the homes of a testnet have it
        (tmp_path / member).symlink_to(tmp_path / "cache")
        found.append(_programs(tmp_path / member))
    assert found[0] == found[1] != set()


def test_who_comes_while_another_compiles_waits_and_later_nobody_does(tmp_path: Path) -> None:
    first = CompileLock(tmp_path, "digits", {"width": 32})
    passed = threading.Event()

    def follow() -> None:
        with CompileLock(tmp_path, "digits", {"width": 32}):
            passed.set()

    with first:
        waits = threading.Thread(target=follow)
        waits.start()
        assert not passed.wait(0.2)
        first.compiled()
    assert passed.wait(10)
    waits.join()
    with CompileLock(tmp_path, "digits", {"width": 64}):  # somebody compiles another one
        passed.clear()
        follow()
        assert passed.is_set()
