"""Ends: shutdown in all its forms, the interpreter's exit, lost pools, Ctrl-C, deaths, recycling."""

import gc
import multiprocessing
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import (
    Gate,
    Pools,
    Script,
    Threads,
    descendants,
    descriptors,
    in_forked_child,
    is_gone,
    kill_a_worker,
    start_workers,
    wait_asleep,
    wait_until,
)

import weirpool

SOON = 60.0
SHUT = r"^cannot schedule new futures after shutdown$"


# ---- shutdown() ----------------------------------------------------------------------------------


def test_shutdown_waits_for_everything(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.nap, 0.02) for _ in range(20)]
    processes = list(map(int, pool._processes))
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert {future.result() for future in futures} == {0.02}
    assert all(is_gone(pid) for pid in processes)


def test_shutdown_without_waiting_returns_at_once_and_loses_nothing(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(2)
    futures = [pool.submit(tasks.hold, gate.folder, number) for number in range(20)]
    pool.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result() for future in futures] == list(range(20))


@pytest.mark.parametrize("cancel", [False, True])
def test_shutdown_of_a_pool_that_was_never_used(pools: Pools, cancel: bool) -> None:
    pool = pools.bounded(2)
    before = descendants(os.getpid())
    pool.shutdown(cancel_futures=cancel)
    assert descendants(os.getpid()) == before
    with pytest.raises(RuntimeError, match=SHUT):
        pool.submit(tasks.nothing)


def test_shutdown_again_and_again(pools: Pools) -> None:
    pool = pools.unbounded(2)
    future = pool.submit(tasks.square, 2)
    pool.shutdown(wait=False)
    pool.shutdown()
    pool.shutdown(wait=True, cancel_futures=True)
    pool.shutdown(wait=False)
    assert future.result() == 4


@pytest.mark.race
def test_shutdown_by_many_threads(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(4)
    futures = [pool.submit(tasks.echo, number) for number in range(50)]
    for number in range(8):
        threads.start(lambda number=number: pool.shutdown(wait=number % 2 == 0, cancel_futures=number % 3 == 0))
    threads.join()
    assert threads.errors == []
    assert wait(futures, SOON).not_done == set()


def test_the_context_manager_waits(start_method: str, pools: Pools) -> None:
    with pools.bounded(100, 2, start_method) as pool:
        futures = [pool.submit(tasks.nap, 0.01) for _ in range(10)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match=SHUT):
        pool.submit(tasks.nothing)


def test_the_context_manager_returns_the_pool_and_lets_errors_through(pools: Pools) -> None:
    made = pools.unbounded(1)
    with pytest.raises(tasks.OddError), made as pool:
        assert pool is made
        future = pool.submit(tasks.square, 3)
        raise tasks.OddError
    assert future.result() == 9


@pytest.mark.parametrize("waiting", [True, False])
def test_cancel_futures_cancels_what_has_not_started(
    pools: Pools, gate: Gate, start_method: str, waiting: bool
) -> None:
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.hold, gate.folder, number) for number in range(50)]
    gate.wait_started(2)
    closing = Threads()
    closing.start(lambda: pool.shutdown(wait=waiting, cancel_futures=True))
    # Those who wait learn of the end of what was cancelled before the rest has ended.
    wait_until(lambda: sum(future.cancelled() for future in futures) >= 45, "most are cancelled")
    gate.open()
    closing.join()
    assert wait(futures, SOON).not_done == set()
    assert len(list(as_completed(futures, SOON))) == 50
    assert [future.result() for future in futures[:2]] == [0, 1]
    with pytest.raises(CancelledError):
        futures[-1].result()


def test_cancel_futures_before_anything_started_runs_a_few(pools: Pools, start_method: str) -> None:
    """As in the standard pool, which has handed max_workers + 1 to its queue by then."""
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.nap, 0.01) for _ in range(50)]
    pool.shutdown(cancel_futures=True)
    cancelled = sum(future.cancelled() for future in futures)
    assert 20 < cancelled < 50
    assert all(future.done() for future in futures)


@pytest.mark.parametrize("waiting", [True, False])
def test_shutdown_in_a_callback(pools: Pools, gate: Gate, waiting: bool) -> None:
    pool = pools.unbounded(1)
    future = pool.submit(tasks.hold, gate.folder)
    rest = [pool.submit(tasks.square, number) for number in range(4)]
    called = threading.Event()

    def close(_: Future[Any]) -> None:
        called.set()
        pool.shutdown(wait=waiting)

    future.add_done_callback(close)
    gate.open()
    assert called.wait(SOON)
    assert [one.result(SOON) for one in rest] == [0, 1, 4, 9]


