"""`new`: a project with a model of one's own, that trains in a testnet as it is.

Knows the templates (tapestry_p2p/template) and what is put in for the name. Writes files, starts
nothing, overwrites nothing.
"""

import re
from importlib.resources import files
from pathlib import Path

from tapestry_p2p.cli.output import say
from tapestry_p2p.data import udhr
from tapestry_p2p.errors import FAILURE, USAGE, TapestryError

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
TEXTS = {"english": "eng", "french": "fra", "german": "deu_1996"}


def new(folder: Path, *, linen: bool = False) -> None:
    """Write a template project: a model of your own, data, tests, a README.

    Example: tapestry new my-model && cd my-model && python -m pytest tests

    Parameters
    ----------
    folder
        Where to; must not exist, or be empty. Its name becomes the project's.
    linen
        The model in flax.linen instead of flax.nnx.
    """
    target = folder.absolute()
    name = target.name
    if not NAME.fullmatch(name):
        raise TapestryError(
            f"{name!r} cannot name a project: small letters, digits, - between them", USAGE
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TapestryError(f"{folder} is not an empty folder; name another", FAILURE)
    try:
        written = _write(target, name, "linen" if linen else "nnx")
    except OSError as error:
        raise TapestryError(f"{folder} cannot be written: {error.strerror}", FAILURE) from error
    module = _module(name)
    say(
        *(f"wrote    {folder / path}" for path in written),
        f"try it   cd {folder} && python -m pytest tests",
        f"train    tapestry testnet --members 3 --model {module}.py:make_task --data data",
    )


def _write(target: Path, name: str, kind: str) -> list[str]:
    module = _module(name)
    given = {"@NAME@": name, "@MODULE@": module, "@KIND@": f"flax.{kind}"}
    task = _template(f"task_{kind}") + _template("task_rest")
    content = {
        f"{module}.py": task,
        "tests/test_task.py": _template("test_task"),
        "README.md": _template("README"),
        "pyproject.toml": _template("pyproject"),
    }
    for path, text in content.items():
        for mark, value in given.items():
            text = text.replace(mark, value)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text, encoding="utf-8")
    (target / "data").mkdir()
    for language, code in TEXTS.items():
        (target / "data" / f"{language}.txt").write_bytes(udhr(code))
    return [*content, *(f"data/{language}.txt" for language in TEXTS)]


def _module(name: str) -> str:
    return f"{name.replace('-', '_')}_task"


def _template(name: str) -> str:
    return (files("tapestry_p2p") / "template" / f"{name}.txt").read_text("utf-8")
