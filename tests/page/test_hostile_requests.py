"""The page's door: some hundreds of requests that must be refused, and touch nothing behind it."""

import itertools
import json
from typing import Any

import pytest
import trio
from page_kit import HOST, KEY, ORIGIN, PORT, FakeMember, ask, ask_async, good, page, scope_of
from starlette.types import Message

from tapestry_p2p.page.guard import BODY_BYTES_MAX, HEADERS, POLICY

VERBS = ("pause", "resume", "invite", "export", "evaluate", "generate", "ticket")
WISH = json.dumps({"prompt": "a", "bytes": 20, "temperature": 0.8}).encode()

HOSTS = [
    "", "localhost", "127.0.0.1", "[::1]", "evil.example", f"evil.example:{PORT}", "127.0.0.1:80",
    "127.0.0.1:8421", f"localhost.evil.example:{PORT}", f"127.0.0.1.nip.example:{PORT}",
    f"0.0.0.0:{PORT}", f"127.1:{PORT}", f"2130706433:{PORT}", f"0x7f.1:{PORT}", f"127.0.0.2:{PORT}",
    f"LOCALHOST.:{PORT}", f"localhost:{PORT}.evil.example", f"evil@127.0.0.1:{PORT}",
    f"127.0.0.1:{PORT}:{PORT}", f"127.0.0.1:{PORT}/", f" 127.0.0.1:{PORT}", f"127.0.0.1:{PORT} ",
    f"127.0.0.1:0{PORT}", f"[::ffff:127.0.0.1]:{PORT}", f"[::2]:{PORT}", f"127.0.0.1:{PORT}#",
    f"127.0.0.1:{PORT},evil.example", f"evil.example,127.0.0.1:{PORT}", "localhost:",
    f"127.0.0.1\t:{PORT}", f"http://127.0.0.1:{PORT}", f"tapestry.local:{PORT}",
]  # fmt: skip
ORIGINS = [
    "null", "", "http://evil.example", "https://evil.example", f"https://127.0.0.1:{PORT}",
    "http://127.0.0.1", "http://127.0.0.1:8421", "http://127.0.0.1:80", "http://localhost",
    f"http://localhost:{PORT}.evil.example", f"http://127.0.0.1:{PORT}.evil.example",
    f"http://evil.example:{PORT}", f"http://127.0.0.1:{PORT}/", f"http://127.0.0.1:{PORT} ",
    f"HTTP://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT}@evil.example", "file://",
    f"ws://127.0.0.1:{PORT}", f"http://[::]:{PORT}", "chrome-extension://abcdef",
    f"http://evil.example http://127.0.0.1:{PORT}", f"http://127.0.0.2:{PORT}", "*",
    f"http://0.0.0.0:{PORT}", "data:", "moz-extension://x", f"//127.0.0.1:{PORT}", HOST,
]  # fmt: skip
KEYS = [
    None, "", " ", "x", KEY[:-1], KEY + "x", KEY.upper(), f" {KEY}", f"{KEY} ", f"Bearer {KEY}",
    "undefined", "null", "true", "*", KEY[::-1], KEY * 2, "é", "\x00", "a" * 5000, f"{KEY},{KEY}",
]  # fmt: skip
KINDS = [
    None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/jsonx", "text/json", "application/xml", "json", "application/json, text/plain",
]  # fmt: skip
PATHS = [
    "/../etc/passwd", "/..", "/../", "/./", "//", "//etc/passwd", "/page.js/", "/PAGE.JS",
    "/page.py",
    "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/%2e%2e%2fpage.js", "/page%2ejs",
    "/static/page.js", "/static/../guard.py", "/guard.py", "/app.py", "/__init__.py", "/index.html",
    "/..\\..\\windows\\win.ini", "/page.js%00", "/page.js\x00.css", "/.git/config", "/.env",
    "/etc/passwd", "/proc/self/environ", "/key.pem", "/state/key.pem", "/network.toml", "/api",
    "/api/", "/api//pause", "/api/./pause", "/api/../api/pause", "/api/pause/", "/api/Pause",
    "/api/status", "/api/stop", "/api/go", "/api/retire", "/api/rollback", "/api/arm",
    "/api/copies",
    "/api/peers", "/api/__class__", "/api/ticket%20", "/metrics", "/favicon.ico", "/robots.txt",
    "/wp-login.php", "/" + "a" * 60, "/" + "a" * 5000, "/é", "/\u202epage.js", "page.js", "",
    "http://evil.example/", "*", "/ ", "/\r\nSet-Cookie: a=b", "/words.json.map", "/icon.svg/x",
]  # fmt: skip
METHODS = [
    "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "post", "Post", "PROPFIND",
    "PAUSE", "", "GET ", "X" * 200,
]  # fmt: skip
FIT: dict[str, Any] = {"prompt": "a", "bytes": 20, "temperature": 1}
WRONG: dict[str, list[Any]] = {
    "prompt": [None, 1, ["a"], "a" * 2001, "\ud800", {}, True],
    "bytes": [None, 0, -1, 1001, 10**9, 1.5, True, "9", []],
    "temperature": [None, -1, 2.1, 99, "1", True, [], 1e308],
}
WISHES: list[Any] = [
    None, 1, "a", [], [[]], {}, {"prompt": "a"}, {"do": "export", "path": "/etc/passwd"},
    *({**FIT, field: wrong} for field, all_wrong in WRONG.items() for wrong in all_wrong),
]  # fmt: skip
BODIES = [
    b"", b"{", b"\x00", b"\xff\xfe", b"nan", b'{"prompt": NaN}', b"[" * 15000, b'{"a":' * 3000,
    b'{"prompt":"a","bytes":20,"temperature":NaN}',
    b'{"prompt":"a","bytes":20,"temperature":1e999}',
]  # fmt: skip


