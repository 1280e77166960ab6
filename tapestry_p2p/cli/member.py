"""Verbs of a running member: start it and ask it. All but ``run`` only talk to it.

Nothing here imports jax or libp2p, except what ``run`` starts. A name is no identity: it is printed
without control characters, never without the end of the id, and with a warning where it looks like
another's.
"""

from typing import Any

from tapestry_p2p.cli.output import note, show
from tapestry_p2p.daemon.ask import ask, is_well
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import NOT_READY, OK
from tapestry_p2p.page.names import alike, called, clean, mixed_scripts, short


def run(*, apart: bool = False) -> int:
    """Run this member until Ctrl-C, SIGTERM or `tapestry stop`.

    Exit status 6 if it has left its network, or another process signs with its key; 75 if it runs
    already.

    Example: tapestry run

    Parameters
    ----------
    apart
        Start no trainer: wait for one that another unit starts (`tapestry service`).
    """
    from tapestry_p2p.daemon.ending import ENDING

    ENDING.listen()
    from tapestry_p2p.daemon.start import start

    start(find_paths(), apart)
    return OK


def stop() -> int:
    """Tell the running member to save and end.

    Example: tapestry stop
    """
    ask(find_paths().control_socket, {"do": "stop"})
    return OK


def pause() -> int:
    """Let the running member train no more, until `resume`; it stays in the network.

    Its trainer saves and ends: memory and cores are free. Also after a restart.

    Example: tapestry pause
    """
    ask(find_paths().control_socket, {"do": "pause"})
    return OK


def resume() -> int:
    """Let the running member train again.

    Example: tapestry resume
    """
    reasons = ask(find_paths().control_socket, {"do": "resume"})["paused"]
    if reasons:
        note(f"still paused: {', '.join(reasons.values())} (see [budget] in tapestry.toml)")
    return OK


def status(*, json: bool = False) -> int:
    """Show what the running member does.

    Exit status 0 if it works, 3 if none runs, 4 if it is not ready or degraded.

    Example: tapestry status --json

    Parameters
    ----------
    json
        Print it as JSON.
    """
    found = ask(find_paths().control_socket, {"do": "status"})
    show(found, as_json=json, lines=_status_lines(found))
    return OK if is_well(found["state"]) else NOT_READY


def _status_lines(found: dict[str, Any]) -> list[str]:
    trainer = found["trainer"]
    mixing = "mixes" if found["mixing"] else "too few members to mix"
    adopted = len(found["adopted"])
    began = f", begun from the middle of {adopted} members' copies" if adopted else ""
    lines = [
        f"{called(found['name'], found['id'])} in {clean(found['network'])}"
        f" …{found['network_id'][:8]}",
        f"state      {found['state']}{': ' + found['fault'] if found['fault'] else ''}",
        f"round      {found['round']}, entry {found['seq']}{began}",
        f"peers      {found['peers']} connected, {found['following']} followed,"
        f" {found['live']} live with us: {mixing}",
        f"rule       {found['rule']} against {found['tolerate']} hostile: {found['certificate']}"
        f" ({found['certificate_why']})",
        f"copies     {found['following']} held, roots checked at every entry",
        f"isolation  {found['isolation']}",
        f"sent       {found['bytes_sent'] / 1e6:.2f} MB, received"
        f" {found['bytes_received'] / 1e6:.2f} MB",
    ]
    if trainer:
        last = f", last failure: {trainer['last_failure']}" if trainer["last_failure"] else ""
        bad = f", {trainer['bad_batches']} bad batches left out" if trainer["bad_batches"] else ""
        lines.insert(
            3,
            f"trainer    loss {trainer['loss']:.3g}, {trainer['steps']} steps,"
            f" {trainer['restarts']} restarts{bad}{last}",
        )
        lines[4:4] = gain_lines(found)
    return lines


