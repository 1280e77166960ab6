"""``testnet`` and ``demo``: a whole network of real processes on this machine."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tapestry_p2p.cli.output import note, say
from tapestry_p2p.errors import OK
from tapestry_p2p.page.names import called


def testnet(
    *,
    members: int = 5,
    byzantine: int = 0,
    tolerate: int | None = None,
    attack: str = "mirror",
    data: str = "udhr",
    languages: str = "",
    split: int = 1,
    rounds: int = 20,
    inner_steps: int = 20,
    rule: str = "cs_plus",
    codec: str = "2bit",
    model: str = "",
    seed: int = 0,
    out: Path | None = None,
    compare: str = "",
    speeds: str = "",
    batched: str = "",
    timeout_s: float = 3600.0,
    links: int = 0,
    hostile: str = "",
    base: Path | None = None,
    rank: int = 0,
    alpha: float | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Run a network of real processes on this machine and report what its members gained.

    Example: tapestry testnet --members 5 --rounds 20 --inner-steps 20 --out /tmp/net

    Parameters
    ----------
    members
        How many members, the Byzantine ones counted.
    byzantine
        How many of them are hostile.
    tolerate
        f of the manifest; (members-1)/5 rounded down unless given.
    attack
        What the hostile ones do, by name; docs/attacks.md lists them.
    data
        udhr (28 languages come with the package), a folder with one .txt per member, digits, or
        a folder from `tapestry data fashion`; pictures are shared out evenly.
    languages
        Which texts, separated by commas, in the order of the honest members.
    split
        So many members share one text, each with a part of its training text.
    rounds
        Rounds of each member.
    inner_steps
        Optimizer steps in a round.
    rule
        cs_plus, cs_plus_h, gts, ios, trimmed_mean, median, geometric_median, multi_krum, balance
        or mean; nnm+ before its name mixes the nearest first.
    codec
        2bit, 1bit, topk, int4, int8 or fp32.
    model
        tiny, small, base, an installed task's name, a .toml or .json of options, or
        file.py:make_task. Unless given small, or base for own texts and 1,000 steps or more.
    seed
        Draws genesis, batches and held-out blocks.
    out
        Folder for everything, must be new; a temporary one unless given.
    compare
        Run it once more with this rule, into the same report.
    speeds
        Share of full speed of each member, such as 1,1,1,0.25.
    batched
        RECEIVER:SENDER:N, members from 0: that link delivers N frames at a time.
    timeout_s
        Give up after so long.
    links
        Each member follows only so many others, chosen by chance; 0: everyone follows everyone.
    hostile
        Programs that attack all members from outside, separated by commas; docs/security.md
        lists them.
    base
        A safetensors file of open weights to start from.
    rank
        With --base: leave its weights as they are, train and share adapters of this rank.
    alpha
        The adapters count alpha / rank times; as much as the rank unless given.
    as_json
        Print the report on stdout.
    """
    from tapestry_p2p.cli.testnet.plan import make_plan
    from tapestry_p2p.cli.testnet.run import run_testnet

    plan = make_plan(
        members=members,
        byzantine=byzantine,
        tolerate=tolerate,
        attack=attack,
        data=data,
        languages=languages,
        split=split,
        rounds=rounds,
        inner_steps=inner_steps,
        rule=rule,
        codec=codec,
        model=model,
        seed=seed,
        out=out or Path(tempfile.mkdtemp(prefix="tapestry-testnet-")),
        compare=compare,
        speeds=speeds,
        batched=batched,
        timeout_s=timeout_s,
        links=links,
        hostile=hostile,
        base=base.absolute() if base else None,
        rank=rank,
        alpha=alpha,
    )
    report = run_testnet(plan, quiet=as_json)
    if as_json:
        print((plan.out / "report.json").read_text(), end="")
    else:
        say(*_summary(report))
        say(f"report: {plan.out / 'report.json'}")
    return OK


def _summary(report: dict[str, Any]) -> list[str]:
    """The report in a few lines."""
    rows = [row for row in report["members"] if not row["byzantine"]]
    lines = [
        f"{len(report['members'])} members, {len(report['members']) - len(rows)} hostile,"
        f" {report['parameters']:,} parameters,"
        f" rule {report['rule']}: {report['certificate']} ({report['certificate_why']})",
        "error (nats a picture) on held-out pictures:"
        if all(row["accuracy"] for row in rows)
        else "bits per byte on own held-out text:",
        f"  {'member':28} {'untrained':>9} {'alone':>7} {'together':>8} {'sovereign':>9}",
    ]
    for row in rows:
        bits = row["bits_per_byte"]
        lines.append(
            f"  {called(row['name'], row['id']):28} {bits['untrained']:9.3f} {bits['alone']:7.3f}"
            f" {bits['together']:8.3f} {bits['sovereign']:9.3f}"
        )
    if all(row["accuracy"] for row in rows):
        means = {
            arm: sum(row["accuracy"][arm] for row in rows) / len(rows)
            for arm in ("alone", "together")
        }
        lines.append(
            f"named rightly: alone {100 * means['alone']:.1f} %,"
            f" together {100 * means['together']:.1f} %"
        )
    every = report["all_languages"]
    lines += [
        f"all languages: alone {every['alone']:.3f}, together {every['together']:.3f},"
        f" one central model {every['central']:.3f}",
        f"models differ by {100 * report['consensus_distance']:.2f} %; copies equal:"
        f" {all(row['copies_equal'] for row in report['members'])}",
        f"{report['bytes_per_parameter_per_round']:.3f} bytes per parameter and round,"
        f" {100 * report['wire_efficiency']:.1f} % of the sent bytes were entries",
    ]
    if "compare" in report:
        other = report["compare"]
        lines.append(
            f"with rule {other['rule']} instead: own language x"
            f" {other['own_language_ratio']:.2f}, all languages"
            f" x {other['all_languages_ratio']:.2f}"
        )
    return lines


def demo(
    *,
    out: Path | None = None,
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Two languages, six members with a third of a text each, one hostile: do they gain?

    Ends by itself, with a verdict and a picture.

    Example: tapestry demo --out /tmp/demo

    Parameters
    ----------
    out
        Folder for everything, must be new; a temporary one unless given.
    seed
        Another seed, another run.
    as_json
        Print the report on stdout instead of the verdict.
    """
    from tapestry_p2p.cli.testnet.picture import draw
    from tapestry_p2p.cli.testnet.plan import make_plan
    from tapestry_p2p.cli.testnet.run import run_testnet
    from tapestry_p2p.cli.testnet.verdict import verdict

    folder = (out or Path(tempfile.mkdtemp(prefix="tapestry-demo-"))).absolute()
    plan = make_plan(
        members=7,
        byzantine=1,
        rounds=24,
        inner_steps=16,
        split=3,
        tolerate=None,
        attack="mirror",
        data="udhr",
        languages="fra,deu_1996",
        rule="cs_plus",
        codec="2bit",
        model="demo",
        seed=seed,
        out=folder,
    )
    if not as_json:
        note(
            "Seven members on this machine: three with a third of a French text each, three with"
            " German, and one that lies. Nobody sees another's text; they exchange only vectors."
        )
    report = run_testnet(plan, quiet=as_json)
    picture = folder / "alone-together.svg"
    draw(report, picture)
    if as_json:
        print((folder / "report.json").read_text(), end="")
    else:
        say(*verdict(report), f"picture: {picture}", f"report:  {folder / 'report.json'}")
    return OK
