"""`data list | udhr | debian | fashion`: texts to train on, by language, and small pictures.

Knows where they come from and writes them; never overwrites.
"""

import contextlib
import os
from pathlib import Path
from typing import Annotated

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
    from tapestry_p2p.cli.debian import SOURCES
    from tapestry_p2p.cli.fashion import FILES

    sizes = {code: len(udhr(code)) for code in udhr_languages()}
    lines = ["udhr: the Universal Declaration of Human Rights; comes with the package"]
    lines += [f"  {code:14}{UDHR_LANGUAGES[code]:22}{sizes[code]:6} bytes" for code in sizes]
    lines += ["debian: .2 to 7 MB in each language, of three sources; fetched with apt-get"]
    for source in SOURCES.values():
        lines += [f"  {source.name:10}{source.what}", f"  {'':10}{' '.join(source.languages)}"]
    lines += ["fashion: 70,000 small pictures of clothing (Fashion-MNIST); fetched with apt-get"]
    debian_ = {source.name: list(source.languages) for source in SOURCES.values()}
    found = {"udhr": sizes, "debian": debian_, "fashion": list(FILES)}
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
def debian(
    *,
    languages: str,
    out: Path,
    source: str = "help",
    bytes_: Annotated[str, Parameter(name="--bytes")] = "",
) -> None:
    """Fetch texts with apt-get, clean them, and write a file for each language and source.

    Beside each text stands the licence of the package that it is from.

    Example: tapestry data debian --source manpages --languages de,fr --bytes "300 kB" --out texts

    Parameters
    ----------
    languages
        With commas between: de,fr. `tapestry data list` has them all.
    out
        The folder to write to.
    source
        help, manpages or handbook, or several with commas between. help writes de.txt, the others
        de-manpages.txt and de-handbook.txt.
    bytes_
        At most so much of each text, "300 kB": its first whole lines. All of it if not given.
    """
    from tapestry_p2p.cli.debian import SOURCES, texts

    wanted, bytes_max = _names(languages), _size(bytes_)
    for name in (kinds := _parts(source)):
        if name not in SOURCES:
            raise TapestryError(f"--source is one of {', '.join(SOURCES)}, not {name!r}", USAGE)
    targets = {kind: _targets(out, wanted, SOURCES[kind].suffix) for kind in kinds}
    for places in targets.values():
        _free({name: _licence(target) for name, target in places.items()})
    if targets and wanted:
        note("fetching and cleaning; up to half a minute for each text")
    for kind, places in targets.items():
        for text in texts(SOURCES[kind], wanted, bytes_max):
            target = places[text.language]
            _write(target, text.content)
            _write(_licence(target), text.copyright, quiet=True)


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


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _names(languages: str) -> list[str]:
    names = _parts(languages)
    for name in names:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise TapestryError(f"{name!r} is no language; write --languages de,fr", USAGE)
    return names


def _size(text: str) -> int | None:
    """Bytes of "300 kB" or "300000"; None of "", which is no limit."""
    from tapestry_p2p.daemon.quantities import parse_size

    if not text:
        return None
    try:
        size = int(text) if text.isdecimal() else int(parse_size(text))
    except ValueError as error:
        raise TapestryError(f"--bytes: {error}", USAGE) from error
    if size < 1:
        raise TapestryError("--bytes must be more than 0", USAGE)
    return size


def _targets(out: Path, names: list[str], suffix: str = "") -> dict[str, Path]:
    return _free({name: out / f"{name}{suffix}.txt" for name in names})


def _licence(text: Path) -> Path:
    return text.with_suffix(".copyright")


def _free(targets: dict[str, Path]) -> dict[str, Path]:
    """The same. TapestryError if one is there already."""
    for target in targets.values():
        if target.exists():
            raise TapestryError(
                f"{target} exists already and stays as it is; choose another --out", REFUSED
            )
    return targets


def _write(target: Path, content: bytes, *, quiet: bool = False) -> None:
    """Write a whole file or none, and say so unless ``quiet``."""
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
    if not quiet:
        say(f"{target}  {len(content)} bytes")
