"""What a service manager is told, and what it may ask: ready, alive, stopping; reload.

sd_notify(3) by hand: one datagram a word. Without a service manager nothing is sent. The watchdog
is fed while the event loop turns and no round stands still: a node that hangs is started anew.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

log = logging.getLogger("tapestry.service")

FEEDS = 3  # within one watchdog period
ROUND_STUCK_S = 600.0  # one round's mixing and publishing, on a slow disk, of a large model


def notify(word: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``word`` (READY=1, WATCHDOG=1, ...) to the service manager; whether there is one."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)  # a manager that reads nothing must not hold us up
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send(word.encode())
        except OSError as error:
            log.warning("the service manager cannot be told %s: %s", word, error.strerror)
            return False
    return True


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float:
    """The watchdog's period; 0 if there is none, or if it is meant for another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0


@dataclass
class Health:
    """Whether rounds move: ``working`` says that one is being done, ``mark`` moves with each."""

    working: Callable[[], bool]
    mark: Callable[[], object]
    _last: object = None
    _since: float = field(default=0.0)

    def good(self, now: float) -> bool:
        """Whether no round has stood still for ``ROUND_STUCK_S``."""
        mark = self.mark()
        if not self.working() or mark != self._last:
            self._last, self._since = mark, now
        return now - self._since < ROUND_STUCK_S


async def feed(health: Health, environ: Mapping[str, str] = os.environ) -> None:
    """Feed the watchdog, if there is one, as long as all is well."""
    period = watchdog_s(environ)
    while period:
        if health.good(trio.current_time()):
            notify("WATCHDOG=1", environ)
        else:
            log.error("a round has stood still for %.0f s: letting the watchdog bite",
                      ROUND_STUCK_S)  # fmt: skip
        await trio.sleep(period / FEEDS)


async def obey_reload(reload: Callable[[], None]) -> None:
    """Call ``reload`` at each SIGHUP, which ends a process that does not expect it."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            reload()
