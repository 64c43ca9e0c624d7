"""A user's program, for type checkers: `make typing`.

It uses every public name of weirpool, with what may be given to it and what comes out. A comment that ignores an error
asserts that there is one: mypy and pyright complain of comments that they do not need.
"""

import asyncio
import multiprocessing
import pickle
import queue
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import assert_type

import weirpool
from weirpool import (
    AUTO_BACKLOG,
    Advice,
    BlockingSubmitWarning,
    BoundedProcessPoolExecutor,
    BoundedThreadPoolExecutor,
    Failure,
    Feeder,
    FeederStats,
    Percentiles,
    ProcessPoolExecutor,
    RejectedSubmission,
    Results,
    Stats,
    SubmitTimeout,
    TaskTimeout,
    ThreadPoolExecutor,
    WorkerDied,
    WorkerStats,
    advise,
    bounded,
)


def square(number: int) -> int:
    return number * number


def describe(name: str, *, size: float = 1.0) -> str:
    return f"{name} {size}"


def set_up(path: str, level: int) -> None:
    print(path, level)


# ---- Making executors ----------------------------------------------------------------------------


def make() -> None:
    context = multiprocessing.get_context("spawn")
    ProcessPoolExecutor()
    ProcessPoolExecutor(4, context, set_up, ("a", 1), max_tasks_per_child=10)
    ProcessPoolExecutor(max_workers=None, mp_context=None, initializer=None, initargs=(), max_tasks_per_child=None)
    ProcessPoolExecutor(adaptive_bound=True)
    BoundedProcessPoolExecutor(True, adaptive_bound=True)
    ProcessPoolExecutor(pickler="cloudpickle")
    ProcessPoolExecutor(pickler=pickle)
    BoundedProcessPoolExecutor()
    BoundedProcessPoolExecutor(16, 4, context, set_up, ("a", 1), max_tasks_per_child=10)
    BoundedProcessPoolExecutor(
        max_queue_size=True,
        max_workers=None,
        mp_context=None,
        initializer=None,
        initargs=(),
        max_tasks_per_child=None,
        pickler=None,
    )
    BoundedProcessPoolExecutor(None, max_workers=4)
    ProcessPoolExecutor(4, max_submit_backlog=AUTO_BACKLOG, submit_backlog_timeout=1.5, max_bytes=10**9)
    ProcessPoolExecutor(4, max_submit_backlog=8, block_on_submit=False)
    ProcessPoolExecutor(4, on_worker_death="replace", max_worker_memory=10**9)
    BoundedProcessPoolExecutor(16, on_worker_death="break", max_worker_memory=None)
    BoundedProcessPoolExecutor(
        16, 8, max_submit_backlog=True, submit_backlog_timeout=None, block_on_submit=True, max_bytes=None
    )


