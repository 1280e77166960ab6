"""Several networks side by side on one machine: their names, which one is meant, what each does.

The first one has no name and is called `default`; further ones lie in `networks/NAME`, each with a
key, files, sockets and a daemon of its own, so that nothing of one is known to another. What the
system's service manager runs (/etc/tapestry/NAME) is listed too, and asked for by the same option.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tapestry_p2p.cli.output import say, show
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.paths import SERVICE_NAME, Paths, find_paths, networks_folder
from tapestry_p2p.errors import BAD_CONFIG, NO_DAEMON, USAGE, TapestryError

DEFAULT = "default"
SERVICES = Path("/etc/tapestry")
ASK_S = 2.0
SHORT_ID = 8
_BEGINS = ("init", "join", "new", "networks", "completions", "man", "version")
_PORT = re.compile(r"/tcp/(\d+)")


def networks(*, names: bool = False, json: bool = False) -> None:
    """List the networks that this machine is a member of, and what each member does.

    Every verb takes --network NAME, before or after its own words (init and verify, which have an
    option of that name, only before); without it the first network is meant.
    `tapestry --network NAME init` (or join) makes a further one, with a key of its own.

    Example: tapestry networks

    Example: tapestry --network choir join 'tapestry:...' --name Ana

    Parameters
    ----------
    names
        Print the names alone, for a shell that completes them.
    json
        Print it as JSON.
    """
    found = known()
    if names:
        say(*found)
        return
    rows = [_row(name, paths) for name, paths in found.items()]
    lines = [_line(row) for row in rows] or ["none yet: tapestry init, or tapestry join LINK"]
    show({"networks": rows}, as_json=json, lines=lines)


def known(environ: Mapping[str, str] | None = None) -> dict[str, Paths]:
    """Every network that has a manifest here, by name; the first one first."""
    environ = dict(os.environ if environ is None else environ)
    environ.pop("TAPESTRY_NETWORK", None)
    found = {}
    first = find_paths(environ)
    if first.manifest.exists():
        found[DEFAULT] = first
    for name in _names_in(networks_folder(environ)):
        found[name] = find_paths({**environ, "TAPESTRY_NETWORK": name})
    if not environ.get("TAPESTRY_HOME") and not environ.get("TAPESTRY_SERVICE"):
        for name in _names_in(SERVICES):
            found.setdefault(name, find_paths({"TAPESTRY_SERVICE": name}))
    return found


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(
            path.name
            for path in folder.iterdir()
            if SERVICE_NAME.fullmatch(path.name) and (path / "network.toml").exists()
        )
    except OSError:
        return []  # not there, or not ours to see


def choose(name: str, verb: list[str]) -> None:
    """Let all that follows mean the network of that name. TapestryError: 2 no name, 78 no such."""
    os.environ.pop("TAPESTRY_NETWORK", None)
    if name == DEFAULT:
        return
    if not SERVICE_NAME.fullmatch(name):
        raise TapestryError(
            f"--network {name[:40]!r} is no name: 1 to 20 letters, digits, - and _", USAGE
        )
    found = known().get(name)
    if found is not None and found.text is not None:
        os.environ["TAPESTRY_SERVICE"] = name
        return
    if found is None and verb and verb[0] not in _BEGINS:
        there = ", ".join(known()) or "none yet"
        raise TapestryError(
            f"no network {name} is here; there are: {there}. To make it: tapestry --network {name}"
            " join LINK (or init)",
            BAD_CONFIG,
        )
    os.environ["TAPESTRY_NETWORK"] = name


def ports_of_others() -> set[int]:
    """Ports in the configurations of all networks here: a new one takes another."""
    found: set[int] = set()
    for paths in known().values():
        try:
            found.update(map(int, _PORT.findall(paths.member.read_text(encoding="utf-8"))))
        except (OSError, UnicodeDecodeError):
            continue  # its own start will say what is wrong with it
    return found


def _row(name: str, paths: Paths) -> dict[str, Any]:
    """What is said of one network; a file that cannot be read is said in its place."""
    from tapestry_p2p.daemon.departure import departure
    from tapestry_p2p.daemon.manifest import load_manifest
    from tapestry_p2p.page.link import link_of

    row: dict[str, Any] = {"name": name, "folder": str(paths.config), "id": "", "member": ""}
    try:
        manifest = load_manifest(paths.manifest)
        row |= {"network": manifest.network.name, "network_id": manifest.network_id.hex()}
        row["state"] = "left" if departure(paths.state / "store") else "stopped"
    except (TapestryError, OSError) as error:
        said = error.message if isinstance(error, TapestryError) else str(error.strerror)
        row |= {"network": "", "network_id": "", "state": f"unreadable: {said}"}
    try:
        status = ask(paths.control_socket, {"do": "status"}, ASK_S)
        row |= {"state": status["state"], "id": status["id"], "member": status["name"]}
    except TapestryError as error:
        if error.exit_code != NO_DAEMON:
            row["state"] = error.message
    return {**row, "page": link_of(paths).partition("#")[0]}  # its key stays with `tapestry page`


def _line(row: dict[str, Any]) -> str:
    who = f", as {row['member'] or '(no name)'} …{row['id'][-SHORT_ID:]}" if row["id"] else ""
    page = f", page {row['page']}" if row["page"] else ""
    network = f"{row['network']} …{row['network_id'][:SHORT_ID]}" if row["network_id"] else "?"
    return f"{row['name']:12} {network}: {row['state']}{who}{page}"
