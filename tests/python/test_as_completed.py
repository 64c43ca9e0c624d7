"""as_completed(): over futures that exist, and over futures that are made as they are taken."""

import concurrent.futures as cf
import gc
import itertools
import queue
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import tasks
from executors import ByHand, every_kind, executor_of
from hypothesis import given
from hypothesis import strategies as st
from support import Gate, Pools, Threads, in_forked_child, wait_until

import weirpool


def futures(count: int) -> list[cf.Future[int]]:
    return [cf.Future() for _ in range(count)]


# ---- As the standard one -------------------------------------------------------------------------


def test_futures_come_as_they_end() -> None:
    given = futures(4)
    done = weirpool.as_completed(given)
    for index in (2, 0, 3, 1):
        given[index].set_result(index)
        assert next(done) is given[index]
    assert list(done) == []


def test_those_that_have_ended_come_first() -> None:
    given = futures(3)
    given[1].set_result(1)
    given[2].cancel()
    done = weirpool.as_completed(given)
    assert [next(done), next(done)] == [given[1], given[2]]
    given[0].set_exception(ValueError())
    assert list(done) == [given[0]]


@pytest.mark.parametrize("lazy", [False, True])
def test_duplicates_come_once(lazy: bool) -> None:
    one, two = futures(2)
    one.set_result(1)
    two.set_result(2)
    given = [one, one, two, one, two]
    assert list(weirpool.as_completed(iter(given) if lazy else given)) == [one, two]
    assert list(weirpool.as_completed(iter(given) if lazy else given, buffersize=1)) == [one, two]


@pytest.mark.parametrize("nothing", [[], (), set(), iter([])])
def test_nothing(nothing: Any) -> None:
    assert list(weirpool.as_completed(nothing, timeout=0)) == []


def test_timeout_counts_from_the_call() -> None:
    given = futures(3)
    given[0].set_result(0)
    done = weirpool.as_completed(given, timeout=0.05)
    assert next(done) is given[0]
    with pytest.raises(TimeoutError, match=r"^2 \(of 3\) futures unfinished$"):
        next(done)
    assert not any(future.cancelled() for future in given)
    assert list(done) == []


@pytest.mark.parametrize("buffersize", [0, -1])
def test_buffersizes_that_are_too_small(buffersize: int) -> None:
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        weirpool.as_completed([], buffersize=buffersize)


@pytest.mark.parametrize("buffersize", ["2", 1.5])
def test_buffersizes_that_are_no_int(buffersize: Any) -> None:
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        weirpool.as_completed([], buffersize=buffersize)


def test_futures_of_several_executors(pools: Pools) -> None:
    with cf.ThreadPoolExecutor(2) as threads, cf.ProcessPoolExecutor(1) as processes:
        pool = pools.bounded(3)
        given = [each.submit(tasks.echo, n) for n in range(10) for each in (threads, processes, pool)]
        assert sorted(future.result() for future in weirpool.as_completed(given)) == sorted([*range(10)] * 3)


# ---- Lazy ----------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("buffersize", [None, 1, 3])
def test_an_infinite_source(kind: str, buffersize: int | None) -> None:
    with executor_of(kind, 4) as executor:
        source = (executor.submit(tasks.square, n) for n in itertools.count())
        done = weirpool.as_completed(source, buffersize=buffersize)
        got = [future.result() for future in itertools.islice(done, 200)]
        assert len(set(got)) == 200
        done.close()


@pytest.mark.parametrize("buffersize", [1, 2, 5])
def test_no_more_than_the_buffer_is_held(buffersize: int) -> None:
    executor = ByHand()
    done = weirpool.as_completed((executor.submit(tasks.echo, n) for n in itertools.count()), buffersize=buffersize)
    assert executor.calls == [], "nothing is taken before the first is wanted"
    executor.at_once = True
    for number in range(1, 30):
        next(done)
        assert len(executor.calls) == number - 1 + buffersize
    done.close()


