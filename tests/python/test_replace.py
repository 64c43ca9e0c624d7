"""Pools that replace their workers: what a death costs, and what it does not."""

import contextlib
import functools
import gc
import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tasks
from support import PATIENCE, Gate, Pools, Script, Threads, is_gone, start_workers, wait_until, worker_pids

import weirpool
from weirpool._crew import Crew

METHODS = ("forkserver", "spawn")
IN_A_ROW = "3 workers died in a row without finishing a task"


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def replacing(pools: Pools, bound: int | None = None, workers: int = 2, method: str = "forkserver", **more: Any) -> Any:
    return pools.bounded(bound, workers, method, on_worker_death="replace", **more)


def errors_of(futures: list[Future[Any]]) -> list[BaseException | None]:
    return [future.exception(PATIENCE) for future in futures]


def check_crew(pool: Any, folder: Path, count: int) -> None:
    """The pool runs as many tasks at once as it did before."""
    gate = Gate(folder)
    futures = [pool.submit(tasks.hold, gate.folder, number) for number in range(count)]
    gate.wait_started(count)
    assert len(worker_pids(pool)) == count
    gate.open()
    assert [future.result(PATIENCE) for future in futures] == list(range(count))
    pool._check()


# ---- What is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [weirpool.ProcessPoolExecutor, weirpool.BoundedProcessPoolExecutor])
@pytest.mark.parametrize("bad", ["Replace", "restart", "", True, None, 1, ["replace"]], ids=repr)
def test_anything_but_the_two_words_is_refused(cls: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match=r'^on_worker_death must be "break" or "replace"$'):
        cls(on_worker_death=bad)


@pytest.mark.parametrize("cls", [weirpool.ProcessPoolExecutor, weirpool.BoundedProcessPoolExecutor])
@pytest.mark.parametrize("bad", [0, -1, True, False, 1e9, "1G"], ids=repr)
def test_bad_memory_limits_are_refused(cls: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_worker_memory must be None or a positive int$"):
        cls(max_worker_memory=bad)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"on_worker_death": "replace"}, "on_worker_death='replace'"),
        ({"max_worker_memory": 10**9}, "max_worker_memory"),
    ],
)
def test_fork_is_refused_in_the_standard_words(option: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError) as caught:
        weirpool.ProcessPoolExecutor(1, multiprocessing.get_context("fork"), **option)
    standard = "is incompatible with the 'fork' multiprocessing start method; supply a different mp_context."
    assert str(caught.value) == f"{name} {standard}"


@pytest.mark.parametrize("option", [{"on_worker_death": "replace"}, {"max_worker_memory": 10**9}])
def test_forkserver_is_chosen_where_nothing_is_said(option: dict[str, Any]) -> None:
    assert weirpool.ProcessPoolExecutor(1, **option)._mp_context.get_start_method() == "forkserver"


def test_break_changes_nothing(pools: Pools) -> None:
    pool = pools.unbounded(1, on_worker_death="break")
    assert pool._mp_context is multiprocessing.get_context()
    assert isinstance(pool.submit(tasks.die).exception(PATIENCE), BrokenProcessPool)


# ---- A death costs its task ----------------------------------------------------------------------


@pytest.mark.race
def test_a_killed_worker_costs_only_its_task(pools: Pools, gate: Gate, method: str, tmp_path: Path) -> None:
    pool = replacing(pools, workers=3, method=method)
    held = [pool.submit(tasks.hold, gate.folder, number) for number in range(3)]
    gate.wait_started(3)
    waiting = [pool.submit(tasks.square, number) for number in range(5)]
    victim = worker_pids(pool)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: any(future.done() for future in held), "its task ends")
    gate.open()
    (error,) = [error for error in errors_of(held) if error is not None]
    assert isinstance(error, weirpool.WorkerDied)
    assert (error.pid, error.exitcode, error.signal, error.attempts) == (victim, -9, "SIGKILL", 1)
    assert str(error) == f"worker process {victim} was killed by signal 9 (SIGKILL)"
    assert [future.result(PATIENCE) for future in waiting] == [0, 1, 4, 9, 16]
    check_crew(pool, tmp_path / "again", 3)
    stats = pool.stats()
    assert (stats.workers_died, stats.failed, stats.completed, stats.retried) == (1, 1, 10, 0)


