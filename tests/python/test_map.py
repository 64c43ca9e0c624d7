"""map(): eager without a bound, a window with one, in order, and nothing left running behind it."""

import concurrent.futures as cf
import gc
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tasks
from executors import ByHand, Wrapped, every_kind, executor_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Gate, Pools, Threads, wait_until

import weirpool
from weirpool._chunks import Sizer


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


@pytest.mark.parametrize("chunksize", ["", "2", "Auto", "automatic"])
def test_texts_that_are_no_chunksize(pools: Pools, chunksize: Any) -> None:
    for method in (pools.unbounded(1).map, pools.unbounded(1).map_unordered):
        with pytest.raises(ValueError, match='"auto"'):
            method(tasks.square, [1], chunksize=chunksize)


@pytest.mark.parametrize("chunksize", [1.0, None, [1]])
def test_chunksizes_that_are_no_int(pools: Pools, chunksize: Any) -> None:
    with pytest.raises(TypeError):
        pools.unbounded(1).map(tasks.square, [1], chunksize=chunksize)


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


def test_results_are_the_iterator_that_a_user_may_name(pools: Pools) -> None:
    assert isinstance(pools.bounded(2).map(tasks.square, []), weirpool.Results)


# ---- What stands on submit() alone ---------------------------------------------------------------


class Counting:
    """Numbers from 0 on; knows how many were taken."""

    def __init__(self, stop: int | None = None) -> None:
        self.taken = 0
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.taken == self.stop:
            raise StopIteration
        self.taken += 1
        return self.taken - 1


@every_kind
@pytest.mark.parametrize("bound", [1, 2, 5])
def test_no_more_than_the_window_is_ever_ahead_of_what_was_yielded(kind: str, bound: int) -> None:
    with executor_of(kind, bound) as executor:
        items = Counting()
        results = executor.map(tasks.square, items)
        assert items.taken == bound
        for yielded, result in enumerate(itertools.islice(results, 100), 1):
            assert result == (yielded - 1) ** 2
            assert items.taken == yielded - 1 + bound, "exactly: it is submitted when the next one is asked for"
        results.close()
        assert items.taken == 99 + bound


@every_kind
@pytest.mark.parametrize("chunksize", [1, 3, "auto"])
def test_maps_over_every_kind_of_executor(kind: str, chunksize: Any) -> None:
    for bound in (None, 3):
        with executor_of(kind, bound) as executor:
            assert list(executor.map(tasks.square, range(40), chunksize=chunksize)) == [n * n for n in range(40)]
            pairs = executor.map(tasks.add, range(40), itertools.count(5), chunksize=chunksize)
            assert list(pairs) == [2 * n + 5 for n in range(40)]


@every_kind
@pytest.mark.parametrize("chunksize", [4, 5, 12, "auto"])
def test_an_exception_costs_its_own_item(kind: str, chunksize: Any) -> None:
    with executor_of(kind, 2) as executor:
        results = executor.map(tasks.fail_on, itertools.repeat(6), range(12), chunksize=chunksize)
        got = []
        with pytest.raises(tasks.OddError) as caught:
            for result in results:
                got.append(result)
        assert got == [0, 1, 2, 3, 4, 5]
        assert caught.value.args == (6,)
        if kind != "threads":
            assert "fail_on" in str(caught.value.__cause__), "the traceback from the worker"
        assert list(results) == []


@pytest.mark.parametrize("pickler", [None, "cloudpickle"])
def test_an_exception_in_a_chunk_that_cannot_be_pickled(pools: Pools, pickler: str | None) -> None:
    pool = pools.bounded(2, pickler=pickler)
    with pytest.raises(TypeError, match="nobody may pickle this") as alone:
        pool.submit(tasks.fail_with, tasks.SecretiveError).result()
    calls = [(tasks.echo, 1), (tasks.echo, 2), (tasks.fail_with, tasks.SecretiveError), (tasks.echo, 4)]
    results = pool.map(tasks.apply, calls, chunksize=4)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(TypeError) as caught:
        next(results)
    assert caught.value.args == alone.value.args


