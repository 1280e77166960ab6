"""What a crash, a power cut or rotten bits leave of a node's store: old or new, never neither.

    python benches/torn.py [--reorderings 10000] [--flips 10000] [--seed 0] [--json]

A store is written as a node writes it, each system call noted. Then every disk that could be left
is made and a node starts from it:

  prefixes     killed after each call, and within each write at every 512th byte
  reorderings  the power goes after any call: of what was not synced any choice of sectors and
               names is kept
  flips        one bit of one file of a store that was closed
  truncations  one file of it cut at every 512th byte
  refusals     ENOSPC or EIO at each call, once or three times, half of a write taken; then tried
               again, as the daemon does

Checked each time: no entry that was said to be safe is lost (damaged disks: or it is known to be,
and the node will ask its peers), the public copy is bit for bit that of the entry it is said to
stand at, what is known of others is the last saved or the one before, each followed copy too; and
an entry appended afterwards is there at the next start. "Asks" are disks from which a node goes on
after it asked its peers, by a resume: damage that it sees and cannot weigh. Exit code 1 if anything
was wrong or nothing was tried.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from errno import EIO, ENOSPC, errorcode
from itertools import product
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.torn_disk import SECTOR, Left, Op, Recorder, Refusing, killed, without_power
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.store import FollowedCopy, LoggedEntry, Store
from tapestry_p2p.gossip.header import DIFFERENCE, GENESIS, NO_HASH, Header, sign
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.known import Known
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.mix.codec import Vector, encode
from tapestry_p2p.mix.copy import PublicCopy

D, RING, NORM_MAX, ENTRIES = 700, 4, 1e6, 48
NETWORK = bytes(32)
TRIES = 8
ASKS = "asks its peers"


class Author:
    """A stream of real entries, and its public copy after each of them."""

    def __init__(self, seed: int) -> None:
        self._identity = Identity(seed.to_bytes(32, "big"))
        self.key = self._identity.public_key
        self._random = np.random.default_rng(seed)
        self._copy = PublicCopy(self._random.standard_normal(D, np.float32))
        self.entries: list[LoggedEntry] = []
        self.vectors: list[Vector] = []  # float32[D], after each entry
        self._prev = NO_HASH

    def write(self) -> LoggedEntry:
        """The next entry: genesis, then differences."""
        payload = b""
        if self.entries:
            payload = encode("2bit", np.float32(0.01) * self._random.standard_normal(D, np.float32))
            self._copy.advance("2bit", payload, NORM_MAX)
        seq = len(self.entries)
        header = Header(
            NETWORK, self.key, bytes(16), seq, self._prev, DIFFERENCE if seq else GENESIS,
            "2bit" if seq else "", (chunk_hash(payload),) if payload else (), len(payload),
            copy_root(self._copy), seq, 0, b"",
        )  # fmt: skip
        self._prev = header.hash
        entry = LoggedEntry(seq, sign(header, self._identity.sign).encode(), payload)
        self.entries.append(entry)
        self.vectors.append(self._copy.vector.copy())
        return entry


@dataclass
class Life:
    """What a node wrote, every call of it, and what it was told."""

    own: Author
    other: Author
    known: list[bytes] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def told(self, calls: int) -> dict[str, int]:
        """For each kind of promise the last one within the first ``calls`` calls."""
        return {op.other: op.at for op in self.ops[:calls] if op.kind == "mark"}


def lived(folder: Path, entries: int, system: Recorder | Refusing | None = None) -> Life:
    """A store written as a node writes it: entries, own states, known, a copy, compactions."""
    life = Life(Author(1), Author(2))
    system = system or Recorder(folder)
    with system.watching() if isinstance(system, Recorder) else nullcontext():
        store = Store(folder, RING)
    with system.watching():
        for number in range(entries):
            entry = life.own.write()
            insist(store.append_entry, entry)
            system.mark("entry", entry.seq)
            if number % 3 == 0:
                vector = life.own.vectors[-1]
                insist(store.save_own, entry.seq, entry.seq, vector, vector)
                system.mark("state", entry.seq)
            _hear(store, life, number, system)
        store.close()
    life.ops = system.ops if isinstance(system, Recorder) else []
    return life


def insist(job: Callable[..., None], *words: object) -> None:
    """Do it again until the disk takes it, as the daemon does (disk.py)."""
    for _ in range(TRIES):
        with suppress(OSError):
            return job(*words)
    return job(*words)


def _hear(store: Store, life: Life, number: int, recorder: Recorder | Refusing) -> None:
    """What others sent: a followed copy moves, is forgotten once, and is known of."""
    heard = life.other.write()
    if number % 2 == 0:
        vector = life.other.vectors[-1]
        insist(store.save_copy, FollowedCopy(life.other.key, heard.seq, heard.signed, vector))
        recorder.mark("copy", heard.seq)
    if number == ENTRIES // 2:
        recorder.mark("copy", -1)
        insist(store.drop_copy, life.other.key)
    if number % 5 == 0:
        life.known.append(Known(epoch=number).encode())
        insist(store.save_known, life.known[-1])
        recorder.mark("known", len(life.known) - 1)


def wrong(folder: Path, life: Life, told: dict[str, int], damaged: bool) -> str:
    """What is not as it must be of the store in ``folder``; '' if nothing, ASKS if it will ask."""
    store = Store(folder, RING)
    try:
        found = recover(store, D, NORM_MAX)
        known = store.load_known()
        held = [signed.header.seq for signed in found.known.own]
        entry, state = told.get("entry", -1), told.get("state", -1)
        if max(held, default=-1) < entry and not (damaged and found.rolled_back):
            return f"entry {entry} is lost"
        if not damaged and state >= 0 and found.seq < entry:
            return f"led on to {found.seq} only of {entry}"
        if found.copy is not None and not _same(found.copy, life.own, found.seq):
            return f"the own copy is not that of entry {found.seq}"
        if known is not None and known not in life.known:
            return "what is known was never so"
        if (told.get("known", -1) >= 1 or not damaged) and not _newest(known, life, told, damaged):
            return "what is known is older than the one before the last"
        for copy in found.copies:
            if not _same(copy.vector, life.other, copy.seq):
                return f"a followed copy is not that of entry {copy.seq}"
        if not damaged and told.get("copy", -1) > max([c.seq for c in found.copies], default=-1):
            return "a followed copy is lost"
        lost = _goes_on(store, folder, held)
        return lost or (ASKS if found.rolled_back and state >= 0 else "")
    finally:
        store.close()


def _same(vector: Vector, author: Author, seq: int) -> bool:
    return 0 <= seq < len(author.vectors) and bool(np.array_equal(vector, author.vectors[seq]))


def _newest(known: bytes | None, life: Life, told: dict[str, int], damaged: bool) -> bool:
    number = life.known.index(known) if known in life.known else -1
    return number >= told.get("known", -1) - damaged


def _goes_on(store: Store, folder: Path, held: list[int]) -> str:
    """Whether an entry that is appended now is there at the next start."""
    seq = max(held, default=-1) + 1
    store.append_entry(LoggedEntry(seq, b"later", b""))
    again = Store.__new__(Store)  # a second reader of the same folder, without its lock
    again.__dict__.update(store.__dict__, _log=None)
    entries = again._read_log()
    if not entries or entries[-1].seq != seq:
        return f"an entry appended after the start is lost in {folder}"
    return ""


@contextmanager
def unsynced() -> Iterator[None]:
    """Nothing here needs to be on a disk; thousands of syncs would take minutes."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


