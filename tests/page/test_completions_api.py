"""/v1 for programs: answers and errors in OpenAI's form, and a door that opens nothing else."""

import http.client
import json
from typing import Any

import pytest
import trio
import trio.testing
from page_kit import HOST, KEY, ORIGIN, PORT, TOKEN, Answer, FakeMember, ask, ask_async, good, page
from starlette.types import ASGIApp

from tapestry_p2p.errors import NOT_READY, TapestryError
from tapestry_p2p.page.app import make_app
from tapestry_p2p.page.board import Board
from tapestry_p2p.page.completions import GONE, MAX_TOKENS, PIECE_BYTES, WAITING_MAX
from tapestry_p2p.page.guard import BODY_BYTES_MAX


def program(**instead: str | None) -> list[tuple[str, str]]:
    """The headers of a plain HTTP client; ``instead`` replaces (None: leaves out) some."""
    found: dict[str, str | None] = {
        "host": HOST, "authorization": f"Bearer {TOKEN}", "content-type": "application/json",
    }  # fmt: skip
    found |= {name.replace("_", "-"): value for name, value in instead.items()}
    return [(name, value) for name, value in found.items() if value is not None]


def complete(app: ASGIApp, **wish: Any) -> Answer:
    body = json.dumps({"prompt": "a", **wish}).encode()
    return ask(app, "POST", "/v1/completions", program(), body)


def events(answer: Answer) -> list[Any]:
    """Server-sent events: JSON, and the last word as it is."""
    blocks = [block.removeprefix("data: ") for block in answer.body.decode().split("\n\n")[:-1]]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


def test_a_completion_has_openais_form() -> None:
    member = FakeMember(text="xyz")
    answer = complete(page(member)[0], model="shared", max_tokens=50, temperature=0, seed=7)
    assert answer.status == 200
    found = answer.json()
    assert found["object"] == "text_completion"
    assert found["id"].startswith("cmpl-")
    assert found["model"] == "shared"
    assert found["choices"] == [
        {"text": "xyz" * 3, "index": 0, "logprobs": None, "finish_reason": "length"}
    ]
    assert found["usage"] == {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10}
    sizes = [request["bytes"] for request in member.asked]
    assert sizes == [PIECE_BYTES, PIECE_BYTES, 50 - 2 * PIECE_BYTES]
    assert {request["temperature"] for request in member.asked} == {0}
    assert member.asked[0]["seed"] == 7
    assert member.asked[2]["prompt"] == "axyzxyz"


def test_one_seed_is_one_text_and_none_is_another_each_time() -> None:
    def seeds(**wish: Any) -> list[int]:
        member = FakeMember()
        complete(page(member)[0], max_tokens=99, **wish)
        return [request["seed"] for request in member.asked]

    assert seeds(seed=3) == seeds(seed=3)
    assert len(set(seeds(seed=3))) == len(seeds(seed=3))
    assert seeds() != seeds()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "kept", "reason"),
    [
        ("lo w", "hel", "stop"),  # across two pieces
        (["zzz", "o"], "hell", "stop"),
        ("never", "hello hello hello", "length"),
        (["h"], "", "stop"),
    ],
)
def test_it_ends_before_a_stop_and_shows_no_half_of_it(
    stop: Any, kept: str, reason: str, stream: bool
) -> None:
    class Speaker(FakeMember):
        async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(request)
            return {"text": ["hello", " hello", " hello"][(len(self.asked) - 1) % 3]}

    class Waver(Speaker):
        async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(request)
            return {"text": ["hel", "lo w", "orld"][(len(self.asked) - 1) % 3]}

    member = Waver() if stop == "lo w" else Speaker()
    app, _ = page(member)
    answer = complete(app, stop=stop, stream=stream, max_tokens=3 * PIECE_BYTES)
    if stream:
        told = [event for event in events(answer) if event != "[DONE]"]
        text = "".join(event["choices"][0]["text"] for event in told)
        last = told[-1]["choices"][0]["finish_reason"]
        assert all(event["choices"][0]["finish_reason"] is None for event in told[:-1])
    else:
        (choice,) = answer.json()["choices"]
        text, last = choice["text"], choice["finish_reason"]
    assert (text, last) == (kept, reason)


def test_a_stream_is_events_and_an_end() -> None:
    answer = complete(
        page(FakeMember(text="ab"))[0],
        stream=True,
        max_tokens=2 * PIECE_BYTES,
        stream_options={"include_usage": True},
    )
    assert answer.headers["content-type"] == "text/event-stream"
    *told, usage, done = events(answer)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert "".join(event["choices"][0]["text"] for event in told) == "abab"
    assert len({event["id"] for event in told}) == 1


def test_several_prompts_are_several_choices() -> None:
    member = FakeMember(text="x")
    found = complete(page(member)[0], prompt=["one", "two"], max_tokens=5).json()
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert [request["prompt"] for request in member.asked] == ["one", "two"]
    assert found["usage"]["prompt_tokens"] == 6


