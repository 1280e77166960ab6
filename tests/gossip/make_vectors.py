"""Write tests/vectors/headers.json. Run by hand when the header format changes (a new wire)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gossip_kit import Author

from tapestry_p2p.gossip.header import SEQ_MAX, SignedHeader
from tapestry_p2p.gossip.identity import Identity
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
    path = Path(__file__).parent.parent / "vectors" / "headers.json"
    path.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
