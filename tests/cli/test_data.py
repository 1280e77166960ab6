"""`data`: pages cleaned, on made text; apt, played by scripts; files never overwritten."""

import gzip
import shutil
from pathlib import Path

import pytest

from tapestry_p2p.cli import debian, fashion, helppage, manpage
from tapestry_p2p.cli import main as cli
from tapestry_p2p.data import idx, udhr, udhr_code, udhr_languages
from tapestry_p2p.errors import FAILURE, OK, REFUSED, TEMPORARY, USAGE

PAGE = """<!DOCTYPE html><html><head><title>Titel der Seite</title><script>var x = "code";</script>
</head><body><header><p>Hilfe-Kopf</p></header>
<div id="DisplayArea"><meta itemprop="keywords" content="Stichwort">
<h1 id="a"><a name="b"></a>Ausschalten   der
 Erkennung</h1>
<p>Wenn Sie <a href="x"><span class="y">Text</span></a> eingeben &amp; so&nbsp;weiter.
<br>Neue Zeile.</p>
<table><tr><td><p>Zelle eins</p></td><td>Zelle zwei</td></tr></table>
<pre><code>Sub Main : Print "never"</code></pre><p>Nach <code>GEHEIM</code> dem Code</p>
<ul><li>Punkt</li><li>12 %</li></ul><button type="button">Knopf</button>
<img src="x.png"><p>ok</p><p>Ende</p></div><footer><p>Unter dem Text</p></footer></body></html>"""


def test_a_page_becomes_its_lines_of_prose() -> None:
    assert helppage.lines_of(PAGE) == [
        "Ausschalten der Erkennung",
        "Wenn Sie Text eingeben & so weiter.",
        "Neue Zeile.",
        "Zelle eins",
        "Zelle zwei",
        "Nach dem Code",
        "Punkt",
        "Ende",
    ]


@pytest.mark.parametrize("html", ["", "<div", "</div></div>", "<p>out</p>", "<div id=DisplayArea>"])
def test_a_broken_page_gives_no_lines(html: str) -> None:
    assert helppage.lines_of(html) == []


HANDBOOK = """<html><body><p id="title">Der Kopf</p><ul class="docnav"><li>Weiter</li></ul>
<div class="section"><h2><a id="x"></a>9.10. Datensicherung</h2><a class="indexterm"></a>
<div class="para">Der Befehl <code class="command">ln <em>ziel</em></code> legt
 einen Namen an.</div><pre class="screen">$ ln -s never</pre><div class="para">Ende.</div></div>
<ul class="docnav"><li>Weiter</li></ul></body></html>"""


def test_a_handbooks_page_keeps_commands_in_its_sentences() -> None:
    assert helppage.lines_of(HANDBOOK, helppage.HANDBOOK) == [
        "9.10. Datensicherung",
        "Der Befehl ln ziel legt einen Namen an.",
        "Ende.",
    ]


MAN = r"""'\" t
.\" a comment with \fBfonts\fP
.TH LS 1 "September 2022" "GNU coreutils"
.SH BEZEICHNUNG
ls \- Verzeichnisinhalte \[lq]auflisten\(rq
.de XX
never this
..
.SS "Zwei \fIWörter\fP"
Die Einträge werden, falls weder \fB\-c\fP noch \fB\-\-sort\fP\/ da ist, \s-1KLEIN\s0
.BR sortiert (1),
und weiter.\" nicht das
.TP 4
\fB\-a\fP, \fB\-\-all\fP
.IR nichts\  "auslassen" .
.PP
Ein Satz\ : C:\e, \[u00E9], \(xx!
.nf
printf("never");
.fi
.TS
never | this
.TE
\&. Punkt am Anfang
.XY unbekannt
"""


def test_a_man_page_becomes_its_paragraphs() -> None:
    assert manpage.lines_of(MAN.replace(r"\\", "\\")) == [
        "BEZEICHNUNG",
        "ls - Verzeichnisinhalte “auflisten”",
        "Zwei Wörter",
        "Die Einträge werden, falls weder -c noch --sort da ist, KLEIN sortiert(1), und weiter.",
        "-a, --all nichts auslassen.",
        "Ein Satz : C:\\, é, ! . Punkt am Anfang",
    ]


def test_scripts_without_spaces_get_none() -> None:
    assert manpage.lines_of("一覧表示\nします。\nA b") == ["一覧表示します。 A b"]


@pytest.mark.parametrize("source", ["", ".", "..", '.\\"', "\\", ".B", ".TS\nx", ".Dd x\ny"])
def test_a_broken_page_or_one_of_mdoc_gives_no_lines(source: str) -> None:
    assert manpage.lines_of(source) == []


def test_english_lines_and_repetitions_go() -> None:
    lines = ["Datei", "File", "Datei", "Neu", "Edit"]
    kept, dropped = debian.translated(lines, frozenset({"File", "Edit", "View"}))
    assert kept == ["Datei", "Neu"]
    assert dropped == pytest.approx(0.5)
    assert debian.translated([], frozenset()) == ([], 1.0)