def test_models_are_listed_the_sovereign_one_where_it_is_kept() -> None:
    member = FakeMember()
    app, _ = page(member)
    (row,) = ask(app, "GET", "/v1/models", program()).json()["data"]
    assert (row["id"], row["object"]) == ("shared", "model")
    member.status["gain"] = {"sovereign": {"value": 2.0}}
    found = ask(app, "GET", "/v1/models", program()).json()["data"]
    assert [row["id"] for row in found] == ["shared", "sovereign"]
    assert ask(app, "GET", "/v1/models/sovereign", program()).json()["id"] == "sovereign"
    missing = ask(app, "GET", "/v1/models/gpt-4", program())
    assert (missing.status, missing.json()["error"]["code"]) == (404, "model_not_found")
    complete(app, model="sovereign")
    assert member.asked[-1]["model"] == "sovereign"


WRONG: list[tuple[str, Any, int]] = [
    ("prompt", None, 400), ("prompt", 1, 400), ("prompt", [], 400), ("prompt", [1, 2], 400),
    ("prompt", "\ud800", 400), ("prompt", ["a"] * 9, 400), ("prompt", [["a"]], 400),
    ("model", "gpt-4", 404), ("model", 1, 404), ("model", ["shared"], 404),
    ("max_tokens", 0, 400), ("max_tokens", MAX_TOKENS + 1, 400), ("max_tokens", 1.5, 400),
    ("max_tokens", True, 400), ("max_tokens", "9", 400), ("temperature", -1, 400),
    ("temperature", 2.1, 400), ("temperature", "1", 400), ("temperature", True, 400),
    ("seed", -1, 400), ("seed", 1.0, 400), ("seed", 2**63, 400), ("stop", "", 400),
    ("stop", ["a"] * 5, 400), ("stop", [1], 400), ("stop", "a" * 65, 400), ("stream", 1, 400),
    ("stream", "true", 400), ("stream_options", [1], 400), ("n", 2, 400), ("best_of", 2, 400),
    ("echo", True, 400), ("logprobs", 1, 400), ("suffix", "x", 400), ("top_p", 0.5, 400),
    ("presence_penalty", 1, 400), ("frequency_penalty", 1, 400), ("logit_bias", {"1": 1}, 400),
    ("do", "export", 400), ("path", "/etc/passwd", 400),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "status"), WRONG, ids=lambda value: repr(value)[:20])
def test_what_cannot_be_done_is_refused_by_name(name: str, value: Any, status: int) -> None:
    member = FakeMember()
    answer = complete(page(member)[0], **{name: value})
    assert answer.status == status
    problem = answer.json()["error"]
    assert problem["param"] == name
    assert problem["type"] == "invalid_request_error"
    assert problem["message"]
    assert member.asked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 9000, b'{"prompt":NaN}'])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    member = FakeMember()
    answer = ask(page(member)[0], "POST", "/v1/completions", program(), body)
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert member.asked == []


REFUSED: list[tuple[dict[str, str | None], int]] = [
    ({"authorization": None}, 401), ({"authorization": ""}, 401), ({"authorization": TOKEN}, 401),
    ({"authorization": "Bearer"}, 401), ({"authorization": "Bearer "}, 401),
    ({"authorization": f"Bearer {KEY}"}, 401), ({"authorization": f"Basic {TOKEN}"}, 401),
    ({"authorization": f"Bearer {TOKEN}x"}, 401), ({"authorization": f"Bearer {TOKEN[:-1]}"}, 401),
    ({"authorization": f"Bearer  {TOKEN}"}, 401),
    ({"authorization": f"Bearer {TOKEN.upper()}"}, 401),
    ({"authorization": None, "x_tapestry_key": KEY}, 401), ({"authorization": "Bearer é"}, 401),
    ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403),
    ({"sec_fetch_site": "cross-site"}, 403), ({"sec_fetch_site": "same-site"}, 403),
    ({"host": "evil.example"}, 421), ({"host": f"evil.example:{PORT}"}, 421), ({"host": None}, 421),
    ({"content_type": "text/plain"}, 415), ({"content_type": None}, 415),
    ({"content_length": "99999"}, 413),
]  # fmt: skip


@pytest.mark.parametrize(("instead", "status"), REFUSED, ids=str)
def test_the_door_refuses_in_openais_form(instead: dict[str, str | None], status: int) -> None:
    member = FakeMember()
    body = json.dumps({"prompt": "a"}).encode()
    answer = ask(page(member)[0], "POST", "/v1/completions", program(**instead), body)
    assert answer.status == status
    problem = answer.json()["error"]
    assert (problem["code"] == "invalid_api_key") == (status == 401)
    assert TOKEN not in answer.body.decode()
    assert "access-control-allow-origin" not in answer.headers
    assert member.asked == []