def test_shutdown_frees_what_the_pool_held(pools: Pools) -> None:
    pool = pools.bounded(4)
    pool.submit(tasks.zeros, 10_000_000).result()
    pool.shutdown()
    alive = weakref.ref(pool)
    pools.made.clear()
    del pool
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the pool is collected")


# ---- Pools that nobody shuts down ----------------------------------------------------------------


def test_a_lost_pool_finishes_its_work_and_ends(start_method: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    pool = weirpool.ProcessPoolExecutor(2, multiprocessing.get_context(start_method))
    futures = [pool.submit(tasks.hold, gate.folder, number) for number in range(10)]
    gate.wait_started(2)
    workers = list(pool._processes)
    del pool
    gc.collect()
    gate.open()
    assert [future.result(SOON) for future in futures] == list(range(10))
    wait_until(lambda: all(is_gone(pid) for pid in workers), "the workers leave")


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_an_object_that_shuts_its_pool_down_while_it_is_pickled(pools: Pools, threads: Threads, size: int) -> None:
    """It does not wait for the submission that it is a part of."""
    pool = pools.bounded(2, 1)
    assert pool.submit(tasks.square, 2).result(SOON) == 4
    shuts = tasks.CallsWhenPickled(pool.shutdown)
    results: list[Any] = []
    threads.start(lambda: results.append(pool.submit(tasks.echo, (shuts, bytes(size))).result(SOON)))
    threads.join()
    assert results == [(None, bytes(size))]
    with pytest.raises(RuntimeError, match=SHUT):
        pool.submit(tasks.nothing)


def test_worker_pids(pools: Pools, gate: Gate, start_method: str) -> None:
    pool = pools.unbounded(2, start_method)
    assert pool.worker_pids() == ()
    held = [pool.submit(tasks.hold, gate.folder, number) for number in range(2)]
    gate.wait_started(2)
    pids = pool.worker_pids()
    assert len(pids) == 2
    assert set(pids) <= descendants(os.getpid())
    assert "forked child" in in_forked_child(pool.worker_pids)
    gate.open()
    assert [future.result(SOON) for future in held] == [0, 1]
    pool.shutdown()
    assert pool.worker_pids() == ()


def test_descriptors_are_closed_when_the_pool_has_ended(start_method: str) -> None:
    """And not when another process is started, or multiprocessing asked for its children."""

    def run() -> dict[int, str]:
        with weirpool.ProcessPoolExecutor(4, multiprocessing.get_context(start_method)) as pool:
            assert list(pool.map(tasks.square, range(20))) == [number * number for number in range(20)]
        del pool
        gc.collect()
        return descriptors()

    first = run()  # the fork server and the resource tracker are there then
    assert run() == first


def test_a_lost_idle_pool_ends(start_method: str) -> None:
    pool = weirpool.BoundedProcessPoolExecutor(4, 2, multiprocessing.get_context(start_method))
    assert pool.submit(tasks.square, 2).result() == 4
    workers = list(pool._processes)
    del pool
    gc.collect()
    wait_until(lambda: all(is_gone(pid) for pid in workers), "the workers leave")


@pytest.mark.parametrize(
    "ending",
    ["pass", "sys.exit(0)", "pool.shutdown(wait=False)", "del pool", "pool.shutdown(wait=False); del pool"],
)
def test_work_that_is_pending_at_exit_is_done(
    script: Callable[..., Script], tmp_path: Path, start_method: str, ending: str
) -> None:
    script(
        f"""
        pool = weirpool.ProcessPoolExecutor(2, multiprocessing.get_context({start_method!r}))
        futures = [pool.submit(tasks.nap_and_log, 0.01, sys.argv[1], number) for number in range(20)]
        {ending}
        """,
        tmp_path / "log",
    ).finish()
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(20))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_worker_that_starts_after_the_script_knows_its_functions(
    script: Callable[..., Script], gate: Gate, method: str
) -> None:
    """CPython takes its path from the main module where the script ends, before what is pending has run."""
    program = script(
        f"""
        context = multiprocessing.get_context({method!r})
        pool = weirpool.ProcessPoolExecutor(1, context, max_tasks_per_child=1)
        futures = [pool.submit(tasks.hold, sys.argv[1]), *(pool.submit(say, number) for number in range(3))]

        def watch():
            soon(lambda: not hasattr(sys.modules["__main__"], "__file__"), "the script ends")
            say("over")

        threading.Thread(target=watch).start()
        """,
        gate.folder,
    )
    assert program.line() == "over"
    gate.open()
    assert [program.line() for _ in range(3)] == ["0", "1", "2"]
    program.finish()


