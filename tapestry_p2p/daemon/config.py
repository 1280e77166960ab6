"""The member's own configuration, tapestry.toml, and the environment that may override it.

Knows the keys, their bounds, and where each value came from. Differs from machine to machine and
is nobody else's business; what members must agree on is the manifest's.
"""

import os
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from tapestry_p2p.daemon import tomlfile
from tapestry_p2p.daemon.address import parse_address
from tapestry_p2p.daemon.quantities import MEMORY_MIN, RATE_MIN, parse_rate, parse_size
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.gossip.profile import LANGUAGE_MAX, LANGUAGES_MAX, NAME_MAX

ADDRESSES_MAX = 64
_ENV = "TAPESTRY_"
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
_HEAD = """This member's own settings; other members never see this file.
A line that begins with # states the default. Every key may be overridden by the environment:
TAPESTRY_SECTION__KEY, for example TAPESTRY_BUDGET__THREADS=2
`tapestry config check` says whether it holds together."""


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the configuration: immutable, and no key that we do not know."""


class Member(Section, frozen=True, kw_only=True):
    """How other members see this one."""

    name: Annotated[str, Meta(description="What people call this member; published.")] = ""
    languages: Annotated[
        list[str], Meta(description="Languages of its data, as it likes to state them; published.")
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.languages) > LANGUAGES_MAX:
            raise ValueError(f"languages: {len(self.languages)} > {LANGUAGES_MAX}, the most")
        bounds = [(self.name, NAME_MAX), *((text, LANGUAGE_MAX) for text in self.languages)]
        for text, most in bounds:
            if len(text) > most or not text.isprintable():
                raise ValueError(f"{text[:20]!r}...: at most {most} characters, none for control")


class Data(Section, frozen=True, kw_only=True):
    """What this member trains on. Never leaves the machine."""

    paths: Annotated[
        list[str],
        Meta(
            description="Text files, or folders of them; relative to this file. The built-in task"
            ' "digits" brings its own, "fashion" wants a folder from `tapestry data fashion`.'
        ),
    ] = field(default_factory=list)


class Listen(Section, frozen=True, kw_only=True):
    """Where peers reach this member."""

    addresses: Annotated[
        list[str],
        Meta(description="Where to listen. Port 0: any free one, another after each start."),
    ] = field(default_factory=lambda: ["/ip4/0.0.0.0/tcp/0"])
    announce: Annotated[
        list[str],
        Meta(description="What to tell peers instead, e.g. the address of your router."),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        _need_addresses("addresses", self.addresses)
        _need_addresses("announce", self.announce)
        if not self.addresses:
            raise ValueError("addresses is empty; give at least one")


class Bootstrap(Section, frozen=True, kw_only=True):
    """Whom to ask first."""

    peers: Annotated[
        list[str],
        Meta(description="Addresses of members, /ip4/.../tcp/.../p2p/ID. `join` writes them."),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        _need_addresses("peers", self.peers, with_peer=True)


class Trust(Section, frozen=True, kw_only=True):
    """What the operator of this machine knows of others, by their peer ids (`tapestry id`)."""

    members: Annotated[
        list[str],
        Meta(description="Members that skip probation here: you know whose keys these are."),
    ] = field(default_factory=list)
    blocked: Annotated[
        list[str],
        Meta(description="Members with whom this one has nothing to do: refused, never mixed."),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key, ids in (("members", self.members), ("blocked", self.blocked)):
            if len(ids) > ADDRESSES_MAX:
                raise ValueError(f"{key}: {len(ids)} > {ADDRESSES_MAX}, the most")
            for peer_id in ids:
                _need_id(f"{key}: {peer_id[:80]!r} is no peer id (12D3Koo...)", peer_id)
        if both := set(self.members) & set(self.blocked):
            raise ValueError(f"members and blocked both name {min(both)}; decide")


class Budget(Section, frozen=True, kw_only=True):
    """What this member may use of its machine."""

    threads: Annotated[
        int,
        Meta(ge=0, le=1024, description="CPU threads of the trainer; 0: all cores but one."),
    ] = 0
    devices: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="Accelerators of this machine that train the model together, each array"
            " cut between them; 0: all there are.",
        ),
    ] = 1
    hours: Annotated[
        str,
        Meta(description="Train only in these hours, as 20:00-07:30, local time. Empty: always."),
    ] = ""
    battery: Annotated[bool, Meta(description="Train also on battery.")] = True
    round_s: Annotated[
        float,
        Meta(
            ge=0,
            description="Wanted seconds of a round: its steps follow this machine's speed, between"
            " 1/4 and 4 times the network's inner_steps. 0: always that number. With"
            " schedule_steps in network.toml it must be 0.",
        ),
    ] = 0.0
    load_max: Annotated[
        float,
        Meta(ge=0, description="Pause while other programs load the machine more; 0: never."),
    ] = 0.0
    upload: Annotated[
        str,
        Meta(
            description="Send at most so much, as 200 kB/s or 2 Mbit/s, at least 20 kB/s; all"
            " connections together. Empty: no limit."
        ),
    ] = ""
    download: Annotated[
        str, Meta(description="Receive at most so much; kept by asking later. Empty: no limit.")
    ] = ""
    memory: Annotated[
        str,
        Meta(
            description="Resident memory of node and trainer together, as 2 GB, at least 300 MB;"
            " above it the trainer saves, ends and begins anew later. Empty: no ceiling."
        ),
    ] = ""

    def __post_init__(self) -> None:
        few = "300 MB, which the smallest trainer takes"
        _need_least("memory", self.memory, parse_size, MEMORY_MIN, few)
        slow = "20 kB/s, with which peers would wait in vain"
        for key, text in (("upload", self.upload), ("download", self.download)):
            _need_least(key, text, parse_rate, RATE_MIN, slow)
        if self.hours and not _HOURS.fullmatch(self.hours):
            raise ValueError(f"hours: {self.hours[:20]!r} is not like 20:00-07:30")


class Gain(Section, frozen=True, kw_only=True):
    """The measure of what this member gains (docs/gain.md), on its own held-out data."""

    share: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Share of the trainer's time for it. 0: do not measure; no sovereign model"
            " either.",
        ),
    ] = 0.1
    alone: Annotated[
        bool,
        Meta(
            description="Train a twin that never hears of anybody, to compare with. Takes memory"
            " for four models."
        ),
    ] = True
    sovereign: Annotated[
        bool,
        Meta(
            description="Keep a model of your own: the shared one trained further on your data. It"
            " never leaves. Takes memory for six models."
        ),
    ] = True
    publish: Annotated[
        bool,
        Meta(
            description="Tell other members the results, three numbers beside name and languages,"
            " for everybody's table of languages."
        ),
    ] = True


class Page(Section, frozen=True, kw_only=True):
    """The page in the browser, a process of its own on this machine alone."""

    enabled: Annotated[
        bool,
        Meta(
            description="Let `run` start it. `tapestry page` prints its link, or starts one"
            " without this."
        ),
    ] = False
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Where it listens, on 127.0.0.1; 0: any free port.")
    ] = 8420

    def __post_init__(self) -> None:
        if 0 < self.port < 1024:
            raise ValueError(f"port: {self.port} < 1024, which are not for users")


class Log(Section, frozen=True, kw_only=True):
    """What is written to stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least serious messages that are written."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        Meta(description="Lines for people, or one JSON object a line for programs."),
    ] = "text"


