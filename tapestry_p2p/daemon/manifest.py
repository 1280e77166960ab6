"""The manifest, network.toml: what all members of a network have agreed on, and its hash.

Knows the keys, their bounds and how they depend on each other; opens one file and nothing else.
The network id is SHA-256 over the canonical encoding of every key, given or default, so two texts
that mean the same have one id, and no member can differ in any of them unnoticed. A key that a
later version adds must be `msgspec.UNSET` by default: left out, it changes no id.
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field, to_builtins

from tapestry_p2p.daemon import tomlfile
from tapestry_p2p.errors import BAD_CONFIG, VERSION, TapestryError
from tapestry_p2p.gossip import canonical

WIRE = 1
NAME_CHARS_MAX = 64
OPTIONS_MAX = 64
BASE_BYTES_MAX = 1 << 31  # the hashes of its pieces go in one answer
LINKS_MAX = 48  # each costs a copy in memory; the protocol keeps 64 connections
PROBATION_ROUNDS = 64  # where a manifest does not say: minutes to hours
MEMBERS_MAX = 256  # genesis members in a manifest; membership itself is not bounded by this
_HASH = re.compile(r"[0-9a-f]{64}")
_DOMAIN = b"tapestry/1/network\0"
_HEAD = """The constitution of one Tapestry network, the same for all members.
Its meaning has a hash, the network id: any change of a value founds another network.
`tapestry config check` says whether it holds together."""

Option = bool | int | float | str


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest: immutable, and no key that we do not know."""


class Network(Section, frozen=True, kw_only=True):
    """Who the network is, in words."""

    name: Annotated[str, Meta(description="What people call it.")]
    licence: Annotated[
        str, Meta(description="Under which licence the members share what they train together.")
    ] = ""
    wire: Annotated[int, Meta(description="Version of the protocol between members.")] = WIRE

    def __post_init__(self) -> None:
        _need_plain("name", self.name)
        if not self.name:
            raise ValueError("name is empty; give the network a name")
        _need_plain("licence", self.licence)


class Task(Section, frozen=True, kw_only=True):
    """What is trained."""

    name: Annotated[
        str,
        Meta(description='"language", "digits", "fashion", or "file.py:make_task" (see digest).'),
    ]
    digest: Annotated[
        str,
        Meta(
            description="SHA-256 of the task's file. Code never comes over the network: each member"
            " puts the file beside this one, and it must have this digest."
        ),
    ] = ""
    options: Annotated[dict[str, Option], Meta(description="What the task is built with.")] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        if len(self.name) > 256 or not self.name.isprintable():
            raise ValueError("name is longer than 256 characters or holds control characters")
        if len(self.options) > OPTIONS_MAX:
            raise ValueError(f"options: {len(self.options)} > {OPTIONS_MAX}, the most allowed")
        if self.file and not _HASH.fullmatch(self.digest):
            raise ValueError("digest must be the SHA-256 of the task's file, 64 hex digits")
        if not self.file and self.digest:
            raise ValueError("digest goes with a task of your own (file.py:make_task) only")
        for key, value in self.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"options.{key} is not a finite number")

    @property
    def file(self) -> str:
        """The file name of a task of your own, or "" for a built-in one."""
        path, colon, _ = self.name.rpartition(":")
        if colon and "/" in path:
            raise ValueError("name: the task's file lies beside network.toml; give no folder")
        return path


class Schema(Section, frozen=True, kw_only=True):
    """The layout of the shared parameters."""

    hash: Annotated[
        str, Meta(description="Hash over path, shape and dtype of every shared parameter.")
    ]
    parameters: Annotated[
        int, Meta(ge=1, le=1 << 30, description="How many float32 parameters are shared.")
    ]

    def __post_init__(self) -> None:
        _need_hash("hash", self.hash)


