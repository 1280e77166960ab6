"""What this machine offers a member: Python, room, clock, ports, cores, a wall for the trainer.

Looks, and changes nothing but one small file that it writes and removes. Asks a running node only
through what `status` said; knows no store.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tapestry_p2p.daemon.address import parse_address
from tapestry_p2p.daemon.config import Config, need_data
from tapestry_p2p.daemon.examine import NOTE, OK, PROBLEM, Finding
from tapestry_p2p.daemon.keyfile import load_key
from tapestry_p2p.daemon.manifest import Manifest
from tapestry_p2p.daemon.past import FILES_MAX
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import TapestryError

PYTHON_FIRST, PYTHON_BEYOND = (3, 11), (3, 14)
PROBE_BYTES = 4096
SLOW_SYNC_S = 1.0
CLOCK_LOOK_S, CLOCK_OFF = 0.2, 0.05
YEAR_FIRST = 2024
FUTURE_S = 86_400.0
ISOLATION_S = 20.0
_ASK_ISOLATION = "from tapestry_p2p.learn.isolation import leave_network; print(*leave_network())"


def python() -> Finding:
    """Whether the interpreter is one that we are made for."""
    version = sys.version_info[:2]
    words = f"Python {sys.version.split()[0]} at {sys.executable}"
    if PYTHON_FIRST <= version < PYTHON_BEYOND:
        return Finding("python", OK, words)
    return Finding("python", PROBLEM, words, "use Python 3.11, 3.12 or 3.13")


def disk(folder: Path, parameters: int, followed: int) -> Finding:
    """Room for a member's files, and one write as the store does it."""
    needed = 4 * parameters * (4 + FILES_MAX + 2 * followed) + (64 << 20)
    try:
        free = shutil.disk_usage(folder).free
        probe = folder / ".doctor"
        began = time.monotonic()
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        took = time.monotonic() - began
        probe.unlink()
    except OSError as error:
        words = f"{folder} cannot be written: {error.strerror}"
        return Finding("disk", PROBLEM, words, "make room, or correct its owner")
    words = f"{free / 1e9:.1f} GB free in {folder}, a write takes {1000 * took:.0f} ms"
    if free < needed:
        return Finding("disk", PROBLEM, words, f"make room for {needed / 1e9:.2f} GB")
    if took > SLOW_SYNC_S:
        return Finding("disk", NOTE, words, "slow: rounds wait for it")
    return Finding("disk", OK, words)


