"""asyncio on threads and before other executors: as on the process pool, and no loop's standing still harms others."""

import asyncio
import concurrent.futures as cf
import contextlib
import contextvars
import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
import tasks
import uvloop
from support import Gate, Threads, wait_until

import weirpool
from weirpool import BoundedThreadPoolExecutor, RejectedSubmission, SubmitTimeout, bounded
from weirpool._crew import Crew

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Make = Callable[..., Any]
uvloop.new_event_loop().close()  # libuv makes a pipe for signals, once, which stays for good


def fork() -> Any:
    return multiprocessing.get_context("fork")


def policy(timeout: float | None, name: str) -> dict[str, Any]:
    return {} if timeout is None else {name: timeout}


KINDS: dict[str, Make] = {
    "threads": lambda bound, workers, timeout: BoundedThreadPoolExecutor(
        bound, workers, **policy(timeout, "submit_backlog_timeout")
    ),
    "bounded threads": lambda bound, workers, timeout: bounded(
        cf.ThreadPoolExecutor(workers), bound, **policy(timeout, "submit_timeout")
    ),
    "bounded processes": lambda bound, workers, timeout: bounded(
        cf.ProcessPoolExecutor(workers, fork()), bound, **policy(timeout, "submit_timeout")
    ),
    "bounded weirpool": lambda bound, workers, timeout: bounded(
        weirpool.ProcessPoolExecutor(workers, fork()), bound, **policy(timeout, "submit_timeout")
    ),
}


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, make: Make) -> Run:
    """Runs a coroutine in a loop of its own."""

    def run_in_loop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run_in_loop


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Any] = []

    def start(bound: int, workers: int = 2, timeout: float | None = None) -> Any:
        made.append(KINDS[request.param](bound, workers, timeout))
        pool = made[-1]
        pool.submit(abs, -1).result()  # processes are there before loops are
        wait_until(lambda: pool.stats().outstanding == 0, "the permit is back")
        return pool

    yield start
    for pool in made:
        pool.shutdown()
        wait_until(lambda pool=pool: pool.stats().outstanding == 0, "every permit is back")
        assert pool.stats().blocked_producers == 0


