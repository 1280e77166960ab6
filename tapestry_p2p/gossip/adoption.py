"""What an ``adopt`` entry says: which copies its author's own one starts from, and as what of them.

A joiner uploads no vector: it names an odd number of entries of others, and whoever follows it
computes the same bits from their copies. Knows the payload's form, and which entries may be named:
those of authors who have trained since they began, so that no start rests on another start. Holds
no vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tapestry_p2p.gossip.canonical import Malformed, fields, pack, unpack
from tapestry_p2p.gossip.header import SEQ_MAX, Header
from tapestry_p2p.gossip.identity import KEY_BYTES
from tapestry_p2p.gossip.merkle import HASH_BYTES
from tapestry_p2p.gossip.settings import Settings

ADOPT_BYTES_MAX = 4096
FUNCTION = "median"  # of each coordinate
REFERENCES_GOOD = 3  # where there are so many: with f = 0 too nobody's copy is taken unseen


@dataclass(frozen=True)
class Reference:
    """The public copy of ``author`` after its entry ``seq``, and its Merkle root."""

    author: bytes
    seq: int
    root: bytes


def most(settings: Settings) -> int:
    """How many references are enough; whoever follows may have to fetch that many whole copies."""
    return max(REFERENCES_GOOD, 2 * settings.f + 1)


def encode_adoption(references: Iterable[Reference]) -> bytes:
    """The payload of an ``adopt`` entry; in the order of the authors' keys."""
    rows = sorted([ref.author, ref.seq, ref.root] for ref in references)
    return pack({"function": FUNCTION, "references": rows})


def decode_adoption(data: bytes, author: bytes, settings: Settings) -> tuple[Reference, ...]:
    """The references in a foreign payload of ``author``. Malformed for any broken rule."""
    row = fields(unpack(data, bytes_max=ADOPT_BYTES_MAX), {"function": str, "references": list})
    if row["function"] != FUNCTION:
        raise Malformed("unknown function")
    references = tuple(map(_reference, row["references"]))
    if len(references) % 2 == 0 or not 2 * settings.f < len(references) <= most(settings):
        raise Malformed("an odd number of references, 2f+1 or more but no crowd, must be named")
    authors = [reference.author for reference in references]
    if authors != sorted(set(authors)) or author in authors:
        raise Malformed("references are to others, each once, in ascending order")
    return references


def _reference(row: object) -> Reference:
    if type(row) is not list or [type(item) for item in row] != [bytes, int, bytes]:
        raise Malformed("not a reference")
    author, seq, root = row
    if len(author) != KEY_BYTES or len(root) != HASH_BYTES or not 0 < seq < SEQ_MAX:
        raise Malformed("not a reference")
    return Reference(author, seq, root)


def may_be_named(header: Header) -> bool:
    """Whether an entry may be a reference: it states a root, and its author has trained."""
    return bool(header.root) and header.seq > 0 and header.round > 0


def choose(
    candidates: Iterable[tuple[Reference, str | None]],
    settings: Settings,
    rank: Callable[[bytes], bytes],
) -> tuple[Reference, ...]:
    """The references of our own start, () if there are too few.

    ``candidates`` come with their address block, None where none counts; each block has one say.
    ``rank`` is a secret order of the authors.
    """
    blocks: set[str] = set()
    found: list[Reference] = []
    for reference, block in sorted(candidates, key=lambda item: rank(item[0].author)):
        if block is None or block not in blocks:
            found.append(reference)
            blocks.update([block] if block else [])
    count = min(len(found), most(settings))
    count -= (count + 1) % 2
    return tuple(found[:count]) if count > 2 * settings.f else ()
