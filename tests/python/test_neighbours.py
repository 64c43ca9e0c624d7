"""Bad neighbours: workers that are stopped, objects and callbacks that act, and a lack of everything."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
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
    context,
    end_soon,
    every_mode,
    executor_text,
    is_gone,
    options_of,
    proceed,
    stop,
    wait_until,
    worker_pids,
)

import weirpool
from weirpool._crew import _GRACE_SECONDS

SOON = 60.0
AT_ONCE = 20.0  # seconds for what takes a fraction of one
MIB = 1 << 20
Start = Callable[..., Script]


# ---- A worker that is killed under many producers ------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("size", [0, 200_000], ids=["small", "large"])
@every_mode
def test_twelve_blocked_producers_and_one_kill(
    pools: Pools, gate: Gate, threads: Threads, method: str, mode: str, size: int
) -> None:
    """ "break": twelve errors that say why. "replace": one task is lost, and everybody else goes on."""
    pool = pools.bounded(2, 2, method, **options_of(mode))
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    gate.wait_started(2)
    for _ in range(12):
        threads.start(pool.submit, tasks.size_of, bytes(size))
    wait_until(lambda: pool.stats().blocked_producers == 12, "twelve are blocked")
    began = time.monotonic()
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    if mode == "replace":
        gate.open()
    futures = threads.join()
    print(f"all twelve went on after {time.monotonic() - began:.3f} s")
    ends = [*threads.errors, *(future.exception(SOON) for future in [*held, *futures])]
    if mode == "replace":
        died = [end for end in ends if end is not None]
        assert [type(end) for end in died] == [weirpool.WorkerDied]
        assert "SIGKILL" in str(died[0])
        return
    assert [type(end) for end in ends] == [BrokenProcessPool] * 14
    assert ["signal 9" in str(end.__cause__) for end in ends if end] == [True] * 14


# ---- Workers that are stopped --------------------------------------------------------------------


@pytest.fixture
def stopped() -> Iterator[Callable[[int], None]]:
    """Stops processes; they go on at the end of the test, whatever came of it."""
    pids: list[int] = []

    def stop_one(pid: int) -> None:
        pids.append(pid)
        stop(pid)

    yield stop_one
    for pid in pids:
        proceed(pid)


def four_workers(pools: Pools, gate: Gate, method: str, mode: str, bound: int | None) -> Any:
    """A pool of four, all of them started and idle."""
    pool = pools.bounded(bound, 4, method, **options_of(mode))
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(4)]
    gate.wait_started(4)
    gate.open()
    wait(held)
    (Path(gate.folder) / "open").unlink()
    return pool


bounds = pytest.mark.parametrize("bound", [None, 8], ids=["no bound", "bound 8"])


@bounds
@every_mode
def test_others_go_on_while_an_idle_worker_is_stopped(
    pools: Pools, gate: Gate, stopped: Callable[[int], None], method: str, mode: str, bound: int | None
) -> None:
    pool = four_workers(pools, gate, method, mode, bound)
    victim = worker_pids(pool)[0]
    stopped(victim)
    futures = [pool.submit(tasks.nap, 0.001) for _ in range(2000)]
    assert wait(futures, SOON).not_done == set()
    proceed(victim)
    pids = {pool.submit(tasks.pid).result(SOON) for _ in range(4)}
    assert pids <= set(worker_pids(pool))


@bounds
@every_mode
def test_others_go_on_while_a_worker_is_stopped_in_its_task(
    pools: Pools, gate: Gate, stopped: Callable[[int], None], method: str, mode: str, bound: int | None
) -> None:
    pool = four_workers(pools, gate, method, mode, bound)
    report = str(Path(gate.folder) / "pid")
    held = pool.submit(tasks.hold_and_tell, gate.folder, report)
    victim = int(wait_until(lambda: Path(report).exists() and Path(report).read_text().strip(), "it runs"))
    stopped(victim)
    gate.open()
    futures = [pool.submit(tasks.nap, 0.001) for _ in range(2000)]
    assert wait(futures, SOON).not_done == set()
    assert not held.done()
    assert held.running()
    proceed(victim)
    assert held.result(SOON) == victim


@pytest.mark.race
@every_mode
def test_others_go_on_while_a_worker_is_stopped_in_a_large_result(
    pools: Pools, gate: Gate, stopped: Callable[[int], None], method: str, mode: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = four_workers(pools, gate, method, mode, 8)
    report = str(Path(gate.folder) / "pid")
    large = pool.submit(tasks.tell_then_return, report, 100 * MIB)
    victim = int(wait_until(lambda: Path(report).exists() and Path(report).read_text().strip(), "it runs"))
    time.sleep(random.Random(seed).random() * 0.05)
    stopped(victim)
    futures = [pool.submit(tasks.zeros, 10_000 * (number % 100)) for number in range(1000)]
    assert [len(future.result(SOON)) for future in futures] == [10_000 * (number % 100) for number in range(1000)]
    proceed(victim)
    assert len(large.result(SOON)) == 100 * MIB


@pytest.mark.race
@every_mode
def test_others_go_on_while_a_worker_is_stopped_on_its_way(
    pools: Pools, gate: Gate, stopped: Callable[[int], None], method: str, mode: str
) -> None:
    """It is stopped between two instructions, whichever: it may have a task by then, and nobody else's."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    pool = four_workers(pools, gate, method, mode, None)
    for victim in worker_pids(pool):
        futures = [pool.submit(tasks.nap, dice.random() * 0.001) for _ in range(dice.randrange(1, 50))]
        stopped(victim)
        for _ in range(20):  # each finds the others parked
            futures.append(pool.submit(tasks.nothing))
            time.sleep(dice.random() * 0.002)
        wait_until(lambda futures=futures: sum(not future.done() for future in futures) <= 1, "the others go on")
        proceed(victim)
        assert wait(futures, SOON).not_done == set()


