"""Which earlier states of our own can be had again, and one of them as a vector.

Knows the kept copies (past.py) and the log's entries that lead on from them. What is done with the
vector is rounds.py's (a running node) or `lay_down`'s (a stopped one): in both cases a new `resume`
entry states its root, and no number is signed twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tapestry_p2p.daemon.files import DamagedError
from tapestry_p2p.daemon.past import Kept, Past
from tapestry_p2p.daemon.recovery import moved, recover
from tapestry_p2p.daemon.store import LoggedEntry, Store, read_entries
from tapestry_p2p.errors import FAILURE, REFUSED, USAGE, TapestryError
from tapestry_p2p.gossip.header import DIFFERENCE, RESUME, Header, decode_signed
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy


@dataclass(frozen=True, slots=True)
class Stretch:
    """A kept copy and the entries that lead on from it without a gap; rounds rise along it."""

    base: Kept
    entries: tuple[tuple[Header, LoggedEntry], ...]

    @property
    def rounds(self) -> list[int]:
        """Of every state that it holds."""
        later = [header.round for header, _ in self.entries if header.kind == DIFFERENCE]
        return [self.base.round, *later]

    def holds(self, round_: int) -> bool:
        """Whether it tells how things stood at the end of that round."""
        return self.base.round <= round_ <= self.rounds[-1]


def stretches(past: Past, entries: Iterable[LoggedEntry]) -> list[Stretch]:
    """What can be had, oldest first."""
    kept = past.kept()
    logged = {entry.seq: entry for entry in entries}
    found = []
    for place, base in enumerate(kept):
        end = kept[place + 1].seq if place + 1 < len(kept) else 1 << 62
        led: list[tuple[Header, LoggedEntry]] = []
        seq = base.seq + 1
        while seq < end and seq in logged:
            header = decode_signed(logged[seq].signed).header
            before = led[-1][0].root if led else b""
            if header.kind == RESUME and header.root != before:
                break  # another copy from here on
            led.append((header, logged[seq]))
            seq += 1
        found.append(Stretch(base, tuple(led)))
    return found


def rounds_back(found: Iterable[Stretch], now: int) -> list[int]:
    """How many rounds back one can go, all possible numbers, rising."""
    return sorted({now - round_ for stretch in found for round_ in stretch.rounds if round_ < now})


def in_words(possible: list[int]) -> str:
    """``possible`` as a person says it: 1 to 37, 140 and 1200 rounds."""
    runs: list[list[int]] = []
    for number in possible:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    told = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{told} rounds" if told else "nothing yet"


def earlier(store: Store, back: int, now: int, norm_max: float) -> tuple[Vector, int]:
    """Our copy float32[d] as it stood ``back`` rounds before round ``now``, and its round.

    Reads files; needs no lock against the store's writer. TapestryError: 2 for a number below one,
    6 if that state is not kept, 1 if it is damaged.
    """
    if back < 1:
        raise TapestryError("rounds must be 1 or more", USAGE)
    found = stretches(store.past, read_entries(store.directory))
    wanted = now - back
    stretch = next((each for each in reversed(found) if each.holds(wanted)), None)
    if stretch is None:
        possible = in_words(rounds_back(found, now))
        raise TapestryError(
            f"the state of {back} rounds ago is not kept; possible: {possible} back", REFUSED
        )
    try:
        copy = PublicCopy(store.past.load(stretch.base), store.space)
    except (DamagedError, OSError) as error:
        raise TapestryError(f"the kept state of round {stretch.base.round}: {error}") from error
    seq, round_ = stretch.base.seq, stretch.base.round
    for header, entry in stretch.entries:
        if header.kind == DIFFERENCE and header.round > wanted:
            break
        if not moved(copy, header, entry.payload, seq, norm_max):
            raise TapestryError(f"entry {entry.seq} does not lead on from {seq}", FAILURE)
        seq, round_ = entry.seq, max(round_, header.round)
    return copy.vector, round_


def lay_down(store: Store, back: int, parameters: int, norm_max: float) -> tuple[int, int]:
    """Make a stopped member's next start begin from an earlier state; (round left, round taken).

    TapestryError as `earlier`, and 6 if the store has to ask its peers first.
    """
    found = recover(store, parameters, norm_max)
    if found.rolled_back:
        raise TapestryError(
            "the store is damaged or older than what peers hold: run the member first, it asks"
            " them, then roll back",
            REFUSED,
        )
    vector, round_ = earlier(store, back, found.round, norm_max)
    store.save_own(found.seq, found.round, vector, vector, reverted=True)
    return found.round, round_
