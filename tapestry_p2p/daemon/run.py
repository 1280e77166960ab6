"""``tapestry run``: builds a node from a member's files and runs it until it is told to stop.

Knows files, signals and the order of starting; the node knows the rest. SIGTERM and SIGINT end it
cleanly, SIGHUP reads the configuration again; the exit code is the TapestryError's.
"""

import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import trio
from msgspec.structs import replace

from tapestry_p2p import crash
from tapestry_p2p.daemon import control, logs, scrape, service
from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.apart import Door
from tapestry_p2p.daemon.attacker import Attacker
from tapestry_p2p.daemon.base import Held, base_record, need_base
from tapestry_p2p.daemon.base_fetch import mend_base
from tapestry_p2p.daemon.beside import keep_page
from tapestry_p2p.daemon.ceiling import Ceiling, watch_memory
from tapestry_p2p.daemon.config import Config, load_config, need_data, need_no_schedule
from tapestry_p2p.daemon.departure import need_member
from tapestry_p2p.daemon.ending import ENDING
from tapestry_p2p.daemon.groups import run_unwrapped
from tapestry_p2p.daemon.keyfile import load_key
from tapestry_p2p.daemon.manifest import Manifest, load_manifest, task_file
from tapestry_p2p.daemon.node import Node, NodeOptions
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.daemon.pauses import Sight, Watcher, look, watch_disk, watch_machine
from tapestry_p2p.daemon.promise import watch
from tapestry_p2p.daemon.quantities import parse_rate, parse_size
from tapestry_p2p.daemon.rates import Paces
from tapestry_p2p.daemon.recovery import Recovered, recover
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.trainer import Trainer
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.heap import resident_bytes

log = logging.getLogger("tapestry")


def run(paths: Paths, apart: bool = False) -> None:
    """Run the member in ``paths`` until a signal or ``stop``. TapestryError for the operator.

    ``apart``: trainers are started by somebody else and report at ``paths.trainer_socket``. The
    data is then theirs to find: we may not even see it.
    """
    crash.arm("node")
    manifest = load_manifest(paths.manifest)
    config = load_config(paths.member)
    need_no_schedule(config, manifest.training.schedule_steps)
    seed = load_key(paths.key, given=paths.credentials is not None)
    need_member(paths.state / "store")
    paths.make()
    task = task_file(manifest, paths.config)
    if config.testing.attack:
        data = []
    elif apart:
        data = [Path(text) for text in config.data.paths]
    else:
        data = need_data(config, manifest.task.name)
    logs.install(paths.log, config.log.format)
    set_level(config)
    mend_base(manifest, paths, tuple(map(parse_address, config.bootstrap.peers)))
    store = Store(paths.state / "store", manifest.streams.ring)
    try:
        paths.make()  # again: whoever held the store until now has tidied up
        configure = trainer_configuration(manifest, config, paths, task, data)
        ENDING.loop()
        run_unwrapped(_main, manifest, config, paths, seed, store, configure, apart)
    finally:
        paths.tidy()
        store.close()


def trainer_configuration(
    manifest: Manifest,
    config: Config,
    paths: Paths,
    task: Path | None,
    data: list[Path],
) -> dict[str, Any]:
    """The trainer's ``configure`` record (see link.py)."""
    training, testing = manifest.training, config.testing
    base = need_base(manifest, paths)
    name = manifest.task.name
    if task is not None:
        name = f"{task}:{manifest.task.name.rpartition(':')[2]}"
    gain = config.gain
    beside = {"share": gain.share, "alone": gain.alone, "sovereign": gain.sovereign}
    return {
        **({"gain": beside} if gain.share else {}),
        "task": name,
        "options": dict(manifest.task.options),
        "data": [str(path) for path in data],
        "seed": manifest.genesis.seed,
        "devices": config.budget.devices,
        "threads": config.budget.threads or max(1, len(os.sched_getaffinity(0)) - 1),
        "state_dir": str(paths.trainer),
        "cache_dir": str(paths.cache),
        "text_socket": str(paths.text_socket),
        "schedule_steps": round(training.schedule_steps * testing.speed),
        "speed": testing.speed,
        "judge": json.loads(Path(testing.judge).read_bytes()) if testing.judge else None,
        **base_record(manifest.base, base),
    }


