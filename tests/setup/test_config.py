"""The member's configuration: every key and variable, every mistake in one line with its path."""

from pathlib import Path

import pytest

from tapestry_p2p.daemon import config, tomlfile
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.gossip.profile import Profile, decode_profile, encode_profile

PEER = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


def load(folder: Path, text: str = "", environ: dict[str, str] | None = None) -> config.Config:
    path = folder / "tapestry.toml"
    path.write_text(text)
    return config.load_config(path, environ or {})


def refused(folder: Path, text: str = "", environ: dict[str, str] | None = None) -> str:
    with pytest.raises(TapestryError) as caught:
        load(folder, text, environ)
    assert caught.value.exit_code == BAD_CONFIG
    assert caught.value.message.isprintable()
    return caught.value.message


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path) == config.Config()


def test_a_dumped_configuration_is_the_same(tmp_path: Path) -> None:
    text = '[member]\nname = "Ana"\n[data]\npaths = ["/a b/\\"c\\""]\n[testing]\nhold = {x = 4}'
    wanted = load(tmp_path, text)
    assert load(tmp_path, config.dump_config(wanted)) == wanted
    assert load(tmp_path, config.dump_config(config.Config())) == config.Config()


def test_defaults_are_written_as_comments_that_can_be_uncommented(tmp_path: Path) -> None:
    lines = config.dump_config(config.Config()).splitlines()
    assert not [line for line in lines if line and line[0] not in "#["]
    loose = [line.removeprefix("# ") if " = " in line else line for line in lines]
    loose = [line for line in loose if not line.startswith(("TAPESTRY", "Peer id", "What to"))]
    assert load(tmp_path, "\n".join(loose)) == config.Config()


def test_data_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, '[data]\npaths = ["texts", "/abs"]')
    assert loaded.data.paths == [str(tmp_path / "texts"), "/abs"]


@pytest.mark.parametrize(
    ("variable", "value", "section", "wanted"),
    [
        ("TAPESTRY_MEMBER__NAME", "1.0", "member", "1.0"),
        ("TAPESTRY_MEMBER__LANGUAGES", "de, fr,", "member", ["de", "fr"]),
        ("TAPESTRY_MEMBER__LANGUAGES", '["de"]', "member", ["de"]),
        ("TAPESTRY_BUDGET__THREADS", "3", "budget", 3),
        ("TAPESTRY_LOG__LEVEL", "debug", "log", "debug"),
        ("TAPESTRY_TESTING__SPEED", "0.25", "testing", 0.25),
        ("TAPESTRY_TESTING__HOLD", "{ a = 4 }", "testing", {"a": 4}),
        ("TAPESTRY_BOOTSTRAP__PEERS", PEER, "bootstrap", [PEER]),
    ],
)
def test_the_environment_overrides_every_kind_of_key(
    tmp_path: Path, variable: str, value: str, section: str, wanted: object
) -> None:
    text = '[member]\nname = "file"\n[budget]\nthreads = 1'
    loaded = load(tmp_path, text, {variable: value, "TAPESTRY_HOME": "/x", "PATH": "y"})
    assert getattr(getattr(loaded, section), variable.split("__")[1].lower()) == wanted