@every_mode
def test_shutdown_with_a_stopped_worker_returns_when_it_goes_on(
    pools: Pools, gate: Gate, threads: Threads, stopped: Callable[[int], None], method: str, mode: str
) -> None:
    pool = four_workers(pools, gate, method, mode, None)
    victim = worker_pids(pool)[0]
    stopped(victim)
    futures = [pool.submit(tasks.square, number) for number in range(100)]
    threads.start(pool.shutdown)
    assert [future.result(SOON) for future in futures] == [number * number for number in range(100)]
    proceed(victim)
    threads.join()
    assert threads.errors == []


@pytest.mark.parametrize("how", ["break", "kill_workers", "terminate_workers"])
def test_a_stopped_worker_is_ended_by_force(
    pools: Pools, gate: Gate, threads: Threads, stopped: Callable[[int], None], how: str
) -> None:
    """It cannot listen: after some seconds it is killed. Nobody waits for it to learn that the pool broke."""
    pool = four_workers(pools, gate, "fork", "break", None)
    victim, other = worker_pids(pool)[:2]
    stopped(victim)
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(3)]
    gate.wait_started(4 + 3)
    if how == "break":
        os.kill(other, signal.SIGKILL)
        assert {type(future.exception(AT_ONCE)) for future in held} == {BrokenProcessPool}
    else:
        getattr(pool, how)()
    if how == "terminate_workers":
        proceed(victim)
    threads.start(pool.shutdown)
    threads.join()
    assert is_gone(victim)


def test_workers_that_do_not_listen_are_ended_together(pools: Pools, gate: Gate, threads: Threads) -> None:
    """They have one time of grace, and not one after the other."""
    pool = pools.bounded(None, 12, "fork", initializer=signal.signal, initargs=(signal.SIGTERM, signal.SIG_IGN))
    held = [pool.submit(tasks.hold, gate.folder) for _ in range(12)]
    gate.wait_started(12)
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    assert {type(future.exception(AT_ONCE)) for future in held} == {BrokenProcessPool}
    began = time.monotonic()
    threads.start(pool.shutdown)
    threads.join()
    assert time.monotonic() - began < 11 * _GRACE_SECONDS / 2


@every_mode
def test_an_initializer_that_fails_and_leaves_a_thread(pools: Pools, threads: Threads, method: str, mode: str) -> None:
    """Its process does not end by itself, and is not waited for."""
    pool = pools.bounded(3, 2, method, initializer=tasks.linger_and_fail, **options_of(mode))

    def attempt() -> None:
        with pytest.raises(BrokenProcessPool):  # of submit(), where the failure was quicker
            pool.submit(tasks.nothing).result(SOON)

    for _ in range(4):
        threads.start(attempt)
    threads.join()
    assert threads.errors == []
    threads.start(pool.shutdown)
    threads.join()