def test_a_result_that_cannot_be_pickled_costs_its_chunk(pools: Pools) -> None:
    calls = [(tasks.echo, number) for number in range(5)] + [(tasks.unpicklable_result,)]
    results = pools.bounded(2).map(tasks.apply, calls, chunksize=3)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TypeError, match="pickle"):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_task_that_raises_stop_iteration_does_not_end_the_map_silently(chunksize: int) -> None:
    for method in ("map", "map_unordered"):
        with executor_of("threads", 2) as executor:
            results = getattr(executor, method)(tasks.fail_with, [StopIteration] * 2, chunksize=chunksize)
            with pytest.raises(RuntimeError) as caught:
                next(results)
            assert isinstance(caught.value.__cause__, StopIteration)


def test_exit_and_ctrl_c_of_a_task_are_its_exception_in_a_chunk_too(pools: Pools) -> None:
    for kind in (SystemExit, KeyboardInterrupt):
        results = pools.unbounded(1).map(tasks.apply, [(tasks.echo, 1), (tasks.fail_with, kind)], chunksize=2)
        assert next(results) == 1
        with pytest.raises(kind):
            next(results)


def test_submitting_for_each_result_among_rivals_at_bound_two(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(2)

    def read() -> list[int]:
        return [pool.submit(tasks.square, number).result() for number in pool.map(tasks.echo, range(60))]

    for _ in range(5):
        threads.start(read)
    assert read() == [number * number for number in range(60)]
    assert threads.join() == [[number * number for number in range(60)]] * 5


# ---- Submissions that are refused ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_a_refused_item_is_tried_again(method: str, chunksize: int) -> None:
    executor = ByHand(window=2)
    executor.at_once = True
    results = getattr(executor, method)(tasks.echo, Counting(20), chunksize=chunksize)
    got = []
    refusals = 0
    while len(got) < 20:
        if len(got) % 3 == 0 and refusals < len(got):
            executor.refuse = 3
        try:
            got.append(next(results))
        except queue.Full:
            refusals += 1
    assert got == list(range(20))
    assert refusals > 0
    with pytest.raises(StopIteration):
        next(results)


def test_a_refusal_is_not_raised_while_there_is_something_to_read() -> None:
    executor = ByHand(window=3)
    executor.at_once = True
    results = executor.map(tasks.echo, range(5))
    executor.refuse = 2
    assert [next(results), next(results), next(results)] == [0, 1, 2], "with a window that got smaller"
    executor.refuse = 1
    with pytest.raises(weirpool.RejectedSubmission):
        next(results)
    assert list(results) == [3, 4]


def test_a_map_that_is_refused_at_the_call_loses_nothing() -> None:
    executor = ByHand(window=3)
    executor.at_once = True
    executor.refuse = 2
    results = executor.map(tasks.echo, range(4))
    with pytest.raises(weirpool.RejectedSubmission):
        next(results)
    assert list(results) == [0, 1, 2, 3]


def test_a_task_that_raises_queue_full_ends_the_map() -> None:
    executor = ByHand(window=3)
    executor.at_once = True
    results = executor.map(tasks.fail_with, [queue.Full, queue.Full])
    with pytest.raises(queue.Full):
        next(results)
    assert list(results) == []


# ---- One thread at a time ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_an_iterable_that_asks_its_own_map(method: str) -> None:
    executor = ByHand(window=1)
    executor.at_once = True

    def items() -> Iterator[int]:
        yield 1
        yield next(results)

    results = getattr(executor, method)(tasks.echo, items())
    assert next(results) == 1
    with pytest.raises(ValueError, match="asked for a result while it fetched one"):
        next(results)


@pytest.mark.parametrize("method", ["map", "map_unordered"])
def test_a_second_thread_is_told(method: str, threads: Threads) -> None:
    executor = ByHand(window=1)
    results = getattr(executor, method)(tasks.echo, [7, 8])
    threads.start(next, results)
    wait_until(lambda: results._busy, "the thread waits for a result")
    for use in (next, lambda it: it.close()):
        with pytest.raises(ValueError, match="another thread uses this iterator"):
            use(results)
    executor.run()
    assert threads.join() == [7]
    results.close()


# ---- Closing, and maps that nobody read ----------------------------------------------------------


@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("how", ["close", "drop"])
@pytest.mark.parametrize("window", [None, 3])
def test_closing_cancels_what_it_holds(method: str, how: str, window: int | None) -> None:
    executor = ByHand(window)
    results = getattr(executor, method)(tasks.echo, range(6))
    executor.run()
    assert next(results) == 0
    if how == "close":
        results.close()
        results.close()
        assert list(results) == []
    del results
    assert all(future.cancelled() for future in executor.futures[1:])
    assert len(executor.futures) == (window or 6)


@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("how", ["close", "drop"])
@pytest.mark.parametrize(("window", "chunksize", "submitted"), [(1, 1, 1), (3, 1, 3), (2, 4, 8)])
def test_a_lazy_map_that_was_never_read_says_what_was_left_out(
    method: str, how: str, window: int, chunksize: int, submitted: int
) -> None:
    results = getattr(ByHand(window), method)(tasks.echo, range(20), chunksize=chunksize)
    said = rf": {submitted} items? w.* submitted, and the items from index {submitted} on were never submitted"
    with pytest.warns(RuntimeWarning, match=said) as caught:
        if how == "close":
            results.close()
        del results
    assert [warning.filename for warning in caught] == [__file__]


def test_an_iterable_whose_length_is_unknown_may_have_had_more() -> None:
    results = ByHand(2).map(tasks.echo, Counting())
    with pytest.warns(RuntimeWarning, match="the items from index 2 on, if there are any, were never submitted"):
        results.close()


def test_nothing_is_taken_from_the_iterables_to_find_out() -> None:
    items = Counting()
    results = ByHand(2).map(tasks.echo, items)
    with pytest.warns(RuntimeWarning):
        del results
    assert items.taken == 2


def test_maps_that_left_nothing_out_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    executor = ByHand(3)
    executor.map(tasks.echo, range(3))
    executor.map(tasks.echo, range(2))
    executor.map(tasks.echo, itertools.count(), [1, 2, 3])
    executor.map(tasks.echo, [])
    ByHand(None).map(tasks.echo, range(50))
    executor.waiting.clear()
    read = executor.map(tasks.echo, range(50))
    executor.run()
    assert next(read) == 0
    read.close()
    del read
    assert not recwarn.list


def test_a_map_that_a_script_never_reads_is_told_of_at_exit(script: Any) -> None:
    told = script("""
        with weirpool.BoundedProcessPoolExecutor(2, 1) as pool:
            results = pool.map(tasks.square, range(10))
    """)
    told.end()
    assert "the items from index 2 on were never submitted" in told.err.read_text()


# ---- "auto" --------------------------------------------------------------------------------------


def sizes_of(sizer: Sizer, seconds: Callable[[int], float], items: int) -> list[int]:
    """The chunks that one worker would be given, if item n takes `seconds(n)`."""
    sizes = []
    done = 0
    while done < items:
        size = min(sizer.size(items - done), items - done)
        sizer.learn(size, sum(seconds(n) for n in range(done, done + size)))
        sizes.append(size)
        done += size
    return sizes


def test_chunks_grow_until_they_take_long_enough() -> None:
    sizes = sizes_of(Sizer(1), lambda _: 0.001, 10_000)
    assert sizes[0] == 1
    assert all(after <= 8 * before for before, after in itertools.pairwise(sizes))
    assert 50 <= max(sizes) <= 500


def test_long_items_travel_alone() -> None:
    assert set(sizes_of(Sizer(2), lambda _: 1.0, 30)) == {1}


def test_chunks_shrink_when_items_take_longer() -> None:
    sizer = Sizer(1)
    sizer.learn(500, 500 * 0.0001)
    assert sizer.size(None) == 2000
    sizer.learn(500, 500 * 0.1)
    assert sizer.size(None) == 2


def test_the_last_chunks_get_smaller() -> None:
    sizer = Sizer(4)
    sizes = sizes_of(sizer, lambda _: 0.0001, 100_000)
    last = sizes[-20:]
    assert last == sorted(last, reverse=True)
    assert sizes[-1] == 1


@given(
    workers=st.integers(1, 64),
    measured=st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 100)), max_size=20),
    remaining=st.none() | st.integers(0, 10**9),
)
def test_a_chunk_has_an_item_at_least_and_no_more_than_its_share(
    workers: int, measured: list[tuple[int, float]], remaining: int | None
) -> None:
    sizer = Sizer(workers)
    for items, seconds in measured:
        sizer.learn(items, seconds)
    size = sizer.size(remaining)
    assert size >= 1
    if remaining is not None:
        assert size == 1 or (size - 1) * 2 * workers < remaining
    if measured and size > 1:
        assert size * measured[-1][1] / measured[-1][0] <= 0.2 * 1.001