# ---- disks -----------------------------------------------------------------------------------


@dataclass
class Row:
    """What was tried of one kind, and the first thing that was wrong."""

    name: str
    tried: int = 0
    wrong: int = 0
    first: str = ""
    asks: int = 0  # nothing is lost, and the node would ask its peers all the same

    def note(self, fault: str, where: str) -> None:
        """One more disk."""
        self.tried += 1
        self.asks += fault == ASKS
        if fault not in ("", ASKS):
            self.wrong += 1
            self.first = self.first or f"{where}: {fault}"


def prefixes(life: Life, check: Callable[[Left, dict[str, int], bool], str]) -> Row:
    """Killed after each call, and within each write."""
    row = Row("prefixes")
    for calls, op in enumerate(life.ops, 1):
        cuts = range(0, len(op.data), SECTOR) if op.kind == "write" else ()
        for cut in (None, *cuts):
            fault = check(killed(life.ops[:calls], cut), life.told(calls), False)
            row.note(fault, f"call {calls}, cut {cut}")
    return row


def reorderings(
    life: Life, check: Callable[[Left, dict[str, int], bool], str], count: int, random: Random
) -> Row:
    """The power goes after any call."""
    row = Row("reorderings")
    for number in range(count):
        calls = random.randint(1, len(life.ops))
        left = without_power(life.ops[:calls], random)
        row.note(check(left, life.told(calls), False), f"number {number}, call {calls}")
    return row