class Metrics(Section, frozen=True, kw_only=True):
    """What Prometheus may read (docs/metrics.md)."""

    listen: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Port on 127.0.0.1 for GET /metrics and /healthz, usually 9464. 0: none;"
            " `tapestry metrics` works anyway.",
        ),
    ] = 0


class Testing(Section, frozen=True, kw_only=True):
    """For tests and testnets only; leave it alone in a real member."""

    attack: Annotated[
        str, Meta(description="Publish as this attack of sim/ would. Empty: honest.")
    ] = ""
    speed: Annotated[float, Meta(gt=0, le=1, description="Train at this share of full speed.")] = (
        1.0
    )
    rounds: Annotated[int, Meta(ge=0, description="Stop after so many rounds; 0: never.")] = 0
    inner_steps: Annotated[
        int, Meta(ge=0, description="Instead of the manifest's training.inner_steps; 0: as there.")
    ] = 0
    judge: Annotated[
        str, Meta(description="JSON file with what the trainer judges itself on (testnets).")
    ] = ""
    wait: Annotated[
        bool, Meta(description="Do not train until `go` comes over the control socket.")
    ] = False
    tether: Annotated[bool, Meta(description="End when standard input is closed.")] = False
    hold: Annotated[
        dict[str, int], Meta(description="Peer id = n: take that peer's entries n at a time.")
    ] = field(default_factory=dict)
    crash: Annotated[
        str, Meta(description="node:N or trainer:N in the environment: die at crash point N.")
    ] = ""
    tap: Annotated[
        str, Meta(description="Write every byte that crosses a socket into this folder.")
    ] = ""


class Config(Section, frozen=True, kw_only=True):
    """All sections."""

    member: Member = field(default_factory=Member)
    data: Data = field(default_factory=Data)
    listen: Listen = field(default_factory=Listen)
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    trust: Trust = field(default_factory=Trust)
    budget: Budget = field(default_factory=Budget)
    gain: Gain = field(default_factory=Gain)
    page: Page = field(default_factory=Page)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    testing: Testing = field(default_factory=Testing)


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file under the environment's. See `load_with_origin`."""
    return load_with_origin(path, environ)[0]


