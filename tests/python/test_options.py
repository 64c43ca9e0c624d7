"""with_options(timeout=, retries=) and cancel(force=True): which tasks are stopped or run again, and what it costs."""

import asyncio
import contextlib
import functools
import math
import os
import pickle
import random
import signal
import threading
import time
import zlib
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import PATIENCE, Gate, Pools, Threads, in_forked_child, is_gone, wait_until, worker_pids

import weirpool

LIMIT = 0.5  # seconds for what never ends by itself


@pytest.fixture(params=["forkserver", "spawn"])
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def replacing(pools: Pools, bound: int | None = None, workers: int = 2, method: str = "forkserver", **more: Any) -> Any:
    return pools.bounded(bound, workers, method, on_worker_death="replace", **more)


def attempts_in(folder: Path) -> int:
    return sum(name.startswith("attempt-") for name in os.listdir(folder))


def settle(pool: Any) -> Any:
    """When every permit is back: the numbers, which are sound."""
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")
    pool._check()
    return pool.stats()


# ---- What is asked for ---------------------------------------------------------------------------


def test_options_need_a_pool_that_replaces_workers(pools: Pools) -> None:
    with pytest.raises(ValueError, match='on_worker_death="replace"'):
        pools.unbounded(1).with_options(retries=1)


@pytest.mark.parametrize("bad", [0, -1, True, math.nan, "1", 0.0], ids=repr)
def test_bad_timeouts_are_refused(pools: Pools, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be None or a number of seconds, more than 0$"):
        replacing(pools).with_options(timeout=bad)


@pytest.mark.parametrize("bad", [-1, True, 1.0, None, "1"], ids=repr)
def test_bad_retries_are_refused(pools: Pools, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^retries must be an int >= 0$"):
        replacing(pools).with_options(retries=bad)


@pytest.mark.parametrize("timeout", [1e-9, 1e300, math.inf, 10**30, None])
def test_extreme_numbers(pools: Pools, timeout: float | None) -> None:
    future = replacing(pools).with_options(timeout=timeout, retries=10**30).submit(tasks.square, 3)
    if timeout == 1e-9:
        assert future.cancel(force=True) or future.result(PATIENCE) == 9
    else:
        assert future.result(PATIENCE) == 9


def test_options_are_replaced_and_not_added(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools, workers=1)
    again = pool.with_options(retries=5).with_options(timeout=PATIENCE)
    assert isinstance(again.submit(tasks.die).exception(PATIENCE), weirpool.WorkerDied)
    assert isinstance(pool.submit(tasks.die_before, 2, tmp_path).exception(PATIENCE), weirpool.WorkerDied)
    pool.submit(tasks.nothing).result(PATIENCE)  # else three died in a row
    assert again.with_options(retries=1).submit(tasks.die_before, 3, tmp_path, 7).result(PATIENCE) == 7


def test_its_shutdown_is_not_the_pools(pools: Pools) -> None:
    pool = replacing(pools)
    with pool.with_options(retries=1) as executor:
        future = executor.submit(tasks.square, 3)
    assert executor.submit(tasks.square, 4).result(PATIENCE) == 16
    assert future.result(PATIENCE) == 9
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(tasks.nothing)


def test_it_keeps_the_pool(pools: Pools) -> None:
    executor = weirpool.ProcessPoolExecutor(1, on_worker_death="replace").with_options(retries=1)
    assert executor.submit(tasks.square, 3).result(PATIENCE) == 9
    executor._pool.shutdown()


# ---- Time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [(time.sleep, 3600), (tasks.never_return_to_the_interpreter,), (tasks.stop_myself,)],
    ids=["asleep", "busy", "stopped"],
)
def test_a_task_over_its_time_is_stopped_and_no_other(
    pools: Pools, gate: Gate, method: str, call: tuple[Any, ...]
) -> None:
    pool = replacing(pools, workers=3, method=method)
    neighbours = [pool.submit(tasks.hold, gate.folder, number) for number in range(2)]
    gate.wait_started(2)
    others = worker_pids(pool)
    error = pool.with_options(timeout=LIMIT).submit(*call).exception(PATIENCE)
    assert isinstance(error, weirpool.TaskTimeout)
    assert isinstance(error, TimeoutError)
    assert (error.seconds, error.attempts) == (LIMIT, 1)
    assert str(error) == "the task ran longer than the 0.5 s that it was given"
    gate.open()
    assert [future.result(PATIENCE) for future in neighbours] == [0, 1]
    assert not any(is_gone(pid) for pid in others)
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    stats = settle(pool)
    assert (stats.stopped, stats.workers_died, stats.failed, stats.retried) == (1, 0, 1, 0)


def test_time_counts_from_the_start(pools: Pools, gate: Gate) -> None:
    """Waiting does not count."""
    pool = replacing(pools, workers=1)
    held = pool.submit(tasks.hold, gate.folder, 1)
    gate.wait_started(1)
    limited = pool.with_options(timeout=3).submit(tasks.square, 3)
    time.sleep(3.2)
    assert limited.running() is False
    gate.open()
    assert held.result(PATIENCE) == 1
    assert limited.result(PATIENCE) == 9


def test_each_attempt_has_its_time(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools, workers=1)
    executor = pool.with_options(timeout=2, retries=2)
    assert executor.submit(tasks.nap_before, 3, tmp_path, 7).result(PATIENCE) == 7
    assert attempts_in(tmp_path) == 3
    stats = settle(pool)
    assert (stats.retried, stats.completed, stats.failed, stats.workers_died) == (2, 1, 0, 0)


def test_the_error_counts_attempts(pools: Pools, method: str) -> None:
    pool = replacing(pools, workers=1, method=method)
    error = pool.with_options(timeout=LIMIT, retries=2).submit(time.sleep, 3600).exception(PATIENCE)
    assert isinstance(error, weirpool.TaskTimeout)
    assert error.attempts == 3
    assert str(error).endswith("0.5 s that it was given, at attempt 3")


def test_many_timeouts_do_not_break_the_pool(pools: Pools) -> None:
    pool = replacing(pools, workers=2)
    futures = [pool.with_options(timeout=0.05).submit(time.sleep, 3600) for _ in range(6)]
    assert {type(future.exception(PATIENCE)) for future in futures} == {weirpool.TaskTimeout}
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9


@pytest.mark.race
def test_tasks_that_take_about_their_time(pools: Pools) -> None:
    """Each ends in one way, and its neighbours as they should."""
    pool = replacing(pools, 6, 3)
    limited = pool.with_options(timeout=0.05)
    futures = []
    for number in range(20):
        futures.append(limited.submit(tasks.nap, 0.04 + random.random() * 0.02))
        futures.append(pool.submit(tasks.echo, number))
    for index, future in enumerate(futures):
        error = future.exception(PATIENCE)
        assert error is None or (index % 2 == 0 and isinstance(error, weirpool.TaskTimeout))
    assert [future.result() for future in futures[1::2]] == list(range(20))
    assert settle(pool).workers_died == 0


def test_a_task_timeout_can_be_pickled() -> None:
    error = weirpool.TaskTimeout(1.5, 3)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (weirpool.TaskTimeout, str(error), vars(error))


# ---- Retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [None, 1, 2])
def test_a_task_that_kills_its_worker_twice_succeeds_the_third_time(
    pools: Pools, method: str, tmp_path: Path, bound: int | None
) -> None:
    pool = replacing(pools, bound, min(2, bound or 2), method)
    future = pool.with_options(retries=2).submit(tasks.die_before, 3, tmp_path, "done")
    assert future.result(PATIENCE) == "done"
    assert attempts_in(tmp_path) == 3
    stats = settle(pool)
    assert (stats.submitted, stats.finished, stats.completed, stats.failed) == (1, 1, 1, 0)
    assert (stats.retried, stats.workers_died) == (2, 2)


def test_retries_run_out(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools)
    error = pool.with_options(retries=1).submit(tasks.die_before, 3, tmp_path).exception(PATIENCE)
    assert isinstance(error, weirpool.WorkerDied)
    assert (error.signal, error.attempts) == ("SIGKILL", 2)
    assert str(error).endswith("(SIGKILL), at attempt 2")
    assert attempts_in(tmp_path) == 2


def test_a_task_that_raises_is_not_run_again(pools: Pools, tmp_path: Path) -> None:
    executor = replacing(pools).with_options(retries=3)
    call = functools.partial(tasks.fail_with, tasks.OddError, "no")
    assert isinstance(executor.submit(tasks.log_attempt, tmp_path, call).exception(PATIENCE), tasks.OddError)
    assert attempts_in(tmp_path) == 1


def _folders(tmp_path: Path, count: int) -> list[Path]:
    folders = [tmp_path / str(number) for number in range(count)]
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.mark.parametrize("size", [10, 3000, 300_000, 3_000_000])
@pytest.mark.parametrize(
    "bounds", [{"bound": 1}, {"bound": 2}, {"max_bytes": 1_000_000}, {"max_submit_backlog": 1}], ids=repr
)
def test_arguments_and_results_of_any_size_survive_retries(
    pools: Pools, threads: Threads, tmp_path: Path, bounds: dict[str, int], size: int
) -> None:
    """Among tasks that lose no worker."""
    pool = replacing(pools, workers=1, **bounds)
    executor = pool.with_options(retries=1)

    def work(folder: Path, attempt: int) -> bool:
        data = random.randbytes(size)
        return bool(executor.submit(tasks.die_before, attempt, folder, data).result(PATIENCE) == data)

    for number, folder in enumerate(_folders(tmp_path, 6)):
        threads.start(work, folder, 2 if number < 2 else 1)
    assert threads.join() == [True] * 6
    assert threads.errors == []
    stats = settle(pool)
    assert (stats.retried, stats.failed, stats.bytes_held) == (2, 0, 0)


@pytest.mark.race
def test_kills_at_random_are_made_up_for(pools: Pools, threads: Threads) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pool = replacing(pools, 5, 3)
    executor = pool.with_options(retries=1000)
    payloads = [random.Random(seed + size).randbytes(size) for size in (10, 5000, 400_000, 2_000_000)]
    checks = [zlib.crc32(payload) for payload in payloads]
    told: list[Future[Any]] = []

    def produce(first: int) -> None:
        for number in range(first, first + 60):
            future = executor.submit(tasks.checked, payloads[number % 4], checks[number % 4])
            if number % 3 == 0:
                future.add_done_callback(told.append)
            assert future.result(PATIENCE) == payloads[number % 4]

    for first in range(4):
        threads.start(produce, first)
    kills = 0
    while any(thread.is_alive() for thread in threads.threads) and kills < 8:
        finished = pool.stats().completed
        wait_until(
            lambda finished=finished: pool.stats().completed > finished + 5 or not threads_alive(threads), "work"
        )
        time.sleep(rng.random() * 0.02)
        with contextlib.suppress(ProcessLookupError, IndexError):  # the last one may not have been forgotten yet
            os.kill(rng.choice(worker_pids(pool)), rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
            kills += 1
    assert len(threads.join()) == 4
    assert threads.errors == []
    stats = settle(pool)
    assert (stats.submitted, stats.completed, stats.failed) == (240, 240, 0)
    assert len(told) == 80
    assert stats.retried <= kills


def threads_alive(threads: Threads) -> bool:
    return any(thread.is_alive() for thread in threads.threads)


def test_callbacks_of_a_retried_task_run_once(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools, 1, 1)
    seen: list[Any] = []
    future = pool.with_options(retries=2).submit(tasks.die_before, 3, tmp_path, 7)
    future.add_done_callback(lambda done: seen.append(done.result()))
    assert future.result(PATIENCE) == 7
    settle(pool)
    assert seen == [7]


def test_a_retried_task_that_waits_again_can_be_cancelled(pools: Pools, gate: Gate, tmp_path: Path) -> None:
    pool = replacing(pools, None, 1)
    dying = pool.with_options(retries=1).submit(tasks.note_and_hold, tmp_path, gate.folder)
    gate.wait_started(1)
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    gate.wait_started(2)
    assert dying.running()
    assert not dying.cancel()
    gate.open()
    assert dying.result(PATIENCE) is None


# ---- Every way to submit -------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, "auto"])
@pytest.mark.parametrize("name", ["map", "map_unordered"])
@pytest.mark.parametrize("bound", [None, 2])
def test_maps_run_again(pools: Pools, tmp_path: Path, name: str, chunksize: Any, bound: int | None) -> None:
    pool = replacing(pools, bound)
    folders = _folders(tmp_path, 4)
    executor = pool.with_options(retries=4)
    attempts = [1, 2, 1, 2]
    results = getattr(executor, name)(tasks.die_before, attempts, folders, range(4), chunksize=chunksize)
    assert sorted(results) == [0, 1, 2, 3]
    assert settle(pool).workers_died == 2


def test_maps_raise_timeouts_at_their_place(pools: Pools) -> None:
    pool = replacing(pools, 4)
    results = pool.with_options(timeout=1.5).map(time.sleep, [0, 3600, 0])
    assert next(results) is None
    with pytest.raises(weirpool.TaskTimeout):
        next(results)


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("bounds", [{"bound": 2}, {"max_bytes": 300_000}, {}], ids=repr)
def test_coroutines(pools: Pools, tmp_path: Path, bounds: dict[str, int], size: int) -> None:
    pool = replacing(pools, **bounds)
    folders = _folders(tmp_path, 6)
    payload = random.randbytes(size)

    async def run() -> list[Any]:
        executor = pool.with_options(timeout=PATIENCE, retries=5)
        calls = [
            executor.arun(tasks.die_before, 2 if number in (1, 4) else 1, folder, (number, payload))
            for number, folder in enumerate(folders)
        ]
        with pytest.raises(weirpool.TaskTimeout):
            await pool.with_options(timeout=0.1).arun(time.sleep, 3600)
        return await asyncio.gather(*calls)

    assert asyncio.run(run()) == [(number, payload) for number in range(6)]
    assert settle(pool).workers_died == 2


def test_an_asynchronous_map(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools, 2)
    call = functools.partial(tasks.die_before, 2)

    async def run() -> int:
        executor = pool.with_options(retries=1)
        async with executor:
            return len([None async for _ in executor.amap(call, _folders(tmp_path, 2))])

    assert asyncio.run(run()) == 2
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9


def test_other_executors_over_it(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools)
    first, second = _folders(tmp_path, 2)
    with weirpool.bounded(pool.with_options(retries=1), True) as executor:
        assert executor.submit(tasks.die_before, 2, first, 7).result(PATIENCE) == 7
    with weirpool.Feeder(pool.with_options(retries=1), functools.partial(tasks.die_before, 2)) as feeder:
        feeder.put(second)
    assert feeder.failures == ()
    assert feeder.stats().retried == 0


@pytest.mark.parametrize("over", [lambda executor: executor, weirpool.bounded], ids=["itself", "bounded"])
def test_a_callback_that_puts_into_a_feeder_over_it(pools: Pools, gate: Gate, over: Any) -> None:
    """It is run by the thread that would make the room for which it waited."""
    pool = replacing(pools)
    put = threading.Event()
    with weirpool.Feeder(over(pool.with_options(retries=1)), tasks.hold, maxsize=1) as feeder:
        feeder.put(gate.folder)
        gate.wait_started(1)
        other = pool.with_options(timeout=LIMIT).submit(time.sleep, 3600)
        other.add_done_callback(lambda _: [feeder.put(gate.folder), put.set()])
        assert put.wait(PATIENCE)
        gate.open()
    assert (feeder.stats().succeeded, feeder.stats().admitted_over_bound) == (2, 1)


def test_a_timeout_frees_the_room_of_a_blocked_producer(pools: Pools, threads: Threads) -> None:
    pool = replacing(pools, 1, 1)
    stuck = pool.with_options(timeout=LIMIT).submit(time.sleep, 3600)
    threads.start(lambda: pool.submit(tasks.square, 3).result(PATIENCE))
    assert threads.join() == [9]
    assert isinstance(stuck.exception(PATIENCE), weirpool.TaskTimeout)


def test_timeouts_while_the_collector_is_in_a_callback(pools: Pools, gate: Gate) -> None:
    """Who waits for the result finds the end, although the thread that tells is busy."""
    pool = replacing(pools)
    release = threading.Event()
    entered = threading.Event()

    def block(_: Any) -> None:
        entered.set()
        release.wait(PATIENCE)

    limited = pool.with_options(timeout=LIMIT).submit(time.sleep, 3600)
    held = pool.submit(tasks.hold, gate.folder)  # not done yet: else the callback runs right here
    held.add_done_callback(block)
    gate.open()
    assert entered.wait(PATIENCE)
    try:
        assert isinstance(limited.exception(PATIENCE), weirpool.TaskTimeout)
    finally:
        release.set()


# ---- cancel(force=True) --------------------------------------------------------------------------


def test_force_needs_a_pool_that_replaces_workers(pools: Pools) -> None:
    pool = pools.unbounded(1)
    future = pool.submit(tasks.nothing)
    for _ in range(2):
        with pytest.raises(ValueError, match='on_worker_death="replace"'):
            future.cancel(force=True)
        future.result(PATIENCE)
    with pytest.raises(ValueError):
        weirpool.Future().cancel(force=True)
    assert weirpool.Future().cancel(force=False)
    with pytest.raises(TypeError):
        future.cancel(True)


@pytest.mark.parametrize(
    "call",
    [(time.sleep, 3600), (tasks.never_return_to_the_interpreter,), (tasks.stop_myself,)],
    ids=["asleep", "busy", "stopped"],
)
def test_a_running_task_is_stopped(pools: Pools, gate: Gate, method: str, call: tuple[Any, ...]) -> None:
    pool = replacing(pools, 3, 2, method)
    neighbour = pool.submit(tasks.hold, gate.folder, 7)
    gate.wait_started(1)
    future = pool.with_options(retries=3).submit(*call)
    wait_until(future.running, "it runs")
    told: list[bool] = []
    future.add_done_callback(lambda done: told.append(done.cancelled()))
    assert future.cancel() is False
    assert future.cancel(force=True) is True
    assert (future.cancelled(), future.done(), future.running(), told) == (True, True, False, [True])
    with pytest.raises(CancelledError):
        future.result(0)
    assert wait([future], 0).done == {future}
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    gate.open()
    assert neighbour.result(PATIENCE) == 7
    stats = settle(pool)
    assert (stats.stopped, stats.cancelled, stats.workers_died, stats.retried) == (1, 1, 0, 0)


def test_tasks_that_wait_or_have_ended(pools: Pools, gate: Gate) -> None:
    pool = replacing(pools, workers=1)
    ended = pool.submit(tasks.square, 3)
    ended.result(PATIENCE)
    held = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    waiting = pool.submit(tasks.hold, gate.folder)
    assert waiting.cancel(force=True)
    assert waiting.cancel(force=True)
    assert not ended.cancel(force=True)
    gate.open()
    assert held.result(PATIENCE) is None
    assert not held.cancel(force=True)
    assert gate.started == 1
    assert settle(pool).cancelled == 1


def test_force_from_a_callback(pools: Pools, gate: Gate) -> None:
    pool = replacing(pools, 3, 2)
    victim = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    answers: list[bool] = []
    other = pool.submit(tasks.nothing)
    other.add_done_callback(lambda _: answers.append(victim.cancel(force=True)))
    wait_until(lambda: answers, "the callback has run")
    assert answers == [True]
    assert victim.cancelled()
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9


@pytest.mark.race
def test_force_from_several_threads_at_once(pools: Pools, threads: Threads, gate: Gate) -> None:
    pool = replacing(pools, 2, 2)
    told: list[Future[Any]] = []
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    gate.wait_started(2)
    for future in futures:
        future.add_done_callback(told.append)
    start = threading.Barrier(8)

    def force(number: int) -> bool:
        start.wait()
        return bool(futures[number % 2].cancel(force=True))

    for number in range(8):
        threads.start(force, number)
    assert threads.join() == [True] * 8
    assert sorted(map(id, told)) == sorted(map(id, futures))
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    assert settle(pool).cancelled == 2


@pytest.mark.race
def test_force_while_tasks_end(pools: Pools, threads: Threads) -> None:
    """True means cancelled, False a result; whoever waits for the same future learns the same."""
    pool = replacing(pools, 4, 2)
    for _ in range(12):
        future = pool.submit(tasks.nap, random.random() * 0.01)
        waiter = Threads()
        waiter.start(lambda future=future: future.exception(PATIENCE))
        time.sleep(random.random() * 0.012)
        if future.cancel(force=True):
            assert future.cancelled()
            with pytest.raises(CancelledError):
                future.result(0)
        else:
            assert future.result(PATIENCE) < 0.01
        waiter.join()
        assert [type(error) for error in waiter.errors] == ([CancelledError] if future.cancelled() else [])
    assert settle(pool).workers_died == 0


@pytest.mark.race
def test_force_while_workers_are_killed(pools: Pools) -> None:
    pool = replacing(pools, 6, 3)
    executor = pool.with_options(timeout=0.03, retries=1)
    for _ in range(4):
        futures = [executor.submit(tasks.nap, random.random() * 0.04) for _ in range(6)]
        for pid in worker_pids(pool)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for future in futures[::2]:
            future.cancel(force=True)
        for future in futures:
            wait([future], PATIENCE)
            if not future.cancelled():
                error = future.exception(0)
                assert error is None or isinstance(error, weirpool.TaskTimeout | weirpool.WorkerDied)
        assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    settle(pool)


@pytest.mark.parametrize("size", [300_000, 30_000_000])
def test_force_while_a_result_streams(pools: Pools, gate: Gate, size: int) -> None:
    pool = replacing(pools, 2, 1)
    for number in range(4):
        future = pool.submit(tasks.start_then_return, gate.folder, size)
        gate.wait_started(number + 1)
        assert future.cancel(force=True) or future.result(PATIENCE) == bytes(size)
        assert pool.submit(tasks.zeros, size).result(PATIENCE) == bytes(size)
    settle(pool)


def test_a_task_that_was_stopped_in_an_event_loop(pools: Pools) -> None:
    pool = replacing(pools)

    async def run() -> None:
        future = pool.submit(time.sleep, 3600)
        wrapped = asyncio.wrap_future(future)
        while not future.running():
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(future.cancel, force=True)
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(run())


def test_force_in_a_forked_child_is_refused(pools: Pools, gate: Gate) -> None:
    pool = replacing(pools)
    future = pool.submit(tasks.hold, gate.folder, 7)
    gate.wait_started(1)
    assert in_forked_child(lambda: future.cancel(force=True)).startswith("RuntimeError: this pool belongs to")
    gate.open()
    assert future.result(PATIENCE) == 7


def test_shutdown_does_not_wait_for_a_task_that_is_stopped(pools: Pools, threads: Threads, gate: Gate) -> None:
    pool = replacing(pools, workers=1)
    future = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    waiting = [pool.submit(tasks.square, number) for number in range(3)]
    threads.start(pool.shutdown)
    wait_until(lambda: pool._shutdown_thread, "it is being shut down")
    assert future.cancel(force=True)
    assert [one.result(PATIENCE) for one in waiting] == [0, 1, 4]
    threads.join()