# ---- Callbacks and objects that act --------------------------------------------------------------


@every_mode
def test_a_callback_that_blocks_holds_up_nobody_but_callbacks(
    pools: Pools, threads: Threads, gate: Gate, tmp_path: Path, method: str, mode: str
) -> None:
    pool = pools.bounded(3, 2, method, **options_of(mode))
    entered, leave = threading.Event(), threading.Event()
    told: list[int] = []
    held = pool.submit(tasks.hold, gate.folder)  # not done yet: else the callback runs right here
    held.add_done_callback(lambda _: (entered.set(), leave.wait(SOON)))
    gate.open()
    assert entered.wait(SOON)
    for _ in range(4):
        threads.start(lambda: [pool.submit(tasks.square, number).result(SOON) for number in range(100)])
    assert threads.join() == [[number * number for number in range(100)]] * 4
    assert list(pool.map(tasks.square, range(50))) == [number * number for number in range(50)]
    assert len(pool.submit(tasks.zeros, 20 * MIB).result(SOON)) == 20 * MIB
    late = Gate(tmp_path / "late")
    last = pool.submit(tasks.hold, late.folder, 5)
    last.add_done_callback(lambda future: told.append(future.result()))
    late.open()
    assert last.result(SOON) == 5
    assert told == []
    leave.set()
    wait_until(lambda: told == [5], "the next callback runs")


@pytest.mark.parametrize("error", [tasks.OddError, SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit])
def test_a_callback_that_raises_harms_nobody(
    pools: Pools, gate: Gate, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    pool = pools.bounded(2, 2)
    told = threading.Event()
    future = pool.submit(tasks.hold, gate.folder)  # not done yet: else the callbacks run right here
    future.add_done_callback(lambda _: tasks.fail_with(error))
    future.add_done_callback(lambda _: told.set())
    gate.open()
    assert told.wait(SOON)
    assert pool.submit(tasks.square, 6).result(SOON) == 36
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")
    assert "exception calling callback" in caplog.text


@every_mode
@pytest.mark.parametrize("child", ["leaves", "comes back"])
def test_a_callback_that_forks(script: Start, tmp_path: Path, method: str, mode: str, child: str) -> None:
    """A child that comes back from the callback ends there: the other callbacks are the parent's."""
    program = script(
        f"""
        pool = {executor_text(40, 2, method, mode)}

        def fork(future):
            tasks.log(sys.argv[1], future.result())
            child = os.fork()
            if child == 0 and {child!r} == "leaves":
                os._exit(7)
            if child != 0:
                os.waitpid(child, 0)

        futures = [pool.submit(tasks.nap_and_echo, 0.1, number) for number in range(20)]
        for future in futures:
            future.add_done_callback(fork)
        soon(lambda: pool.stats().outstanding == 0, "every callback has run")
        say(pool.submit(tasks.square, 6).result())
        pool.shutdown()
        """,
        tmp_path / "log",
    )
    assert program.finish() == ["36"]
    assert program.err.read_text() == ""
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(20))
    program.leaves_nothing()


@pytest.mark.race
@every_mode
def test_a_result_that_takes_the_producers_lock_when_it_is_rebuilt(
    pools: Pools, threads: Threads, monkeypatch: pytest.MonkeyPatch, method: str, mode: str
) -> None:
    """The standard pool rebuilds results in the thread that everybody depends on."""
    pool = pools.bounded(2, 2, method, **options_of(mode))
    lock = threading.Lock()
    futures: list[Future[Any]] = []

    def take_lock() -> None:
        with lock:
            pass

    def produce() -> None:
        for _ in range(50):
            with lock:
                futures.append(pool.submit(tasks.CallsWhenRebuilt, len(futures)))

    def consume() -> list[int]:
        got = []
        while len(got) < 100:
            if len(futures) > len(got):
                got.append(futures[len(got)].result(SOON).number)
            else:
                time.sleep(0.001)
        return got

    pool.submit(tasks.nothing).result()
    monkeypatch.setattr(tasks, "call_when_rebuilt", take_lock)
    for _ in range(2):
        threads.start(produce)
    threads.start(consume)
    assert list(range(100)) in threads.join()


