"""What we refuse libp2p before a byte of a stranger counts: versions, protocols, unbounded reads.

Knows libp2p's private names and checks them at start; transport.py is its only user. We drive
libp2p's Noise handshake and multistream-select under our own accept loop, without its Swarm: the
Swarm's lost inbound slots, peer blocks and handler crashes do not exist here. What remains:

* multistream-select reads a length without a bound: replaced by a reader limited to 1,024 bytes.
* plaintext, secio, tls, mplex: never registered, so they get ``na``.
* idle or slow strangers: places are few (gate.py), each with a handshake deadline.
"""

import importlib.metadata

from libp2p.io.exceptions import IncompleteReadError
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession

from tapestry_p2p.errors import VERSION, TapestryError

LIBP2P_VERSION = "0.8.1"
DELIM_BYTES_MAX = 1024  # a multistream line; the longest honest one has 40 bytes
HANDSHAKE_DEADLINE_S = 5.0


def install() -> None:
    """Check the installed libp2p and put the bounded reader in place; TapestryError if unknown."""
    found = importlib.metadata.version("libp2p")
    names = hasattr(multiselect_communicator, "read_delim") and hasattr(SecureSession, "_drain")
    if found != LIBP2P_VERSION or not names:
        raise TapestryError(
            f"libp2p {found} is installed, this release is made for {LIBP2P_VERSION}: "
            f"pip install libp2p=={LIBP2P_VERSION}",
            VERSION,
        )
    setattr(multiselect_communicator, "read_delim", read_delim_bounded)  # noqa: B010


def keys_of(session: object) -> tuple[bytes, bytes]:
    """The keys, to send and to receive, that Noise agreed on; nothing was sealed with them yet.

    TypeError if the session is not libp2p's, fresh from its handshake.
    """
    if isinstance(session, SecureSession) and isinstance(session.conn, NoiseTransportReadWriter):
        noise = session.conn.noise_state.noise_protocol
        send, receive = noise.cipher_state_encrypt, noise.cipher_state_decrypt
        if send.n == receive.n == 0 and session.low_watermark == session.high_watermark:
            return bytes(send.k), bytes(receive.k)
    raise TypeError("not a fresh Noise session of libp2p 0.8.1")


async def read_delim_bounded(reader: object) -> bytes:
    """One multistream line of at most ``DELIM_BYTES_MAX`` bytes, without its newline.

    Raises IncompleteReadError (which multistream-select turns into its own error) at the end of
    the stream, on an over-long claim, or without the newline.
    """
    read = getattr(reader, "read")  # noqa: B009
    length, shift = 0, 0
    while True:
        byte = await read(1)
        if not byte:
            raise IncompleteReadError("the stream ended in a length")
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if length > DELIM_BYTES_MAX or shift > 14:
            raise IncompleteReadError("a multistream line is too long")
        if not byte[0] & 0x80:
            break
    line = bytearray()
    while len(line) < length:
        part = await read(length - len(line))
        if not part:
            raise IncompleteReadError("the stream ended in a line")
        line += part
    if not line.endswith(b"\n"):
        raise IncompleteReadError("a multistream line has no newline")
    return bytes(line[:-1])
