"""Write tests/vectors/headers.json and base.json. By hand, when the format changes (a new wire)."""

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from gossip_kit import Author

from tapestry_p2p.gossip.fetch import (
    BaseLeavesRequest,
    BaseRequest,
    FetchResponse,
    encode_request,
    encode_response,
)
from tapestry_p2p.gossip.header import SEQ_MAX, SignedHeader
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, leaf_hash, merkle_root
from tapestry_p2p.gossip.own import sign_retire


def _case(name: str, author: Author, signed: SignedHeader) -> dict[str, Any]:
    header = signed.header
    row = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(header).items()}
    row["chunks"] = [chunk.hex() for chunk in header.chunks]
    return {
        "name": name,
        "seed": author.identity._key.private_bytes_raw().hex(),
        "peer_id": Identity(author.identity._key.private_bytes_raw()).peer_id,
        "header": row,
        "encoded": header.encoded.hex(),
        "hash": header.hash.hex(),
        "digest": header.digest.hex(),
        "signature": signed.signature.hex(),
        "signed": signed.encode().hex(),
    }


def main() -> None:
    """Write the file."""
    author = Author(1)
    cases = [
        _case("genesis", author, author.genesis()),
        _case("difference", author, author.difference(round=3, tokens=70_000)),
        _case("profile", author, author.profile("Ana", "/ip4/192.0.2.1/tcp/4001")),
        _case("resume", author, author.resume(cites=bytes([5]) * 32)),
        _case("leave", author, author.leave()),
        _case("large", author, author.entry(
            "difference", seq=SEQ_MAX - 1, codec="2bit", chunks=(bytes(32),) * 20,
            payload_bytes=2**40, root=b"", round=2**32, tokens=SEQ_MAX)),
        _case("retire", author, sign_retire(author.network, author.key, author.identity.sign)),
    ]  # fmt: skip
    _write("headers.json", cases)
    _write("base.json", _base())


def _write(name: str, value: Any) -> None:
    path = Path(__file__).parent.parent / "vectors" / name
    path.write_text(json.dumps(value, indent=1) + "\n")


def _base() -> dict[str, Any]:
    """A base file of two whole pieces and a bit: byte i is i mod 251."""
    content = bytes(i % 251 for i in range(2 * CHUNK_BYTES + 1000))
    leaves = [
        leaf_hash(content[at : at + CHUNK_BYTES]) for at in range(0, len(content), CHUNK_BYTES)
    ]
    root = merkle_root(leaves)
    last = BaseRequest(root, 2, 10, 900)
    return {
        "rule": "byte i is i mod 251",
        "bytes": len(content),
        "digest": sha256(content).hexdigest(),
        "leaves": [leaf.hex() for leaf in leaves],
        "root": root.hex(),
        "requests": {
            "base_leaves": encode_request(BaseLeavesRequest(root)).hex(),
            "base": encode_request(last).hex(),
        },
        "asked": {"index": last.index, "offset": last.offset, "length": last.length},
        "responses": {
            "base_leaves": encode_response(FetchResponse("ok", 96, 96)).hex(),
            "base": encode_response(FetchResponse("ok", 900, 1000)).hex(),
            "missing": encode_response(FetchResponse("missing")).hex(),
        },
    }


if __name__ == "__main__":
    main()