# ---- apt, played -----------------------------------------------------------------------------

APT = """#!/bin/sh
echo "apt-get $*" >>"$FAKE_LOG"
for last in "$@"; do :; done
case "$*" in
    *update*) exit "${FAKE_UPDATE:-0}" ;;
    *Dir::State*) ;;
    *) [ -z "${FAKE_NO_LISTS:-}" ] || exit 100 ;;
esac
[ -d "$FAKE_PAGES/$last" ] || exit 100
echo "$last" >"$last.deb"
"""
DPKG = """#!/bin/sh
cp -r "$FAKE_PAGES/$(cat "$2")/." "$3"
"""


def _more_pages(pages: Path) -> None:
    """The man pages and the handbook of that machine; the handbook's languages share a package."""
    for package, folder, text in (
        ("manpages", "man7", "The signal\n.PP\nNAME\n"),
        ("manpages-zh", "zh_CN/man1", "列出文件\n"),
        ("manpages-de", "de/man1", "Das Signal\n.PP\nThe signal\n.PP\nMehr davon\n"),
    ):
        place = pages / package / "usr/share/man" / folder
        place.mkdir(parents=True)
        (place / "a.1.gz").write_bytes(gzip.compress(text.encode()))
        (place / "z.1.gz").symlink_to("a.1.gz")
    copyright_ = pages / "manpages-de/usr/share/doc/manpages-de/copyright"
    copyright_.parent.mkdir(parents=True)
    copyright_.write_text("License: GPL-3+\n")
    for folder, line in (("en-US", "A book"), ("de-DE", "Ein Buch"), ("da-DK", "A book")):
        place = pages / "debian-handbook/usr/share/doc/debian-handbook/html" / folder
        place.mkdir(parents=True)
        (place / "a.html").write_text(f"<div class='chapter'><p>{line}</p></div>")


