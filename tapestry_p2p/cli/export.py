"""`export`: the running member's model as a folder that anybody can use and check.

Asks the trainer for the model and how good it is, the store for what was published, the node for a
signature. The folder appears whole or not at all.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tapestry_p2p.cli import folder as f
from tapestry_p2p.cli.card import model_card
from tapestry_p2p.cli.model import RUNNING, ask_trainer, left_model
from tapestry_p2p.cli.output import show
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.manifest import Manifest, dump_manifest, load_manifest, task_file
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.daemon.published import Published, published
from tapestry_p2p.errors import FAILURE, OK, USAGE, TapestryError

TIMEOUT_S = 600.0
SHOWN = ("bits_per_byte", "bits_per_char", "accuracy", "loss")


def export(
    folder: Path,
    *,
    copy: bool = False,
    model: str = "shared",
    local: bool = False,
    json: bool = False,
) -> int:
    """Write the running member's model, with what is needed to use it and to check its lineage.

    Example: tapestry export my-model && tapestry verify my-model

    Parameters
    ----------
    folder
        Where to; must not exist, or be empty.
    copy
        Export the public copy, bit for bit what peers hold of this member, in place of the model
        that `generate` shows: a little worse, and proven by its root.
    model
        shared, or sovereign: the member's own one, trained further on its data.
    local
        Also write the parameters that never leave, for yourself: FOLDER.local.safetensors, beside
        the folder. `generate` and `eval` of the folder take it up from there.
    json
        Print it as JSON.
    """
    if model not in RUNNING or (copy and model != RUNNING[0]):
        raise TapestryError("--model is shared or sovereign, and --copy goes with shared", USAGE)
    target = folder.absolute()
    if local and f.beside(target).exists():
        raise TapestryError(f"{f.beside(folder)} is there already; name another folder", FAILURE)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TapestryError(f"{folder} is not an empty folder; name another", FAILURE)
    taken = left_model()
    if taken and (copy or model != RUNNING[0]):
        what = "a public copy" if copy else "a sovereign model"
        raise TapestryError(
            f"this member has left and took the shared model along, not {what}; leave"
            " --model and --copy out, or join again",
            FAILURE,
        )
    if taken:
        return _copied(Path(taken), target, local, json)
    result = {"path": str(target), **write(target, copy, model, local)}
    result["local_path"] = _local_path(target)
    show(result, as_json=json, lines=_lines(folder, result))
    return OK


def write(target: Path, copy: bool, model: str = "shared", local: bool = False) -> dict[str, Any]:
    """Export the running member's model into a folder, whole or not at all; what is said of it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            facts = _fill(draft, copy, model, local)
            draft.chmod(0o755)
            if target.exists():
                target.rmdir()
            if f.beside(draft).exists():
                f.beside(draft).rename(f.beside(target))
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            f.beside(draft).unlink(missing_ok=True)
    except OSError as error:
        raise TapestryError(f"{target} cannot be written: {error.strerror}", FAILURE) from error
    return facts


def _copied(taken: Path, target: Path, local: bool, json: bool) -> int:
    """The member has left: what it took along then, which is proven by the entries of then."""
    try:
        shutil.copytree(taken, target, dirs_exist_ok=True)
        if local and f.beside(taken).exists():
            shutil.copy(f.beside(taken), f.beside(target))
    except (OSError, shutil.Error) as error:
        raise TapestryError(f"{target} cannot be written: {error}", FAILURE) from error
    result = {"local": [], **f.read_json(taken.with_suffix(".json")), "path": str(target)}
    result["local_path"] = _local_path(target)
    words = f"as it was when this member left, entry {result['entry']}: {target}"
    show(result, as_json=json, lines=[words])
    return OK


def _local_path(target: Path) -> str:
    return str(f.beside(target)) if f.beside(target).exists() else ""


def _fill(draft: Path, copy: bool, model: str, local: bool) -> dict[str, Any]:
    """Ask everybody, write all files; what is said of them."""
    paths = find_paths()
    manifest = load_manifest(paths.manifest)
    status = ask(paths.control_socket, {"do": "status"})
    told = ask(paths.control_socket, {"do": "lineage"})
    own = published(paths.state / "store", manifest.limits.norm_max)
    request: dict[str, Any] = {"do": "export", "path": str(draft), "model": model, "local": local}
    if copy:
        numbers = draft / "vector"
        numbers.write_bytes(own.vector.astype("<f4").tobytes())
        request["vector"] = str(numbers)
    found = ask_trainer(request, TIMEOUT_S)
    (draft / "vector").unlink(missing_ok=True)
    if (draft / f.LOCAL).exists():
        (draft / f.LOCAL).rename(f.beside(draft))
    code = task_file(manifest, paths.config)
    if code is not None:
        shutil.copyfile(code, draft / code.name)

    def sign(digest: str) -> bytes:
        told = ask(paths.control_socket, {"do": "attest", "digest": digest})
        return bytes.fromhex(told["signature"])

    return complete(draft, manifest, status, told, own, found, sign)


