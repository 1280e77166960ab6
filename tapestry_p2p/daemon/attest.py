"""What a running node adds to an exported model: whom it mixes, and the member's signature.

Signs digests under a domain of their own (gossip/lineage.py), for the local user alone: such a
signature is no entry and changes nothing in the network. Writes no file.
"""

from typing import Any

from tapestry_p2p.daemon.node import Node
from tapestry_p2p.errors import USAGE, TapestryError
from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.gossip.lineage import sign_statement


def lineage(node: Node) -> dict[str, Any]:
    """The followed members that are mixed now: who they are, and their newest signed heads."""
    profiles = node.protocol.members()
    mixed = []
    for author in sorted(node.copies.followed):
        head, share = node.protocol.head(author), node.protocol.share(author)
        if head is None or not share:
            continue
        profile = profiles.get(author)
        mixed.append(
            {
                "id": peer_id_of(author),
                "name": profile.name if profile else "",
                "languages": list(profile.languages) if profile else [],
                "head": head.encode().hex(),
            }
        )
    return {"languages": list(node.options.languages), "mixed": mixed}


def attest(node: Node, request: dict[str, Any]) -> dict[str, Any]:
    """The member's signature of a digest (64 hex). TapestryError (2) if it is none."""
    try:
        digest = bytes.fromhex(str(request.get("digest")))
        signature = sign_statement(node.manifest.network_id, digest, node.identity.sign)
    except ValueError as error:
        raise TapestryError("digest must be a SHA-256 in hex", USAGE) from error
    return {"id": node.identity.peer_id, "signature": signature.hex()}