@pytest.fixture
def gate(make: Make, tmp_path: Any) -> Iterator[Gate]:
    """Torn down before the executors, so that they can end."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in 60 s: {what}"
        await asyncio.sleep(0.001)


async def blocked(pool: Any, count: int) -> None:
    await until(lambda: pool.stats().blocked_producers == count, f"{count} wait for room")


async def fill(pool: Any, gate: Gate, count: int) -> list[asyncio.Future[Any]]:
    return [await pool.asubmit(tasks.hold, gate.folder) for _ in range(count)]


def start(count: int, make: Callable[[int], Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(make(number)) for number in range(count)]


async def outcomes(waiting: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*waiting, return_exceptions=True)


SQUARES = [number * number for number in range(100)]


# ---- as on the process pool ----


def test_the_loop_goes_on_while_calls_wait(
    run: Run, make: Make, record_property: Callable[[str, object], None]
) -> None:
    pool = make(4)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            ticks.append(time.monotonic() - before - 0.01)

    async def main() -> None:
        ticker = asyncio.create_task(tick())
        calls = start(200, lambda number: pool.arun(tasks.echo, number))
        assert await outcomes(calls) == list(range(200))
        ticker.cancel()

    run(main())
    record_property("worst_tick_ms", 1000 * max(ticks))
    assert max(ticks) < 10.0
    assert pool.stats().peak_outstanding <= 4
    assert pool.stats().admitted_over_bound == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_amap(run: Run, make: Make, ordered: bool) -> None:
    pool = make(3)

    async def items() -> AsyncIterator[int]:
        for number in range(100):
            await asyncio.sleep(0)
            yield number

    async def main() -> None:
        results = [result async for result in pool.amap(tasks.square, items(), ordered=ordered)]
        assert sorted(results) == SQUARES
        assert results == SQUARES or not ordered
        async with contextlib.aclosing(pool.amap(tasks.square, itertools.count(), ordered=ordered)) as endless:
            assert len([await anext(endless) for _ in range(10)]) == 10

    run(main())


def test_the_loop_goes_on_while_the_executor_ends(run: Run, make: Make, gate: Gate) -> None:
    async def main() -> None:
        async with make(2) as pool:
            held = await fill(pool, gate, 2)
            asyncio.get_running_loop().call_later(0.01, gate.open)
        assert all(future.done() for future in held)
        with pytest.raises(RuntimeError, match="after shutdown"):
            await pool.asubmit(abs, -1)

    run(main())


def test_shutdown_wakes_who_waits(run: Run, make: Make, gate: Gate) -> None:
    pool = make(2)

    async def main() -> list[Any]:
        await fill(pool, gate, 2)
        calls = start(10, lambda _: pool.arun(abs, -1))
        await blocked(pool, 10)
        pool.shutdown(wait=False)
        ends = await outcomes(calls)
        gate.open()
        return ends

    assert all(isinstance(error, RuntimeError) and "after shutdown" in str(error) for error in run(main()))


def test_who_is_cancelled_gives_the_place_up(run: Run, make: Make, gate: Gate) -> None:
    pool = make(2)

    async def main() -> None:
        await fill(pool, gate, 2)
        calls = start(20, lambda _: pool.arun(abs, -1))
        await blocked(pool, 20)
        for call in calls[::2]:
            call.cancel()
        await blocked(pool, 10)
        gate.open()
        assert [isinstance(end, asyncio.CancelledError) for end in await outcomes(calls)] == [True, False] * 10

    run(main())


@pytest.mark.race
def test_cancelling_at_any_moment(run: Run, make: Make) -> None:
    pool = make(2)

    async def call(number: int) -> Any:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0003 * (number % 40)):
                return await pool.arun(tasks.square, 3)

    async def main() -> list[Any]:
        return await outcomes(start(300, call))

    assert set(run(main())) <= {None, 9}
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")


def test_a_timeout_of_asyncio_and_a_task_group_that_fails(run: Run, make: Make, gate: Gate) -> None:
    pool = make(2)

    async def fail() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(pool.arun(abs, -1))
            await blocked(pool, 10)
            raise ZeroDivisionError

    async def main() -> None:
        await fill(pool, gate, 2)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await pool.arun(abs, -1)
        assert not isinstance(caught.value, SubmitTimeout)
        with pytest.raises(ExceptionGroup) as group:
            await fail()
        assert [type(error) for error in group.value.exceptions] == [ZeroDivisionError]
        assert pool.stats().blocked_producers == 0
        gate.open()

    run(main())


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_the_executors_timeout(run: Run, make: Make, gate: Gate, timeout: float) -> None:
    pool = make(2, timeout=timeout)

    async def main() -> None:
        await fill(pool, gate, 2)
        with pytest.raises(SubmitTimeout):
            await pool.arun(abs, -1)
        assert pool.stats().blocked_producers == 0
        gate.open()

    run(main())
    assert pool.stats().rejected == 1


def test_two_loops_at_one_executor(make: Make, threads: Threads) -> None:
    pool = make(3)

    async def main() -> list[Any]:
        return await outcomes(start(100, lambda number: pool.arun(tasks.square, number)))

    def run_a_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop):
        threads.start(run_a_loop, factory)
    assert threads.join() == [SQUARES] * 3
    assert threads.errors == []
    assert pool.stats().peak_outstanding <= 3


def test_our_own_pool_behind_a_gate_starts_its_workers_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    starters = []
    start_worker = Crew._start
    monkeypatch.setattr(
        Crew, "_start", lambda *args: (starters.append(threading.current_thread()), start_worker(*args))[1]
    )
    with bounded(weirpool.ProcessPoolExecutor(2, fork()), 4) as pool:

        async def main() -> list[Any]:
            return await outcomes(start(20, lambda number: pool.arun(tasks.square, number)))

        assert asyncio.run(main()) == SQUARES[:20]
    assert len(starters) == 2
    assert threading.current_thread() not in starters


# ---- loops that stand still ----


@pytest.mark.timeout(60)
def test_a_stopped_loop_keeps_nobody_waiting(make: Make, gate: Gate, threads: Threads) -> None:
    """The turn of its coroutine comes, and nobody is there to take it."""
    pool = make(1, workers=1)
    loop = asyncio.new_event_loop()
    pool.submit(tasks.hold, gate.folder)
    calls = [loop.create_task(pool.arun(tasks.square, number)) for number in range(3)]
    loop.run_until_complete(blocked(pool, 3))
    for number in range(5):
        threads.start(lambda number=number: pool.submit(tasks.square, number).result())
    wait_until(lambda: pool.stats().blocked_producers == 8, "threads wait behind it")
    gate.open()
    assert sorted(threads.join()) == [0, 1, 4, 9, 16]
    assert loop.run_until_complete(asyncio.gather(*calls)) == [0, 1, 4]
    loop.close()
    assert pool.stats().admitted_over_bound == 0


@pytest.mark.timeout(60)
def test_a_loop_that_waits_for_a_thread_behind_it(run: Run, make: Make, gate: Gate, threads: Threads) -> None:
    pool = make(1, workers=1)

    async def main() -> list[Any]:
        await fill(pool, gate, 1)
        calls = start(3, lambda number: pool.arun(tasks.square, number))
        await blocked(pool, 3)
        threads.start(lambda: pool.submit(tasks.square, 9).result())
        await blocked(pool, 4)
        gate.open()
        assert threads.join() == [81]  # and the loop stands still
        return await outcomes(calls)

    assert run(main()) == [0, 1, 4]


class Interrupting(cf.ThreadPoolExecutor):
    """The key is pressed while it submits, once, when it is armed."""

    armed = False

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        if self.armed:
            self.armed = False
            signal.raise_signal(signal.SIGINT)
        return super().submit(*args, **kwargs)


@pytest.mark.timeout(60)
def test_ctrl_c_while_a_thread_submits_for_a_coroutine_is_the_threads(gate: Gate, threads: Threads) -> None:
    inner = Interrupting(1)
    with bounded(inner, 2) as pool:
        pool.submit(tasks.hold, gate.folder)
        waiting = pool.submit(tasks.square, 3)
        may_go_on = threading.Event()

        def stand_still() -> Any:
            loop = asyncio.new_event_loop()
            call = loop.create_task(pool.arun(tasks.square, 4))
            loop.run_until_complete(blocked(pool, 1))
            inner.armed = True
            assert may_go_on.wait(60)
            with contextlib.closing(loop), pytest.raises(RuntimeError, match="Ctrl-C came"):
                loop.run_until_complete(call)

        threads.start(stand_still)
        wait_until(lambda: inner.armed, "the loop stands still")
        with pytest.raises(KeyboardInterrupt):
            waiting.cancel()
            wait_until(lambda: False, "never: the interrupt comes")
        gate.open()
        may_go_on.set()
        threads.join()
        assert threads.errors == []
        assert pool.submit(tasks.square, 3).result(60) == 9
    assert pool.stats().outstanding == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["threads", "bounded threads"])
def test_a_task_that_runs_a_loop_on_its_own_full_pool(kind: str) -> None:
    with KINDS[kind](1, 1, None) as pool:

        async def inner() -> Any:
            return await asyncio.gather(*(pool.asubmit(abs, -number) for number in range(3)))

        def task() -> Any:
            return asyncio.run(inner())

        submitted = pool.submit(task).result()
        assert len(submitted) == 3
        wait_until(lambda: pool.stats().outstanding == 0, "they have run")
        assert pool.stats().admitted_over_bound == 3


@pytest.mark.timeout(60)
def test_shutdown_that_cancels_behind_coroutines(run: Run, make: Make, gate: Gate) -> None:
    """The room that cancelling makes is nobody's any more."""
    pool = make(4, workers=1)

    async def main() -> None:
        held = [await pool.asubmit(tasks.hold, gate.folder) for _ in range(4)]
        calls = start(5, lambda _: pool.arun(abs, -1))
        await blocked(pool, 5)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.open()
        assert all(isinstance(end, RuntimeError) for end in await outcomes(calls))
        await asyncio.wait(held)

    run(main())


