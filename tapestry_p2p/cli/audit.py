"""`audit`: what left this machine, from the log that the node keeps. Needs no running member."""

from time import sleep
from typing import Any

from tapestry_p2p.cli.output import show
from tapestry_p2p.daemon.audit import Verified
from tapestry_p2p.daemon.audit import verify as read_log
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.daemon.store import peek_entries
from tapestry_p2p.errors import FAILURE, OK
from tapestry_p2p.gossip.header import decode_signed

SHOWN = 20
WRITE_S = 0.5


def audit(*, verify: bool = False, all: bool = False, json: bool = False) -> int:
    """Show every entry that this member signed and gave to others: kind, size, hashes.

    Records never leave; entries do. With --verify the exit status is 1 if the log was changed or
    lacks an entry.

    Example: tapestry audit --verify

    Parameters
    ----------
    verify
        Check the chain of the log, and that it holds what the store holds.
    all
        Print all lines, not only the last twenty.
    json
        Print JSON.
    """
    store = find_paths().state / "store"
    headers = [decode_signed(signed).header for signed in peek_entries(store)]
    signed = {header.seq: header.hash.hex() for header in headers}
    found = read_log(store, signed)
    if found.faults:  # a running node may be about to write the line
        sleep(WRITE_S)
        found = read_log(store, signed)
    result: dict[str, Any] = {
        "entries": len(found.rows),
        "bytes": sum(_bytes(row) for row in found.rows),
        "faults": found.faults,
        "rows": found.rows if all or json else [],
    }
    show(result, as_json=json, lines=_lines(found, verify, all))
    return FAILURE if verify and found.faults else OK


def _lines(found: Verified, verify: bool, all_: bool) -> list[str]:
    lines = [
        f"{row.get('at', '')}  entry {row['seq']:>6}  {row.get('kind', ''):10}"
        f"  {_bytes(row):>9} bytes  {str(row.get('header', ''))[:16]}"
        for row in (found.rows if all_ else found.rows[-SHOWN:])
    ]
    total = sum(_bytes(row) for row in found.rows) / 1e6
    lines.append(f"{len(found.rows)} entries left this machine, {total:.2f} MB")
    if verify:
        lines += found.faults or ["the log is whole, and holds all that the store holds"]
    return lines


def _bytes(row: dict[str, Any]) -> int:
    sizes = (row.get("header_bytes"), row.get("payload_bytes"))
    return sum(size for size in sizes if type(size) is int)