@pytest.mark.race
@every_mode
def test_objects_that_submit_when_they_are_dropped(
    pools: Pools, threads: Threads, monkeypatch: pytest.MonkeyPatch, method: str, mode: str
) -> None:
    """Wherever that happens: in the collector's thread, within a submission, in a result()."""
    pool = pools.bounded(2, 2, method, **options_of(mode))
    futures: list[Future[Any]] = []
    pool.submit(tasks.nothing).result()
    monkeypatch.setattr(tasks, "call_when_dropped", lambda: futures.append(pool.submit(tasks.square, 2)))

    def produce() -> None:
        for number in range(50):
            pool.submit(tasks.echo, tasks.CallsWhenDropped(number))  # nobody keeps its future
            pool.submit(tasks.CallsWhenDropped, number).result(SOON)
            pool.submit(tasks.CallsWhenDropped, number).add_done_callback(lambda future: future.result())

    for _ in range(3):
        threads.start(produce)
    threads.join()
    assert threads.errors == []
    wait_until(lambda: pool.stats().outstanding == 0, "all have ended")
    monkeypatch.setattr(tasks, "call_when_dropped", None)
    assert len(futures) >= 3 * 50 * 2
    assert {future.result(SOON) for future in list(futures)} == {4}


# ---- A lack of memory, files, processes ----------------------------------------------------------

LIMITS = """
        import resource

        def set_limit(which, value):
            resource.setrlimit(which, (value, resource.getrlimit(which)[1]))

        def attempt(what):
            try:
                return what()
            except (OSError, EOFError, MemoryError, RuntimeError, ImportError) as error:
                return type(error).__name__

        def sound(pool):
            soon(lambda: pool.stats().outstanding == 0, "every permit is back")
            pool._check()
            return pool.submit(tasks.square, 6).result(60)
"""


def test_a_task_larger_than_the_shared_memory_is_refused_at_once(script: Start) -> None:
    """Whether there is room for it or not, and the producer that waits for room is told when its turn comes."""
    program = script(
        f"""{LIMITS}
        set_limit(resource.RLIMIT_FSIZE, 300 << 20)
        pool = {executor_text(2, 2, "fork", "break")}
        for _ in range(5):
            try:
                pool.submit(tasks.size_of, bytes(400 << 20))
            except MemoryError as error:
                print(error)
        say(pool.submit(tasks.size_of, bytes(40 << 20)).result(60))
        say(sound(pool))
        """
    )
    *said, size, squared = program.finish()
    assert said == ["the pickled task is larger than the shared memory that the pool could get"] * 5
    assert (size, squared) == (str(40 * MIB), "36")


def test_a_limit_on_file_sizes_that_comes_later_fails_that_submission(script: Start) -> None:
    program = script(
        f"""{LIMITS}
        pool = {executor_text(2, 2, "fork", "break")}
        pool.submit(tasks.nothing).result()
        set_limit(resource.RLIMIT_FSIZE, 8 << 20)
        say(*(attempt(lambda: pool.submit(tasks.size_of, bytes(100 << 20))) for _ in range(3)))
        say(len(pool.submit(tasks.zeros, 100 << 20).result()))
        set_limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
        say(pool.submit(tasks.size_of, bytes(100 << 20)).result())
        say(sound(pool))
        """
    )
    assert program.finish() == ["MemoryError MemoryError MemoryError", str(100 * MIB), str(100 * MIB), "36"]


def test_a_task_that_waited_and_finds_no_memory_fails_alone(script: Start, gate: Gate) -> None:
    """Its payload was kept until there was room in the shared memory."""
    program = script(
        f"""{LIMITS}
        set_limit(resource.RLIMIT_FSIZE, 150 << 20)
        pool = {executor_text(9, 2, "fork", "break")}
        held = [pool.submit(tasks.hold, sys.argv[1], bytes(20 << 20)) for _ in range(2)]
        late = [pool.submit(tasks.size_of, bytes(60 << 20)) for _ in range(4)]
        soon(lambda: pool.stats().running == 2, "two run")
        set_limit(resource.RLIMIT_FSIZE, 8 << 20)
        say("ready")
        errors = [future.exception(60) for future in late]
        say(*sorted(set(str(error) for error in errors if error)))
        say(sound(pool))
        """,
        gate.folder,
    )
    assert program.line() == "ready"
    gate.open()
    *said, squared = program.finish()
    assert squared == "36"
    assert said == ["no memory for the arguments of the task"]


