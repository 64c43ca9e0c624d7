"""map_unordered(): what has finished first comes first, and no more is held than the window."""

import gc
import itertools
import os
import queue
import threading
import weakref
from typing import Any

import pytest
import tasks
from executors import ByHand, every_kind, executor_of
from hypothesis import given
from hypothesis import strategies as st
from support import Gate, Pools, Threads, in_forked_child, wait_until


@every_kind
@pytest.mark.parametrize("bound", [None, 1, 3])
@pytest.mark.parametrize("chunksize", [1, 4, "auto"])
def test_every_result_comes_once(kind: str, bound: int | None, chunksize: Any) -> None:
    with executor_of(kind, bound) as executor:
        results = list(executor.map_unordered(tasks.square, range(50), chunksize=chunksize))
        assert sorted(results) == [number * number for number in range(50)]
        assert list(executor.map_unordered(tasks.square, [])) == []
        assert list(executor.map_unordered(tasks.nothing)) == []
        assert sorted(executor.map_unordered(tasks.add, itertools.count(), [5, 6])) == [5, 7]


def test_results_come_as_they_finish() -> None:
    executor = ByHand()
    results = executor.map_unordered(tasks.echo, range(5))
    for index in (3, 0, 2, 0, 0):
        executor.run(index)
    assert list(results) == [3, 0, 4, 1, 2]


