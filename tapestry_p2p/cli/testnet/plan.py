"""What a testnet is asked to be: members, data, model, rounds. Checks it; starts nothing.

A plan is refused with the inequality that it breaks. Languages go to the honest members first;
``split`` members share one text, each with a part of its training text, all judged on the same
held-out text.
"""

import json
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tapestry_p2p.cli.testnet import pictures
from tapestry_p2p.daemon.base import name_base
from tapestry_p2p.daemon.manifest import Base, carried
from tapestry_p2p.data import UDHR_LANGUAGES, udhr
from tapestry_p2p.errors import BAD_CONFIG, USAGE, TapestryError
from tapestry_p2p.mix.codec import CODECS
from tapestry_p2p.mix.promise import Promise, promise, promise_sparse
from tapestry_p2p.mix.rules import check_rule
from tapestry_p2p.mix.topology import IMPOSSIBLE, certificate, default_tolerance
from tapestry_p2p.sim.attacks import PLAYABLE

MEMBERS_MAX = 17
TASKS = "tapestry.tasks"  # the entry points of installed tasks

# name -> options of the task ``language``
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 48, "heads": 4, "context": 64, "batch_size": 8},  # 67,824
    "small": {"layers": 2, "width": 52, "heads": 2, "context": 64, "batch_size": 16},  # 78,468
    "demo": {
        "layers": 2,
        "width": 52,
        "heads": 2,
        "context": 64,
        "batch_size": 10,
        "learning_rate": 0.005,  # a quicker ``small`` for few steps
    },
    # 267,912, and as many bytes a step as ``small``: three and a half times its work
    "base": {"layers": 4, "width": 72, "heads": 4, "context": 128, "batch_size": 8},
}
DEFAULT_PRESET = "small"
LONG_PRESET, LONG_STEPS = "base", 1000  # for own texts and so many steps or more
# unless told otherwise: most of the first have a relative among them, and strangers
LANGUAGES = (
    *("eng", "rus", "fra", "ukr", "deu_1996", "ell_monotonic", "spa", "hin", "por_BR", "jpn"),
    *("arb", "pes_1", "kor", "tha", "heb", "tam", "cmn_hans", "ben", "amh", "kaz", "tur", "vie"),
    *("swh", "ita", "nld", "pol", "ind", "yor"),
)
_ALIASES = {"batch": "batch_size", "lr": "learning_rate"}


