"""Adapters on frozen open weights, in a testnet of real processes: bytes and learning.

A base model learns some languages here and becomes a safetensors file. Then the same members, whose
languages the base never saw, train together twice from that file: once with adapters alone
(`tapestry testnet --base FILE --rank R`), once with all weights (`--base FILE`). Bytes a round are
what a member publishes, headers included; bits per byte are of text that was held out.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.performance import ROOT, Row, add_options, finish

SHARE_MAX = 0.05  # of the full model's bytes a round
LEARNED_MIN = 0.25  # of what training all weights gains


@dataclass(frozen=True)
class Size:
    """One run: the model's options, the base's steps, the network's rounds."""

    options: dict[str, Any]
    rank: int
    base_steps: int
    rounds: int
    inner_steps: int
    base_languages: tuple[str, ...]
    languages: tuple[str, ...]
    sharing: int = 1  # members that have a part each of one language's text


FULL = Size(
    {"layers": 2, "width": 96, "heads": 4, "context": 64, "batch_size": 8},
    rank=2,
    base_steps=1500,
    rounds=30,
    inner_steps=20,
    base_languages=("eng", "fra", "spa", "ita", "nld", "swh"),
    languages=("deu_1996", "por_BR", "ind"),
)
QUICK = Size(
    {"layers": 1, "width": 64, "heads": 2, "context": 16, "batch_size": 4},
    rank=1,
    base_steps=60,
    rounds=3,
    inner_steps=5,
    base_languages=("eng",),
    languages=("deu_1996", "por_BR"),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small model, a few rounds")
    add_options(parser)
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    with tempfile.TemporaryDirectory(prefix="adapters-") as folder:
        base = trained_base(size, Path(folder))
        reports = {rank: testnet(size, rank, base, Path(folder)) for rank in (size.rank, 0)}
    rows = figures(reports[size.rank], reports[0], judged=not asked.quick)
    notes = [
        f"base: {', '.join(size.base_languages)}, {size.base_steps} steps; members:"
        f" {size.sharing} for each of {', '.join(size.languages)}, {size.rounds} rounds of"
        f" {size.inner_steps} steps; rank {size.rank}; {reports[0]['codec']}.",
        "`ours` with adapters, `baseline` with all weights, from the same file. The base itself is"
        " fetched once, when a member joins.",
    ]
    return finish("adapters", rows, notes, asked, ROOT / "docs" / "tasks.md")


def trained_base(size: Size, folder: Path) -> Path:
    """A file of weights that know the base's languages: names are the leaves' paths."""
    import numpy as np
    import safetensors.numpy

    from tapestry_p2p.data import udhr
    from tapestry_p2p.learn.learner import Program
    from tapestry_p2p.learn.load import load
    from tapestry_p2p.learn.task import Data
    from tapestry_p2p.learn.vector import leaves_of

    texts = []
    for language in size.base_languages:
        texts.append(folder / f"{language}.txt")
        texts[-1].write_bytes(udhr(language))
    task = load("language", size.options, Data(texts, seed=1))
    program = Program(task, seed=1, batch_seed=1, schedule_steps=size.base_steps)
    place = program.fresh(program.genesis)
    while not program.over(place):
        program.advance(place)
    path = folder / "base.safetensors"
    tensors = {name: np.asarray(leaf) for name, leaf in leaves_of(place.params).items()}
    path.write_bytes(safetensors.numpy.save(tensors))
    return path


def testnet(size: Size, rank: int, base: Path, folder: Path) -> dict[str, Any]:
    """The report of one network from that file; ``rank`` 0 trains all weights."""
    import json

    from tapestry_p2p.cli.testnet.plan import make_plan
    from tapestry_p2p.cli.testnet.run import run_testnet

    # adapters start at nothing and have few numbers: they bear, and need, larger steps
    rate = 0.01 if rank else 0.003
    options = {**size.options, "learning_rate": rate, "weight_decay": 0.1}
    model = folder / f"rank-{rank}.json"
    model.write_text(json.dumps(options))
    plan = make_plan(
        members=len(size.languages) * size.sharing,
        byzantine=0,
        tolerate=0,
        attack="mirror",
        data="udhr",
        languages=",".join(size.languages),
        split=size.sharing,
        rounds=size.rounds,
        inner_steps=size.inner_steps,
        rule="cs_plus",
        codec="2bit",
        model=str(model),
        seed=3,
        out=folder / f"net-{rank}",
        base=base,
        rank=rank,
        alpha=2.0 * rank if rank else None,
    )
    return run_testnet(plan, quiet=True)


def figures(small: dict[str, Any], whole: dict[str, Any], *, judged: bool) -> list[Row]:
    """The rows, from both reports. In a quick run nothing is promised of learning."""
    sent, all_sent = bytes_a_round(small), bytes_a_round(whole)
    before, after, all_after = (
        own(small, "untrained"),
        own(small, "together"),
        own(whole, "together"),
    )
    learned = (before - after) / (before - all_after) if before > all_after else 0.0
    parameters, whole_parameters = small["parameters"], whole["parameters"]
    least = 100 * LEARNED_MIN if judged else None
    bits = "bits per byte"
    alone, all_alone = own(small, "alone"), own(whole, "alone")
    return [
        Row("parameters that travel", parameters, "", whole_parameters, None, "neither"),
        Row("bytes a member and round", sent, "", all_sent, SHARE_MAX * all_sent),
        Row("share of the full model's bytes", 100 * sent / all_sent, "%", 100, 100 * SHARE_MAX),
        Row("the base itself", before, bits, own(whole, "untrained"), None, "neither"),
        Row("trained alone", alone, bits, all_alone, None, "neither"),
        Row("trained together", after, bits, all_after, before if judged else None),
        Row("of the full model's gain", 100 * learned, "%", 100, least, "more"),
    ]


def bytes_a_round(report: dict[str, Any]) -> float:
    """What a member publishes: headers and payloads."""
    return float(report["bytes_per_parameter_per_round"] * report["parameters"])


def own(report: dict[str, Any], arm: str) -> float:
    """Mean bits per byte over members, each on its own held-out text."""
    rows = report["members"]
    return float(sum(row["bits_per_byte"][arm] for row in rows) / len(rows))


if __name__ == "__main__":
    sys.exit(main())
