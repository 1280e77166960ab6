"""What came of a transfer so far, each piece verified: kept while sources break off.

Knows names and sizes. A payload or a copy that was begun goes on where it stopped, whoever gives
the rest. Bounded: so many at a time, the one that was not touched for longest goes.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.space import Space

KEPT_MAX = 4  # more: less is asked for twice; each takes its whole size


@dataclass
class Partial:
    """Room for all of it, and the numbers of the pieces that are in it."""

    owner: bytes  # the author whose payload or copy it is
    room: NDArray[np.uint8]
    got: set[int] = field(default_factory=set)

    def put(self, index: int, offset: int, piece: bytes | memoryview) -> None:
        """A verified piece; one that is there stays: the whole may be in use by now.

        The pieces together must fill the room, which holds anything until then: the caller knows
        how long each one is. ValueError if it does not fit.
        """
        if index in self.got:
            return
        self.room[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
        self.got.add(index)

    @property
    def data(self) -> memoryview:
        """All of it."""
        return self.room.data

    @property
    def vector(self) -> Vector:
        """All of it as float32."""
        return self.room.view("<f4").astype(np.float32, copy=False)


class Partials:
    """Transfers by name: a payload's entry, a copy's root."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._kept: OrderedDict[bytes, Partial] = OrderedDict()

    def of(self, owner: bytes, name: bytes, size: int) -> Partial:
        """What there is of it; ``size`` in bytes."""
        found = self._kept.get(name)
        if found is None or len(found.room) != size:
            room = self._space.empty(-(-size // 4)).view(np.uint8)[:size]
            found = self._kept[name] = Partial(owner, room)
        self._kept.move_to_end(name)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return found

    def done(self, name: bytes) -> None:
        """It is whole, and the caller's now."""
        self._kept.pop(name, None)

    def forget(self, owner: bytes) -> None:
        """Nobody waits for anything of that author any more."""
        gone = [name for name, found in self._kept.items() if found.owner == owner]
        for name in gone:
            del self._kept[name]
