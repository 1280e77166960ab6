"""A network in virtual time: connections, delay, loss, doubling, reordering, batches, partitions.

Carries frames and fetches between endpoints and knows nothing of what they mean. A frame belongs
to a connection and dies with it. Each direction of a link is a Lane, made when it is first needed:
most of ten thousand members never meet. A partition may cut one direction alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.sim.world import World

Reply = Callable[[bytes, bytes], None]
KILL_NOTICED_S = 0.1  # a killed peer's socket closes at once


@dataclass(frozen=True)
class Weather:
    """How well frames travel. Shares are of all frames, times are seconds of virtual time."""

    delay_s: tuple[float, float] = (0.005, 0.02)  # one way, evenly from .. to
    loss: float = 0.0
    double: float = 0.0
    reorder: bool = False  # frames may overtake one another
    watchdog_s: float = 5.0  # how long a dead link goes unnoticed


class Endpoint(Protocol):
    """What is attached to the network."""

    key: bytes
    name: str

    def is_up(self) -> bool:
        """Whether the process runs."""
        ...

    def receive(self, event: ev.Event) -> None:
        """A connection or a frame came or went."""
        ...

    def answer(self, request: bytes) -> tuple[bytes, bytes]:
        """Response and body of a fetch."""
        ...


class Lane:
    """One direction between two endpoints. ``epoch`` names the connection; 0: none is open."""

    __slots__ = ("back", "batch", "carried", "cut", "epoch", "held", "last", "source", "target")

    back: Lane  # the other direction

    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source, self.target = source, target
        self.epoch = 0
        self.last = 0.0  # when the latest frame under way arrives
        self.cut = False  # nothing passes
        self.batch = 1  # sync frames that arrive together
        self.carried = 0  # bytes of frames, requests and answers
        self.held: list[tuple[str, bytes]] = []


class Network:
    """All connections between endpoints."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self.weather = weather
        self._endpoints: dict[bytes, Endpoint] = {}
        self._reach: dict[bytes, Container[bytes] | None] = {}
        self._lanes: dict[bytes, dict[bytes, Lane]] = {}  # by source, then target
        self._epoch = 0

    def join(self, endpoint: Endpoint, within_reach: Container[bytes] | None = None) -> None:
        """Attach an endpoint; of those who came before it, it reaches these alone; None: all.

        A second one with the same key takes these over; the first keeps its lanes to all others.
        """
        key = endpoint.key
        if key in self._endpoints:
            for other in [k for k in self._endpoints if self._lane(key, k) is not None]:
                if within_reach is None or other in within_reach:
                    del self._lanes[key][other], self._lanes[other][key]
        else:
            self._reach[key], self._lanes[key] = within_reach, {}
        self._endpoints[key] = endpoint

    def _lane(self, source: bytes, target: bytes) -> Lane | None:
        """From one endpoint to another; None where they are out of each other's reach."""
        lane = self._lanes.get(source, {}).get(target)
        if lane is not None or not self._in_reach(source, target):
            return lane
        lane = Lane(self._endpoints[source], self._endpoints[target])
        back = Lane(self._endpoints[target], self._endpoints[source])
        lane.back, back.back = back, lane
        self._lanes[source][target], self._lanes[target][source] = lane, back
        return lane

    def _in_reach(self, source: bytes, target: bytes) -> bool:
        if source == target or target not in self._endpoints:
            return False
        one, other = self._reach[source], self._reach[target]
        return (one is None or target in one) and (other is None or source in other)

    def _all_lanes(self) -> Iterator[Lane]:
        return (lane for lanes in self._lanes.values() for lane in lanes.values())

    def carried(self, source: bytes) -> int:
        """Bytes that an endpoint has sent: frames, requests, answers."""
        return sum(lane.carried for lane in self._lanes[source].values())

    def batch(self, source: bytes, target: bytes, frames: int) -> None:
        """Deliver sync frames from source to target only ``frames`` at a time."""
        lane = self._lane(source, target)
        assert lane is not None, "out of reach"
        lane.batch = frames

    # -- connections

    def dial(self, source: bytes, target: bytes) -> None:
        """Try to connect; both ends hear of it."""
        delay = self._world.spread(*self.weather.delay_s)
        self._world.after(2 * delay, self._dialled, source, target)

    def _dialled(self, source: bytes, target: bytes) -> None:
        there, one = self._lane(source, target), self._endpoints[source]
        if not one.is_up():
            return
        if there is None or there.cut or there.back.cut or not there.target.is_up():
            self._world.note("dial_failed", one.name)
            one.receive(ev.DialFailed(target, self._world.now))
            return
        if there.epoch:
            self._world.note("dialled_both_ways", one.name, there.target.name)
        else:
            self._epoch += 1
            there.epoch = there.back.epoch = self._epoch
        self._world.note("connected", one.name, there.target.name)
        one.receive(ev.Connected(target, self._world.now))
        there.target.receive(ev.Connected(source, self._world.now))

    def close(self, source: bytes, target: bytes) -> None:
        """Cut one connection; both ends hear of it."""
        there = self._lanes.get(source, {}).get(target)
        if there is None or not there.epoch:
            return
        there.epoch = there.back.epoch = 0
        self._world.note("closed", there.source.name, there.target.name)
        for lane in (there, there.back):
            lane.held.clear()
            if lane.source.is_up():
                lane.source.receive(ev.Disconnected(lane.target.key, self._world.now))

    def killed(self, key: bytes) -> None:
        """An endpoint died; its peers notice soon, those first who joined first."""
        lanes = self._lanes[key]
        for target in self._endpoints if len(lanes) > 1 else lanes:
            lane = lanes.get(target)
            if lane is not None and lane.epoch:
                self._world.after(KILL_NOTICED_S, self._close_if, lane, lane.epoch)

    def _close_if(self, lane: Lane, epoch: int) -> None:
        if lane.epoch == epoch:
            self.close(lane.source.key, lane.target.key)

    # -- partitions

    def partition(
        self, one: Iterable[bytes], other: Iterable[bytes], one_way: bool = False
    ) -> None:
        """Nothing passes from one side to the other, nor back unless ``one_way``.

        What is open between them dies by the watchdog.
        """
        self._world.note("partitioned_one_way" if one_way else "partitioned")
        others = list(other)
        for source in one:
            for target in others:
                self._cut(self._lane(source, target))
                if not one_way:
                    self._cut(self._lane(target, source))

    def _cut(self, lane: Lane | None) -> None:
        if lane is None:
            return
        lane.cut = True
        if lane.epoch:
            self._world.after(self.weather.watchdog_s, self._watch, lane, lane.epoch)

    def _watch(self, lane: Lane, epoch: int) -> None:
        if lane.cut:
            self._close_if(lane, epoch)

    def unite(self) -> None:
        """One network again."""
        self._world.note("united")
        for lane in self._all_lanes():
            lane.cut = False

    def heal(self) -> None:
        """One network, in good weather, no batches."""
        self.unite()
        self.weather = Weather()
        for lane in self._all_lanes():
            lane.batch = 1

    # -- frames

    def is_connected(self, source: bytes, target: bytes) -> bool:
        """Whether a connection is open (though the link may be dead)."""
        lane = self._lanes.get(source, {}).get(target)
        return lane is not None and lane.epoch > 0

    def send(self, source: bytes, target: bytes, channel: str, data: bytes) -> None:
        """Carry one frame, if there is a connection."""
        lane = self._lanes[source].get(target)
        if lane is None or not lane.epoch:
            return
        lane.carried += len(data)
        if lane.batch == 1 or channel != "sync":
            self._carry(lane, channel, data)
            return
        lane.held.append((channel, data))
        if len(lane.held) >= lane.batch:
            self._world.note("batch", lane.source.name, lane.target.name)
            batch, lane.held = lane.held, []
            for name, frame in batch:
                self._carry(lane, name, frame)

    def _carry(self, lane: Lane, channel: str, data: bytes) -> None:
        for _ in range(self._fate(lane)):
            self._transit(lane, self._deliver, lane, channel, data)

    def _deliver(self, lane: Lane, channel: str, data: bytes) -> None:
        target = lane.target
        if target.is_up():
            self._world.note("delivered", lane.source.name, target.name, channel)
            target.receive(ev.Message(lane.source.key, channel, data, self._world.now))

    def ask(self, source: bytes, target: bytes, request: bytes, reply: Reply) -> None:
        """Carry a fetch request there and its answer back; silence if either is lost."""
        lane = self._lane(source, target)
        if lane is not None and self._fate(lane):
            lane.carried += len(request)
            self._transit(lane, self._asked, lane, request, reply)

    def _asked(self, lane: Lane, request: bytes, reply: Reply) -> None:
        if lane.target.is_up():
            head, body = lane.target.answer(request)
            lane.back.carried += len(head) + len(body)
            if self._fate(lane.back):
                self._transit(lane.back, reply, head, body)

    def _transit(self, lane: Lane, action: Callable[..., None], *arguments: Any) -> None:
        world = self._world
        if lane.cut or not lane.epoch:
            world.note("lost_on_dead_link", lane.source.name, lane.target.name)
            return
        low, high = self.weather.delay_s
        when = world.now + low + (high - low) * world.random.random()
        if when < lane.last:
            if self.weather.reorder:
                world.note("reordered", lane.source.name, lane.target.name)
            else:
                when = lane.last
        lane.last = max(when, lane.last)
        world.at(when, self._land, lane, lane.epoch, action, arguments)

    def _land(
        self, lane: Lane, epoch: int, action: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if lane.epoch == epoch and not lane.cut:
            action(*arguments)

    def _fate(self, lane: Lane) -> int:
        """How often a frame arrives."""
        chance, weather = self._world.random.random(), self.weather
        if chance < weather.loss:
            self._world.note("lost", lane.source.name, lane.target.name)
            return 0
        if chance > 1.0 - weather.double:
            self._world.note("doubled", lane.source.name, lane.target.name)
            return 2
        return 1