def test_an_error_in_the_main_program_ends_it(script: Callable[..., Script], tmp_path: Path) -> None:
    program = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(8, 2)
        for number in range(8):
            pool.submit(tasks.nap_and_log, 0.01, sys.argv[1], number)
        raise LookupError("the program's own")
        """,
        tmp_path / "log",
    )
    assert program.end() == 1
    assert "LookupError: the program's own" in program.err.read_text()
    assert len((tmp_path / "log").read_text().split()) == 8


def test_exit_with_cancelled_futures_is_quick(script: Callable[..., Script], tmp_path: Path) -> None:
    script(
        """
        pool = weirpool.ProcessPoolExecutor(1)
        futures = [pool.submit(tasks.nap_and_log, 0.2, sys.argv[1], number) for number in range(500)]
        pool.shutdown(wait=False, cancel_futures=True)
        """,
        tmp_path / "log",
    ).finish()
    assert 1 <= len((tmp_path / "log").read_text().split()) <= 5


def test_exit_with_a_map_that_is_half_read(script: Callable[..., Script]) -> None:
    lines = script(
        """
        import itertools
        pool = weirpool.BoundedProcessPoolExecutor(4, 2)
        results = pool.map(tasks.square, itertools.count())
        say(*itertools.islice(results, 5))
        """
    ).finish()
    assert lines == ["0 1 4 9 16"]


def test_submitting_at_exit_is_refused(script: Callable[..., Script]) -> None:
    lines = script(
        """
        import atexit

        def late():
            try:
                pool.submit(tasks.nothing)
            except RuntimeError as error:
                say(error)

        atexit.register(late)
        pool = weirpool.ProcessPoolExecutor(1)
        pool.submit(tasks.nothing).result()
        """
    ).finish()
    assert len(lines) == 1
    assert lines[0].startswith("cannot schedule new futures after")


def test_exit_prints_nothing(script: Callable[..., Script], start_method: str) -> None:
    program = script(
        f"""
        context = multiprocessing.get_context({start_method!r})
        kept = weirpool.BoundedProcessPoolExecutor(4, 2, context)
        assert list(kept.map(tasks.square, range(20)))[-1] == 361
        with weirpool.ProcessPoolExecutor(2, context) as pool:
            futures = [pool.submit(tasks.zeros, 1_000_000) for _ in range(4)]
        unread = kept.submit(tasks.zeros, 1_000_000)
        """
    )
    assert program.finish() == []
    assert program.err.read_text() == ""


# ---- Ctrl-C --------------------------------------------------------------------------------------

INTERRUPTIBLE = """
    pool = weirpool.BoundedProcessPoolExecutor(2, 2)
    held = [pool.submit(tasks.hold, sys.argv[1], number) for number in range(2)]
    soon(lambda: pool.stats().running == 2, "both tasks run")
    try:
        say("ready")
        {wait}
    except KeyboardInterrupt:
        say("interrupted")
    open(os.path.join(sys.argv[1], "open"), "w").close()
    {after}
