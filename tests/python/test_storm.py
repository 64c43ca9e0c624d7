"""A short storm over the pool; `make storm` blows longer. And the storm notices what it is there for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import FLAGS

STORM = Path(__file__).parent.parent / "storm"


def storm(*options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    ran = subprocess.run(
        [sys.executable, *FLAGS, str(STORM), "--limit", "90", *options],
        capture_output=True,
        text=True,
        timeout=115,
        env=os.environ | environment,
    )
    print(ran.stdout, ran.stderr, sep="\n")  # the seed among it
    return ran


@pytest.mark.slow
def test_nothing_is_lost_in_a_storm() -> None:
    ran = storm("--rounds", "10")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"^\d+ passed, 0 failed$", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("spoil", "noticed"),
    [
        ("twice", r"it was started 2 times"),
        ("silent", r"it has a result and was never started"),
        ("wrong", r"its result is wrong"),
        ("leak", r"left behind: descriptors"),
    ],
)
def test_a_storm_notices(spoil: str, noticed: str) -> None:
    ran = storm("--rounds", "2", "--seed", "1", "--death", "break", "--patience", "1", WEIRPOOL_SPOIL=spoil)
    assert ran.returncode == 1
    assert re.search(noticed, ran.stdout)
    assert re.search(r"^\d+ passed, [1-9]\d* failed$", ran.stdout, re.MULTILINE)


def test_a_storm_notices_a_hang() -> None:
    ran = storm("--limit", "2", "--seed", "1", WEIRPOOL_SPOIL="hang")
    assert ran.returncode == 3
    assert "HANGS for 2 s: round 0 of seed 1" in ran.stdout
    assert "Thread 0x" in ran.stderr, "the stacks"
