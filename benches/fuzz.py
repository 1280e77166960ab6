"""Mutated frames for every decoder: nothing uncaught, no memory kept, nothing slow.

    python benches/fuzz.py [--frames 10000000] [--seed 0] [--keep DIR] [--json]

The targets and their invariants are in fuzz_targets.py. A frame is a seed (what an honest member
sends) with a few mutations, drawn from --seed. An exception that is not the target's verdict is
printed with its frame and counted. Prints how many frames each target took, frames per second of
CPU time (so a busy machine tells the same), the slowest frame and how much the process grew. Exit
code 1 if a bound is missed; with --json, which lists those, only if an exception was uncaught.
--keep writes the first frame for every new verdict: so tests/corpus was made, which every test run
throws again.
"""

import argparse
import gc
import hashlib
import json
import re
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.fuzz_targets import TARGETS, Target
from tapestry_p2p.heap import resident_bytes

FRAME_BYTES_MAX = 66_000
KEPT_BYTES_MAX = 2_000
WARM_UP = 20_000  # frames before memory is first looked at: tables, caches, free lists
SHOWN_MAX = 10  # uncaught exceptions that are printed in full
FRAMES_PER_CPU_S, SLOWEST_MS, GROWN_MB = 10_000_000 / 600, 5.0, 2.0
# what parsers stumble over: msgpack's markers, big lengths, signs, ends
TELLING = [
    b"\x00", b"\x7f", b"\x80", b"\x8f", b"\x90", b"\x9f", b"\xa0", b"\xbf", b"\xc0", b"\xc1",
    b"\xc4\xff", b"\xc6\xff\xff\xff\xff", b"\xca\x7f\xc0\x00\x00", b"\xcb\x7f\xf8" + bytes(6),
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\xd4\x01\x00", b"\xff" * 4, b"\x00" * 16, b"[" * 40, b'{"a":' * 20,
]  # fmt: skip


def mutate(random: Random, seed: bytes, others: list[bytes]) -> bytes:
    """A frame near ``seed``."""
    data = bytearray(seed)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(data) + 1)
        match random.randrange(8):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case 2 if at < len(data):
                data[at] = random.randrange(256)
            case 3:
                data[at:at] = random.choice(TELLING)
            case 4:
                del data[at : at + random.choice((1, 1, 2, 4, 16, 64))]
            case 5:
                piece = random.choice(others)
                start = random.randrange(len(piece) + 1)
                data[at:at] = piece[start : start + random.randrange(1, 64)]
            case 6:
                data[at:] = random.choice(TELLING)
            case _:
                data[at:at] = random.randbytes(random.choice((1, 4, 32, 200)))
    if random.random() < 0.001:
        data *= random.randrange(2, 60)
    return bytes(data[:FRAME_BYTES_MAX])


class Keeper:
    """Writes the first frame for every verdict of a target; nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._seen: set[tuple[str, str]] = set()

    def look(self, name: str, data: bytes, verdict: str) -> None:
        """A frame and what became of it."""
        if self._folder is None:
            return
        kind = (name, re.sub(r"[0-9]+|'.*'", "", verdict)[:80])
        if kind not in self._seen and len(data) <= KEPT_BYTES_MAX:
            self._seen.add(kind)
            file = self._folder / name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def throw(target: Target, data: bytes) -> str:
    """What becomes of a frame: "taken", the verdict, or "" for what no target may raise (told)."""
    try:
        target.take(data)
    except target.verdict as verdict:
        return str(verdict) or "refused"
    except Exception:
        traceback.print_exc()
        return ""
    return "taken"


def fuzz(
    frames: int, seed: int, targets: dict[str, Target], keep: Path | None = None
) -> dict[str, Any]:
    """Throw ``frames`` frames and count."""
    random = Random(seed)
    names = [name for name, target in targets.items() for _ in range(target.share)]
    counts = {name: [0, 0] for name in targets}  # thrown, taken
    slowest, slowest_at, uncaught = 0.0, "", 0
    others = [data for target in targets.values() for data in target.seeds]
    began, warm = time.process_time(), 0
    keeper = Keeper(keep)
    gc.freeze()
    for number in range(frames):
        if number == min(WARM_UP, frames // 2):
            gc.collect()
            warm = resident_bytes()
        name = random.choice(names)
        target = targets[name]
        data = mutate(random, random.choice(target.seeds), others)
        started = time.thread_time()
        fate = throw(target, data)
        took = time.thread_time() - started
        counts[name][0] += 1
        counts[name][1] += fate == "taken"
        if not fate:
            uncaught += 1
            if uncaught <= SHOWN_MAX:
                print(f"UNCAUGHT: target {name}, frame {data.hex()}", file=sys.stderr)
        keeper.look(name, data, fate)
        if took > slowest:
            slowest, slowest_at = took, name
    seconds = time.process_time() - began
    gc.collect()
    return {
        "frames": frames,
        "seed": seed,
        "cpu_s": seconds,
        "frames_per_cpu_s": frames / seconds,
        "uncaught": uncaught,
        "slowest_ms": 1000 * slowest,
        "slowest_target": slowest_at,
        "grown_mb": (resident_bytes() - warm) / 1e6,
        "targets": {name: {"thrown": n, "taken": k} for name, (n, k) in counts.items()},
    }


def missed(found: dict[str, Any]) -> list[str]:
    """Bounds that a run did not reach."""
    checks = {
        "uncaught": found["uncaught"] == 0,
        "frames per CPU second": found["frames_per_cpu_s"] >= FRAMES_PER_CPU_S,
        "slowest": found["slowest_ms"] <= SLOWEST_MS,
        "memory": found["grown_mb"] <= GROWN_MB,
        "a target without frames": all(row["thrown"] for row in found["targets"].values()),
    }
    return [what for what, good in checks.items() if not good]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for a frame of every verdict")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    found = fuzz(options.frames, options.seed, TARGETS, options.keep)
    if options.json:
        print(json.dumps({**found, "missed": missed(found)}, indent=2))
        sys.exit(1 if found["uncaught"] else 0)
    for name, row in found["targets"].items():
        print(f"{name:10} {row['thrown']:9} thrown {row['taken']:9} taken")
    print(
        f"{found['frames']} frames, {found['uncaught']} uncaught; {found['frames_per_cpu_s']:.0f}"
        f" per CPU second (bound {FRAMES_PER_CPU_S:.0f}); slowest {found['slowest_ms']:.1f} ms"
        f" ({found['slowest_target']}, bound {SLOWEST_MS:g}); grown by {found['grown_mb']:.1f} MB"
        f" (bound {GROWN_MB:g})"
    )
    if found_missed := missed(found):
        sys.exit(f"MISSED: {', '.join(found_missed)}")


if __name__ == "__main__":
    main()