def test_results_for_which_there_is_no_memory_fail_alone(script: Start) -> None:
    """In the parent (its limit on address space), and in a worker that cannot make or send them."""
    program = script(
        f"""{LIMITS}
        pool = {executor_text(2, 2, "fork", "break")}
        pool.submit(tasks.nothing).result()
        workers = set(pool._processes)
        tasks.limit("RLIMIT_AS", 300 << 20)
        futures = [pool.submit(tasks.zeros, 600 << 20) for _ in range(3)]
        say(*(type(future.exception(60)).__name__ for future in futures))
        say(futures[0].exception())
        say(sound(pool), set(pool._processes) == workers)
        set_limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        say(len(pool.submit(tasks.zeros, 600 << 20).result(60)))
        """
    )
    errors, text, again, size = program.finish()
    assert errors == "MemoryError MemoryError MemoryError"
    assert text.startswith("no memory for a result of 6291456")
    assert (again, size) == ("36 True", str(600 * MIB))


@every_mode
def test_workers_without_memory_fail_the_task_and_go_on(pools: Pools, method: str, mode: str) -> None:
    """Arguments, the call itself, a result: each too large for the worker's limit on address space."""
    pool = pools.bounded(4, 1, method, initializer=tasks.limit, initargs=("RLIMIT_AS", 300 * MIB), **options_of(mode))
    worker = pool.submit(tasks.pid).result(SOON)
    for call in (
        lambda: pool.submit(tasks.size_of, bytes(600 * MIB)),
        lambda: pool.submit(tasks.size_of, [bytes(600 * MIB), 1]),
        lambda: pool.submit(tasks.fill_memory, 600 * MIB),
        lambda: pool.submit(tasks.copies, 200 * MIB, 2),
    ):
        future = call()
        assert type(future.exception(SOON)) is MemoryError
        del future
        assert pool.submit(tasks.pid).result(SOON) == worker


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_too_little_address_space_for_a_pool_is_an_error_of_submit(script: Start, method: str) -> None:
    program = script(
        f"""{LIMITS}
        {"" if method != "forkserver" else "from multiprocessing import forkserver; forkserver.ensure_running()"}
        outcomes = set()
        for room in (0, 1, 4, 16, 64, 128):
            pool = {executor_text(2, 2, method, "break")}
            tasks.limit("RLIMIT_AS", room << 20)
            outcomes.add(attempt(lambda: pool.submit(tasks.nothing).exception(60)) is not None)
            set_limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
            if not pool._broken:
                assert sound(pool) == 36
            pool.shutdown()
        say(*outcomes)
        """
    )
    assert "True" in program.finish(may_complain=True)[-1]
    program.leaves_nothing()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_too_few_descriptors_are_an_error_of_submit_and_leave_nothing_open(script: Start, method: str) -> None:
    """Wherever in the opening of a pool, or in the start of a worker, they run out."""
    program = script(
        f"""{LIMITS}
        from multiprocessing import forkserver, resource_tracker
        resource_tracker.ensure_running()
        if {method!r} == "forkserver":
            forkserver.ensure_running()

        def ours():
            found = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    found.append(os.readlink("/proc/self/fd/" + fd))
                except FileNotFoundError:
                    pass
            # Pipes are multiprocessing's: a start that fails half-way leaves some of them open.
            return sorted(link for link in found if link.startswith(("/memfd", "anon_inode")))

        REFUSED = ("OSError", "EOFError", "ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError")
        before = ours()
        failed = worked = 0
        for room in range(0, 30, {1 if method == "fork" else 4}):
            pool = {executor_text(2, 2, method, "break")}
            tasks.limit("RLIMIT_NOFILE", room)
            outcome = attempt(lambda: [future.result(60) for future in [pool.submit(tasks.nothing) for _ in range(2)]])
            set_limit(resource.RLIMIT_NOFILE, 1024)
            failed += outcome in REFUSED
            worked += outcome == [None, None]
            assert outcome in (*REFUSED, [None, None]), outcome
            soon(lambda: attempt(lambda: sound(pool)) == 36, "it works now")  # a fork server may have to be replaced
            pool.shutdown()
            del pool
            soon(lambda: ours() == before, f"descriptors are closed: {{set(ours()) - set(before)}}")
        say(failed > 0, worked > 0)
        """
    )
    assert program.finish(may_complain=True) == ["True True"]
    program.leaves_nothing()


