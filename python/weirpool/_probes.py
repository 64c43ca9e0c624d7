"""What the native engine needs of the system, tried one by one; and facts that matter to a pool."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import re
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_LEAST_LINUX = (5, 3)
_FUTEX = {"x86_64": 202, "aarch64": 98}  # the number of the system call
_FUTEX_WAKE = 1
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Probe(NamedTuple):
    """What came of one."""

    name: str
    is_there: bool | None
    """None: a fact, neither good nor bad."""
    detail: str
    is_needed: bool
    """The native engine does not run without it."""


def of_system() -> list[Probe]:
    """What the engine needs."""
    unnamed = _try("unnamed files in /dev/shm", _open_unnamed, needed=False)
    return [
        _try("Linux 5.3 or newer", _check_kernel),
        _try("memfd with seals", _seal_memory, needed=not unnamed.is_there),
        unnamed,
        _try("shared futex", _wake_shared_futex),
        _try("pidfd", _open_pidfd),
        _try("eventfd", _open_eventfd),
        _try("epoll", _open_epoll),
    ]


def of_resources() -> list[Probe]:
    """What limits a pool, on whichever engine."""
    facts: list[tuple[str, Callable[[], str]]] = [
        ("memory", _tell_memory),
        ("/dev/shm", _tell_shm),
        ("descriptors (RLIMIT_NOFILE)", lambda: _tell_limit("RLIMIT_NOFILE", str)),
        ("address space (RLIMIT_AS)", lambda: _tell_limit("RLIMIT_AS", _size)),
        ("cores", _tell_cores),
        ("start methods", _tell_start_methods),
        ("Python", lambda: f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"),
    ]
    return [_tell(name, fact) for name, fact in facts]


def of_extension() -> Probe:
    """The extension and its file."""

    def find() -> str:
        from weirpool import _core

        return str(_core.__file__)

    return _try("extension weirpool._core", find)


def _try(name: str, attempt: Callable[[], str], needed: bool = True) -> Probe:
    try:
        return Probe(name, True, attempt(), needed)
    except Exception as error:  # whatever it is: it is the answer
        return Probe(name, False, _describe(error), needed)


def _tell(name: str, fact: Callable[[], str]) -> Probe:
    try:
        return Probe(name, None, fact(), False)
    except Exception as error:
        return Probe(name, None, f"unknown ({_describe(error)})", False)


def _describe(error: Exception) -> str:
    if isinstance(error, AttributeError):
        return "this Python does not have it"
    return str(error) or type(error).__name__


# ---- what the engine needs ----


def _check_kernel() -> str:
    if sys.platform != "linux":
        raise OSError(f"this is {sys.platform}")
    release = platform.release()
    if tuple(map(int, re.findall(r"\d+", release)[:2])) < _LEAST_LINUX:
        raise OSError(f"this is {release}")
    return f"{release}, {platform.machine()}"


def _seal_memory() -> str:
    import fcntl

    fd = os.memfd_create("weirpool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with _closing(fd):
        os.ftruncate(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return ""


def _open_unnamed() -> str:
    with _closing(os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)):
        return "in place of memfd, where that is refused"


def _wake_shared_futex() -> str:
    import ctypes
    import mmap

    number = _FUTEX[platform.machine()]
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        word = ctypes.c_uint32.from_buffer(shared)
        woken = libc.syscall(number, ctypes.byref(word), _FUTEX_WAKE, 1, None, None, 0)
        del word
    if woken < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ""


def _open_pidfd() -> str:
    with _closing(os.pidfd_open(os.getpid())):
        return ""


def _open_eventfd() -> str:
    with _closing(os.eventfd(0)):
        return ""


def _open_epoll() -> str:
    with select.epoll():
        return ""


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


# ---- facts ----


def _tell_memory() -> str:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _cgroup_value("memory.max", "memory/memory.limit_in_bytes")
    limited = f", cgroup limit {_size(int(limit))}" if limit is not None and int(limit) < total else ""
    return f"{_size(total)}, {_size(free)} available{limited}"


def _tell_shm() -> str:
    room = os.statvfs("/dev/shm")
    return f"{_size(room.f_frsize * room.f_blocks)}, {_size(room.f_frsize * room.f_bavail)} free"


def _tell_limit(name: str, show: Callable[[int], str]) -> str:
    import resource

    values = resource.getrlimit(getattr(resource, name))
    soft, hard = ("unlimited" if value == resource.RLIM_INFINITY else show(value) for value in values)
    return soft if soft == hard else f"{soft} (hard limit {hard})"


def _tell_cores() -> str:
    told = f"{os.cpu_count()}"
    if hasattr(os, "sched_getaffinity"):
        told += f", {len(os.sched_getaffinity(0))} by affinity"
    quota = _cgroup_quota()
    return told if quota is None else f"{told}, {quota:g} by cgroup quota"


def _cgroup_quota() -> float | None:
    both = _cgroup_value("cpu.max")
    if both is not None:
        quota, period = both.split()
        return int(quota) / int(period)
    quota, period = (_cgroup_value(f"cpu/cpu.cfs_{name}_us") or "-1" for name in ("quota", "period"))
    return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None


def _cgroup_value(*names: str) -> str | None:
    """Of this process's cgroup, as a container sees it; None: no limit is set, or none can be seen."""
    own = ""
    with contextlib.suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].splitlines()[0].strip("/")
    for name in names:
        for folder in (own, ""):
            with contextlib.suppress(OSError):
                value = Path("/sys/fs/cgroup", folder, name).read_text().strip()
                return None if value.startswith("max") else value
    return None


def _tell_start_methods() -> str:
    default = multiprocessing.get_start_method()
    others = [name for name in multiprocessing.get_all_start_methods() if name != default]
    return ", ".join([f"{default} (default)", *others])


def _size(count: int) -> str:
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.3g} {unit}" if unit != "B" else f"{count} B"
        value /= 1024
    return f"{value:.3g} {_UNITS[-1]}"
