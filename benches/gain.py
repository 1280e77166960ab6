"""Does a member gain on its OWN text? Six members with three sources in two languages, for real.

    python benches/gain.py                      # 30 kB of training text each, 1,500 inner steps
    python benches/gain.py --kb 300 --write-docs
    python benches/gain.py --model small        # what has no room for six texts

Runs `tapestry testnet` (real processes on loopback) on German and French texts of three Debian
packages (help, manpages, handbook), and prints for each member, in bits per byte on its own
held-out text: `alone`, `together`, and `sovereign`. Each is the checkpoint that is best on a
validation part; the figure is from another part, which chose nothing. Bounds: the mean of
`sovereign` is at least 8 % below that of `alone`, and no member's is above by more than .5 %.

Which 30 kB it is matters: --cut spread takes lines from all over a source, so that held-out text
is about other things than the text trained on; --cut first takes the first lines, a few pages, of
which the member's own text says most. --data takes a folder with one .txt a member in place of
Debian's packages, as they are; --quick takes little texts that come with the package, a tiny model
and few steps, and has no bounds: it shows that the bench works.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.performance import ROOT, Row, add_options, finish

PAGE = ROOT / "docs" / "gain.md"
TRAINED = 0.7  # of a text; the rest is held out
LANGUAGES, SOURCES = "de,fr", "help,manpages,handbook"
BETTER, WORSE = 0.08, 0.005
UNIT = "bits/byte"
MODEL = "base"  # what `tapestry testnet` takes by itself for so many steps


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="tapestry-gain-") as folder:
        place = options.out or Path(folder)
        data = options.data or texts(place / "texts", options)
        report = testnet(data, place / "net", options)
    found = rows(report, bounds=not options.quick)
    return finish(name_of(options), found, notes(report), options, PAGE)


def name_of(options: argparse.Namespace) -> str:
    """By it the page knows a run: what was changed of the model stands in it too."""
    if options.quick:
        return "gain-quick"
    return "-".join(["gain", str(options.kb), options.cut, Path(options.model).stem])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb", type=int, default=30, help="training text of a member, kB")
    parser.add_argument("--cut", choices=("spread", "first"), default="spread")
    parser.add_argument("--steps", type=int, default=1500, help="inner steps of a member")
    parser.add_argument("--inner-steps", type=int, default=20, help="of a round")
    parser.add_argument("--model", default=MODEL, help="as `tapestry testnet --model` takes it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder with one .txt a member")
    parser.add_argument("--out", type=Path, help="keep texts, logs and report.json here")
    parser.add_argument("--quick", action="store_true", help="half a minute, no bounds")
    add_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.kb, options.steps, options.model = 3, 60, "tiny"
    return options


def texts(folder: Path, options: argparse.Namespace) -> Path:
    """One text a member, so long that ``kb`` thousand bytes of it are trained on."""
    if options.quick:
        _tapestry(["data", "udhr", "--languages", "deu_1996,fra", "--out", str(folder)])
        return folder
    whole, size = folder / "whole", round(1000 * options.kb / TRAINED)
    _tapestry(
        ["data", "debian", "--languages", LANGUAGES, "--source", SOURCES, "--out", str(whole)]
    )
    for path in whole.glob("*.txt"):
        (folder / path.name).write_bytes(cut(path.read_bytes(), size, options.cut))
    return folder


def cut(text: bytes, size: int, how: str) -> bytes:
    """Whole lines of a text, at most ``size`` bytes: the first, or some from all over it."""
    kept, taken, passed = [], 0, 0
    for line in text.splitlines(keepends=True):
        passed += len(line)
        due = size if how == "first" else passed * size / len(text)
        if taken < due and taken + len(line) <= size:
            kept.append(line)
            taken += len(line)
    return b"".join(kept)


def testnet(data: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The report of one testnet with a member for each text."""
    members = len(list(data.glob("*.txt")))
    given: dict[str, Any] = {
        "data": data, "members": members, "rounds": -(-options.steps // options.inner_steps),
        "inner-steps": options.inner_steps, "model": options.model, "seed": options.seed,
        "out": out, "timeout-s": 36_000,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    _tapestry(["testnet", *words])
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def _tapestry(words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "tapestry_p2p", *words]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)


def rows(report: dict[str, Any], *, bounds: bool) -> list[Row]:
    """Each member's own text: sovereign and together beside alone; then the means."""
    scores = {row["name"]: row["bits_per_byte"] for row in report["members"]}
    found = []
    for name, bits in scores.items():
        bound = (1 + WORSE) * bits["alone"] if bounds else None
        found.append(Row(f"{name}: sovereign", bits["sovereign"], UNIT, bits["alone"], bound))
        found.append(Row(f"{name}: together", bits["together"], UNIT, bits["alone"]))
    mean = {arm: sum(bits[arm] for bits in scores.values()) / len(scores) for arm in bits}
    bound = (1 - BETTER) * mean["alone"] if bounds else None
    found.append(Row("mean: sovereign", mean["sovereign"], UNIT, mean["alone"], bound))
    found.append(Row("mean: together", mean["together"], UNIT, mean["alone"]))
    return found


def notes(report: dict[str, Any]) -> list[str]:
    """What a reader of the table should know; the baseline is `alone`."""
    bits = [row["bits_per_byte"] for row in report["members"]]
    gain = 1 - sum(b["sovereign"] for b in bits) / sum(b["alone"] for b in bits)
    others = report["all_languages"]
    twins = sum(b["sovereign"] == b["alone"] for b in bits)
    return [
        f"The baseline is `alone`. Mean gain of `sovereign`: {100 * gain:+.1f} %.",
        "A member's own model may be any that it trained, the twin too. It is the twin of"
        f" {twins} of {len(bits)} members: those gained nothing.",
        f"{len(bits)} members, {report['parameters']:,} parameters, {report['rounds']} rounds of"
        f" {report['inner_steps']} inner steps, rule {report['rule']} against"
        f" {report['tolerate']} hostile, codec {report['codec']}, seed {report['seed']}.",
        f"On all members' texts: alone {others['alone']:.2f}, together {others['together']:.2f},"
        f" one central model with one member's steps {others['central']:.2f}.",
        f"{report['trainers_cpu_s']:.0f} s of CPU time, {report['wall_s']:.0f} s by the clock.",
    ]


if __name__ == "__main__":
    sys.exit(main())
