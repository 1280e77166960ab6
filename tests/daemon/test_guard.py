"""Before a stranger counts: bounded lines, bounded places, and only the libp2p that we know."""

import importlib.metadata

import pytest
import trio
from daemon_kit import in_mock_time
from hypothesis import given
from hypothesis import strategies as st
from libp2p.io.exceptions import IncompleteReadError
from libp2p.protocol_muxer import multiselect_communicator

from tapestry_p2p.daemon import guard
from tapestry_p2p.errors import VERSION, TapestryError


class Reader:
    """Gives its bytes a few at a time and counts how many were taken."""

    def __init__(self, data: bytes, at_once: int = 1 << 20) -> None:
        self.data, self.at_once, self.taken = data, at_once, 0

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        assert n is not None
        piece = self.data[self.taken : self.taken + min(n, self.at_once)]
        self.taken += len(piece)
        return piece


def delimited(line: bytes) -> bytes:
    return bytes([len(line) & 0x7F | 0x80, len(line) >> 7]) + line


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@in_mock_time
async def test_a_line_comes_without_its_newline(at_once: int) -> None:
    reader = Reader(b"\x13/multistream/1.0.0\n\x03na\n", at_once)
    assert await guard.read_delim_bounded(reader) == b"/multistream/1.0.0"
    assert await guard.read_delim_bounded(reader) == b"na"


@in_mock_time
async def test_the_longest_line_that_is_taken() -> None:
    line = b"x" * (guard.DELIM_BYTES_MAX - 1) + b"\n"
    assert await guard.read_delim_bounded(Reader(delimited(line))) == line[:-1]
    with pytest.raises(IncompleteReadError):
        await guard.read_delim_bounded(Reader(delimited(b"x" + line)))


@pytest.mark.parametrize("bits", range(10, 65))
@in_mock_time
async def test_an_over_long_claim_is_refused_from_its_length(bits: int) -> None:
    value, claim = 2**bits, bytearray()
    while value:
        claim.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
    reader = Reader(bytes(claim) + bytes(5000))
    with pytest.raises(IncompleteReadError):
        await guard.read_delim_bounded(reader)
    assert reader.taken <= guard.DELIM_BYTES_MAX + 2


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x05abc", b"\x03abc", b"\xff" * 100, b"\x00"])
@in_mock_time
async def test_a_broken_line_is_refused(data: bytes) -> None:
    with pytest.raises(IncompleteReadError):
        await guard.read_delim_bounded(Reader(data))


@given(st.binary(max_size=40))
def test_whatever_comes_is_a_line_or_a_refusal(data: bytes) -> None:
    async def read() -> None:
        try:
            await guard.read_delim_bounded(Reader(data))
        except IncompleteReadError:
            return

    trio.run(read)


def test_the_reader_is_put_in_place() -> None:
    guard.install()
    assert vars(multiselect_communicator)["read_delim"] is guard.read_delim_bounded


def test_another_libp2p_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9")
    with pytest.raises(TapestryError, match=r"9\.9\.9") as refused:
        guard.install()
    assert refused.value.exit_code == VERSION
