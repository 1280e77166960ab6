"""`generate` and `eval`: the running member's model, or one in an exported folder.

A running member is asked over its trainer's own socket. For a folder a process of its own is
started (learn/offline.py), which leaves the network before it reads anything: no daemon is needed.
"""

import json as json_
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tapestry_p2p.cli.folder import (
    CONFIG,
    INT8,
    MANIFEST,
    MODEL,
    WHOLE,
    beside,
    digest_of,
    read_json,
)
from tapestry_p2p.cli.output import note, show
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.departure import departure
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import (
    BAD_CONFIG,
    FAILURE,
    NO_DAEMON,
    NOT_READY,
    OK,
    REFUSED,
    TIMEOUT,
    USAGE,
    TapestryError,
)

GENERATE_TIMEOUT_S = 120.0
OFFLINE_TIMEOUT_S = 3600.0
RUNNING = ("shared", "sovereign")  # models of the running member
LEFT = "left-{}"  # the model of a member that left, by its network's first eight digits


def generate(
    prompt: str = "",
    *,
    bytes: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
    model: str = "",
    int8: bool = False,
    trust_code: bool = False,
    json: bool = False,
) -> int:
    """Let a model go on with a text. It never leaves this machine.

    Example: tapestry generate "Alle Menschen " --model my-model

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
    model
        shared (the running member's, as without this option), sovereign (its own one, trained
        further on its data), an exported folder, or the name of an imported one.
    int8
        Use the folder's eight-bit model: its weights take a quarter of the memory.
    trust_code
        Run the code of the folder's own task, if it has one: it can do what you can do, without
        the network.
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
    model = model or left_model()
    if model and model not in RUNNING:
        found = offline(model, request, int8=int8, trust_code=trust_code)
    else:
        _need_model(int8, trust_code)
        found = ask_trainer({**request, "model": model or RUNNING[0]})
    show(found, as_json=json, lines=(prompt + found["text"]).splitlines() or [""])
    return OK


def evaluate(
    *,
    model: str = "",
    data: Annotated[list[Path], Parameter(consume_multiple=True)] = [],  # noqa: B006 (read only)
    int8: bool = False,
    trust_code: bool = False,
    json: bool = False,
) -> int:
    """Judge a model on held-out data: the running member's on its own, a folder's on yours.

    Example: tapestry eval --model my-model --data my-texts

    Parameters
    ----------
    model
        shared (the running member's, as without this option), sovereign (its own one, trained
        further on its data), an exported folder, or the name of an imported one.
    data
        Files to judge a folder's model on: the part of them that the network holds out.
    int8
        Judge the folder's eight-bit model.
    trust_code
        Run the code of the folder's own task, if it has one.
    json
        Print it as JSON.
    """
    model = model or left_model()
    if model and model not in RUNNING:
        request = {"do": "evaluate", "data": [str(path.absolute()) for path in data]}
        found = offline(model, request, int8=int8, trust_code=trust_code)
    else:
        _need_model(int8, trust_code, *data)
        found = ask_trainer({"do": "evaluate", "model": model or RUNNING[0]})
    lines = [
        f"{metric}: {next(iter(scores.values())):.3f}" for metric, scores in found.items() if scores
    ]
    show(found, as_json=json, lines=lines)
    return OK


def _need_model(*given: object) -> None:
    if any(given):
        raise TapestryError("--int8, --trust-code and --data go with --model FOLDER", USAGE)


def ask_trainer(request: dict[str, Any], timeout_s: float = GENERATE_TIMEOUT_S) -> dict[str, Any]:
    """Over the trainer's own socket: what it says never passes through the node."""
    paths = find_paths()
    ask(paths.control_socket, {"do": "status"})
    try:
        return ask(paths.text_socket, request, timeout_s)
    except TapestryError as error:
        if error.exit_code != NO_DAEMON:
            raise
        raise TapestryError("the trainer is still starting; try again soon", NOT_READY) from error


def models_folder() -> Path:
    """Where imported models lie."""
    return find_paths().state.parent / "models"


def left_model() -> str:
    """The folder of the model that this member took along when it left its network; or ""."""
    paths = find_paths()
    found = departure(paths.state / "store")
    folder = models_folder() / LEFT.format(found.network_id[:8]) if found else None
    return str(folder) if folder is not None and (folder / CONFIG).is_file() else ""


def find_model(text: str) -> Path:
    """The folder that is meant: a path, else the name of an imported one. TapestryError (78)."""
    folder = Path(text)
    if (folder / CONFIG).is_file():
        return folder.absolute()
    if folder.name == text and (models_folder() / text / CONFIG).is_file():
        return models_folder() / text
    raise TapestryError(
        f"{text} is no exported model: no {CONFIG} is in it, and none of that name was imported",
        BAD_CONFIG,
    )


def offline(model: str, request: dict[str, Any], *, int8: bool, trust_code: bool) -> dict[str, Any]:
    """What a process without a network says of an exported model. TapestryError."""
    folder = find_model(model)
    config = read_json(folder / CONFIG)
    whole = folder / WHOLE
    if whole.exists() and int8:
        raise TapestryError(f"{model} has adapters: the model they make is float32", USAGE)
    asked = {
        **request,
        "task": _task(folder, config, trust_code),
        "options": config.get("options", {}),
        "data_seed": config.get("seed", 0),
        "schema": "" if whole.exists() else config.get("schema", ""),
        "file": str(whole if whole.exists() else folder / (INT8 if int8 else MODEL)),
        "local": str(beside(folder)) if beside(folder).is_file() else "",
        "int8": int8,
        "cache_dir": str(find_paths().cache),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tapestry_p2p.learn.offline"],
            input=json_.dumps(asked),
            capture_output=True,
            text=True,
            timeout=OFFLINE_TIMEOUT_S,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TapestryError(f"no answer in {OFFLINE_TIMEOUT_S:.0f} s", TIMEOUT) from error
    try:
        found: dict[str, Any] = json_.loads(done.stdout)
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise TapestryError(f"the model's process ended: {said[:300]}", FAILURE) from error
    if "error" in found:
        raise TapestryError(str(found["error"]), int(found.get("exit_code", FAILURE)))
    how = found.pop("isolation")
    if not found.pop("isolated"):
        note(f"the model's process: {how}")
    return found


def _task(folder: Path, config: dict[str, Any], trust_code: bool) -> str:
    """The task's name as the loader takes it; code of its own only if it is trusted."""
    name = str(config.get("task", ""))
    file, colon, function = name.rpartition(":")
    if not colon:
        return name
    if not trust_code:
        raise TapestryError(
            f"this model needs code of its own, {folder / Path(file).name}: read it, then add"
            " --trust-code",
            REFUSED,
        )
    path = folder / Path(file).name
    if not path.is_file() or digest_of(path) != config.get("task_digest"):
        raise TapestryError(f"{path} is not the code that {MANIFEST} names", REFUSED)
    return f"{path}:{function}"
