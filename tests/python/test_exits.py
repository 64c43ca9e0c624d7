"""Ends at every moment: Ctrl-C in every wait, the interpreter's exit, forks, and what tasks leave behind."""

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from multiprocessing import forkserver, popen_fork
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import (
    DEATH_MODES,
    Gate,
    Pools,
    Script,
    Threads,
    every_mode,
    executor_text,
    in_forked_child,
    is_gone,
    options_of,
    start_workers,
    wait_asleep,
    wait_until,
    worker_pids,
)

import weirpool

SOON = 60.0
AT_ONCE = 20.0  # seconds for what takes a fraction of one
Start = Callable[..., Script]


def test_a_signal_handler_that_shuts_down_what_it_interrupts(pools: Pools, gate: Gate, threads: Threads) -> None:
    """A submission that waits for bytes has a permit, which the shutdown would wait for."""
    pool = pools.bounded(4, 1, max_bytes=200_000)
    held = pool.submit(tasks.hold, gate.folder, bytes(150_000))
    gate.wait_started(1)
    before = signal.signal(signal.SIGUSR1, lambda *_: pool.shutdown())

    def interrupt() -> None:
        wait_until(lambda: pool.stats().blocked_producers == 1, "it waits")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    try:
        threads.start(interrupt)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(tasks.size_of, bytes(150_000))
    finally:
        signal.signal(signal.SIGUSR1, before)
    gate.open()
    assert len(held.result(SOON)) == 150_000


# ---- Ctrl-C --------------------------------------------------------------------------------------

# What the main thread waits in: two workers hold a task each, and a third task waits, for a gate that never opens.
FEEDER = "feeder = weirpool.Feeder(pool, tasks.hold, maxsize=1); held[-1].cancel(); feeder.put(folder)"
WAITS = {
    "submit": ("", "pool.submit(tasks.nothing)"),
    "submit of much": ("", "pool.submit(tasks.size_of, bytes(1_000_000))"),
    "result": ("", "held[0].result()"),
    "exception of one that waits": ("", "held[-1].exception()"),
    "map": ("", "list(pool.map(tasks.hold, [folder] * 9))"),
    "map in chunks": ("", "list(pool.map(tasks.hold, [folder] * 9, chunksize=2))"),
    "next of a map": ("held[-1].cancel(); results = pool.map(tasks.hold, [folder] * 9, buffersize=1)", "list(results)"),
    "map_unordered": ("", "list(pool.map_unordered(tasks.hold, [folder] * 9))"),
    "as_completed": ("", "list(weirpool.as_completed(held))"),
    "wait": ("", "wait(held)"),
    "shutdown": ("", "pool.shutdown()"),
    "with": ("", "pass"),
    "asyncio, room": ("", "asyncio.run(pool.arun(tasks.nothing))"),
    "asyncio, result": ("held[-1].cancel()", "asyncio.run(tasks.run_together(pool, 1, tasks.hold, folder))"),
    "put": (FEEDER, "feeder.put(folder)"),
    "close": (FEEDER, "feeder.close()"),
}
WAITING = """
    import asyncio
    folder = sys.argv[1]
    try:
        with {executor} as pool:
            held = [pool.submit(tasks.hold, folder) for _ in range(3)]
            soon(lambda: pool.stats().running == 2, "two tasks run")
            {prepare}
            say("ready", *pool._processes)
            {wait}
    except KeyboardInterrupt:
        {seen}
"""


def waiting(executor: str, what: str, seen: str = 'say("interrupted")') -> str:
    prepare, wait_there = WAITS[what]
    return WAITING.format(executor=executor, prepare=prepare or "pass", wait=wait_there, seen=seen)


def reach(program: Script) -> list[int]:
    """The program waits; returns the pids of its workers."""
    word, *pids = program.line().split()
    assert word == "ready"
    wait_asleep(program.pid)
    return [int(pid) for pid in pids]


