"""What workers run. Importable by name, for workers that are not forked."""

import functools
import os
import time
from typing import Any

MIB = 1 << 20


def echo(value: Any) -> Any:
    return value


def length(data: bytes) -> int:
    return len(data)


@functools.cache
def payload(size: int) -> bytes:
    """Made once in each process: what is measured is how it travels."""
    return b"weirpool" * (size // 8) + b"." * (size % 8)


@functools.cache
def array(size: int) -> Any:
    """An array of `size` bytes, made once in each process."""
    import numpy

    return numpy.arange(size // 8, dtype=numpy.float64)


def ends(data: Any) -> tuple[int, Any, Any]:
    """Of an array: how many items, the first and the last. Cheap, so that the check is not what is measured."""
    return len(data), float(data[0]), float(data[-1])


def wait_at(gate: str) -> int:
    """Returns when somebody has opened this FIFO for writing. Any worker can be handed a path, however it started."""
    os.close(os.open(gate, os.O_RDONLY))
    return 0


def doze(data: bytes) -> int:
    """A task of the mixed load: 2 ms, and the number that its payload begins with."""
    time.sleep(0.002)
    return int.from_bytes(data[:8], "little")


def doze_often(count: int) -> int:
    """What a worker of the mixed load does at the least: its share of the sleeps, with no pool around them."""
    for _ in range(count):
        time.sleep(0.002)
    return count


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
