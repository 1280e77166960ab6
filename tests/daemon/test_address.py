"""Addresses as text: what is none of ours is refused with a plain sentence, whatever it is."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.daemon.address import Address, parse_address

PEER = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/192.0.2.7/tcp/4001", Address("ip4", "192.0.2.7", 4001)),
        ("/ip6/::1/tcp/0", Address("ip6", "::1", 0)),
        ("/dns/example.org/tcp/65535", Address("dns", "example.org", 65535)),
        (f"/dns4/a.b/tcp/1/p2p/{PEER}", Address("dns4", "a.b", 1, PEER)),
    ],
)
def test_there_and_back(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "192.0.2.7:4001",
        "/ip4/192.0.2.7",
        "/ip4/192.0.2.7/udp/4001",
        "/ip4/192.0.2.7/tcp/",
        "/ip4/192.0.2.7/tcp/65536",
        "/ip4/192.0.2.7/tcp/-1",
        "/ip4/192.0.2.7/tcp/+1",
        "/ip4/192.0.2.7/tcp/ 1",
        "/ip4/192.0.2.7/tcp/٣",
        "/ip4//tcp/1",
        "ip4/192.0.2.7/tcp/1",
        "/ip4/192.0.2.7/tcp/1/",
        "/ip4/192.0.2.7/tcp/1/p2p",
        "/ip4/192.0.2.7/tcp/1/p2p/",
        f"/ip4/192.0.2.7/tcp/1/p2p/{PEER}/more",
        "/ip4/192.0.2.7/tcp/1/quic/x",
        "/onion3/abc/tcp/1",
        "/ip4/192.0.2.7/tcp/" + "9" * 5000,
        "/dns4/a..b/tcp/1",
        "/dns/.a/tcp/1",
        "/dns/é.example/tcp/1",
        "/dns/a b/tcp/1",
        "/dns/a\0b/tcp/1",
        "/dns/" + "a" * 64 + ".example/tcp/1",
        "/dns/" + "a." * 120 + "b/tcp/1",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port") as refused:
        parse_address(text)
    assert "\n" not in str(refused.value)


@given(st.text(alphabet="/ip46dnstc p2:.0189\0\né", max_size=60) | st.text(max_size=80))
def test_foreign_text_gives_an_address_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(parse_address(text)).count("/tcp/") >= 1
