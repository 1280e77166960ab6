"""A network in virtual time: connections, delay, loss, doubling, reordering, batches, partitions.

Carries frames and fetches between endpoints and knows nothing of what they mean. A frame belongs
to a connection and dies with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from tapestry_p2p.gossip import events as ev
from tapestry_p2p.sim.world import World

Reply = Callable[[bytes, bytes], None]
KILL_NOTICED_S = 0.1  # a killed peer's socket closes at once


class Endpoint(Protocol):
    """What is attached to the network."""

    key: bytes

    def is_up(self) -> bool:
        """Whether the process runs."""
        ...

    def receive(self, event: ev.Event) -> None:
        """A connection or a frame came or went."""
        ...

    def answer(self, request: bytes) -> tuple[bytes, bytes]:
        """Response and body of a fetch."""
        ...


@dataclass(frozen=True)
class Weather:
    """How well frames travel. Shares are of all frames."""

    delay_s: tuple[float, float] = (0.005, 0.02)
    loss: float = 0.0
    double: float = 0.0
    reorder: bool = False  # frames may overtake one another
    watchdog_s: float = 5.0  # how long a dead link goes unnoticed


class Network:
    """All connections between endpoints."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self.weather = weather
        self._endpoints: dict[bytes, Endpoint] = {}
        self._open: dict[frozenset[bytes], int] = {}
        self._epoch = 0
        self._last: dict[tuple[bytes, bytes], float] = {}
        self._batches: dict[tuple[bytes, bytes], int] = {}
        self._held: dict[tuple[bytes, bytes], list[tuple[str, bytes]]] = {}
        self._island: dict[bytes, int] = {}

    def join(self, endpoint: Endpoint) -> None:
        """Attach an endpoint."""
        self._endpoints[endpoint.key] = endpoint

    def batch(self, source: bytes, target: bytes, frames: int) -> None:
        """Deliver sync frames from source to target only ``frames`` at a time."""
        self._batches[source, target] = frames

    # -- connections

    def dial(self, source: bytes, target: bytes) -> None:
        """Try to connect; both ends hear of it."""
        self._world.after(2 * self._delay(), lambda: self._dialled(source, target))

    def _dialled(self, source: bytes, target: bytes) -> None:
        one, other = self._endpoints[source], self._endpoints.get(target)
        if not one.is_up():
            return
        if other is None or not other.is_up() or self._is_apart(source, target):
            self._world.note("dial_failed")
            one.receive(ev.DialFailed(target, self._world.now))
            return
        pair = frozenset((source, target))
        if pair in self._open:
            self._world.note("dialled_both_ways")
        else:
            self._epoch += 1
            self._open[pair] = self._epoch
        self._world.note("connected")
        one.receive(ev.Connected(target, self._world.now))
        other.receive(ev.Connected(source, self._world.now))

    def _cut(self, pair: frozenset[bytes]) -> None:
        if self._open.pop(pair, None) is None:
            return
        self._world.note("cut")
        one, other = sorted(pair)
        for source, target in ((one, other), (other, one)):
            self._held.pop((source, target), None)
            if self._endpoints[source].is_up():
                self._endpoints[source].receive(ev.Disconnected(target, self._world.now))

    def close(self, source: bytes, target: bytes) -> None:
        """Cut one connection."""
        self._cut(frozenset((source, target)))

    def killed(self, key: bytes) -> None:
        """An endpoint died; its peers notice soon."""
        for pair in [pair for pair in self._open if key in pair]:
            epoch = self._open[pair]
            self._world.after(KILL_NOTICED_S, lambda p=pair, e=epoch: self._cut_if(p, e))  # type: ignore[misc]

    def _cut_if(self, pair: frozenset[bytes], epoch: int) -> None:
        if self._open.get(pair) == epoch:
            self._cut(pair)

    def partition(self, *islands: Iterable[bytes]) -> None:
        """Nothing passes between islands; what is open between them dies by the watchdog."""
        self._island = {key: n for n, island in enumerate(islands) for key in island}
        self._world.note("partition")
        for pair in list(self._open):
            if self._is_apart(*pair):
                epoch = self._open[pair]
                watchdog = self.weather.watchdog_s
                self._world.after(watchdog, lambda p=pair, e=epoch: self._cut_if(p, e))  # type: ignore[misc]

    def unite(self) -> None:
        """One network again."""
        self._island = {}
        self._world.note("united")

    def heal(self) -> None:
        """One network, in good weather, no batches."""
        self.unite()
        self._batches, self.weather = {}, Weather()

    def _is_apart(self, one: bytes, other: bytes) -> bool:
        return self._island.get(one, -1) != self._island.get(other, -1)

    # -- frames

    def send(self, source: bytes, target: bytes, channel: str, data: bytes) -> None:
        """Carry one frame, if there is a connection."""
        if frozenset((source, target)) not in self._open:
            return
        frames = self._batches.get((source, target), 1)
        if frames > 1 and channel == "sync":
            held = self._held.setdefault((source, target), [])
            held.append((channel, data))
            if len(held) < frames:
                return
            self._world.note("batch")
            batch, self._held[source, target] = held, []
        else:
            batch = [(channel, data)]
        for name, frame in batch:
            self._carry(source, target, name, frame)

    def _carry(self, source: bytes, target: bytes, channel: str, data: bytes) -> None:
        def arrive() -> None:
            endpoint = self._endpoints[target]
            if endpoint.is_up():
                endpoint.receive(ev.Message(source, channel, data, self._world.now))

        for _ in range(self._fate()):
            self._transit(source, target, arrive)

    def ask(self, source: bytes, target: bytes, request: bytes, reply: Reply) -> None:
        """Carry a fetch request there and its answer back; silence if either is lost."""

        def arrive() -> None:
            endpoint = self._endpoints[target]
            if endpoint.is_up():
                head, body = endpoint.answer(request)
                if self._fate():
                    self._transit(target, source, lambda: reply(head, body))

        if self._fate():
            self._transit(source, target, arrive)

    def is_connected(self, source: bytes, target: bytes) -> bool:
        """Whether a connection is open (though the link may be dead)."""
        return frozenset((source, target)) in self._open

    def _transit(self, source: bytes, target: bytes, arrive: Callable[[], None]) -> None:
        pair = frozenset((source, target))
        epoch = self._open.get(pair)
        if epoch is None or self._is_apart(source, target):
            self._world.note("lost_on_dead_link")
            return
        when = self._world.now + self._delay()
        if not self.weather.reorder:
            when = max(when, self._last.get((source, target), 0.0))
        elif when < self._last.get((source, target), 0.0):
            self._world.note("overtook")
        self._last[source, target] = max(when, self._last.get((source, target), 0.0))

        def land() -> None:
            if self._open.get(pair) == epoch and not self._is_apart(source, target):
                arrive()

        self._world.after(when - self._world.now, land)

    def _fate(self) -> int:
        """How often a frame arrives."""
        chance = self._world.random.random()
        if chance < self.weather.loss:
            self._world.note("lost")
            return 0
        if chance > 1.0 - self.weather.double:
            self._world.note("doubled")
            return 2
        return 1

    def _delay(self) -> float:
        return self._world.spread(*self.weather.delay_s)