class Genesis(Section, frozen=True, kw_only=True):
    """Where everyone starts."""

    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="Seed of the first parameters.")]
    root: Annotated[str, Meta(description="Merkle root of the first parameters' bytes.")]
    members: Annotated[
        list[str],
        Meta(description="Peer ids of founding members, who skip probation. May be empty."),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        _need_hash("root", self.root)
        if len(self.members) > MEMBERS_MAX or len(set(self.members)) != len(self.members):
            raise ValueError(f"members: name at most {MEMBERS_MAX}, each once")
        for member in self.members:
            _need_peer_id(member)


class Base(Section, frozen=True, kw_only=True):
    """Open weights to start from, or to stay on: a safetensors file."""

    digest: Annotated[
        str, Meta(description="SHA-256 of the file. Members fetch it from one another by pieces.")
    ]
    bytes: Annotated[int, Meta(ge=1, le=BASE_BYTES_MAX, description="Size of the file.")]
    root: Annotated[
        str, Meta(description="Merkle root of the file's pieces, by which each is checked.")
    ]
    rank: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=4096,
                description="The weights stay as they are, and what is trained and shared is an"
                " adapter for each matrix: two matrices with this many rows or columns. More: it"
                " can learn more, and costs more bytes. Not given: training starts from the"
                " weights, and all are trained and shared.",
            ),
        ]
        | UnsetType
    ) = UNSET
    alpha: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=1e6,
                description="The adapters count alpha / rank times. More: they learn faster, then"
                " unstably. Goes with rank.",
            ),
        ]
        | UnsetType
    ) = UNSET
    adapt: (
        Annotated[
            list[str],
            Meta(
                description='Which weights get an adapter: patterns of their names, ["blocks/*"].'
                " Not given: every matrix. Goes with rank."
            ),
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        _need_hash("digest", self.digest)
        _need_hash("root", self.root)
        given = not isinstance(self.rank, UnsetType)
        if isinstance(self.alpha, UnsetType) == given:
            raise ValueError("alpha and rank go together; give both, or neither")
        if isinstance(self.adapt, UnsetType):
            return
        if not given:
            raise ValueError("adapt goes with rank; give both, or neither")
        if not 1 <= len(self.adapt) <= OPTIONS_MAX:
            raise ValueError(f"adapt: give 1 to {OPTIONS_MAX} patterns")
        for pattern in self.adapt:
            if len(pattern) > 256 or not pattern.isprintable() or not pattern:
                raise ValueError("adapt: a pattern is empty, too long, or holds control characters")


class Streams(Section, frozen=True, kw_only=True):
    """What members publish."""

    codec: Annotated[
        Literal["2bit", "1bit", "topk", "int4", "int8", "fp32"],
        Meta(
            description="How differences are coded: about .26, .13, .02, .53, 1.02 or 4 bytes for"
            " each parameter. Fewer: more rounds until a change is seen whole by the others."
        ),
    ] = "2bit"
    ring: Annotated[
        int,
        Meta(
            ge=2,
            le=1024,
            description="Own entries that a member keeps and serves. More: longer absences are"
            " bridged by differences instead of a whole copy; costs disk.",
        ),
    ] = 16
    ttl: Annotated[
        int,
        Meta(
            ge=1,
            description="After so many own entries without news a neighbour leaves the mean."
            " More: slow members count longer; staler views. At most `ring`.",
        ),
    ] = 16
    keyframe_every: Annotated[
        int,
        Meta(ge=1, description="Entries between two whole copies kept for those who fell behind."),
    ] = 64

    def __post_init__(self) -> None:
        if self.ttl > self.ring:
            raise ValueError(f"ttl <= ring does not hold: {self.ttl} > {self.ring}")


class Mixing(Section, frozen=True, kw_only=True):
    """How members mix."""

    rule: Annotated[
        str,
        Meta(
            description='"cs_plus" bounds hostile members; "mean" is destroyed by one. Others, for'
            " comparison: cs_plus_h, gts, ios, trimmed_mean, median, geometric_median, multi_krum,"
            ' balance; "nnm+" before any of them averages each vector with its nearest first.'
        ),
    ] = "cs_plus"
    f: Annotated[
        int,
        Meta(
            ge=0,
            description="How many hostile neighbours are tolerated. More: safer, slower agreement."
            " With n members certified for n > 5f; nothing is mixed below 3f+1 of them.",
        ),
    ] = 0
    all_to_all_max: Annotated[
        int,
        Meta(ge=2, le=17, description="Up to so many members, everyone follows everyone."),
    ] = 17
    k: (
        Annotated[
            int,
            Meta(
                ge=2,
                le=LINKS_MAX,
                description="Links of each member where there are more: neighbours who follow one"
                " another, chosen by chance. More: tolerates more, costs traffic and memory. Not"
                " given: the least that carries f, and 16 at least.",
            ),
        ]
        | UnsetType
    ) = UNSET
    gamma: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of the way to the neighbourhood's mean in each round. Less: slower"
            " agreement, calmer with very unequal speeds.",
        ),
    ] = 1.0
    mu: Annotated[
        float, Meta(ge=0, lt=1, description="Outer momentum. More: faster, then unstable.")
    ] = 0.4
    rho: Annotated[
        float, Meta(ge=0, lt=1, description="Smoothing of that momentum. More: calmer, slower.")
    ] = 0.6
    eta: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=4,
                description="Outer rate: members publish x + eta times what training did. More:"
                " the shared model moves faster, members stand farther apart; helps many members"
                " with unlike data (docs/loom.md), with mu 0. Not given: 1.",
            ),
        ]
        | UnsetType
    ) = UNSET
    probation_rounds: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=1_000_000,
                description="Own rounds for which a member takes little of a newcomer (with f = 0"
                " nothing), unless it is a genesis member, invited us, or is trusted here. More:"
                " names made for an attack must last longer, honest newcomers wait longer. 0: off."
                " Not given: 64.",
            ),
        ]
        | UnsetType
    ) = UNSET
    view: Annotated[
        Literal["applied_pull", "current"],
        Meta(
            description="How a neighbour's copy is compared with ours: with our copy of now, or"
            " with ours as it was when the neighbour's came, less the pull applied since."
        ),
    ] = "current"

    def __post_init__(self) -> None:
        needed = 3 * self.f + 1
        if needed > self.all_to_all_max:
            raise ValueError(
                f"3f+1 <= all_to_all_max does not hold: {needed} > {self.all_to_all_max};"
                f" f = {self.f} needs more neighbours than anyone here follows, lower it"
            )
        if carried(self.links, self.f) <= 2 * self.f:
            least = next(k for k in range(2, LINKS_MAX) if carried(k, self.f) > 2 * self.f)
            raise ValueError(
                f"k - f - 2 sqrt(k - f - 1) > 2f does not hold: {carried(self.links, self.f):.2f}"
                f" <= {2 * self.f}; so few links cannot carry f = {self.f}, k = {least} can"
            )
        from tapestry_p2p.mix.rules import check_rule  # numpy: only where a manifest is made

        for members in (self.all_to_all_max, self.links + 1):
            if wrong := check_rule(self.rule, members, self.f):
                raise ValueError(f"rule: {wrong}")

    @property
    def links(self) -> int:
        """k as it is in force: the given one, or the least of 16 and more that carries f well."""
        if not isinstance(self.k, UnsetType):
            return self.k
        enough = (k for k in range(16, LINKS_MAX) if carried(k, self.f) > 4 * self.f)
        return next(enough, LINKS_MAX)

    @property
    def outer_rate(self) -> float:
        """The outer rate in force."""
        return 1.0 if isinstance(self.eta, UnsetType) else self.eta

    @property
    def probation(self) -> int:
        """The probation rounds in force."""
        given = self.probation_rounds
        return PROBATION_ROUNDS if isinstance(given, UnsetType) else given


