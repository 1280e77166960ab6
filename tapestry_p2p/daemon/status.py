"""What a node says of itself over the control socket: plain facts, no data, no secrets.

Reads the node; changes nothing but on ``go``, ``stop``, ``leave``, ``retire``. Names that
peers chose are passed on as they are bounded in their profiles; whoever prints them escapes them.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import trio

from tapestry_p2p import __version__
from tapestry_p2p.daemon import claims
from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.ask import is_well
from tapestry_p2p.daemon.attest import attest, lineage
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.invite import Invite
from tapestry_p2p.daemon.leaving import leave
from tapestry_p2p.daemon.measured import Measured
from tapestry_p2p.daemon.metrics import Metrics
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.promise import present
from tapestry_p2p.daemon.reach import reach, way
from tapestry_p2p.daemon.retirement import checked, need_network
from tapestry_p2p.errors import REFUSED, USAGE, TapestryError
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.gossip.profile import Profile
from tapestry_p2p.heap import resident_bytes
from tapestry_p2p.mix.topology import enough_live


class Control:
    """Answers the verbs of the control socket."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.metrics = Metrics(node)
        self._verbs = {
            "status": self._status,
            "metrics": self._metrics,
            "peers": self._peers,
            "curves": self._curves,
            "copies": self._copies,
            "invite": self._invite,
            "lineage": lambda: lineage(self._node),
            "go": self._go,
            "stop": self._stop,
            "pause": self._pause,
            "resume": self._resume,
        }

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request's answer. TapestryError (2) for an unknown verb."""
        asked = str(request.get("do"))
        if asked == "leave":
            return await self._leave()
        if asked == "retire":
            return await self._retire(request)
        if asked == "attest":
            return attest(self._node, request)
        if asked == "rollback":
            back = request.get("rounds")
            return await self._node.roll_back(back if type(back) is int else 0)
        verb = self._verbs.get(asked)
        if verb is None:
            known = ", ".join(sorted([*self._verbs, "attest", "leave", "retire", "rollback"]))
            raise TapestryError(f"do must be one of {known}", USAGE)
        return verb()

    async def _leave(self) -> dict[str, Any]:
        """Say goodbye, then end; the member does not run again until it joins."""
        node = self._node
        known = len(node.protocol.members().keys() - {node.key})
        found = await leave(node)
        node.stop()
        return {"id": peer_id_of(node.key), "known": known, **asdict(found)}

    async def _retire(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take in the signed end of a key, and show it to everybody who is connected."""
        node = self._node
        try:
            signed = checked(str(request.get("entry")))
        except ValueError as error:
            raise TapestryError("entry must be a signed retire entry in hex", USAGE) from error
        need_network(signed, node.manifest.network_id)
        await node.act(ev.Retire(signed, trio.current_time()))
        author = signed.header.author
        if author not in node.protocol.retired():
            raise TapestryError("too many keys are retired here already", REFUSED)
        return {"id": peer_id_of(author), "told": len(node.protocol.greeted())}

    def _metrics(self) -> dict[str, Any]:
        return {"text": self.metrics.text()}

    def _go(self) -> dict[str, Any]:
        self._node.rounds.go.set()
        return {"ok": True}

    def _stop(self) -> dict[str, Any]:
        self._node.stop()
        return {"ok": True}

    def _pause(self) -> dict[str, Any]:
        return self._tell(pause=True)

    def _resume(self) -> dict[str, Any]:
        return self._tell(pause=False)

    def _tell(self, pause: bool) -> dict[str, Any]:
        pauses = self._node.pauses
        try:
            pauses.tell(pause)
        except OSError as error:
            raise TapestryError(f"not noted for the next start: {error.strerror}") from error
        return {"paused": dict(pauses.reasons)}

    def _status(self) -> dict[str, Any]:
        node = self._node
        state = self._trainer()
        followed = node.copies.followed
        live = 1 + sum(self._fresh(a) and not node.protocol.probation(a) for a in followed)
        statistics = node.protocol.statistics()
        own = node.copies.own
        promised = present(node.manifest.mixing, node.protocol)
        return {
            "version": __version__,
            "id": peer_id_of(node.key),
            "name": node.options.name,
            "network": node.manifest.network.name,
            "licence": node.manifest.network.licence,
            "network_id": node.manifest.network_id.hex(),
            "state": self._state(),
            "fault": node.disk.fault,
            "paused": dict(node.pauses.reasons),
            "uptime_s": round(trio.current_time() - node.started_at, 1),
            "round": node.rounds.round,
            "rounds": node.options.rounds,
            "inner_steps": node.rounds.tempo.steps,
            "finished": node.rounds.finished.is_set(),
            "settled": node.settled,
            "seq": own.seq if own else -1,
            "peers": len(node.transport.connections),
            "members": len(node.protocol.members()),
            "following": len(node.copies.followed),
            **reach(node),
            "live": live,
            "mixing": enough_live(live, node.manifest.mixing.f),
            "rule": node.manifest.mixing.rule,
            "tolerate": node.manifest.mixing.f,
            "certificate": promised.word,
            "certificate_why": promised.why,
            "overfull_chance": promised.chance,
            "trainer": state,
            **self._gain(),
            "trainer_isolated": state.get("isolated", False),
            "isolation": state.get("isolation", "no trainer"),
            "mixed": node.rounds.mixed,
            "adopted": [peer_id_of(author) for author in node.rounds.adopted],
            "verdicts": {k: v for k, v in statistics.items() if k != "tables"},
            "tables": statistics["tables"],
            **self._spent(),
        }

    def _gain(self) -> dict[str, Any]:
        """What the member gains by its own measure, and what others claim of their models."""
        node = self._node
        measured = node.trainer.measured if node.trainer is not None else Measured()
        own = (node.key, Profile(node.options.name, node.options.languages, (), measured.results()))
        members = {k: p for k, p in node.protocol.members().items() if k != node.key}

        def counts(key: bytes) -> bool:
            return not node.protocol.probation(key) and not node.protocol.weight_zero(key)

        return {
            "gain": {**measured.status(), "diversity": claims.diversity(own, members, counts)},
            "languages": claims.table(own, members, counts),
        }

    def _spent(self) -> dict[str, Any]:
        """What this process has sent, received and used."""
        node, traffic = self._node, self._node.transport.traffic
        return {
            "entries_published": node.entries_published,
            "entry_bytes": node.entry_bytes,
            "payload_bytes_sent": node.payload_bytes,
            "bytes_sent": traffic.sent,
            "bytes_received": traffic.received,
            "useful_bytes_sent": traffic.useful_sent,
            "keyframe_bytes_sent": traffic.keyframe_sent,
            "node_rss_mb": round(resident_bytes() / 1e6, 1),
            "sockets": len(node.transport.gate),  # that others opened to us
            "refused_at_door": dict(node.transport.gate.refused),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "cpu_s": round(time.process_time(), 2),
            "trainer_busy_share": self._busy_share(),
        }

    def _busy_share(self) -> float:
        """Of the time of all rounds that were handed over, that in which the trainer computed."""
        trainer = self._node.trainer
        if trainer is None or not trainer.state.seconds:
            return 0.0
        return round(trainer.state.busy_s / trainer.state.seconds, 4)

    def health(self) -> tuple[bool, str]:
        """Whether all is well, and the state's first words: its own, none of a peer's."""
        state = self._state()
        return is_well(state), state

    def _state(self) -> str:
        node = self._node
        if node.disk.fault:
            return "degraded"
        if node.protocol.stopped:
            return f"stopped: {node.protocol.stopped}"
        if node.voice.is_silent():
            return "asking peers what they know of us"
        if node.rounds.finished.is_set():
            return "finished"
        if node.rounds.loom is None:
            return "starting"
        if node.pauses.reasons and node.trainer is not None:
            return f"paused: {node.pauses}"
        if node.trainer is not None and not node.trainer.state.running:
            return "trainer is being restarted"
        if node.trainer is not None and not node.trainer.begun:
            return "starting"  # it compiles
        return "training"

    def _trainer(self) -> dict[str, Any]:
        trainer = self._node.trainer
        if trainer is None:
            return {}
        s = trainer.state
        return {
            "running": s.running,
            "pid": s.pid,
            "isolated": s.isolated,
            "isolation": s.isolation,
            "restarts": s.restarts,
            "last_failure": s.last_failure,
            "bad_batches": s.bad_batches,
            "steps": s.steps,
            "tokens": s.tokens,
            "loss": s.loss,
            "seconds": round(s.seconds, 3),
            "busy_s": round(s.busy_s, 3),
            "devices": s.devices,
            "rss_mb": round(s.resident_bytes / 1e6, 1),
        }

    def _fresh(self, author: bytes) -> bool:
        loom = self._node.rounds.loom
        return (
            loom is not None and loom.fresh(author) and not self._node.protocol.weight_zero(author)
        )

    def _peers(self) -> dict[str, Any]:
        node = self._node
        mixed = {row["id"]: row for row in node.rounds.mixed["authors"]}
        rows = []
        members = node.protocol.members()
        for key in sorted({*members, *node.transport.connections} - {node.key}):
            profile = members.get(key)
            connection = node.transport.connections.get(key)
            followed = node.copies.followed.get(key)
            head = node.protocol.head(key)
            peer_id = peer_id_of(key)
            rows.append(
                {
                    "id": peer_id,
                    "name": profile.name if profile else "",
                    "languages": list(profile.languages) if profile else [],
                    "connected": connection is not None,
                    "way": way(node, key),
                    "address": connection.address if connection else "",
                    "head": head.header.seq if head else -1,
                    "copy": followed.seq if followed else -1,
                    "round": head.header.round if head else 0,
                    "fresh": self._fresh(key),
                    "weight_zero": node.protocol.weight_zero(key),
                    "probation": node.protocol.probation(key),
                    "coefficient": mixed.get(peer_id, {}).get("coefficient"),
                    "distance": mixed.get(peer_id, {}).get("distance"),
                }
            )
        return {"peers": rows}

    def _curves(self) -> dict[str, Any]:
        """[own inner steps, figure on held-out data] of each model, for a picture."""
        trainer = self._node.trainer
        measured = trainer.measured if trainer is not None else Measured()
        return {"unit": measured.unit, "curves": measured.series()}

    def _copies(self) -> dict[str, Any]:
        """Where every copy stands, with roots computed from memory now."""
        node = self._node
        own = node.copies.own
        return {
            "own": {"seq": own.seq, "root": copy_root(own.copy).hex()} if own else None,
            "followed": {
                peer_id_of(author): {"seq": f.seq, "root": copy_root(f.copy).hex()}
                for author, f in node.copies.followed.items()
            },
        }

    def _invite(self) -> dict[str, Any]:
        node = self._node
        ours = peer_id_of(node.key)
        own = [Address(a.kind, a.host, a.port, ours) for a in node.announced()]
        others = []
        for key, profile in node.protocol.members().items():
            if key != node.key:
                others += _dialable(profile.addresses, peer_id_of(key))[:1]
        found = [*own, *others[:4]]
        return {"link": str(Invite(node.manifest.network_id, tuple(found[:8])))}


def _dialable(texts: Sequence[str], peer_id: str) -> list[Address]:
    """A member's addresses, without those of its own invention."""
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):
            address = parse_address(text)
            found.append(Address(address.kind, address.host, address.port, peer_id))
    return found
