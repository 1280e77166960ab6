"""What the page shows now: asks the member again and again, keeps a short history, tells viewers.

One task looks; each viewer waits for what changed since it last heard. The history of the loss is
this process's own and bounded: when it is full every second point goes.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import trio

from tapestry_p2p.errors import TapestryError
from tapestry_p2p.page import facts
from tapestry_p2p.page.daemon import Member

LOOK_S = 1.0  # while somebody watches
IDLE_LOOK_S = 10.0  # else: only so that the curve has no gap
SLOW_PARTS_S = 4.0  # between two looks into files
POINTS_MAX = 1200
VIEWERS_MAX = 8


@dataclass(slots=True)
class Curve:
    """Loss by own round: [round, loss], oldest first, at most POINTS_MAX."""

    points: list[list[float]] = field(default_factory=list)

    def note(self, status: dict[str, Any]) -> None:
        """Add the round that ended, once."""
        round_, loss = facts.whole(status.get("round")), facts.real(facts.member(status)["loss"])
        if loss is None or not round_ or not facts.member(status)["steps"]:
            return
        if self.points and self.points[-1][0] == round_:
            return
        if self.points and self.points[-1][0] > round_:
            self.points.clear()  # rolled back, or another member
        self.points.append([round_, loss])
        if len(self.points) > POINTS_MAX:
            self.points = self.points[::2]


class Board:
    """The parts of the page by name, each as JSON; ``look`` renews them."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._parts: dict[str, tuple[int, str]] = {}  # name -> (version, JSON)
        self._version = 0
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._cuts, self._curve = facts.Cuts(), Curve()
        self._files_at = float("-inf")
        self.viewers = 0

    async def watch(self) -> None:
        """Look again and again; until cancelled."""
        while True:
            await self.look()
            with trio.move_on_after(LOOK_S if self.viewers else IDLE_LOOK_S):
                if self.viewers:
                    await trio.sleep_forever()
                await self._wanted.wait()

    def hurry(self) -> None:
        """Somebody came to watch."""
        self._wanted.set()
        self._wanted = trio.Event()

    async def look(self) -> None:
        """Ask the member once, and tell the viewers what changed."""
        try:
            status = await self._member.ask("status")
            peers = await self._member.ask("peers")
            curves = await self._member.ask("curves")
        except TapestryError as error:
            self._put("state", {"situation": facts.failed(error), "me": None})
        else:
            self._cuts.note(status)
            self._curve.note(status)
            self._put("state", {"situation": facts.situation(status), "me": facts.member(status)})
            self._put("neighbours", facts.neighbours(peers, status, self._cuts))
            self._put("loss", {"points": self._curve.points})
            self._put("gain", facts.gain(status, curves))
            self._put("languages", facts.languages(status))
        if trio.current_time() >= self._files_at + SLOW_PARTS_S:
            self._files_at = trio.current_time()
            self._put("left", await self._member.left())
            self._put("log", {"rows": await self._member.log()})

    def _put(self, name: str, value: dict[str, Any]) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if self._parts.get(name, (0, ""))[1] == text:
            return
        self._version += 1
        self._parts[name] = (self._version, text)
        self._changed.set()
        self._changed = trio.Event()

    def news(self, since: int) -> tuple[int, list[tuple[str, str]]]:
        """What changed after version ``since``, as (name, JSON); and the version now."""
        rows = sorted((v, name, text) for name, (v, text) in self._parts.items() if v > since)
        return self._version, [(name, text) for _, name, text in rows]

    async def wait(self, since: int, patience_s: float) -> None:
        """Until there is something newer, or ``patience_s`` are over."""
        changed = self._changed
        if self._version <= since:
            with trio.move_on_after(patience_s):
                await changed.wait()
