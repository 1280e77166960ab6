"""`leave`: say goodbye to the network for now, stop, and keep key and model.

A running member says it itself; for a stopped one a node without a trainer is started, only to say
it. What is on disk stays: `generate` and `export` use it, and `join` takes the member back.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from tapestry_p2p.cli.model import LEFT, left_model, models_folder
from tapestry_p2p.cli.newcomer import SHORT_ID
from tapestry_p2p.cli.output import note, show
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import NO_DAEMON, OK, TEMPORARY, TapestryError

ASK_S = 15.0


def leave(*, json: bool = False) -> int:
    """Leave the network: say goodbye, stop, and keep the model.

    The others take this member out of their lists at once and mix it no more. Key and model stay
    here: `generate` and `export` go on working, `run` refuses until `join` brings the member back.
    Exit status 75 if nobody could be told: it has left, and `leave` again tells them. 4 while it
    still asks the others what they know of it; 6 if its key was retired or is used elsewhere.

    Example: tapestry leave

    Parameters
    ----------
    json
        Print it as JSON.
    """
    paths = find_paths()
    model = _take_along(paths)
    try:
        found: dict[str, Any] = ask(paths.control_socket, {"do": "leave"}, ASK_S)
    except TapestryError as error:
        if error.exit_code != NO_DAEMON:
            raise
        if paths.text is not None:
            raise TapestryError(
                "the service does not run, and only it may use its key: systemctl start it, then"
                " leave again",
                NO_DAEMON,
            ) from error
        found = _of_a_stopped_one(paths)
    found["model"] = str(model or left_model())
    show(found, as_json=json, lines=_lines(found, paths))
    if found["known"] and found["entry"] >= 0 and not found["told"]:
        note("nobody was reached; `tapestry leave` again tells them")
        return TEMPORARY
    return OK


def _take_along(paths: Paths) -> Path | None:
    """Export the running member's model, for there will be no trainer to ask; None if none is."""
    try:
        network_id = str(ask(paths.control_socket, {"do": "status"})["network_id"])
    except TapestryError as error:
        if error.exit_code != NO_DAEMON:
            raise
        return None
    from tapestry_p2p.cli.export import write
    from tapestry_p2p.cli.folder import beside, write_json

    target = models_folder() / LEFT.format(network_id[:8])
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        facts = write(draft, copy=False, local=True)
        write_json(target.with_suffix(".json"), facts)
        shutil.rmtree(target, ignore_errors=True)
        beside(target).unlink(missing_ok=True)
        if beside(draft).exists():
            beside(draft).rename(beside(target))
        draft.rename(target)
    except (TapestryError, OSError) as error:
        note(f"the model could not be exported: {getattr(error, 'message', error)}")
        return None
    return target


def _of_a_stopped_one(paths: Paths) -> dict[str, Any]:
    from tapestry_p2p.daemon.config import load_config
    from tapestry_p2p.daemon.keyfile import load_key
    from tapestry_p2p.daemon.leaving import leave_stopped
    from tapestry_p2p.daemon.manifest import load_manifest
    from tapestry_p2p.daemon.run import node_options
    from tapestry_p2p.gossip.identity import Identity

    manifest, config = load_manifest(paths.manifest), load_config(paths.member)
    seed = load_key(paths.key)
    paths.make()
    note("the member does not run: asking the others what they know of it, then saying goodbye")
    found, known = leave_stopped(manifest, node_options(config), seed, paths.state / "store")
    return {
        "id": Identity(seed).peer_id,
        "known": known,
        "network_id": found.network_id,
        "network": found.network,
        "entry": found.entry,
        "told": found.told,
    }


def _lines(found: dict[str, Any], paths: Paths) -> list[str]:
    said = f"by entry {found['entry']}" if found["entry"] >= 0 else "; nobody had heard of it"
    lines = [
        f"Left     {found['network']} …{found['network_id'][:SHORT_ID]}, as"
        f" …{found['id'][-SHORT_ID:]}, {said.lstrip('; ')}",
        f"Told     {found['told']} of {found['known']} members that it knows say that they have it;"
        " those pass it on",
        f"Model    {_where(found)}",
        "Back     tapestry join LINK, or join network.toml; until then it does not run",
    ]
    return lines + [f"Service  {words}" for words in _service(paths)]


def _where(found: dict[str, Any]) -> str:
    if found["model"]:
        return f"is in {found['model']}: tapestry generate, tapestry export FOLDER"
    return "was not exported, for no trainer ran; it stays in the store, and `join` takes it up"


def _service(paths: Paths) -> list[str]:
    """How to take the unit away that would start it at the next boot, in vain."""
    if paths.text is not None:
        name = paths.text.name
        return [f"sudo systemctl disable tapestry@{name}, or it tries at every boot"]
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    if (Path(base) / "systemd/user/tapestry.service").exists():
        return ["systemctl --user disable tapestry, or it tries at every login"]
    return []