@dataclass(frozen=True, slots=True)
class Model:
    """A task by name or ``/path/file.py:make_task``, and its options."""

    task: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A testnet, checked. ``members`` counts the Byzantine ones."""

    members: int
    byzantine: int
    tolerate: int
    attack: str
    data: str
    languages: tuple[str, ...]
    split: int
    rounds: int
    inner_steps: int
    rule: str
    codec: str
    model: Model
    seed: int
    out: Path
    compare: str = ""
    speeds: tuple[float, ...] = ()
    batched: tuple[tuple[int, int, int], ...] = ()  # (receiver, sender, frames at a time)
    timeout_s: float = 3600.0
    links: int = 0  # of each member; 0: everyone follows everyone
    hostile: tuple[str, ...] = ()  # programs that attack all members from outside
    base: tuple[Path, Base] | None = None  # open weights: the file, and what the manifest says
    texts: dict[str, bytes] = field(default_factory=dict)

    @property
    def honest(self) -> int:
        """How many members train."""
        return self.members - self.byzantine

    @property
    def steps(self) -> int:
        """Inner steps of each member."""
        return self.rounds * self.inner_steps

    def language(self, member: int) -> str:
        """The language of honest member ``member``."""
        return self.languages[member // self.split % len(self.languages)]

    def speed(self, member: int) -> float:
        """The share of full speed at which a member trains."""
        return self.speeds[member] if member < len(self.speeds) else 1.0

    def promise(self, rule: str) -> Promise:
        """What mixing by ``rule`` promises, all-to-all or over the links."""
        if self.links:
            return promise_sparse(rule, self.tolerate, self.members, self.links)
        return promise(rule, self.tolerate, self.members)


def make_plan(
    *,
    members: int,
    byzantine: int,
    tolerate: int | None,
    attack: str,
    data: str,
    languages: str,
    split: int,
    rounds: int,
    inner_steps: int,
    rule: str,
    codec: str,
    model: str,
    seed: int,
    out: Path,
    compare: str = "",
    speeds: str = "",
    batched: str = "",
    timeout_s: float = 3600.0,
    links: int = 0,
    hostile: str = "",
    base: Path | None = None,
    rank: int = 0,
    alpha: float | None = None,
) -> Plan:
    """Check the options of ``tapestry testnet``. TapestryError: 2, or 78 for data and model."""
    f = _tolerance(members, links) if tolerate is None else tolerate
    _need(0 <= links < members, f"--links {links} < members must hold: {members} have no more")
    _need(2 <= members <= MEMBERS_MAX, f"--members must be 2..{MEMBERS_MAX}, not {members}")
    _need(0 <= byzantine <= members - 2, f"--byzantine {byzantine} <= members - 2 must hold")
    _need(f >= 0, f"--tolerate must be at least 0, not {f}")
    _need(
        certificate(members, f) != IMPOSSIBLE,
        f"members > 3 * tolerate does not hold: {members} <= {3 * f}; no rule can help",
    )
    _need(rounds >= 1 and inner_steps >= 1 and split >= 1, "--rounds, --inner-steps, --split >= 1")
    _need_rules(members, f, ("--rule", rule), ("--compare", compare))
    _need(0 <= seed < 1 << 63, f"--seed must be 0..2^63-1, not {seed}")
    _need(
        not byzantine or attack in PLAYABLE,
        f"--attack must be one of {', '.join(sorted(PLAYABLE))}, not {attack}",
    )
    _need(codec in CODECS, f"--codec must be one of {', '.join(CODECS)}")
    honest = members - byzantine
    kind = pictures.task_of(data)
    if kind:
        _need(not languages, f"--data {data} has no languages; leave --languages out")
        texts, split = {kind: b""}, honest  # cut by pictures.py: everyone has a share
    else:
        texts = _texts(data, [name for name in languages.split(",") if name], -(-honest // split))
    return Plan(
        members=members,
        byzantine=byzantine,
        tolerate=f,
        attack=attack,
        data=data,
        languages=tuple(texts),
        split=split,
        rounds=rounds,
        inner_steps=inner_steps,
        rule=rule,
        codec=codec,
        model=_picture_model(kind, model)
        if kind
        else find_model(model or preset_for(data, rounds * inner_steps)),
        seed=seed,
        out=out.absolute(),
        compare=compare,
        speeds=_speeds(speeds, members),
        batched=_batched(batched, members),
        timeout_s=timeout_s,
        links=links,
        hostile=_hostile(hostile),
        base=_base(base, rank, alpha),
        texts=texts,
    )


def _need_rules(members: int, f: int, *named: tuple[str, str]) -> None:
    for option, name in named:
        wrong = check_rule(name, members, f) if name else None
        _need(not wrong, f"{option} {name}: {wrong}")


def _base(file: Path | None, rank: int, alpha: float | None) -> tuple[Path, Base] | None:
    _need(file is not None or not (rank or alpha), "--rank and --alpha go with --base FILE")
    return (file, name_base(file, rank, alpha)) if file is not None else None


def _hostile(text: str) -> tuple[str, ...]:
    from tapestry_p2p.sim.hostile.table import PROGRAMS

    names = tuple(name for name in text.split(",") if name)
    for name in names:
        _need(name in PROGRAMS, f"--hostile must be of {', '.join(PROGRAMS)}; not {name}")
    return names


def _tolerance(members: int, links: int) -> int:
    """f unless one is given: the largest that all-to-all mixing, or so many links, carry."""
    if not links:
        return default_tolerance(members)
    return max((f for f in range(links) if carried(links, f) > 4 * f), default=0)


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise TapestryError(message, USAGE)


def _texts(data: str, languages: list[str], wanted: int) -> dict[str, bytes]:
    """The texts that are used, by language, in the order of the members."""
    if data == "udhr":
        return _shipped(languages or list(LANGUAGES), wanted, bool(languages))
    folder = Path(data)
    if not folder.is_dir():
        raise TapestryError(f"--data {data}: no such folder; give one, or udhr", BAD_CONFIG)
    found = {p.stem: p for p in sorted(folder.iterdir()) if p.is_file() and p.suffix == ".txt"}
    names = languages or list(found)
    for name in names:
        if name not in found:
            raise TapestryError(f"--data {data} has no {name}.txt", BAD_CONFIG)
    if not names:
        raise TapestryError(f"--data {data} holds no .txt file; put one per member", BAD_CONFIG)
    return {name: found[name].read_bytes() for name in names[: max(wanted, 1)]}


def _shipped(languages: list[str], wanted: int, named: bool) -> dict[str, bytes]:
    for name in languages:
        if name not in UDHR_LANGUAGES:
            raise TapestryError(
                f"--languages: {name!r} is not among {', '.join(UDHR_LANGUAGES)}", USAGE
            )
    chosen = languages if named and len(languages) < wanted else languages[:wanted]
    return {name: udhr(name) for name in chosen}


def preset_for(data: str, steps: int) -> str:
    """The model where none is named (docs/gain.md has what each gains on own texts)."""
    return LONG_PRESET if data != "udhr" and steps >= LONG_STEPS else DEFAULT_PRESET


def find_model(text: str) -> Model:
    """A preset's or an installed task's name, a .toml or .json, or file.py[:make_task]."""
    if text in PRESETS:
        return Model("language", dict(PRESETS[text]))
    if entry_points(group=TASKS, name=text):
        return Model(text, {})
    path = Path(text.partition(":")[0])
    if not path.is_file():
        raise TapestryError(
            f"--model {text}: neither a file nor one of {', '.join(PRESETS)}, nor the name of an"
            " installed task",
            BAD_CONFIG,
        )
    if path.suffix == ".py":
        maker = text.partition(":")[2] or "make_task"
        return Model(f"{path.absolute()}:{maker}", {})
    try:
        table = (
            json.loads(path.read_bytes())
            if path.suffix == ".json"
            else tomllib.loads(path.read_text())
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise TapestryError(f"--model {text} cannot be read: {error}", BAD_CONFIG) from error
    _need(isinstance(table, dict), f"--model {text}: must be a table of options")
    task = table.pop("task", "language")
    if isinstance(task, dict):
        table = {**task.pop("options", {}), **table}
        task = task.get("name", "language")
    options = {**table.pop("options", {}), **table}
    for key, value in options.items():
        _need(
            isinstance(value, bool | int | float | str),
            f"--model {text}: {key} must be a number, a text, or true or false",
        )
    return Model(str(task), {_ALIASES.get(key, key): value for key, value in options.items()})


def _picture_model(task: str, text: str) -> Model:
    """The model of a task with pictures; presets are models of texts."""
    model = Model(task, {}) if text in ("", DEFAULT_PRESET) else find_model(text)
    _need(
        model.task == task or ":" in model.task,
        f"--model {text} is for the task {model.task}, the data for {task}; leave --model out, or"
        f' give a .toml with task = "{task}"',
    )
    return model


def _speeds(text: str, members: int) -> tuple[float, ...]:
    try:
        speeds = tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise TapestryError(f"--speeds {text!r}: give numbers such as 1,1,0.25", USAGE) from error
    _need(all(0 < s <= 1 for s in speeds), "--speeds must lie within 0..1")
    _need(len(speeds) <= members, f"--speeds names {len(speeds)} > {members} members")
    return speeds


def _batched(text: str, members: int) -> tuple[tuple[int, int, int], ...]:
    """``RECEIVER:SENDER:N`` triples, members counted from 0."""
    found = []
    for part in filter(None, text.split(",")):
        numbers = part.split(":")
        _need(
            len(numbers) == 3 and all(n.isdigit() for n in numbers),
            f"--batched {part!r}: write RECEIVER:SENDER:N, for example 0:1:4",
        )
        receiver, sender, n = map(int, numbers)
        _need(max(receiver, sender) < members and n >= 1, f"--batched {part}: no such member")
        found.append((receiver, sender, n))
    return tuple(found)