def test_auto_measures_in_the_worker_and_holds_a_window() -> None:
    executor = ByHand(window=None, workers=2)
    executor.at_once = True
    items = Counting(100_000)
    results = executor.map(tasks.echo, items, chunksize="auto")
    assert items.taken == 8, "4 chunks of one item for each worker"
    assert list(results) == list(range(100_000))
    assert len(executor.futures) < 10_000
    results = executor.map(tasks.echo, Counting(), chunksize="auto", buffersize=3)
    assert [len(args[-1]) for args in executor.calls[-3:]] == [1, 1, 1]
    assert next(results) == 0


# ---- Whatever the sizes --------------------------------------------------------------------------


@settings(deadline=None)
@given(
    items=st.integers(0, 40),
    window=st.none() | st.integers(1, 12),
    chunksize=st.integers(1, 12) | st.just("auto"),
    delays=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    method=st.sampled_from(["map", "map_unordered"]),
)
def test_nothing_is_lost_and_the_window_holds(
    items: int, window: int | None, chunksize: Any, delays: list[int], method: str
) -> None:
    def call(number: int) -> int:
        time.sleep(delays[number % len(delays)] / 10_000)  # which shuffles the ends
        return number

    limit = window or (12 if chunksize == "auto" else None)
    with Wrapped(cf.ThreadPoolExecutor(3), 3, window) as executor:
        results = getattr(executor, method)(call, range(items), chunksize=chunksize)
        got: list[int] = []
        for result in results:
            got.append(result)
            if limit is not None:
                read = len(got) if chunksize == "auto" else -(-len(got) // chunksize)
                assert executor.submitted <= limit + read
    assert sorted(got) == list(range(items))
    if method == "map":
        assert got == list(range(items))


@given(
    items=st.integers(1, 40),
    bad=st.integers(0, 39),
    window=st.none() | st.integers(1, 12),
    chunksize=st.integers(1, 12) | st.just("auto"),
)
def test_every_result_before_an_exception_is_yielded(items: int, bad: int, window: int | None, chunksize: Any) -> None:
    executor = ByHand(window)
    executor.at_once = True
    results = executor.map(tasks.fail_on, itertools.repeat(bad), range(items), chunksize=chunksize)
    got = []
    try:
        for result in results:
            got.append(result)
    except tasks.OddError:
        assert bad < items
        assert got == list(range(bad))
    else:
        assert bad >= items
        assert got == list(range(items))