@pytest.mark.race
@pytest.mark.parametrize("what", WAITS)
@every_mode
def test_one_ctrl_c_ends_the_program(script: Start, gate: Gate, method: str, mode: str, what: str) -> None:
    """KeyboardInterrupt is what it sees. Tasks that run are interrupted, and those that wait do not run any more."""
    program = script(waiting(executor_text(3, 2, method, mode), what), gate.folder)
    reach(program)
    began = time.monotonic()
    program.ctrl_c()
    assert program.line() == "interrupted"
    seen = time.monotonic() - began
    assert program.finish(AT_ONCE) == []
    print(f"{what}, {method}: seen after {seen:.3f} s, ended after {time.monotonic() - began:.3f} s")
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.parametrize("idle", [False, True], ids=["all workers busy", "one idle"])
@every_mode
def test_after_ctrl_c_the_pool_can_be_used_or_is_closed(
    script: Start, gate: Gate, method: str, mode: str, idle: bool
) -> None:
    """Tasks that ran fail with KeyboardInterrupt. In "break" an idle worker leaves, which ends the pool."""
    program = script(
        f"""
        pool = {executor_text(2, 2, method, mode)}
        [future.result() for future in [pool.submit(tasks.nap, 0.05) for _ in range(2)]]
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range({1 if idle else 2})]
        soon(lambda: pool.stats().running == len(held), "they run")
        say("ready", *pool._processes)
        try:
            held[0].result()
        except KeyboardInterrupt:
            say("interrupted")
        wait(held)
        try:
            say(pool.submit(tasks.square, 6).result())
        except BrokenProcessPool:
            say("broken")
        except KeyboardInterrupt:  # its worker had claimed it before it noticed Ctrl-C
            say("interrupted, too")
        pool._check()
        pool.shutdown()
        say(*(type(future.exception()).__name__ for future in held))
        """,
        gate.folder,
    )
    reach(program)
    program.ctrl_c()
    assert program.line() == "interrupted"
    used, errors = program.finish(AT_ONCE)
    leaves = idle and mode == "break"
    assert used in (("broken", "interrupted, too") if leaves else ("36",))
    assert set(errors.split()) <= ({"KeyboardInterrupt", "BrokenProcessPool"} if leaves else {"KeyboardInterrupt"})
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.parametrize("what", ["submit", "result", "map", "with", "asyncio, room"])
@every_mode
def test_an_uncaught_ctrl_c_prints_one_traceback(script: Start, gate: Gate, method: str, mode: str, what: str) -> None:
    program = script(waiting(executor_text(3, 2, method, mode), what, seen="raise"), gate.folder)
    reach(program)
    program.ctrl_c()
    assert program.end(AT_ONCE) == -signal.SIGINT
    said = program.err.read_text()
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.count('File "' + str(program.path) + '"') == 1, "of the main program, and of no worker:\n" + said
    program.leaves_nothing()


@every_mode
def test_ctrl_c_while_the_interpreter_exits(script: Start, gate: Gate, method: str, mode: str) -> None:
    """It waits for what is pending; a Ctrl-C then cancels what has not started, and interrupts what runs."""
    program = script(
        f"""
        pool = {executor_text(9, 2, method, mode)}
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(9)]
        soon(lambda: pool.stats().running == 2, "two tasks run")
        say("ready", *pool._processes)
        """,
        gate.folder,
    )
    reach(program)
    program.ctrl_c()
    program.end(AT_ONCE)
    program.leaves_nothing()


