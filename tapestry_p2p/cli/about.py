"""`version`, `id`, `paths`: who and where this member is. They ask nobody and change nothing."""

from dataclasses import fields

from tapestry_p2p import __version__
from tapestry_p2p.cli.output import show


def version() -> None:
    """Show the version.

    Example: tapestry version
    """
    print(f"tapestry {__version__}")


def id_(*, json: bool = False) -> None:
    """Show this member's public name, its peer id. It is derived from the key and no secret.

    Example: tapestry id --json

    Parameters
    ----------
    json
        Print JSON.
    """
    from tapestry_p2p.daemon.keyfile import load_key
    from tapestry_p2p.daemon.paths import find_paths
    from tapestry_p2p.gossip.identity import Identity

    peer_id = Identity(load_key(find_paths().key)).peer_id
    show({"id": peer_id}, as_json=json, lines=[peer_id])


def paths(*, json: bool = False) -> None:
    """Show where this member's files lie ($TAPESTRY_HOME puts all of them in one folder).

    Example: tapestry paths

    Parameters
    ----------
    json
        Print JSON.
    """
    from tapestry_p2p.daemon.paths import find_paths

    found = find_paths()
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    folders = {name: str(value) for name, value in values.items() if value is not None}
    files = ("manifest", "member", "key", "control_socket", "text_socket")
    show(folders | {name: str(getattr(found, name)) for name in files}, as_json=json)
