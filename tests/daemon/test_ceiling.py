"""The ceiling of memory: a peak is forgiven, growth pauses the trainer, each time for longer."""

import pytest
import trio
from daemon_kit import in_mock_time

from tapestry_p2p.daemon import ceiling as module
from tapestry_p2p.daemon.ceiling import CALM_S, LOOK_S, LOOKS, WAITS_S, Ceiling
from tapestry_p2p.daemon.pauses import MEMORY, Pauses

GB = 1e9


def test_no_ceiling_never_pauses() -> None:
    ceiling = Ceiling(0)
    assert all(ceiling.judge(1e15, 1e15, float(at)) == "" for at in range(100))


def test_a_short_peak_is_forgiven() -> None:
    ceiling = Ceiling(2 * GB)
    for at in range(100):
        high = at % LOOKS != 0
        assert ceiling.judge(0.1 * GB, (3.0 if high else 1.0) * GB, float(at)) == ""


def paused_for(ceiling: Ceiling, at: float) -> tuple[float, float]:
    """From ``at`` on a trainer that takes too much while it runs: when it was paused, how long."""
    while not ceiling.judge(0.1 * GB, 3 * GB, at):
        at += LOOK_S
    began = at
    while ceiling.judge(0.1 * GB, 0, at):
        at += LOOK_S
    return began, at - began


def test_who_takes_too_much_waits_longer_each_time() -> None:
    ceiling, at = Ceiling(2 * GB), 0.0
    for wait in (*WAITS_S, WAITS_S[-1]):
        began, took = paused_for(ceiling, at)
        assert began - at == (LOOKS - 1) * LOOK_S
        assert wait <= took <= wait + LOOK_S
        at = began + took
    at += 3 * CALM_S
    assert paused_for(ceiling, at)[1] <= WAITS_S[0] + LOOK_S


def test_the_words_say_how_much_and_what_next() -> None:
    ceiling = Ceiling(2 * GB)
    words = [ceiling.judge(0.1 * GB, 2.3 * GB, at * LOOK_S) for at in range(LOOKS)][-1]
    assert words == (
        "node and trainer took 2.4 GB of the 2 GB that budget.memory allows;"
        " the trainer begins again after 30 s"
    )
    words = ceiling.judge(2.5 * GB, 0, 1000.0)
    assert words == "the node alone takes 2.5 GB of the 2 GB that budget.memory allows"


@in_mock_time
async def test_a_pause_comes_and_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    pauses = Pauses(tmp_path_factory.mktemp("x") / "paused")
    used = [0.1 * GB, 3 * GB]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(module.watch_memory, pauses, Ceiling(2 * GB), lambda: (used[0], used[1]))
        await trio.sleep((LOOKS - 1) * LOOK_S - 0.1)
        assert MEMORY not in pauses.reasons
        await trio.sleep(LOOK_S)
        assert "3.1 GB" in pauses.reasons[MEMORY]
        used[1] = 0.0  # the trainer ended
        await trio.sleep(WAITS_S[0] - LOOK_S)
        assert MEMORY in pauses.reasons
        await trio.sleep(2 * LOOK_S)
        assert MEMORY not in pauses.reasons
        nursery.cancel_scope.cancel()
