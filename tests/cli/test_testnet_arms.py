"""A trainer that dies while it trains an arm is asked again, whenever that is."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from tapestry_p2p.cli.testnet import arms


def test_a_trainer_that_dies_late_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "AWAY_S", 0.5)
    monkeypatch.setattr(arms, "THERE_S", 0.1)
    path, asked = tmp_path / "text.sock", []

    def serve(listener: socket.socket) -> None:
        for answer in (b"", json.dumps({"bits_per_byte": None, "loss": {"own": 2.5}}).encode()):
            client, _ = listener.accept()
            with client:
                asked.append(json.loads(client.recv(1 << 16)))
                if not answer:
                    time.sleep(0.6)  # longer than it may be away; then it dies
                client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        found = arms.ask_arm(path, "alone", threading.Event())
        server.join(10)
    assert found["bits_per_byte"] == {"own": 2.5}
    assert asked == [{"do": "arm", "name": "alone"}] * 2
