"""SIGTERM before the event loop listens to it: a start that has begun nothing ends well, at once.

Imported before anything heavy, so it imports nothing that is. Before `loop` the process is ended on
the spot: there is nothing to clean up, and an exception in the middle of somebody's import may be
swallowed there. From `loop` on the signal is only noted: the loop looks at `told` once it listens.
"""

import os
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
        """The event loop begins: from now on there is something to end well."""
        self._loops = True

    def _obey(self, *_: Any) -> None:
        self.told = True
        if not self._loops:
            os._exit(OK)


ENDING = Ending()  # signals belong to the process