@pytest.mark.parametrize(
    ("end", "exitcode", "name"),
    [
        ((tasks.leave, 3), 3, None),
        ((tasks.leave, 0), 0, None),
        ((tasks.kill_me, signal.SIGKILL), -9, "SIGKILL"),
        ((tasks.kill_me, signal.SIGSEGV), -11, "SIGSEGV"),
        ((tasks.kill_me, signal.SIGABRT), -6, "SIGABRT"),
        ((os.abort,), -6, "SIGABRT"),
    ],
)
def test_the_error_says_how_the_worker_ended(
    pools: Pools, method: str, end: tuple[Any, ...], exitcode: int, name: str | None
) -> None:
    pool = replacing(pools, workers=1, method=method)
    before = pool.submit(tasks.pid).result(PATIENCE)
    futures = [pool.submit(*end), pool.submit(tasks.pid)]
    error = futures[0].exception(PATIENCE)
    assert isinstance(error, weirpool.WorkerDied)
    assert (error.pid, error.exitcode, error.signal, error.attempts) == (before, exitcode, name, 1)
    assert futures[1].result(PATIENCE) != before


def test_leaving_by_sys_exit_is_an_exception_of_the_task(pools: Pools, method: str) -> None:
    pool = replacing(pools, workers=1, method=method)
    before = pool.submit(tasks.pid).result(PATIENCE)
    assert isinstance(pool.submit(tasks.fail_with, SystemExit, 3).exception(PATIENCE), SystemExit)
    assert pool.submit(tasks.pid).result(PATIENCE) == before


def test_the_reason_is_known_to_whoever_asks_and_whenever(pools: Pools, threads: Threads, method: str) -> None:
    pool = replacing(pools, workers=1, method=method)
    first, second = pool.submit(tasks.leave, 3), pool.submit(tasks.leave, 4)
    for _ in range(8):
        threads.start(first.exception)
    assert [error.exitcode for error in threads.join()] == [3] * 8
    assert pool.submit(tasks.nothing).result(PATIENCE) is None
    pool.shutdown()
    assert isinstance(error := second.exception(), weirpool.WorkerDied)
    assert error.exitcode == 4


def test_an_idle_worker_that_dies_costs_nothing(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools)
    check_crew(pool, tmp_path / "before", 2)
    for pid in worker_pids(pool):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pool.stats().workers_died == 2, "the deaths are seen")
    check_crew(pool, tmp_path / "after", 2)
    assert pool.stats().failed == 0


@pytest.mark.parametrize(
    "call", [(tasks.apply, tasks.DiesWhenRebuilt()), (tasks.dying_result, 3_000_000)], ids=["arguments", "result"]
)
def test_a_worker_that_dies_with_arguments_or_a_result_in_hand(pools: Pools, call: tuple[Any, ...]) -> None:
    pool = replacing(pools)
    for _ in range(3):
        assert isinstance(pool.submit(*call).exception(PATIENCE), weirpool.WorkerDied)
        data = random.randbytes(3_000_000)
        assert pool.submit(tasks.checked, data, zlib.crc32(data)).result(PATIENCE) == data


@pytest.mark.race
def test_killed_while_results_stream(pools: Pools, gate: Gate) -> None:
    """Whoever takes the place begins with an empty stream."""
    pool = replacing(pools)
    for size in (300_000, 5_000_000):
        before = gate.started
        futures = [pool.submit(tasks.start_then_return, gate.folder, size) for _ in range(4)]
        gate.wait_started(before + 1)
        os.kill(worker_pids(pool)[0], signal.SIGKILL)
        for future in futures:
            if future.exception(PATIENCE) is None:
                assert future.result() == bytes(size)
            else:
                assert isinstance(future.exception(), weirpool.WorkerDied)
        data = random.randbytes(size)
        rest = [pool.submit(tasks.checked, data, zlib.crc32(data)) for _ in range(6)]
        assert all(future.result(PATIENCE) == data for future in rest)
    pool._check()


def test_a_task_that_cannot_be_unpickled_there_fails_alone(pools: Pools, method: str) -> None:
    pool = replacing(pools, workers=1, method=method)
    before = pool.submit(tasks.pid).result(PATIENCE)
    for _ in range(4):
        error = pool.submit(tasks.echo, tasks.FailsWhenRebuilt()).exception(PATIENCE)
        assert isinstance(error, tasks.OddError)
    assert pool.submit(tasks.pid).result(PATIENCE) == before


def test_done_callbacks_run_once_and_may_submit(pools: Pools) -> None:
    pool = replacing(pools, 1, 1)
    seen: list[Future[Any]] = []
    more: list[Future[Any]] = []
    future = pool.submit(tasks.die)
    future.add_done_callback(seen.append)
    future.add_done_callback(lambda _: more.extend(pool.submit(tasks.square, number) for number in range(3)))
    wait_until(lambda: len(more) == 3, "the callback has submitted")
    assert [one.result(PATIENCE) for one in more] == [0, 1, 4]
    assert seen == [future]
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")


