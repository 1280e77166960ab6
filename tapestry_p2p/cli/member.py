"""Verbs of a running member: start it, ask it, use its model. All but ``run`` only talk to it.

Nothing here imports jax or libp2p, except what ``run`` starts. Peers' names are printed without
control characters and never without the id beside them.
"""

from json import dumps
from pathlib import Path
from typing import Any

from tapestry_p2p.cli.output import note, plain, show
from tapestry_p2p.daemon.ask import ask, is_well
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import FAILURE, NO_DAEMON, NOT_READY, OK, TapestryError

SHORT_ID = 8  # last characters of a peer id, shown beside a name
GENERATE_TIMEOUT_S = 120.0


def run(*, apart: bool = False) -> int:
    """Run this member until Ctrl-C, SIGTERM or `tapestry stop`.

    Example: tapestry run

    Parameters
    ----------
    apart
        Start no trainer: wait for one that another unit starts (`tapestry service`).
    """
    from tapestry_p2p.daemon.ending import ENDING

    ENDING.listen()
    from tapestry_p2p.daemon.run import run as run_daemon

    run_daemon(find_paths(), apart)
    return OK


def stop() -> int:
    """Tell the running member to save and end."""
    ask(find_paths().control_socket, {"do": "stop"})
    return OK


def pause() -> int:
    """Let the running member train no more, until `resume`; it stays in the network.

    Its trainer saves and ends: memory and cores are free. Also after a restart.
    """
    ask(find_paths().control_socket, {"do": "pause"})
    return OK


def resume() -> int:
    """Let the running member train again."""
    reasons = ask(find_paths().control_socket, {"do": "resume"})["paused"]
    if reasons:
        note(f"still paused: {', '.join(reasons.values())} (see [budget] in tapestry.toml)")
    return OK


def status(*, json: bool = False) -> int:
    """Show what the running member does.

    Exit status 0 if it works, 3 if none runs, 4 if it is not ready or degraded.

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
    name = found["name"] or "(no name)"
    mixing = "mixes" if found["mixing"] else "too few members to mix"
    adopted = len(found["adopted"])
    began = f", begun from the middle of {adopted} members' copies" if adopted else ""
    lines = [
        f"{name} …{found['id'][-SHORT_ID:]} in {found['network']} …{found['network_id'][:8]}",
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
    return lines


def peers(*, json: bool = False) -> int:
    """Show the other members and how each is treated.

    Parameters
    ----------
    json
        Print it as JSON.
    """
    found = ask(find_paths().control_socket, {"do": "peers"})
    lines = [_peer_line(row) for row in found["peers"]] or ["no other member is known yet"]
    show(found, as_json=json, lines=lines)
    return OK


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
    name = row["name"] or "(no name)"
    return (
        f"{name} …{row['id'][-SHORT_ID:]}  round {row['round']}, copy {row['copy']} of"
        f" {row['head']}, {treated}, {where}"
    )


def invite(*, json: bool = False) -> int:
    """Print a link by which others can join the network.

    Parameters
    ----------
    json
        Print it as JSON.
    """
    found = ask(find_paths().control_socket, {"do": "invite"})
    show(found, as_json=json, lines=[found["link"]])
    return OK


def generate(
    prompt: str = "",
    *,
    bytes: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Let the running member's model go on with a text. It never leaves this machine.

    Example: tapestry generate "Alle Menschen "

    Parameters
    ----------
    prompt
        The text to go on with.
    bytes
        How many bytes to add.
    temperature
        0 takes the likeliest byte each time; more is more daring.
    seed
        Another seed, another text.
    json
        Print it as JSON.
    """
    request = {
        "do": "generate",
        "prompt": prompt,
        "bytes": bytes,
        "temperature": temperature,
        "seed": seed,
    }
    found = _ask_trainer(request)
    show(found, as_json=json, lines=(prompt + found["text"]).splitlines() or [""])
    return OK


def evaluate(*, json: bool = False) -> int:
    """Judge the running member's model on its own held-out text.

    Parameters
    ----------
    json
        Print it as JSON.
    """
    found = _ask_trainer({"do": "evaluate"})
    lines = [
        f"{metric}: {next(iter(scores.values())):.3f}" for metric, scores in found.items() if scores
    ]
    show(found, as_json=json, lines=lines)
    return OK


def export(folder: Path, *, json: bool = False) -> int:
    """Write the running member's model as safetensors with a model card.

    Example: tapestry export my-model

    Parameters
    ----------
    folder
        Where to; made if missing, must be empty.
    json
        Print it as JSON.
    """
    target = folder.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TapestryError(f"{folder} is not an empty folder; name another", FAILURE)
    status = ask(find_paths().control_socket, {"do": "status"})
    try:
        target.mkdir(parents=True, exist_ok=True)
        found = _ask_trainer({"do": "export", "path": str(target / "model.safetensors")})
        scores = _ask_trainer({"do": "evaluate"})
        (target / "README.md").write_text(model_card(status, found, scores), encoding="utf-8")
    except OSError as error:
        raise TapestryError(f"{folder} cannot be written: {error.strerror}", FAILURE) from error
    show({**found, "path": str(target)}, as_json=json, lines=[f"model and card are in {folder}"])
    return OK


def model_card(status: dict[str, Any], facts: dict[str, Any], scores: dict[str, Any]) -> str:
    """README.md beside the tensors: what the model is, where from, how good."""
    judged = "\n".join(
        f"| {metric} | {value:.4f} |"
        for metric, by_text in scores.items()
        if isinstance(by_text, dict)
        for value in by_text.values()
    )
    licence = f"license: {dumps(status['licence'])}\n" if status["licence"] else ""
    return f"""---
library_name: tapestry
{licence}---
# {plain(status["network"])}

Trained together, without a server, by the members of a Tapestry network; this copy is the model of
one member. {plain(facts["card"])}

| | |
|---|---|
| task | {plain(facts["task"])} |
| parameters | {facts["parameters"]} |
| schema | {facts["schema"]} |
| network id | {status["network_id"]} |
| member | {status["id"]} |
| round | {status["round"]} |
| rule | {status["rule"]} against {status["tolerate"]} hostile: {status["certificate"]} |

On this member's own held-out data:

| measure | value |
|---|---|
{judged}
"""


def _ask_trainer(request: dict[str, Any]) -> dict[str, Any]:
    """Over the trainer's own socket: what it says never passes through the node."""
    paths = find_paths()
    ask(paths.control_socket, {"do": "status"})
    try:
        return ask(paths.text_socket, request, GENERATE_TIMEOUT_S)
    except TapestryError as error:
        if error.exit_code != NO_DAEMON:
            raise
        raise TapestryError("the trainer is still starting; try again soon", NOT_READY) from error