def clock(folder: Path) -> Finding:
    """Nothing but hours of training and the log's dates needs the wall clock; still it tells."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(CLOCK_LOOK_S)
    drift = (time.time() - wall) - (time.monotonic() - steady)
    newest = max((path.stat().st_mtime for path in folder.glob("*")), default=0.0)
    harmless = "rounds do not use it; [budget] hours and the audit log's dates do"
    if time.gmtime(wall).tm_year < YEAR_FIRST or newest > wall + FUTURE_S:
        words = f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(wall))}, which is past"
        return Finding("clock", NOTE, words, f"set it ({harmless})")
    if abs(drift) > CLOCK_OFF:
        return Finding("clock", NOTE, "the wall clock is being moved just now", harmless)
    return Finding("clock", OK, f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(wall))} UTC")


def cores(config: Config) -> Finding:
    """Threads of the trainer against cores."""
    there = len(os.sched_getaffinity(0))
    threads = config.budget.threads or max(1, there - 1)
    words = f"{there} cores, {threads} threads for training"
    if threads > there:
        return Finding("cores", NOTE, words, f"lower budget.threads to {there} or less")
    return Finding("cores", OK, words)


def devices(config: Config, status: dict[str, Any]) -> Finding:
    """How many accelerators train together, as the running trainer says."""
    wanted = config.budget.devices
    asked = f"budget.devices asks for {wanted or 'all'}"
    found = status.get("trainer", {}).get("devices", 0)
    if not found:
        return Finding("devices", OK, f"{asked}; the running trainer says how many there are")
    words = f"{found} train{'s' if found == 1 else ''} the model; {asked}"
    if found < wanted:
        return Finding("devices", NOTE, words, f"lower it to {found}, or see why JAX finds no more")
    return Finding("devices", OK, words)


def key(paths: Paths) -> Finding:
    """The key is here, ours, and closed to others."""
    try:
        load_key(paths.key, given=paths.credentials is not None)
    except TapestryError as error:
        return Finding("key", PROBLEM, error.message, "see docs/operations.md, back up")
    return Finding("key", OK, "the key is here, and for this user alone")


def data(config: Config, manifest: Manifest) -> Finding:
    """Every file of the data can be read; its size, nothing of what it says."""
    try:
        files = list(_files(need_data(config, manifest.task.name)))
        for path in files:
            with path.open("rb") as file:
                file.read(1)
        size = sum(path.stat().st_size for path in files)
    except TapestryError as error:
        return Finding("data", PROBLEM, error.message, "correct data.paths in tapestry.toml")
    except OSError as error:
        words = f"{error.filename} cannot be read: {error.strerror}"
        return Finding("data", PROBLEM, words, "correct its owner or mode")
    if not files:
        if not config.data.paths:
            return Finding("data", OK, f"the task {manifest.task.name} brings its own")
        return Finding("data", PROBLEM, "data.paths holds no file", "name your text files")
    return Finding("data", OK, f"{len(files)} files, {size / 1e6:.2f} MB, all readable")


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from (p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def ports(config: Config, status: dict[str, Any]) -> list[Finding]:
    """Whether the member can listen where it is told to."""
    if status:
        return [Finding("ports", OK, "the running member listens")]
    found = []
    for text in config.listen.addresses:
        address = parse_address(text)
        family = socket.AF_INET6 if address.kind == "ip6" else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address.host, address.port))
        except OSError as error:
            words = f"cannot listen at {text}: {error.strerror}"
            found.append(Finding("ports", PROBLEM, words, "correct listen.addresses"))
            continue
        if address.port:
            found.append(Finding("ports", OK, f"can listen at {text}"))
        else:
            words = f"{text}: another port after each start"
            found.append(Finding("ports", NOTE, words, "give one, if a router is to let it in"))
    return found


def reachability(status: dict[str, Any]) -> Finding:
    """Whether others get to us, as far as connections show it."""
    if not status:
        return Finding("reachable", NOTE, "not known: no member runs", "tapestry run, then again")
    inbound, peers = status.get("sockets", 0), status.get("peers", 0)
    through = status.get("through_others", 0)
    rest = f"; {through} members are read through others" if through else ""
    if inbound:
        words = f"direct: {inbound} of {peers} connections were opened by others{rest}"
        return Finding("reachable", OK, words)
    if peers:
        return Finding(
            "reachable", NOTE,
            f"dialled only: we opened all {peers} connections, maybe nobody can dial us{rest}",
            "let the router pass the port, and name it in listen.announce",
        )  # fmt: skip
    return Finding(
        "reachable", PROBLEM, "no peer is connected", "check bootstrap.peers and network"
    )


def wall(status: dict[str, Any]) -> Finding:
    """Whether the process with the data has no network, and how that is enforced here."""
    if status.get("trainer", {}).get("pid"):
        alone, line = bool(status["trainer_isolated"]), str(status["isolation"])
    else:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _ASK_ISOLATION],
                capture_output=True, text=True, timeout=ISOLATION_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            words = f"not known: no answer in {ISOLATION_S:.0f} s"
            return Finding("isolation", NOTE, words, "try again when less runs here")
        first, _, line = done.stdout.strip().partition(" ")
        alone = first == "True"
    if alone:
        return Finding("isolation", OK, f"the trainer has no network: {line}")
    advice = "run it by systemd (tapestry service install), or allow user namespaces"
    return Finding("isolation", PROBLEM, line or "the trainer could not be asked", advice)


def state(status: dict[str, Any]) -> Finding:
    """What a running member says of itself."""
    if not status:
        return Finding("daemon", NOTE, "no member runs here", "tapestry run")
    words = f"it runs: {status['state']}{': ' + status['fault'] if status['fault'] else ''}"
    if status["state"] == "degraded" or status["state"].startswith("stopped"):
        return Finding("daemon", PROBLEM, words, "see docs/operations.md")
    failure = status.get("trainer", {}).get("last_failure")
    if failure:
        return Finding("daemon", NOTE, f"{words}; its trainer failed: {failure}", "see its log")
    return Finding("daemon", OK, words)
