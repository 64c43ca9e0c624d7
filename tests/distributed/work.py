"""What the engines run, and what every test asks of them. Also used by ranks of MPI, so it imports no pytest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds; only a hang takes so long


def square(number: int) -> int:
    return number * number


def fail(text: str) -> None:
    raise ValueError(text)


def hold(folder: str, result: int = 0) -> int:
    """Runs until the file `open` is in the folder, and leaves one that says it has started."""
    Path(folder, f"started-{time.monotonic_ns()}").touch()
    deadline = time.monotonic() + PATIENCE
    while not Path(folder, "open").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.01)
    return result


def release(folder: Path) -> None:
    (folder / "open").touch()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {PATIENCE:.0f} s: {what}")
        time.sleep(0.01)
