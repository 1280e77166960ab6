"""`rollback`: this member goes on from its own state of some rounds ago, running or stopped.

Nothing that was published is taken back: a new entry states the earlier copy, and whoever follows
this member takes that whole.
"""

from typing import Any

from tapestry_p2p.cli.output import show
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import NO_DAEMON, OK, TEMPORARY, TapestryError

WAIT_S = 60.0


def rollback(*, rounds: int = 0, json: bool = False) -> int:
    """Go on from this member's own state of some rounds ago; without --rounds say what is kept.

    For a member that learned from bad data: mend the data, then roll back. The others keep what
    they took of it until they mix on. Works on a running member and on a stopped one, which then
    begins there. Exit status 6 if that state is not kept.

    Example: tapestry rollback --rounds 20

    Parameters
    ----------
    rounds
        How many rounds back.
    json
        Print it as JSON.
    """
    paths = find_paths()
    if not rounds:
        return _what_is_kept(paths, json)
    try:
        asked = {"do": "rollback", "rounds": rounds}
        found: dict[str, Any] = ask(paths.control_socket, asked, WAIT_S)
        if "under_way" in found:
            line = f"it is being done, from round {found['round']}; `tapestry log` tells when it is"
            show(found, as_json=json, lines=[line])
            return OK
        how = f"entry {found['seq']} states it, followers take it whole"
    except TapestryError as error:
        if error.exit_code != NO_DAEMON:
            raise
        now, taken = _of_a_stopped_one(paths, rounds)
        found, how = {"round": now, "taken": taken}, "the next start begins there"
    line = f"after round {found['round']} it has the state of round {found['taken']}: {how}"
    show(found, as_json=json, lines=[line])
    return OK


def _of_a_stopped_one(paths: Paths, rounds: int) -> tuple[int, int]:
    from tapestry_p2p.daemon.manifest import load_manifest
    from tapestry_p2p.daemon.rollback import lay_down
    from tapestry_p2p.daemon.store import Store

    manifest = load_manifest(paths.manifest)
    store = Store(paths.state / "store", manifest.streams.ring)
    try:
        return lay_down(store, rounds, manifest.schema.parameters, manifest.limits.norm_max)
    except OSError as error:
        words = f"nothing was changed: cannot write to {store.directory}: {error.strerror}"
        raise TapestryError(words, TEMPORARY) from error
    finally:
        store.close()


def _what_is_kept(paths: Paths, json: bool) -> int:
    from tapestry_p2p.daemon.past import Past
    from tapestry_p2p.daemon.rollback import in_words, rounds_back, stretches
    from tapestry_p2p.daemon.store import read_entries
    from tapestry_p2p.gossip.header import decode_signed

    folder = paths.state / "store"
    entries = read_entries(folder)
    now = max((decode_signed(entry.signed).header.round for entry in entries), default=0)
    possible = rounds_back(stretches(Past(folder / "past", 1), entries), now)
    line = f"round {now}; possible: {in_words(possible)} back (--rounds N)"
    show({"round": now, "rounds": possible}, as_json=json, lines=[line])
    return OK
