"""What programs that were written for the standard pool count on, beyond its methods: CPython 3.14's behaviour.

CPython's own tests run in tests/conformance; these cover what those leave out, and what weirpool does better.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.util
import os
import pickle
import queue
import signal
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from typing import Any

import pytest
import tasks
from support import PATIENCE, Gate, Pools, Threads, is_gone, start_workers, wait_until, worker_pids

import weirpool

FORCE = {"terminate_workers": signal.SIGTERM, "kill_workers": signal.SIGKILL}
UNPICKLABLE = threading.Lock()


@pytest.fixture(params=FORCE)
def force(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# ---- terminate_workers(), kill_workers() -----------------------------------------------------------


def test_force_ends_workers_and_tasks(pools: Pools, gate: Gate, start_method: str, force: str) -> None:
    pool = pools.unbounded(2, start_method)
    running = [pool.submit(tasks.hold, gate.folder) for _ in range(2)]
    gate.wait_started(2)
    waiting = [pool.submit(tasks.square, n) for n in range(20)]
    pids = worker_pids(pool)
    getattr(pool, force)()
    for future in running:
        error = future.exception(PATIENCE)
        assert isinstance(error, BrokenProcessPool)
        assert isinstance(error.__cause__, weirpool.WorkerDied)
        assert error.__cause__.pid in pids
        assert error.__cause__.exitcode == -FORCE[force]
    assert all(future.cancelled() for future in waiting)
    wait_until(lambda: all(map(is_gone, pids)), "the workers are gone")
    with pytest.raises(RuntimeError):
        pool.submit(tasks.nothing)


def test_force_before_anything_started(pools: Pools, force: str) -> None:
    pool = pools.unbounded(2)
    getattr(pool, force)()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.nothing)


def test_force_twice_and_after_shutdown(pools: Pools, force: str) -> None:
    pool = pools.unbounded(2)
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    getattr(pool, force)()
    getattr(pool, force)()
    pool.shutdown()
    getattr(pool, force)()


def test_force_on_a_broken_pool(pools: Pools, force: str) -> None:
    pool = pools.unbounded(1)
    with pytest.raises(BrokenProcessPool):
        pool.submit(os._exit, 1).result(PATIENCE)
    getattr(pool, force)()


def test_force_turns_waiting_producers_away(pools: Pools, gate: Gate, threads: Threads, force: str) -> None:
    pool = pools.bounded(2, 2)
    start_workers(pool, gate, 2)
    for _ in range(12):
        threads.start(pool.submit, tasks.nothing)
    wait_until(lambda: pool.stats().blocked_producers == 12, "twelve producers wait")
    getattr(pool, force)()
    threads.join()
    assert [type(error) for error in threads.errors] == [RuntimeError] * 12


@pytest.mark.race
def test_force_while_threads_submit(pools: Pools, start_method: str, threads: Threads, force: str) -> None:
    """Whatever had been accepted ends, also what no worker was ever started for."""
    pool = pools.unbounded(2, start_method)
    accepted: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()

    def produce() -> None:
        while True:
            try:
                accepted.put(pool.submit(tasks.square, 7))
            except RuntimeError:
                return

    for _ in range(4):
        threads.start(produce)
    if start_method != "fork":  # at any moment, also before the first worker is there
        time.sleep(0.001)
    getattr(pool, force)()
    threads.join()
    while not accepted.empty():
        with contextlib.suppress(BrokenProcessPool, CancelledError):
            assert accepted.get().result(PATIENCE) == 49


def test_a_worker_may_handle_sigterm(pools: Pools, gate: Gate) -> None:
    """Then its task ends as it likes, and the rest of the work is done or cancelled."""
    pool = pools.unbounded(1)
    assert pool.submit(signal.signal, signal.SIGTERM, signal.SIG_IGN).result(PATIENCE) == signal.SIG_DFL
    running = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    waiting = pool.submit(tasks.nothing)
    pool.terminate_workers()
    gate.open()
    running.result(PATIENCE)
    assert waiting.cancelled()
    pool.shutdown()


def test_force_is_not_undone_by_recycling(pools: Pools, gate: Gate) -> None:
    """A worker that leaves at its limit after the call has no successor; what was spared ends with the reason."""
    pool = pools.unbounded(1, "forkserver", max_tasks_per_child=1)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(3)]
    gate.wait_started(1)
    pool._force_shutting_down = True
    gate.open()
    futures[0].result(PATIENCE)
    for future in futures[1:]:
        with pytest.raises(BrokenProcessPool, match="forcefully shut down"):
            future.result(PATIENCE)


def test_force_refuses_other_operations(pools: Pools) -> None:
    pool = pools.unbounded(1)
    operation: Any = "stop"
    with pytest.raises(ValueError, match="Unsupported operation: 'stop'"):
        pool._force_shutdown(operation)
    assert pool.submit(tasks.square, 2).result(PATIENCE) == 4


def test_force_in_a_done_callback(pools: Pools, force: str) -> None:
    pool = pools.unbounded(2)
    called = threading.Event()

    def callback(_: object) -> None:
        getattr(pool, force)()
        called.set()

    pool.submit(tasks.nothing).add_done_callback(callback)
    assert called.wait(PATIENCE)
    pool.shutdown()


# ---- The cause of a broken pool --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "exitcode", "name", "text"),
    [
        ((os._exit, 3), 3, None, "exited with code 3"),
        ((os._exit, 0), 0, None, "exited with code 0"),
        ((tasks.kill_me, signal.SIGKILL), -9, "SIGKILL", "was killed by signal 9 (SIGKILL)"),
        ((tasks.kill_me, signal.SIGSEGV), -11, "SIGSEGV", "was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_the_cause_says_how_the_worker_ended(
    pools: Pools, start_method: str, end: tuple[Any, ...], exitcode: int, name: str | None, text: str
) -> None:
    pool = pools.unbounded(2, start_method)
    others = [pool.submit(tasks.nap, 0.2) for _ in range(2)]
    culprit = pool.submit(*end)
    others += [pool.submit(tasks.nothing) for _ in range(3)]
    pid = {error.__cause__.pid for error in _errors([culprit])}
    for error in _errors([culprit, *others]):
        cause = error.__cause__
        assert isinstance(cause, weirpool.WorkerDied)
        assert {cause.pid} == pid
        assert (cause.exitcode, cause.signal, cause.attempts) == (exitcode, name, 1)
        assert text in str(cause)


def _errors(futures: list[Future[Any]]) -> list[Any]:
    errors = [future.exception(PATIENCE) for future in futures]
    return [error for error in errors if isinstance(error, BrokenProcessPool)]


def test_each_future_has_its_own_exception(pools: Pools) -> None:
    pool = pools.unbounded(1)
    futures = [pool.submit(tasks.kill_me, signal.SIGKILL), *(pool.submit(tasks.nothing) for _ in range(3))]
    errors = [future.exception(PATIENCE) for future in futures]
    assert len(set(map(id, errors))) == 4
    assert futures[1].exception() is errors[1]


def test_worker_died_can_be_pickled() -> None:
    for exitcode in (-9, 3, -42):
        error = weirpool.WorkerDied(123, exitcode)
        copy = pickle.loads(pickle.dumps(error))
        assert vars(copy) == vars(error)
        assert str(copy) == str(error)


def test_the_cause_is_known_to_whoever_is_first(pools: Pools, start_method: str, threads: Threads) -> None:
    """Threads that wait for the same end all learn the reason, however quickly they ask."""
    pool = pools.unbounded(1, start_method)
    future = pool.submit(tasks.nap, PATIENCE)
    wait_until(future.running, "it runs")
    for _ in range(8):
        threads.start(future.exception)
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    assert [error.__cause__.signal for error in threads.join()] == ["SIGKILL"] * 8


def test_what_comes_later_does_not_change_the_reason(pools: Pools, force: str) -> None:
    pool = pools.unbounded(1)
    killed = pool.submit(tasks.nap, PATIENCE)
    wait_until(killed.running, "it runs")
    os.kill(worker_pids(pool)[0], signal.SIGKILL)
    getattr(pool, force)()
    (error,) = _errors([killed])
    assert isinstance(error.__cause__, weirpool.WorkerDied)


def test_a_result_that_cannot_be_read_blames_nobody_else(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(2)
    bad = pool.submit(tasks.echo_failing_to_rebuild)
    killed = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    wait_until(bad.done, "the other has ended")
    for pid in worker_pids(pool):
        os.kill(pid, signal.SIGKILL)
    assert isinstance(killed.exception(PATIENCE).__cause__, weirpool.WorkerDied)
    assert "Error" in str(bad.exception(PATIENCE).__cause__)
    assert isinstance(killed.exception().__cause__, weirpool.WorkerDied)


def test_the_reason_does_not_wait_for_a_worker_that_is_being_started(pools: Pools, threads: Threads) -> None:
    context = Slow()
    pool = pools.keep(weirpool.ProcessPoolExecutor(2, context))
    killed = pool.submit(tasks.nap, PATIENCE)
    wait_until(killed.running, "it runs")
    (pid,) = worker_pids(pool)
    context.hold.clear()
    threads.start(pool.submit, tasks.nothing)
    wait_until(lambda: context.waiting, "the second worker is being started")
    os.kill(pid, signal.SIGKILL)
    assert isinstance(killed.exception(PATIENCE), BrokenProcessPool)
    context.hold.set()
    threads.join()


class Slow(SpawnContext):
    """Starts processes when it is allowed to."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()
        self.waiting = False

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N802
        self.waiting = not self.hold.is_set()
        assert self.hold.wait(PATIENCE)
        return SpawnContext.Process(*args, **kwargs)