def load_with_origin(
    path: Path, environ: Mapping[str, str] | None = None
) -> tuple[Config, dict[str, str]]:
    """The configuration, and for each key that is no default where it came from.

    Data paths come out absolute. TapestryError (exit 78) names the file or variable and the key.
    """
    tables = _tables(path)
    config = tomlfile.convert(tables, Config, path.name)
    origin = {f"{name}.{key}": path.name for name, table in tables.items() for key in table}
    for variable, value in sorted((os.environ if environ is None else environ).items()):
        if variable.startswith(_ENV) and "__" in variable:
            section, key, setting = _override(variable, value)
            tables.setdefault(section, {})[key] = setting
            config = tomlfile.convert(tables, Config, f"${variable}")
            origin[f"{section}.{key}"] = f"${variable}"
    folder = path.absolute().parent
    data = [str(folder / Path(text).expanduser()) for text in config.data.paths]
    return msgspec.structs.replace(config, data=Data(paths=data)), origin


def dump_config(config: Config) -> str:
    """tapestry.toml: every key with its meaning; those at their default as comments."""
    return tomlfile.dump(config, _HEAD, hide_defaults=True)


def need_no_schedule(config: Config, schedule_steps: int) -> None:
    """TapestryError (78) if rounds are to keep a time where the network counts steps."""
    if config.budget.round_s and schedule_steps:
        raise TapestryError(
            "budget.round_s changes how many steps a round has, and this network's schedule counts"
            " steps (training.schedule_steps): set budget.round_s = 0 in tapestry.toml",
            BAD_CONFIG,
        )


def need_data(config: Config, task: str) -> list[Path]:
    """The data files and folders, all there. TapestryError (exit 78) if one is missing or none."""
    if task == "digits" and not config.data.paths:
        return []
    if not config.data.paths:
        raise TapestryError(
            "data.paths is empty: name your text files in tapestry.toml (or TAPESTRY_DATA__PATHS)",
            BAD_CONFIG,
        )
    paths = [Path(text) for text in config.data.paths]
    for path in paths:
        if not path.exists():
            raise TapestryError(
                f"data.paths: {path} does not exist; correct it in tapestry.toml", BAD_CONFIG
            )
    return paths


def _tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(tomlfile.TEXT_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise TapestryError(
            f"{path} is missing; make it with `tapestry init`, or `tapestry join LINK`", BAD_CONFIG
        ) from error
    except OSError as error:
        raise TapestryError(f"{path} cannot be read: {error.strerror}", BAD_CONFIG) from error
    return tomlfile.parse(text, path.name)


def _override(variable: str, value: str) -> tuple[str, str, Any]:
    """Section, key and value of TAPESTRY_SECTION__KEY; lists may be given with commas."""
    section, _, key = variable.removeprefix(_ENV).lower().partition("__")
    kind = tomlfile.sections(Config).get(section)
    hint = typing.get_type_hints(kind).get(key) if kind else None
    if hint is None:
        known = ", ".join(tomlfile.sections(Config)) if kind is None else section + ".*"
        raise TapestryError(
            f"${variable}: {section}.{key} is not known here; unset it (known: {known})", BAD_CONFIG
        )
    if hint is str or typing.get_origin(hint) is Literal:
        return section, key, value
    if hint == list[str] and not value.startswith("["):
        return section, key, [item.strip() for item in value.split(",") if item.strip()]
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise TapestryError(f"${variable}: {value[:60]!r} is no TOML value", BAD_CONFIG) from error


def _need_addresses(key: str, texts: list[str], *, with_peer: bool = False) -> None:
    if len(texts) > ADDRESSES_MAX:
        raise ValueError(f"{key}: {len(texts)} > {ADDRESSES_MAX}, the most")
    for text in texts:
        address = parse_address(text)
        if with_peer:
            _need_id(f"{key}: {text!r} does not end in /p2p/ID, a member's id", address.peer_id)


def _need_least(
    key: str, text: str, parse: Callable[[str], float], least: float, what: str
) -> None:
    """Refuse less than ``least``, which ``what`` says in words; no text is no limit."""
    try:
        amount = parse(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if text and amount < least:
        raise ValueError(f"{key}: {text} < {what}")


def _need_id(wrong: str, peer_id: str) -> None:
    from tapestry_p2p.gossip.identity import public_key_of  # 40 ms that most verbs do not need

    try:
        public_key_of(peer_id)
    except ValueError as error:
        raise ValueError(wrong) from error
