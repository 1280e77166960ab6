"""Runs the page: listens on 127.0.0.1, watches the member, tells its owner the link.

The link's key stands behind a `#`: a browser sends that part to nobody, not even to us; the page's
own script takes it from there. Whoever may read the private runtime folder may have the link.
"""

import json
import logging
import os
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_http

from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import FAILURE, TapestryError
from tapestry_p2p.page.app import make_app
from tapestry_p2p.page.board import Board
from tapestry_p2p.page.daemon import LocalMember
from tapestry_p2p.page.guard import BODY_BYTES_MAX
from tapestry_p2p.page.link import LINK_FILE

HOST, PORT = "127.0.0.1", 8420
DOOR_FILE, TOKEN_FILE = "page.html", "api.token"
PORT_TRIES = 20  # pages of several networks, one beside the other
READ_TIMEOUT_S, KEEP_ALIVE_S = 20, 30
PROBE_S = 2.0
TOKEN_CHARS_MIN = 32


def run(
    paths: Paths, port: int | None, tell: Callable[[str, bool], None], tether: bool = False
) -> None:
    """Serve until a signal (``tether``: or the end of standard input).

    ``port`` None: the usual one, or the next that is free.
    ``tell(link, fresh)`` is called once the page answers. If this member has a page already,
    tells its link (``fresh`` False) and returns.
    TapestryError if the port is taken.
    """
    if (link := running(paths)) is not None:
        tell(link, False)
        return
    key = secrets.token_urlsafe(32)
    with listen_near(PORT) if port is None else listen(port) as sock:
        port = sock.getsockname()[1]
        link = f"http://{HOST}:{port}/#key={key}"
        try:
            note(paths, link)
            trio.run(_serve, paths, sock, (key, token(paths)), lambda: tell(link, True), tether)
        finally:
            for name in (LINK_FILE, DOOR_FILE):
                (paths.page / name).unlink(missing_ok=True)


def listen_near(port: int) -> socket.socket:
    """As `listen`, at the first port from this one on that is free: other pages may be there."""
    for near in range(port, port + PORT_TRIES - 1):
        try:
            return listen(near)
        except TapestryError:
            continue
    return listen(port + PORT_TRIES - 1)


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1 alone. TapestryError if the port is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(64)
    except OSError as error:
        sock.close()
        raise TapestryError(
            f"port {port} of this machine cannot be had ({error.strerror});"
            " take another: tapestry page --port 0",
            FAILURE,
        ) from error
    return sock


async def _serve(
    paths: Paths,
    sock: socket.socket,
    known_by: tuple[str, str],
    ready: Callable[[], None],
    tether: bool,
) -> None:
    member = LocalMember(paths)
    board = Board(member)
    app = make_app(member, board, sock.getsockname()[1], *known_by)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_when_told, nursery.cancel_scope)
        if tether:
            nursery.start_soon(_end_with_stdin, nursery.cancel_scope)
        nursery.start_soon(board.watch)
        await nursery.start(serve_http, app, http_config(sock))
        ready()


async def _end_when_told(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(aiter(signals))
        scope.cancel()


async def _end_with_stdin(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some(4096):
            pass
    scope.cancel()


def http_config(sock: socket.socket) -> Config:
    """Hypercorn's settings: this socket, no log of requests, small heads, short patience."""
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]  # it closes it
    config.accesslog = None
    config.errorlog = logging.getLogger("tapestry.page")
    config.include_server_header = False
    config.h11_max_incomplete_size = BODY_BYTES_MAX
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.graceful_timeout = 0.5
    config.alpn_protocols = ["http/1.1"]
    return config


def note(paths: Paths, link: str) -> None:
    """Write the link where this user alone can read it: as JSON, and as a file that leads there.

    A browser is started with the file's name: what stands in a command line every user can read.
    TapestryError if the folder is not to be had.
    """
    make_folder(paths)
    _private(paths.page / LINK_FILE, json.dumps({"link": link, "pid": os.getpid()}))
    _private(
        paths.page / DOOR_FILE,
        f'<!doctype html><meta charset="utf-8"><title>Tapestry</title>'
        f'<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">Tapestry</a>\n',
    )


def token(paths: Paths) -> str:
    """What programs must show at /v1; made once, and kept over restarts. OSError."""
    path = paths.page / TOKEN_FILE
    try:
        found = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        found = ""
    if len(found) < TOKEN_CHARS_MIN:
        found = secrets.token_urlsafe(32)
        _private(path, found + "\n")
    return found


def make_folder(paths: Paths) -> None:
    """The page's own folder: a unit of the system is given it, and may make no other."""
    if paths.text is None:
        paths.make()
        return
    try:
        paths.page.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TapestryError(
            f"{paths.page} cannot be made: {error.strerror}; sudo systemctl start"
            f" tapestry-page@{paths.page.name}",
            FAILURE,
        ) from error


def _private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)


def running(paths: Paths) -> str | None:
    """The link of this member's page if one answers to it; else None."""
    try:
        link = json.loads((paths.page / LINK_FILE).read_text())["link"]
        host, _, key = link.removeprefix("http://").partition("/#key=")
        connection = HTTPConnection(host, timeout=PROBE_S)
        headers = {
            "X-Tapestry-Key": key,
            "Origin": f"http://{host}",
            "Content-Type": "application/json",
        }
        connection.request("POST", "/api/ticket", b"{}", headers)
        answered = connection.getresponse().status == 200
        connection.close()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HTTPException):
        return None
    return str(link) if answered else None


def open_browser(paths: Paths) -> bool:
    """Show the page in this user's browser; False if there is none."""
    return webbrowser.open((paths.page / DOOR_FILE).as_uri())