"""
SUBMIT_AGAIN = "say(pool.submit(tasks.square, 6).result())"
READ_AGAIN = "say(held[0].result() + 36)"
WAITS = {
    "submit": ("pool.submit(tasks.log, sys.argv[2], 'never')", SUBMIT_AGAIN),
    "submit of much": ("pool.submit(tasks.log_with, sys.argv[2], 'never', bytes(1_000_000))", SUBMIT_AGAIN),
    "map": ("pool.map(tasks.log, [sys.argv[2]] * 9, range(9))", SUBMIT_AGAIN),
    "result": ("held[0].result()", READ_AGAIN),
    "exception": ("held[0].exception()", READ_AGAIN),
    "wait": ("wait(held)", READ_AGAIN),
    "shutdown": ("pool.shutdown()", READ_AGAIN),
    "with": ("pool.__exit__(None, None, None)", READ_AGAIN),
}


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_ends_the_wait_and_the_pool_goes_on(script: Callable[..., Script], tmp_path: Path, what: str) -> None:
    (tmp_path / "gate").mkdir()
    waiting, after = WAITS[what]
    program = script(INTERRUPTIBLE.format(wait=waiting, after=after), tmp_path / "gate", tmp_path / "log")
    assert program.line() == "ready"
    time.sleep(0.2)  # so that it waits
    program.interrupt()
    assert program.line() == "interrupted"
    assert program.finish() == ["36"]
    assert not (tmp_path / "log").exists(), "a task whose submission was interrupted must not run"


def test_what_is_pending_runs_after_an_interrupted_shutdown(
    script: Callable[..., Script], gate: Gate, tmp_path: Path
) -> None:
    """Thread.join() of Python 3.11 and 3.12 takes a thread for ended when Ctrl-C interrupts it."""
    program = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(4, 1)
        pool.submit(tasks.hold, sys.argv[1])
        for number in range(3):
            pool.submit(tasks.nap_and_log, 0.1, sys.argv[2], number)
        soon(lambda: pool.stats().running == 1, "it runs")
        say("ready")
        try:
            pool.shutdown()
        except KeyboardInterrupt:
            say("interrupted")
        open(os.path.join(sys.argv[1], "open"), "w").close()
        """,
        gate.folder,
        tmp_path / "log",
    )
    assert program.line() == "ready"
    wait_asleep(program.pid)
    program.interrupt()
    assert program.finish() == ["interrupted"]
    assert (tmp_path / "log").read_text() == "0\n1\n2\n"
    assert program.err.read_text() == ""


def test_ctrl_c_while_the_next_of_a_map_is_awaited(script: Callable[..., Script], tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    program = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(4, 2)
        results = pool.map(tasks.hold, [sys.argv[1]] * 9)
        soon(lambda: pool.stats().running == 2, "two tasks run")
        try:
            say("ready")
            next(results)
        except KeyboardInterrupt:
            say("interrupted")
        open(os.path.join(sys.argv[1], "open"), "w").close()
        say(pool.submit(tasks.square, 6).result())
        """,
        tmp_path / "gate",
    )
    assert program.line() == "ready"
    time.sleep(0.2)
    program.interrupt()
    assert program.line() == "interrupted"
    assert program.finish() == ["36"]


def test_an_uncaught_ctrl_c_ends_the_program(script: Callable[..., Script], start_method: str) -> None:
    program = script(
        f"""
        with weirpool.BoundedProcessPoolExecutor(4, 2, multiprocessing.get_context({start_method!r})) as pool:
            say("ready")
            while True:
                pool.submit(tasks.nap, 0.05)
        """
    )
    assert program.line() == "ready"
    time.sleep(0.3)
    program.interrupt()
    assert program.end() == -signal.SIGINT
    assert "KeyboardInterrupt" in program.err.read_text()


@pytest.mark.race
def test_ctrl_c_in_a_busy_loop_loses_no_permit(script: Callable[..., Script]) -> None:
    """Wherever it strikes: afterwards every permit is back and the pool is sound."""
    program = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(3, 2)
        pool.submit(tasks.nothing).result()
        try:
            say("ready")
            while True:
                list(pool.map(tasks.square, range(10)))
                futures = [pool.submit(tasks.square, number) for number in range(10)]
                [future.result() for future in futures]
        except KeyboardInterrupt:
            pass
        soon(lambda: pool.stats().outstanding == 0, "every permit is back")
        pool._check()
        say(sum(pool.map(tasks.square, range(10))))
        """
    )
    assert program.line() == "ready"
    time.sleep(random.random() * 0.1)
    program.interrupt()
    assert program.finish() == ["285"]


def test_ctrl_c_for_the_whole_group_ends_everything(script: Callable[..., Script], start_method: str) -> None:
    """As a terminal sends it: the workers get it, too."""
    program = script(
        f"""
        try:
            with weirpool.BoundedProcessPoolExecutor(4, 2, multiprocessing.get_context({start_method!r})) as pool:
                pool.submit(tasks.nothing).result()
                futures = [pool.submit(tasks.nap, 0.5) for _ in range(2)]
                say(*pool._processes)
                while True:
                    futures.append(pool.submit(tasks.nap, 0.2))
        except (KeyboardInterrupt, BrokenProcessPool):
            say("ended")
        """
    )
    workers = [int(pid) for pid in program.line().split()]
    time.sleep(0.3)
    os.killpg(program.pid, signal.SIGINT)
    assert program.line() == "ended"
    assert program.end() in (0, -signal.SIGINT)
    wait_until(lambda: all(is_gone(pid) for pid in workers), "the workers are gone")