# ---- Producers -----------------------------------------------------------------------------------


@pytest.mark.race
def test_blocked_producers_and_one_kill(pools: Pools, gate: Gate, threads: Threads, method: str) -> None:
    pool = replacing(pools, 2, 2, method)
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    gate.wait_started(2)
    for number in range(12):
        threads.start(lambda number=number: pool.submit(tasks.square, number).result(PATIENCE))
    wait_until(lambda: pool.stats().blocked_producers == 12, "12 producers are blocked")
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    assert sorted(threads.join()) == [number * number for number in range(12)]
    gate.open()
    assert sorted(type(error).__name__ for error in errors_of(held)) == ["NoneType", "WorkerDied"]
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")


@pytest.mark.race
def test_blocked_producers_and_one_kill_in_a_pool_that_breaks(
    pools: Pools, gate: Gate, threads: Threads, start_method: str
) -> None:
    pool = pools.bounded(2, 2, start_method)
    start_workers(pool, gate, 2)
    for _ in range(12):
        threads.start(pool.submit, tasks.nothing)
    wait_until(lambda: pool.stats().blocked_producers == 12, "12 producers are blocked")
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    futures = threads.join()
    ends = [*threads.errors, *errors_of(futures)]
    assert len(ends) == 12
    for end in ends:
        assert isinstance(end, BrokenProcessPool)
        assert isinstance(end.__cause__, weirpool.WorkerDied)
        assert end.__cause__.signal == "SIGKILL"


def test_submitting_to_a_broken_pool_says_why(pools: Pools) -> None:
    pool = pools.bounded(2, 1)
    pool.submit(tasks.leave, 7).exception(PATIENCE)
    wait_until(lambda: pool._engine is None, "the pool has ended")
    for _ in range(2):
        with pytest.raises(BrokenProcessPool) as caught:
            pool.submit(tasks.nothing)
        assert isinstance(caught.value.__cause__, weirpool.WorkerDied)
        assert caught.value.__cause__.exitcode == 7


