"""Network addresses as text: /ip4|ip6|dns|dns4|dns6 HOST /tcp PORT [/p2p ID]. Knows no socket."""

from dataclasses import dataclass

HOST_CHARS_MAX = 240  # so that the whole address fits a profile
LABEL_CHARS_MAX = 63  # of a name's parts, between the dots
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP endpoint, and whose it is if that is known."""

    kind: str
    host: str
    port: int
    peer_id: str = ""

    def __str__(self) -> str:
        tail = f"/p2p/{self.peer_id}" if self.peer_id else ""
        return f"/{self.kind}/{self.host}/tcp/{self.port}{tail}"


def parse_address(text: str) -> Address:
    """Parse a multiaddr; ValueError with a plain sentence if it is none of ours."""
    parts = text.split("/")
    whole = len(parts) in (5, 7) and parts[0] == "" and parts[1] in _HOSTS and parts[3] == "tcp"
    if not whole or not parts[2] or (len(parts) == 7 and (parts[5] != "p2p" or not parts[6])):
        raise ValueError(f"{text!r} is no address like /ip4/192.0.2.7/tcp/4001")
    host, port = parts[2], parts[4]
    labels = [len(label) for label in host.split(".")]
    plain = host.isascii() and host.isprintable() and " " not in host
    if (
        not plain
        or len(host) > HOST_CHARS_MAX
        or not 0 < min(labels) <= max(labels) <= LABEL_CHARS_MAX
    ):
        raise ValueError(f"{text[:80]!r}: this address names no host: write it in plain ASCII")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{text!r} has no port between 0 and 65535")
    return Address(parts[1], host, int(port), parts[6] if len(parts) == 7 else "")
