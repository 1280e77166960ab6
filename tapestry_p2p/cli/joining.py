"""`join`: take a network's manifest from its members or a file, show it, accept it or not.

Knows what an invited person should see before saying yes. Code never comes over the network: a
task of the members' own must be at hand. A member that has left comes back by the same verb, with
its key and its stream.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tapestry_p2p.cli import newcomer
from tapestry_p2p.cli.base import base_terms, obtain_base
from tapestry_p2p.cli.output import note, plain, say
from tapestry_p2p.cli.retiring import address_of
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.base import base_record, need_base
from tapestry_p2p.daemon.config import Bootstrap, Config, Member, load_config
from tapestry_p2p.daemon.departure import come_back, departure
from tapestry_p2p.daemon.describe import describe
from tapestry_p2p.daemon.invite import Invite, parse_invite
from tapestry_p2p.daemon.keyfile import load_key
from tapestry_p2p.daemon.manifest import (
    Manifest,
    agreed_code,
    dump_manifest,
    load_manifest,
    parse_manifest,
)
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import BAD_CONFIG, REFUSED, USAGE, VERSION, TapestryError
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.page.names import short

MANIFEST = "network.toml"


def join(
    link: str,
    *,
    peer: list[str] = [],  # noqa: B006 (read only)
    name: str = "",
    data: Annotated[list[Path], Parameter(consume_multiple=True)] = [],  # noqa: B006 (read only)
    languages: str = "",
    task_file: Path | None = None,
    base: Path | None = None,
    yes: bool = False,
    home: Path | None = None,
) -> None:
    """Join a network by an invite link or its network.toml. Nothing that exists is overwritten.

    A member that has left its network comes back by it, as who it was. Exit status 6 if there is a
    member already, or the network was not accepted; 7 if the model comes out otherwise here; 75 if
    nobody in the link answers.

    Example: tapestry join 'tapestry:...' --name Bo --data my-texts

    Example: tapestry join our-network/network.toml --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...

    Parameters
    ----------
    link
        The invite, tapestry:..., as `tapestry invite` prints it; or the network's network.toml, or
        a folder with it, such as a git checkout.
    peer
        Address of a member, with /p2p/ID; may be repeated. A link names some; a file names none.
    name
        What others call this member.
    data
        Text files, or folders of them, to train on. They never leave this machine.
    languages
        Languages of the data, with commas between: de,fr. Published.
    task_file
        The code of the network's own task, if it has one; it must be what the members agreed on.
    base
        The file of the network's base weights, if it has any and you have it; else it is fetched.
    yes
        Accept what the network says of itself without being asked.
    home
        Put everything into this folder, as $TAPESTRY_HOME does.
    """
    source = _source(link)
    addresses = (*source.addresses, *(address_of(text, "--peer") for text in peer))
    if _has_left(home):
        _return(source, addresses, home)
        return
    paths = newcomer.new_paths(home)
    spoken = [part.strip() for part in languages.split(",") if part.strip()]
    try:
        member = Member(name=name, languages=spoken)
    except ValueError as error:
        raise TapestryError(str(error), USAGE) from error
    manifest = _manifest(source)
    for line in terms(manifest):
        note(line)
    for address in addresses:
        note(f"Member    …{short(address.peer_id)} at {address.host}, to begin with")
    code = _code(manifest, task_file or paths.config / (manifest.task.file or "-"))
    _accept(yes=yes)
    paths.make()
    texts = newcomer.data_or_sample(data, spoken, manifest.task.name, paths)
    obtain_base(manifest, base, addresses, paths)
    _same_model(manifest, code, paths, texts)
    if code is not None:
        newcomer.copy_code(code, paths, manifest.task.file)
    identity, made = newcomer.own_key(paths)
    own, listen = newcomer.with_free_port(texts)
    peers = Bootstrap(peers=[str(address) for address in addresses])
    config = Config(member=member, data=own, listen=listen, bootstrap=peers)
    newcomer.write(paths, manifest, config, identity)
    say(
        f"Member   {identity.peer_id}{'' if made else ' (the key was there)'}",
        f"Network  {manifest.network.name}, id {manifest.network_id.hex()}",
        f"Files    {paths.config}",
        f"Offline  {newcomer.retirement(paths, manifest, identity)}: keep it elsewhere; it ends the"
        " key, should it be stolen (tapestry retire)",
        f"Next     {newcomer.command('run', home)}",
    )
    if not addresses:
        note(
            "no address of a member is known: let one connect to you, or put some under [bootstrap]"
            f" peers in {paths.member} (another way: tapestry join with --peer, or a link)"
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Where the manifest comes from: an invite, or a text that is at hand."""

    network_id: bytes
    addresses: tuple[Address, ...]
    manifest: Manifest | None = None


def _source(text: str) -> Source:
    """What was given to join by. TapestryError: 2 for what is neither, 78 for a bad file."""
    if text.startswith("tapestry:"):
        invite = parse_invite(text)
        return Source(invite.network_id, invite.addresses)
    if "://" in text or text.startswith("git@"):
        raise TapestryError(
            "nothing is fetched from there: clone the repository or download its network.toml,"
            " look at it, then: tapestry join PATH/network.toml",
            USAGE,
        )
    path = Path(text)
    path = path / MANIFEST if path.is_dir() else path
    if not path.exists():
        parse_invite(text)  # says what a link looks like
    manifest = load_manifest(path)
    manifest = parse_manifest(dump_manifest(manifest).encode())
    return Source(manifest.network_id, (), manifest)