def node_options(config: Config) -> NodeOptions:
    """The node's part of the member's configuration."""
    listen = tuple(map(parse_address, config.listen.addresses))
    announce = tuple(map(parse_address, config.listen.announce)) or reachable(listen)
    testing = config.testing
    return NodeOptions(
        name=config.member.name,
        languages=tuple(config.member.languages),
        tell_results=config.gain.publish,
        listen=listen,
        announce=announce,
        bootstrap=tuple(map(parse_address, config.bootstrap.peers)),
        trusted=tuple(config.trust.members),
        blocked=tuple(config.trust.blocked),
        inner_steps=testing.inner_steps,
        rounds=testing.rounds,
        round_s=config.budget.round_s,
        wait=testing.wait,
        hold=dict(testing.hold),
        upload=parse_rate(config.budget.upload),
        download=parse_rate(config.budget.download),
        tap=Path(testing.tap) if testing.tap else None,
    )


def reachable(listen: tuple[Address, ...]) -> tuple[Address, ...]:
    """Hosts that stand for 0.0.0.0 and ::, port 0 (the port comes with listening)."""
    hosts: list[Address] = []
    for address in listen:
        if address.host == "0.0.0.0":
            hosts += [Address("ip4", host, 0) for host in (_outward(), "127.0.0.1") if host]
    return tuple(dict.fromkeys(hosts))


def _outward() -> str:
    """Our address on the way out, by asking the routing table; nothing is sent. '' if none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # a documentation address, for its route only
            return str(sock.getsockname()[0])
        except OSError:
            return ""


async def _main(
    manifest: Manifest,
    config: Config,
    paths: Paths,
    seed: bytes,
    store: Store,
    configure: dict[str, Any],
    apart: bool,
) -> None:
    found = recover(store, manifest.schema.parameters, manifest.limits.norm_max)
    _need_network(found, manifest.network_id)
    attack = config.testing.attack

    door = Door(paths.trainer_socket) if apart and not attack else None

    def make_trainer(node: Node) -> Trainer:
        return Trainer(
            configure,
            paths.trainer / "trainer.log",
            node.rounds.begin,
            manifest.schema.parameters,
            manifest.schema.hash,
            node.tap,
            door,
            node.copies.space,
        )

    node = Node(
        manifest,
        node_options(config),
        Identity(seed),
        seed,
        store,
        found,
        None if attack else make_trainer,
        Random(os.urandom(16)),
    )
    held = need_base(manifest, paths)
    if held is not None and manifest.base:
        node.copies.base = Held(held, manifest.base)
    try:
        if not ENDING.told:
            await _accompany(node, config, paths, attack)
    finally:
        if door is not None:
            door.close()


async def _accompany(node: Node, config: Config, paths: Paths, attack: str) -> None:
    """Run the node, and beside it whatever serves its operator; until it ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey_signals, node)
        nursery.start_soon(service.obey_reload, Reload(paths, config, node.transport.paces))
        operator = Control(node)
        await nursery.start(control.serve, paths.control_socket, operator.answer)
        nursery.start_soon(operator.metrics.watch)
        if config.metrics.listen:
            answers = scrape.Answers(operator.metrics.text, operator.health)
            await nursery.start(scrape.serve, config.metrics.listen, answers)
        if config.page.enabled and not paths.text:  # no unit of the system sees both sockets
            nursery.start_soon(keep_page, config.page.port, paths.log)
        if config.testing.tether:
            nursery.start_soon(_stop_with_stdin, node)
        await nursery.start(node.run_and_then, nursery.cancel_scope.cancel)
        if attack:
            nursery.start_soon(Attacker(node, attack).run)
        nursery.start_soon(watch, node.manifest.mixing, node.protocol)
        nursery.start_soon(service.feed, health_of(node))
        nursery.start_soon(watch_machine, Watcher(node.pauses, config.budget), look_at(node))
        nursery.start_soon(watch_disk, node.pauses, lambda: node.disk.fault)
        ceiling = Ceiling(parse_size(config.budget.memory))
        nursery.start_soon(watch_memory, node.pauses, ceiling, memory_of(node))
        service.notify("READY=1")
        log.info("running as %s; `tapestry status` says how it goes", node.identity.peer_id)