def complete(
    draft: Path,
    manifest: Manifest,
    status: dict[str, Any],
    told: dict[str, Any],
    own: Published,
    found: dict[str, Any],
    sign: Callable[[str], bytes],
) -> dict[str, Any]:
    """Write what is missing beside the model: published copy, manifest, config, card, lineage.

    ``status``, ``told``: what the node says of itself and of those it mixes; ``found``: what the
    trainer said of the model; ``sign``: from a SHA-256 in hex to the member's signature. OSError.
    """
    layout = f.layout_of(found)
    differs = f.apart(f.read_vector(draft / f.MODEL, layout), own.vector)
    if differs:
        facts = {"task": found["task"], "schema": found["schema"], "card": found["card"]}
        f.write_tensors(draft / f.PUBLISHED, layout, own.vector, facts)
    (draft / f.MANIFEST).write_text(dump_manifest(manifest), encoding="utf-8")
    f.write_json(draft / f.CONFIG, configuration(manifest, found))
    head = own.entries[-1].header
    about = {
        "network_id": manifest.network_id.hex(),
        "member": status["id"],
        "entry": head.seq,
        "round": head.round,
        "parameters": found["parameters"],
        "bytes": found["bytes"],
        "scores": _flat(found["scores"]),
        "differs": differs,
        "mixed": [row["id"] for row in told["mixed"]],
        "local": found["local"],
    }
    card = model_card(status, told, found, about)
    (draft / f.CARD).write_text(card, encoding="utf-8")
    _sign(draft, status, told, own, sign)
    return about


def configuration(manifest: Manifest, found: dict[str, Any]) -> dict[str, Any]:
    """config.json: all that a program needs to build the model anew."""
    return {
        "format": f.FORMAT,
        "task": manifest.task.name,
        "task_digest": manifest.task.digest,
        "options": dict(manifest.task.options),
        "seed": manifest.genesis.seed,
        "schema": found["schema"],
        "parameters": found["parameters"],
        "layout": found["layout"],
        "int8": "values times NAME:scale, symmetric, one scale for each channel",
    }


def _sign(
    draft: Path,
    status: dict[str, Any],
    told: dict[str, Any],
    own: Published,
    sign: Callable[[str], bytes],
) -> None:
    """lineage.json names all other files; lineage.sig is the member's signature of it."""
    for path in f.files_in(draft):
        path.chmod(0o644)
    lineage = {
        "format": f.FORMAT,
        "network": status["network"],
        "network_id": status["network_id"],
        "member": {"id": status["id"], "name": status["name"], "languages": told["languages"]},
        "entries": [signed.encode().hex() for signed in own.entries],
        "mixed": told["mixed"],
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": f.digest_of(path)}
            for path in f.files_in(draft)
        },
    }
    path = draft / f.LINEAGE
    f.write_json(path, lineage)
    (draft / f.SIGNATURE).write_bytes(sign(f.digest_of(path)))


def _flat(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """File -> measure -> value, the mean over judged texts."""
    return {
        name: {
            measure: sum(found[measure].values()) / len(found[measure])
            for measure in SHOWN
            if found.get(measure)
        }
        for name, found in scores.items()
    }


def _own_part(result: dict[str, Any]) -> str:
    names = ", ".join(result["local"])
    if result["local_path"]:
        return f"{names}: never left this member; yours to keep in {result['local_path']}"
    return f"{names}: never left this member and is not in it; --local writes it beside the folder"


def _lines(folder: Path, result: dict[str, Any]) -> list[str]:
    sizes, scores = result["bytes"], result["scores"]
    lines = [f"model and card are in {folder}: entry {result['entry']}, round {result['round']}"]
    for name in (f.MODEL, f.INT8):
        measure, value = next(iter(scores[name].items()))
        worse = 100 * (value / scores[f.MODEL][measure] - 1) if scores[f.MODEL][measure] else 0.0
        against = f" ({worse:+.2f} %)" if name == f.INT8 else ""
        lines.append(f"{name:24} {sizes[name]:>10} bytes  {measure} {value:.4f}{against}")
    if result["differs"]:
        lines.append(f"it is {100 * result['differs']:.2f} % from the copy that peers hold")
    if result["local"]:
        lines.append(_own_part(result))
    return [*lines, f"check it anywhere, without a network: tapestry verify {folder}"]
