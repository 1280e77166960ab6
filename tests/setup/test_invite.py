"""Invite links: there and back, and any other text is refused in one line."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.daemon.address import parse_address
from tapestry_p2p.daemon.invite import Invite, parse_invite
from tapestry_p2p.errors import USAGE, TapestryError

ID = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
ADDRESSES = (f"/ip4/192.0.2.7/tcp/4001/p2p/{ID}", f"/ip6/2001:db8::1/tcp/4001/p2p/{ID}")
LINK = "tapestry:" + "ab" * 32 + f"?a={ADDRESSES[0]}&a={ADDRESSES[1]}"


def test_there_and_back() -> None:
    invite = Invite(bytes.fromhex("ab" * 32), tuple(map(parse_address, ADDRESSES)))
    assert str(invite) == LINK
    assert parse_invite(f" {LINK}\n") == invite


@pytest.mark.parametrize(
    "link",
    [
        "",
        "tapestry:",
        LINK.replace("tapestry:", "http:"),
        LINK.replace("ab", "zz", 1),
        LINK.replace("ab" * 32, "ab" * 31),
        LINK.partition("?")[0],
        LINK.partition("?")[0] + "?",
        LINK + "&b=1",
        LINK + "&a=",
        LINK + "&a=/ip4/192.0.2.7/tcp/4001",
        LINK + "&a=/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWx",
        LINK + f"&a={ADDRESSES[0]}" * 15,
        LINK + f"&a={ADDRESSES[0]}" * 100,
        LINK + "\ttrailing",
    ],
)
def test_anything_else_is_refused(link: str) -> None:
    with pytest.raises(TapestryError, match="this is no invite link: ") as caught:
        parse_invite(link)
    assert caught.value.exit_code == USAGE
    assert caught.value.message.isprintable()


@given(st.text(max_size=300))
def test_foreign_text_never_crashes(tail: str) -> None:
    for link in (tail, LINK + tail, "tapestry:" + "ab" * 32 + "?a=" + tail):
        with contextlib.suppress(TapestryError):
            parse_invite(link)