@pytest.mark.race
def test_kills_while_producers_come_and_go(pools: Pools, threads: Threads) -> None:
    """No quiet moment: each task ends once, by itself or with its worker, and every permit returns."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pool = replacing(pools, 4, 3)
    futures: list[tuple[int, Future[Any]]] = []
    told: list[Future[Any]] = []
    stop = threading.Event()

    def produce(first: int) -> None:
        for number in itertools.count(first, 8):
            if stop.is_set():
                return
            future = pool.submit(
                tasks.checked,
                bytes([number % 256]) * (number % 7 * 3000),
                zlib.crc32(bytes([number % 256]) * (number % 7 * 3000)),
            )
            futures.append((number, future))
            if number % 2:
                future.add_done_callback(told.append)

    for first in range(8):
        threads.start(produce, first)
    for _ in range(6):
        finished = pool.stats().completed
        wait_until(lambda finished=finished: pool.stats().completed > finished + 50, "the pool is busy")
        time.sleep(rng.random() * 0.02)
        with contextlib.suppress(ProcessLookupError):  # the last one may not have been forgotten yet
            os.kill(rng.choice(worker_pids(pool)), signal.SIGKILL)
    stop.set()
    threads.join()
    assert wait([future for _, future in futures], PATIENCE).not_done == set()
    for number, future in futures:
        error = future.exception()
        assert error is None or isinstance(error, weirpool.WorkerDied)
        assert error is not None or future.result() == bytes([number % 256]) * (number % 7 * 3000)
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")
    stats = pool.stats()
    assert len(told) == sum(number % 2 for number, _ in futures)
    assert stats.submitted == stats.finished == len(futures)
    assert stats.failed <= 6


# ---- Deaths in a row -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_three_deaths_in_a_row_break_the_pool(pools: Pools, gate: Gate, method: str, workers: int) -> None:
    pool = replacing(pools, workers=workers, method=method)
    dying = [pool.submit(tasks.die) for _ in range(4)]
    rest = [pool.submit(tasks.hold, gate.folder) for _ in range(3)]
    assert sum(isinstance(error, weirpool.WorkerDied) for error in errors_of(dying)) >= 3
    for end in [error for error in errors_of([*dying, *rest]) if not isinstance(error, weirpool.WorkerDied)]:
        assert isinstance(end, BrokenProcessPool)
        assert IN_A_ROW in str(end)
        assert isinstance(end.__cause__, weirpool.WorkerDied)
        assert end.__cause__.signal == "SIGKILL"
    assert {type(error) for error in errors_of(rest)} == {BrokenProcessPool}
    with pytest.raises(BrokenProcessPool, match=IN_A_ROW) as caught:
        pool.submit(tasks.nothing)
    assert isinstance(caught.value.__cause__, weirpool.WorkerDied)


def test_a_task_that_finishes_ends_the_row(pools: Pools) -> None:
    pool = replacing(pools, workers=1)
    for _ in range(3):
        for _ in range(2):
            assert isinstance(pool.submit(tasks.die).exception(PATIENCE), weirpool.WorkerDied)
        assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    assert pool.stats().workers_died == 6


def test_workers_that_die_while_they_start_are_a_row(pools: Pools, method: str) -> None:
    pool = replacing(pools, workers=1, method=method, initializer=tasks.leave, initargs=(5,))
    error = pool.submit(tasks.nothing).exception(PATIENCE)
    assert isinstance(error, BrokenProcessPool)
    assert IN_A_ROW in str(error)
    assert isinstance(error.__cause__, weirpool.WorkerDied)
    assert error.__cause__.exitcode == 5


def test_a_worker_that_cannot_be_started_is_tried_again(pools: Pools, gate: Gate, tmp_path: Path) -> None:
    """Producers that wait in line start no worker: the pool would stay one short."""
    pool = replacing(pools, 2)
    check_crew(pool, tmp_path / "before", 2)
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    gate.wait_started(2)
    start, refused = Crew._start, []

    def refuse_once(*args: Any) -> None:
        if not refused:
            refused.append(True)
            raise OSError("no more processes")
        start(*args)

    with mock.patch.object(Crew, "_start", refuse_once):
        os.kill(worker_pids(pool)[0], signal.SIGKILL)
        held.append(pool.submit(tasks.hold, gate.folder))  # has waited for the room that the death made
        gate.wait_started(3)
    gate.open()
    assert refused
    assert sum(isinstance(error, weirpool.WorkerDied) for error in errors_of(held)) == 1
    check_crew(pool, tmp_path / "again", 2)


def test_an_initializer_that_raises_breaks_the_pool(pools: Pools) -> None:
    pool = replacing(pools, initializer=tasks.fail_to_initialize)
    error = pool.submit(tasks.nothing).exception(PATIENCE)
    assert isinstance(error, BrokenProcessPool)
    assert IN_A_ROW not in str(error)


# ---- Ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait_for_it", [True, False])
def test_a_death_during_shutdown(pools: Pools, gate: Gate, threads: Threads, method: str, wait_for_it: bool) -> None:
    pool = replacing(pools, workers=1, method=method)
    held = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    waiting = [pool.submit(tasks.square, number) for number in range(4)]
    (victim,) = worker_pids(pool)
    threads.start(pool.shutdown, wait_for_it)
    wait_until(lambda: pool._shutdown_thread, "it is being shut down")
    os.kill(victim, signal.SIGKILL)
    assert isinstance(held.exception(PATIENCE), weirpool.WorkerDied)
    assert [future.result(PATIENCE) for future in waiting] == [0, 1, 4, 9]
    threads.join()


def test_a_collected_executor_starts_no_more_workers(gate: Gate, method: str) -> None:
    pool = weirpool.ProcessPoolExecutor(2, multiprocessing.get_context(method), on_worker_death="replace")
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    gate.wait_started(2)
    waiting = [pool.submit(tasks.square, number) for number in range(3)]
    first, second = worker_pids(pool)
    del pool
    gc.collect()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: any(future.done() for future in held), "one task is lost")
    os.kill(second, signal.SIGKILL)
    assert {type(error) for error in errors_of(held)} == {weirpool.WorkerDied}
    for error in errors_of(waiting):
        assert isinstance(error, BrokenProcessPool)
        assert "garbage collected with work pending" in str(error)
        assert "max_tasks" not in str(error)
        assert error.__cause__ is None


@pytest.mark.parametrize("how", ["kill_workers", "terminate_workers"])
def test_ending_by_force_ends_everything(pools: Pools, gate: Gate, method: str, how: str) -> None:
    pool = replacing(pools, method=method)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(6)]
    retried = pool.with_options(retries=5).submit(tasks.hold, gate.folder)
    gate.wait_started(2)
    pids = worker_pids(pool)
    getattr(pool, how)()
    wait_until(lambda: all(is_gone(pid) for pid in pids), "the workers are gone")
    wait([*futures, retried], PATIENCE)
    ended = [future for future in [*futures, retried] if not future.cancelled()]
    assert {type(error) for error in errors_of(ended)} == {BrokenProcessPool}
    wait_until(lambda: pool._engine is None, "the pool has ended")
    assert gate.started == 2


@pytest.mark.race
def test_the_interpreter_exits_while_a_worker_is_replaced(script: Callable[..., Script], tmp_path: Path) -> None:
    program = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(None, 2, on_worker_death="replace")
        pool.submit(tasks.nothing).result()
        for number in range(20):
            if number in (3, 9):
                pool.submit(tasks.die)
            pool.submit(tasks.log, sys.argv[1], number)
        say("ready")
        """,
        tmp_path / "log",
    )
    assert program.finish() == ["ready"]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(20))
    assert program.err.read_text() == ""


