"""Equal public copies are stored once: sixteen members that follow one stream hold one vector.

Every step is made by the production decoder and copy, once per base and payload. A copy that
differs in a single bit has another root, so it is another Point, and who holds it goes on alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, lru_cache

from tapestry_p2p.gossip.merkle import merkle_root
from tapestry_p2p.mix.adoption import coordinate_median
from tapestry_p2p.mix.codec import CodecError, Vector, decode, payload_norm
from tapestry_p2p.mix.copy import PublicCopy, vector_of

NORM_MAX = 1e6  # of a difference or a copy, as a manifest limits it


class Point:
    """A public copy where it stands: float32[d], not to be written to, and its Merkle root."""

    def __init__(self, public: PublicCopy) -> None:
        self._public = public
        public.vector.flags.writeable = False

    @property
    def vector(self) -> Vector:
        """float32[d], read-only."""
        return self._public.vector

    @cached_property
    def leaves(self) -> list[bytes]:
        """The leaves of its Merkle tree."""
        return self._public.leaves()

    @cached_property
    def root(self) -> bytes:
        """What an entry states of it, 32 bytes."""
        return merkle_root(self.leaves)


class Vault:
    """The newest ``kept`` points of a whole simulated network."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._points: OrderedDict[tuple[bytes, ...], Point] = OrderedDict()

    def start(self, vector: Vector) -> Point:
        """The point of a vector that is given, such as the manifest's, float32[d]."""
        return Point(PublicCopy(vector))

    def after(self, base: Point, codec: str, payload: bytes) -> Point:
        """Where a difference leads. CodecError if it is malformed or too long."""
        key = (base.root, codec.encode(), payload)
        return self._recall(key) or self._keep(key, self._added(base, codec, payload))

    def whole(self, data: bytes, d: int) -> Point:
        """A keyframe's bytes as a point. CodecError if they are malformed."""
        key = (data,)
        return self._recall(key) or self._keep(key, Point(PublicCopy(vector_of(data, d, NORM_MAX))))

    def middle(self, points: Sequence[Point]) -> Point:
        """Where somebody starts who adopts the median of these copies, an odd number."""
        key = (b"middle", *sorted(point.root for point in points))
        made = PublicCopy(coordinate_median([point.vector for point in points]))
        return self._recall(key) or self._keep(key, Point(made))

    def _added(self, base: Point, codec: str, payload: bytes) -> Point:
        public = PublicCopy(base.vector)
        public.add(_decoded(codec, payload, len(public)))  # the same bits as `advance`
        return Point(public)

    def _recall(self, key: tuple[bytes, ...]) -> Point | None:
        point = self._points.get(key)
        if point is not None:
            self._points.move_to_end(key)
        return point

    def _keep(self, key: tuple[bytes, ...], point: Point) -> Point:
        self._points[key] = point
        while len(self._points) > self._kept:
            self._points.popitem(last=False)
        return point


@lru_cache(2048)  # who only publishes takes its payloads in turn
def _decoded(codec: str, payload: bytes, d: int) -> Vector:
    """The difference in a payload, float32[d]; CodecError if it is malformed or too long."""
    if payload_norm(codec, payload, d) > NORM_MAX:
        raise CodecError("the difference is longer than the manifest allows")
    return decode(codec, payload, d)
