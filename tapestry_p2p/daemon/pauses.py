"""Why this member does not train just now: told so, out of its hours, on battery, busy, disk full.

A pause ends the trainer's process, which saves first: its memory and its cores are free. The node
stays in the network, follows and serves. Training goes on when no reason is left. What was told by
the operator survives restarts; the rest is looked at again and again.
"""

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path

import trio

from tapestry_p2p.daemon.config import Budget
from tapestry_p2p.daemon.trainer import Trainer

log = logging.getLogger("tapestry.pauses")

LOOK_S = 15.0
BUSY_LOOKS, CALM_LOOKS = 2, 8  # in a row: half a minute of load stops us, two of calm let us go on
DISK_PATIENCE_S, DISK_LOOK_S = 60.0, 1.0  # a start of the trainer costs more than a short refusal
OPERATOR, HOURS, BATTERY, LOAD, DISK = "operator", "hours", "battery", "load", "disk"
MEMORY = "memory"
REASONS = (OPERATOR, HOURS, BATTERY, LOAD, DISK, MEMORY)
_SUPPLIES = Path("/sys/class/power_supply")


class Pauses:
    """The reasons there are, in words. ``marker``: a file, there while the operator says so."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker
        self.reasons: dict[str, str] = {}
        self.changed = trio.Event()
        if marker.exists():
            self.reasons[OPERATOR] = "by you"

    def say(self, reason: str, words: str) -> None:
        """There is this reason, in these words; no words: there is not."""
        if self.reasons.get(reason, "") == words:
            return
        if words:
            self.reasons[reason] = words
        else:
            self.reasons.pop(reason, None)
        self.changed.set()
        self.changed = trio.Event()

    def tell(self, pause: bool) -> None:
        """The operator wants a pause, or no longer. OSError if that cannot be written down."""
        if pause:
            self._marker.touch(mode=0o600)
        else:
            self._marker.unlink(missing_ok=True)
        self.say(OPERATOR, "by you" if pause else "")

    def __str__(self) -> str:
        return ", ".join(self.reasons.values())


async def govern(pauses: Pauses, trainer: Trainer) -> None:
    """Hold the trainer while there is a reason."""
    while True:
        changed = pauses.changed
        if pauses.reasons and not trainer.held:
            log.info("paused: %s", pauses)
            await trainer.hold()
        elif not pauses.reasons and trainer.held:
            log.info("training goes on")
            trainer.release()
        await changed.wait()


async def watch_disk(pauses: Pauses, fault: Callable[[], str]) -> None:
    """Pause while nothing can be written for long; until cancelled."""
    looks = 0
    while True:
        looks = looks + 1 if fault() else 0
        pauses.say(DISK, fault() if looks * DISK_LOOK_S > DISK_PATIENCE_S else "")
        await trio.sleep(DISK_LOOK_S)


# ---- the machine -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sight:
    """What the machine looks like now."""

    now: time
    on_battery: bool
    load: float  # of the last minute, other programs'


def look(own_threads: int) -> Sight:
    """Look at the machine, of whose load ``own_threads`` are ours."""
    load = max(0.0, os.getloadavg()[0] - own_threads)
    return Sight(datetime.now().astimezone().time(), on_battery(), load)


def on_battery(supplies: Path = _SUPPLIES) -> bool:
    """Whether there is mains power to be had, and none comes."""
    online = []
    for supply in sorted(supplies.glob("*")):
        try:
            if (supply / "type").read_text().strip() == "Mains":
                online.append((supply / "online").read_text().strip() == "1")
        except OSError:
            continue
    return bool(online) and not any(online)


def within(hours: str, now: time) -> bool:
    """Whether ``now`` is within HH:MM-HH:MM; over midnight too. '' is always."""
    found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", hours)
    if found is None:
        return not hours
    first, last = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
    if first <= last:
        return first <= now < last
    return now >= first or now < last


class Watcher:
    """Turns what the machine looks like into reasons."""

    def __init__(self, pauses: Pauses, budget: Budget) -> None:
        self._pauses, self._budget = pauses, budget
        self._busy = self._calm = 0

    def judge(self, sight: Sight) -> None:
        """Say which reasons there are now."""
        budget, say = self._budget, self._pauses.say
        inside = within(budget.hours, sight.now)
        say(HOURS, "" if inside else f"until its hours, {budget.hours}")
        say(BATTERY, "on battery" if sight.on_battery and not budget.battery else "")
        ours = self._pauses.reasons.keys() - {LOAD}  # then what is left of the load may be ours
        busy = bool(budget.load_max) and sight.load > budget.load_max and not ours
        self._busy, self._calm = (self._busy + 1, 0) if busy else (0, self._calm + 1)
        if self._busy >= BUSY_LOOKS:
            say(LOAD, "the machine is busy with other things")
        elif self._calm >= CALM_LOOKS:
            say(LOAD, "")


async def watch_machine(watcher: Watcher, look: Callable[[], Sight]) -> None:
    """Look again and again; until cancelled."""
    while True:
        watcher.judge(look())
        await trio.sleep(LOOK_S)
