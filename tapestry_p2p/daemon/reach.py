"""How a member and its peers get to each other: directly, only by its own dialling, through others.

Looks at the connections and copies that there are; dials nobody. Signed entries pass through any
peer that both reach (docs/decisions/0013-reach.md), so a way through others is a way.
"""

from typing import Any

from tapestry_p2p.daemon.node import Node

DIRECT, DIALLED, THROUGH, NONE = "direct", "dialled", "through others", "none"


def way(node: Node, author: bytes) -> str:
    """How entries of an author get here: it opened the connection, we did, others bring them."""
    connection = node.transport.connections.get(author)
    if connection is not None:
        return DIALLED if connection.dialled else DIRECT
    loom = node.rounds.loom
    followed = author in node.copies.followed and loom is not None and loom.fresh(author)
    return THROUGH if followed else NONE


def reach(node: Node) -> dict[str, Any]:
    """``reach``: whether others opened a connection to us; ``through_others``: authors so read."""
    connections = list(node.transport.connections.values())
    if any(not connection.dialled for connection in connections):
        word = DIRECT
    else:
        word = "dialled only" if connections else NONE
    through = sum(way(node, author) == THROUGH for author in node.copies.followed)
    return {"reach": word, "through_others": through}
