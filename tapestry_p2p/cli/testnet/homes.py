"""Prepares the folders of a testnet: texts cut, one home per member, one manifest for all.

Writes files and asks one trainer what the task shares. Held-out text is cut away here, before any
member sees its part.
"""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from tapestry_p2p.cli.testnet import pictures
from tapestry_p2p.cli.testnet.plan import Plan
from tapestry_p2p.corpus import join, share, split_held_out
from tapestry_p2p.daemon import config as member_config
from tapestry_p2p.daemon import manifest as network
from tapestry_p2p.daemon.base import base_record, take_base
from tapestry_p2p.daemon.describe import describe
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.mix.codec import gamma_max

JUDGEMENTS = 20  # checkpoints judged in each arm
SOVEREIGN_SHARE = 0.5  # of the steps together, the rest alone


@dataclass(frozen=True, slots=True)
class Home:
    """One member's folder, key and data."""

    number: int
    name: str
    language: str
    byzantine: bool
    peer_id: str
    paths: Paths
    data: tuple[Path, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything on disk that the processes need."""

    homes: list[Home]
    manifest: network.Manifest
    judge: dict[str, Any]
    cache: Path
    folder: Path


def prepare(plan: Plan, rule: str, folder: Path) -> Prepared:
    """Write all files of a testnet with ``rule`` under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    texts, shares = _cut(plan, folder / "texts")
    cache = plan.out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    homes = [_home(plan, i, shares, folder, cache) for i in range(plan.members)]
    manifest = _manifest(plan, rule, shares[0], cache, [home.peer_id for home in homes])
    every = max(1, plan.steps // JUDGEMENTS)
    judge = {
        "texts": texts,
        "own": "",
        "every_steps": every,
        "sovereign_from_step": int(plan.steps * SOVEREIGN_SHARE),
    }
    port = _free_port()
    for home in homes:
        _write(plan, home, homes, manifest, judge, port)
    return Prepared(homes, manifest, judge, cache, folder)


def _cut(plan: Plan, folder: Path) -> tuple[dict[str, list[str]], list[Path]]:
    """Held-out files by language, and each honest member's training data."""
    folder.mkdir(parents=True, exist_ok=True)
    if pictures.task_of(plan.data):
        return pictures.cut(plan.data, plan.honest, plan.seed, folder)
    held: dict[str, list[str]] = {}
    train: dict[str, list[bytes]] = {}
    for language, text in plan.texts.items():
        train[language], validation, test = split_held_out(text, plan.seed)
        paths = [folder / f"{language}.validation.txt", folder / f"{language}.test.txt"]
        for path, pieces in zip(paths, (validation, test), strict=True):
            path.write_bytes(join(pieces))
        held[language] = [str(path) for path in paths]
        if not validation or not test:
            raise TapestryError(
                f"the text {language} is too short to hold any of it out; add text", BAD_CONFIG
            )
    shares = []
    for member in range(plan.honest):
        language = plan.language(member)
        path = folder / f"{member:02d}.{language}.train.txt"
        path.write_bytes(join(share(train[language], member % plan.split, plan.split)))
        shares.append(path)
    used = {plan.language(member) for member in range(plan.honest)}
    return {language: held[language] for language in held if language in used}, shares


def _manifest(
    plan: Plan, rule: str, data: Path, cache: Path, members: list[str]
) -> network.Manifest:
    task, digest = plan.model.task, ""
    file, base = plan.base or (None, UNSET)
    used = base_record(base, file)
    found = describe(task, plan.model.options, plan.seed, [data], cache, used)
    name = task
    if ":" in task:
        path, _, maker = task.rpartition(":")
        name, digest = f"{Path(path).name}:{maker}", _sha256(Path(path))
    try:
        return network.Manifest(
            network=network.Network(name=f"testnet {plan.seed}"),
            task=network.Task(name=name, digest=digest, options=plan.model.options),
            schema=network.Schema(hash=found.schema, parameters=found.parameters),
            genesis=network.Genesis(seed=plan.seed, root=found.root.hex(), members=members),
            streams=network.Streams(codec=plan.codec),  # type: ignore[arg-type]
            mixing=_mixing(plan, rule),
            training=network.Training(inner_steps=plan.inner_steps, schedule_steps=plan.steps),
            limits=network.Limits(entries_per_minute_max=6000),
            base=base,
        )
    except ValueError as error:
        raise TapestryError(f"no network can be made of this: {error}", BAD_CONFIG) from error


def _mixing(plan: Plan, rule: str) -> network.Mixing:
    """With links: everyone follows everyone while so many do, and so the links are always used."""
    gamma = gamma_max(plan.codec)
    if not plan.links:
        return network.Mixing(rule=rule, f=plan.tolerate, gamma=gamma)
    return network.Mixing(
        rule=rule, f=plan.tolerate, gamma=gamma, all_to_all_max=plan.links, k=plan.links
    )


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _home(plan: Plan, number: int, shares: list[Path], folder: Path, cache: Path) -> Home:
    byzantine = number >= plan.honest
    language = "" if byzantine else plan.language(number)
    name = f"hostile-{number - plan.honest + 1}" if byzantine else _name(plan, number, language)
    home = folder / "members" / f"{number:02d}-{name}"
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("TAPESTRY_")
    }
    environment["TAPESTRY_HOME"] = str(home)
    paths = find_paths(environment)
    paths.make()
    paths.cache.rmdir()
    paths.cache.symlink_to(cache)  # one compile cache for all
    make_key(paths.key)
    peer_id = Identity(load_key(paths.key)).peer_id
    data = () if byzantine else (shares[number],)
    return Home(number, name, language, byzantine, peer_id, paths, data, environment)


def _name(plan: Plan, number: int, language: str) -> str:
    """The language, numbered where several members have it."""
    holders = [i for i in range(plan.honest) if plan.language(i) == language]
    return f"{language}-{holders.index(number) + 1}" if len(holders) > 1 else language


def _write(
    plan: Plan,
    home: Home,
    homes: list[Home],
    manifest: network.Manifest,
    judge: dict[str, Any],
    port: int,
) -> None:
    """network.toml, tapestry.toml and judge.json of one member."""
    paths = home.paths
    paths.manifest.write_text(network.dump_manifest(manifest))
    if manifest.task.file:
        source = Path(plan.model.task.rpartition(":")[0])
        (paths.config / source.name).write_bytes(source.read_bytes())
    if plan.base:
        take_base(*plan.base, paths)
    own_judge = paths.config / "judge.json"
    first = homes[0]
    speed = plan.speed(home.number)
    scaled = {
        "every_steps": max(1, int(judge["every_steps"] * speed)),
        "sovereign_from_step": int(judge["sovereign_from_step"] * speed),
    }
    own_judge.write_text(json.dumps({**judge, **scaled, "own": home.language}))
    config = member_config.Config(
        member=member_config.Member(
            name=home.name, languages=[home.language[:32]] if home.language else []
        ),
        data=member_config.Data(paths=[str(path) for path in home.data]),
        listen=member_config.Listen(
            addresses=[f"/ip4/127.0.0.1/tcp/{port if home is first else 0}"]
        ),
        bootstrap=member_config.Bootstrap(
            peers=[] if home is first else [f"/ip4/127.0.0.1/tcp/{port}/p2p/{first.peer_id}"]
        ),
        budget=member_config.Budget(threads=1),
        testing=member_config.Testing(
            attack=plan.attack if home.byzantine else "",
            speed=speed,
            rounds=max(1, round(plan.rounds * speed)),
            judge="" if home.byzantine else str(own_judge),
            wait=True,
            tether=True,
            hold={
                homes[sender].peer_id: n
                for receiver, sender, n in plan.batched
                if receiver == home.number
            },
        ),
    )
    paths.member.write_text(member_config.dump_config(config))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