@pytest.mark.race
@every_mode
def test_ctrl_c_at_any_moment(script: Start, method: str, mode: str) -> None:
    """While workers are started, between tasks, in the midst of any of the waits."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    program = script(
        f"""
        try:
            say("ready")
            while True:
                with {executor_text(3, 2, method, mode)} as pool:
                    for _ in range(20):
                        list(pool.map(tasks.square, range(10)))
                        futures = [pool.submit(tasks.zeros, 1 << number) for number in range(20)]
                        list(weirpool.as_completed(futures))
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        """
    )
    assert program.line() == "ready"
    time.sleep(random.Random(seed).random() * 0.8)
    program.ctrl_c()
    assert program.end(AT_ONCE) == 0, program.err.read_text()
    program.leaves_nothing()


def test_a_second_ctrl_c_ends_a_program_whose_tasks_take_no_notice(script: Start, gate: Gate) -> None:
    """A task that swallows Ctrl-C is waited for; the next Ctrl-C ends that wait."""
    program = script(
        f"""
        try:
            with {executor_text(2, 1, "fork", "break")} as pool:
                held = pool.submit(tasks.hold_whatever_comes, sys.argv[1])
                soon(lambda: held.running(), "it runs")
                say("ready", *pool._processes)
                held.result()
        except KeyboardInterrupt:
            say("interrupted")
            open(os.path.join(sys.argv[1], "open"), "w").close()
        """,
        gate.folder,
    )
    reach(program)
    program.ctrl_c()
    wait_asleep(program.pid)
    program.ctrl_c()
    assert program.line() == "interrupted"
    assert program.finish(AT_ONCE) == []
    program.leaves_nothing()


@pytest.mark.parametrize("engine", ["native", "stdlib"])
def test_a_block_that_ctrl_c_leaves_cancels_what_has_not_started(script: Start, gate: Gate, engine: str) -> None:
    program = script(
        f"""
        os.environ["WEIRPOOL_ENGINE"] = {engine!r}
        try:
            with {executor_text(9, 1, "fork", "break")} as pool:
                futures = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(9)]
                soon(lambda: futures[0].running(), "it runs")
                threading.Timer(0.2, lambda: open(os.path.join(sys.argv[1], "open"), "w").close()).start()
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            say(futures[0].cancelled(), futures[-1].cancelled())
        """,
        gate.folder,
    )
    assert program.finish(AT_ONCE) == ["False True"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


# ---- The interpreter's exit ----------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("bound", [2, 10_000], ids=["mostly blocked", "never blocked"])
def test_exit_while_a_daemon_thread_submits(script: Start, method: str, mode: str, bound: int) -> None:
    program = script(
        f"""
        pool = {executor_text(bound, 2, method, mode)}
        pool.submit(tasks.nothing).result()

        def produce():
            try:
                while True:
                    pool.submit(tasks.nothing)
            except RuntimeError:
                pass

        threading.Thread(target=produce, daemon=True).start()
        soon(lambda: pool.stats().submitted > 100, "it submits")
        """
    )
    assert program.finish() == []
    assert program.err.read_text() == ""
    program.leaves_nothing()


MOMENTS = {
    "in a callback": """
        entered = threading.Event()
        pool.submit(tasks.nothing).add_done_callback(lambda _: (entered.set(), time.sleep(0.3), say("left")))
        entered.wait(60)
        """,
    "sys.exit in a callback": """
        import logging
        logging.getLogger("concurrent.futures").addHandler(logging.NullHandler())
        futures = [pool.submit(time.sleep, 0.3) for _ in range(2)]  # not done yet: else the callback runs right here
        futures[0].add_done_callback(lambda _: sys.exit(3))
        futures[1].add_done_callback(lambda _: say("left"))
        """,
    "a new pool in an atexit handler": """
        import atexit

        @atexit.register
        def late():
            try:
                with weirpool.ProcessPoolExecutor(1) as another:
                    another.submit(tasks.nothing)
            except RuntimeError:
                say("left")
        """,
    "in an atexit handler that ends the pool": """
        import atexit

        @atexit.register
        def late():
            pool.shutdown()
            say("left")
        """,
    "with results that nobody reads": """
        futures = [pool.submit(tasks.zeros, 30_000_000) for _ in range(3)]
        say("left")
        """,
    "a thread that starts the workers": """
        another = weirpool.BoundedProcessPoolExecutor(2, 2, pool._mp_context)

        def use():
            try:
                say("left" if another.submit(tasks.square, 2).result() == 4 else "wrong")
            except RuntimeError:
                say("left")

        threading.Thread(target=use).start()
        """,
    "a thread that waits for a result": """
        threading.Thread(target=lambda: say("left", *pool.submit(tasks.nap, 1).exception() or ())).start()
        soon(lambda: pool.stats().running == 1, "it runs")
        """,
    "a daemon thread that waits for a result": """
        threading.Thread(target=lambda: pool.submit(tasks.nap, 1).result(), daemon=True).start()
        soon(lambda: pool.stats().running == 1, "it runs")
        say("left")
        """,
    "a map that is half read": """
        import itertools
        results = pool.map(tasks.square, itertools.count())
        next(results)
        say("left")
        import warnings
        warnings.simplefilter("ignore")
        """,
    "an event loop that was left": """
        import asyncio
        loop = asyncio.new_event_loop()
        waiting = [loop.create_task(pool.arun(tasks.nap, 0.05)) for _ in range(5)]
        loop.run_until_complete(asyncio.sleep(0.05))
        for task in waiting:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        loop.close()
        say("left")
        """,
}


@pytest.mark.parametrize("moment", MOMENTS)
@every_mode
def test_exit_at_a_bad_moment(script: Start, method: str, mode: str, moment: str) -> None:
    program = script(
        f"""
        pool = {executor_text(4, 2, method, mode)}
        pool.submit(tasks.nothing).result()
        {MOMENTS[moment].strip()}
        """
    )
    assert program.finish() == ["left"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


LOADS = {
    "idle": "time.sleep(60)",
    "short tasks": "while True: pool.submit(tasks.nothing)",
    "blocked in submit": "while True: pool.submit(tasks.nap, 0.1)",
    "large results": "while True: pool.submit(tasks.zeros, 30_000_000)",
    "large arguments": "while True: pool.submit(tasks.size_of, bytes(30_000_000))",
    "in a callback": "pool.submit(tasks.nothing).add_done_callback(lambda _: time.sleep(60)); time.sleep(60)",
    "in shutdown": "pool.submit(tasks.nap, 0.5); pool.shutdown(); time.sleep(60)",
}


def named_memory() -> set[str]:
    """Of all processes of the machine, without semaphores of multiprocessing's, which this package has none of."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.mp-")}