def test_a_large_body_is_refused() -> None:
    body = json.dumps({"prompt": "a" * BODY_BYTES_MAX}).encode()
    assert ask(page(FakeMember())[0], "POST", "/v1/completions", program(), body).status == 413


@pytest.mark.parametrize("verb", ["pause", "export", "invite", "generate", "ticket"])
def test_the_token_opens_nothing_of_the_page(verb: str) -> None:
    member = FakeMember()
    headers = [*program(origin=ORIGIN, sec_fetch_site="same-origin"), ("x-tapestry-key", TOKEN)]
    assert ask(page(member)[0], "POST", f"/api/{verb}", headers, b"{}").status == 401
    assert member.asked == []


def test_the_pages_own_key_opens_nothing_of_programs() -> None:
    assert ask(page(FakeMember())[0], "GET", "/v1/models", good()).status == 401


def test_without_a_token_no_program_may_ask() -> None:
    member = FakeMember()
    app = make_app(member, Board(member), PORT, KEY)
    for shown in ("Bearer ", "Bearer", ""):
        assert ask(app, "GET", "/v1/models", program(authorization=shown)).status == 401


@pytest.mark.parametrize("path", ["/v1/", "/v1/chat/completions", "/v1/models/../x"])
def test_other_paths_are_unknown(path: str) -> None:
    assert ask(page(FakeMember())[0], "POST", path, program(), b"{}").status in (404, 405)


@pytest.mark.parametrize("stream", [False, True])
def test_a_trainer_that_is_not_there_is_said_so(stream: bool) -> None:
    app, _ = page(FakeMember(fails=TapestryError("still\nstarting", NOT_READY)))
    answer = complete(app, stream=stream)
    problem = events(answer)[0]["error"] if stream else answer.json()["error"]
    assert problem["type"] == "server_error"
    assert problem["message"] == "still starting"
    assert answer.status == (200 if stream else 503)
    assert ask(app, "GET", "/v1/models", program()).status == 503


def test_programs_wait_for_one_another_but_not_in_endless_rows() -> None:
    class Slow(FakeMember):
        async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
            await trio.sleep(0.05)
            return {"text": "a"}

    app, _ = page(Slow())
    body = json.dumps({"prompt": "a"}).encode()
    found: list[int] = []

    async def one() -> None:
        answer = await ask_async(app, "POST", "/v1/completions", program(), body)
        found.append(answer.status)

    async def many() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(WAITING_MAX + 4):
                nursery.start_soon(one)

    trio.run(many)
    assert found.count(429) == 3
    assert found.count(200) == WAITING_MAX + 1


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_leaves_the_trainer_free(stream: bool) -> None:
    gone = trio.Event()

    class Watched(FakeMember):
        async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
            if len(self.asked) == 3:
                gone.set()
            await trio.lowlevel.checkpoint()
            return await super().ask_trainer(request)

    member = Watched(text="ab")
    app, _ = page(member)
    body = json.dumps({"prompt": "a", "stream": stream, "max_tokens": MAX_TOKENS}).encode()
    answer = ask(app, "POST", "/v1/completions", program(), body, gone=gone)
    assert answer.status == (200 if stream else GONE)
    assert 3 <= len(member.asked) < 8 < MAX_TOKENS // PIECE_BYTES
    assert complete(app).status == 200


def test_whoever_hangs_up_while_it_waits_is_never_served() -> None:
    """Its turn would come when nobody is there any more."""
    member, gone = FakeMember(), trio.Event()
    app, _ = page(member)
    body = json.dumps({"prompt": "mine"}).encode()

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            member.ask_trainer = slow  # type: ignore[method-assign]
            for _ in range(2):
                nursery.start_soon(
                    ask_async, app, "POST", "/v1/completions", program(), body, None, gone
                )
            await trio.testing.wait_all_tasks_blocked()
            gone.set()

    async def slow(request: dict[str, Any]) -> dict[str, Any]:
        member.asked.append(request)
        await trio.sleep_forever()
        raise AssertionError

    trio.run(both)
    assert len(member.asked) == 1


def test_a_plain_client_of_the_standard_library_is_understood() -> None:
    """What it sends by itself must be enough: no Origin, no header of ours."""
    client = http.client.HTTPConnection("127.0.0.1", PORT)
    sent: list[bytes] = []
    client.send = lambda data: sent.append(bytes(data))  # type: ignore[method-assign, arg-type]
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    client.request("POST", "/v1/completions", b'{"prompt": "a"}', headers)
    head, _, body = b"".join(sent).partition(b"\r\n\r\n")
    rows = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    given = [(key.decode(), value.decode()) for key, value in rows]
    answer = ask(page(FakeMember())[0], "POST", "/v1/completions", given, body)
    assert answer.status == 200