def carried(k: int, f: int) -> float:
    """mu2, in unit weights, of the honest part of a large random graph with k links a member.

    (k - f) - 2 sqrt(k - f - 1), Friedman 2008. A rule needs more than 2f, a proof more than 4f.
    """
    degree = k - f
    return degree - 2 * math.sqrt(degree - 1) if degree >= 1 else 0.0


class Training(Section, frozen=True, kw_only=True):
    """How members train between two mixings."""

    inner_steps: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Optimizer steps in a round (H). More: fewer bytes, members drift apart.",
        ),
    ] = 50
    schedule_steps: Annotated[
        int,
        Meta(
            ge=0,
            description="0: a constant learning rate after its warm-up, for a network without an"
            " end. Else a cosine that reaches zero after so many optimizer steps.",
        ),
    ] = 0


class Limits(Section, frozen=True, kw_only=True):
    """What a member takes from another; beyond it an entry is refused."""

    chunk_bytes_max: Annotated[
        int, Meta(ge=4096, le=262144, description="Bytes of one piece of a payload.")
    ] = 262144
    entry_bytes_max: Annotated[
        int, Meta(ge=64, le=1 << 32, description="Bytes of one entry's payload.")
    ] = 1 << 26
    entries_per_minute_max: Annotated[
        int, Meta(ge=1, le=100_000, description="Entries that one member may publish in a minute.")
    ] = 600
    norm_max: Annotated[
        float, Meta(gt=0, le=1e18, description="Euclidean norm of one difference or copy.")
    ] = 1e6


