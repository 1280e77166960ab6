"""Every hostile program by its name. A new one is a function and a row."""

from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from tapestry_p2p.sim.hostile import speech, streams, wire
from tapestry_p2p.sim.hostile.stranger import Victim

Program = Callable[[list[Victim], Counter[str]], Awaitable[None]]
One = Callable[[Victim, Counter[str]], Awaitable[None]]


def each(program: One) -> Program:
    """A program against one victim, played against all at once."""

    async def play(victims: list[Victim], tally: Counter[str]) -> None:
        async with trio.open_nursery() as nursery:
            for victim in victims:
                nursery.start_soon(program, victim, tally)

    play.__doc__ = program.__doc__
    return play


PROGRAMS: dict[str, Program] = {
    **{
        program.__name__: each(program)
        for program in (
            wire.plaintext_impostor,
            wire.idle_flood,
            wire.reconnector,
            wire.window_overrun,
            wire.syn_flood,
            wire.slow_reader,
            wire.garbage_streamer,
            wire.oversize,
            speech.bad_signature_flood,
            speech.replayer,
            speech.stale_sender,
            speech.bombs,
            speech.table_poisoner,
            speech.sybil_swarm,
            speech.grinder,
            speech.wrong_network,
        )
    },
    **{
        program.__name__: program
        for program in (
            streams.forker,
            streams.selective_publisher,
            streams.withholder,
            streams.late_publisher,
            streams.nan_sender,
            streams.wrong_schema,
        )
    },
}