def _manifest(source: Source) -> Manifest:
    if source.manifest is not None:
        return source.manifest
    from tapestry_p2p.daemon.join import fetch_manifest  # libp2p, a second

    invite = Invite(source.network_id, source.addresses)
    return _checked(fetch_manifest(invite), invite)


def _has_left(home: Path | None) -> bool:
    paths = newcomer.paths_of(home)
    return paths.manifest.exists() and departure(paths.state / "store") is not None


def _return(source: Source, addresses: tuple[Address, ...], home: Path | None) -> None:
    """A member that left comes back with its key, its stream and its files as they are."""
    paths = newcomer.paths_of(home)
    manifest, config = load_manifest(paths.manifest), load_config(paths.member)
    if source.network_id != manifest.network_id:
        raise TapestryError(
            f"this member was in {manifest.network_id.hex()[:16]}..., that is network"
            f" {source.network_id.hex()[:16]}...: give it a folder of its own with --home",
            REFUSED,
        )
    come_back(paths.state / "store")
    peer_id = Identity(load_key(paths.key)).peer_id
    say(
        f"Member   {peer_id} is back in {manifest.network.name}, id {manifest.network_id.hex()}",
        f"Next     {newcomer.command('run', home)}",
    )
    new = [str(address) for address in addresses if str(address) not in config.bootstrap.peers]
    if new:
        note(f"if the others have moved, add to [bootstrap] peers in {paths.member}: {new}")


def terms(manifest: Manifest) -> Iterator[str]:
    """What a network says of itself, a line each, control characters taken out."""
    network, task, mixing = manifest.network, manifest.task, manifest.mixing
    own = f", code {task.digest}" if task.digest else ""
    options = ", ".join(f"{key}={value}" for key, value in sorted(task.options.items()))
    hostile = f"up to {mixing.f} hostile neighbours" if mixing.f else "no hostile neighbour"
    yield f"Network   {plain(network.name)}, licence {plain(network.licence) or 'not stated'}"
    yield f"Id        {manifest.network_id.hex()}"
    yield f"Task      {plain(task.name)}{own}{plain(f' ({options})') if options else ''}"
    yield f"Genesis   seed {manifest.genesis.seed}, {manifest.schema.parameters} parameters"
    yield from base_terms(manifest)
    yield f"Rounds    {manifest.training.inner_steps} steps each, published as {_streams(manifest)}"
    yield f"Mixing    {mixing.rule}, tolerates {hostile}"
    yield "Yours     your records stay here; what was learned from them is published, and tells"
    yield "          something of them (docs/security.md)"


def _streams(manifest: Manifest) -> str:
    from tapestry_p2p.mix.codec import payload_bytes

    codec = manifest.streams.codec
    size = payload_bytes(codec, manifest.schema.parameters)
    return f"{codec} differences of {max(1, round(size / 1000))} kB"


def _checked(text: bytes, invite: Invite) -> Manifest:
    manifest = parse_manifest(text, "the network's manifest")
    if manifest.network_id != invite.network_id:
        raise TapestryError(
            f"the manifest that came is of network {manifest.network_id.hex()[:16]}..., the link"
            f" is for {invite.network_id.hex()[:16]}...; ask for a new link",
            REFUSED,
        )
    return parse_manifest(dump_manifest(manifest).encode())


def _accept(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise TapestryError("nothing was joined: add --yes to accept the above", USAGE)
    print("Join this network? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise TapestryError("nothing was joined", REFUSED)


def _code(manifest: Manifest, path: Path) -> Path | None:
    """The network's own code, which must be on this machine already; None if it has none."""
    if not manifest.task.file:
        return None
    try:
        return agreed_code(manifest, path.absolute())
    except TapestryError as error:
        raise TapestryError(
            f"this network trains code of its own, {plain(manifest.task.name)}: get it from a"
            f" member, read it, and give it with --task-file ({error.message})",
            BAD_CONFIG,
        ) from error


def _same_model(manifest: Manifest, code: Path | None, paths: Paths, texts: list[Path]) -> None:
    """Build the model once and compare it with what the members agreed on."""
    task = manifest.task.name
    if code is not None:
        task = f"{code}:{task.rpartition(':')[2]}"
    note("building the model once, to compare it with the network's")
    options, seed = dict(manifest.task.options), manifest.genesis.seed
    base = base_record(manifest.base, need_base(manifest, paths))
    built = describe(task, options, seed, texts, paths.cache, base)
    schema = manifest.schema
    if (built.schema, built.parameters) != (schema.hash, schema.parameters):
        raise TapestryError(
            f"the task builds {built.parameters} parameters with schema {built.schema[:16]}...,"
            f" the network has {schema.parameters} with {schema.hash[:16]}...; install the"
            " Tapestry that its members use",
            VERSION,
        )
    if built.root.hex() != manifest.genesis.root:
        raise TapestryError(
            "the first parameters come out otherwise here than at the founder's; install the"
            " versions of Tapestry and JAX that the members use",
            VERSION,
        )