class Manifest(Section, frozen=True, kw_only=True):
    """All sections. Raises ValueError where two of them contradict each other."""

    network: Network
    task: Task
    schema: Schema
    genesis: Genesis
    streams: Streams = field(default_factory=Streams)
    mixing: Mixing = field(default_factory=Mixing)
    training: Training = field(default_factory=Training)
    limits: Limits = field(default_factory=Limits)
    base: Base | UnsetType = UNSET

    def __post_init__(self) -> None:
        # numpy and cryptography: only where a manifest is made
        from tapestry_p2p.gossip.header import CHUNKS_MAX
        from tapestry_p2p.mix.codec import gamma_max, payload_bytes

        most = gamma_max(self.streams.codec)
        if self.mixing.gamma > most:
            raise ValueError(
                f"mixing.gamma <= {most} does not hold, which {self.streams.codec} needs:"
                f" {self.mixing.gamma} > {most}; copies would fall behind"
            )
        payload = payload_bytes(self.streams.codec, self.schema.parameters)
        if payload > self.limits.entry_bytes_max:
            raise ValueError(
                f"limits.entry_bytes_max must hold one entry: {self.schema.parameters} parameters"
                f" in {self.streams.codec} are {payload} > {self.limits.entry_bytes_max} bytes"
            )
        if payload > self.limits.chunk_bytes_max * CHUNKS_MAX:
            raise ValueError(
                f"limits.chunk_bytes_max must hold one entry in {CHUNKS_MAX} chunks: {payload} >"
                f" {self.limits.chunk_bytes_max} * {CHUNKS_MAX} bytes"
            )

    @property
    def network_id(self) -> bytes:
        """32 bytes: SHA-256 of the meaning of every key."""
        return hashlib.sha256(_DOMAIN + canonical.pack(_tagged(to_builtins(self)))).digest()


def parse_manifest(text: bytes, name: str = "network.toml") -> Manifest:
    """The manifest in a TOML text.

    TapestryError: exit 78 with the key and what is wrong with it, 7 for another wire version.
    """
    tables = tomlfile.parse(text, name)
    network = tables.get("network")
    wire = network.get("wire", WIRE) if isinstance(network, dict) else WIRE
    if type(wire) is int and wire != WIRE:
        raise TapestryError(
            f"{name}: network.wire is {wire}, this version speaks {WIRE};"
            " install the Tapestry that its members use",
            VERSION,
        )
    return tomlfile.convert(tables, Manifest, name)


def load_manifest(path: Path) -> Manifest:
    """The manifest in a file. TapestryError (exit 78) if it cannot be read; see parse_manifest."""
    try:
        with path.open("rb") as file:
            text = file.read(tomlfile.TEXT_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise TapestryError(
            f"{path} is missing; make it with `tapestry init`, or `tapestry join LINK`", BAD_CONFIG
        ) from error
    except OSError as error:
        raise TapestryError(f"{path} cannot be read: {error.strerror}", BAD_CONFIG) from error
    return parse_manifest(text, path.name)


def dump_manifest(manifest: Manifest) -> str:
    """network.toml: every key with its meaning. The same manifest gives the same text."""
    return tomlfile.dump(manifest, _HEAD)


def task_file(manifest: Manifest, folder: Path) -> Path | None:
    """Where the task's own code lies, beside network.toml; None for a built-in task.

    TapestryError (exit 78) if it is missing or is not the code that the members agreed on.
    """
    if not manifest.task.file:
        return None
    return agreed_code(manifest, folder / manifest.task.file)


def agreed_code(manifest: Manifest, path: Path) -> Path:
    """The path, if the file there is the task's code. TapestryError (exit 78) otherwise."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TapestryError(
            f"{path} cannot be read ({error.strerror}); get the task's code from a member and put"
            " it there",
            BAD_CONFIG,
        ) from error
    if digest != manifest.task.digest:
        raise TapestryError(
            f"{path} is not the code that the members agreed on (SHA-256 {digest[:16]}..., wanted"
            f" {manifest.task.digest[:16]}...); get that version of it",
            BAD_CONFIG,
        )
    return path


def _tagged(value: Any) -> Any:
    """The value with what the canonical encoding does not admit written as marked text."""
    if isinstance(value, dict):
        return {key: _tagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, bool):
        return {"bool": "true" if value else "false"}
    if isinstance(value, float):
        return {"float": repr(value + 0.0)}  # -0.0 and 0.0 mean the same
    if isinstance(value, int) and value < 0:
        return {"int": str(value)}
    return value


def _need_plain(key: str, text: str) -> None:
    if len(text) > NAME_CHARS_MAX or not text.isprintable():
        raise ValueError(f"{key}: at most {NAME_CHARS_MAX} characters, none of them for control")


def _need_hash(key: str, text: str) -> None:
    if not _HASH.fullmatch(text):
        raise ValueError(f"{key}: must be 64 lower-case hex digits")


def _need_peer_id(text: str) -> None:
    from tapestry_p2p.gossip.identity import public_key_of

    try:
        public_key_of(text)
    except ValueError as error:
        raise ValueError(f"members: {text!r} is no peer id (12D3Koo...)") from error
