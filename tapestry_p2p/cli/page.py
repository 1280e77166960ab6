"""`page`: this member in the browser, by a process of its own that asks it as other verbs do."""

import getpass
import os
import socket
import sys

from tapestry_p2p.cli.output import note, say
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import OK, USAGE, TapestryError

PORT_MIN, PORT_MAX = 1024, 65535  # below: not for users, and 80 is left out of Host


def page(
    *, port: int | None = None, open: bool = False, api: bool = False, tether: bool = False
) -> int:
    """Show this member in the browser, on this machine alone, until Ctrl-C.

    The link that it prints has the key of this start: only who has it can look. If the page runs
    already, prints its link.

    Other programs can use the model at /v1, in the form of OpenAI's completions.

    Example: tapestry page --open

    Parameters
    ----------
    port
        Where to listen on 127.0.0.1; 0: any free port. 8420 unless given, or the next that is free.
    open
        Show it in your browser at once.
    api
        Print, as lines for a shell, where other programs find the model, and the token for them.
    tether
        End when standard input is closed, as `run` wants it of the page that it starts.
    """
    if port and not PORT_MIN <= port <= PORT_MAX:
        raise TapestryError(f"--port: 0, or {PORT_MIN} to {PORT_MAX}", USAGE)
    from tapestry_p2p.page import serve

    paths = find_paths()

    def tell(link: str, fresh: bool) -> None:
        say(link)
        if api:
            say(*_for_programs(link, serve.token(paths)))
        sys.stdout.flush()  # a program may read it
        if open and not serve.open_browser(paths):
            note("no browser was found; open the link yourself")
        if tunnel := _tunnel(link):
            note(tunnel)
        if fresh:
            note("on this machine alone; Ctrl-C ends the page, not the member")

    serve.run(paths, port, tell, tether)
    return OK


def _for_programs(link: str, token: str) -> tuple[str, str]:
    base = link.partition("/#")[0]
    return f"OPENAI_BASE_URL={base}/v1", f"OPENAI_API_KEY={token}"


def _tunnel(link: str) -> str:
    """How to look from another machine, where this one is a server; "" where it is not."""
    told = os.environ.get("SSH_CONNECTION", "").split()
    if not told and not os.environ.get("TAPESTRY_SERVICE"):
        return ""
    port = link.partition("/#")[0].rpartition(":")[2]
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    host = told[2] if len(told) == 4 else socket.gethostname()
    return f"from your own machine: ssh -N -L {port}:127.0.0.1:{port} {user}@{host}, then the link"