def flips(
    life: Life, check: Callable[[Left, dict[str, int], bool], str], count: int, random: Random
) -> Row:
    """One bit of one file."""
    row = Row("flips")
    told = life.told(len(life.ops))
    whole = killed(life.ops)
    names = sorted(name for name, file in whole.names.items() if whole.contents[file])
    for number in range(count):
        left = killed(life.ops)
        name = names[number % len(names)]
        content = left.contents[left.names[name]]
        bit = random.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        row.note(check(left, told, True), f"bit {bit} of {name}")
    return row


def truncations(life: Life, check: Callable[[Left, dict[str, int], bool], str]) -> Row:
    """One file cut short."""
    row = Row("truncations")
    told = life.told(len(life.ops))
    whole = killed(life.ops)
    for name, file in sorted(whole.names.items()):
        for size in range(0, len(whole.contents[file]), SECTOR):
            left = killed(life.ops)
            del left.contents[file][size:]
            row.note(check(left, told, True), f"{name} cut to {size}")
    return row


def refusals(folder: Path, entries: int, step: int = 1) -> Row:
    """ENOSPC and EIO at each ``step``-th call, once or three times: in the end all is there."""
    row = Row("refusals")
    plain = Refusing(0, 0, 0)
    lived(folder / "plain", entries, plain)
    for at, number, times in product(range(1, plain.calls + 1, step), (ENOSPC, EIO), (1, 3)):
        system, place = Refusing(at, number, times), folder / "refused"
        shutil.rmtree(place, ignore_errors=True)
        where = f"{errorcode[number]} at call {at}, {times} times"
        try:
            life = lived(place, entries, system)
        except OSError as error:
            row.note(f"was not written in the end: {error}", where)
            continue
        entry, state = entries - 1, (entries - 1) // 3 * 3
        copy = (entries - 1) // 2 * 2
        told = {"entry": entry, "state": state, "known": len(life.known) - 1, "copy": copy}
        row.note(wrong(place, life, told, False) if system.refused else "nothing refused", where)
    return row


def main() -> int:
    """Try all, print, 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--reorderings", type=int, default=10_000)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr)
    random, began = Random(asked.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tapestry-torn-") as made, unsynced():
        folder = Path(made)
        life = lived(folder / "life", asked.entries)

        def check(left: Left, told: dict[str, int], damaged: bool) -> str:
            left.write_to(folder / "left")
            return wrong(folder / "left", life, told, damaged)

        rows = [
            prefixes(life, check),
            reorderings(life, check, asked.reorderings, random),
            flips(life, check, asked.flips, random),
            truncations(life, check),
            refusals(folder, min(asked.entries, 18)),
        ]
    calls = Counter(op.kind for op in life.ops)
    report = {
        "seed": asked.seed, "calls": dict(calls), "seconds": round(time.monotonic() - began, 1),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    print(json.dumps(report, indent=1) if asked.json else table(report))
    return 0 if all(row.tried and not row.wrong for row in rows) else 1


def table(report: dict[str, object]) -> str:
    """Markdown."""
    lines = ["| disks | tried | wrong (bound 0) | asks its peers | the first wrong |"]
    lines.append("|---|---|---|---|---|")
    rows = report["rows"]
    assert isinstance(rows, list)
    lines += [
        f"| {r['name']} | {r['tried']} | {r['wrong']} | {r['asks']} | {r['first']} |" for r in rows
    ]
    return "\n".join([*lines, "", f"calls: {report['calls']}, {report['seconds']} s"])


if __name__ == "__main__":
    sys.exit(main())
