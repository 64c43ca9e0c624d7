"""Which tests are not run on the fall-back, and why: for WEIRPOOL_ENGINE=stdlib."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

FILE = Path(__file__).with_name("fallback.toml")


class Exclusion(NamedTuple):
    """Of the tests whose names, such as "test_map.py::test_laziness[1]", match an expression as a whole."""

    tests: str
    reason: str


def exclusions() -> list[Exclusion]:
    return [Exclusion(**entry) for entry in tomllib.loads(FILE.read_text())["excluded"]]


def skip_excluded(items: list[pytest.Item], complete: bool) -> None:
    """Mark them. Where files were collected completely, an exclusion that matches nothing is an error."""
    names = {item: item.nodeid.rpartition("/")[2] for item in items}
    files = {name.partition("::")[0] for name in names.values()}
    for exclusion in exclusions():
        matching = [item for item, name in names.items() if re.fullmatch(exclusion.tests, name)]
        file = exclusion.tests.partition("::")[0].replace("\\", "")
        if complete and not matching and file in files:
            raise pytest.UsageError(f"{FILE.name}: no test is named {exclusion.tests!r}")
        for item in matching:
            item.add_marker(pytest.mark.skip(reason=f"not on the fall-back: {exclusion.reason}"))
