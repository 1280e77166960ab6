"""SIGTERM before the event loop listens to it: a start that has begun nothing ends well, at once.

Imported before anything heavy, so it imports nothing that is. From `loop` on the signal is only
noted: the loop looks at `told` once it listens itself.
"""

import signal
from typing import Any

from tapestry_p2p.errors import OK


class Ending:
    """Whether we were told to end before anybody listened."""

    def __init__(self) -> None:
        self.told = False
        self._loops = False

    def listen(self) -> None:
        """Obey SIGTERM from now on. In the main thread only."""
        signal.signal(signal.SIGTERM, self._obey)

    def loop(self) -> None:
        """The event loop begins: an exception in the middle of it would end it badly."""
        self._loops = True

    def _obey(self, *_: Any) -> None:
        self.told = True
        if not self._loops:
            raise SystemExit(OK)


ENDING = Ending()  # signals belong to the process