def test_work_that_has_begun_needs_no_more_descriptors(script: Start) -> None:
    program = script(
        f"""{LIMITS}
        pool = {executor_text(4, 2, "fork", "break")}
        pool.submit(tasks.nothing).result()
        tasks.limit("RLIMIT_NOFILE", 0)
        say(sum(pool.map(tasks.square, range(200))))
        say(len(pool.submit(tasks.zeros, 50 << 20).result()), pool.submit(tasks.size_of, bytes(50 << 20)).result())
        pool.submit(tasks.nothing).add_done_callback(lambda future: say("called", future.result()))
        pool.shutdown()
        """
    )
    assert program.finish() == [str(sum(n * n for n in range(200))), f"{50 * MIB} {50 * MIB}", "called None"]
    program.leaves_nothing()


def test_processes_that_cannot_be_started_are_an_error_of_submit(script: Start) -> None:
    """Once processes can be started again the same executor goes on."""
    program = script(
        f"""{LIMITS}
        with {executor_text(2, 1, "fork", "break")} as pool:  # loads what an unknown user could not
            pool.submit(tasks.nothing).result()
        pool = {executor_text(4, 2, "fork", "break")}
        if os.geteuid() == 0:  # whom this limit does not bind
            os.setresgid(61_234, 61_234, 61_234)
            os.setresuid(61_234, 61_234, 61_234)
        set_limit(resource.RLIMIT_NPROC, 0)
        say(*(attempt(lambda: pool.submit(tasks.nothing)) for _ in range(3)))
        set_limit(resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        say(sound(pool))
        """
    )
    errors, squared = program.finish()
    assert errors.split() == ["BlockingIOError"] * 3
    assert squared == "36"
    program.leaves_nothing()


def test_one_more_worker_that_cannot_be_started_costs_only_that_submission(
    pools: Pools, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools.bounded(4, 2, "spawn")
    held = pool.submit(tasks.hold, gate.folder, "held")
    gate.wait_started(1)

    def refuse(*_: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(context("spawn").Process, "start", refuse)
        for _ in range(5):
            with pytest.raises(BlockingIOError):
                pool.submit(tasks.nothing)
        assert pool.stats().outstanding == 1
    assert pool.submit(tasks.square, 6).result(SOON) == 36
    gate.open()
    assert held.result(SOON) == "held"


# ---- Killed for want of memory -------------------------------------------------------------------


class MemoryGroup:
    """A control group for memory, of either version."""

    def __init__(self, folder: Path, limit_name: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / limit_name).write_text(str(100 * MIB))

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        procs = self.folder / "cgroup.procs"
        wait_until(lambda: not procs.read_text().strip(), "the processes of the control group end")
        self.folder.rmdir()


@pytest.fixture
def memory_group(pools: Pools) -> Iterator[MemoryGroup]:
    root = Path("/sys/fs/cgroup")
    name = f"weirpool-test-{os.getpid()}"
    try:
        if (root / "memory").is_dir():
            group = MemoryGroup(root / "memory" / name, "memory.limit_in_bytes")
        else:
            group = MemoryGroup(root / name, "memory.max")
    except OSError as error:
        pytest.skip(f"no control group for memory can be made here: {error}")
    yield group
    for pool in pools.made:
        end_soon(pool)
    group.remove()


@every_mode
def test_a_worker_that_the_system_kills_for_its_memory(
    pools: Pools, memory_group: MemoryGroup, method: str, mode: str
) -> None:
    pool = pools.bounded(4, 1, method, **options_of(mode))
    worker = pool.submit(tasks.pid).result(SOON)
    memory_group.add(worker)
    error = pool.submit(tasks.fill_memory, 400 * MIB).exception(SOON)
    died = error if mode == "replace" or error is None else error.__cause__
    assert isinstance(died, weirpool.WorkerDied)
    assert (died.pid, died.signal) == (worker, "SIGKILL")
    if mode == "replace":
        assert pool.submit(tasks.square, 6).result(SOON) == 36
