"""The weir: submit() waits at the bound, in order of arrival, and memory stays flat."""

import collections
import dataclasses
import itertools
import os
import threading
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import Gate, Pools, Threads, memory_kib, start_workers, wait_until

import weirpool

SOON = 60.0


def blocked(pool: weirpool.ProcessPoolExecutor) -> int:
    return pool.stats().blocked_producers


def wait_blocked(pool: weirpool.ProcessPoolExecutor, count: int) -> None:
    wait_until(lambda: blocked(pool) == count, f"{count} producers are blocked")


# ---- The bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "room"), [(1, 1), (2, 2), (5, 5), (True, 4), (300, 300)])
def test_submit_blocks_at_the_bound_and_only_its_thread(
    pools: Pools, gate: Gate, threads: Threads, bound: int | bool, room: int
) -> None:
    pool = pools.bounded(bound, workers=min(2, room))
    futures = [pool.submit(tasks.hold, gate.folder, number) for number in range(room)]
    assert pool.stats().outstanding == room
    late = threads.start(pool.submit, tasks.echo, "late")
    wait_blocked(pool, 1)
    # Every other thread goes on: this one asks, cancels and makes room.
    assert pool.stats().outstanding == room
    assert not futures[0].done()
    assert late.is_alive()
    gate.open()
    assert [future.result() for future in threads.join()] == ["late"]
    assert [future.result() for future in futures] == list(range(room))
    assert pool.stats().peak_outstanding == room
    assert pool.stats().blocked_seconds > 0


@pytest.mark.parametrize("unbounded", ["standard", "None"])
def test_without_a_bound_submit_never_blocks(pools: Pools, gate: Gate, unbounded: str) -> None:
    pool = pools.unbounded(2) if unbounded == "standard" else pools.bounded(None)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(3000)]
    assert pool.stats().outstanding == 3000
    assert all(future.cancel() for future in futures[10:])
    gate.open()


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
def test_one_end_admits_one_producer(pools: Pools, threads: Threads, tmp_path: Path, size: int) -> None:
    pool = pools.bounded(2)
    gates = [Gate(tmp_path / f"gate{number}") for number in range(4)]
    for one in gates[:2]:
        pool.submit(tasks.hold, one.folder, bytes(size))
    for count, one in enumerate(gates[2:], start=1):
        threads.start(pool.submit, tasks.hold, one.folder, bytes(size))
        wait_blocked(pool, count)
    gates[0].open()
    gates[2].wait_started(1)
    wait_blocked(pool, 1)
    assert (gates[3].started, pool.stats().outstanding) == (0, 2)
    gates[1].open()
    gates[3].wait_started(1)
    wait_blocked(pool, 0)
    for one in gates:
        one.open()
    threads.join()
    assert pool.stats().peak_outstanding == 2


def test_a_cancelled_task_admits_a_producer(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.bounded(6, workers=1)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(6)]
    gate.wait_started(1)
    threads.start(pool.submit, tasks.echo, "late")
    wait_blocked(pool, 1)
    assert futures[-1].cancel()
    wait_blocked(pool, 0)
    gate.open()
    assert [future.result() for future in threads.join()] == ["late"]


def test_a_task_ends_when_its_callbacks_have_run(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.bounded(1, workers=1)
    entered, leave = threading.Event(), threading.Event()
    future = pool.submit(tasks.hold, gate.folder)
    future.add_done_callback(lambda _: (entered.set(), leave.wait(SOON)))
    threads.start(pool.submit, tasks.echo, "late")
    wait_blocked(pool, 1)
    gate.open()
    assert entered.wait(SOON)
    assert (pool.stats().outstanding, blocked(pool)) == (1, 1)
    leave.set()
    assert [future.result() for future in threads.join()] == ["late"]


def test_a_full_pool_does_not_block_another(pools: Pools, gate: Gate, threads: Threads) -> None:
    full, other = pools.bounded(1, workers=1), pools.bounded(1, workers=1)
    full.submit(tasks.hold, gate.folder)
    threads.start(full.submit, tasks.nothing)
    wait_blocked(full, 1)
    assert other.submit(tasks.square, 3).result() == 9
    gate.open()
    threads.join()


# ---- Order ---------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize(("bound", "size"), [(1, 0), (4, 0), (1, 200_000)], ids=["bound 1", "bound 4", "large"])
def test_blocked_producers_are_served_in_the_order_of_arrival(
    pools: Pools, gate: Gate, threads: Threads, tmp_path: Path, bound: int, size: int
) -> None:
    pool = pools.bounded(bound, workers=1)
    for _ in range(bound):
        pool.submit(tasks.hold, gate.folder)
    for number in range(12):
        threads.start(pool.submit, tasks.log_with, str(tmp_path / "log"), number, bytes(size))
        wait_blocked(pool, number + 1)
    gate.open()
    for future in threads.join():
        future.result()
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(12)]


