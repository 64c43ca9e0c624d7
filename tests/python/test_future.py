"""Futures: their states, cancelling, callbacks, waiting in threads and event loops, and what keeps them alive."""

import asyncio
import gc
import logging
import pickle
import random
import threading
import time
import weakref
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import Gate, Pools, Threads, wait_until

SOON = 60.0


# ---- States --------------------------------------------------------------------------------------


def test_it_is_a_standard_future(pools: Pools) -> None:
    assert isinstance(pools.unbounded(1).submit(tasks.nothing), Future)


def test_states_tell_the_truth(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    first = pool.submit(tasks.hold, gate.folder, "held")
    gate.wait_started(1)
    rest = [pool.submit(tasks.nothing) for _ in range(5)]
    assert (first.running(), first.done(), first.cancelled(), first._state) == (True, False, False, "RUNNING")
    assert not any(future.done() or future.cancelled() for future in rest)
    assert (rest[-1].running(), rest[-1]._state) == (False, "PENDING")
    gate.open()
    assert first.result() == "held"
    assert (first.running(), first.done(), first.cancelled(), first._state) == (False, True, False, "FINISHED")


def test_repr_names_state_and_outcome(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    running = pool.submit(tasks.hold, gate.folder, 7)
    gate.wait_started(1)
    failing = pool.submit(tasks.fail_with, ValueError)
    pending = [pool.submit(tasks.nothing) for _ in range(4)][-1]
    assert "state=running" in repr(running)
    assert "state=pending" in repr(pending)
    assert pending.cancel()
    assert "state=cancelled" in repr(pending)
    gate.open()
    wait([running, failing], SOON)
    assert "state=finished returned int" in repr(running)
    assert "state=finished raised ValueError" in repr(failing)


def test_a_finished_future_refuses_another_result(pools: Pools) -> None:
    future = pools.unbounded(1).submit(tasks.square, 3)
    future.result()
    with pytest.raises(InvalidStateError):
        future.set_result(10)
    with pytest.raises(InvalidStateError):
        future.set_exception(OSError())
    assert future.result() == 9


def test_private_state_can_be_read_and_set(pools: Pools) -> None:
    """Libraries and the standard library's own tests reach for these names."""
    future = pools.unbounded(1).submit(tasks.square, 3)
    assert future.result() == 9
    assert (future._state, future._result, future._exception) == ("FINISHED", 9, None)
    assert future._waiters == []
    with future._condition:
        future._result = 10
    assert future.result() == 10


# ---- Cancelling ----------------------------------------------------------------------------------


def test_what_waits_can_be_cancelled_and_never_runs(pools: Pools, gate: Gate, tmp_path: Path) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    futures = [pool.submit(tasks.log, str(tmp_path / "log"), number) for number in range(6)]
    last = futures[-1]
    assert last.cancel()
    assert last.cancel(), "cancelling twice is no error"
    assert last.cancelled()
    assert last.done()
    assert not last.running()
    for ask in (last.result, last.exception):
        with pytest.raises(CancelledError):
            ask()
    gate.open()
    wait(futures, SOON)
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "3", "4"]


def test_what_runs_or_has_ended_cannot_be_cancelled(pools: Pools, gate: Gate) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder, "ran")
    gate.wait_started(1)
    assert not future.cancel()
    assert not future.cancelled()
    gate.open()
    assert future.result() == "ran"
    assert not future.cancel()
    assert not future.cancelled()


