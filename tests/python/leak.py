"""Runs many tasks of every kind through a pool, and fails if the parent or a worker has more afterwards than before.

python tests/python/leak.py --tasks 1000000
"""

import argparse
import contextlib
import ctypes
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks

import weirpool

WORKERS = 2
BOUND = 64
ROUND = 1000  # tasks
WARM_UP = 20  # rounds, before the first look: caches, free lists and the arena reach their size
HELD: list[Any] = []  # what --leak keeps
LARGE = bytes(5000)  # fits no slot: payloads through the arena, results through a stream


# ---- What is looked at ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Footprint:
    """What one process has. A leak of one block, or of 64 bytes, a task exceeds what is allowed."""

    kib: int
    blocks: int
    objects: int
    descriptors: int

    def growth(self, after: "Footprint", done: int) -> list[str]:
        """What has grown by more than chance, over so many tasks."""
        allowed = Footprint(2048 + done // 256, 1000 + done // 200, 1000 + done // 1000, 0)
        return [
            f"{getattr(after, name) - getattr(self, name):,} {name} more (allowed: {limit:,})"
            for name, limit in vars(allowed).items()
            if getattr(after, name) - getattr(self, name) > limit
        ]


def footprint() -> Footprint:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return Footprint(
        resident // 1024, sys.getallocatedblocks(), len(gc.get_objects()), len(os.listdir("/proc/self/fd"))
    )


def footprint_of_worker(folder: str) -> tuple[str, Footprint]:
    """Returns when every worker is here, so that none is asked twice."""
    (Path(folder) / str(os.getpid())).touch()
    deadline = time.monotonic() + tasks.PATIENCE
    while len(os.listdir(folder)) < WORKERS:
        if time.monotonic() > deadline:
            raise TimeoutError("not every worker came")
        time.sleep(0.001)
    return f"worker {os.getpid()}", footprint()


def footprints(pool: Executor) -> dict[str, Footprint]:
    with tempfile.TemporaryDirectory() as folder:
        asked = [pool.submit(footprint_of_worker, folder) for _ in range(WORKERS)]
        found = dict(future.result() for future in asked)
    del asked
    return {**found, "the parent": footprint()}


# ---- Kinds of tasks ------------------------------------------------------------------------------


def read_results(pool: Executor, count: int) -> None:
    futures = [pool.submit(tasks.echo, number) for number in range(count)]
    assert [future.result() for future in futures] == list(range(count))


def drop_futures(pool: Executor, count: int) -> None:
    for _ in range(count):
        pool.submit(tasks.nothing)


def wait_for_all(pool: Executor, count: int) -> None:
    assert not wait([pool.submit(tasks.nothing) for _ in range(count)]).not_done


def take_as_completed(pool: Executor, count: int) -> None:
    futures = [pool.submit(tasks.echo, number) for number in range(count)]
    assert sum(future.result() for future in as_completed(futures)) == sum(range(count))


def map_all(pool: Executor, count: int) -> None:
    assert list(pool.map(tasks.square, range(count))) == [number * number for number in range(count)]


def map_in_chunks(pool: Executor, count: int) -> None:
    assert sum(pool.map(tasks.echo, range(count * 4), chunksize=4)) == sum(range(count * 4))


def leave_a_map(pool: Executor, count: int) -> None:
    for _ in range(count // 20):
        next(pool.map(tasks.echo, range(20)))


def call_back(pool: Executor, count: int) -> None:
    seen: list[Any] = []
    for number in range(count):
        pool.submit(tasks.echo, number).add_done_callback(lambda done: seen.append(done.result()))
    while len(seen) < count:
        time.sleep(0.001)


def raise_errors(pool: Executor, count: int) -> None:
    futures = [pool.submit(tasks.fail_with, tasks.OddError, number) for number in range(count)]
    for future in futures:
        with contextlib.suppress(tasks.OddError):
            future.result()


def refuse_pickling(pool: Executor, count: int) -> None:
    for _ in range(count):
        assert pool.submit(tasks.echo, tasks.RefusesPickling()).exception() is not None


def cancel_some(pool: Executor, count: int) -> None:
    for _ in range(count // 50):
        futures = [pool.submit(tasks.nothing) for _ in range(50)]
        futures[-1].add_done_callback(lambda _: None)
        for future in reversed(futures):
            future.cancel()
        wait(futures)


def tie_knots(pool: Executor, count: int) -> None:
    """Futures that only the garbage collector frees."""
    for number in range(count):
        future: Any = pool.submit(tasks.echo, tasks.Box(number))
        future.self = future
        future.add_done_callback(lambda _, keep=future: None)
        if number % 2:
            future.result().content = future


def send_much(pool: Executor, count: int) -> None:
    assert all(result == LARGE for result in pool.map(tasks.echo, [LARGE] * count))


def time_out(pool: Executor, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(TimeoutError):
            pool.submit(tasks.nothing).result(timeout=0)


# How many of each in a round.
KINDS: dict[Callable[[Executor, int], None], int] = {
    read_results: 160,
    drop_futures: 160,
    wait_for_all: 100,
    take_as_completed: 100,
    map_all: 160,
    map_in_chunks: 60,
    leave_a_map: 40,
    call_back: 60,
    raise_errors: 20,
    refuse_pickling: 10,
    cancel_some: 50,
    tie_knots: 30,
    send_much: 40,
    time_out: 10,
}
assert sum(KINDS.values()) == ROUND


# ---- Leaks on purpose ----------------------------------------------------------------------------


def keep(number: int) -> None:
    HELD.append(bytes(31))  # 64 bytes, as an object


def keep_objects(pool: Executor) -> None:
    for number in range(ROUND):
        keep(number)


def keep_objects_in_workers(pool: Executor) -> None:
    list(pool.map(keep, range(2 * ROUND), chunksize=100))


def keep_memory(pool: Executor) -> None:
    for _ in range(ROUND):
        ctypes.CDLL(None).malloc(64)


def keep_a_descriptor(pool: Executor) -> None:
    HELD.append(os.dup(0))


LEAKS: dict[str, Callable[[Executor], None]] = {
    "objects": keep_objects,
    "worker": keep_objects_in_workers,
    "memory": keep_memory,
    "descriptor": keep_a_descriptor,
}


# ---- The run -------------------------------------------------------------------------------------


def run(pool: Executor, rounds: int, leak: Callable[[Executor], None]) -> None:
    for _ in range(rounds):
        for kind, count in KINDS.items():
            kind(pool, count)
        leak(pool)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000, help="how many (default: a million)")
    parser.add_argument("--leak", choices=LEAKS, help="leak on purpose, once a task: this script must fail then")
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods(), help="how workers are started")
    options = parser.parse_args()
    rounds = -(-options.tasks // ROUND)
    leak = LEAKS.get(options.leak, lambda pool: None)
    context = multiprocessing.get_context(options.method)
    with weirpool.BoundedProcessPoolExecutor(BOUND, WORKERS, context) as pool:
        run(pool, WARM_UP, leak)
        before = footprints(pool)
        began = time.monotonic()
        run(pool, rounds, leak)
        seconds = time.monotonic() - began
        after = footprints(pool)
    print(f"{rounds * ROUND:,} tasks in {seconds:.0f} s")
    for process in before:
        print(f"{process}: {before[process]} -> {after[process]}")
    grown = [f"{name} has {what}" for name in before for what in before[name].growth(after[name], rounds * ROUND)]
    print(*grown or ["nothing has grown"], sep="\n")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
