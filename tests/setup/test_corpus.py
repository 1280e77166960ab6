"""The cutting of texts: nothing lost, nothing in two parts, no character torn, members agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p import corpus

TEXT = "".join(f"{number} żółw 人権 " for number in range(3000)).encode()


def test_a_third_is_never_trained_on() -> None:
    train, validation, test = corpus.split_held_out(TEXT, seed=7)
    sizes = [sum(map(len, part)) / len(TEXT) for part in (train, validation, test)]
    assert sizes == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


def test_every_byte_is_in_one_part_and_no_character_is_torn() -> None:
    parts = corpus.split_held_out(TEXT, seed=7)
    pieces = [piece for part in parts for piece in part]
    assert sum(map(len, pieces)) == len(TEXT)
    for piece in pieces:
        assert piece.decode() in TEXT.decode()


def test_another_seed_holds_out_other_blocks_and_the_same_seed_the_same() -> None:
    assert corpus.split_held_out(TEXT, seed=1) == corpus.split_held_out(TEXT, seed=1)
    assert corpus.split_held_out(TEXT, seed=1) != corpus.split_held_out(TEXT, seed=2)


def test_text_added_at_the_end_moves_no_earlier_block() -> None:
    short = corpus.split_held_out(TEXT[: 40 * corpus.BLOCK_BYTES], seed=3)
    long = corpus.split_held_out(TEXT, seed=3)
    for before, after in zip(short, long, strict=True):
        assert b"".join(after).startswith(b"".join(before)[: -corpus.BLOCK_BYTES])


@given(st.binary(max_size=9000), st.integers(), st.integers(1, 5))
def test_any_bytes_are_cut_without_loss(text: bytes, seed: int, members: int) -> None:
    parts = corpus.split_held_out(text, seed)
    assert sorted(b"".join(b"".join(part) for part in parts)) == sorted(text)
    shares = [corpus.share(parts[0], member, members) for member in range(members)]
    assert b"".join(b"".join(mine) for mine in shares) == b"".join(parts[0])


@pytest.mark.parametrize("members", [1, 2, 3, 7])
def test_members_divide_the_training_text_evenly(members: int) -> None:
    train, _, _ = corpus.split_held_out(TEXT, seed=5)
    sizes = [sum(map(len, corpus.share(train, member, members))) for member in range(members)]
    assert max(sizes) - min(sizes) <= 7  # either end moves by up to 3, and one byte of rounding
    for member in range(members):
        for piece in corpus.share(train, member, members):
            piece.decode()


def test_a_member_beyond_the_count_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="count from 0 to 1"):
        corpus.share([b"a"], 2, 2)


@given(st.text())
def test_characters_are_counted_without_decoding(text: str) -> None:
    encoded = text.encode(errors="surrogatepass")
    assert corpus.characters(encoded) == len(text)
