"""Plays one hostile program until it is told to stop (its standard input ends, or a signal).

    python -m tapestry_p2p.sim.hostile [--from HOST] NAME NETWORK_ID ADDRESS [ADDRESS ...]

HOST: a local address to attack from, 127.66.0.1 for one; on Linux all of 127/8 will do. Says
"begun" on standard error once it knows its victims, and what it did as one JSON line at its end.
"""

import json
import signal
import sys
from collections import Counter

import trio

from tapestry_p2p.sim.hostile.stranger import SOURCE, Victim, find_victim
from tapestry_p2p.sim.hostile.table import PROGRAMS


async def play(name: str, network: bytes, addresses: list[str], tally: Counter[str]) -> None:
    """The program against all daemons; until a signal or the end of standard input."""
    victims: list[Victim] = [await find_victim(address, network) for address in addresses]
    sys.stderr.write("begun\n")
    sys.stderr.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(PROGRAMS[name], victims, tally)
        nursery.start_soon(_until_stdin_ends, nursery.cancel_scope)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()


async def _until_stdin_ends(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(0) as stdin:
        while await stdin.receive_some(4096):
            pass
    scope.cancel()


def main(words: list[str]) -> int:
    """Exit code 2 for words that make no sense."""
    if words[:1] == ["--from"]:
        SOURCE.set(words[1])
        words = words[2:]
    if len(words) < 3 or words[0] not in PROGRAMS:
        sys.stderr.write(
            f"[--from HOST] NAME NETWORK_ID ADDRESS ...; NAME: one of {', '.join(PROGRAMS)}\n"
        )
        return 2
    tally: Counter[str] = Counter()
    trio.run(play, words[0], bytes.fromhex(words[1]), words[2:], tally)
    sys.stdout.write(json.dumps(tally) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
