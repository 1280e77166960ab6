"""`data list | udhr | debian | fashion`: texts to train on, one a language, and small pictures.

Knows where they come from and writes them; never overwrites.
"""

import contextlib
import os
from pathlib import Path

from cyclopts import App, Parameter

from tapestry_p2p.cli.output import note, say, show
from tapestry_p2p.data import UDHR_LANGUAGES, udhr, udhr_code, udhr_languages
from tapestry_p2p.errors import FAILURE, REFUSED, USAGE, TapestryError

app = App(
    name="data",
    help="Get texts or pictures to train on.\n\nExample: tapestry data udhr --out texts",
    default_parameter=Parameter(negative=()),
)


@app.command(name="list")
def list_(*, json: bool = False) -> None:
    """List what can be had.

    Example: tapestry data list

    Parameters
    ----------
    json
        Print JSON.
    """
    from tapestry_p2p.cli.debian import LANGUAGES
    from tapestry_p2p.cli.fashion import FILES

    sizes = {code: len(udhr(code)) for code in udhr_languages()}
    lines = ["udhr: the Universal Declaration of Human Rights; comes with the package"]
    lines += [f"  {code:14}{UDHR_LANGUAGES[code]:22}{sizes[code]:6} bytes" for code in sizes]
    lines += ["debian: the help of LibreOffice, megabytes in each language; fetched with apt-get"]
    lines += [f"  {' '.join(LANGUAGES)}"]
    lines += ["fashion: 70,000 small pictures of clothing (Fashion-MNIST); fetched with apt-get"]
    found = {"udhr": sizes, "debian": list(LANGUAGES), "fashion": list(FILES)}
    show(found, as_json=json, lines=lines)


@app.command(name="udhr")
def udhr_(*, languages: str = "", out: Path) -> None:
    """Write the Declaration of Human Rights, one file for each language.

    Example: tapestry data udhr --languages fra,swh --out texts

    Parameters
    ----------
    languages
        With commas between, as `tapestry data list` names them; all of them if not given.
    out
        The folder to write to.
    """
    codes = []
    for language in _names(languages) or udhr_languages():
        code = udhr_code(language)
        if code is None:
            raise TapestryError(f"no udhr in {language}; `tapestry data list` has them all", USAGE)
        codes.append(code)
    targets = _targets(out, codes)
    for code, target in targets.items():
        _write(target, udhr(code))


@app.command
def debian(*, languages: str, out: Path) -> None:
    """Fetch the help of LibreOffice with apt-get, clean it, and write a file for each language.

    Example: tapestry data debian --languages de,fr --out texts

    Parameters
    ----------
    languages
        With commas between: de,fr. `tapestry data list` has them all.
    out
        The folder to write to.
    """
    from tapestry_p2p.cli.debian import help_texts

    wanted = _names(languages)
    targets = _targets(out, wanted)
    if wanted:
        note("fetching and cleaning; about half a minute for each language")
    for language, text in help_texts(wanted):
        _write(targets[language], text)


@app.command
def fashion(*, out: Path) -> None:
    """Fetch Fashion-MNIST with apt-get and write its four files, for the task `fashion`.

    Example: tapestry data fashion --out pictures

    Parameters
    ----------
    out
        The folder to write to.
    """
    from tapestry_p2p.cli.fashion import FILES, fashion_files

    targets = _free({name: out / name for name in FILES})
    note("fetching 31 MB")
    for name, content in fashion_files().items():
        _write(targets[name], content)


def _names(languages: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in languages.split(",") if part.strip()))
    for name in names:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise TapestryError(f"{name!r} is no language; write --languages de,fr", USAGE)
    return names


def _targets(out: Path, names: list[str]) -> dict[str, Path]:
    return _free({name: out / f"{name}.txt" for name in names})


def _free(targets: dict[str, Path]) -> dict[str, Path]:
    """The same. TapestryError if one is there already."""
    for target in targets.values():
        if target.exists():
            raise TapestryError(
                f"{target} exists already and stays as it is; choose another --out", REFUSED
            )
    return targets


def _write(target: Path, content: bytes) -> None:
    """Write a whole file or none."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.link(draft, target)
    except OSError as error:
        raise TapestryError(f"{target} cannot be written: {error.strerror}", FAILURE) from error
    finally:
        with contextlib.suppress(OSError):  # it was never made
            draft.unlink()
    say(f"{target}  {len(content)} bytes")
