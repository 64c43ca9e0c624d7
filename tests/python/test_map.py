"""map(): eager without a bound, a window with one, in order, and nothing left running behind it."""

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import tasks
from support import Gate, Pools, Threads, wait_until

import weirpool


class Pulled:
    """An iterable, without an end unless told, that counts what was taken from it."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count() if self.stop is None else range(self.stop):
            self.count += 1
            yield number


# ---- As the standard map -------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [None, 1, 3, 100])
@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_results_come_in_order(pools: Pools, bound: int | None, chunksize: int) -> None:
    pool = pools.bounded(bound, workers=1)
    assert list(pool.map(tasks.square, range(50), chunksize=chunksize)) == [number * number for number in range(50)]


def test_order_holds_when_later_items_end_first(pools: Pools, start_method: str) -> None:
    seconds = [0.3, 0.0, 0.2, 0.0, 0.1, 0.0]
    assert list(pools.bounded(3, 2, start_method).map(tasks.nap, seconds)) == seconds


def test_several_iterables_end_with_the_shortest(pools: Pools) -> None:
    pool = pools.bounded(2)
    assert list(pool.map(tasks.add, range(10), [100, 200, 300])) == [100, 201, 302]
    assert list(pool.map(tasks.add, itertools.count(), iter([5]))) == [5]


def test_nothing_to_map(pools: Pools) -> None:
    pool = pools.bounded(2)
    assert list(pool.map(tasks.square, [])) == []
    assert list(pool.map(tasks.nothing)) == []
    assert list(pools.unbounded(1).map(tasks.square, [])) == []


@pytest.mark.parametrize("chunksize", [0, -1])
def test_bad_chunksizes(pools: Pools, chunksize: int) -> None:
    with pytest.raises(ValueError) as caught:
        pools.unbounded(1).map(tasks.square, [1], chunksize=chunksize)
    assert str(caught.value) == "chunksize must be >= 1."


@pytest.mark.parametrize("buffersize", ["2", 1.5, [2]])
def test_buffersizes_that_are_no_int(pools: Pools, buffersize: Any) -> None:
    with pytest.raises(TypeError) as caught:
        pools.bounded(2).map(tasks.square, [1], buffersize=buffersize)
    assert str(caught.value) == "buffersize must be an integer or None"


@pytest.mark.parametrize("buffersize", [0, -1])
def test_buffersizes_that_are_too_small(pools: Pools, buffersize: int) -> None:
    with pytest.raises(ValueError) as caught:
        pools.bounded(2).map(tasks.square, [1], buffersize=buffersize)
    assert str(caught.value) == "buffersize must be None or > 0"


@pytest.mark.parametrize("bound", [None, 2])
def test_an_exception_comes_at_its_place_and_ends_the_map(pools: Pools, bound: int | None) -> None:
    results = pools.bounded(bound).map(tasks.fail_on, itertools.repeat(3), range(8))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(tasks.OddError) as caught:
        next(results)
    assert caught.value.args == (3,)
    assert list(results) == []


def test_an_exception_loses_its_chunk(pools: Pools) -> None:
    results = pools.bounded(2).map(tasks.fail_on, itertools.repeat(5), range(12), chunksize=4)
    assert list(itertools.islice(results, 4)) == [0, 1, 2, 3]
    with pytest.raises(tasks.OddError):
        next(results)


@pytest.mark.parametrize("bound", [None, 2])
def test_timeout_counts_from_the_call(pools: Pools, gate: Gate, bound: int | None) -> None:
    results = pools.bounded(bound).map(tasks.hold, [gate.folder] * 4, timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)


def test_a_generous_timeout_changes_nothing(pools: Pools) -> None:
    assert list(pools.bounded(2).map(tasks.square, range(20), timeout=60)) == [number**2 for number in range(20)]


def test_map_after_shutdown(pools: Pools) -> None:
    pool = pools.bounded(2)
    pool.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        pool.map(tasks.square, [1])


def test_map_goes_through_an_overridden_submit(pools: Pools) -> None:
    class Counting(weirpool.BoundedProcessPoolExecutor):
        submitted = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.submitted += 1
            return super().submit(fn, *args, **kwargs)

    pool = pools.keep(Counting(4, 2))
    assert list(pool.map(tasks.square, range(10))) == [number * number for number in range(10)]
    assert list(pool.map(tasks.square, range(10), chunksize=5)) == [number * number for number in range(10)]
    assert pool.submitted == 12


def test_what_was_yielded_is_not_kept(pools: Pools) -> None:
    for pool in (pools.unbounded(2), pools.bounded(2)):
        results = pool.map(tasks.Box, range(6))
        for _ in range(3):
            alive = weakref.ref(next(results))
            wait_until(lambda alive=alive: alive() is None, "nobody holds the result")
        results.close()


# ---- Eager ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 10])
def test_without_a_bound_everything_is_submitted_at_the_call(pools: Pools, gate: Gate, chunksize: int) -> None:
    pool = pools.unbounded(2)
    items = Pulled(100)
    results = pool.map(tasks.hold, itertools.repeat(gate.folder), items, chunksize=chunksize)
    assert items.count == 100
    assert pool.stats().outstanding == 100 // chunksize
    gate.open()
    assert list(results) == list(range(100))


# ---- The window ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "buffersize", "window"),
    [(5, None, 5), (True, None, 4), (5, 3, 3), (5, 1, 1), (None, 4, 4), ("unbounded", 4, 4)],
)
@pytest.mark.parametrize("chunksize", [1, 3])
def test_the_window_is_filled_at_the_call_and_never_exceeded(
    pools: Pools, gate: Gate, threads: Threads, bound: Any, buffersize: int | None, window: int, chunksize: int
) -> None:
    pool = pools.unbounded(2) if bound == "unbounded" else pools.bounded(bound)
    items = Pulled()
    results = pool.map(tasks.hold, itertools.repeat(gate.folder), items, chunksize=chunksize, buffersize=buffersize)
    assert items.count == window * chunksize
    first = threads.start(next, results)
    gate.wait_started(1)
    first.join(0.1)
    assert items.count == window * chunksize, "waiting for the first result submits nothing more"
    gate.open()
    assert threads.join() == [0]
    for number in range(1, 40):
        assert next(results) == number
        handed_over = number // chunksize + 1
        assert items.count <= (window + handed_over) * chunksize
    results.close()


def test_a_slice_of_an_infinite_map_takes_no_more_than_the_window_ahead(pools: Pools, start_method: str) -> None:
    items = Pulled()
    pool = pools.bounded(4, 2, start_method)
    assert list(itertools.islice(pool.map(tasks.square, items), 100)) == [number * number for number in range(100)]
    assert 100 <= items.count <= 104


def test_a_window_larger_than_the_bound(pools: Pools) -> None:
    items = Pulled(60)
    results = pools.bounded(2).map(tasks.square, items, buffersize=20)
    assert items.count == 20
    assert list(results) == [number * number for number in range(60)]


def test_two_maps_are_read_in_turns_at_a_small_bound(pools: Pools) -> None:
    pool = pools.bounded(2)
    both = zip(pool.map(tasks.square, itertools.count()), pool.map(tasks.echo, itertools.count()), strict=False)
    assert list(itertools.islice(both, 50)) == [(number * number, number) for number in range(50)]


def test_many_threads_map_over_one_pool(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(4)
    for start in range(0, 800, 100):
        threads.start(lambda start=start: list(pool.map(tasks.echo, range(start, start + 100))))
    assert sorted(threads.join()) == [list(range(start, start + 100)) for start in range(0, 800, 100)]


def test_an_iterable_that_fails(pools: Pools) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise tasks.OddError("no more")

    pool = pools.bounded(2)
    results = pool.map(tasks.square, items())
    with pytest.raises(tasks.OddError, match="no more"):
        list(results)
    with pytest.raises(tasks.OddError, match="no more"):
        pool.map(tasks.square, items(), buffersize=9)
    with pytest.raises(tasks.OddError, match="no more"):
        pools.unbounded(1).map(tasks.square, items())
    assert pool.submit(tasks.square, 3).result() == 9


# ---- Leaving early -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "drop", "timeout", "exception"])
@pytest.mark.parametrize("bound", [None, 12])
def test_leaving_a_map_cancels_what_has_not_started(pools: Pools, gate: Gate, bound: int | None, how: str) -> None:
    pool = pools.bounded(bound, workers=1)
    deadline = 0.05 if how == "timeout" else None
    first = (tasks.fail_with, tasks.OddError) if how == "exception" else (tasks.echo, 0)
    calls = [first, *[(tasks.hold, gate.folder)] * 11]
    results = pool.map(tasks.apply, calls, timeout=deadline)
    if how == "exception":
        with pytest.raises(tasks.OddError):
            next(results)
    elif how == "timeout":
        with pytest.raises(TimeoutError):
            list(results)
    else:
        next(results)
        results.close() if how == "close" else None
    del results
    gc.collect()
    wait_until(lambda: pool.stats().outstanding <= 1, "all but the one that runs are cancelled")
    gate.open()
    wait_until(lambda: pool.stats().outstanding == 0, "the pool is idle")
    assert gate.started <= 1


def test_a_map_can_be_read_in_another_thread(pools: Pools, threads: Threads) -> None:
    results = pools.bounded(3).map(tasks.square, range(30))
    first = next(results)
    threads.start(list, results)
    assert [first, *threads.join()[0]] == [number * number for number in range(30)]


def test_a_map_outlives_the_name_of_its_pool(pools: Pools) -> None:
    results = weirpool.ProcessPoolExecutor(2).map(tasks.square, range(20))
    gc.collect()
    assert list(results) == [number * number for number in range(20)]


def test_shutdown_lets_the_window_of_a_map_finish(pools: Pools) -> None:
    """What was submitted runs; what was not cannot be any more."""
    pool = pools.bounded(4)
    results = pool.map(tasks.square, range(20))
    pool.shutdown(wait=True)
    got = []
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        for result in results:
            got.append(result)
    assert got == [number * number for number in range(len(got))]
    assert len(got) <= 4


def test_reading_a_map_in_the_callback_of_a_future(pools: Pools, gate: Gate) -> None:
    """Reading needs room that only the delivering thread could free; it is admitted over the bound."""
    pool = pools.bounded(2)
    future = pool.submit(tasks.hold, gate.folder)
    done = threading.Event()
    got: list[int] = []

    def read(_: Any) -> None:
        results = pool.map(tasks.square, itertools.count())
        got.extend(itertools.islice(results, 3))
        done.set()

    future.add_done_callback(read)
    gate.open()
    assert done.wait(60)
    assert got == [0, 1, 4]
