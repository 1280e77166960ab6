"""Requests that take long are answered one at a time, and hold up nothing but what must stand."""

import pytest
import trio
import trio.testing
from daemon_kit import D, key, vector

from tapestry_p2p.daemon import answers as module
from tapestry_p2p.daemon.answers import Answers
from tapestry_p2p.daemon.copies import Copies, Followed, copy_root
from tapestry_p2p.daemon.rates import Traffic
from tapestry_p2p.gossip.fetch import LeavesRequest, decode_response, encode_request
from tapestry_p2p.mix.copy import PublicCopy

OWN, OTHER, THIRD = (key(n).public_key for n in (1, 2, 3))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Of a member for which ``D`` parameters are many."""
    monkeypatch.setattr(module, "MAPPED_FROM", D)
    genesis = copy_root(PublicCopy(vector()))
    copies = Copies(OWN, genesis, bytes(32), b"")
    copies.set_genesis(vector())
    for n, author in enumerate((OTHER, THIRD)):
        copy = PublicCopy(vector(seed=n + 1))
        copies.followed[author] = Followed(3, copy, copy_root(copy))
    own = PublicCopy(vector(seed=9))
    copies.own = Followed(3, own, copy_root(own))
    return Answers(copies, OWN, D, trio.Lock(), trio.Lock(), Traffic())


async def _ask(answers: Answers, author: bytes, root: bytes, peer: bytes = b"peer") -> str:
    head, _ = await answers.give(peer, encode_request(LeavesRequest(author, 3, root)))
    return decode_response(head).status


def test_a_copy_is_frozen_only_while_it_must_not_move(answers: Answers) -> None:
    async def main() -> None:
        copies = answers.copies
        root = copies.followed[OTHER].root
        async with trio.open_nursery() as nursery:
            await answers.mixing.acquire()  # a round is mixed
            nursery.start_soon(_ask, answers, OTHER, root)
            await trio.testing.wait_all_tasks_blocked()
            assert await _ask(answers, THIRD, copies.followed[THIRD].root) == "busy"
            assert await _ask(answers, OTHER, bytes(32)) == "missing"  # nothing to freeze
            assert not answers.speaking.locked()
            answers.mixing.release()
        with trio.fail_after(5):
            async with answers.mixing:
                assert await _ask(answers, OTHER, root) == "ok"  # as it stood: no lock
        assert await _ask(answers, THIRD, copies.followed[THIRD].root) == "ok"

    trio.run(main)


def test_who_has_many_copies_frozen_has_to_wait(answers: Answers) -> None:
    """Each costs us a copy and a digest of all; asking for what is frozen costs nothing."""

    async def main() -> None:
        for seed in range(int(module.FREEZES) + 3):
            copy = PublicCopy(vector(seed=100 + seed))
            answers.copies.followed[OTHER] = Followed(3, copy, copy_root(copy))
            said = await _ask(answers, OTHER, copy_root(copy))
            assert said == ("ok" if seed < module.FREEZES else "busy")
        assert await _ask(answers, OTHER, copy_root(copy), b"another") == "ok"
        assert await _ask(answers, OTHER, copy_root(copy)) == "ok"  # it is held by now
        await trio.sleep(1 / module.FREEZES_PER_S + 0.1)
        assert await _ask(answers, THIRD, answers.copies.followed[THIRD].root) == "ok"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_our_own_copy_is_frozen_between_two_entries(answers: Answers) -> None:
    async def main() -> None:
        own = answers.copies.own
        assert own is not None
        done = []

        async def ask() -> None:
            done.append(await _ask(answers, OWN, own.root))

        async with trio.open_nursery() as nursery, answers.speaking:  # it moves
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert done == []
        assert done == ["ok"]

    trio.run(main)
