"""What a task would share: asks a trainer process, so that nothing here imports JAX.

Knows the link and one short-lived process. Used where a network is founded or joined.
"""

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapestry_p2p import link
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.trainer import FAILURES
from tapestry_p2p.errors import BAD_CONFIG, FAILURE, TapestryError
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy

DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class Description:
    """Schema hash (64 hex), number of parameters d, genesis float32[d], its root, isolation."""

    schema: str
    parameters: int
    genesis: Vector
    root: bytes
    isolation: str


def describe(
    task: str,
    options: dict[str, Any],
    seed: int,
    data: list[Path],
    cache_dir: Path,
    base: dict[str, Any] | None = None,
) -> Description:
    """Start a trainer on the task, take its hello and the genesis vector, and end it.

    ``data`` must be usable, as for training; ``base``: what `base_record` says of one.
    TapestryError (78) says what is wrong with task or data; 1 if the trainer ended without a word.
    """
    with tempfile.TemporaryDirectory(prefix="tapestry-") as folder:
        configure = {
            "t": "configure",
            "task": task,
            "options": options,
            "data": [str(path) for path in data],
            "seed": seed,
            "threads": max(1, len(os.sched_getaffinity(0)) - 1),
            "state_dir": folder,
            "cache_dir": str(cache_dir),
            "text_socket": "",
            "schedule_steps": 0,
            "speed": 1.0,
            "judge": None,
            **(base or {}),
        }
        return _ask(configure, Path(folder))


def _ask(configure: dict[str, Any], folder: Path) -> Description:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, open(folder / "stderr", "wb") as errors:
        with theirs:
            command = [sys.executable, "-m", "tapestry_p2p.learn.trainer", "--link-fd"]
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        try:
            ours.settimeout(DEADLINE_S)
            link.send(ours, configure)
            packet, fds = link.receive(ours, fds_max=1)
            return _described(packet, fds, folder)
        except (TimeoutError, BrokenPipeError, link.LinkError) as error:
            raise _silent(folder) from error
        finally:
            ours.close()
            process.kill()
            process.wait()


def _described(packet: bytes, fds: list[int], folder: Path) -> Description:
    if not packet:
        raise _silent(folder)
    record = link.parse_from_trainer(packet)
    if record["t"] == "failed":
        text, _ = FAILURES[record["code"]]
        raise TapestryError(f"{text}{_last_line(folder)}", BAD_CONFIG)
    if record["t"] != "hello" or len(fds) != 1:
        raise link.LinkError("no hello")
    shared = link.SharedVectors.from_fd(fds[0], record["parameters"])
    genesis = shared.read(link.OUT, 0, record["genesis_digest"])
    shared.close()
    root = copy_root(PublicCopy(genesis))
    return Description(record["schema"], record["parameters"], genesis, root, record["isolation"])


def _silent(folder: Path) -> TapestryError:
    return TapestryError(f"the trainer ended without an answer{_last_line(folder)}", FAILURE)


def _last_line(folder: Path) -> str:
    """The trainer's last words, which the person who runs this command may see."""
    for name in ("trainer.log", "stderr"):
        try:
            lines = (folder / name).read_text(errors="replace").strip().splitlines()
        except OSError:
            continue
        if lines:
            return f" ({lines[-1][:200]})"
    return ""
