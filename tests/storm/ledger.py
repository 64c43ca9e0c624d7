"""Who started which task, and when: one record a start, appended by the worker, so that no death undoes it."""

from __future__ import annotations

import os
import struct
import time
from typing import NamedTuple

_RECORD = struct.Struct("=QQQ")  # task, process, time
_open: dict[str, int] = {}


class Start(NamedTuple):
    """One start of a task."""

    pid: int
    at: int
    """``time.monotonic_ns()``, which all processes share."""


def create(path: str) -> None:
    """Make an empty ledger."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def note(path: str, task: int) -> None:
    """Write down that this process starts a task. One write, which other processes' writes do not mix with."""
    fd = _open.get(path)
    if fd is None:
        fd = _open[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.write(fd, _RECORD.pack(task, os.getpid(), time.monotonic_ns()))


def read(path: str) -> dict[int, list[Start]]:
    """Return the starts of each task, in their order."""
    found: dict[int, list[Start]] = {}
    with open(path, "rb") as file:
        for task, pid, at in _RECORD.iter_unpack(file.read()):
            found.setdefault(task, []).append(Start(pid, at))
    return found
