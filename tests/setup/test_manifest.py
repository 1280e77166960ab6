"""The manifest: what it means has one id, and every mistake is one line that names the key."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.daemon import manifest as m
from tapestry_p2p.daemon import tomlfile
from tapestry_p2p.errors import BAD_CONFIG, VERSION, TapestryError
from tapestry_p2p.mix.codec import CODECS
from tapestry_p2p.mix.loom import VIEWS
from tapestry_p2p.mix.rules import NAMES, RULES

HASH = "ab" * 32
MINIMAL = f"""
[network]
name = "Test"
[task]
name = "language"
[schema]
hash = "{HASH}"
parameters = 70000
[genesis]
seed = 1
root = "{HASH}"
"""


def minimal() -> m.Manifest:
    return m.parse_manifest(MINIMAL.encode())


BASE = f"""
[base]
digest = "{HASH}"
bytes = 100
root = "{HASH}"
"""
ADAPTERS = "rank = 4\nalpha = 8\nadapt = ['blocks/*']\n"


def based() -> m.Manifest:
    return m.parse_manifest((MINIMAL + BASE + ADAPTERS).encode())


def refused(text: str, exit_code: int = BAD_CONFIG) -> str:
    with pytest.raises(TapestryError) as caught:
        m.parse_manifest(text.encode())
    assert caught.value.exit_code == exit_code
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_dumped_manifest_is_the_same_manifest() -> None:
    manifest = minimal()
    text = m.dump_manifest(manifest)
    assert m.parse_manifest(text.encode()) == manifest
    assert m.dump_manifest(m.parse_manifest(text.encode())) == text


def test_a_base_is_part_of_what_is_agreed() -> None:
    text = m.dump_manifest(based())
    assert m.parse_manifest(text.encode()) == based()
    assert "[base]" not in m.dump_manifest(minimal())


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (BASE.replace(HASH, "x", 1), "digest: must be 64"),
        (BASE.replace("100", "0"), "bytes"),
        (BASE.replace("100", str(1 << 32)), "bytes"),
        (BASE + "rank = 4", "alpha and rank go together"),
        (BASE + "alpha = 4.0", "alpha and rank go together"),
        (BASE + "adapt = ['x']", "adapt goes with rank"),
        (BASE + "rank = 4\nalpha = 8\nadapt = []", "1 to 64 patterns"),
        (BASE + "rank = 4\nalpha = 8\nadapt = ['']", "a pattern is empty"),
    ],
)
def test_a_base_that_means_nothing_is_refused(base: str, words: str) -> None:
    assert words in refused(MINIMAL + base)


def test_a_default_left_out_is_the_same_network() -> None:
    written = m.parse_manifest(m.dump_manifest(minimal()).encode())
    assert written.network_id == minimal().network_id
    assert len(written.network_id) == 32


def test_the_id_is_pinned() -> None:
    """A change here splits every network that exists."""
    assert minimal().network_id.hex().startswith("73cbecdd1f3ec398")


def test_every_key_changes_the_id() -> None:
    changed = {
        "name": "Other", "licence": "CC0-1.0", "digest": "", "options": {"width": 8},
        "hash": "cd" * 32, "parameters": 70001, "seed": 2, "root": "cd" * 32,
        "members": ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"],
        "codec": "int8", "ring": 17, "ttl": 15, "keyframe_every": 65, "rule": "mean", "f": 1,
        "eta": 2.0,
        "all_to_all_max": 16, "k": 17, "gamma": 0.4, "mu": 0.5, "rho": 0.5, "view": "applied_pull",
        "probation_rounds": 100, "inner_steps": 51, "schedule_steps": 21, "chunk_bytes_max": 131072,
        "entry_bytes_max": 1 << 25, "entries_per_minute_max": 601, "norm_max": 2e6,
        "bytes": 101, "rank": 5, "alpha": 3.0, "adapt": ["head/*"],
    }  # fmt: skip
    ids = {minimal().network_id, based().network_id}
    count = 2
    for section, kind in tomlfile.sections(m.Manifest).items():
        for key in kind.__struct_fields__:
            if key in {"wire", "digest"}:
                continue
            start = based() if section == "base" else minimal()
            part = msgspec.structs.replace(getattr(start, section), **{key: changed[key]})
            ids.add(msgspec.structs.replace(start, **{section: part}).network_id)
            count += 1
    assert len(ids) == count


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), ("0.5", 0.5), ("true", True), (-1, "-1"), (-1, 1)],
)
def test_options_of_other_types_are_other_networks(one: m.Option, other: m.Option) -> None:
    ids = {
        msgspec.structs.replace(
            minimal(), task=m.Task(name="language", options={"x": value})
        ).network_id
        for value in (one, other)
    }
    assert len(ids) == 2


def test_a_whole_number_for_a_real_one_is_the_same_network() -> None:
    one, other = (m.parse_manifest((MINIMAL + t).encode()) for t in GAMMAS)
    assert one.network_id == other.network_id


GAMMAS = ("[mixing]\ngamma = 1", "[mixing]\ngamma = 1.0")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("[mixing]\nf = 6", "3f+1 <= all_to_all_max does not hold: 19 > 17"),
        ("[mixing]\nf = 1\nall_to_all_max = 3", "4 > 3"),
        (
            "[mixing]\nf = 1\nk = 7",
            "does not hold: 1.53 <= 2; so few links cannot carry f = 1, k = 8",
        ),
        ("[mixing]\nk = 2", "does not hold: 0.00 <= 0"),
        ("[mixing]\nk = 49", "mixing.k: expected int <= 48"),
        ("[mixing]\nf = -1", "mixing.f: expected int >= 0"),
        ("[mixing]\nf = true", "mixing.f: expected int, got bool"),
        ("[mixing]\ngama = 1", "mixing.gama is not known here; did you mean gamma?"),
        ("[mixing]\ngamma = 0", "mixing.gamma"),
        ("[mixing]\ngamma = nan", "mixing.gamma"),
        ("[mixing]\nmu = 1.0", "mixing.mu: expected float < 1.0"),
        ('[mixing]\nrule = "krum"', "rule: the rule must be one of mean, cs_plus"),
        (
            '[mixing]\nrule = "multi_krum"\nf = 1\nall_to_all_max = 4',
            "rule: members > 2f + 2, which multi_krum needs, does not hold: 4 <= 4",
        ),
        ('[streams]\ncodec = "3bit"', "one of 2bit, 1bit, topk, int4, int8, fp32"),
        (
            '[streams]\ncodec = "topk"\n[mixing]\ngamma = 0.2',
            "mixing.gamma <= 0.15 does not hold, which topk needs: 0.2 > 0.15",
        ),
        ("[streams]\nttl = 17", "ttl <= ring does not hold: 17 > 16"),
        ("[mixin]\nf = 1", "[mixin] is not known here; did you mean mixing?"),
        ("[training]\nschedule_steps = -5", "training.schedule_steps: expected int >= 0"),
        ("[limits]\nnorm_max = inf", "limits.norm_max"),
        ("[limits]\nentry_bytes_max = 100", "70000 parameters in 2bit are 18048 > 100 bytes"),
        ("mixing = 3", "mixing: expected object, got int"),
        ("= 3", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(extra: str, words: str) -> None:
    text = MINIMAL + extra if extra.startswith("[") else extra + MINIMAL
    assert words in refused(text)


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ('name = "Test"', 'name = ""', "network: name is empty"),
        ('name = "Test"', 'name = "a\\u0007b"', "none of them for control"),
        ('name = "Test"', "", "network.name is missing; add it"),
        ("[genesis]", "[genesys]", "[genesys] is not known here; did you mean genesis?"),
        ('name = "language"', 'name = "mine.py:make_task"', "digest must be the SHA-256"),
        ('name = "language"', 'name = "../mine.py:make_task"', "give no folder"),
        ('name = "language"', f'name = "language"\ndigest = "{HASH}"', "task of your own"),
        ('name = "language"', 'name = "language"\noptions = {a = [1]}', "task.options"),
        ('name = "language"', 'name = "language"\noptions = {a = nan}', "options.a is not"),
        (f'hash = "{HASH}"', 'hash = "AB"', "schema: hash: must be 64"),
        ("parameters = 70000", "parameters = 0", "schema.parameters: expected int >= 1"),
        ("seed = 1", "seed = 1.5", "genesis.seed: expected int, got float"),
        ("seed = 1", 'seed = 1\nmembers = ["x"]', "'x' is no peer id"),
        ("seed = 1", 'seed = 1\nmembers = ["x", "x"]', "each once"),
    ],
)  # fmt: skip
def test_a_broken_value_is_named(right: str, wrong: str, words: str) -> None:
    assert right in MINIMAL
    assert words in refused(MINIMAL.replace(right, wrong, 1))


def test_a_section_left_out_is_named() -> None:
    assert "section [task] is missing" in refused(MINIMAL.replace('[task]\nname = "language"', ""))


def test_another_wire_version_is_a_refusal_of_its_own() -> None:
    words = refused(MINIMAL.replace('name = "Test"', 'name = "Test"\nwire = 2'), VERSION)
    assert "network.wire is 2, this version speaks 1" in words


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(TapestryError, match="not UTF-8"):
        m.parse_manifest(b"\xff")
    with pytest.raises(TapestryError, match="longer than"):
        m.parse_manifest(b"#" * 2_000_000)
    with pytest.raises(TapestryError, match="not valid TOML"):
        m.parse_manifest(b"a = " + b"[" * 100_000)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(TapestryError) as caught:
        m.parse_manifest(text)
    assert caught.value.message.isprintable()


def test_the_choices_are_those_of_the_code() -> None:
    """The manifest names them itself, since it must not import numpy to be read."""
    for words, section, key in (
        (CODECS, m.Streams, "codec"), (VIEWS, m.Mixing, "view"),
    ):  # fmt: skip
        hint = msgspec.inspect.type_info(section)
        assert isinstance(hint, msgspec.inspect.StructType)
        kind = next(field.type for field in hint.fields if field.name == key)
        literal = kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
        assert isinstance(literal, msgspec.inspect.LiteralType)
        assert set(literal.values) == set(words)


def test_every_rule_can_be_chosen_and_is_named_by_the_key() -> None:
    for name in NAMES:
        assert m.Mixing(rule=name, f=2).rule == name
    assert all(name in tomlfile.meaning(m.Mixing, "rule") for name in RULES)


def test_every_key_says_what_it_means() -> None:
    for kind in tomlfile.sections(m.Manifest).values():
        for key in kind.__struct_fields__:
            assert tomlfile.meaning(kind, key).endswith(".")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TapestryError, match="tapestry init") as caught:
        m.load_manifest(tmp_path / "network.toml")
    assert caught.value.exit_code == BAD_CONFIG
    with pytest.raises(TapestryError, match="cannot be read"):
        m.load_manifest(tmp_path)


def test_own_code_must_be_the_code_agreed_on(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("def make_task(): ...\n")
    digest = hashlib.sha256(code.read_bytes()).hexdigest()
    task = m.Task(name="mine.py:make_task", digest=digest)
    manifest = msgspec.structs.replace(minimal(), task=task)
    assert m.task_file(manifest, tmp_path) == code
    assert m.task_file(minimal(), tmp_path) is None
    code.write_text("import os\n")
    with pytest.raises(TapestryError, match="not the code that the members agreed on"):
        m.task_file(manifest, tmp_path)
    code.unlink()
    with pytest.raises(TapestryError, match="get the task's code from a member"):
        m.task_file(manifest, tmp_path)


@pytest.mark.parametrize(("f", "links"), [(0, 16), (1, 16), (2, 18), (3, 24), (4, 31), (5, 36)])
def test_links_that_are_not_given_follow_from_f(f: int, links: int) -> None:
    assert m.Mixing(f=f).links == links


def test_links_left_out_change_no_id_and_survive_being_written() -> None:
    assert "k is not given" in m.dump_manifest(minimal())
    given = msgspec.structs.replace(minimal(), mixing=m.Mixing(all_to_all_max=3, k=3))
    again = m.parse_manifest(m.dump_manifest(given).encode())
    assert again == given
    assert again.mixing.links == 3