# ---- Deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "load",
    ["pool.submit(tasks.nap, 0.5)", "pool.submit(tasks.zeros, 30_000_000)", "pool.submit(tasks.nothing)"],
    ids=["naps", "big results", "short tasks"],
)
def test_workers_are_gone_soon_after_their_parent_was_killed(
    script: Callable[..., Script], start_method: str, load: str
) -> None:
    program = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(8, 4, multiprocessing.get_context({start_method!r}))
        futures = [pool.submit(tasks.nap, 0.05) for _ in range(8)]
        wait(futures)
        say(*pool._processes)
        while True:
            {load}
        """
    )
    workers = [int(pid) for pid in program.line().split()]
    assert workers
    time.sleep(0.5)
    assert not any(is_gone(pid) for pid in workers)
    os.kill(program.pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, workers)), "the workers are gone")


@pytest.mark.parametrize("state", ["idle", "blocked producer"])
def test_idle_workers_are_gone_soon_after_their_parent_was_killed(
    script: Callable[..., Script], start_method: str, state: str
) -> None:
    program = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context({start_method!r}))
        wait([pool.submit(tasks.nap, 0.05) for _ in range(2)])
        if {state!r} == "blocked producer":
            pool.submit(tasks.nap, 0.2).add_done_callback(lambda _: time.sleep(60))
        say(*pool._processes)
        time.sleep(60)
        """
    )
    workers = [int(pid) for pid in program.line().split()]
    time.sleep(0.5)
    os.kill(program.pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, workers)), "the workers are gone")


def test_workers_are_gone_after_the_parent_left_without_hooks(script: Callable[..., Script]) -> None:
    program = script(
        """
        pool = weirpool.ProcessPoolExecutor(2)
        wait([pool.submit(tasks.nap, 0.05) for _ in range(4)])
        say(*pool._processes)
        os._exit(0)
        """
    )
    workers = [int(pid) for pid in program.line().split()]
    program.finish()
    wait_until(lambda: all(map(is_gone, workers)), "the workers are gone")


@pytest.mark.race
def test_a_killed_worker_breaks_the_pool_for_everyone(pools: Pools, gate: Gate, start_method: str) -> None:
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(20)]
    assert futures[-1].cancel()
    gate.wait_started(2)
    workers = list(pool._processes)
    kill_a_worker(pool)
    errors = [future.exception(SOON) for future in futures[:-1]]
    assert [type(error) for error in errors] == [BrokenProcessPool] * 19
    assert len({id(error) for error in errors}) == 19, "an exception of its own for each"
    assert "A process in the process pool was terminated abruptly" in str(errors[0])
    assert futures[-1].cancelled()
    with pytest.raises(BrokenProcessPool, match=r"A child process terminated abruptly, the process pool is not usable"):
        pool.submit(tasks.nothing)
    with pytest.raises(BrokenProcessPool):
        pool.map(tasks.square, [1])
    wait_until(lambda: all(map(is_gone, workers)), "the other worker is ended, too")


@pytest.mark.parametrize("code", [0, 1])
def test_a_worker_that_exits_by_itself_breaks_the_pool(pools: Pools, start_method: str, code: int) -> None:
    pool = pools.unbounded(1, start_method)
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.leave, code).result()


def test_an_idle_worker_killed_breaks_the_pool(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(2, start_method)
    pool.submit(tasks.nothing).result()
    kill_a_worker(pool)
    wait_until(lambda: pool._broken, "the death is seen")
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing)


def test_results_from_before_the_break_stay(pools: Pools) -> None:
    pool = pools.unbounded(1)
    read, unread = pool.submit(tasks.square, 3), pool.submit(tasks.zeros, 2_000_000)
    assert read.result() == 9
    wait_until(lambda: pool.stats().outstanding == 0, "both have ended")
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.die).result()
    assert read.result() == 9
    assert unread.result() == bytes(2_000_000)


def test_callbacks_run_when_the_pool_breaks(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(10)]
    told: list[Future[Any]] = []
    for future in futures:
        future.add_done_callback(told.append)
    gate.wait_started(1)
    kill_a_worker(pool)
    wait_until(lambda: len(told) == 10, "every callback runs")
    assert set(told) == set(futures)


