"""Network namespaces on one switch of ours, whose weather can be told: for benches/chaos.py.

Each place is a namespace with one interface and one address. Rates are kept by the kernel (tbf,
both ways); loss, delay, reordering and blocked ways by chaos_switch.py. Needs root, `ip` and
`tc`.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benches.chaos_switch import mac

SUBNET = "10.204.0"
SWITCH = str(Path(__file__).with_name("chaos_switch.py"))
BURST_BYTES, QUEUE_MS = 15_000, 300  # of a slow link


class SkippedError(Exception):
    """This machine cannot do it; why."""


def need_root() -> None:
    """SkippedError unless namespaces can be made here."""
    if os.geteuid() != 0:
        raise SkippedError("network namespaces need root")


class Places:
    """``count`` namespaces and the switch between them. Use as a context."""

    def __init__(self, count: int) -> None:
        name = f"cz{os.getpid() % 100_000}"
        self.names = [f"{name}-{number}" for number in range(count)]
        self._outer = [f"{name}o{number}" for number in range(count)]
        self._stack = ExitStack()

    def address(self, number: int) -> str:
        """IPv4 of a place."""
        return f"{SUBNET}.{number + 1}"

    def __enter__(self) -> "Places":
        need_root()
        with ExitStack() as stack:
            for number, (place, outer) in enumerate(zip(self.names, self._outer, strict=True)):
                _run("ip", "netns", "add", place)
                stack.callback(_forget, "ip", "netns", "del", place)
                stack.callback(_forget, "ip", "link", "del", outer)  # at once, not some time later
                self._connect(number, place, outer)
            self._switch = subprocess.Popen(
                [sys.executable, SWITCH, ",".join(self._outer)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            )  # fmt: skip
            stack.callback(self._end_switch)
            self._heard()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _connect(self, number: int, place: str, outer: str) -> None:
        address = ":".join(f"{byte:02x}" for byte in mac(number))
        inner = ["peer", "name", "eth0", "netns", place, "address", address]
        _run("ip", "link", "add", outer, "type", "veth", *inner)
        _run("ip", "link", "set", outer, "up")
        _run("ip", "-n", place, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        _run("ip", "-n", place, "link", "set", "eth0", "gso_max_segs", "1")  # loss hits one packet
        _run("ip", "-n", place, "link", "set", "eth0", "up")
        _run("ip", "-n", place, "link", "set", "lo", "up")

    def _end_switch(self) -> None:
        assert self._switch.stdin is not None
        with suppress(OSError):
            self._switch.stdin.close()
        self._switch.kill()
        self._switch.wait()

    def _heard(self) -> Counter[str]:
        assert self._switch.stdout is not None
        line = self._switch.stdout.readline()
        if not line:
            raise SkippedError("the switch did not start: AF_PACKET sockets are refused here")
        return Counter(json.loads(line))

    def weather(self, **told: Any) -> Counter[str]:
        """Change it (calm: nothing named); what the switch counted in the weather before."""
        assert self._switch.stdin is not None
        self._switch.stdin.write(json.dumps(told) + "\n")
        self._switch.stdin.flush()
        return self._heard()

    def limit(self, number: int, bits_per_s: int) -> None:
        """Give a place a link of so many bits per second, up and down; 0: no limit."""
        outer, inner = self._outer[number], ["-n", self.names[number]]
        for where, device in (([], outer), (inner, "eth0")):
            _forget("tc", *where, "qdisc", "del", "dev", device, "root")
            if bits_per_s:
                kept = ["rate", str(bits_per_s), "burst", str(BURST_BYTES), "latency",
                        f"{QUEUE_MS}ms"]  # fmt: skip
                _run("tc", *where, "qdisc", "add", "dev", device, "root", "tbf", *kept)

    def carried(self, number: int) -> int:
        """Bytes that went to a place so far, with every header."""
        path = Path("/sys/class/net") / self._outer[number] / "statistics" / "tx_bytes"
        return int(path.read_text())


def _run(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or str(error)
        raise SkippedError(f"{' '.join(words[:3])} is refused here: {why.strip()}") from error


def _forget(*words: str) -> None:
    subprocess.run(words, check=False, capture_output=True)