def test_a_bounded_executor_limits_what_is_held_by_itself(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.bounded(4)
    taken = itertools.count()

    def source() -> Iterator[Any]:
        for number in taken:
            yield pool.submit(tasks.hold, gate.folder, number)

    done = weirpool.as_completed(source())
    threads.start(next, done)
    wait_until(lambda: pool.stats().blocked_producers == 1, "the source waits in submit()")
    gate.open()
    threads.join()
    for _ in range(100):
        next(done).result()
    held = pool.stats().submitted - 101
    assert held <= 20, "the bound, and those that ended while the first was fetched"
    done.close()


def test_without_any_bound_it_holds_a_thousand() -> None:
    executor = ByHand()
    source = (executor.submit(tasks.echo, n) for n in itertools.count())
    done = weirpool.as_completed(source, timeout=0)
    with pytest.raises(TimeoutError):
        next(done)
    assert len(executor.calls) == 1024


def test_it_takes_no_more_than_it_needs() -> None:
    """Without a buffersize: until the first one has ended; and from then on it holds as many."""
    executor = ByHand()

    def source() -> Iterator[Any]:
        for number in itertools.count():
            if number == 7:
                executor.run_all()
            yield executor.submit(tasks.echo, number)

    done = weirpool.as_completed(source())
    for number in range(7):
        assert next(done).result() == number
        assert len(executor.calls) == 8 + number
    done.close()


@given(
    count=st.integers(0, 50),
    buffersize=st.none() | st.integers(1, 8),
    sized=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_none_is_lost_and_none_comes_twice(count: int, buffersize: int | None, sized: bool, order: Any) -> None:
    executor = ByHand()

    def source() -> Iterator[Any]:
        for number in range(count):
            future = executor.submit(tasks.echo, number)
            if order.random() < 0.6 or (buffersize and len(executor.waiting) >= buffersize) or number == count - 1:
                for _ in range(order.randint(1, len(executor.waiting)) if number < count - 1 else 1000):
                    if executor.waiting:
                        executor.run(order.randrange(len(executor.waiting)))
            yield future

    done = weirpool.as_completed(list(source()) if sized else source(), buffersize=buffersize)
    assert sorted(future.result() for future in done) == list(range(count))


def test_a_source_that_fails() -> None:
    executor = ByHand()

    def source() -> Iterator[Any]:
        yield executor.submit(tasks.echo, 1)
        raise tasks.OddError("no more")

    done = weirpool.as_completed(source(), buffersize=5)
    with pytest.raises(tasks.OddError, match="no more"):
        next(done)
    assert list(done) == []
    assert not executor.futures[0].cancelled()


# ---- Ending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_closing_cancels_what_it_holds(lazy: bool) -> None:
    given = futures(4)
    given[0].set_result(0)
    done = weirpool.as_completed((future for future in given) if lazy else given, buffersize=3)
    assert next(done) is given[0]
    done.close()
    assert [future.cancelled() for future in given] == [False, True, True, False]
    assert list(done) == []


def test_letting_go_cancels_nothing() -> None:
    """They may be somebody else's."""
    given = futures(3)
    given[0].set_result(0)
    for future in weirpool.as_completed(future for future in given):
        assert future is given[0]
        break
    gc.collect()
    assert not any(future.cancelled() for future in given)


@pytest.mark.parametrize("lazy", [False, True])
def test_what_was_yielded_is_not_kept(lazy: bool) -> None:
    given = futures(3)
    for future in given:
        future.set_result(0)
    alive = [weakref.ref(future) for future in given]
    del future
    done = weirpool.as_completed(iter([*given]) if lazy else [*given])
    given.clear()
    for yielded in range(1, 4):
        first = next(done)
        del first
        gc.collect()
        if not lazy:  # a list's iterator keeps the list
            assert sum(each() is None for each in alive) == yielded


def test_what_ends_after_it_was_left_is_not_kept() -> None:
    given = futures(2)
    given[0].set_result(0)
    done = weirpool.as_completed(given)
    next(done)
    del done
    alive = weakref.ref(given[1])
    given[1].set_result(1)
    given.clear()
    assert alive() is None, "nothing refers to it in a cycle"


def test_a_dead_worker_ends_every_future(pools: Pools, threads: Threads) -> None:
    pool = pools.unbounded(2)
    given = [pool.submit(tasks.nap, 60), pool.submit(tasks.die), pool.submit(tasks.nap, 60)]
    threads.start(lambda: [type(future.exception()).__name__ for future in weirpool.as_completed(given)])
    assert threads.join() == [["BrokenProcessPool"] * 3]


def test_one_thread_at_a_time(threads: Threads) -> None:
    given = futures(1)
    done = weirpool.as_completed(given)
    threads.start(next, done)
    wait_until(lambda: done._busy, "the thread waits")
    with pytest.raises(ValueError, match="another thread uses this iterator"):
        next(done)
    given[0].set_result(0)
    assert threads.join() == given


def test_in_a_forked_child_it_raises(pools: Pools) -> None:
    given = futures(1)
    done = weirpool.as_completed(given)
    assert "cannot be used in a forked child" in in_forked_child(lambda: next(done))


def test_submissions_that_are_refused_end_it_as_any_error_of_the_source() -> None:
    executor = ByHand()
    executor.refuse = 1
    done = weirpool.as_completed(executor.submit(tasks.echo, n) for n in range(3))
    with pytest.raises(queue.Full):
        next(done)
    assert list(done) == []
