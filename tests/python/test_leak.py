"""A hundred thousand tasks leave nothing behind; `make leak` runs a million."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import FLAGS

SCRIPT = Path(__file__).with_name("leak.py")


def run(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *FLAGS, str(SCRIPT), *options], capture_output=True, text=True, timeout=110)


@pytest.mark.slow
def test_many_tasks_leave_nothing_behind() -> None:
    ran = run("--tasks", "100000")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


@pytest.mark.parametrize(
    ("leak", "noticed"),
    [
        ("objects", r"the parent has [\d,]+ blocks more"),
        ("worker", r"worker \d+ has [\d,]+ blocks more"),
        ("memory", r"the parent has [\d,]+ kib more"),
        ("descriptor", r"the parent has 50 descriptors more"),
    ],
)
def test_a_leak_is_noticed(leak: str, noticed: str) -> None:
    ran = run("--tasks", "50000", "--leak", leak)
    assert ran.returncode == 1, ran.stderr
    assert re.search(noticed, ran.stdout), ran.stdout