# ---- What outlives a pool ---------------------------------------------------------------------------


class Kept:
    """An argument of the initializer's, which may refer to anything."""

    future: Any = None


def test_a_future_does_not_keep_the_initializers_arguments(pools: Pools) -> None:
    kept = Kept()
    gone = weakref.ref(kept)
    pool = weirpool.ProcessPoolExecutor(1, multiprocessing.get_context("fork"), tasks.nothing_with, (kept,))
    future = kept.future = pool.submit(tasks.square, 2)
    assert future.result(PATIENCE) == 4
    pool.shutdown()
    del pool, kept
    gc.collect()
    assert gone() is None


def test_an_executor_that_its_initializer_refers_to_is_collected() -> None:
    kept = Kept()
    pool = weirpool.ProcessPoolExecutor(1, multiprocessing.get_context("fork"), tasks.nothing_with, (kept,))
    kept.future = pool
    assert pool.submit(tasks.square, 2).result(PATIENCE) == 4
    gone, collector = weakref.ref(pool), pool._executor_manager_thread
    assert collector is not None
    del pool, kept
    gc.collect()
    assert gone() is None
    collector.join(PATIENCE)
    assert not collector.is_alive()


def test_a_signal_handler_may_be_the_first_to_submit(pools: Pools) -> None:
    """While another submit has begun to start the pool."""
    pool = pools.keep(weirpool.ProcessPoolExecutor(1, Interrupting()))
    Interrupting.pool = pool
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    assert Interrupting.inner.result(PATIENCE) == 16
    pool.shutdown()
    wait_until(lambda: not any(thread.name == "weirpool-collector" for thread in threading.enumerate()), "they end")