def test_a_broken_pool_can_be_shut_down(pools: Pools, start_method: str) -> None:
    with pools.bounded(4, 2, start_method) as pool, pytest.raises(BrokenProcessPool):
        pool.submit(tasks.die).result()
    with pytest.raises(RuntimeError):
        pool.submit(tasks.nothing)


@pytest.mark.race
def test_a_worker_dies_while_the_pool_shuts_down(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.unbounded(2)
    start_workers(pool, gate, 2)
    waiting = [pool.submit(tasks.hold, gate.folder) for _ in range(10)]
    threads.start(pool.shutdown)
    kill_a_worker(pool)
    gate.open()
    threads.join()
    assert wait(waiting, SOON).not_done == set()
    assert {type(future.exception()) for future in waiting} <= {BrokenProcessPool, type(None)}


# ---- Initializers --------------------------------------------------------------------------------


def test_the_initializer_runs_in_each_worker(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(2, start_method, initializer=tasks.initialize, initargs=("told",))
    assert {future.result() for future in [pool.submit(tasks.initialized) for _ in range(20)]} == {"told"}


@pytest.mark.parametrize("initializer", [tasks.fail_to_initialize, tasks.leave, tasks.die])
def test_an_initializer_that_fails_breaks_the_pool(
    pools: Pools, start_method: str, initializer: Callable[[], None]
) -> None:
    pool = pools.unbounded(2, start_method, initializer=initializer)
    with pytest.raises(BrokenProcessPool):  # of submit(), where the failure was quicker
        pool.submit(tasks.nothing).result()
    wait_until(lambda: pool._broken, "the pool is broken")
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing)


@pytest.mark.parametrize(
    ("kind", "text", "arrives"),
    [
        (ValueError, "no such model", True),
        (SystemExit, "no such model", True),
        (tasks.SecretiveError, "no such model", False),
        (ValueError, "no such model " * 10_000, False),
    ],
    ids=["an error", "an exit", "one that cannot be pickled", "one that is too long"],
)
def test_the_cause_is_what_the_initializer_raised(
    pools: Pools, start_method: str, kind: type[BaseException], text: str, arrives: bool
) -> None:
    pool = pools.unbounded(2, start_method, initializer=tasks.fail_with, initargs=(kind, text))
    with pytest.raises(BrokenProcessPool, match="initializer failed") as raised:
        pool.submit(tasks.nothing).result(SOON)
    assert "no such model" in str(raised.value.__cause__)
    assert (type(raised.value.__cause__) is kind) == arrives, "else its traceback, as a text"
    wait_until(lambda: pool._broken, "the pool is broken")
    with pytest.raises(BrokenProcessPool, match="initializer failed") as raised:
        pool.submit(tasks.nothing)
    assert "no such model" in str(raised.value.__cause__)


# ---- Recycling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_worker_is_replaced_after_its_tasks(pools: Pools, method: str) -> None:
    pool = pools.unbounded(1, method, max_tasks_per_child=2)
    pids = [pool.submit(tasks.pid).result() for _ in range(7)]
    assert len(set(pids)) == 4
    assert pids[0::2][:3] == pids[1::2]


@pytest.mark.race
@pytest.mark.parametrize(("workers", "tasks_per_child", "bound"), [(2, 2, None), (4, 1, None), (3, 1, 4), (4, 3, 4)])
def test_recycling_strands_nothing(pools: Pools, workers: int, tasks_per_child: int, bound: int | None) -> None:
    pool = pools.bounded(bound, workers, "forkserver", max_tasks_per_child=tasks_per_child)
    futures = [pool.submit(tasks.pid) for _ in range(25)]
    pids = [future.result(SOON) for future in futures]
    assert max(pids.count(pid) for pid in pids) <= tasks_per_child
    assert pool.submit(tasks.square, 3).result(SOON) == 9


def test_recycling_workers_with_big_results(pools: Pools) -> None:
    pool = pools.unbounded(2, "forkserver", max_tasks_per_child=1)
    futures = [pool.submit(tasks.zeros, 5_000_000) for _ in range(8)]
    assert {len(future.result(SOON)) for future in futures} == {5_000_000}


@pytest.mark.parametrize("count", [1, 3])
def test_shutdown_while_workers_are_replaced(pools: Pools, count: int) -> None:
    pool = pools.unbounded(2, "forkserver", max_tasks_per_child=1)
    futures = [pool.submit(tasks.square, number) for number in range(count)]
    pool.shutdown()
    assert [future.result(SOON) for future in futures] == [number * number for number in range(count)]
