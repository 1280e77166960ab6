"""Holds what a verb printed against its schema in docs/schemas."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

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
