"""What the page does for its own script: live events, pause, invite, a text in pieces, a model."""

import json
from typing import Any

import pytest
import trio
from page_kit import KEY, PORT, FakeMember, ask, ask_async, good, page

from tapestry_p2p.errors import FAILURE, NO_DAEMON, NOT_READY, TIMEOUT, TapestryError
from tapestry_p2p.page.app import PIECE_BYTES, make_app
from tapestry_p2p.page.board import VIEWERS_MAX, Board


def post(app: Any, verb: str, body: Any = None) -> Any:
    """A POST of the page's own script."""
    return ask(app, "POST", f"/api/{verb}", good("POST"), json.dumps(body or {}).encode())


def events(text: bytes) -> list[tuple[str, Any]]:
    """Server-sent events, as a browser reads them (all fields single lines)."""
    found = []
    for block in text.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_pause_and_resume_reach_the_member() -> None:
    member = FakeMember()
    app, _ = page(member)
    assert post(app, "pause").json() == {"paused": ["operator"]}
    assert post(app, "resume").json() == {"paused": []}
    assert member.asked == ["pause", "resume"]


def test_an_invite_comes_with_its_code() -> None:
    found = post(page(FakeMember())[0], "invite").json()
    assert found["link"].startswith("tapestry:")
    rows = found["qr"]
    assert len(rows) == len(rows[0]) >= 21
    assert [row[:7] for row in rows[:7]] == [  # ISO/IEC 18004: the finder pattern
        "1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111",
    ]  # fmt: skip


def test_a_text_comes_in_pieces_of_the_length_asked_for() -> None:
    member = FakeMember(text="xy")
    wish = {"prompt": "Tous", "bytes": 50, "temperature": 0.5}
    lines = post(page(member)[0], "generate", wish).body.decode().splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "xy"}] * 3
    sizes = [request["bytes"] for request in member.asked]
    assert sizes == [PIECE_BYTES, PIECE_BYTES, 50 - 2 * PIECE_BYTES]
    assert [request["prompt"] for request in member.asked] == ["Tous", "Tousxy", "Tousxyxy"]
    assert len({request["seed"] for request in member.asked}) > 1


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("ab\ufffd", "ab"),  # half a character is left to the next piece
        ("\ufffd", "\ufffd"),
        ("é\n\tक्\u200dष", "é\n\tक्\u200dष"),
        ("a\x1b[2J\x00\rb\u202ec\u2066", "a[2Jbc"),
    ],
)
def test_a_piece_is_readable_text(said: str, kept: str) -> None:
    wish = {"prompt": "", "bytes": 30, "temperature": 0}
    lines = post(page(FakeMember(text=said))[0], "generate", wish).body.decode().splitlines()
    assert json.loads(lines[0]) == {"text": kept}


@pytest.mark.parametrize(
    ("exit_code", "code"),
    [(NOT_READY, "not_ready"), (NO_DAEMON, "no_daemon"), (TIMEOUT, "slow"), (FAILURE, "failed")],
)
def test_a_member_that_fails_has_a_word_for_it(
    exit_code: int, code: str, words: dict[str, dict[str, Any]]
) -> None:
    app, _ = page(FakeMember(fails=TapestryError("a\nb\u202e", exit_code)))
    found = post(app, "pause")
    assert found.status >= 500
    assert found.json() == {"error": code, "detail": "a b"}
    wish = {"prompt": "a", "bytes": 9, "temperature": 0}
    assert post(app, "generate", wish).json() == {"error": code, "detail": "a b"}
    assert f"error_{code}" in words["en"]


def test_a_broken_character_is_shown_but_not_gone_on_with() -> None:
    member = FakeMember(text="a\ufffdb")
    wish = {"prompt": "Tous", "bytes": 40, "temperature": 0.5}
    lines = post(page(member)[0], "generate", wish).body.decode().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a\ufffdb"] * 2
    assert [request["prompt"] for request in member.asked] == ["Tous", "Tousab"]


def test_scores_are_shown_worst_first() -> None:
    found = post(page(FakeMember())[0], "evaluate").json()
    assert found == {"tables": [{"measure": "bits_per_byte", "rows": [["de", 3.0], ["fr", 2.0]]}]}


def test_one_text_at_a_time() -> None:
    class Slow(FakeMember):
        async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
            await trio.sleep(0.2)
            return {"text": "a"}

    app, _ = page(Slow())
    found: list[int] = []
    wish = json.dumps({"prompt": "a", "bytes": 9, "temperature": 0}).encode()

    async def one() -> None:
        answer = await ask_async(app, "POST", "/api/generate", good("POST"), wish)
        found.append(answer.status)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)

    trio.run(both)
    assert sorted(found) == [200, 429]


def test_a_viewer_hears_all_parts_and_then_what_changes() -> None:
    member = FakeMember()
    board = Board(member)
    app = make_app(member, board, PORT, KEY)

    async def watch() -> bytes:
        await board.look()
        path = await ticket(app)
        heard: list[bytes] = []

        def enough(body: bytes) -> bool:
            if body.count(b"event: log") == 1 and not heard:
                heard.append(body)
                member.status["round"] = 8
                nursery.start_soon(board.look)
            return body.count(b"event: state") == 2

        async with trio.open_nursery() as nursery:
            answer = await ask_async(app, "GET", path, good(x_tapestry_key=None), enough=enough)
        return answer.body

    found = events(trio.run(watch))
    assert {name for name, _ in found} == {
        "state",
        "neighbours",
        "loss",
        "gain",
        "languages",
        "left",
        "log",
    }
    rounds = [data["me"]["round"] for name, data in found if name == "state"]
    assert rounds == [7, 8]
    assert board.viewers == 0


async def ticket(app: Any) -> str:
    """Where a viewer listens."""
    made = await ask_async(app, "POST", "/api/ticket", good("POST"), b"{}")
    return f"/api/events?ticket={made.json()['ticket']}"


def test_viewers_are_few() -> None:
    member = FakeMember()
    board = Board(member)
    app = make_app(member, board, PORT, KEY)
    board.viewers = VIEWERS_MAX

    async def come() -> int:
        return (await ask_async(app, "GET", await ticket(app), good())).status

    assert trio.run(come) == 429


@pytest.mark.parametrize(
    ("failing", "code"), [(TapestryError("no daemon", NO_DAEMON), "no_daemon"), (None, "together")]
)
def test_the_page_stays_when_the_member_goes_and_comes(failing: Any, code: str) -> None:
    member = FakeMember(fails=TapestryError("no daemon", NO_DAEMON))
    board = Board(member)

    async def look() -> str:
        await board.look()
        member.fails = failing
        await board.look()
        return dict(board.news(0)[1])["state"]

    assert json.loads(trio.run(look))["situation"]["code"] == code


def test_nothing_is_told_twice() -> None:
    board = Board(FakeMember())

    async def look() -> tuple[int, int]:
        await board.look()
        first, _ = board.news(0)
        await board.look()
        return first, board.news(first)[0]

    first, second = trio.run(look)
    assert first == second > 0
