"""The command line: finds a verb, runs it, turns an expected failure into one line and a status.

Knows the verbs by name alone: each is imported when it is asked for, so that one which only talks
to the daemon loads neither jax nor libp2p. A verb is a function; what it returns, if anything, is
the exit status (errors.py lists them).
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tapestry_p2p.errors import FAILURE, NO_DAEMON, OK, USAGE, TapestryError

if TYPE_CHECKING:
    from cyclopts import App

EPILOGUE = "Of several networks on this machine --network NAME says which (tapestry networks)."
INTERRUPTED = 130  # as a shell reports a program that ended by Ctrl-C

# (verb, where it is, what it does); the order is that of --help
Verb = tuple[str, str, str]
VERBS: dict[str, tuple[Verb, ...]] = {
    "A network on this machine": (
        ("demo", "networks:demo", "See seven members learn together, one of them hostile."),
        ("testnet", "networks:testnet", "Run a network of real processes and report its gain."),
        ("simulate", "simulate:simulate", "Run a network in virtual time, from one seed."),
    ),
    "A member": (
        ("init", "founding:init", "Make a key, and found a network of your own."),
        ("join", "joining:join", "Join a network by an invite link or its network.toml."),
        ("config", "configuration:app", "Check or show the configuration."),
        ("data", "datasets:app", "Get texts to train on."),
        ("new", "new:new", "Write a project with a model of your own."),
        ("leave", "leaving:leave", "Leave its network, and keep the model."),
        ("retire", "retiring:retire", "End a stolen key for good, everywhere."),
        ("networks", "instances:networks", "List the networks on this machine."),
        ("id", "about:id_", "Show this member's public name."),
        ("paths", "about:paths", "Show where this member's files lie."),
    ),
    "A running member": (
        ("run", "member:run", "Run this member."),
        ("status", "member:status", "Show what it does."),
        ("peers", "member:peers", "Show the other members."),
        ("page", "page:page", "Show it in your browser."),
        ("invite", "member:invite", "Print a link by which others can join."),
        ("generate", "model:generate", "Let its model go on with a text."),
        ("eval", "model:evaluate", "Judge its model on its own held-out text."),
        ("export", "export:export", "Write its model as a folder to take away."),
        ("pause", "member:pause", "Let it train no more for a while."),
        ("resume", "member:resume", "Let it train again."),
        ("stop", "member:stop", "Tell it to save and end."),
        ("rollback", "rollback:rollback", "Take up its own state of some rounds ago."),
        ("audit", "audit:audit", "Show what left this machine."),
        ("log", "log:log", "Show what it logged."),
        ("metrics", "metrics:metrics", "Show what it counts, for Prometheus."),
        ("bugreport", "bugreport:bugreport", "Write what a developer needs into one file."),
        ("doctor", "doctor:doctor", "Look for what is wrong, and mend it."),
        ("service", "service:app", "Run it by systemd."),
    ),
    "A model taken away": (
        ("verify", "verify:verify", "Check an exported folder, without a network."),
        ("import", "import_:import_", "Keep a verified one, to use it by its name."),
    ),
    "Else": (
        ("completions", "completions:completions", "Print a completion script for a shell."),
        ("man", "completions:man", "Write manual pages."),
        ("version", "about:version", "Show the version."),
    ),
}

# Scripts poll these; as they have nothing to parse they skip the parser, which takes .2 s to load.
DIRECT: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    ("version",): ("about:version", {}),
    ("--version",): ("about:version", {}),
    ("run",): ("member:run", {}),
    ("stop",): ("member:stop", {}),
    ("status",): ("member:status", {}),
    ("status", "--json"): ("member:status", {"json": True}),
    ("metrics",): ("metrics:metrics", {}),
    ("peers",): ("member:peers", {}),
    ("peers", "--json"): ("member:peers", {"json": True}),
    ("networks", "--names"): ("instances:networks", {"names": True}),
}

OWN_NETWORK = ("init", "verify")  # verbs with a --network of their own, which means another thing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process unless given); the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(_choose_network(words))
        sys.stdout.flush()
    except TapestryError as error:
        return fail(_why(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return status


def _why(error: TapestryError) -> str:
    """What to say: where no daemon answers because the member has left, that."""
    if error.exit_code != NO_DAEMON:
        return error.message
    from tapestry_p2p.daemon.departure import need_member
    from tapestry_p2p.daemon.paths import find_paths

    try:
        need_member(find_paths().state / "store")
    except TapestryError as left:
        return left.message
    return error.message


def fail(message: str, exit_code: int = FAILURE) -> int:
    """Write one line to stderr; the exit code, to be returned."""
    line = "".join(c if c.isprintable() else " " for c in message)
    print(f"tapestry: {line}", file=sys.stderr)
    return exit_code


def _choose_network(words: list[str]) -> list[str]:
    """The words without --network NAME, which says which of several networks is meant.

    It may stand anywhere; after `init` and `verify` it is an option of that verb: what people call
    the network, and the id that must be met.
    """
    for place, word in enumerate(words):
        option, equals, name = word.partition("=")
        if word == "--" or (word in OWN_NETWORK and place == 0):
            break
        if option == "--network":
            if not equals and place + 1 == len(words):
                raise TapestryError("--network NAME: the name is missing", USAGE)
            name = name if equals else words[place + 1]
            rest = words[:place] + words[place + (1 if equals else 2) :]
            from tapestry_p2p.cli.instances import choose

            choose(name, rest[:1])
            return rest
    return words


def _run(words: list[str]) -> int:
    direct = DIRECT.get(tuple(words))
    if direct is not None:
        function, options = direct
        return _status(_load(function)(**options))
    from cyclopts import CycloptsError

    try:
        app = make_app(in_full=words[0] if words else "")
        result = app(
            words or ["--help"],
            print_error=False,
            exit_on_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        what = " ".join(str(error).split())
        return fail(f"{what} (tapestry {_verb(words)}--help shows what is possible)", USAGE)
    return _status(result)


def make_app(in_full: str | None = "") -> "App":
    """The parser with all verbs, none of them imported.

    Of the verb ``in_full`` (None: of all) the help is its whole docstring, not one line.
    """
    from cyclopts import App, Group, Parameter

    app = App(
        name="tapestry",
        help="Train one open model together: no server, and no data handed over.",
        version_flags=(),
        help_flags=("--help", "-h"),
        help_epilogue=EPILOGUE,
        default_parameter=Parameter(negative=(), show_default=_worth_showing),
    )
    for order, (title, verbs) in enumerate(VERBS.items()):
        group = Group(title, sort_key=order)
        for place, (name, function, help_) in enumerate(verbs):
            found = f"tapestry_p2p.cli.{function}"
            shown = None if in_full in (name, None) else help_
            app.command(found, name=name, help=shown, group=group, sort_key=place)
    return app


def _worth_showing(default: Any) -> str | None:
    return str(default) if default else None


def _load(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"tapestry_p2p.cli.{module}"), name)
    return found


def _verb(words: Sequence[str]) -> str:
    names = {name for verbs in VERBS.values() for name, _, _ in verbs}
    return f"{words[0]} " if words and words[0] in names else ""


def _status(result: object) -> int:
    return result if type(result) is int else OK


if __name__ == "__main__":
    sys.exit(main())