def health_of(node: Node) -> service.Health:
    """Whether rounds move; to wait for a disk that refuses, or for the trainer, is no hang of ours.

    A trainer that stays silent for too long is ended by its own watchdog (tempo.py).
    """

    def working() -> bool:
        waits = node.trainer is not None and node.trainer.adding
        return node.rounds.working and not (node.disk.fault or waits)

    return service.Health(working, lambda: node.rounds.round)


def look_at(node: Node) -> Callable[[], Sight]:
    """How the machine looks to us, less what our own trainer does to it."""

    def sight() -> Sight:
        trainer = node.trainer
        threads = trainer.configure["threads"] if trainer and trainer.state.running else 0
        return look(threads)

    return sight


def memory_of(node: Node) -> Callable[[], tuple[float, float]]:
    """Resident bytes of this process and of its trainer."""

    def used() -> tuple[float, float]:
        trainer = node.trainer
        return resident_bytes(), trainer.state.resident_bytes if trainer is not None else 0.0

    return used


class Reload:
    """Read tapestry.toml again: the log's level and the rates change at once, all else later."""

    def __init__(self, paths: Paths, config: Config, paces: Paces) -> None:
        self._paths, self._config, self._paces = paths, config, paces

    def __call__(self) -> None:
        """Do it; a file that is wrong changes nothing."""
        try:
            config = load_config(self._paths.member)
        except TapestryError as error:
            log.error("not reloaded: %s", error.message)
            return
        set_level(config)
        self._paces.upload.rate = parse_rate(config.budget.upload)
        self._paces.download.rate = parse_rate(config.budget.download)
        later = changed_later(self._config, config)
        log.info("reloaded%s", f"; at the next start: {', '.join(later)}" if later else "")


def changed_later(old: Config, new: Config) -> list[str]:
    """Sections in which something else changed than what changes at once."""
    level, upload, download = new.log.level, new.budget.upload, new.budget.download
    old = replace(
        old,
        log=replace(old.log, level=level),
        budget=replace(old.budget, upload=upload, download=download),
    )
    return [name for name in Config.__struct_fields__ if getattr(old, name) != getattr(new, name)]


def set_level(config: Config) -> None:
    """How much is logged. libp2p says nothing: it would log what peers send."""
    logging.getLogger().setLevel(config.log.level.upper())
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    logging.getLogger("tapestry.transport").setLevel(config.log.level.upper())


def _need_network(found: Recovered, network_id: bytes) -> None:
    """Refuse to go on with a stream in another network: neither would take what comes of it."""
    for signed in found.known.own:
        if signed.header.network != network_id:
            raise TapestryError(
                f"this member's stream is of network {signed.header.network.hex()[:16]},"
                f" network.toml is {network_id.hex()[:16]}: put the old one back, or make another"
                " member for the new one (tapestry join in another TAPESTRY_HOME)",
                BAD_CONFIG,
            )


async def _obey_signals(node: Node) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        if ENDING.told:
            node.stop()
        async for number in signals:
            log.info("signal %d: stopping", number)
            service.notify("STOPPING=1")
            node.stop()


async def _stop_with_stdin(node: Node) -> None:
    """The process that holds the other end of our standard input is gone: so are we."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some(4096):
            pass
    node.stop()
