"""A running member, played: sockets answer each request with the least that its schema wants."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schema_kit import SCHEMAS

PEER_ID = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
LINK = f"tapestry:{'ab' * 32}?a=/ip4/127.0.0.1/tcp/4001/p2p/{PEER_ID}"
TEXTS = (PEER_ID, "ab" * 32, "ab" * 64, LINK, "word", "2026-01-01T00:00:00")


def least(schema: dict[str, Any]) -> Any:
    """The smallest value that a schema of ours admits; AssertionError where it needs more."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return least(schema["anyOf"][0])
    kinds = schema.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        wanted = schema.get("required", [])
        return {name: least(schema["properties"].get(name, {})) for name in wanted}
    if kind == "array":
        return [least(schema["items"]) for _ in range(schema.get("minItems", 0))]
    if kind == "string":
        return _text(schema)
    return {"integer": 1, "number": 1, "boolean": True, "null": None}[kind]


def _text(schema: dict[str, Any]) -> str:
    pattern = schema.get("pattern", "")
    found = next((text for text in TEXTS if re.search(pattern, text)), None)
    assert found is not None, f"no text at hand for {pattern}"
    return found


def answers() -> dict[str, dict[str, Any]]:
    """What the daemon and the trainer say to each request, by its ``do``."""
    told = {"status", "peers", "invite", "leave", "retire", "rollback", "metrics"}
    found = {name: _least_of(name) for name in told}
    found["status"] |= {"state": "training", "id": PEER_ID, "network_id": "ab" * 32}
    found["stop"] = {"ok": True}
    found |= {"pause": {"paused": {"operator": "by you"}}, "resume": {"paused": {}}}
    found["metrics"] = {"text": "# TYPE tapestry_round gauge\ntapestry_round 1\n"}
    found["generate"] = {"text": "text"}
    found["evaluate"] = {"loss": {"own": 1.4}, "bits_per_byte": {"own": 2.0}}
    return found


def _least_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = least(json.loads((SCHEMAS / f"{name}.json").read_bytes()))
    return found


@contextmanager
def played(*paths: Path, state: str = "training") -> Iterator[None]:
    """Sockets at these paths that answer, until the block ends."""
    known, threads, listening = answers(), [], []
    known["status"]["state"] = state
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        sock.listen(8)
        listening.append(sock)
        threads.append(threading.Thread(target=_serve, args=(sock, known), daemon=True))
        threads[-1].start()
    try:
        yield
    finally:
        for sock in listening:
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join(5.0)


def _serve(sock: socket.socket, known: dict[str, dict[str, Any]]) -> None:
    while True:
        try:
            caller, _ = sock.accept()
        except OSError:
            return
        with caller, caller.makefile("rb") as lines:
            request = json.loads(lines.readline() or b"{}")
            answer = known.get(str(request.get("do")), {"error": "unknown", "exit_code": 2})
            caller.sendall(json.dumps(answer).encode() + b"\n")
