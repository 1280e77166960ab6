"""The base weights of a network that somebody joins: what is said of them, and how they are had.

Knows a file that is at hand, and the members who hold it; what is done with the weights is the
trainer's affair.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import UnsetType

from tapestry_p2p.cli.output import note
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.base import base_path, is_held, take_base
from tapestry_p2p.daemon.manifest import Manifest
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import USAGE, TapestryError

SAY_EVERY_S = 2.0


def base_terms(manifest: Manifest) -> Iterator[str]:
    """A line for whoever is asked to accept the network; none if it has no base."""
    base = manifest.base
    if isinstance(base, UnsetType):
        return
    use = "to start from"
    if not isinstance(base.rank, UnsetType):
        use = f"that stay as they are, with adapters of rank {base.rank}"
    yield f"Base      {base.bytes / 1e6:.1f} MB of open weights {use}; SHA-256"
    yield f"          {base.digest}"


def obtain_base(
    manifest: Manifest, given: Path | None, addresses: Sequence[Address], paths: Paths
) -> None:
    """Have the file in its place: the one given, or from the members. TapestryError."""
    base = manifest.base
    if isinstance(base, UnsetType):
        if given is not None:
            raise TapestryError("this network has no base weights; leave --base out", USAGE)
        return
    if given is not None:
        take_base(given, base, paths)
        return
    target = base_path(paths, base)
    if is_held(target, base):
        return
    from tapestry_p2p.daemon.base_fetch import fetch_base  # libp2p, a second

    note(f"fetching the base weights, {base.bytes / 1e6:.1f} MB, from the members")
    fetch_base(base, manifest.network_id, addresses, target, _progress())


def _progress() -> Callable[[int, int], None]:
    """Says now and then how far it is, on a terminal."""
    said_at = 0.0

    def say(held: int, count: int) -> None:
        nonlocal said_at
        if sys.stderr.isatty() and (time.monotonic() > said_at + SAY_EVERY_S or held == count):
            said_at = time.monotonic()
            note(f"{100 * held // count} %")

    return say