def refused(
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    status: int | tuple[int, ...],
    body: bytes | list[bytes] = b"{}",
) -> None:
    """The request is refused so, sealed as every answer, and nothing behind the door was asked."""
    member = FakeMember()
    answer = ask(page(member)[0], method, path, headers, body if method == "POST" else b"")
    assert answer.status in (status if isinstance(status, tuple) else (status,)), answer
    assert member.asked == []
    assert answer.headers["content-security-policy"] == POLICY
    assert "access-control-allow-origin" not in answer.headers
    assert "location" not in answer.headers
    assert KEY.encode() not in answer.body


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/api/pause")])
def test_a_foreign_host_name_is_refused(method: str, path: str, host: str) -> None:
    refused(method, path, good(method, host=host), 421)


@pytest.mark.parametrize(
    "hosts", [[], [HOST, HOST], [HOST, "evil.example"], ["evil.example", HOST]]
)
def test_exactly_one_host_is_wanted(hosts: list[str]) -> None:
    headers = [("host", host) for host in hosts] + good(host=None)
    refused("GET", "/", headers, 421)


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("verb", ["pause", "generate"])
def test_a_foreign_origin_is_refused(verb: str, origin: str) -> None:
    refused("POST", f"/api/{verb}", good("POST", origin=origin), 403)


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_foreign_origin_may_not_even_look(origin: str) -> None:
    refused("GET", "/api/events", good(origin=origin), 403)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin", "none,cross-site"])
def test_what_the_browser_says_another_site_sent_is_refused(verb: str, site: str) -> None:
    refused("POST", f"/api/{verb}", good("POST", sec_fetch_site=site), 403)


@pytest.mark.parametrize("verb", VERBS)
def test_a_post_without_an_origin_is_refused(verb: str) -> None:
    refused("POST", f"/api/{verb}", good("POST", origin=None), 403)
    refused("POST", f"/api/{verb}", [*good("POST"), ("origin", ORIGIN)], 403)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("verb", ["pause", "generate", "invite"])
def test_without_the_key_of_this_start_nothing_is_done(verb: str, key: str | None) -> None:
    refused("POST", f"/api/{verb}", good("POST", x_tapestry_key=key), 401)


@pytest.mark.parametrize("verb", VERBS)
def test_the_key_in_a_cookie_or_an_address_is_no_key(verb: str) -> None:
    headers = good("POST", x_tapestry_key=None, cookie=f"key={KEY}; x-tapestry-key={KEY}")
    refused("POST", f"/api/{verb}?key={KEY}", headers, 401)
    refused("POST", f"/api/{verb}", [*good("POST"), ("x-tapestry-key", "x")], 401)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_changes_nothing(verb: str, method: str) -> None:
    refused(method, f"/api/{verb}", good(), 405)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/", "/api/pause"])
