"""What the kernel tells of processes: children, memory, CPU time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found: list[int] = []
    wanted = [pid]
    children = children_by_parent()
    while wanted:
        mine = children.get(wanted.pop(), [])
        found += mine
        wanted += mine
    return found


def children_by_parent() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
                # The name of the program is in brackets, and may hold anything.
                words = (PROC / name / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(words[1]), []).append(int(name))
    return children


def family(pid: int, without: Iterable[int] = ()) -> list[int]:
    return [pid, *(child for child in descendants(pid) if child not in set(without))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time of all threads of these processes, to the nanosecond: /proc/PID/stat counts in ticks."""
    total = 0
    for pid in pids:
        for schedstat in (PROC / str(pid) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(schedstat.read_text().split()[0])
    return total / 1e9


def footprint(pids: list[int]) -> int:
    """What these processes hold together, in bytes, each page once.

    That is their proportional sets, and the memory files (a memfd, /dev/shm) of the first. What is written to such a
    file and mapped by nobody is in no process's set, and what is mapped is in both: the larger of the two counts.
    """
    private = shared = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = rollup(pid)
            shmem = fields.get("Pss_Shmem", 0)
            private += fields["Pss"] - shmem
            shared += shmem
    return private + max(shared, memory_files(pids[0]))


def rollup(pid: int) -> dict[str, int]:
    fields: dict[str, int] = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    return fields


def memory_files(pid: int) -> int:
    """The memory that the kernel holds for files in memory that this process has open."""
    found: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError):
        for link in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith(("/memfd:", "/dev/shm/")):
                    status = os.stat(link)
                    found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())
