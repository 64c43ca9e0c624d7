"""In an event loop: room is awaited, the loop goes on, and who is cancelled leaves nothing behind."""

import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tasks
import uvloop
from support import Gate, Pools, Threads, in_forked_child, kill_a_worker, start_workers, wait_until

import weirpool
from weirpool import BlockingSubmitWarning, RejectedSubmission, SubmitTimeout, _loop
from weirpool._crew import Crew

SMALL, LARGE = 10, 100_000  # bytes of an argument: pickled before and after there is room
Run = Callable[[Coroutine[Any, Any, Any]], Any]
uvloop.new_event_loop().close()  # libuv makes a pipe for signals, once, which stays for good
sizes = pytest.mark.parametrize("size", [SMALL, LARGE])


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, pools: Pools) -> Run:
    """Runs a coroutine in a loop of its own."""

    def run_in_loop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run_in_loop


async def until(condition: Callable[[], object], what: str) -> None:
    """As wait_until(), while the loop goes on."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in 60 s: {what}"
        await asyncio.sleep(0.001)


async def blocked(pool: weirpool.ProcessPoolExecutor, count: int) -> None:
    await until(lambda: pool.stats().blocked_producers == count, f"{count} wait for room")


async def fill(pool: weirpool.ProcessPoolExecutor, gate: Gate, count: int = 2) -> list[asyncio.Future[Any]]:
    return [await pool.asubmit(tasks.hold, gate.folder) for _ in range(count)]


def start(count: int, make: Callable[[int], Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(make(number)) for number in range(count)]


async def outcomes(waiting: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*waiting, return_exceptions=True)


# ---- Awaiting room -------------------------------------------------------------------------------


async def tick(ticks: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        ticks.append(time.monotonic() - before - 0.01)


def test_a_worker_that_cannot_be_started_costs_no_call_that_waited(run: Run, gate: Gate, tmp_path: Path) -> None:
    """A third worker is missing when the last call is published: one of the two others runs it."""
    start = Gate(tmp_path / "start")

    async def main() -> int:
        context = multiprocessing.get_context("forkserver")
        async with weirpool.ProcessPoolExecutor(3, context, tasks.hold, (start.folder,), max_submit_backlog=1) as pool:
            calls = [asyncio.create_task(pool.arun(tasks.hold, gate.folder)) for _ in range(2)]
            calls.append(asyncio.create_task(pool.arun(tasks.square, 3)))
            while pool.stats().blocked_producers < 2:
                await asyncio.sleep(0.01)
            with mock.patch.object(Crew, "start_one", side_effect=OSError("no more processes")) as failing:
                start.open()
                while not failing.called:
                    await asyncio.sleep(0.01)
            gate.open()
            return (await asyncio.gather(*calls))[-1]

    try:
        assert run(main()) == 9
    finally:
        start.open()


@sizes
def test_the_loop_goes_on_while_calls_wait(
    run: Run, pools: Pools, size: int, record_property: Callable[[str, object], None]
) -> None:
    pool = pools.bounded(4)
    ticks: list[float] = []

    async def main() -> None:
        ticker = asyncio.create_task(tick(ticks))
        calls = start(200, lambda number: pool.arun(tasks.echo, (number, bytes(size))))
        results = await outcomes(calls)
        ticker.cancel()
        assert [number for number, _ in results] == list(range(200))

    run(main())
    record_property("worst_tick_ms", 1000 * max(ticks))
    assert max(ticks) < 10.0
    assert pool.stats().peak_outstanding <= 4
    assert pool.stats().admitted_over_bound == 0


def test_first_come_first_served(run: Run, pools: Pools, gate: Gate, tmp_path: Path) -> None:
    pool = pools.bounded(1, workers=1)
    path = tmp_path / "log"

    async def main() -> None:
        await fill(pool, gate, 1)
        calls = start(100, lambda number: pool.arun(tasks.log, str(path), number))
        await blocked(pool, 100)
        gate.open()
        await outcomes(calls)

    run(main())
    assert path.read_text().split() == [str(number) for number in range(100)]


def test_who_comes_while_the_first_worker_is_started_is_served_in_order(
    run: Run, pools: Pools, start_method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools.bounded(20, 1, start_method)
    path = tmp_path / "log"
    starters = []
    start_worker = Crew._start
    monkeypatch.setattr(
        Crew, "_start", lambda *args: (starters.append(threading.current_thread()), start_worker(*args))[1]
    )
    run(outcomes_of(lambda: start(20, lambda number: pool.arun(tasks.log, str(path), number))))
    assert path.read_text().split() == [str(number) for number in range(20)]
    assert threading.current_thread() not in starters  # which runs the loop
    assert len(starters) == 1


async def outcomes_of(make: Callable[[], list[asyncio.Task[Any]]]) -> list[Any]:
    return await outcomes(make())


def test_bytes_are_awaited(run: Run, pools: Pools) -> None:
    pool = pools.unbounded(max_bytes=4 * LARGE)

    async def main() -> list[Any]:
        return await outcomes(start(100, lambda number: pool.arun(len, bytes(LARGE if number % 3 else 10 * LARGE))))

    assert run(main()) == [LARGE if number % 3 else 10 * LARGE for number in range(100)]
    assert pool.stats().bytes_held == 0


def test_a_backlog_is_awaited(run: Run, pools: Pools) -> None:
    pool = pools.unbounded(max_submit_backlog=1)
    assert run(outcomes_of(lambda: start(100, lambda number: pool.arun(tasks.square, number)))) == [
        number * number for number in range(100)
    ]


def test_what_a_call_raises(run: Run, pools: Pools) -> None:
    with pytest.raises(ZeroDivisionError, match="oh"):
        run(pools.bounded(2).arun(tasks.fail_with, ZeroDivisionError, "oh"))


def test_a_call_that_raises_stop_iteration(run: Run, pools: Pools) -> None:
    """A future of asyncio does not take it, and a coroutine cannot pass it on."""
    pool = pools.bounded(2)

    async def main() -> None:
        for call in (pool.arun(tasks.fail_with, StopIteration, 3), anext(pool.amap(tasks.fail_with, [StopIteration]))):
            async with asyncio.timeout(60):
                with pytest.raises(RuntimeError, match="a task raised StopIteration"):
                    await call

    run(main())


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
@pytest.mark.parametrize("own", [True, False], ids=["arun", "run_in_executor"])
def test_a_result_for_which_there_is_no_memory(run: Run, pools: Pools, error: type[Exception], own: bool) -> None:
    """It is rebuilt when the loop asks for it, in a callback, where nobody would hear of an error."""
    pool = pools.bounded(2)

    async def main() -> None:
        call = tasks.make_failing_to_rebuild, error
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            with pytest.raises(error, match="cannot be rebuilt"):
                await (pool.arun(*call) if own else loop.run_in_executor(pool, *call))
            assert await pool.arun(tasks.square, 3) == 9

    run(main())


@sizes
def test_what_cannot_be_pickled_fails_alone(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> list[Any]:
        await fill(pool, gate)
        calls = start(2, lambda number: pool.arun(len, (bytes(size), lambda: None)) if number else pool.arun(len, "a"))
        await blocked(pool, 1 if size == SMALL else 2)
        gate.open()
        return await outcomes(calls)

    fine, error = run(main())
    assert fine == 1
    assert "pickle" in str(error)


def test_two_loops_at_one_executor(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(3)

    def run_a_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(outcomes_of(lambda: start(100, lambda number: pool.arun(tasks.square, number))))

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop):
        threads.start(run_a_loop, factory)
    for results in threads.join():
        assert results == [number * number for number in range(100)]
    assert threads.errors == []


def test_threads_and_coroutines_wait_in_one_line(
    run: Run, pools: Pools, gate: Gate, threads: Threads, tmp_path: Path
) -> None:
    pool = pools.bounded(1, workers=1)
    path = str(tmp_path / "log")

    async def main() -> None:
        await fill(pool, gate, 1)
        calls = []
        for number in range(0, 20, 2):
            calls += start(1, lambda _, number=number: pool.arun(tasks.log, path, number))
            await blocked(pool, number + 1)
            threads.start(pool.submit, tasks.log, path, number + 1)
            await blocked(pool, number + 2)
        gate.open()
        await outcomes(calls)

    run(main())
    threads.join()
    pool.shutdown()
    assert Path(path).read_text().split() == [str(number) for number in range(20)]


# ---- Leaving -------------------------------------------------------------------------------------


@sizes
def test_who_is_cancelled_gives_the_place_up(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        await fill(pool, gate)
        calls = start(20, lambda _: pool.arun(len, bytes(size)))
        await blocked(pool, 20)
        for call in calls[::2]:
            call.cancel()
        await blocked(pool, 10)
        assert pool.stats().outstanding == 2
        gate.open()
        assert [isinstance(end, asyncio.CancelledError) for end in await outcomes(calls)] == [True, False] * 10

    run(main())


@sizes
def test_who_is_cancelled_as_room_comes_holds_nothing(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        await fill(pool, gate)
        calls = start(2, lambda _: pool.asubmit(len, bytes(size)))
        await blocked(pool, 2)
        gate.open()
        wait_until(lambda: pool.stats().blocked_producers == 0, "room comes")  # and this loop does not see it
        for call in calls:
            call.cancel()
        assert all(isinstance(end, asyncio.CancelledError) for end in await outcomes(calls))
        await until(lambda: pool.stats().outstanding == 0, "permits return")

    run(main())


def test_who_waits_for_bytes_and_is_cancelled_returns_the_permit(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(4, max_bytes=2 * LARGE)

    async def main() -> None:
        held = await pool.asubmit(tasks.hold, gate.folder, bytes(LARGE))
        calls = start(2, lambda _: pool.asubmit(len, bytes(2 * LARGE)))
        await blocked(pool, 2)
        assert pool.stats().outstanding == 3
        calls[0].cancel()
        await blocked(pool, 1)
        assert pool.stats().outstanding == 2
        gate.open()
        assert await (await calls[1]) == 2 * LARGE
        await held

    run(main())


@sizes
def test_a_timeout_of_asyncio_ends_the_wait(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        await fill(pool, gate)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await pool.arun(len, bytes(size))
        assert not isinstance(caught.value, SubmitTimeout)
        assert pool.stats().blocked_producers == 0
        gate.open()

    run(main())


def test_a_task_that_has_not_started_is_cancelled_with_its_coroutine(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(4, workers=1)

    async def main() -> None:
        (held,) = await fill(pool, gate, 1)
        call = asyncio.create_task(pool.arun(tasks.nothing))
        await until(lambda: pool.stats().outstanding == 2, "it is submitted")
        call.cancel()
        await outcomes([call])
        await until(lambda: pool.stats().cancelled == 1, "it is cancelled")
        gate.open()
        await held

    run(main())


def test_a_task_group_that_fails_cancels_its_calls(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        await fill(pool, gate, 1)
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(pool.arun(tasks.hold, gate.folder))
                await blocked(pool, 9)
                raise ZeroDivisionError
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        assert pool.stats().blocked_producers == 0
        gate.open()

    run(main())


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_loop_that_is_forgotten_takes_its_places_along(
    pools: Pools, gate: Gate, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pools.bounded(2)
    start_workers(pool, gate, 2)
    loop = asyncio.new_event_loop()
    calls = [loop.create_task(pool.arun(len, bytes(size))) for _ in range(3)]
    loop.run_until_complete(blocked(pool, 3))
    loop.close()
    del loop, calls
    gc.collect()
    assert pool.stats().blocked_producers == 0
    assert caplog.text.count("Task was destroyed but it is pending") == 3
    gate.open()


@sizes
@pytest.mark.timeout(60)
def test_a_stopped_loop_keeps_nobody_waiting(pools: Pools, gate: Gate, threads: Threads, size: int) -> None:
    """The turn of its coroutine comes, and nobody is there to take it."""
    pool = pools.bounded(1, workers=1, max_bytes=2 * LARGE)
    start_workers(pool, gate, 1)
    loop = asyncio.new_event_loop()
    calls = [loop.create_task(pool.arun(len, bytes(size + number))) for number in range(3)]
    loop.run_until_complete(blocked(pool, 3))
    for number in range(3):
        threads.start(lambda number=number: pool.submit(tasks.square, number).result())
    wait_until(lambda: pool.stats().blocked_producers == 6, "threads wait behind it")
    gate.open()
    assert sorted(threads.join()) == [0, 1, 4]
    assert loop.run_until_complete(asyncio.gather(*calls)) == [size, size + 1, size + 2]
    loop.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("leaves", [False, True])
def test_a_loop_that_comes_back_while_a_thread_takes_its_turn(
    pools: Pools, gate: Gate, threads: Threads, leaves: bool
) -> None:
    """The thread is at pickling: a loop that polls has to wait for that, and one that leaves withdraws the task."""
    pool = pools.bounded(1, workers=1)
    start_workers(pool, gate, 1)
    slow = SlowToPickle()
    loop = asyncio.new_event_loop()
    call = loop.create_task(pool.arun(type, slow))
    loop.run_until_complete(blocked(pool, 1))
    slow.blocks = True
    threads.start(lambda: pool.submit(tasks.square, 3).result())
    wait_until(lambda: pool.stats().blocked_producers == 2, "a thread waits behind it")
    gate.open()
    assert slow.begun.wait(60)
    if leaves:
        call.cancel()
    ends = loop.create_task(outcomes([call]))
    loop.run_until_complete(asyncio.sleep(0.05))
    assert ends.done() == leaves
    slow.opened.set()
    (end,) = loop.run_until_complete(ends)
    assert isinstance(end, asyncio.CancelledError) if leaves else end is SlowToPickle
    assert threads.join() == [9]
    loop.close()


@pytest.mark.timeout(60)
def test_ctrl_c_while_a_thread_submits_for_a_coroutine_is_the_threads(
    pools: Pools, gate: Gate, threads: Threads
) -> None:
    pool = pools.bounded(1, workers=1)
    start_workers(pool, gate, 1)
    interrupting = InterruptsWhenPickled()
    may_go_on = threading.Event()

    def stand_still() -> Any:
        loop = asyncio.new_event_loop()
        call = loop.create_task(pool.arun(type, interrupting))
        loop.run_until_complete(blocked(pool, 1))
        interrupting.armed = True
        assert may_go_on.wait(60)
        with contextlib.closing(loop):
            return loop.run_until_complete(call)

    threads.start(stand_still)
    wait_until(lambda: interrupting.armed, "the loop stands still")
    opener = threading.Thread(
        target=lambda: wait_until(lambda: pool.stats().blocked_producers == 2, "we wait behind it") and gate.open()
    )
    opener.start()
    with pytest.raises(KeyboardInterrupt):
        pool.submit(tasks.square, 3)
    opener.join()
    may_go_on.set()
    assert threads.join() == [InterruptsWhenPickled]
    assert pool.submit(tasks.square, 3).result(60) == 9


class InterruptsWhenPickled:
    """Once, when it is armed: the key is pressed then."""

    armed = False

    def __reduce__(self) -> tuple[Any, ...]:
        if self.armed:
            self.armed = False
            signal.raise_signal(signal.SIGINT)
        return InterruptsWhenPickled._again, (bytes(LARGE),)

    @staticmethod
    def _again(_: bytes) -> "InterruptsWhenPickled":
        return InterruptsWhenPickled()


class SlowToPickle:
    """When it blocks, until it is opened."""

    def __init__(self) -> None:
        self.begun, self.opened, self.blocks = threading.Event(), threading.Event(), False

    def __reduce__(self) -> tuple[Any, ...]:
        if self.blocks:
            self.begun.set()
            assert self.opened.wait(60)
        return SlowToPickle._again, (bytes(LARGE),)

    @staticmethod
    def _again(_: bytes) -> "SlowToPickle":
        return SlowToPickle()


@sizes
@pytest.mark.race
def test_cancelling_at_any_moment(run: Run, pools: Pools, size: int) -> None:
    pool = pools.bounded(2, max_bytes=3 * LARGE)

    async def call(number: int) -> Any:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0003 * (number % 40)):
                return await pool.arun(len, bytes(size))

    results = run(outcomes_of(lambda: start(300, call)))
    assert set(results) <= {None, size}
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")
    assert pool.stats().blocked_producers == 0
    assert pool.stats().bytes_held == 0


# ---- The end -------------------------------------------------------------------------------------


@sizes
def test_shutdown_wakes_who_waits(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> list[Any]:
        await fill(pool, gate)
        calls = start(10, lambda _: pool.arun(len, bytes(size)))
        await blocked(pool, 10)
        pool.shutdown(wait=False)
        ends = await outcomes(calls)
        gate.open()
        return ends

    for error in run(main()):
        assert isinstance(error, RuntimeError)
        assert "after shutdown" in str(error)


def test_shutdown_in_the_loop_does_not_wait_for_permits_of_that_loop(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(2)

    async def main() -> list[Any]:
        await fill(pool, gate)
        calls = start(4, lambda _: pool.arun(len, bytes(LARGE)))
        await blocked(pool, 4)
        gate.open()
        wait_until(lambda: pool.stats().blocked_producers == 2, "room comes for two")
        pool.shutdown(wait=True)
        return await outcomes(calls)

    assert all(type(error) is RuntimeError for error in run(main()))


@sizes
def test_a_pool_that_breaks_wakes_who_waits(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> list[Any]:
        held = await fill(pool, gate)
        calls = start(10, lambda _: pool.arun(len, bytes(size)))
        await blocked(pool, 10)
        kill_a_worker(pool)
        return await outcomes([*calls, *held])  # type: ignore[list-item]

    ends = run(main())
    assert all(isinstance(error, BrokenProcessPool) for error in ends)
    assert len(ends) == 12


def test_after_the_end(run: Run, pools: Pools) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        async with pool as same:
            assert same is pool
            assert await pool.arun(tasks.square, 3) == 9
        assert pool._executor_manager_thread is None  # it has ended
        with pytest.raises(RuntimeError, match="after shutdown"):
            await pool.asubmit(tasks.square, 3)

    run(main())


def test_the_loop_goes_on_while_the_executor_ends(run: Run, pools: Pools, gate: Gate) -> None:
    async def main() -> None:
        async with pools.bounded(2) as pool:
            held = await fill(pool, gate)
            asyncio.get_running_loop().call_later(0.01, gate.open)
        assert all(future.done() for future in held)

    run(main())


def test_not_in_a_forked_child(pools: Pools) -> None:
    pool = pools.bounded(2)
    assert asyncio.run(pool.arun(tasks.square, 3)) == 9
    assert "forked child" in in_forked_child(lambda: asyncio.run(pool.arun(tasks.square, 3)))


# ---- Policies ------------------------------------------------------------------------------------


@sizes
def test_no_room_and_no_patience(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2, block_on_submit=False)

    async def main() -> None:
        await fill(pool, gate)
        with pytest.raises(RejectedSubmission, match="block_on_submit"):
            await pool.arun(len, bytes(size))
        gate.open()

    run(main())
    assert pool.stats().rejected == 1


@sizes
def test_the_executors_timeout(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2, submit_backlog_timeout=0.05)

    async def main() -> None:
        await fill(pool, gate)
        with pytest.raises(SubmitTimeout, match=r"0\.05 s"):
            await pool.arun(len, bytes(size))
        assert pool.stats().blocked_producers == 0
        gate.open()

    run(main())
    assert pool.stats().rejected == 1


def test_who_is_being_submitted_when_the_time_is_over_is_asked_again() -> None:
    """A thread that has taken its turn may have left it waiting for bytes, which is no reason to wait for ever."""

    class Served:
        permitted = False
        asked = 0

        def poll(self) -> None:
            return None

        leave = poll

        def expire(self) -> None:
            self.asked += 1
            if self.asked == 3:
                raise SubmitTimeout("late")

    async def main() -> None:
        line = _loop.Line(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(60):
                with pytest.raises(SubmitTimeout):
                    await line._wait(Served(), 0.01)
        finally:
            line.close()

    asyncio.run(main())


# ---- amap ----------------------------------------------------------------------------------------


def test_amap_in_order(run: Run, pools: Pools) -> None:
    async def main() -> list[int]:
        return [result async for result in pools.bounded(3).amap(tasks.square, range(100))]

    assert run(main()) == [number * number for number in range(100)]


def test_amap_as_they_come(run: Run, pools: Pools, gate: Gate) -> None:
    async def main() -> None:
        calls = [(tasks.hold, gate.folder, "last"), *((tasks.square, number) for number in range(5))]
        results = pools.bounded(3).amap(tasks.apply, calls, ordered=False)
        early = {await anext(results) for _ in range(5)}
        gate.open()
        assert early == {0, 1, 4, 9, 16}
        assert [result async for result in results] == ["last"]

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_takes_no_more_than_its_window(run: Run, pools: Pools, ordered: bool) -> None:
    pool = pools.bounded(8)
    taken = itertools.count()
    seen = [0]

    def items() -> Iterator[int]:
        for seen[0] in taken:
            yield 1

    async def main() -> None:
        async with contextlib.aclosing(pool.amap(tasks.square, items(), ordered=ordered, buffersize=3)) as results:
            for read in range(1, 50):
                assert await anext(results) == 1
                assert seen[0] < read + 3
                await asyncio.sleep(0)
        assert pool.stats().waiting == 0

    run(main())


def test_amap_on_an_executor_without_a_bound_is_lazy_too(run: Run, pools: Pools) -> None:
    pool = pools.unbounded()

    async def main() -> list[int]:
        async with contextlib.aclosing(pool.amap(tasks.square, itertools.count())) as results:
            return [await anext(results) for _ in range(20)]

    assert run(main()) == [number * number for number in range(20)]
    assert pool.stats().peak_outstanding <= 4


def test_amap_yields_before_the_next_item_comes(run: Run, pools: Pools) -> None:
    pool = pools.bounded(8)

    async def main() -> list[int]:
        read = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            yield 3
            await read.wait()
            yield 4

        results = pool.amap(tasks.square, items())
        first = await anext(results)
        read.set()
        return [first, *[result async for result in results]]

    assert run(main()) == [9, 16]


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_that_is_left_early_cancels_what_it_holds(run: Run, pools: Pools, gate: Gate, ordered: bool) -> None:
    pool = pools.bounded(6, workers=1)

    async def main() -> None:
        calls = [(tasks.nothing,), *((tasks.hold, gate.folder) for _ in range(20))]
        async with contextlib.aclosing(pool.amap(tasks.apply, calls, ordered=ordered)) as results:
            await anext(results)
            await until(lambda: pool.stats().outstanding == 6, "the window is full")
            gate.wait_started(1)
        await until(lambda: pool.stats().outstanding == 1, "what has not started is cancelled")
        gate.open()

    run(main())


def test_amap_may_submit_beside_its_reader(run: Run, pools: Pools) -> None:
    pool = pools.bounded(2)

    async def main() -> list[int]:
        return [await pool.arun(tasks.square, result) async for result in pool.amap(tasks.square, range(20))]

    assert run(main()) == [number**4 for number in range(20)]


@pytest.mark.parametrize("ordered", [True, False])
def test_what_ends_amap(run: Run, pools: Pools, ordered: bool) -> None:
    pool = pools.bounded(4)

    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    async def read(results: AsyncIterator[int], into: list[int]) -> None:
        async for result in results:
            into.append(result)

    async def main() -> None:
        before: list[int] = []
        with pytest.raises(LookupError, match="no more"):
            await read(pool.amap(tasks.square, items(), ordered=ordered), before)
        assert sorted(before) == [0, 1, 4]
        with pytest.raises(ZeroDivisionError):
            await read(pool.amap(tasks.fail_with, [ZeroDivisionError] * 9, ordered=ordered), before)
        assert await pool.arun(tasks.square, 3) == 9

    run(main())


def test_wrong_arguments(pools: Pools) -> None:
    pool = pools.bounded(2)
    with pytest.raises(ValueError, match="buffersize"):
        pool.amap(tasks.square, [1], buffersize=0)
    with pytest.raises(TypeError, match="not iterable"):
        pool.amap(tasks.square, 5)  # type: ignore[arg-type]


# ---- A submit() that blocks the loop -------------------------------------------------------------


@sizes
def test_a_submit_that_blocks_a_loop_says_so_once(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await fill(pool, gate)
        threading.Timer(0.05, gate.open).start()
        with pytest.warns(BlockingSubmitWarning, match="asubmit") as caught:
            futures = [pool.submit(len, bytes(size)) for _ in range(100)]
        assert [warning.filename for warning in caught] == [__file__]
        assert [await asyncio.wrap_future(future) for future in futures] == [size] * 100

    run(main())


@pytest.mark.timeout(30)
def test_a_submit_that_blocks_a_loop_does_not_wait_for_permits_of_that_loop(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(1, workers=1, max_bytes=2 * LARGE)

    async def main() -> list[Any]:
        await fill(pool, gate, 1)
        calls = start(5, lambda number: pool.arun(len, bytes(LARGE + number)))
        await blocked(pool, 5)
        calls[1].cancel()
        gate.open()
        with pytest.warns(BlockingSubmitWarning):
            assert pool.submit(tasks.square, 3).result() == 9
        calls[0].cancel()
        return await outcomes(calls)

    ends = run(main())
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, True, False, False, False]
    assert ends[2:] == [LARGE + 2, LARGE + 3, LARGE + 4]


def test_run_in_executor_loses_nothing(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(1, workers=1)

    async def main() -> list[int]:
        await fill(pool, gate, 1)
        threading.Timer(0.05, gate.open).start()
        loop = asyncio.get_running_loop()
        calls: list[Awaitable[int]] = [loop.run_in_executor(pool, tasks.square, number) for number in range(100)]
        return await asyncio.gather(*calls)

    with pytest.warns(BlockingSubmitWarning) as caught:
        assert run(main()) == [number * number for number in range(100)]
    assert sum(warning.category is BlockingSubmitWarning for warning in caught) == 1


@sizes
def test_the_warning_as_an_error_submits_nothing(run: Run, pools: Pools, gate: Gate, size: int) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        await fill(pool, gate)
        with pytest.raises(BlockingSubmitWarning):
            pool.submit(len, bytes(size))
        assert pool.stats().submitted == 2
        assert pool.stats().blocked_producers == 0
        gate.open()

    run(main())


def test_a_thread_without_a_loop_is_not_warned(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.bounded(2)
    start_workers(pool, gate, 2)
    threads.start(pool.submit, tasks.nothing)
    wait_until(lambda: pool.stats().blocked_producers == 1, "it waits")
    gate.open()
    threads.join()
    assert threads.errors == []


def test_nothing_stays_open_in_a_loop(run: Run, pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(2)

    async def main() -> None:
        await fill(pool, gate)
        before = len(os.listdir("/proc/self/fd"))
        calls = start(50, lambda _: pool.arun(tasks.nothing))
        await blocked(pool, 50)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        gate.open()
        await outcomes(calls)
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())
