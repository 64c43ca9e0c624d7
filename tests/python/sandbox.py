"""Refuses system calls to a test's own process and its children, as a container's sandbox may."""

import ctypes
import errno
import platform
import struct
from typing import Any

X86 = {"memfd_create": 319, "pidfd_open": 434, "eventfd2": 290, "futex": 202, "openat": 257}
ARM = {"memfd_create": 279, "pidfd_open": 434, "eventfd2": 19, "futex": 98, "openat": 56}
NUMBERS = {"x86_64": X86, "aarch64": ARM}

SHARED_WAIT = 9  # FUTEX_WAIT_BITSET, not private: the standard library's locks are waited for otherwise
O_TMPFILE = 0o20200000

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_REFUSE, _ALLOW = 0x00050000 | errno.EPERM, 0x7FFF0000


def is_possible() -> bool:
    return platform.machine() in NUMBERS


def refuse(*names: str) -> None:
    """From now on these fail with EPERM. Of futex the shared wait alone, of openat the making of unnamed files."""
    numbers = NUMBERS[platform.machine()]
    program: list[bytes] = []
    for name in names:
        program += _rule(name, numbers[name])
    program.append(_instruction(_RETURN, _ALLOW))
    _install(b"".join(program))


def _rule(name: str, number: int) -> list[bytes]:
    if name == "futex":  # its second argument
        return _rule_with(number, 24, _EQUAL, SHARED_WAIT)
    if name == "openat":  # its third
        return _rule_with(number, 32, _BITS, O_TMPFILE & ~0o200000)
    return [
        _instruction(_LOAD, 0),
        _instruction(_EQUAL, number, 0, 1),
        _instruction(_RETURN, _REFUSE),
    ]


def _rule_with(number: int, offset: int, test: int, value: int) -> list[bytes]:
    return [
        _instruction(_LOAD, 0),
        _instruction(_EQUAL, number, 0, 3),
        _instruction(_LOAD, offset),
        _instruction(test, value, 0, 1),
        _instruction(_RETURN, _REFUSE),
    ]


def _instruction(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, when_true, when_false, value)


def _install(program: bytes) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    filters = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(filters))
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(_SECCOMP, _FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refuses seccomp filters here")
