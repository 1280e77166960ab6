"""What the operator is told of the certificate, and when: on `status`, and once in the log."""

import logging
from typing import Any, cast

import pytest
import trio
from daemon_kit import in_mock_time

from tapestry_p2p.daemon.manifest import Mixing
from tapestry_p2p.daemon.promise import WATCH_S, present, watch
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.mix.topology import BEST_EFFORT, CERTIFIED, IMPOSSIBLE


class Crowd:
    """What a protocol would say of how many there are."""

    def __init__(self, followed: int, members: int = 0) -> None:
        self.count, self.known = followed, members

    @property
    def is_sparse(self) -> bool:
        return self.known > 17

    @property
    def neighbours(self) -> int:
        return self.count

    def members(self) -> dict[int, Any]:
        return dict.fromkeys(range(self.known))


def seen(mixing: Mixing, followed: int, members: int = 0) -> tuple[str, str]:
    found = present(mixing, cast("Protocol", Crowd(followed, members)))
    return found.word, found.why


def test_all_to_all_counts_those_followed_and_oneself() -> None:
    one = Mixing(f=1)
    assert seen(one, 0) == (IMPOSSIBLE, "members > 3f does not hold: 1 <= 3")
    assert seen(one, 4)[0] == BEST_EFFORT
    assert seen(one, 5) == (CERTIFIED, "members > 5f: 6 > 5")
    assert seen(Mixing(f=1, rule="mean"), 9)[0] == BEST_EFFORT


def test_a_crowd_gets_an_estimate() -> None:
    word, why = seen(Mixing(f=1), 16, 100)
    assert word == BEST_EFFORT
    assert why.startswith("an estimate: 5 hostile of 100 members assumed, 18 %")


@in_mock_time
async def test_a_change_is_logged_once_and_as_a_warning_where_nothing_is_proven(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd, mixing = Crowd(4), Mixing(f=1)
    caplog.set_level(logging.INFO, "tapestry.node")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, mixing, cast("Protocol", crowd))
        await trio.sleep(5 * WATCH_S)
        crowd.count = 6
        await trio.sleep(5 * WATCH_S)
        nursery.cancel_scope.cancel()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "WARNING",
            "rule cs_plus against 1 hostile: BEST-EFFORT (members > 5f does not hold: 5 <= 5)",
        ),
        ("INFO", "rule cs_plus against 1 hostile: CERTIFIED (members > 5f: 7 > 5)"),
    ]


def test_what_no_number_of_members_makes_possible_is_refused_with_the_inequality() -> None:
    with pytest.raises(ValueError, match=r"3f\+1 <= all_to_all_max does not hold: 19 > 17"):
        Mixing(f=6)
    with pytest.raises(ValueError, match=r"k - f - 2 sqrt\(k - f - 1\) > 2f does not hold"):
        Mixing(f=1, k=6)