def test_cancelling_makes_room(pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(7, workers=1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    waiting = [pool.submit(tasks.nothing) for _ in range(6)]
    assert all(future.cancel() for future in waiting[-3:])
    assert pool.stats().outstanding == 4
    for _ in range(3):
        pool.submit(tasks.nothing)
    assert pool.stats().outstanding == 7


def test_wait_sees_the_cancelled(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    futures = [pool.submit(tasks.nothing) for _ in range(5)]
    futures[-1].cancel()
    gate.open()
    assert wait(futures, SOON).not_done == set()
    assert set(as_completed(futures, SOON)) == set(futures)


@pytest.mark.race
def test_a_task_is_cancelled_or_runs_but_never_both(pools: Pools, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    pool = pools.unbounded(2)
    path = tmp_path / "log"
    path.touch()
    futures = [pool.submit(tasks.log, str(path), number) for number in range(300)]
    cancelled = set()
    for number in dice.sample(range(300), 200):
        if futures[number].cancel():
            cancelled.add(number)
        if dice.random() < 0.02:
            time.sleep(0.001)
    assert wait(futures, SOON).not_done == set()
    ran = [int(line) for line in path.read_text().split()]
    assert len(ran) == len(set(ran))
    assert cancelled.isdisjoint(ran)
    assert cancelled | set(ran) == set(range(300))
    assert {number for number in range(300) if futures[number].cancelled()} == cancelled


@pytest.mark.race
def test_two_threads_cancel_the_same_futures(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    futures = [pool.submit(tasks.nothing) for _ in range(200)]
    told: list[Future[None]] = []
    for future in futures:
        future.add_done_callback(told.append)
    for _ in range(2):
        threads.start(lambda: [future.cancel() for future in futures[10:]])
    assert threads.join() == [[True] * 190, [True] * 190]
    assert len(told) == 190
    assert set(told) == set(futures[10:])
    assert pool.stats().outstanding <= 11


# ---- Callbacks -----------------------------------------------------------------------------------


def test_callbacks_run_once_in_the_order_added_with_the_future(pools: Pools, gate: Gate) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder, 5)
    seen: list[Any] = []
    for number in range(10):
        future.add_done_callback(lambda done, number=number: seen.append((number, done, done.done(), done.result())))
    gate.open()
    wait_until(lambda: len(seen) >= 10, "every callback runs")
    assert seen == [(number, future, True, 5) for number in range(10)]


def test_a_callback_added_afterwards_runs_at_once_in_the_caller(pools: Pools) -> None:
    future = pools.unbounded(1).submit(tasks.nothing)
    future.result()
    seen: list[Any] = []
    future.add_done_callback(lambda done: seen.append((done, threading.current_thread())))
    assert seen == [(future, threading.current_thread())]


def test_a_callback_that_was_waited_for_runs_off_the_main_thread(pools: Pools, gate: Gate) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder)
    ran_in: list[threading.Thread] = []
    future.add_done_callback(lambda _: ran_in.append(threading.current_thread()))
    gate.open()
    future.result()
    wait_until(lambda: ran_in, "the callback runs")
    assert ran_in[0] is not threading.current_thread()


def test_a_failing_callback_is_logged_and_the_rest_run(
    pools: Pools, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder)
    seen: list[int] = []
    future.add_done_callback(lambda _: seen.append(1))
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: seen.append(3))
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        gate.open()
        wait_until(lambda: len(seen) == 2, "the callbacks run")
    assert seen == [1, 3]
    assert "exception calling callback for" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()  # the log's traceback keeps the frames of the pool's thread


def test_callbacks_of_a_cancelled_future_run_in_the_canceller(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    future = [pool.submit(tasks.nothing) for _ in range(5)][-1]
    seen: list[Any] = []
    future.add_done_callback(lambda done: seen.append((done.cancelled(), threading.current_thread())))
    assert future.cancel()
    assert seen == [(True, threading.current_thread())]


def test_a_callback_can_add_another(pools: Pools, gate: Gate) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder)
    seen: list[str] = []

    def outer(done: Future[Any]) -> None:
        done.add_done_callback(lambda _: seen.append("inner"))
        seen.append("outer")

    future.add_done_callback(outer)
    gate.open()
    wait_until(lambda: len(seen) == 2, "both callbacks run")
    assert seen == ["inner", "outer"]


def test_a_callback_can_ask_other_futures_of_the_pool(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(2)
    first = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    second = pool.submit(tasks.square, 6)
    seen: list[int] = []
    first.add_done_callback(lambda _: seen.append(second.result()))
    second.result()
    gate.open()
    wait_until(lambda: seen == [36], "the callback has read the other result")


def test_callbacks_of_many_futures_all_run(pools: Pools) -> None:
    pool = pools.bounded(8)
    seen: list[int] = []
    for number in range(2000):
        pool.submit(tasks.echo, number).add_done_callback(lambda done: seen.append(done.result()))
    wait_until(lambda: len(seen) == 2000, "every callback runs")
    assert sorted(seen) == list(range(2000))


# ---- Waiting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.02, -1])
def test_result_and_exception_time_out(pools: Pools, gate: Gate, seconds: float) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder, 1)
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=seconds)
    gate.open()
    assert future.result(timeout=SOON) == 1
    assert future.exception(timeout=0) is None


def test_wait_for_all_with_other_futures_among_them(pools: Pools, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as other:
        plain: Future[int] = Future()
        futures = [pools.unbounded(1).submit(tasks.hold, gate.folder), other.submit(abs, -1), plain]
        assert plain in wait(futures, 0.05).not_done
        gate.open()
        plain.set_result(1)
        assert wait(futures, SOON).not_done == set()


def test_wait_for_the_first(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(2)
    held = pool.submit(tasks.hold, gate.folder)
    quick = pool.submit(tasks.nothing)
    done, not_done = wait([held, quick], SOON, FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {held})


def test_wait_for_the_first_exception(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(2)
    held = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    quick, failing = pool.submit(tasks.nothing), pool.submit(tasks.fail_with, ValueError)
    done, not_done = wait([held, quick, failing], SOON, FIRST_EXCEPTION)
    assert failing in done
    assert not_done == {held}


def test_as_completed_yields_in_the_order_of_ends(pools: Pools, tmp_path: Path) -> None:
    pool = pools.unbounded(2)
    gates = [Gate(tmp_path / str(number)) for number in range(2)]
    futures = [pool.submit(tasks.hold, one.folder) for one in gates]
    plain: Future[None] = Future()
    ends = as_completed([*futures, plain], SOON)
    gates[1].open()
    assert next(ends) is futures[1]
    plain.set_result(None)
    assert next(ends) is plain
    gates[0].open()
    assert next(ends) is futures[0]


def test_as_completed_times_out(pools: Pools, gate: Gate) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder)
    with pytest.raises(TimeoutError):
        list(as_completed([future], timeout=0.02))


def test_as_completed_over_a_thousand(pools: Pools) -> None:
    pool = pools.unbounded(2)
    futures = [pool.submit(tasks.echo, number) for number in range(1000)]
    assert sorted(future.result() for future in as_completed(futures, SOON)) == list(range(1000))


@pytest.mark.race
def test_many_threads_wait_for_the_same_futures(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(4)
    futures = [pool.submit(tasks.echo, number) for number in range(100)]
    for _ in range(4):
        threads.start(lambda: {future.result() for future in as_completed(futures, SOON)})
        threads.start(lambda: {future.result() for future in wait(futures, SOON).done})
        threads.start(lambda: {future.result(SOON) for future in futures})
        threads.start(lambda: {future.result(SOON) for future in reversed(futures)})
    assert threads.join() == [set(range(100))] * 16


@pytest.mark.race
def test_one_result_asked_by_many_threads_is_one_object(pools: Pools, gate: Gate, threads: Threads) -> None:
    future = pools.unbounded(1).submit(tasks.hold, gate.folder, tasks.Counted())
    before = tasks.Counted.rebuilt
    for _ in range(8):
        threads.start(future.result)
    gate.open()
    results = threads.join()
    assert len({id(result) for result in results}) == 1
    assert future.result() is results[0]
    assert tasks.Counted.rebuilt == before + 1


def test_one_exception_asked_by_many_threads_is_one_object(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.hold, gate.folder)
    future = pool.submit(tasks.fail_with, tasks.OddError)
    for _ in range(8):
        threads.start(future.exception)
    gate.open()
    assert {id(error) for error in threads.join()} == {id(future.exception())}


def test_a_result_that_cannot_be_rebuilt_breaks_the_pool(pools: Pools) -> None:
    pool = pools.unbounded(1)
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.echo_failing_to_rebuild).result()
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing).result()


def test_an_exception_that_cannot_be_rebuilt_breaks_the_pool(pools: Pools) -> None:
    pool = pools.unbounded(1)
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.fail_with, tasks.HalfPickledError, 7, "seven").result()


# ---- asyncio -------------------------------------------------------------------------------------


def test_run_in_executor(pools: Pools) -> None:
    pool = pools.bounded(64)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, tasks.square, number) for number in range(50)))

    assert asyncio.run(main()) == [number * number for number in range(50)]


