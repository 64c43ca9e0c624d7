"""Signals that come while a worker is being started: no worker is left that nobody knows, and no task is run twice."""

import contextlib
import faulthandler
import multiprocessing.context
import os
import random
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tasks
from support import (
    DEATH_MODES,
    Gate,
    Pools,
    Script,
    every_mode,
    executor_text,
    in_forked_child,
    options_of,
    wait_asleep,
)

from weirpool import ProcessPoolExecutor, _core, _interrupts, _reap

AT_ONCE = 20.0  # seconds for what takes a fraction of one
Start = Callable[..., Script]

RAISING = """
    from starts import Late, each_start, wait_held
    from support import is_gone

    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    def press_twice():  # a second Ctrl-C is not put off
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGALRM, interrupt)
"""


@pytest.fixture
def raising(script: Start) -> Start:
    """Starts a script that begins with the above."""
    return lambda body, *args: script(RAISING + body, *args)


# ---- Handlers that raise -------------------------------------------------------------------------


@every_mode
def test_a_handler_that_raises_while_a_worker_is_started(raising: Start, method: str, mode: str) -> None:
    """It does so when the worker is there: submit() raises what it raised, and the pool has all its workers."""
    program = raising(
        f"""
    starts = each_start({method!r}, lambda pid: signal.raise_signal(signal.SIGALRM))
    with {executor_text(8, 2, method, mode)} as pool:
        for _ in range(2):
            try:
                pool.submit(tasks.nothing)
                say("submitted")
            except Interrupted:
                say("interrupted")
        assert set(pool._processes) == set(starts)
        try:
            assert sum(pool.map(tasks.square, range(200))) == sum(n * n for n in range(200))
        except Interrupted:  # it started one more
            assert sum(pool.map(tasks.square, range(200))) == sum(n * n for n in range(200))
        pool._check()
        assert set(pool._processes) == set(starts)
    """
    )
    said = program.finish(AT_ONCE)
    assert said[0] == "interrupted"
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.race
@every_mode
def test_a_handler_that_raises_at_any_moment_of_starts(raising: Start, tmp_path: Path, method: str, mode: str) -> None:
    """Each task that was accepted runs once, whenever it comes. (That it comes within a start is seen to above.)"""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    turns = {"fork": 15, "forkserver": 10, "spawn": 5}[method]
    program = raising(
        f"""
    import random
    chance, number = random.Random({seed}), 0
    for turn in range({turns}):
        path = os.path.join(sys.argv[1], f"log{{turn}}")
        with {executor_text(40, 3, method, mode)} as pool:
            futures = {{}}
            for _ in range(9):
                number += 1
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + chance.random() * chance.choice((0.002, 0.02)))
                    futures[number] = pool.submit(tasks.log, path, number)
                    time.sleep(1)  # until it comes
                except Interrupted:
                    pass
            wait(list(futures.values()))
            assert [future.exception() for future in futures.values()] == [None] * len(futures)
            pool._check()
            assert sorted(pool._processes) == sorted(worker.pid for worker in pool.stats().workers)
        with open(path) as lines:
            ran = [int(line) for line in lines]
        assert len(set(ran)) == len(ran), "a task ran twice"
        assert set(futures) <= set(ran), "a task was lost"
    say("ended")
    """,
        tmp_path,
    )
    assert program.finish(100) == ["ended"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.race
@every_mode
def test_a_service_that_is_told_to_end_while_it_starts_workers(script: Start, method: str, mode: str) -> None:
    """SIGTERM's handler raises SystemExit, as in many services: a clean exit, at whatever moment."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    program = script(
        f"""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        say("ready")
        while True:
            with {executor_text(4, 3, method, mode)} as pool:
                wait([pool.submit(tasks.square, number) for number in range(20)])  # a map that is not read warns
        """
    )
    assert program.line() == "ready"
    threading.Event().wait(random.Random(seed).random() * 0.5)
    os.kill(program.pid, signal.SIGTERM)
    assert program.end(AT_ONCE) == 7
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_handler_that_stops_the_task_of_a_worker_that_is_started(raising: Start, gate: Gate, method: str) -> None:
    """cancel(force=True) waits for that worker's end, so the pool has to know its process by then."""
    program = raising(
        f"""
    from weirpool._crew import Crew
    watch, late = Crew._watch, []

    def watch_late(*args):
        if late:
            soon(late[0].running, "the worker has claimed it")
            signal.raise_signal(signal.SIGALRM)
        watch(*args)

    Crew._watch = watch_late
    with {executor_text(8, 2, method, "replace")} as pool:
        held = pool.submit(tasks.hold, sys.argv[1])
        soon(held.running, "it runs")
        signal.signal(signal.SIGALRM, lambda *_: say(late[0].cancel(force=True)))
        start_one, pool._crew.start_one = pool._crew.start_one, lambda: None
        late.append(pool.submit(tasks.hold, sys.argv[1]))
        start_one()
        assert late[0].cancelled()
        late.clear()
        open(os.path.join(sys.argv[1], "open"), "w").close()
        pool._check()
    """,
        gate.folder,
    )
    assert program.finish(AT_ONCE) == ["True"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


# ---- A start that is interrupted all the same ----------------------------------------------------


@every_mode
def test_a_worker_that_nobody_knows_and_that_comes_late_is_turned_away(
    raising: Start, gate: Gate, tmp_path: Path, method: str, mode: str
) -> None:
    """Its number is another's by then. It leaves without a word, and has run nothing."""
    executor = f"{executor_text(8, 1, method, mode)[:-1]}, initializer=tasks.nothing_with, initargs=(late,))"
    program = raising(
        f"""
    folder, path = sys.argv[1:]
    late = Late(folder, {method!r})
    starts = each_start({method!r}, lambda pid: len(starts) == 1 and (wait_held(folder), press_twice()))
    with {executor} as pool:
        try:
            pool.submit(tasks.log, path, -1)
        except KeyboardInterrupt:
            say("interrupted")
        futures = [pool.submit(tasks.log, path, number) for number in range(50)]
        wait(futures)
        open(os.path.join(folder, "open"), "w").close()
        futures += [pool.submit(tasks.log, path, number) for number in range(50, 100)]
        soon(lambda: is_gone(starts[0]), "the late one leaves")
        wait(futures)
        assert [future.exception() for future in futures] == [None] * 100
        pool._check()
        assert list(pool._processes) == starts[1:]
    with open(path) as lines:
        assert sorted(map(int, lines)) == list(range(100))
    """,
        gate.folder,
        tmp_path / "log",
    )
    assert program.finish(AT_ONCE) == ["interrupted"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.parametrize(("method", "mode"), [("spawn", "break"), ("spawn", "replace"), ("forkserver", "replace")])
def test_a_worker_that_nobody_knows_and_that_works_breaks_the_pool(
    raising: Start, gate: Gate, method: str, mode: str
) -> None:
    """Nobody would see it die. So everybody is told why, and it leaves."""
    executor = f"{executor_text(8, 1, method, mode)[:-1]}, initializer=tasks.hold, initargs=(folder,))"
    program = raising(
        f"""
    folder = sys.argv[1]
    each_start({method!r}, lambda pid: (wait_held(folder), press_twice()))
    with {executor} as pool:
        try:
            pool.submit(tasks.nothing)
        except KeyboardInterrupt:
            say("interrupted")
        try:
            pool.submit(tasks.nothing)
        except BrokenProcessPool as error:
            say(error)
        open(os.path.join(folder, "open"), "w").close()
    """,
        gate.folder,
    )
    interrupted, reason = program.finish(AT_ONCE)
    assert interrupted == "interrupted"
    assert "interrupted by a signal handler" in reason
    assert program.err.read_text() == ""
    program.leaves_nothing()


# ---- Ctrl-C while workers import -----------------------------------------------------------------

# A module that takes long to import, in a worker, and says when that begins.
SLOW = """
    import multiprocessing, os, sys, time

    folder = os.path.dirname(__file__)
    if multiprocessing.current_process().name != "MainProcess":
        open(os.path.join(folder, f"importing-{os.getpid()}"), "w").close()
        while not os.path.exists(os.path.join(folder, "open")):
            time.sleep(0.002)

    def nothing():
        pass
"""
IMPORTING = """
    import slow, glob
    pool = {executor}
    threads = [threading.Thread(target=pool.submit, args=(tasks.nothing,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    soon(lambda: len(glob.glob(sys.argv[1] + "/importing-*")) == 3, "they import")
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    return tmp_path


def importing(method: str, mode: str) -> str:
    """Three workers import the slow module, whose function is their initializer."""
    return IMPORTING.format(executor=f"{executor_text(9, 3, method, mode)[:-1]}, initializer=slow.nothing)")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_ctrl_c_while_workers_import_harms_no_pool_that_replaces(script: Start, slow: Path, method: str) -> None:
    """The program goes on, and so do its workers: no death, no traceback."""
    program = script(
        importing(method, "replace")
        + """
    try:
        say("ready")
        time.sleep(60)
    except KeyboardInterrupt:
        say("interrupted")
    open(sys.argv[1] + "/open", "w").close()
    assert sum(pool.map(tasks.square, range(100))) == sum(n * n for n in range(100))
    pool._check()
    say(pool.stats().workers_died, len(glob.glob(sys.argv[1] + "/importing-*")))
    pool.shutdown()
    """,
        slow,
    )
    assert program.line() == "ready"
    program.ctrl_c()
    assert program.finish(AT_ONCE) == ["interrupted", "0 3"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


@pytest.mark.parametrize("place", ["in the block", "at the interpreter's exit"])
@pytest.mark.parametrize("mode", DEATH_MODES)
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_ctrl_c_does_not_wait_for_workers_that_import(
    script: Start, slow: Path, method: str, mode: str, place: str
) -> None:
    """One is enough, although they would import for ever."""
    wait_there = """
    try:
        with pool:
            say("ready")
    except KeyboardInterrupt:
        say("interrupted")
    """
    program = script(importing(method, mode) + (wait_there if place == "in the block" else '    say("ready")'), slow)
    assert program.line() == "ready"
    wait_asleep(program.pid)
    program.ctrl_c()
    program.end(AT_ONCE)
    program.leaves_nothing()
    if place == "in the block":
        assert program.line() == "interrupted"
        assert program.err.read_text() == ""


@every_mode
def test_ctrl_c_is_blocked_in_nobody_who_has_started(pools: Pools, method: str, mode: str) -> None:
    """Neither in a worker, nor in what its tasks start, nor in whoever is told its name."""
    pool = pools.bounded(4, 2, method, **options_of(mode))
    assert pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(AT_ONCE) == set()
    assert pool.submit(tasks.run_in_process, signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(AT_ONCE) == set()
    assert [type(process.name) for process in pool._processes.values()] == [str] * len(pool._processes)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize(("method", "mode"), [("fork", "break"), ("spawn", "break"), ("spawn", "replace")])
def test_ctrl_c_stays_blocked_where_the_program_has_it_blocked(pools: Pools, method: str, mode: str) -> None:
    """A program that waits for signals with sigwait() wants its workers to finish their tasks."""
    resource_tracker.ensure_running()  # else it is started by the first worker, and leaves Ctrl-C unblocked here, too
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pool = pools.bounded(4, 1, method, **options_of(mode))
        mask = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(AT_ONCE)
        assert mask == signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGINT}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.race
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_ctrl_c_at_any_moment_of_starts_leaves_a_pool_that_replaces(script: Start, method: str) -> None:
    """Whatever a worker was doing: its interpreter began, it imported, attached, waited."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    program = script(
        f"""
    with {executor_text(9, 1, method, "replace")} as pool:  # else the fork server may be interrupted
        pool.submit(tasks.nothing).result()
    with {executor_text(9, 3, method, "replace")} as pool:
        try:
            say("ready")
            for _ in range(9):
                pool.submit(tasks.nap, 0.01)
            time.sleep(60)
        except KeyboardInterrupt:
            say("interrupted")
        assert sum(pool.map(tasks.square, range(100))) == sum(n * n for n in range(100))
        pool._check()
        assert pool.stats().workers_died < 3
    """
    )
    assert program.line() == "ready"
    threading.Event().wait(random.Random(seed).random() * 0.4)
    program.ctrl_c()
    assert program.finish(AT_ONCE) == ["interrupted"]
    assert program.err.read_text() == ""
    program.leaves_nothing()


# ---- Putting signals off -------------------------------------------------------------------------


@pytest.fixture
def seen() -> Iterator[list[int]]:
    """Signals whose handlers have run: SIGUSR1, SIGUSR2, SIGALRM and SIGINT have such."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGINT)
    came: list[int] = []
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    yield came
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_ctrl_c_that_is_put_off_comes_later_and_a_second_one_at_once(seen: list[int]) -> None:
    with _interrupts.put_off():
        with _interrupts.put_off():
            signal.raise_signal(signal.SIGINT)
        assert seen == []
    assert len(seen) == 1
    with _interrupts.put_off():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert len(seen) == 2
    assert len(seen) == 3


def test_any_signal_is_put_off_however_often_it_comes(seen: list[int]) -> None:
    handlers = [signal.getsignal(number) for number in range(1, signal.NSIG)]
    with _interrupts.put_off():
        for number in (signal.SIGUSR1, signal.SIGALRM, signal.SIGUSR1, signal.SIGALRM):
            signal.raise_signal(number)
        assert seen == []
    assert sorted(seen) == sorted([signal.SIGUSR1, signal.SIGALRM])
    assert [signal.getsignal(number) for number in range(1, signal.NSIG)] == handlers


def test_a_signal_that_comes_again_later_takes_effect(seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is put off by a start that hangs can end it."""
    with _interrupts.put_off():
        signal.raise_signal(signal.SIGUSR1)
        monkeypatch.setattr(_interrupts, "_PATIENCE_SECONDS", 0.0)
        signal.raise_signal(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]


def test_handlers_that_raise_are_all_called_and_all_there_again(seen: list[int]) -> None:
    def fail(number: int, _: object) -> None:
        seen.append(number)
        raise KeyError(number)

    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM]
    for number in numbers:
        signal.signal(number, fail)
    with pytest.raises(KeyError) as raised, _interrupts.put_off():
        for number in numbers:
            signal.raise_signal(number)
        raise ValueError("in the block")
    assert sorted(seen) == sorted(numbers)
    assert [signal.getsignal(number) for number in numbers] == [fail] * 3
    errors = [raised.value]
    while (context := errors[-1].__context__) is not None:
        errors.append(context)  # type: ignore[arg-type]
    assert [type(error) for error in errors] == [KeyError] * 3 + [ValueError]


@pytest.fixture
def interrupting(seen: list[int]) -> Callable[[int], bool]:
    """Puts signals off while a Ctrl-C comes twice at the given step; returns False if there are fewer steps.

    Steps are calls of and from our functions: there CPython looks for signals.
    """

    def interrupt(*_: object) -> None:
        raise KeyError

    def put_off_with_interrupt_at(step: int) -> bool:
        steps = 0

        def look(frame: FrameType, event: str, _: object) -> None:
            nonlocal steps
            if frame.f_code.co_filename == _interrupts.__file__ and event in ("call", "c_return"):
                steps += 1
                if steps == step:
                    signal.raise_signal(signal.SIGINT)
                    signal.raise_signal(signal.SIGINT)

        sys.setprofile(look)
        try:
            with contextlib.suppress(KeyError), _interrupts.put_off():
                pass
        finally:
            sys.setprofile(None)
        return steps >= step

    signal.signal(signal.SIGINT, interrupt)
    return put_off_with_interrupt_at


def test_a_handler_that_raises_at_any_step_leaves_nothing_behind(
    seen: list[int], interrupting: Callable[[int], bool]
) -> None:
    """A second Ctrl-C takes effect at once, also where the block ends. No later signal may be put off for good."""
    handlers = [signal.getsignal(number) for number in range(1, signal.NSIG)]
    step = 1
    while interrupting(step):
        assert [signal.getsignal(number) for number in range(1, signal.NSIG)] == handlers, step
        with _interrupts.put_off():
            signal.raise_signal(signal.SIGUSR1)
            assert len(seen) == step - 1, "signals are not put off any more"
        assert len(seen) == step
        step += 1
    assert step > 10


def test_what_signal_does_not_know_of_a_handler_is_there_again(seen: list[int], tmp_path: Path) -> None:
    """That system calls go on, as asyncio has it for its handlers; and a handler in C that stands before it."""
    signal.siginterrupt(signal.SIGUSR1, False)
    with (tmp_path / "stacks").open("w") as stacks:
        faulthandler.register(signal.SIGUSR2, stacks, chain=True)
        actions = [_core.signal_action(number) for number in (signal.SIGUSR1, signal.SIGUSR2)]
        with _interrupts.put_off():
            signal.raise_signal(signal.SIGUSR1)
        assert [_core.signal_action(number) for number in (signal.SIGUSR1, signal.SIGUSR2)] == actions
        signal.raise_signal(signal.SIGUSR2)
        faulthandler.unregister(signal.SIGUSR2)
    assert seen == [signal.SIGUSR1, signal.SIGUSR2]
    assert "most recent call first" in (tmp_path / "stacks").read_text()


def test_a_handler_that_a_handler_has_replaced_is_left_alone(seen: list[int]) -> None:
    def replace(*_: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise KeyError

    signal.signal(signal.SIGUSR2, replace)
    with pytest.raises(KeyError), _interrupts.put_off():
        signal.raise_signal(signal.SIGUSR2)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR2) is replace


def test_a_fork_by_another_thread_has_its_handlers(seen: list[int]) -> None:
    """It is no worker, and nobody resumes there: what puts signals off must not stay."""

    def say() -> object:
        signal.raise_signal(signal.SIGUSR2)
        return seen

    said: list[str] = []
    with _interrupts.put_off():
        signal.raise_signal(signal.SIGUSR1)
        forker = threading.Thread(target=lambda: said.append(in_forked_child(say)))
        forker.start()
        forker.join()
        assert said == [str([int(signal.SIGUSR2)])]
    assert seen == [signal.SIGUSR1]


# ---- Forks in the midst --------------------------------------------------------------------------


def test_a_fork_asks_for_exit_codes_while_a_thread_of_its_parent_does() -> None:
    """A child of os.fork() asks all children of its parent's when it starts a process of its own, or exits."""
    asks, go_on = threading.Event(), threading.Event()

    class Popen:
        def poll(self, flag: int = os.WNOHANG) -> int | None:
            if threading.current_thread() is asker:
                asks.set()
                go_on.wait()
            return None

    popen: Any = Popen()
    _reap.serialise_polls(types.SimpleNamespace(_popen=popen))  # type: ignore[arg-type]
    asker = threading.Thread(target=popen.poll, daemon=True)
    asker.start()
    asks.wait()
    try:
        assert in_forked_child(popen.poll) == "None"
    finally:
        go_on.set()
        asker.join()


def test_a_fork_can_join_the_thread_that_it_has_not(pools: Pools) -> None:
    pool = pools.unbounded(1, "fork")
    pool.submit(abs, -1).result(AT_ONCE)
    collector = pool._executor_manager_thread
    assert collector is not None
    assert in_forked_child(collector.join) == "None"


class Deputy:
    """Stands for a process of multiprocessing's, and has of it only what is public."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        vars(self)["_real"] = multiprocessing.get_context("fork").Process(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._real, name, value)


class DeputyContext(multiprocessing.context.ForkContext):
    Process = Deputy  # type: ignore[assignment]


def test_a_context_may_have_processes_of_its_own() -> None:
    with ProcessPoolExecutor(1, mp_context=DeputyContext()) as pool:
        assert pool.submit(abs, -1).result(AT_ONCE) == 1
