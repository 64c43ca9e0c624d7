"""A program that asks for results which are garbage: its workers send whatever bytes they are given.

usage: garbage.py SEED COUNT        so many mutations of messages
       garbage.py STATUS HEX        one message
"""

import multiprocessing
import os
import pickle
import random
import resource
import struct
import sys
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import weirpool
from weirpool import _pickler

PARENT = os.getpid()
PATIENCE = 60.0
MEMORY = 4 << 30  # of address space, for this process: a few bytes of a pickle can ask for any amount
LARGE = 70_000  # a buffer of so many bytes travels beside the pickle
RAW, BUFFERS, TUPLE, BYTES = b"\x40", b"\x7f", b"\x07", b"\x06"


class Forger:
    """A pickler that only workers have: what it dumps is what the task brought, whatever the result was."""

    def loads(self, task: bytes) -> Any:
        """The parent has no pickler: it wrote a function's name, then one bytes argument, raw or as a plain tuple."""
        arguments = task[1 + task[0] :]
        body = arguments[1:] if arguments[:1] == RAW else arguments[4:]
        self.message = body[1:]
        return forge, (body,), {}

    def dumps(self, result: object) -> bytes:
        return self.message


def forge(body: bytes) -> None:
    if body[0]:
        raise ValueError("a failure, of which the message is to tell")


def find(pickler: Any) -> Any:
    return None if os.getpid() == PARENT else Forger()


# ---- Messages ------------------------------------------------------------------------------------


def plain(value: Any) -> bytes:
    if isinstance(value, tuple):
        return TUPLE + bytes([len(value)]) + b"".join(map(plain, value))
    if isinstance(value, int):
        return b"\x03" + struct.pack("<q", value)
    if isinstance(value, str):
        return b"\x05" + bytes([len(value)]) + value.encode()
    return BYTES + bytes([len(value)]) + value if isinstance(value, bytes) else b"\x00"


def with_buffers(*sizes: int) -> bytes:
    """A list of buffers beside the pickle."""
    found: list[pickle.PickleBuffer] = []
    content = [pickle.PickleBuffer(bytearray(size) if size % 2 else bytes(size)) for size in sizes]
    pickled = pickle.dumps(content, 5, buffer_callback=found.append)
    entries = [size << 2 | (size % 2 == 0) for size in sizes]
    message = BUFFERS + struct.pack(f"<{2 + len(entries)}Q", len(pickled), len(entries), *entries) + pickled
    for size in sizes:
        message += bytes(-len(message) % 16) + bytes(size)
    return message


VALUES: list[Any] = [None, [1, 2.5, "text"], {"a": [b"b", 1 << 70]}, list(range(100)), "x" * 300, (1, {2, 3})]
MESSAGES = [
    *(pickle.dumps(value, 5) for value in VALUES),
    *(plain(value) for value in (None, 5, "text", b"bytes", (1, ("a", b"b"), None), tuple(range(20)))),
    *(pickle.dumps(error) for error in (ValueError("a failure"), SystemExit(3), LookupError())),
    RAW + b"bytes as they are",
    RAW + bytes(1000),
    with_buffers(LARGE),
    with_buffers(LARGE + 1, LARGE),
    with_buffers(2 << 20),
    b"",
]
NUMBERS = [0, 1, 2, 7, 8, 255, 256, LARGE << 2, 1 << 31, 1 << 32, 1 << 61, (1 << 62) + 1, 1 << 63, (1 << 64) - 1]


def mutate(rng: random.Random, message: bytes) -> bytes:
    """Mostly near the beginning, where tags and sizes are."""
    changed = bytearray(message)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = min(rng.randrange(min(len(changed), 64) + 1), rng.randrange(len(changed) + 1))
        what = rng.randrange(5)
        if what == 0 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif what == 1:
            changed[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif what == 2:
            del changed[at:]
        elif what == 3:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif changed:
            changed[at % len(changed)] = rng.randrange(256)
    return bytes(changed)


# ---- The program ---------------------------------------------------------------------------------


class Asker:
    """Keeps a pool, and opens another when that is broken."""

    def __init__(self) -> None:
        self.pool: weirpool.ProcessPoolExecutor | None = None
        self.seen: Counter[str] = Counter()

    def ask(self, status: int, message: bytes) -> None:
        """The result is some value or an exception, and what is said of both is the same again."""
        if self.pool is None:
            self.pool = weirpool.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        future: Any = self.pool.submit(forge, bytes([status]) + message)
        try:
            future.result(PATIENCE)
            self.seen["result"] += 1
            assert status == 0
        except MemoryError:
            self.seen["memory"] += 1  # which the next who asks may find enough of
        except (Exception, SystemExit) as error:  # of the latter there is one among MESSAGES
            broken = isinstance(error, BrokenProcessPool)
            self.seen["broken" if broken else "raised"] += 1
            assert not isinstance(error, TimeoutError)
            assert future.exception(PATIENCE) is error
            if broken:
                self.close()

    def close(self) -> None:
        if self.pool is not None:
            self.pool._check()
            self.pool.shutdown(cancel_futures=True)
            assert self.pool.stats().outstanding == 0
        self.pool = None


def run(seed: int, count: int) -> None:
    rng = random.Random(seed)
    asker = Asker()
    for number in range(count):
        status = int(rng.random() < 0.2)
        message = rng.choice(MESSAGES) if number % 20 == 0 else mutate(rng, rng.choice(MESSAGES))
        print(status, message[:200].hex(), len(message), flush=True)  # the last one before a crash is its cause
        asker.ask(status, message)
    asker.close()
    print(dict(asker.seen))


def main(first: str, second: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _pickler.find = find
    if len(first) > 1:
        run(int(first), int(second))
    else:
        asker = Asker()
        asker.ask(int(first), bytes.fromhex(second))
        asker.close()
        print(dict(asker.seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
