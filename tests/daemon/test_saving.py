"""Followed copies are saved as they stand, and not again before they move."""

from pathlib import Path

import numpy as np
import trio
from daemon_kit import Author, in_mock_time, vector

from tapestry_p2p.daemon.copies import Copies, Followed, copy_root
from tapestry_p2p.daemon.disk import Disk
from tapestry_p2p.daemon.saving import CopySaver
from tapestry_p2p.daemon.store import FollowedCopy, Store
from tapestry_p2p.gossip.known import Known
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.mix.copy import PublicCopy

D = 100


class Saved(Store):
    """A store that counts."""

    def save_copy(self, followed: FollowedCopy) -> None:
        super().save_copy(followed)
        self.saves.append((followed.author, followed.seq))

    saves: list[tuple[bytes, int]]


class Knowing:
    """As much of a protocol as is asked."""

    def __init__(self) -> None:
        self.known = Known()

    def snapshot(self) -> Known:
        return self.known


@in_mock_time
async def test_a_copy_is_saved_when_it_moved(tmp_path: Path) -> None:
    store = Saved(tmp_path / "store", 4)
    store.saves = []
    author, protocol = Author(d=D).genesis(), Knowing()
    copies = Copies(bytes(32), copy_root(PublicCopy(vector(D))), bytes(32), b"")
    kept: list[int] = []

    async def keep_known() -> bool:
        await trio.lowlevel.checkpoint()
        kept.append(len(store.saves))
        return True

    def stands(copy: PublicCopy, seq: int) -> Followed:
        protocol.known = Known(copies=(author.signed[seq],))
        return Followed(seq, copy, copy_root(copy))

    as_protocol: Protocol = protocol  # type: ignore[assignment]
    saver = CopySaver(copies, as_protocol, trio.Lock(), store, Disk(tmp_path), keep_known)
    held = copies.followed[author.key] = stands(copies.copy(author.copy.vector), 0)
    await saver.save()
    await saver.save()
    assert store.saves == [(author.key, 0)]
    author.difference()
    held.seq = 1  # the entry was applied, and the protocol has not heard of it yet
    await saver.save()
    assert len(store.saves) == 1
    protocol.known = Known(copies=(author.signed[1],))
    await saver.save()
    assert store.saves[1:] == [(author.key, 1)]
    copies.followed[author.key] = stands(copies.copy(author.copy.vector), 1)  # fetched whole
    await saver.save()
    assert store.saves[2:] == [(author.key, 1)]
    assert kept == [1, 1, 1, 2, 3]
    (found,) = store.load_copies()
    assert np.array_equal(found.vector, author.copy.vector)
    assert found.signed == author.signed[1].encode()
    store.close()