@pytest.mark.timeout(60)
def test_an_executor_that_is_shut_down_past_its_gate() -> None:
    """It cancels with a lock held that its submit() wants: whoever makes room there must not submit."""
    inner = cf.ThreadPoolExecutor(1)
    pool = bounded(inner, 2)
    opened = threading.Event()

    async def main() -> None:
        first, second = [await pool.asubmit(opened.wait) for _ in range(2)]
        calls = start(3, lambda _: pool.arun(abs, -1))
        await blocked(pool, 3)
        inner.shutdown(wait=False, cancel_futures=True)
        opened.set()
        await first
        assert second.cancelled() or await asyncio.wait([second])
        assert all(isinstance(end, RuntimeError) for end in await outcomes(calls))

    asyncio.run(main())
    pool.shutdown()


def test_a_call_is_submitted_in_the_context_of_its_coroutine() -> None:
    """As of an executor that takes the context along to its task."""
    who = contextvars.ContextVar("who", default="nobody")

    class Carrying(cf.ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)

    opened = threading.Event()
    with bounded(Carrying(1), 1) as pool:

        async def call(name: str) -> str:
            who.set(name)
            return await pool.arun(who.get)

        async def main() -> list[Any]:
            await pool.asubmit(opened.wait)
            calls = start(5, lambda number: call(str(number)))
            await blocked(pool, 5)
            opened.set()
            return await outcomes(calls)

        assert asyncio.run(main()) == ["0", "1", "2", "3", "4"]