class Interrupting(SpawnContext):
    """Submits while it is asked for a process, as a signal handler could."""

    pool: Any = None
    inner: Any = None

    def get_start_method(self, allow_none: bool = False) -> str:
        if Interrupting.pool is not None:
            Interrupting.pool, pool = None, Interrupting.pool
            Interrupting.inner = pool.submit(tasks.square, 4)
        return "spawn"


# ---- Workers that cannot be replaced ---------------------------------------------------------------


class Unwilling(SpawnContext):
    """Starts processes until it is told not to."""

    willing = True

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N802
        if not self.willing:
            raise OSError("no more processes")
        return SpawnContext.Process(*args, **kwargs)


def test_a_worker_that_cannot_be_replaced(pools: Pools, gate: Gate) -> None:
    context = Unwilling()
    pool = pools.keep(weirpool.ProcessPoolExecutor(1, context, max_tasks_per_child=1))
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(3)]
    gate.wait_started(1)
    context.willing = False
    gate.open()
    futures[0].result(PATIENCE)
    for future in futures[1:]:
        with pytest.raises(BrokenProcessPool, match="could not be started") as caught:
            future.result(PATIENCE)
        assert "no more processes" in str(caught.value.__cause__)
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing)


def test_the_other_workers_go_on_without_one(pools: Pools, gate: Gate) -> None:
    context = Unwilling()
    pool = pools.keep(weirpool.ProcessPoolExecutor(2, context, max_tasks_per_child=2))
    held = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    assert pool.submit(tasks.square, 2).result(PATIENCE) == 4
    leaving = pool.submit(tasks.hold, gate.folder)
    gate.wait_started(2)
    context.willing = False
    last = pool.submit(tasks.square, 4)
    gate.open()
    held.result(PATIENCE)
    leaving.result(PATIENCE)
    assert last.result(PATIENCE) == 16
    wait_until(lambda: not pool._processes, "both have left")