def page(*lines: str) -> str:
    return f"<div id='DisplayArea'>{''.join(f'<p>{line}</p>' for line in lines)}</div>"


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt knows three languages; returns the log of its calls."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for tool in ("sh", "cp", "cat"):
        (programs / tool).symlink_to(shutil.which(tool) or "")
    pages = tmp_path / "pages"
    for language, lines in {
        "en-us": ("The file", "The edit"),
        "de": ("Die Datei", "The edit", "Die Datei"),
        "hi": ("The file", "The edit", "फ़ाइल खोलें"),
    }.items():
        folder = pages / f"libreoffice-help-{language}/usr/share/libreoffice/help/x/text/a"
        folder.mkdir(parents=True)
        (folder / "page.html").write_text(page(*lines))
    _more_pages(pages)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("FAKE_PAGES", str(pages))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_help_texts_are_fetched_and_cleaned(
    apt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("data", "debian", "--languages", "de,en-us", "--out", out) == OK
    assert (out / "de.txt").read_text() == "Die Datei\n"
    assert (out / "en-us.txt").read_text() == "The file\nThe edit\n"
    assert str(out / "de.txt") in capsys.readouterr().out
    assert "update" not in apt.read_text()


def test_three_sources_lie_side_by_side_with_their_licences(apt: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = "help,manpages,handbook"
    assert run("data", "debian", "--source", sources, "--languages", "de", "--out", out) == OK
    assert {path.name: path.read_text() for path in out.glob("*.txt")} == {
        "de.txt": "Die Datei\n",
        "de-manpages.txt": "Das Signal\nMehr davon\n",
        "de-handbook.txt": "Ein Buch\n",
    }
    assert (out / "de-manpages.copyright").read_text() == "License: GPL-3+\n"
    assert "debian-handbook" in (out / "de-handbook.copyright").read_text()
    calls = [call for call in apt.read_text().splitlines() if "debian-handbook" in call]
    assert len(calls) == 1


def test_a_text_is_cut_between_lines(apt: Path, tmp_path: Path) -> None:
    words = ("data", "debian", "--source", "manpages", "--languages", "de,zh-cn,en-us")
    assert run(*words, "--bytes", "13", "--out", tmp_path) == OK
    assert (tmp_path / "de-manpages.txt").read_text() == "Das Signal\n"
    assert (tmp_path / "zh-cn-manpages.txt").read_text() == "列出文件\n"
    assert (tmp_path / "en-us-manpages.txt").read_text() == "The signal\n"


def test_without_lists_it_fetches_its_own(
    apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NO_LISTS", "1")
    assert run("data", "debian", "--languages", "de", "--out", tmp_path / "out") == OK
    calls = apt.read_text().splitlines()
    updates = [call for call in calls if "update" in call]
    assert len(updates) == 1
    assert "APT::Sandbox::User=" in updates[0]


@pytest.mark.parametrize(
    ("languages", "environ", "status", "said"),
    [
        ("hi", {}, FAILURE, "hi: 67% of its lines are English"),
        ("xx", {}, USAGE, "libreoffice-help-xx cannot be had"),
        ("xx --source handbook", {}, USAGE, "is not in xx; choose among ar, ca"),
        ("da --source handbook", {}, FAILURE, "da: 100% of its lines are English"),
        ("xx --source manpages", {}, USAGE, "manpages-xx cannot be had"),
        ("de --source poems", {}, USAGE, "--source is one of help, manpages, handbook"),
        ("de --bytes much", {}, USAGE, "--bytes: 'much' is not like"),
        ("de --bytes 0", {}, USAGE, "must be more than 0"),
        ("../x", {}, USAGE, "is no language"),
        ("de", {"FAKE_NO_LISTS": "1", "FAKE_UPDATE": "100"}, TEMPORARY, "check the network"),
        ("de", {"PATH": "/nowhere"}, FAILURE, "apt-get was not found"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_no_file(
    languages: str,
    environ: dict[str, str],
    status: int,
    said: str,
    apt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    words = ["data", "debian", "--out", tmp_path / "out", "--languages", *languages.split()]
    assert run(*words) == status
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_stay(
    apt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "de.txt").write_text("mine")
    assert run("data", "debian", "--languages", "de", "--out", tmp_path) == REFUSED
    assert (tmp_path / "de.txt").read_text() == "mine"
    assert not apt.exists()


# ---- fashion ---------------------------------------------------------------------------------


def _package(apt: Path, count: int, side: int = 28) -> None:
    """Play a package with so many pictures in each of its files."""
    folder = apt.parent / "pages" / fashion.PACKAGE / fashion.FOLDER
    folder.mkdir(parents=True)
    for pictures, labels in (idx.TRAIN, idx.TEST):
        shape = (count, side, side)
        (folder / pictures).write_bytes(idx.pack(shape, bytes(count * side * side)))
        (folder / labels).write_bytes(idx.pack((count,), bytes(count)))


def test_pictures_are_fetched_as_they_are(
    apt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _package(apt, 3)
    out = tmp_path / "out"
    assert run("data", "fashion", "--out", out) == OK
    assert sorted(path.name for path in out.iterdir()) == sorted(fashion.FILES)
    assert idx.read_pair(out, idx.TRAIN) == (3, 784, bytes(3 * 784), bytes(3))
    assert str(out / idx.TEST[0]) in capsys.readouterr().out
    calls = apt.read_text()
    assert run("data", "fashion", "--out", out) == REFUSED
    assert apt.read_text() == calls  # nothing was fetched for nothing


@pytest.mark.parametrize(
    ("environ", "side", "status", "said"),
    [
        ({}, 0, USAGE, "dataset-fashion-mnist cannot be had"),
        ({}, 27, FAILURE, "does not hold what it should: 3 pictures of 729 points"),
        ({"FAKE_NO_LISTS": "1", "FAKE_UPDATE": "100"}, 28, TEMPORARY, "check the network"),
        ({"PATH": "/nowhere"}, 28, FAILURE, "take `--data digits`"),
    ],
)
def test_pictures_that_cannot_be_had_are_one_line_and_no_file(
    environ: dict[str, str],
    side: int,
    status: int,
    said: str,
    apt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if side:
        _package(apt, 3, side)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert run("data", "fashion", "--out", tmp_path / "out") == status
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


# ---- udhr ------------------------------------------------------------------------------------


def test_shipped_texts_are_written(tmp_path: Path) -> None:
    assert run("data", "udhr", "--languages", "fr,deu_1996,Japanese", "--out", tmp_path) == OK
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["deu_1996.txt", "fra.txt", "jpn.txt"]
    assert (tmp_path / "fra.txt").read_bytes() == udhr("fra")


def test_all_shipped_texts(tmp_path: Path) -> None:
    assert run("data", "udhr", "--out", tmp_path) == OK
    assert len(list(tmp_path.iterdir())) == 28


def test_a_language_that_is_not_shipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "udhr", "--languages", "fra,xx", "--out", tmp_path / "out") == USAGE
    assert "no udhr in xx" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert run("data", "udhr", "--languages", "fra", "--out", tmp_path / "out") == FAILURE
    assert "cannot be written" in capsys.readouterr().err


def test_languages_by_any_usual_name() -> None:
    assert [udhr_code(name) for name in ("de", "deu", "German", "DEU_1996")] == ["deu_1996"] * 4
    assert udhr_code("zh") == "cmn_hans"
    assert udhr_code("xx") is None
    assert all(udhr_code(code) == code for code in udhr_languages())


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "list") == OK
    out = capsys.readouterr().out
    assert all(code in out for code in (*udhr_languages(), *debian.SOURCES, "uk", "fashion"))