# ---- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.race
def test_ctrl_c_costs_the_task_that_runs_and_no_worker(script: Callable[..., Script], gate: Gate, method: str) -> None:
    program = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(
            8, 3, multiprocessing.get_context({method!r}), on_worker_death="replace"
        )
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(3)]
        soon(lambda: pool.stats().running == 3, "none is being started any more")
        open(os.path.join(sys.argv[1], "open"), "w").close()
        wait(held)
        pids = sorted(pool._processes)
        busy = pool.submit(tasks.nap, 60)
        soon(busy.running, "it runs")
        try:
            say("ready")
            time.sleep(60)
        except KeyboardInterrupt:
            say("interrupted")
        say(type(busy.exception()).__name__)
        say(sum(pool.map(tasks.square, range(10))))
        say(sorted(pool._processes) == pids)
        """,
        gate.folder,
    )
    assert program.line() == "ready"
    time.sleep(0.1)
    os.killpg(program.pid, signal.SIGINT)
    assert program.finish() == ["interrupted", "KeyboardInterrupt", "285", "True"]
    assert program.err.read_text() == ""


# ---- Memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["break", "replace"])
def test_a_worker_that_has_grown_is_replaced_after_its_task(pools: Pools, method: str, mode: str) -> None:
    pool = pools.bounded(4, 1, method, on_worker_death=mode, max_worker_memory=200_000_000)
    small = [pool.submit(tasks.keep_memory, 1000).result(PATIENCE) for _ in range(3)]
    assert len(set(small)) == 1
    pids = [pool.submit(tasks.keep_memory, 250_000_000).result(PATIENCE) for _ in range(2)]
    pids.append(pool.submit(tasks.pid).result(PATIENCE))
    assert pids[0] == small[0]
    assert len(set(pids)) == 3
    futures = [pool.submit(tasks.keep_memory, 60_000_000) for _ in range(9)]
    pids = [future.result(PATIENCE) for future in futures]
    assert 2 <= len(set(pids)) < 9
    assert pool.stats().workers_died == 0


@pytest.mark.race
def test_recycling_by_memory_strands_nothing(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(3, 2, on_worker_death="replace", max_worker_memory=1)
    for _ in range(4):
        threads.start(lambda: [pool.submit(tasks.square, number).result(PATIENCE) for number in range(5)])
    assert threads.join() == [[0, 1, 4, 9, 16]] * 4
    assert pool.stats().workers_died == 0


def test_memory_and_a_number_of_tasks(pools: Pools) -> None:
    pool = pools.bounded(None, 1, max_tasks_per_child=2, max_worker_memory=10**12)
    pids = [pool.submit(tasks.pid).result(PATIENCE) for _ in range(6)]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]


# ---- All together --------------------------------------------------------------------------------


def test_a_map_raises_at_the_place_of_the_death(pools: Pools) -> None:
    pool = replacing(pools, 4, 2)
    results = pool.map(tasks.apply, [(tasks.square, 1), (tasks.die,), (tasks.square, 3)])
    assert next(results) == 1
    with pytest.raises(weirpool.WorkerDied):
        next(results)
    assert list(pool.map(tasks.square, range(4))) == [0, 1, 4, 9]


def test_a_feeder_runs_the_items_of_dead_workers_again(pools: Pools, tmp_path: Path) -> None:
    pool = replacing(pools, 4, 2)
    with weirpool.Feeder(pool, functools.partial(tasks.die_before, 3), retries=2) as feeder:
        feeder.put(str(tmp_path))
    assert feeder.failures == ()
    assert pool.stats().workers_died == 2
