"""The node imports what it uses of libp2p; what it does not use still works for who asks."""

import subprocess
import sys

SCRIPT = """
import sys
import tapestry_p2p.daemon.run
from libp2p.crypto.serialization import deserialize_public_key
assert "libp2p.peer.id" in sys.modules
found = [name for name in ("aioquic", "service_identity", "Crypto") if name in sys.modules]
assert not found, found

import libp2p.transport.quic.stream
assert "aioquic" in sys.modules
from libp2p.crypto.rsa import RSAPublicKey, create_new_key_pair
key = create_new_key_pair(1024).public_key
again = deserialize_public_key(key.serialize())
assert again == key and type(again) is RSAPublicKey
"""


def test_neither_quic_nor_rsa_is_loaded_until_somebody_asks() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
