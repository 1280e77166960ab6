"""`doctor`: is this machine fit for the member, and is its store whole? With --repair it mends.

Loads neither jax nor libp2p: it works also where those do not.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tapestry_p2p.cli.output import show
from tapestry_p2p.daemon import examine, machine
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.config import Config, load_config, need_no_schedule
from tapestry_p2p.daemon.examine import NOTE, PROBLEM, Finding
from tapestry_p2p.daemon.manifest import Manifest, load_manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.daemon.store import Store, take_lock
from tapestry_p2p.daemon.upgrade import FORMAT, found_format
from tapestry_p2p.errors import FAILURE, NOT_READY, OK, TEMPORARY, TapestryError

ASK_S = 5.0


def doctor(*, repair: bool = False, json: bool = False) -> int:
    """Look at this machine and at the member's files; say what is wrong and what to do.

    Exit status 0 if no problem is left, 4 if there is one, 1 if it could not repair, 75 if another
    process has the store just now.

    Example: tapestry doctor --repair

    Parameters
    ----------
    repair
        Mend what is proven wrong and can be had again; the member must be stopped.
    json
        Print it as JSON.
    """
    paths = find_paths()
    status = _status(paths)
    if repair and status:
        raise TapestryError("the member runs: stop it first (tapestry stop)", FAILURE)
    mended = _mended(paths) if repair else []
    found = list(_all(paths, status, repair))
    rows = [
        {"name": each.name, "verdict": each.verdict, "words": each.words, "next": each.next}
        for each in found
    ]
    problems = sum(each.verdict == PROBLEM for each in found)
    result: dict[str, Any] = {"findings": rows, "problems": problems, "repaired": mended}
    show(result, as_json=json, lines=_lines(found, mended, problems))
    return NOT_READY if problems else OK


def _status(paths: Paths) -> dict[str, Any]:
    with suppress(TapestryError):
        return ask(paths.control_socket, {"do": "status"}, ASK_S)
    return {}


def _mended(paths: Paths) -> list[str]:
    """Mend, and hold the store's lock: what a running member writes just now is no damage."""
    folder = paths.state / "store"
    if not 0 < found_format(folder) <= FORMAT:  # who knows what is right in a newer one
        return []
    try:
        lock = take_lock(folder)
    except OSError as error:
        raise TapestryError(f"{folder} cannot be locked: {error.strerror}", FAILURE) from error
    try:
        found = [*examine.examine(folder), *examine.dead_sockets(*_sockets(paths))]
        return [f"{each.name}: {each.words}" for each in found if _mend(each)]
    finally:
        os.close(lock)


def _sockets(paths: Paths) -> tuple[Path, ...]:
    return paths.control_socket, paths.text_socket, paths.trainer_socket


def _mend(found: Finding) -> bool:
    if found.mend is None:
        return False
    try:
        found.mend()
    except OSError as error:
        raise TapestryError(f"{found.name} cannot be mended: {error.strerror}", FAILURE) from error
    return True


def _all(paths: Paths, status: dict[str, Any], repair: bool) -> Iterator[Finding]:
    """Every finding, in the order in which a person would look."""
    yield machine.python()
    yield machine.state(status)
    manifest, config = yield from _files(paths)
    folder = paths.state if paths.state.exists() else paths.config
    parameters = manifest.schema.parameters if manifest else 0
    yield machine.disk(folder, parameters, status.get("following", 0))
    yield machine.clock(paths.state / "store")
    yield machine.key(paths)
    if config is not None:
        yield machine.cores(config)
        yield machine.devices(config, status)
        if manifest is not None:
            yield machine.data(config, manifest)
        yield from machine.ports(config, status)
    yield machine.reachability(status)
    yield machine.wall(status)
    yield from _store(paths, manifest, bool(status), repair)
    yield from examine.dead_sockets(*_sockets(paths))


def _files(
    paths: Paths,
) -> Generator[Finding, None, tuple[Manifest | None, Config | None]]:
    """Manifest and configuration, each None if it cannot be used."""
    manifest: Manifest | None = None
    config: Config | None = None
    try:
        manifest = load_manifest(paths.manifest)
        config = load_config(paths.member)
        need_no_schedule(config, manifest.training.schedule_steps)
        words = f"network {manifest.network.name} {manifest.network_id.hex()[:8]}"
        yield Finding("files", examine.OK, f"network.toml and tapestry.toml hold: {words}")
    except TapestryError as error:
        yield Finding("files", PROBLEM, error.message, "tapestry config check")
    return manifest, config


def _store(paths: Paths, manifest: Manifest | None, runs: bool, repair: bool) -> Iterator[Finding]:
    folder = paths.state / "store"
    found = found_format(folder)
    older = 0 < found < FORMAT and not repair  # to open it is to bring it up
    if runs or manifest is None or not found or older:
        yield from examine.examine(folder)
        if runs:
            yield Finding("lock", examine.OK, "held by the running member")
        return
    try:
        store = Store(folder, manifest.streams.ring)
    except TapestryError as error:
        if repair and error.exit_code == TEMPORARY:
            raise
        yield Finding("lock", NOTE, error.message)
        yield from examine.examine(folder)
        return
    try:
        yield Finding("lock", examine.OK, "free")
        yield from examine.examine(folder)
        limits = manifest.limits
        yield examine.replay(store, manifest.schema.parameters, limits.norm_max)
    finally:
        store.close()


def _lines(found: list[Finding], mended: list[str], problems: int) -> Iterator[str]:
    for line in mended:
        yield f"repaired   {line}"
    for each in found:
        then = f" -> {each.next}" if each.next else ""
        yield f"{each.verdict:8} {each.name:10} {each.words}{then}"
    yield "all is well" if not problems else f"{problems} problems"
