"""Compiled programs are found again, wherever their folder lies now."""

import subprocess
import sys
from pathlib import Path

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
