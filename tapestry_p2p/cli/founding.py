"""`init`: a key, a network of one's own, and a configuration with comments. Asks nothing.

Knows how a manifest is put together; how many parameters the task has and where they start, a
trainer process is asked.
"""

import hashlib
import secrets
import tomllib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from msgspec import UNSET

from tapestry_p2p.cli import newcomer
from tapestry_p2p.cli.output import note, say
from tapestry_p2p.daemon import manifest as m
from tapestry_p2p.daemon.base import base_record, name_base, take_base
from tapestry_p2p.daemon.config import Config, Member
from tapestry_p2p.daemon.describe import describe
from tapestry_p2p.errors import BAD_CONFIG, USAGE, TapestryError


def init(
    *,
    name: str = "",
    data: Annotated[list[Path], Parameter(consume_multiple=True)] = [],  # noqa: B006 (read only)
    languages: str = "",
    network: str = "",
    task: str = "language",
    task_option: list[str] = [],  # noqa: B006
    tolerate: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    base: Path | None = None,
    rank: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    alpha: float | None = None,
    adapt: list[str] = [],  # noqa: B006
    home: Path | None = None,
) -> None:
    """Make a key, and found a network of your own. Nothing that exists is overwritten.

    Exit status 6 if there is a member already.

    Example: tapestry init --name Ana --data my-texts --languages fr

    Parameters
    ----------
    name
        What others call this member.
    data
        Text files, or folders of them, to train on. They never leave this machine.
    languages
        Languages of the data, with commas between: de,fr. Published.
    network
        What people call the network.
    task
        What to train: language, digits, fashion, file.py:make_task for a task of your own, or the
        name of one that an installed package offers.
    task_option
        An option of the task, such as width=64. May be repeated.
    tolerate
        How many hostile neighbours are tolerated (f); nothing is mixed below 3f+1 members.
    base
        A safetensors file of open weights to start from; who joins is given it by the members.
    rank
        With --base: leave its weights as they are and train adapters of this rank on them; only
        the adapters travel. 4 to 16 are usual.
    alpha
        The adapters count alpha / rank times; as much as the rank unless given.
    adapt
        Which weights get an adapter, such as 'blocks/*'; may be repeated. All unless given.
    home
        Put everything into this folder, as $TAPESTRY_HOME does.
    """
    paths = newcomer.new_paths(home)
    spoken = [part.strip() for part in languages.split(",") if part.strip()]
    chosen, code = _task(task, dict(map(_option, task_option)))
    try:
        member = Member(name=name, languages=spoken)
        named = m.Network(name=network or (f"{name}'s network" if name else "My network"))
        mixing = m.Mixing(f=tolerate)
    except ValueError as error:
        raise TapestryError(str(error), USAGE) from error
    section = _base(base, rank, alpha, adapt)
    paths.make()
    texts = newcomer.data_or_sample(data, spoken, task, paths)
    note("building the model once, to found the network on it")
    seed = secrets.randbits(63)
    own_task = f"{code}:{task.rpartition(':')[2]}" if code else task
    used = base_record(section, base.absolute()) if section and base else {}
    built = describe(own_task, dict(chosen.options), seed, texts, paths.cache, used)
    if section and base:
        take_base(base, section, paths)
    if code is not None:
        newcomer.copy_code(code, paths, code.name)
    identity, made = newcomer.own_key(paths)
    founded = m.Manifest(
        network=named,
        task=chosen,
        schema=m.Schema(hash=built.schema, parameters=built.parameters),
        genesis=m.Genesis(seed=seed, root=built.root.hex(), members=[identity.peer_id]),
        mixing=mixing,
        base=section or UNSET,
    )
    manifest = m.parse_manifest(m.dump_manifest(founded).encode())
    own, listen = newcomer.with_free_port(texts)
    newcomer.write(paths, manifest, Config(member=member, data=own, listen=listen), identity)
    say(
        f"Member   {identity.peer_id}{'' if made else ' (the key was there)'}",
        f"Network  {manifest.network.name}, {manifest.schema.parameters} parameters, id"
        f" {manifest.network_id.hex()}",
        f"Files    {paths.config}",
        f"Offline  {newcomer.retirement(paths, manifest, identity)}: keep it elsewhere; it ends the"
        " key, should it be stolen (tapestry retire)",
        f"Next     {newcomer.command('run', home)}, and in another terminal"
        f" {newcomer.command('invite', home)}",
    )


def _base(file: Path | None, rank: int, alpha: float | None, adapt: list[str]) -> m.Base | None:
    """The manifest's section, if there is a file."""
    if file is not None:
        return name_base(file, rank, alpha, adapt)
    if rank or alpha is not None or adapt:
        raise TapestryError("--rank, --alpha, --adapt go with --base FILE; give one", USAGE)
    return None


def _option(text: str) -> tuple[str, m.Option]:
    """k=v, with v read as TOML where it is a number or a truth value, else as text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise TapestryError(f"--task-option {text}: write it as key=value", USAGE)
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float | str) else value


def _task(task: str, options: dict[str, m.Option]) -> tuple[m.Task, Path | None]:
    """The manifest's section, and the file of a task of one's own."""
    file, colon, function = task.rpartition(":")
    if not colon:
        return m.Task(name=task, options=options), None
    path = Path(file).absolute()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TapestryError(
            f"--task {path} cannot be read: {error.strerror}; write --task FILE.py:FUNCTION",
            BAD_CONFIG,
        ) from error
    return m.Task(name=f"{path.name}:{function}", digest=digest, options=options), path
