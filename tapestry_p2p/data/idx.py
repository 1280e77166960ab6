"""The idx format of small pictures and their labels (MNIST, Fashion-MNIST), read strictly.

Rule: bytes in, bytes out; standard library only, so both the trainer and the command line may use
it. A file is two zero bytes, the type 8 (unsigned byte), the number of axes, each axis as a
big-endian uint32, then exactly that many bytes; gzipped or not.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

UNSIGNED_BYTE = 8
AXES_MAX = 3
BYTES_MAX = 1 << 28
TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
GZIP = b"\x1f\x8b"


def parse(content: bytes) -> tuple[tuple[int, ...], bytes]:
    """(lengths of the axes, the bytes) of one file. ValueError, in words, unless it is exact."""
    content = _unpacked(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise ValueError("no idx file of unsigned bytes")
    axes = content[3]
    start = 4 + 4 * axes
    if not 1 <= axes <= AXES_MAX or len(content) < start:
        raise ValueError(f"an idx file of {axes} axes; 1 to {AXES_MAX} can be")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if math.prod(shape) != len(content) - start:
        raise ValueError(f"{'x'.join(map(str, shape))} bytes promised, {len(content) - start} held")
    return shape, content[start:]


def pack(shape: tuple[int, ...], body: bytes) -> bytes:
    """The gzipped file of which `parse` gives back the two; the same bytes every time."""
    if math.prod(shape) != len(body) or not 1 <= len(shape) <= AXES_MAX:
        raise ValueError(f"{len(body)} bytes are not {shape}")
    head = struct.pack(f">4B{len(shape)}I", 0, 0, UNSIGNED_BYTE, len(shape), *shape)
    return gzip.compress(head + body, 6, mtime=0)


def read_pair(folder: Path, names: tuple[str, str]) -> tuple[int, int, bytes, bytes]:
    """(count, pixels of one, pictures, labels) of two files in a folder. OSError, ValueError."""
    shape, pictures = parse((folder / names[0]).read_bytes())
    labelled, labels = parse((folder / names[1]).read_bytes())
    if len(shape) != 3 or labelled != shape[:1]:
        raise ValueError(f"{len(labels)} labels for pictures {shape}")
    return shape[0], shape[1] * shape[2], pictures, labels


def _unpacked(content: bytes) -> bytes:
    """The file's bytes, gunzipped if need be; a bomb or a torn file is a ValueError."""
    if not content.startswith(GZIP):
        return content
    unzip = zlib.decompressobj(wbits=31)
    try:
        found = unzip.decompress(content, BYTES_MAX)
    except zlib.error as error:
        raise ValueError(f"the gzip is broken: {error}") from error
    if not unzip.eof or unzip.unused_data:
        raise ValueError("the gzip is torn, too large, or something follows it")
    return found
