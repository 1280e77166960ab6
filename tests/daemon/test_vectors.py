"""A node of a big model: vectors in files, payloads in the log; the same bits as in memory."""

from pathlib import Path

import numpy as np
import pytest

from tapestry_p2p.bulk import Shelf
from tapestry_p2p.daemon.store import LoggedEntry, Store
from tapestry_p2p.daemon.vectors import VectorSpace, vector_in
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import FRAME_BYTES, PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings
from tapestry_p2p.mix.space import BLOCK, MEMORY, Space

D = BLOCK + 12_345  # two blocks, five frames
LARGE = 3 << 20  # bytes: a payload that is left in the log


def rounds(space: Space, settings: LoomSettings) -> list[Vector]:
    """Some rounds among three, one of whom goes and comes back; every vector that comes of them."""
    random = np.random.default_rng(5)

    def drawn(size: float) -> Vector:
        return (size * random.standard_normal(D)).astype(np.float32)

    x = drawn(1.0)
    loom: Loom[str] = Loom(settings, x, PublicCopy(x, space), space=space)
    copies = {name: PublicCopy(x, space) for name in "ab"}
    seen, y = [], x
    for round_ in range(4):
        for name, copy in copies.items():
            copy.add(drawn(0.1))
            loom.arrived(name, round_)
            loom.decoded(name, round_)
        y = y + drawn(0.1)
        difference = loom.difference(y)
        after = b"".join(loom.own.leaves_after(difference.vector))
        loom.published(difference, y)
        assert b"".join(loom.own.leaves()) == after
        there = {n: c.vector for n, c in copies.items() if n == "a" or round_ != 2}
        mixing = loom.mix(y, there, 2)
        loom.mixed(mixing)
        news = loom.mix_news(there, 2)
        loom.mixed(news)
        y = loom.x
        seen += [loom.own.vector.copy(), mixing.correction, news.correction, np.array(y)]
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        LoomSettings(),
        LoomSettings(gamma=0.5, eta=1.3, mu=0.0, codec="int8", view="applied_pull"),
        LoomSettings(rule="trimmed_mean", codec="fp32"),
    ],
)
def test_a_round_in_files_is_a_round_in_memory(settings: LoomSettings, tmp_path: Path) -> None:
    held, mapped = rounds(MEMORY, settings), rounds(VectorSpace(tmp_path, 1), settings)
    assert len(held) == len(mapped) == 16
    for at, (one, other) in enumerate(zip(held, mapped, strict=True)):
        assert one.tobytes() == other.tobytes(), at
    assert list(tmp_path.iterdir()) == []


def test_a_copy_in_files_has_the_frames_of_one_in_memory(tmp_path: Path) -> None:
    vector = np.random.default_rng(1).standard_normal(D).astype(np.float32)
    space = VectorSpace(tmp_path, 1)
    copy, taken = PublicCopy(vector, space), PublicCopy.holding(space.copy(vector), space)
    assert list(copy.frames()) == list(taken.frames()) == list(PublicCopy(vector).frames())
    assert copy.frame(0) == vector.tobytes()[:FRAME_BYTES]
    assert copy.frame(5) == b""
    assert vector_in(space, vector.tobytes()).tobytes() == vector.tobytes()


def test_a_large_payload_stays_in_the_log(tmp_path: Path) -> None:
    payloads = [np.random.default_rng(seq).bytes(LARGE) for seq in range(9)]
    store, views = Store(tmp_path, ring=2), []
    for seq, payload in enumerate(payloads):
        store.append_entry(LoggedEntry(seq, b"signed %d" % seq, payload))
        views.append(store.last_payload(payload))
        store.save_own(seq, seq, np.full(4, seq, np.float32), np.ones(4, np.float32))
    assert all(isinstance(view, memoryview) for view in views)
    assert views == payloads  # also after the log was written anew, twice
    store.close()
    again = Store(tmp_path, ring=2)
    state = again.load_own()
    assert state is not None
    assert 4 <= len(state.entries) < 9
    for entry in state.entries:
        assert isinstance(entry.payload, memoryview)
        assert entry.payload == payloads[entry.seq]
    assert state.x.tolist() == [8.0] * 4
    again.close()


def test_a_flipped_bit_in_a_large_payload_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path, ring=2)
    store.append_entry(LoggedEntry(0, b"signed 0", bytes(LARGE)))
    store.append_entry(LoggedEntry(1, b"signed 1", bytes(LARGE)))
    store.close()
    log = tmp_path / "own.log"
    data = bytearray(log.read_bytes())
    data[LARGE // 2] ^= 1
    log.write_bytes(data)
    again = Store(tmp_path, ring=2)
    state = again.load_own()
    assert state is not None
    assert state.rolled_back
    assert [entry.seq for entry in state.entries] == [1]
    again.close()


def test_short_vectors_are_in_memory(tmp_path: Path) -> None:
    assert not Shelf(tmp_path).is_mapped(1 << 20)
    assert Shelf(tmp_path).is_mapped(1 << 24)
