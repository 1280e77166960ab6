"""What the integration tests share: members as real processes, watched from outside.

Nothing here knows how a node works: it reads files, asks control sockets, and looks at processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.store import Store, peek_entries
from tapestry_p2p.daemon.tap import LENGTH_BYTES, SIGNED
from tapestry_p2p.data import udhr
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.gossip.header import Header, decode_signed

ROOT = Path(__file__).parents[2]
TINY = {"layers": 1, "width": 16, "heads": 1, "context": 16, "batch_size": 4}  # 7,216 parameters
PATIENCE_S = 120.0  # for what takes seconds on an idle machine
EXEC = "os.execv(sys.argv[1], sys.argv[1:])"


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true answer; fails rather than hangs."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {patience_s:.0f} s: {what}"
        time.sleep(0.1)
    return found


# ---- processes -----------------------------------------------------------------------------------


def environment(home: Path, **more: str) -> dict[str, str]:
    """A member's own, with nothing of ours in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home.parent),
        "TAPESTRY_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def tapestry(
    home: Path, *words: str, first: str = "", **more: str
) -> "subprocess.CompletedProcess[str]":
    """One command, to its end; ``first`` is Python that its process runs before it."""
    command = [sys.executable, "-m", "tapestry_p2p", *words]
    if first:  # not by preexec_fn: this process may have threads
        command = [sys.executable, "-c", f"{first}; import os, sys; {EXEC}", *command]
    return subprocess.run(
        command,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=False,
    )


@contextmanager
def started(log: Path, *words: str, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A long command in a session of its own; gone when the block ends."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tapestry_p2p", *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left_behind(folder: Path) -> list[int]:
    """Processes that have to do with a folder: by environment, command or open files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid() or not alive(int(process.name)):
            continue
        with suppress(OSError):
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            files = [os.readlink(link) for link in (process / "fd").iterdir()]
            if str(folder).encode() in told or any(f.startswith(str(folder)) for f in files):
                found.append(int(process.name))
    return found


def answered(home: Path, verb: str) -> dict[str, Any]:
    """A daemon's answer; empty if there is none."""
    try:
        return ask(home / "run" / "control.sock", {"do": verb}, 10.0)
    except TapestryError:
        return {}


# ---- what a member signed ------------------------------------------------------------------------


def tap_of(home: Path) -> dict[str, str]:
    """The environment that makes a member's node copy all that crosses its walls."""
    return {"TAPESTRY_TESTING__TAP": str(home / "tap")}


def signed_by(home: Path) -> list[Header]:
    """Every header that a tapped member ever signed and stored.

    The tap is written after the store: whoever was killed in between is known by its store alone.
    """
    tapped = _tapped(home)
    hashes = {header.hash for header in tapped}
    stored = [decode_signed(signed).header for signed in peek_entries(home / "state" / "store")]
    return [*tapped, *(header for header in stored if header.hash not in hashes)]


def _tapped(home: Path) -> list[Header]:
    try:
        data = (home / "tap" / SIGNED).read_bytes()
    except FileNotFoundError:
        return []
    found, at = [], 0
    while at + LENGTH_BYTES <= len(data):
        end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES])
        if end > len(data):
            break  # being written
        found.append(decode_signed(data[at + LENGTH_BYTES : end]).header)
        at = end
    return found


def payloads_of(home: Path, scratch: Path) -> list[bytes]:
    """The payloads of a member's last entries, read from a copy of its log."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    shutil.copy(home / "state" / "store" / "own.log", scratch / "own.log")
    store = Store(scratch, 16)
    try:
        state = store.load_own()
        return [] if state is None else [bytes(e.payload) for e in state.entries if e.payload]
    finally:
        store.close()


# ---- data with records that must not leave -------------------------------------------------------

LANGUAGES = ("eng", "fra", "spa", "deu_1996")
CANARY_BYTES = 24


def canaries(count: int) -> list[bytes]:
    """Random records as a member's data might hold: no two alike, in no text of this world."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"
    drawn = Random(20_260_101)
    return ["".join(drawn.choices(letters, k=CANARY_BYTES)).encode() for _ in range(count)]


def write_texts(folder: Path, records: list[bytes]) -> None:
    """One text per language with all records in it, again and again."""
    folder.mkdir(parents=True)
    for number, language in enumerate(LANGUAGES):
        text = udhr(language)
        mine = records[number :: len(LANGUAGES)]
        pieces = [text[i : i + 300] + mine[i // 300 % len(mine)] for i in range(0, len(text), 300)]
        (folder / f"{language}.txt").write_bytes(b"".join(pieces))


def traces(record: bytes) -> list[bytes]:
    """What would give a record away: any half of it, or all of it written in another way."""
    half = len(record) // 2
    return [record[:half], record[half:], record.hex().encode(), record[::-1]]


def members(out: Path) -> list[dict[str, Any]]:
    """The register that a testnet keeps of its processes; empty until there is one."""
    try:
        found: list[dict[str, Any]] = json.loads((out / "members.json").read_text())
    except FileNotFoundError:
        return []
    return found