def make_of_threads() -> None:
    ThreadPoolExecutor()
    ThreadPoolExecutor(4, "name", set_up, ("a", 1), max_submit_backlog=True, submit_backlog_timeout=1.5)
    BoundedThreadPoolExecutor(16, 4, "name", set_up, ("a", 1), block_on_submit=False)
    BoundedThreadPoolExecutor(max_bytes=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with BoundedThreadPoolExecutor(True, max_workers=None) as pool:
        assert_type(pool, BoundedThreadPoolExecutor)
        assert_type(pool.submit(square, 1), Future[int])
        assert_type(pool.map(square, [1, 2]), Results[int])
        assert_type(pool.stats(), Stats)


def make_over_others(executor: Executor) -> None:
    bounded(executor, None)
    bounded(executor, workers=lambda: 4, block_on_submit=False)
    bounded(executor, "8")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with bounded(executor, 16, workers=8, submit_timeout=1.5) as pool:
        assert_type(pool.submit(square, 1), Future[int])
        assert_type(pool.map(square, [1, 2], buffersize=2), Results[int])
        assert_type(pool.stats(), Stats)
        pool.shutdown(wait=False, cancel_futures=True)


def make_wrongly() -> None:
    ProcessPoolExecutor("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ProcessPoolExecutor(4, "spawn")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ProcessPoolExecutor(max_queue_size=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ProcessPoolExecutor(4, None, None, (), 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ProcessPoolExecutor(on_worker_death="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ProcessPoolExecutor(max_worker_memory="1G")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ProcessPoolExecutor(pickler=4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BoundedProcessPoolExecutor(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---- Submitting ----------------------------------------------------------------------------------


def submit(pool: BoundedProcessPoolExecutor) -> None:
    assert_type(pool.submit(square, 1), weirpool.Future[int])
    assert_type(pool.submit(describe, "a", size=2), weirpool.Future[str])
    assert_type(pool.submit(set_up, "a", 1), weirpool.Future[None])
    assert_type(pool.submit(square, 1).result(), int)
    standard: Future[int] = pool.submit(square, 1)
    print(standard)


async def submit_with_options(pool: ProcessPoolExecutor) -> None:
    careful = pool.with_options(timeout=1.5, retries=2)
    assert_type(careful.submit(square, 1), weirpool.Future[int])
    assert_type(careful.map(square, [1, 2], chunksize="auto"), Results[int])
    assert_type(careful.map_unordered(square, [1, 2]), Results[int])
    assert_type(await careful.asubmit(square, 1), asyncio.Future[int])
    assert_type(await careful.arun(describe, "a", size=2), str)
    assert_type([text async for text in careful.amap(describe, names())], list[str])
    assert_type(careful.with_options(timeout=None).submit(square, 1).cancel(force=True), bool)
    careful.submit(square, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.with_options(1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.with_options(retries=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    takes_any(careful).cancel(force=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    try:
        careful.submit(square, 1).result()
    except TaskTimeout as error:
        late: TimeoutError = error
        assert_type(error.seconds + error.attempts, float)
        print(late)
    except WorkerDied as died:
        print(died.pid)


def submit_or_leave_it(pool: ProcessPoolExecutor) -> Future[int] | None:
    try:
        return pool.submit(square, 1)
    except SubmitTimeout as error:
        late: TimeoutError = error
        print(late)
    except RejectedSubmission as error:
        full: queue.Full = error
        print(full)
    return None


def submit_wrongly(pool: ProcessPoolExecutor) -> None:
    pool.submit(square, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.submit(square)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.submit(square, 1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.submit(describe, "a", weight=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.submit(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    text: str = pool.submit(square, 1).result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)


def map_all(pool: ProcessPoolExecutor) -> None:
    assert_type(pool.map(square, [1, 2]), Results[int])
    assert_type(pool.map(pow, [1, 2], [3, 4], timeout=1.5, chunksize=10, buffersize=4), Results[int])
    assert_type(list(pool.map(describe, iter("abc"), timeout=None, buffersize=None)), list[str])
    assert_type(pool.map_unordered(square, [1, 2], timeout=1, chunksize="auto", buffersize=4), Results[int])
    results: Iterator[int] = pool.map(square, [1, 2], chunksize="auto")
    print(next(results))
    assert_type(pool.map(square, [1]).close(), None)


def map_wrongly(pool: ProcessPoolExecutor) -> None:
    pool.map(square, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.map(square, [1], chunksize="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.map(square, [1], buffer=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# ---- Futures -------------------------------------------------------------------------------------


def read(future: Future[int]) -> None:
    assert_type(future.result(timeout=1), int)
    assert_type(future.exception(timeout=None), BaseException | None)
    assert_type(future.done() or future.running() or future.cancelled() or future.cancel(), bool)
    future.add_done_callback(print_result)
    future.add_done_callback(fn=print_result)
    future.add_done_callback(print_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def print_result(done: Future[int]) -> None:
    print(done.result() + 1)


def print_text(done: Future[str]) -> None:
    print(done.result().upper())


def wait_for_all(pool: ProcessPoolExecutor) -> None:
    futures = [pool.submit(square, number) for number in range(10)]
    assert_type(wait(futures).done, set[Future[int]])
    assert_type([future.result() for future in as_completed(futures)], list[int])
    assert_type(weirpool.as_completed(futures, timeout=1, buffersize=5), Results[Future[int]])
    lazy = weirpool.as_completed(pool.submit(describe, name) for name in "abc")
    assert_type([future.result() for future in lazy], list[str])


async def wait_in_a_loop(pool: ProcessPoolExecutor) -> None:
    assert_type(await asyncio.wrap_future(pool.submit(square, 1)), int)
    assert_type(await asyncio.get_running_loop().run_in_executor(pool, square, 1), int)


async def await_room(pool: ProcessPoolExecutor) -> None:
    assert_type(await pool.asubmit(square, 1), asyncio.Future[int])
    assert_type(await pool.arun(describe, "a", size=2), str)
    assert_type([result async for result in pool.amap(square, [1, 2])], list[int])
    assert_type([text async for text in pool.amap(describe, names(), ordered=False, buffersize=4)], list[str])
    await pool.amap(square, [1], buffersize=None).aclose()
    async with BoundedProcessPoolExecutor(4) as bounded:
        assert_type(bounded, BoundedProcessPoolExecutor)
    warnings.simplefilter("error", BlockingSubmitWarning)


async def names() -> AsyncIterator[str]:
    yield "a"


async def await_room_wrongly(pool: ProcessPoolExecutor) -> None:
    await pool.asubmit(square, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pool.arun(square)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.amap(square, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---- Ending, and numbers -------------------------------------------------------------------------


def end() -> None:
    with BoundedProcessPoolExecutor(True) as bounded:
        assert_type(bounded, BoundedProcessPoolExecutor)
    with ProcessPoolExecutor() as pool:
        assert_type(pool, ProcessPoolExecutor)
        pool.shutdown()
        pool.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(True, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    try:
        pool.submit(square, 1)
    except (RuntimeError, BrokenProcessPool) as error:
        print(error)
    assert_type(pool.worker_pids(), tuple[int, ...])
    assert_type(pool.terminate_workers(), None)
    assert_type(pool.kill_workers(), None)


def explain(error: BrokenProcessPool) -> None:
    cause = error.__cause__
    if isinstance(cause, WorkerDied):
        assert_type(cause.pid + cause.exitcode + cause.attempts, int)
        assert_type(cause.signal, str | None)


def look(pool: ProcessPoolExecutor) -> None:
    stats = pool.stats()
    assert_type(stats, Stats)
    assert_type(stats.outstanding + stats.waiting + stats.running, int)
    assert_type(stats.blocked_producers, int)
    assert_type(stats.blocked_seconds, float)
    assert_type(stats.admitted_over_bound + stats.peak_outstanding, int)
    assert_type(stats.submitted + stats.finished, int)
    assert_type(stats.completed + stats.failed + stats.cancelled + stats.retried + stats.rejected, int)
    assert_type(stats.stopped + stats.workers_died + stats.bytes_held + stats.segment_bytes, int)
    assert_type(stats.engine, str)
    assert_type(stats.bound, int | None)
    assert_type(stats.wait, Percentiles)
    assert_type(stats.run.p50 + stats.run.p95 + stats.refill_lag.p99 + stats.run.total, float)
    assert_type(stats.run.count, int)
    assert_type(stats.occupancy + stats.tasks_per_second, float)
    assert_type(stats.workers, tuple[WorkerStats, ...])
    assert_type([worker.pid + worker.rss + worker.tasks for worker in stats.workers], list[int])
    assert_type([worker.busy_seconds for worker in stats.workers], list[float])
    assert_type(stats.advice, Advice | None)
    assert_type(Stats(engine="mine", workers=(), run=Percentiles(p50=1.0)), Stats)
    assert_type(weirpool.__version__, str)
    chosen = advise(run_p50=0.1, run_p95=0.2, workers=8, refill_lag=None)
    assert_type(chosen, Advice)
    assert_type(chosen.bound + chosen.chunksize, int)
    assert_type(chosen.reason, str)
    advise(0.1, 0.2, 8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stats.running = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# ---- Feeding -------------------------------------------------------------------------------------


def keep(number: int, result: int) -> None:
    print(number, result)


def feed(executor: Executor) -> None:
    with Feeder(executor, square, maxsize=4, retries=2, on_result=keep) as feeder:
        assert_type(feeder, Feeder[int, int])
        assert_type(feeder.put(1, timeout=0.5), None)
        feeder.put(item=2)
        feeder.put("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(feeder.close(), None)
    Feeder(executor, square, maxsize=True)
    Feeder(executor, square, maxsize=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(feeder.failures, tuple[Failure[int], ...])
    for failure in feeder.failures:
        assert_type(failure.item + failure.attempts, int)
        assert_type(failure.exception, BaseException)
    stats = feeder.stats()
    assert_type(stats, FeederStats)
    assert_type(stats.accepted + stats.outstanding + stats.succeeded + stats.failed + stats.retried, int)
    assert_type(stats.blocked_producers + stats.admitted_over_bound + stats.peak_outstanding, int)
    assert_type(stats.blocked_seconds, float)


# ---- In place of the standard classes ------------------------------------------------------------


def takes_any(executor: Executor) -> Future[int]:
    return executor.submit(square, 1)


class Own(ProcessPoolExecutor):
    """With what it needs to be made put down once."""

    def __init__(self, size: int) -> None:
        super().__init__(max_workers=size)


def drop_in() -> None:
    factories: list[Callable[[], Executor]] = [ProcessPoolExecutor, BoundedProcessPoolExecutor, lambda: Own(2)]
    for factory in factories:
        with factory() as executor:
            assert_type(takes_any(executor), Future[int])
