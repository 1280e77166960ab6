"""What mixing promises in the network as this member sees it now, for `status` and for the log.

Reads the node's manifest and protocol; decides nothing. What no number of members could make
possible, the manifest itself refuses (see Mixing there).
"""

import logging

import trio

from tapestry_p2p.daemon.manifest import Mixing
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.mix.promise import Promise, promise, promise_sparse
from tapestry_p2p.mix.topology import CERTIFIED

log = logging.getLogger("tapestry.node")

WATCH_S = 10.0


def present(mixing: Mixing, protocol: Protocol) -> Promise:
    """With those we follow now if that is everyone, newcomers apart; else an estimate for all."""
    if protocol.is_sparse:
        members = max(2, len(protocol.members()))
        return promise_sparse(mixing.rule, mixing.f, members, mixing.links)
    return promise(mixing.rule, mixing.f, protocol.neighbours + 1)


async def watch(mixing: Mixing, protocol: Protocol) -> None:
    """Say so in the log whenever the certificate changes; a warning where it is none."""
    said = ""
    while True:
        await trio.sleep(WATCH_S)
        found = present(mixing, protocol)
        if found.word != said:
            level = logging.INFO if found.word == CERTIFIED else logging.WARNING
            words = "rule %s against %d hostile: %s (%s)"
            log.log(level, words, mixing.rule, mixing.f, found.word, found.why)
            said = found.word
