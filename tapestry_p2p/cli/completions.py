"""`completions` and `man`: what shells and man(1) know of the verbs, made from the same help.

The parser writes completion scripts and a Markdown reference; the pages are that reference in roff,
for it has no man pages of its own. Nothing is written by hand, so nothing falls behind.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tapestry_p2p import __version__
from tapestry_p2p.cli.output import say
from tapestry_p2p.errors import FAILURE, TapestryError

Shell = Literal["bash", "zsh", "fish"]

_VERB = re.compile(r"^## tapestry (\S+)$", re.MULTILINE)
_ITEM = re.compile(r"\* (.*?): (.*)")
_LINK = re.compile(r"\[([^]]*)\]\(#[^)]*\)")
STATUSES = (
    "0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 not ready or degraded, 5 timeout, 6 refused,"
    " 7 version mismatch, 75 try again later, 78 bad configuration"
)


# the value of --network: names that are here now, asked of the program itself
NETWORK_NAMES: dict[Shell, str] = {
    "bash": """
_tapestry_with_networks() {
  if [[ ${COMP_CWORD} -gt 1 && "${COMP_WORDS[COMP_CWORD-1]}" == --network ]]; then
    local names
    names=$("${COMP_WORDS[0]}" networks --names 2>/dev/null)
    COMPREPLY=($(compgen -W "${names}" -- "${COMP_WORDS[COMP_CWORD]}"))
  else
    _tapestry
  fi
}
complete -F _tapestry_with_networks tapestry
""",
    "zsh": """
_tapestry_with_networks() {
  if (( CURRENT > 2 )) && [[ ${words[CURRENT-1]} == --network ]]; then
    compadd -- ${(f)"$(${words[1]} networks --names 2>/dev/null)"}
  else
    _cyclopts_tapestry "$@"
  fi
}
compdef _tapestry_with_networks tapestry
""",
    "fish": """
complete -c tapestry -l network -x -a '(tapestry networks --names 2>/dev/null)' -d 'Which network'
""",
}


def completions(shell: Shell) -> None:
    """Print a script by which the shell completes verbs and options.

    bash: into ~/.local/share/bash-completion/completions/tapestry; zsh: as _tapestry into a folder
    of $fpath; fish: into ~/.config/fish/completions/tapestry.fish.

    Example: tapestry completions bash > ~/.local/share/bash-completion/completions/tapestry

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from tapestry_p2p.cli.main import make_app

    print(make_app(in_full=None).generate_completion(shell=shell), end="")
    print(NETWORK_NAMES[shell], end="")


def man(*, out: Path) -> None:
    """Write a manual page for every verb, tapestry-VERB.1, and one for all, tapestry.1.

    Example: tapestry man --out ~/.local/share/man/man1

    Parameters
    ----------
    out
        Folder for the pages; made if missing.
    """
    written = pages()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            (out / f"{name}.1").write_text(text, encoding="utf-8")
    except OSError as error:
        raise TapestryError(f"{out} cannot be written: {error.strerror}", FAILURE) from error
    say(f"{len(written)} pages are in {out}: man {out / 'tapestry.1'}")


def pages() -> dict[str, str]:
    """Every page by its name, in roff (man(7))."""
    from tapestry_p2p.cli.main import VERBS, make_app

    reference = make_app(in_full=None).generate_docs()
    reference = reference.replace(" -m tapestry_p2p", "")  # how this process was started
    parts = _VERB.split(reference)[1:]  # name, text, name, text, ...
    by_verb = dict(zip(parts[::2], parts[1::2], strict=True))
    found = {}
    listed = [".SH VERBS"]
    for title, verbs in VERBS.items():
        listed.append(f".SS {_text(title)}")
        for name, _, what in verbs:
            listed += [".TP", f".BR tapestry\\-{_text(name)} (1)", _line(what)]
            page = f"tapestry-{name}"
            found[page] = _page(page, what, [".SH SYNOPSIS", *_body(by_verb[name])])
    what = "train one open model together, without a server"
    use = [".SH SYNOPSIS", ".B tapestry", ".I VERB", "[options]"]
    found["tapestry"] = _page("tapestry", what, [*use, *listed])
    return found


def _page(name: str, what: str, body: list[str]) -> str:
    lines = [
        f'.TH {_text(name.upper())} 1 "" "tapestry {_text(__version__)}"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(what.rstrip('.'))}",
        *body,
        ".SH EXIT STATUS",
        _line(STATUSES),
        ".SH SEE ALSO",
        ".BR tapestry (1)",
    ]
    return "\n".join(lines) + "\n"


def _body(reference: str) -> Iterator[str]:
    """Markdown as the parser writes it (headings, code, lists, paragraphs), in roff."""
    code = item = False
    for line in reference.splitlines():
        if line.startswith("```"):
            code = not code
            yield ".EX" if code else ".EE"
        elif code:
            yield _line(line)
        elif line.startswith("#"):
            yield f".SH {_text(line.lstrip('# ').upper())}"
        elif found := re.fullmatch(r"\*\*(.*)\*\*:?", line):
            yield f".SH {_text(found[1].upper())}"
        elif found := _ITEM.match(line):
            name = _LINK.sub(r"\1", found[1])
            yield from (".TP", f".B {_text(name)}", _line(found[2]))
        elif not line.strip():
            yield from () if item else (".PP",)
        else:
            yield _line(line.strip())
        item = line.startswith(("* ", "    "))


def _line(text: str) -> str:
    """A line of text; one that begins as a request does not become one."""
    plain = _text(text)
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def _text(text: str) -> str:
    bare = text.replace("`", "").replace("**", "").replace("*[", "[").replace("]*", "]")
    return bare.replace("\\", "\\e").replace("-", "\\-")
