"""A stretch of a stream and a statement, checked as any stranger could."""

from dataclasses import replace
from typing import Any

import pytest

from tapestry_p2p.gossip.header import (
    DIFFERENCE,
    GENESIS,
    NO_HASH,
    RESUME,
    Header,
    SignedHeader,
    sign,
)
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.lineage import (
    SIGN_DOMAIN,
    BrokenLineageError,
    check_head,
    check_statement,
    check_stretch,
    sign_statement,
    statement,
)

ANA, EVE = Identity(b"\1" * 32), Identity(b"\2" * 32)
NETWORK, ROOT, DIGEST = bytes(range(32)), b"\5" * 32, b"\6" * 32


def stream(entries: int = 5, resume_at: int = 3) -> list[SignedHeader]:
    found: list[SignedHeader] = []
    for seq in range(entries):
        kind = RESUME if seq == resume_at else DIFFERENCE if seq else GENESIS
        header = Header(
            network=NETWORK, author=ANA.public_key,
            incarnation=bytes([seq >= resume_at]) * 16, seq=seq,
            prev=found[-1].header.hash if found else NO_HASH, kind=kind,
            codec="2bit" if kind == DIFFERENCE else "", chunks=(), payload_bytes=0, root=ROOT,
            round=seq, tokens=0, cites=b"",
        )  # fmt: skip
        found.append(sign(header, ANA.sign))
    return found


def test_a_whole_stream_and_a_later_stretch_of_it() -> None:
    entries = stream()
    found = check_stretch(NETWORK, ANA.public_key, entries, ROOT)
    assert found.is_whole
    assert found.head == entries[-1].header
    assert not check_stretch(NETWORK, ANA.public_key, entries[2:], ROOT).is_whole


def fails(entries: list[SignedHeader], said: str, root: bytes = ROOT) -> None:
    with pytest.raises(BrokenLineageError, match=said):
        check_stretch(NETWORK, ANA.public_key, entries, root)


def test_no_stretch() -> None:
    fails([], "no entry")
    fails(stream(), "first parameters", root=DIGEST)


@pytest.mark.parametrize("place", range(1, 4))
def test_a_gap_or_a_swap(place: int) -> None:
    entries = stream()
    fails(entries[:place] + entries[place + 1 :], "does not lead on")
    entries[place], entries[place - 1] = entries[place - 1], entries[place]
    fails(entries, "does not lead on")


def test_another_life_needs_a_resume() -> None:
    entries = stream(4, resume_at=99)
    last = replace(entries[3].header, incarnation=rb"\9" * 16)
    fails([*entries[:3], sign(last, ANA.sign)], "does not lead on")


@pytest.mark.parametrize("field", ["round", "tokens", "root", "seq", "payload_bytes"])
def test_a_changed_field_is_a_wrong_signature(field: str) -> None:
    entries = stream()
    value: Any = DIGEST if field == "root" else 77
    changed = replace(entries[4].header, **{field: value})
    fails([*entries[:4], SignedHeader(changed, entries[4].signature)], "not signed")


def test_other_networks_and_other_members() -> None:
    header = stream()[0].header
    fails([sign(replace(header, network=DIGEST), ANA.sign)], "another network")
    fails([sign(replace(header, author=EVE.public_key), EVE.sign)], "another member")
    with pytest.raises(BrokenLineageError):
        check_head(NETWORK, sign(header, EVE.sign))


def test_a_statement_holds_for_its_network_digest_and_member_alone() -> None:
    signature = sign_statement(NETWORK, DIGEST, ANA.sign)
    check_statement(NETWORK, DIGEST, ANA.public_key, signature)
    for network, digest, key in (
        (DIGEST, DIGEST, ANA), (NETWORK, ROOT, ANA), (NETWORK, DIGEST, EVE),
    ):  # fmt: skip
        with pytest.raises(BrokenLineageError):
            check_statement(network, digest, key.public_key, signature)


def test_a_statement_is_no_entry() -> None:
    """Whoever can have any digest signed cannot make a header of it: the domains differ."""
    header = stream()[1].header
    signature = sign_statement(NETWORK, header.digest, ANA.sign)
    assert not SignedHeader(header, signature).is_signed()
    assert statement(NETWORK, header.digest) != header.digest
    assert SIGN_DOMAIN not in header.encoded


@pytest.mark.parametrize("digest", [b"", b"\1" * 31, b"\1" * 33])
def test_a_digest_has_32_bytes(digest: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        statement(NETWORK, digest)
