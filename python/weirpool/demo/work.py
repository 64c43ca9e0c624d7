"""What a worker does with the bytes of one task."""

import hashlib
import lzma
import time
from typing import NamedTuple

PRESET = 0  # lzma's fastest: about 20 MB/s a core, and the memory of a worker stays small


class Answer(NamedTuple):
    """What a worker found: enough for the parent to check that it got the right bytes."""

    digest: bytes
    size: int
    compressed: int


def compress(data: bytes) -> Answer:
    """Compresses and hashes."""
    return Answer(hashlib.sha256(data).digest(), len(data), len(lzma.compress(data, preset=PRESET)))


def nap(seconds: float) -> None:
    """Keeps a worker busy, so that the pool starts the next one."""
    time.sleep(seconds)