def test_a_collected_executor_replaces_nobody(pools: Pools, gate: Gate) -> None:
    pool = weirpool.ProcessPoolExecutor(1, max_tasks_per_child=1)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(3)]
    gate.wait_started(1)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    gate.open()
    futures[0].result(PATIENCE)
    for future in futures[1:]:
        with pytest.raises(BrokenProcessPool, match="garbage collected"):
            future.result(PATIENCE)


def test_who_has_answered_is_listed(pools: Pools, threads: Threads) -> None:
    """However long it takes the parent to note whom it has started."""
    pool = pools.keep(weirpool.ProcessPoolExecutor(1, Noting(), max_tasks_per_child=1))
    for _ in range(3):
        pid = pool.submit(tasks.pid).result(PATIENCE)
        assert pid in pool._processes or is_gone(pid)
        assert len(pool._processes) <= 1


class Noting(SpawnContext):
    """Its processes are long in use before their start() returns."""

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N802
        return SlowToStart(SpawnContext.Process(*args, **kwargs))


class SlowToStart:
    def __init__(self, process: Any) -> None:
        self.process = process

    def start(self) -> None:
        self.process.start()
        time.sleep(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)


# ---- Starting on demand ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_tasks_that_cannot_be_pickled_want_workers_too(pools: Pools, method: str) -> None:
    pool = pools.unbounded(4, method)
    for count in (1, 2, 3, 4, 4, 4):
        future = pool.submit(tasks.nothing_with, UNPICKLABLE)
        assert isinstance(future.exception(PATIENCE), (TypeError, RuntimeError))
        assert len(pool._processes) == count
    assert pool.submit(tasks.square, 5).result(PATIENCE) == 25
    assert pool.stats().outstanding == 0


# ---- The neighbourhood -----------------------------------------------------------------------------


def test_finalizers_that_are_no_exit(pools: Pools) -> None:
    """Test suites run multiprocessing's finalizers to clean up: weirpool goes on afterwards."""
    pool = pools.unbounded(1)
    assert pool.submit(tasks.square, 2).result(PATIENCE) == 4
    for _ in range(2):
        multiprocessing.util._run_finalizers(100)
        pool = pools.unbounded(1)
        assert pool.submit(tasks.square, 3).result(PATIENCE) == 9


def test_the_call_queue_has_no_thread_to_join(pools: Pools) -> None:
    pool = pools.unbounded(1)
    pool.submit(tasks.nothing).result(PATIENCE)
    call_queue = pool._call_queue
    assert call_queue is not None
    pool.shutdown()
    call_queue.close()
    call_queue.join_thread()
    assert pool._call_queue is None


def test_map_checks_its_arguments_as_the_standard_does(pools: Pools) -> None:
    pool = pools.unbounded(1)
    number: Any
    for number in (0, -1):
        with pytest.raises(ValueError, match=r"^chunksize must be >= 1\.$"):
            pool.map(tasks.square, [1], chunksize=number, buffersize=number)
        with pytest.raises(ValueError, match=r"^buffersize must be None or > 0$"):
            pool.map(tasks.square, [1], buffersize=number)
    for number in ("2", 2.0):
        with pytest.raises(TypeError, match=r"^buffersize must be an integer or None$"):
            pool.map(tasks.square, [1], buffersize=number)
    assert pool.stats().submitted == 0


def test_threads_and_processes_together(pools: Pools) -> None:
    """A thread pool whose tasks submit to the process pool."""
    pool = pools.bounded(2, 2)
    with ThreadPoolExecutor(8) as threads:
        results = threads.map(lambda n: pool.submit(tasks.square, n).result(PATIENCE), range(100))
        assert list(results) == [n * n for n in range(100)]
