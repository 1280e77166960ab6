"""Loads the daemon's modules and runs it: the only way to it that does not look for garbage first.

Imports nothing heavy itself, so that signals can be listened to before it is called.
"""

from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.heap import lasting


def start(paths: Paths, apart: bool = False) -> None:
    """`daemon.run.run`. TapestryError for the operator."""
    with lasting():
        from tapestry_p2p.daemon.run import run

    run(paths, apart)
