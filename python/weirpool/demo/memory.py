"""How much memory this process uses, and how much there is."""

import os
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """The resident set of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def available() -> int:
    """What this process may still use, in bytes: the system's limit or its control group's."""
    return min(_available_in_system(), _available_in_group())


def _available_in_system() -> int:
    return _field(Path("/proc/meminfo"), "MemAvailable:") * 1024


def _available_in_group(group: Path | None = None) -> int:
    """Without a limit, or where none can be found: more than any system has."""
    try:
        group = group or Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().split("::", 1)[1].strip("/\n")
        limit = int((group / "memory.max").read_text())
        return limit - _field(group / "memory.stat", "anon")
    except (OSError, ValueError, IndexError):
        return 1 << 62


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        words = line.split()
        if words[0] == name:
            return int(words[1])
    raise ValueError(f"{path} has no {name}")