def test_other_methods_are_unknown(method: str, path: str) -> None:
    refused(method, path, good("POST"), 405)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_path_leads_anywhere_else(method: str, path: str) -> None:
    refused(method, path, good(method), (404, 405))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_form_of_another_site_can_send_is_refused(kind: str | None) -> None:
    refused("POST", "/api/pause", good("POST", content_type=kind), 415)


@pytest.mark.parametrize("length", ["16385", "999999999999999999999", "-1", "1e3", "0x10", "", "x"])
def test_a_body_that_says_it_is_large_or_odd_is_not_read(length: str) -> None:
    refused("POST", "/api/pause", good("POST", content_length=length), 413)


@pytest.mark.parametrize("parts", [1, 2, 50])
def test_a_body_that_grows_large_is_dropped(parts: int) -> None:
    body = [b"x" * (BODY_BYTES_MAX // parts + 1)] * parts
    refused("POST", "/api/generate", good("POST"), 413, body)


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_a_wish_out_of_bounds_reaches_no_trainer(wish: Any) -> None:
    refused("POST", "/api/generate", good("POST"), 400, json.dumps(wish).encode())


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    refused("POST", "/api/generate", good("POST"), 400, body)


@pytest.mark.parametrize(
    "query", ["", "?ticket=", "?ticket=x", f"?ticket={KEY}", f"?key={KEY}", "?ticket=" + "a" * 100]
)
def test_events_want_a_ticket(query: str) -> None:
    refused("GET", f"/api/events{query}", good(), 401)


def test_a_long_query_is_refused() -> None:
    refused("GET", "/?" + "a" * 200, good(), 404)


def test_a_ticket_is_good_once() -> None:
    app, _ = page(FakeMember())

    async def twice() -> list[int]:
        made = await ask_async(app, "POST", "/api/ticket", good("POST"), b"{}")
        path = f"/api/events?ticket={made.json()['ticket']}"
        first = await ask_async(app, "GET", path, good(), enough=lambda body: bool(body))
        second = await ask_async(app, "GET", path, good())
        return [first.status, second.status]

    assert trio.run(twice) == [200, 401]


def test_tickets_are_few() -> None:
    app, _ = page(FakeMember())

    async def many() -> list[int]:
        return [
            (await ask_async(app, "POST", "/api/ticket", good("POST"), b"{}")).status
            for _ in range(40)
        ]

    found = trio.run(many)
    assert found[:32] == [200] * 32
    assert set(found[32:]) == {429}


def test_web_sockets_are_closed_unheard() -> None:
    member = FakeMember()
    app, _ = page(member)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def connect() -> None:
        await app({**scope_of("GET", "/", good()), "type": "websocket"}, receive, send)

    trio.run(connect)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert member.asked == []


@pytest.mark.parametrize(
    ("site", "origin"),
    list(itertools.product(["cross-site", "none", "same-origin"], [None, ORIGIN])),
)
def test_the_empty_page_opens_from_a_link_and_holds_no_secret(
    site: str, origin: str | None
) -> None:
    headers = good(sec_fetch_site=site, origin=origin, x_tapestry_key=None)
    answer = ask(page(FakeMember())[0], "GET", "/", headers)
    assert answer.status == 200
    assert KEY.encode() not in answer.body
    assert {name.decode() for name, _ in HEADERS} <= answer.headers.keys()


@pytest.mark.parametrize("path", ["/page.js", "/page.css", "/words.json"])
def test_other_sites_may_not_take_the_files_in(path: str) -> None:
    refused("GET", path, good(sec_fetch_site="cross-site"), 403)


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    html = ask(page(FakeMember())[0], "GET", "/", good()).body.decode()
    assert "unsafe" not in POLICY
    assert "http:" not in POLICY
    assert "<style" not in html
    assert " style=" not in html
    assert " on" + "click" not in html
    assert html.count("<script") == html.count("<script src=")
    assert "//" not in html.replace("<!doctype html>", "")