def test_wrap_future(pools: Pools) -> None:
    pool = pools.unbounded(1)

    async def main() -> tuple[int, BaseException | None]:
        good = asyncio.wrap_future(pool.submit(tasks.square, 5))
        bad = asyncio.wrap_future(pool.submit(tasks.fail_with, tasks.OddError, "async"))
        await asyncio.wait([good, bad])
        return good.result(), bad.exception()

    result, error = asyncio.run(main())
    assert result == 25
    assert isinstance(error, tasks.OddError)


def test_cancelling_an_asyncio_future_cancels_the_task(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    inner = [pool.submit(tasks.nothing) for _ in range(5)][-1]

    async def main() -> None:
        outer = asyncio.wrap_future(inner)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    asyncio.run(main())
    assert inner.cancelled()


# ---- Life ----------------------------------------------------------------------------------------


def test_attributes_weak_references_and_no_pickling(pools: Pools) -> None:
    future = pools.unbounded(1).submit(tasks.square, 2)
    future.label = "mine"  # type: ignore[attr-defined]
    assert vars(future)["label"] == "mine"
    assert weakref.ref(future)() is future
    assert future in {future: 1}
    with pytest.raises(TypeError):
        pickle.dumps(future)
    assert future.result() == 4
    with pytest.raises(TypeError):
        pickle.dumps(future)


@pytest.mark.parametrize("through", ["attribute", "callback", "result"])
def test_a_cycle_is_collected(pools: Pools, through: str) -> None:
    pool = pools.unbounded(1)
    future: Any = pool.submit(tasks.echo, tasks.Box())
    if through == "attribute":
        future.self = future
    elif through == "callback":
        future.add_done_callback(lambda _, keep=future: None)
    else:
        future.result().content = future
    future.result()
    alive = weakref.ref(future)
    del future
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the future is collected")


def test_a_cycle_of_a_future_that_never_ends_is_left_alone(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    future: Any = pool.submit(tasks.hold, gate.folder)
    future.self = future
    ended: list[bool] = []
    future.add_done_callback(lambda _: ended.append(True))
    del future
    gc.collect()
    gate.open()
    wait_until(lambda: ended, "the callback of the dropped future runs")


def test_the_task_of_a_dropped_future_runs(pools: Pools, tmp_path: Path) -> None:
    pool = pools.unbounded(1)
    for number in range(20):
        pool.submit(tasks.log, str(tmp_path / "log"), number)
    pool.submit(tasks.nothing).result()
    pool.shutdown()
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(20)]


@pytest.mark.parametrize("read_before", [True, False])
def test_a_future_outlives_its_pool(pools: Pools, read_before: bool) -> None:
    pool = pools.unbounded(2)
    small, large = pool.submit(tasks.square, 9), pool.submit(tasks.zeros, 3_000_000)
    failed = pool.submit(tasks.fail_with, tasks.OddError, "late")
    if read_before:
        wait([small, large, failed], SOON)
        assert large.result() == bytes(3_000_000)
    pool.shutdown()
    alive = weakref.ref(pool)
    pools.made.clear()
    del pool
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the pool is collected")
    assert small.result() == 81
    assert large.result() == bytes(3_000_000)
    with pytest.raises(tasks.OddError, match="late"):
        failed.result()
    seen: list[int] = []
    small.add_done_callback(lambda done: seen.append(done.result()))
    assert seen == [81]
    assert wait([small, large], SOON).not_done == set()
    assert not small.cancel()
    assert "returned int" in repr(small)


def test_a_result_is_not_kept_by_the_pool(pools: Pools) -> None:
    pool = pools.unbounded(1)
    future = pool.submit(tasks.echo, tasks.Box())
    alive = weakref.ref(future.result())
    assert alive() is not None
    del future
    wait_until(lambda: alive() is None, "the result goes with its future")