def test_a_submit_that_raises_in_a_turn_is_told_and_the_turn_goes_on() -> None:
    class Picky(cf.ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if fn is len:
                raise LookupError("no len here")
            return super().submit(fn, *args, **kwargs)

    opened = threading.Event()
    with bounded(Picky(1), 1) as pool:

        async def main() -> list[Any]:
            await pool.asubmit(opened.wait)
            calls = start(6, lambda number: pool.arun(abs if number % 3 == 2 else len, -number))
            await blocked(pool, 6)
            opened.set()
            return await outcomes(calls)

        ends = asyncio.run(main())
        assert [end if isinstance(end, int) else str(end) for end in ends] == ["no len here"] * 2 + [2] + [
            "no len here"
        ] * 2 + [5]
        assert pool.stats().outstanding == 0


def test_many_coroutines_before_an_executor_that_runs_at_once() -> None:
    """Each submission ends at once, and makes room for the next: one after the other, not one within the other."""

    class AtOnce(cf.Executor):
        def __init__(self) -> None:
            self.first: cf.Future[Any] | None = None

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: cf.Future[Any] = cf.Future()
            if self.first is None:
                self.first = future
            else:
                future.set_result(fn(*args, **kwargs))
            return future

    inner = AtOnce()
    pool = bounded(inner, 1, workers=1)

    async def main() -> list[Any]:
        await pool.asubmit(abs, -1)
        calls = start(5000, lambda number: pool.arun(abs, -number))
        await blocked(pool, 5000)
        assert inner.first is not None
        inner.first.set_result(None)
        return await outcomes(calls)

    assert asyncio.run(main()) == list(range(5000))


# ---- bounded twice ----


def test_who_bounds_twice_has_both_bounds(threads: Threads) -> None:
    opened = threading.Event()
    with bounded(bounded(cf.ThreadPoolExecutor(8), 3, workers=3), 5, workers=5) as outer:
        inner = outer._inner
        for _ in range(7):
            threads.start(lambda: outer.submit(opened.wait).result())
        wait_until(lambda: outer.stats().blocked_producers == 2, "two wait before the outer one")
        wait_until(lambda: inner.stats().blocked_producers == 2, "two wait before the inner one")
        assert (outer.stats().outstanding, inner.stats().outstanding) == (5, 3)
        opened.set()
        assert threads.join() == [True] * 7
        for stats in (outer.stats(), inner.stats()):
            assert (stats.completed, stats.admitted_over_bound) == (7, 0)


@pytest.mark.timeout(60)
def test_a_task_that_submits_to_threads_that_are_bounded_twice() -> None:
    with bounded(bounded(cf.ThreadPoolExecutor(1), 1), 1) as pool:
        future = pool.submit(lambda: [pool.submit(abs, -number) for number in range(3)])
        assert [each.result() for each in future.result()] == [0, 1, 2]


def test_a_refusal_of_the_inner_one_returns_the_outer_permit() -> None:
    opened = threading.Event()
    with bounded(bounded(cf.ThreadPoolExecutor(1), 1, block_on_submit=False), 5) as pool:
        pool.submit(opened.wait)
        for _ in range(10):
            with pytest.raises(RejectedSubmission):
                pool.submit(abs, -1)
        assert pool.stats().outstanding == 1
        opened.set()
