"""Results that are garbage, as of a worker whose memory was written over: an error for whoever asks, never a crash.

What a message can have its receiver import and call is not the matter here: pickle does what it is told.
"""

import mmap
import os
import random
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import tasks
from support import FLAGS, PATIENCE, Gate, Pools, start_workers

import weirpool

PROGRAM = Path(__file__).with_name("garbage.py")
SECONDS = 180.0


def run(*args: object) -> str:
    """The last line that the program says."""
    done = subprocess.run(
        [sys.executable, *FLAGS, "-X", "faulthandler", PROGRAM, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}\nafter {said[-1:]}"
    return said[-1]


def test_mutated_messages() -> None:
    seed = random.randrange(10, 2**32)
    print("seed", seed)
    assert "broken" in run(seed, 150)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (0, b""),
        (1, b""),
        (0, b"\x07\xff"),  # a plain tuple of 255 items, and none there
        (0, b"\x07\x01" * 100),
        (0, b"\x05\xfftext"),  # a string that is shorter than it says
        (0, b"\x05\x02\xff\xff"),
        (0, b"\x08"),  # an unknown tag
        (0, b"\x7f"),  # buffers, without their sizes
        (0, b"\x7f" + b"\xff" * 16),
        (0, b"\x7f" + (1 << 61).to_bytes(8, "little") + (1 << 61).to_bytes(8, "little") + bytes(300)),
        (0, b"\x7f" + bytes(8) + (1).to_bytes(8, "little") + b"\xff" * 8 + bytes(300)),
        (0, b"\x7f" + bytes(8) + (1).to_bytes(8, "little") + b"\x02" + bytes(300)),  # the first one is another again
        (0, b"\x80\x05N"),  # a pickle without an end
        (0, b"\x80\x05" + b"\xff" * 300),
        (1, b"\x03" + bytes(8)),  # an int, where an exception belongs
        (1, b"\x80\x05\x8c\x08builtins\x8c\x0aValueError\x93."),  # a class of exceptions, where an instance belongs
    ],
    ids=str,
)
def test_a_message_that_breaks_the_pool(status: int, message: bytes) -> None:
    assert run(status, message.hex()) == "{'broken': 1}"


def test_a_task_that_was_written_over_does_not_crash_its_worker(
    pools: Pools, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = pools.unbounded(1)
    start_workers(pool, gate, 1)
    mark = os.urandom(16)
    future = pool.submit(tasks.echo, mark + bytes(1 << 20))
    assert pool._engine is not None
    segment, _, _ = pool._engine.channel()
    with mmap.mmap(segment, 0) as memory:
        at = memory.find(mark)
        assert at > 0
        memory[at - 1 : at + (1 << 20)] = b"\x07" + b"\x01\x07" * (1 << 19)  # a tuple, in one, in one
    gate.open()
    with pytest.raises(BrokenProcessPool) as caught:
        future.result(PATIENCE)
    assert isinstance(caught.value.__cause__, weirpool.WorkerDied)
    assert caught.value.__cause__.signal is None
    assert "larger than it can be" in capfd.readouterr().err
