"""How a text becomes training text and held-out text, and how members share one text.

Its one rule: bytes in, bytes out, the same for everyone who holds the same text and seed. It opens
no file, knows no model and no network; standard library only, so both the trainer and the testnet
may use it.
"""

import hashlib
from collections.abc import Iterable, Sequence

BLOCK_BYTES = 256
GROUP_BLOCKS = 10  # of ten blocks in a row: one for validation, two for the test, seven to train
SEAM = b"\n\n"  # stands between pieces that were not neighbours in the text

_VALIDATION_RANKS = frozenset({0})
_TEST_RANKS = frozenset({1, 2})


def split_held_out(text: bytes, seed: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Cut a text into training, validation and test pieces: 70, 10 and 20 % in interleaved blocks.

    Blocks hold 256 bytes, give or take 3 so that none cuts a UTF-8 character in two. Which of ten
    blocks in a row are held out is drawn by a hash of the seed and the number of the ten alone:
    text added at the end moves no earlier block from one part to another. Blocks of one part that
    are neighbours in the text come as one piece; all pieces of the three lists in the text's order
    are the text again. A text under ten blocks may leave a list empty.
    """
    parts: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    previous = -1
    group: list[int] = []
    for index, block in enumerate(_blocks(text)):
        place = index % GROUP_BLOCKS
        if place == 0:
            group = _parts_of_group(seed, index // GROUP_BLOCKS)
        part = parts[group[place]]
        if group[place] == previous:
            part[-1] += block
        else:
            part.append(block)
        previous = group[place]
    return parts


def share(pieces: Sequence[bytes], member: int, members: int) -> list[bytes]:
    """The part of a training text that is one member's, of `members` who divide it.

    A run of about 1/members of the bytes; `member` counts from 0. The shares of all members, in
    order, hold every byte once; a piece is cut between two members only between UTF-8 characters.
    """
    if not 0 <= member < members:
        raise ValueError(f"member {member} of {members}: count from 0 to {members - 1}")
    total = sum(len(piece) for piece in pieces)
    first, last = total * member // members, total * (member + 1) // members
    mine = []
    offset = 0
    for piece in pieces:
        begin = _boundary(piece, first - offset)
        end = _boundary(piece, last - offset)
        if begin < end:
            mine.append(piece[begin:end])
        offset += len(piece)
    return mine


def join(pieces: Iterable[bytes]) -> bytes:
    """One text of many pieces, a blank line between them."""
    return SEAM.join(pieces)


def characters(text: bytes) -> int:
    """How many characters a UTF-8 text has: its bytes that do not continue a character."""
    return len(text) - sum(map(text.count, _CONTINUATION_BYTES))


_CONTINUATION_BYTES = range(0x80, 0xC0)


def _blocks(text: bytes) -> Iterable[bytes]:
    begin = 0
    for nominal in range(BLOCK_BYTES, len(text) + BLOCK_BYTES, BLOCK_BYTES):
        end = _boundary(text, nominal)
        yield text[begin:end]
        begin = end


def _boundary(text: bytes, offset: int) -> int:
    """The nearest place at or before offset where a character begins.

    Bytes that are no UTF-8 are cut at the offset itself.
    """
    if offset <= 0:
        return 0
    if offset >= len(text):
        return len(text)
    for back in range(min(4, offset)):
        if text[offset - back] & 0xC0 != 0x80:
            return offset - back
    return offset


def _parts_of_group(seed: int, group: int) -> list[int]:
    """For each of ten places: 0 training, 1 validation, 2 test."""
    drawn = hashlib.sha256(f"tapestry held-out {seed} {group}".encode()).digest()
    lots = [(drawn[3 * place : 3 * place + 3], place) for place in range(GROUP_BLOCKS)]
    parts = [0] * GROUP_BLOCKS
    for rank, (_, place) in enumerate(sorted(lots)):
        parts[place] = 1 if rank in _VALIDATION_RANKS else 2 if rank in _TEST_RANKS else 0
    return parts