@pytest.mark.race
@pytest.mark.parametrize("load", LOADS)
@every_mode
def test_nothing_is_left_of_a_program_that_was_killed(script: Start, method: str, mode: str, load: str) -> None:
    """No worker, no helper of multiprocessing's, no shared memory."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    before = named_memory()
    program = script(
        f"""
        pool = {executor_text(4, 2, method, mode)}
        wait([pool.submit(tasks.nap, 0.05) for _ in range(4)])
        say("ready")
        {LOADS[load]}
        """
    )
    assert program.line() == "ready"
    time.sleep(random.Random(seed).random() * 0.3)
    os.kill(program.pid, signal.SIGKILL)
    program.end()
    began = time.monotonic()
    program.leaves_nothing()
    print(f"{load}, {method}: nothing left after {time.monotonic() - began:.2f} s")
    wait_until(lambda: named_memory() <= before, "nothing stays in /dev/shm")


@every_mode
def test_nothing_is_left_after_os_exit_in_a_callback(script: Start, method: str, mode: str) -> None:
    program = script(
        f"""
        pool = {executor_text(4, 2, method, mode)}
        futures = [pool.submit(tasks.nap, 0.05) for _ in range(4)]
        futures[-1].add_done_callback(lambda _: os._exit(3))
        time.sleep(60)
        """
    )
    assert program.end() == 3
    program.leaves_nothing()


# ---- Executors that are lost ---------------------------------------------------------------------


@pytest.mark.race
@every_mode
def test_an_executor_that_is_lost_while_producers_wait(threads: Threads, gate: Gate, method: str, mode: str) -> None:
    """The producers refer to it: they get their turns, and it ends with the last of them."""
    pool = Pools().bounded(2, 2, method, **options_of(mode))
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    for number in range(6):
        threads.start(pool.submit, tasks.square, number)
    wait_until(lambda pool=pool: pool.stats().blocked_producers == 6, "all wait")
    workers, alive = worker_pids(pool), weakref.ref(pool)
    del pool
    gate.open()
    assert sorted(future.result(SOON) for future in threads.join()) == [0, 1, 4, 9, 16, 25]
    assert wait(futures, SOON).not_done == set()
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the executor is collected")
    wait_until(lambda: all(map(is_gone, workers)), "the workers leave")


# ---- Forks ---------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("state", ["idle", "tasks run", "producers wait", "broken", "shut down"])
def test_a_fork_of_the_program_uses_nothing_and_harms_nothing(
    pools: Pools, gate: Gate, threads: Threads, method: str, mode: str, state: str
) -> None:
    pool = pools.bounded(2, 2, method, **options_of(mode))
    done = pool.submit(tasks.square, 3)
    assert done.result() == 9
    if state in ("tasks run", "producers wait"):
        start_workers(pool, gate, 2)
    if state == "producers wait":
        threads.start(pool.submit, tasks.square, 4)
        wait_until(lambda: pool.stats().blocked_producers == 1, "one waits")
    if state == "broken":
        pool._engine.break_(None, "by the test")
        wait_until(lambda: pool._broken, "it is broken")
    if state == "shut down":
        pool.shutdown()
    for use in (lambda: pool.submit(tasks.nothing), pool.shutdown, pool.stats, pool.kill_workers):
        assert in_forked_child(use).startswith("RuntimeError"), use
    assert in_forked_child(done.result) == "9"
    gate.open()
    assert [future.result(SOON) for future in threads.join()] == [16] * len(threads.threads)
    if state not in ("broken", "shut down"):
        assert pool.submit(tasks.square, 5).result(SOON) == 25


@pytest.fixture
def sleepers(tmp_path: Path, pools: Pools) -> Iterator[Path]:
    """Where tasks log the pids of the processes that they leave; these end with the test."""
    path = tmp_path / "sleepers"
    yield path
    for pid in path.read_text().split():
        assert not is_gone(int(pid)), "the test proves nothing: it was to sleep on"
        os.kill(int(pid), signal.SIGKILL)


LEFT = {"a daemon": tasks.leave_sleeper, "a child": tasks.leave_child}


@every_mode
@pytest.mark.parametrize("left", LEFT)
def test_shutdown_does_not_wait_for_what_tasks_left(
    pools: Pools, sleepers: Path, threads: Threads, method: str, mode: str, left: str
) -> None:
    """They hold every descriptor of their worker: also those by which multiprocessing sees that it has ended."""
    pool = pools.bounded(4, 2, method, **options_of(mode))
    assert pool.submit(LEFT[left], str(sleepers), 7).result(SOON) == 7
    workers = worker_pids(pool)
    threads.start(pool.shutdown)
    threads.join(AT_ONCE)
    assert threads.errors == []
    assert all(map(is_gone, workers))


ENDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "exit": (tasks.leave, 5),  # type: ignore[dict-item]
    "SIGKILL": (tasks.die,),
    "segfault": (tasks.segfault,),
    "abort": (os.abort,),
}


@every_mode
@pytest.mark.parametrize("end", ENDS)
def test_a_death_is_noticed_whatever_the_worker_left(
    pools: Pools, sleepers: Path, method: str, mode: str, end: str
) -> None:
    pool = pools.bounded(4, 2, method, **options_of(mode))
    error = pool.submit(tasks.leave_sleeper_and, str(sleepers), *ENDS[end]).exception(AT_ONCE)
    died = error if mode == "replace" else error.__cause__ if error is not None else None
    assert isinstance(died, weirpool.WorkerDied)
    assert (died.signal or died.exitcode) == {"exit": 5, "segfault": "SIGSEGV", "abort": "SIGABRT"}.get(end, end)
    if mode == "replace":
        assert pool.submit(tasks.square, 6).result(SOON) == 36


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_program_ends_although_its_tasks_left_something(script: Start, tmp_path: Path, method: str) -> None:
    program = script(
        f"""
        pool = {executor_text(2, 1, method, "break")}
        pool.submit(tasks.leave_sleeper, sys.argv[1]).result()
        """,
        tmp_path / "sleepers",
    )
    try:
        assert program.finish(AT_ONCE) == []
    finally:
        os.kill(int((tmp_path / "sleepers").read_text()), signal.SIGKILL)
    program.leaves_nothing()


@pytest.mark.parametrize("mode", DEATH_MODES)
def test_a_fork_server_that_is_killed_takes_no_pool_along(script: Start, mode: str) -> None:
    """Its workers go on, and their end is seen, although nobody is left to tell how they ended."""
    program = script(
        f"""
        from multiprocessing import forkserver
        pool = {executor_text(2, 1, "forkserver", mode)}
        pool.submit(tasks.nothing).result()
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        say(pool.submit(tasks.square, 6).result())
        pool.shutdown()
        say("ended")
        """
    )
    assert program.finish(AT_ONCE) == ["36", "ended"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.parametrize(
    "reaper", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "threading.Thread(target=reap).start()"]
)
def test_workers_that_somebody_else_reaps(script: Callable[..., Script], start_method: str, reaper: str) -> None:
    """Nobody ever learns their exit codes; the pool ends all the same."""
    program = script(
        f"""
        def reap():
            while not over:
                try:
                    os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    pass
                time.sleep(0.001)

        over = []
        {reaper}
        try:
            with weirpool.ProcessPoolExecutor(2, multiprocessing.get_context({start_method!r})) as pool:
                assert pool.submit(tasks.square, 3).result() == 9
        finally:
            over.append(True)
        say("ended")
        """
    )
    assert program.line() == "ended"
    assert program.end() == 0


def test_exit_codes_while_other_threads_ask_for_them_too(
    pools: Pools, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """multiprocessing asks all children whenever one is started. Here whoever has learnt a code is slow to note it."""

    def poll_slowly(popen: Any, flag: int = os.WNOHANG) -> int | None:
        if popen.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(popen.pid, flag)
                if pid == popen.pid:
                    time.sleep(0.02)
                    popen.returncode = os.waitstatus_to_exitcode(status)
        return popen.returncode  # type: ignore[no-any-return]

    def read_slowly(fd: int, read: Callable[[int], int] = forkserver.read_signed) -> int:
        time.sleep(0.02)
        return read(fd)

    def ask() -> None:
        while not over.is_set():
            multiprocessing.active_children()

    monkeypatch.setattr(popen_fork.Popen, "poll", poll_slowly)
    monkeypatch.setattr(forkserver, "read_signed", read_slowly)
    over = threading.Event()
    threads.start(ask)
    threads.start(ask)
    try:
        for method in ("spawn", "forkserver"):
            pool = pools.unbounded(1, method, on_worker_death="replace")
            for code in (7, 8, 9):
                error = pool.submit(os._exit, code).exception(SOON)
                assert isinstance(error, weirpool.WorkerDied)
                assert error.exitcode == code
                assert pool.submit(tasks.square, 3).result(SOON) == 9
    finally:
        over.set()