def test_one_slow_call_holds_up_nobody(pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(4)
    calls = itertools.chain([(tasks.hold, gate.folder, "slow")], ((tasks.echo, n) for n in itertools.count()))
    results = pool.map_unordered(tasks.apply, calls)
    assert sorted(itertools.islice(results, 100)) == list(range(100))
    gate.open()
    assert "slow" in itertools.islice(results, 100_000)
    results.close()


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_the_window_is_full_and_never_exceeded(window: int, chunksize: int) -> None:
    executor = ByHand(window)
    results = executor.map_unordered(tasks.echo, itertools.count(), chunksize=chunksize)
    assert len(executor.calls) == window
    executor.run_all()
    executor.at_once = True
    for number in range(1, 30):
        for _ in range(chunksize):
            next(results)
        assert len(executor.calls) == window + number - 1
    results.close()


def test_without_a_bound_everything_is_submitted_at_the_call() -> None:
    executor = ByHand()
    results = executor.map_unordered(tasks.echo, range(100), chunksize=10)
    assert len(executor.calls) == 10
    executor.run_all()
    assert sorted(results) == list(range(100))


@pytest.mark.filterwarnings("ignore:a lazy map was never read")  # an example that hypothesis gave up
@given(window=st.integers(1, 9), items=st.integers(0, 60), order=st.randoms(use_true_random=False))
def test_whatever_finishes_when(window: int, items: int, order: Any) -> None:
    executor = ByHand(window)
    results = executor.map_unordered(tasks.echo, range(items))
    got: list[int] = []
    while len(got) < items:
        executor.at_once = not executor.waiting
        for _ in range(order.randint(1, len(executor.waiting)) if executor.waiting else 0):
            executor.run(order.randrange(len(executor.waiting)))
        for _ in range(max(1, len(executor.calls) - len(executor.waiting) - len(got))):
            got.append(next(results))
            assert len(executor.calls) - len(got) <= window
    assert sorted(got) == list(range(items))
    assert list(results) == []


def test_an_exception_ends_it_and_cancels_the_rest() -> None:
    executor = ByHand()
    results = executor.map_unordered(tasks.fail_on, itertools.repeat(2), range(6))
    executor.run(1)
    executor.run(1)
    assert next(results) == 1
    with pytest.raises(tasks.OddError):
        next(results)
    assert list(results) == []
    assert [future.cancelled() for future in executor.futures] == [True, False, False, True, True, True]


@every_kind
def test_an_exception_in_a_chunk_costs_its_own_item(kind: str) -> None:
    with executor_of(kind, 1) as executor:
        results = executor.map_unordered(tasks.fail_on, itertools.repeat(2), range(4), chunksize=4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(tasks.OddError):
            next(results)


def test_timeout_counts_from_the_call() -> None:
    executor = ByHand()
    results = executor.map_unordered(tasks.echo, range(3), timeout=0.05)
    executor.run()
    assert next(results) == 0
    with pytest.raises(TimeoutError, match="2 calls unfinished"):
        next(results)
    assert all(future.cancelled() for future in executor.futures[1:])
    assert list(ByHand().map_unordered(tasks.echo, [], timeout=0)) == []


def test_what_was_yielded_is_not_kept(pools: Pools) -> None:
    for pool in (pools.unbounded(2), pools.bounded(2)):
        results = pool.map_unordered(tasks.Box, range(6))
        for _ in range(3):
            alive = weakref.ref(next(results))
            wait_until(lambda alive=alive: alive() is None, "nobody holds the result")
        results.close()


def test_what_is_left_behind_is_not_kept() -> None:
    executor = ByHand()
    results = executor.map_unordered(tasks.echo, range(3))
    left = executor.futures[1]
    left.set_running_or_notify_cancel()
    alive = weakref.ref(left)
    del results
    left.set_result(tasks.Box())
    executor.futures.clear()
    executor.waiting.clear()
    del left
    assert alive() is None, "nothing refers to it in a cycle"


def test_leaving_it_cancels_what_has_not_started(pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(12, workers=1)
    results = pool.map_unordered(tasks.apply, [(tasks.echo, 0), *[(tasks.hold, gate.folder)] * 30])
    assert next(results) == 0
    del results
    gc.collect()
    wait_until(lambda: pool.stats().outstanding <= 1, "all but the one that runs are cancelled")
    gate.open()
    wait_until(lambda: pool.stats().outstanding == 0, "the pool is idle")
    assert gate.started <= 1


def test_shutdown_that_cancels_wakes_the_reader(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.unbounded(1)
    results = pool.map_unordered(tasks.hold, [gate.folder] * 50)
    threads.start(list, results)
    gate.wait_started(1)
    threads.start(lambda: pool.shutdown(wait=False, cancel_futures=True))
    gate.open()
    threads.join()
    assert len(threads.results) + len(threads.errors) == 2


def test_a_dead_worker_wakes_the_reader(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(3)
    results = pool.map_unordered(tasks.apply, [(tasks.echo, 1), (tasks.nap, 60), (tasks.die,)])
    threads.start(list, results)
    threads.join()
    assert [type(error).__name__ for error in threads.errors] == ["BrokenProcessPool"]


def test_many_rivals_at_bound_two(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(2)

    def read() -> list[int]:
        return sorted(pool.submit(tasks.square, n).result() for n in pool.map_unordered(tasks.echo, range(60)))

    for _ in range(6):
        threads.start(read)
    assert threads.join() == [[number * number for number in range(60)]] * 6


def test_reading_it_in_the_callback_of_a_future(pools: Pools) -> None:
    """The thread that delivers cannot wait for what only it can deliver, and must not hang."""
    pool = pools.bounded(2)
    done = threading.Event()
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read(_: Any) -> None:
        try:
            got.put(list(pool.map_unordered(tasks.square, range(5), timeout=0.2)))
        except BaseException as error:
            got.put(error)
        done.set()

    pool.submit(tasks.nothing).add_done_callback(read)
    assert done.wait(60)


def test_in_a_forked_child_it_raises(pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(2, method="fork")
    results = pool.map_unordered(tasks.hold, [gate.folder] * 2)
    gate.wait_started(2)
    parent = os.getpid()
    said = in_forked_child(lambda: next(results))
    assert "cannot be used in a forked child" in said
    assert os.getpid() == parent
    gate.open()
    assert list(results) == [None, None]