def test_origin_of_each_value(tmp_path: Path) -> None:
    (tmp_path / "tapestry.toml").write_text('[member]\nname = "file"\n[budget]\nthreads = 1')
    environ = {"TAPESTRY_BUDGET__THREADS": "2"}
    loaded, origin = config.load_with_origin(tmp_path / "tapestry.toml", environ)
    assert loaded.budget.threads == 2
    assert origin == {
        "member.name": "tapestry.toml",
        "budget.threads": "$TAPESTRY_BUDGET__THREADS",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[budget]\nthread = 1", "budget.thread is not known here; did you mean threads?"),
        ("[budgets]", "[budgets] is not known here; did you mean budget?"),
        ("[budget]\nthreads = -1", "budget.threads: expected int >= 0"),
        ('[budget]\nthreads = "two"', "budget.threads: expected int, got str"),
        ("[data]\npaths = 'x'", "data.paths: expected array, got str"),
        ("[data]\npaths = [1]", "data.paths[0]: expected str, got int"),
        ("[listen]\naddresses = []", "listen: addresses is empty"),
        ("[listen]\naddresses = ['localhost:80']", "'localhost:80' is no address like /ip4/"),
        ("[listen]\naddresses = ['/ip4/0.0.0.0/tcp/70000']", "no port between 0 and 65535"),
        ("[bootstrap]\npeers = ['/ip4/127.0.0.1/tcp/1']", "does not end in /p2p/ID"),
        ("[member]\nname = 'a\u200bb'", "none for control"),
        (f"[member]\nname = '{'x' * 65}'", "at most 64 characters"),
        ("[testing]\nspeed = 0", "testing.speed: expected float > 0.0"),
        ("[budget]\nupload = '200'", "budget: upload: '200' is not like 200 kB/s"),
        ("[budget]\nupload = '10 kB/s'", "upload: 10 kB/s < 20 kB/s"),
        ("[budget]\ndownload = 'fast'", "download: 'fast' is not like 200 kB/s"),
        ("[budget]\nmemory = '2 GB/s'", "memory: '2 GB/s' is not like 1.5 GB"),
        ("[budget]\nmemory = '100 MB'", "memory: 100 MB < 300 MB"),
        ("[metrics]\nlisten = 70000", "metrics.listen: expected int <= 65535"),
        ("[log]\nformat = 'xml'", "one of text, json"),
        ("[log]\nlevel = 'loud'", "log.level: invalid enum value 'loud'; one of debug"),
        ("name =", "not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    message = refused(tmp_path, text)
    assert words in message
    assert message.startswith("tapestry.toml: ")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("TAPESTRY_BUDGETS__THREADS", "1", "budgets.threads is not known here"),
        ("TAPESTRY_BUDGET__THREAD", "1", "budget.thread is not known here"),
        ("TAPESTRY_BUDGET__THREADS", "two", "'two' is no TOML value"),
        ("TAPESTRY_BUDGET__THREADS", "-1", "budget.threads: expected int >= 0"),
        ("TAPESTRY_LOG__LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    tmp_path: Path, variable: str, value: str, words: str
) -> None:
    message = refused(tmp_path, "", {variable: value})
    assert words in message
    assert message.startswith(f"${variable}: ")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(TapestryError, match="tapestry init") as caught:
        config.load_config(tmp_path / "tapestry.toml", {})
    assert caught.value.exit_code == BAD_CONFIG
    with pytest.raises(TapestryError, match="cannot be read"):
        config.load_config(tmp_path, {})


def test_missing_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    assert config.need_data(load(tmp_path, "[data]\npaths = ['texts']"), "language")
    assert config.need_data(load(tmp_path), "digits") == []
    with pytest.raises(TapestryError, match=r"data.paths is empty"):
        config.need_data(load(tmp_path), "language")
    with pytest.raises(TapestryError, match=r"gone does not exist"):
        config.need_data(load(tmp_path, "[data]\npaths = ['gone']"), "language")


def test_every_key_says_what_it_means() -> None:
    for kind in tomlfile.sections(config.Config).values():
        for key in kind.__struct_fields__:
            assert tomlfile.meaning(kind, key).endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        f'[member]\nlanguages = ["{"x" * 33}"]',
        '[member]\nlanguages = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]',
        f'[member]\nname = "{"x" * 65}"',
        '[listen]\nannounce = ["/dns/é.example/tcp/1"]',
        f'[listen]\nannounce = ["/dns/{"a." * 125}b/tcp/1"]',
    ],
)
def test_what_a_profile_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    assert "tapestry.toml" in refused(tmp_path, text)


def test_the_longest_profile_that_is_allowed_can_be_published(tmp_path: Path) -> None:
    host = "a." * 119 + "bb"
    language, name = "世" * 32, "世" * 64
    text = (
        f'[member]\nname = "{name}"\nlanguages = {[language] * 8}\n'
        f"[listen]\nannounce = {[f'/dns4/{host}/tcp/65535'] * 8}"
    )
    made = load(tmp_path, text)
    profile = Profile(name, tuple(made.member.languages), tuple(made.listen.announce))
    assert decode_profile(encode_profile(profile)) == profile