def test_nobody_overtakes_a_blocked_producer(pools: Pools, gate: Gate, threads: Threads, tmp_path: Path) -> None:
    """A thread that submits in a loop finds the room that it frees taken by those who wait."""
    pool = pools.bounded(2, workers=1)
    log = str(tmp_path / "log")
    start_workers(pool, gate, 1)
    pool.submit(tasks.nothing)
    for number in range(5):
        threads.start(pool.submit, tasks.log, log, number)
        wait_blocked(pool, number + 1)
    gate.open()
    late = [pool.submit(tasks.log, log, "late") for _ in range(20)]
    wait(late, SOON)
    threads.join()
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "3", "4", *["late"] * 20]


# ---- Figures -------------------------------------------------------------------------------------


def test_stats_are_a_frozen_dataclass(pools: Pools) -> None:
    stats = pools.bounded(4).stats()
    expected = (
        "outstanding waiting running blocked_producers admitted_over_bound peak_outstanding blocked_seconds "
        "submitted finished segment_bytes"
    )
    assert {field.name for field in dataclasses.fields(stats)} >= set(expected.split())
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.outstanding = 3  # type: ignore[misc]
    assert dataclasses.asdict(stats)["outstanding"] == 0


def test_stats_count_what_waits_and_what_runs(pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(8)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(7)]
    gate.wait_started(2)
    stats = pool.stats()
    assert (stats.outstanding, stats.running, stats.waiting) == (7, 2, 5)
    assert (stats.submitted, stats.finished, stats.peak_outstanding) == (7, 0, 7)
    futures[-1].cancel()
    gate.open()
    wait(futures, SOON)
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")
    stats = pool.stats()
    assert (stats.running, stats.waiting, stats.blocked_producers) == (0, 0, 0)
    assert (stats.submitted, stats.finished, stats.peak_outstanding) == (7, 7, 7)


def test_stats_can_be_read_before_use_and_after_shutdown(pools: Pools) -> None:
    pool = pools.bounded(2)
    assert (pool.stats().outstanding, pool.stats().submitted) == (0, 0)
    pool.submit(tasks.nothing).result()
    pool.shutdown()
    assert (pool.stats().outstanding, pool.stats().submitted, pool.stats().finished) == (0, 1, 1)


# ---- The flood -----------------------------------------------------------------------------------


class Flood:
    """Many producers, few workers: counts each result and watches memory."""

    PRODUCERS, WORKERS, BOUND, EDGE = 128, 8, 16, 1000
    TASKS = int(os.environ.get("WEIRPOOL_FLOOD", "50000"))

    def __init__(self, pool: weirpool.ProcessPoolExecutor) -> None:
        self.pool = pool
        self.numbers = itertools.count()
        self.seen = bytearray(self.TASKS)
        self.finished = itertools.count(1)
        self.first_kib = self.last_kib = 0

    def produce(self) -> None:
        unread: collections.deque[Future[Any]] = collections.deque()
        while (number := next(self.numbers)) < self.TASKS:
            unread.append(self.pool.submit(tasks.echo, (number, b"x" * 1000)))
            if len(unread) == 4:
                self.read(unread.popleft())
        for future in unread:
            self.read(future)

    def read(self, future: Future[Any]) -> None:
        number, filling = future.result()
        assert filling == b"x" * 1000
        self.seen[number] += 1  # each number is one thread's
        count = next(self.finished)
        if count == self.EDGE:
            self.first_kib = self.held_kib()
        elif count > self.TASKS - self.EDGE and count % 50 == 0:
            self.last_kib = max(self.last_kib, self.held_kib())

    def held_kib(self) -> int:
        return memory_kib() + self.pool.stats().segment_bytes // 1024


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_flood_of_producers_leaves_memory_flat(pools: Pools, threads: Threads, method: str) -> None:
    pool = pools.bounded(Flood.BOUND, Flood.WORKERS, method)
    pool.submit(tasks.nothing).result()
    flood = Flood(pool)
    for _ in range(Flood.PRODUCERS):
        threads.start(flood.produce)
    threads.join(280)
    assert threads.errors == []
    assert flood.seen == b"\1" * Flood.TASKS, "each result exactly once"
    stats = pool.stats()
    assert (stats.peak_outstanding, stats.admitted_over_bound) == (Flood.BOUND, 0)
    assert stats.submitted == stats.finished == Flood.TASKS + 1
    assert flood.last_kib - flood.first_kib < 20 * 1024


def test_unread_futures_that_are_dropped_free_their_results(pools: Pools) -> None:
    pool = pools.bounded(8)

    def fill(count: int) -> None:
        for _ in range(count):
            pool.submit(tasks.zeros, 300_000)
        wait_until(lambda: pool.stats().outstanding == 0, "the tasks have ended")

    fill(50)
    before = memory_kib() + pool.stats().segment_bytes // 1024
    fill(500)
    grown = memory_kib() + pool.stats().segment_bytes // 1024 - before
    assert grown < 40 * 1024, "of 150 MB"
