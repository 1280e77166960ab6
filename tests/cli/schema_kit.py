"""Holds what a verb printed against its schema in docs/schemas, and makes a member to ask."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from benches.torn import ENTRIES, RING, lived
from tapestry_p2p.daemon.audit import AuditLog, left_by
from tapestry_p2p.daemon.keyfile import make_key
from tapestry_p2p.daemon.manifest import (
    Genesis,
    Manifest,
    Network,
    Schema,
    Streams,
    Task,
    dump_manifest,
)
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.daemon.store import read_entries

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@cache
def validator(name: str) -> Any:
    schema = json.loads((SCHEMAS / f"{name}.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def hold(name: str, printed: str) -> Any:
    """The parsed JSON; AssertionError with every place that is not as the schema says."""
    found = json.loads(printed)
    faults = [f"{list(e.path)}: {e.message[:200]}" for e in validator(name).iter_errors(found)]
    assert not faults, (name, faults)
    return found


def stopped_member(text: str) -> Paths:
    """A member in the home that has lived a little and does not run; ``text``: tapestry.toml."""
    manifest = Manifest(
        network=Network(name="test"), task=Task(name="digits"),
        schema=Schema(hash="ab" * 32, parameters=700), genesis=Genesis(seed=1, root="cd" * 32),
        streams=Streams(ring=RING, ttl=RING),
    )  # fmt: skip
    paths = find_paths()
    paths.make()
    paths.manifest.write_text(dump_manifest(manifest))
    paths.member.write_text(text)
    make_key(paths.key)
    store = paths.state / "store"
    lived(store, ENTRIES)
    log = AuditLog(store)
    for entry in read_entries(store):
        log.append(left_by(entry.signed, entry.payload), 0.0)
    return paths
