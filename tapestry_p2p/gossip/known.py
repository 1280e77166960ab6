"""What a restarted node still knows, as bytes.

Own headers, where its copies stand, profiles, proofs. The shell stores it; it is trusted as far as
the store's digest goes. Signatures are not checked again. Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass

from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.canonical import Malformed, fields, pack, unpack
from tapestry_p2p.gossip.fork import ForkProof, decode_proof
from tapestry_p2p.gossip.header import SignedHeader, Verify, decode_signed

KNOWN_BYTES_MAX = 64 * 1024 * 1024
NAMES = (
    "cited", "copies", "neighbours", "order", "own",
    "probation", "profiles", "proofs", "retired", "seen",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """The durable part of a Protocol's state. All parts may be empty."""

    own: tuple[SignedHeader, ...] = ()  # our entries, any order, at least the last ring of them
    seen: SignedHeader | None = None  # a higher head of ours shown by others (Persist "seen")
    copies: tuple[SignedHeader, ...] = ()  # for each copy on disk, the header it stands at
    profiles: tuple[tuple[SignedHeader, bytes], ...] = ()
    proofs: tuple[ForkProof, ...] = ()
    cited: tuple[bytes, ...] = ()  # ids of proofs against us that a resume of ours has cited
    retired: tuple[SignedHeader, ...] = ()
    secret: bytes = b""  # keys the order in which neighbours are chosen
    epoch: int = 0  # of that order
    neighbours: tuple[tuple[bytes, bool], ...] = ()  # (peer, whether we chose it)
    probation: tuple[tuple[bytes, int, bool], ...] = ()  # (author, own rounds with it, exempt)

    def encode(self) -> bytes:
        """The bytes to store."""
        return pack(
            {
                "cited": list(self.cited),
                "copies": [signed.encode() for signed in self.copies],
                "neighbours": [[peer, int(chosen)] for peer, chosen in self.neighbours],
                "order": [self.secret, self.epoch],
                "own": [signed.encode() for signed in self.own],
                "probation": [[author, rounds, int(so)] for author, rounds, so in self.probation],
                "profiles": [[signed.encode(), payload] for signed, payload in self.profiles],
                "proofs": [proof.encode() for proof in self.proofs],
                "retired": [signed.encode() for signed in self.retired],
                "seen": [self.seen.encode()] if self.seen else [],
            }
        )


def decode_known(data: bytes, verify: Verify = identity.verify) -> Known:
    """Parse stored bytes; Malformed if they are not what ``encode`` wrote."""
    value = unpack(data, bytes_max=KNOWN_BYTES_MAX)
    if type(value) is dict:
        for name in ("probation", "cited"):  # stored before there was any
            value.setdefault(name, [])
    row = fields(value, dict.fromkeys(NAMES, list))
    try:
        return Known(
            own=tuple(map(decode_signed, row["own"])),
            seen=decode_signed(row["seen"][0]) if row["seen"] else None,
            copies=tuple(map(decode_signed, row["copies"])),
            profiles=tuple((decode_signed(head), bytes(load)) for head, load in row["profiles"]),
            proofs=tuple(decode_proof(proof, verify) for proof in row["proofs"]),
            cited=tuple(map(bytes, row["cited"])),
            retired=tuple(map(decode_signed, row["retired"])),
            secret=bytes(row["order"][0]),
            epoch=int(row["order"][1]),
            neighbours=tuple((bytes(peer), bool(chosen)) for peer, chosen in row["neighbours"]),
            probation=tuple(map(_probation_row, row["probation"])),
        )
    except (IndexError, TypeError, ValueError) as error:
        raise Malformed("not a stored state") from error


def _probation_row(row: list[object]) -> tuple[bytes, int, bool]:
    """Rows of two were stored before the third: who is exempt and has one may have forked."""
    author, rounds, exempt = row if len(row) == 3 else (*row, True)
    return bytes(author), int(rounds), bool(exempt)  # type: ignore[call-overload]
