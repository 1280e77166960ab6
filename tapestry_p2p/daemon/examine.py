"""What a store's files say of themselves, and what of it can be mended without guessing.

Reads every file, checks every digest. Repairs only what is proven wrong and can be had again: half
written drafts, a damaged generation beside a whole one, copies of others, sockets of a dead daemon.
The own log is never touched: a start that finds it damaged asks the peers (recovery.py).
"""

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tapestry_p2p import bulk
from tapestry_p2p.daemon.audit import verify
from tapestry_p2p.daemon.files import DamagedError, Mark, unseal_file
from tapestry_p2p.daemon.past import Past
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.rollback import in_words, rounds_back, stretches
from tapestry_p2p.daemon.store import LoggedEntry, Store, read_log
from tapestry_p2p.daemon.upgrade import FORMAT, found_format
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.header import SignedHeader, decode_signed

OK, NOTE, PROBLEM = "ok", "note", "problem"
_DRAFT = ".new"
_COPY = re.compile(r"[0-9a-f]{64}")
_OURS = re.compile(
    r"own\.[01]|known\.[01]|own\.log|own\.seq|format|lock|paused|left|audit-\d+\.jsonl|copies|past"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    verdict: str
    words: str
    next: str = ""  # what to do
    mend: Callable[[], None] | None = None  # what a repair does


def examine(folder: Path) -> list[Finding]:
    """Everything that can be seen without the lock: a running node may write meanwhile."""
    if not found_format(folder):
        return [Finding("store", NOTE, f"{folder} holds nothing yet", "tapestry run makes it")]
    return [
        _format(folder),
        _generations(folder, "own", "own state"),
        _generations(folder, "known", "what peers told"),
        *_copies(folder),
        _log(folder),
        _mark(folder),
        _past(folder),
        _audit(folder),
        *_leftovers(folder),
    ]


def replay(store: Store, parameters: int, norm_max: float) -> Finding:
    """Whether a start would find the own copy whole. Needs the lock, so no node may run."""
    found = recover(store, parameters, norm_max)
    if found.rolled_back:
        return Finding(
            "replay", PROBLEM, f"the log does not lead on to our newest entry (stands at"
            f" {found.seq})", "start the member: it asks its peers for its own newest entry and"
            " goes on after it",
        )  # fmt: skip
    return Finding("replay", OK, f"log and state lead to entry {found.seq}, round {found.round}")


def _format(folder: Path) -> Finding:
    found = found_format(folder)
    if found > FORMAT:
        words = f"format {found} is newer than this version reads ({FORMAT})"
        return Finding("format", PROBLEM, words, "install the newer version again")
    if found < FORMAT:
        words = f"format {found}, this version writes {FORMAT}"
        return Finding("format", NOTE, words, "the next start brings it up")
    return Finding("format", OK, f"format {found}")


def is_whole(path: Path) -> bool:
    """Whether a sealed file is as it was written. FileNotFoundError if there is none."""
    try:
        unseal_file(path)
    except FileNotFoundError:
        raise
    except (DamagedError, OSError):
        return False
    return True


def _states(folder: Path, name: str) -> dict[Path, bool]:
    """Its generations that are there, and whether each is whole."""
    paths = [folder / f"{name}.{place}" for place in range(2)]
    return {path: is_whole(path) for path in paths if path.exists()}


def _remove(*paths: Path) -> Callable[[], None]:
    def mend() -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    return mend


def _remove_damaged(*paths: Path) -> Callable[[], None]:
    """What cannot even be read is not proven wrong: OSError, and it stays."""

    def mend() -> None:
        for path in paths:
            with path.open("rb") as file:
                for _ in bulk.read(file.fileno(), 0, path.stat().st_size):
                    pass
            path.unlink()

    return mend


def _generations(folder: Path, name: str, what: str) -> Finding:
    states = _states(folder, name)
    damaged = [path for path, whole in states.items() if not whole]
    if not states:
        return Finding(name, NOTE, f"{what}: not saved yet", "it comes with the first round")
    if not damaged:
        return Finding(name, OK, f"{what}: {len(states)} of 2 generations, all whole")
    if len(damaged) < len(states):
        words = f"{what}: {damaged[0].name} is damaged, the other generation is whole"
        return Finding(name, PROBLEM, words, "--repair falls back to it", _remove_damaged(*damaged))
    words = f"{what}: no generation is whole"
    return Finding(name, PROBLEM, words, "start the member: it asks its peers, or restore a backup")


def _copies(folder: Path) -> Iterator[Finding]:
    names = {path.stem for path in (folder / "copies").glob("*.[01]")}
    names = {name for name in names if _COPY.fullmatch(name)}
    bad = []
    for name in sorted(names):
        states = _states(folder / "copies", name)
        damaged = [path for path, whole in states.items() if not whole]
        if damaged:
            bad.append(name)
            lost = len(damaged) == len(states)
            then = "--repair removes it; it is fetched again" if lost else "--repair falls back"
            yield Finding(
                "copies", PROBLEM, f"the copy of {name[:16]}: {damaged[0].name[-1:]} is damaged",
                then, _remove_damaged(*damaged),
            )  # fmt: skip
    if not bad:
        yield Finding("copies", OK, f"{len(names)} copies of others, all whole")


def _headers(entries: list[LoggedEntry]) -> list[SignedHeader]:
    return [decode_signed(entry.signed) for entry in entries]


def _log(folder: Path) -> Finding:
    read = read_log(folder)
    asks = "start the member: it asks its peers, and goes on by a new entry"
    try:
        signed = _headers(read.entries)
    except Malformed:
        return Finding("log", PROBLEM, "an entry of the log is none of ours", asks)
    pairs = list(pairwise(signed))
    gaps = [b.header.seq for a, b in pairs if b.header.seq != a.header.seq + 1]
    broken = [b.header.seq for a, b in pairs if b.header.prev != a.header.hash]
    forged = [each.header.seq for each in signed if not each.is_signed()]
    if read.damaged:
        return Finding("log", PROBLEM, "own.log holds a damaged record", asks)
    for seqs, what in ((forged, "not signed by us"), (gaps, "after a gap")):
        if seqs:
            return Finding("log", PROBLEM, f"entry {seqs[0]} of the log is {what}", asks)
    span = f"entries {signed[0].header.seq} to {signed[-1].header.seq}" if signed else "no entries"
    told = f"own.log: {span}, every digest and signature right"
    if broken:  # a resume after a backup follows an entry that only peers had
        return Finding("log", NOTE, f"{told}; entry {broken[0]} follows one that is not in it")
    return Finding("log", OK, told)


def _mark(folder: Path) -> Finding:
    marked = Mark(folder / "own.seq").load()
    newest = max((entry.seq for entry in read_log(folder).entries), default=-1)
    if marked > newest:
        return Finding(
            "mark", PROBLEM, f"entry {marked} was made durable, the log ends at {newest}",
            "start the member: it asks its peers for the rest",
        )  # fmt: skip
    if marked < 0 <= newest:
        words = f"own.seq marks nothing, the log ends at {newest}"
        return Finding("mark", NOTE, words, "the member's next entry marks it again")
    return Finding("mark", OK, f"entry {max(marked, newest)} is the highest")


def _past(folder: Path) -> Finding:
    past = Past(folder / "past", 1)
    kept = past.kept()
    paths = [folder / "past" / each.name for each in kept]
    damaged = [path for path in paths if not is_whole(path)]
    if damaged:
        words = f"{len(damaged)} kept earlier states are damaged"
        return Finding("past", PROBLEM, words, "--repair removes them", _remove_damaged(*damaged))
    entries = read_log(folder).entries
    now = max((each.header.round for each in _headers(entries)), default=0)
    back = in_words(rounds_back(stretches(past, entries), now))
    return Finding("past", OK, f"{len(kept)} earlier states; rollback possible: {back} back")


def _audit(folder: Path) -> Finding:
    headers = [each.header for each in _headers(read_log(folder).entries)]
    found = verify(folder, {header.seq: header.hash.hex() for header in headers})
    if found.faults:
        return Finding("audit", PROBLEM, found.faults[0], "tapestry audit --verify shows all")
    return Finding("audit", OK, f"{len(found.rows)} entries left this machine, the chain is whole")


def _leftovers(folder: Path) -> Iterator[Finding]:
    drafts = [p for p in (*folder.glob("*"), *folder.glob("*/*")) if p.name.endswith(_DRAFT)]
    if drafts:
        names = ", ".join(sorted(path.name for path in drafts)[:4])
        words = f"half written drafts of a crash: {names}"
        yield Finding("leftovers", NOTE, words, "--repair removes them", _remove(*drafts))
    strange = [p.name for p in folder.iterdir() if not _OURS.fullmatch(p.name) and p not in drafts]
    if strange:
        yield Finding("leftovers", NOTE, f"not ours: {', '.join(sorted(strange)[:4])}")
    if not drafts and not strange:
        yield Finding("leftovers", OK, "none")


def dead_sockets(*paths: Path) -> list[Finding]:
    """Socket files that nobody listens at any more."""
    found = []
    for path in paths:
        if path.is_socket() and not _answers(path):
            words = f"{path.name} is of a daemon that is gone"
            found.append(
                Finding("sockets", NOTE, words, "the next start replaces it", _remove(path))
            )
    return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True
