"""`retire`: publish the signed end of a key, through the running member or to addresses.

Knows the file and whom to give it to. Needs no key and no member of its own: a stolen key is ended
from any machine.
"""

from pathlib import Path

from tapestry_p2p.cli.output import show
from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.daemon.retirement import read_retirement
from tapestry_p2p.errors import USAGE, TapestryError
from tapestry_p2p.gossip.identity import peer_id_of, public_key_of


def retire(file: Path, *, to: list[str] = [], json: bool = False) -> None:  # noqa: B006 (read only)
    """End a key for good: every member gives it weight 0 and takes nothing more from it.

    Nothing can undo this. Members tell one another; those who are away learn it when they return.

    Example: tapestry retire retire-x7Qk2mZp.txt --to /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...

    Parameters
    ----------
    file
        The file that `init` or `join` wrote, kept offline since.
    to
        Address of a member, with /p2p/ID; may be repeated. Without any: the member running here.
    json
        Print it as JSON.
    """
    signed = read_retirement(file)
    peer_id = peer_id_of(signed.header.author)
    if to:
        from tapestry_p2p.daemon.give import give  # libp2p, a second

        told = len(give(signed, tuple(address_of(text, "--to") for text in to)))
    else:
        request = {"do": "retire", "entry": signed.encode().hex()}
        told = ask(find_paths().control_socket, request)["told"]
    show(
        {"id": peer_id, "told": told},
        as_json=json,
        lines=[f"{peer_id} is retired for good; {told} members were told and tell the others"],
    )


def address_of(text: str, option: str) -> Address:
    """The member's address that was given with an option. TapestryError (2) if it is none."""
    try:
        address = parse_address(text)
        public_key_of(address.peer_id)
    except ValueError as error:
        raise TapestryError(
            f"{option} {text[:120]!r} is no address of a member (/ip4/.../tcp/.../p2p/...)", USAGE
        ) from error
    return address
