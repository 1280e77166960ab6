"""`import`: put a verified model where `generate` and `eval` find it by its name.

Copies files and nothing else: no network is founded or joined by it (docs/export.md says why).
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from tapestry_p2p.cli.folder import beside
from tapestry_p2p.cli.model import models_folder
from tapestry_p2p.cli.output import show
from tapestry_p2p.cli.verify import judge
from tapestry_p2p.errors import FAILURE, OK, REFUSED, USAGE, TapestryError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def import_(folder: Path, *, name: str = "", member: str = "", json: bool = False) -> int:
    """Verify an exported folder and keep a copy of it, to be used by its name.

    Exit status 6, and nothing is copied, if it does not hold.

    Example: tapestry import my-model --name mine && tapestry generate --model mine "Hello"

    Parameters
    ----------
    folder
        What `tapestry export` wrote.
    name
        What to call it here; the folder's name unless given.
    member
        The peer id (12D3KooW...) whose model it must be.
    json
        Print it as JSON.
    """
    called = name or folder.absolute().name
    if not NAME.fullmatch(called):
        raise TapestryError("--name: at most 64 letters, digits, _ . and -", USAGE)
    target = models_folder() / called
    if target.exists():
        raise TapestryError(f"a model {called} is there already; give another --name", FAILURE)
    try:
        found = _copy_verified(folder, target, member)
    except OSError as error:
        raise TapestryError(f"{target} cannot be written: {error.strerror}", FAILURE) from error
    result = {"name": called, "path": str(target), "member": found}
    lines = [f"{called} is a model of {found}: tapestry generate --model {called} 'Hello'"]
    show(result, as_json=json, lines=lines)
    return OK


def _copy_verified(folder: Path, target: Path, member: str) -> str:
    """Whose it is. The copy is what was verified, so that nobody changes it in between."""
    if not folder.is_dir():
        raise TapestryError(f"{folder} is no folder; name what `tapestry export` wrote", FAILURE)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".import-", dir=target.parent))
    try:
        for path in folder.iterdir():
            if path.is_symlink() or not path.is_file():
                raise TapestryError(f"{path.name} is no file of an export; nothing done", REFUSED)
            shutil.copyfile(path, draft / path.name)
        verdict = judge(draft, member)
        if verdict.faults:
            raise TapestryError(f"{folder} does not hold: {verdict.faults[0]}", REFUSED)
        if beside(folder.absolute()).is_file():
            shutil.copy(beside(folder.absolute()), beside(target))
        os.rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return verdict.member