def gain_lines(found: dict[str, Any]) -> list[str]:
    """What the member gains, and the languages that fare worst, in words."""
    gain, lines = found["gain"], []
    named = {"together": "the shared model", "sovereign": "your sovereign one"}
    if gain["unit"]:
        told = [f"{what} {gain[name]['value']:.3g}" for name, what in named.items() if gain[name]]
        if told:
            lines.append(f"gain       {gain['unit']} on held-out data: {', '.join(told)}")
        if alone := gain["alone"]:
            shares = {what: gain[f"gain_{name}"] for name, what in named.items()}
            beside = [_than(what, share) for what, share in shares.items() if share is not None]
            when = "; beside that" if alone["ended"] else "; at that step"
            then = f"{when} {', '.join(beside)}" if beside else ""
            lines.append(
                f"alone      a twin is at {alone['value']:.3g} after {alone['steps']} steps{then}"
            )
    if gain["failed"]:
        lines.append(
            "gain       is not measured until the next start: something in it failed, such as the"
            " task's `evaluate`; the trainer's log says what"
        )
    worst = [row for row in found["languages"] if row["together"] is not None][:3]
    if worst:
        rows = [f"{row['language']} {row['together']:.3g} of {row['members']}" for row in worst]
        lines.append(f"languages  by members' claims, worst first: {', '.join(rows)}")
    return lines


def _than(what: str, share: float) -> str:
    """How a model compares with the twin that trains alone."""
    return f"{what} was {100 * abs(share):.1f} % {'better' if share >= 0 else 'worse'}"


def peers(*, json: bool = False) -> int:
    """Show the other members and how each is treated.

    Example: tapestry peers

    Parameters
    ----------
    json
        Print it as JSON.
    """
    socket = find_paths().control_socket
    found = ask(socket, {"do": "peers"})
    rows = _compared(found["peers"], ask(socket, {"do": "status"}))
    lines = [_peer_line(row) for row in rows] or ["no other member is known yet"]
    warnings = [words for row in rows for words in _doubts(row)]
    show({**found, "peers": rows}, as_json=json, lines=[*lines, *warnings])
    return OK


def _compared(rows: list[dict[str, Any]], us: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows, each with whose names look like its own, and with scripts that do not belong."""
    twins = alike([(us["id"], us["name"]), *((row["id"], row["name"]) for row in rows)])
    return [
        {
            **row,
            "alike": [twin for twin in twins.get(row["id"], []) if twin != us["id"]],
            "like_you": us["id"] in twins.get(row["id"], []),
            "mixed_scripts": mixed_scripts(row["name"]),
        }
        for row in rows
    ]


def _doubts(row: dict[str, Any]) -> list[str]:
    """Why not to go by a member's name."""
    who, found = called(row["name"], row["id"]), []
    if row["like_you"]:
        found.append(f"warning: the name of {who} looks like yours; it is another member")
    if row["alike"]:
        others = ", ".join(f"…{short(twin)}" for twin in row["alike"][:4])
        found.append(f"warning: the name of {who} looks like that of {others}: compare the ids")
    if row["mixed_scripts"]:
        scripts = " and ".join(script.capitalize() for script in row["mixed_scripts"])
        found.append(f"warning: the name of {who} mixes {scripts} letters")
    return found


def _peer_line(row: dict[str, Any]) -> str:
    if row["probation"] and row["coefficient"] is None:
        treated = f"on probation for {row['probation']} rounds of ours"
    elif row["weight_zero"]:
        treated = "not mixed"
    elif row["coefficient"] is None:
        treated = "not mixed yet"
    elif row["coefficient"] >= 1:
        treated = "taken in full"
    else:
        treated = f"pull cut to {100 * row['coefficient']:.0f} %"
    where = f"at {row['address']}" if row["connected"] else "not connected"
    return (
        f"{called(row['name'], row['id'])}  round {row['round']}, copy {row['copy']} of"
        f" {row['head']}, {treated}, {where}"
    )


def invite(*, json: bool = False) -> int:
    """Print a link by which others can join the network.

    Example: tapestry invite

    Parameters
    ----------
    json
        Print it as JSON.
    """
    socket = find_paths().control_socket
    found, us = ask(socket, {"do": "invite"}), ask(socket, {"do": "status"})
    show(found, as_json=json, lines=[found["link"]])
    network = f"{clean(us['network'])} …{us['network_id'][:8]}"
    note(f"into {network}, from {called(us['name'], us['id'])}: let them compare both ends")
    return OK
