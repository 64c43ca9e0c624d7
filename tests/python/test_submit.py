"""What submit() takes, and what becomes of it."""

import copyreg
import functools
import multiprocessing
import multiprocessing.resource_sharer
import os
import pickle
import queue
import threading
import weakref
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import Any

import pytest
import tasks
from support import Pools, Threads, in_forked_child, wait_until

import weirpool

UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError)


def test_result(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.square, number) for number in range(50)]
    assert [future.result() for future in futures] == [number * number for number in range(50)]


def test_arguments_and_keywords_arrive(pools: Pools) -> None:
    pool = pools.unbounded(1)
    future = pool.submit(tasks.everything, 1, "two", self=3, fn=4, args=5, kwargs=6)
    assert future.result() == ((1, "two"), {"self": 3, "fn": 4, "args": 5, "kwargs": 6})


def test_fn_is_required_and_positional(pools: Pools) -> None:
    pool = pools.unbounded(1)
    with pytest.raises(TypeError):
        pool.submit()
    with pytest.raises(TypeError):
        pool.submit(fn=tasks.nothing)


@pytest.mark.parametrize(
    ("fn", "argument", "result"),
    [
        (tasks.square, 3, 9),
        (abs, -3, 3),
        (functools.partial(tasks.add, 4), 3, 7),
        (tasks.Multiplier(5), 3, 15),
        (tasks.Multiplier(5).times, 3, 15),
        ("{}".format, 3, "3"),
        (str, 3, "3"),
        (complex, 3, 3 + 0j),
        (tasks.Circle, 3, tasks.Circle(3)),
    ],
    ids=["function", "builtin", "partial", "object", "method", "method of a builtin", "str", "complex", "class"],
)
def test_every_kind_of_callable(pools: Pools, fn: Any, argument: int, result: Any) -> None:
    assert pools.unbounded(1).submit(fn, argument).result() == result


def test_submit_from_many_threads(pools: Pools, threads: Threads) -> None:
    pool = pools.unbounded(2)
    for start in range(0, 1600, 100):
        threads.start(lambda start=start: [pool.submit(tasks.echo, start + i) for i in range(100)])
    futures = [future for batch in threads.join() for future in batch]
    assert sorted(future.result() for future in futures) == list(range(1600))


# ---- Errors --------------------------------------------------------------------------------------


def test_an_exception_comes_back_with_the_workers_traceback(pools: Pools, start_method: str) -> None:
    future = pools.unbounded(1, start_method).submit(tasks.fail_with, tasks.OddError, "boom")
    with pytest.raises(tasks.OddError, match="boom") as caught:
        future.result()
    assert type(caught.value.__cause__) is _RemoteTraceback
    assert "in fail_with" in str(caught.value.__cause__)
    assert "tasks.py" in str(caught.value.__cause__)
    assert future.exception() is caught.value


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_even_a_base_exception_goes_to_the_future_and_the_worker_lives(pools: Pools, kind: type[BaseException]) -> None:
    pool = pools.unbounded(1)
    worker = pool.submit(tasks.pid).result()
    error = pool.submit(tasks.fail_with, kind, 3).exception()
    assert type(error) is kind
    assert error.args == (3,)
    assert pool.submit(tasks.pid).result() == worker


def test_an_exception_that_is_false_is_raised(pools: Pools) -> None:
    future = pools.unbounded(1).submit(tasks.fail, tasks.FalsyError())
    with pytest.raises(tasks.FalsyError):
        future.result()
    assert isinstance(future.exception(), tasks.FalsyError)


def test_a_returned_exception_is_a_result(pools: Pools) -> None:
    future = pools.unbounded(1).submit(tasks.return_error)
    assert future.exception() is None
    assert isinstance(future.result(), tasks.OddError)
    assert future.result().args == ("returned, not raised",)


def test_an_exception_raised_with_a_cause_keeps_its_text(pools: Pools) -> None:
    future = pools.unbounded(1).submit(int, "not a number")
    with pytest.raises(ValueError, match="not a number"):
        future.result()


@pytest.mark.parametrize("argument", [lambda: 0, threading.Lock()], ids=["lambda", "lock"])
def test_what_cannot_be_pickled_fails_its_future_and_not_submit(pools: Pools, argument: Any) -> None:
    pool = pools.bounded(2)
    for _ in range(5):  # more often than there are permits
        future = pool.submit(tasks.echo, argument)
        assert isinstance(future.exception(), UNPICKLABLE)
    assert pool.submit(tasks.square, 4).result() == 16


def test_a_function_that_cannot_be_pickled_fails_its_future(pools: Pools) -> None:
    pool = pools.unbounded(1)
    assert isinstance(pool.submit(lambda: 0).exception(), UNPICKLABLE)
    assert pool.submit(tasks.square, 4).result() == 16


def test_the_error_of_a_reduce_method_is_the_futures(pools: Pools) -> None:
    error = pools.unbounded(1).submit(tasks.echo, tasks.RefusesPickling()).exception()
    assert isinstance(error, tasks.OddError)
    assert error.args == ("not this one",)


def test_a_result_that_cannot_be_pickled(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(1, start_method)
    assert isinstance(pool.submit(tasks.unpicklable_result).exception(), UNPICKLABLE)
    assert pool.submit(tasks.square, 4).result() == 16


def test_an_exception_that_cannot_be_pickled(pools: Pools) -> None:
    pool = pools.unbounded(1)
    with pytest.raises(TypeError, match="nobody may pickle this"):
        pool.submit(tasks.fail_with, tasks.SecretiveError, "x").result()
    assert pool.submit(tasks.square, 4).result() == 16


def test_an_argument_that_cannot_be_rebuilt_ends_in_an_error(pools: Pools) -> None:
    pool = pools.unbounded(1)
    with pytest.raises((tasks.OddError, BrokenProcessPool)):
        pool.submit(tasks.echo, tasks.FailsWhenRebuilt()).result()


# ---- What travels --------------------------------------------------------------------------------


def test_a_connection_travels(pools: Pools, start_method: str) -> None:
    """multiprocessing's own reducers are used, not pickle's: those would send a bare number."""
    here, there = multiprocessing.Pipe()
    try:
        with here, there:
            future = pools.unbounded(1, start_method).submit(tasks.send, there, "hello")
            assert here.poll(60)
            assert here.recv() == "hello"
            future.result()
    finally:
        multiprocessing.resource_sharer.stop(timeout=10)


class Late:
    """Cannot be pickled until a reducer is registered."""

    def __getstate__(self) -> Any:
        raise TypeError("no reducer yet")


def test_a_reducer_registered_later_is_used(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pools.unbounded(1)
    assert isinstance(pool.submit(tasks.echo, Late()).exception(), TypeError)
    monkeypatch.setitem(copyreg.dispatch_table, Late, lambda _: (tasks.echo, ("rebuilt",)))
    assert pool.submit(tasks.echo, Late()).result() == "rebuilt"


def test_arguments_are_let_go(pools: Pools) -> None:
    box = tasks.Box()
    alive = weakref.ref(box)
    future = pools.unbounded(1).submit(tasks.nothing_with, box)
    future.result()
    del box
    assert alive() is None


def test_pickling_that_submits(pools: Pools) -> None:
    """A __reduce__ that submits to the same full pool waits for nobody."""
    pool = pools.bounded(1, workers=1)
    inner: list[Any] = []
    outer = pool.submit(tasks.echo, tasks.CallsWhenPickled(lambda: inner.append(pool.submit(tasks.square, 7))))
    assert outer.result() is None
    assert [future.result() for future in inner] == [49]


def test_pickling_that_submits_in_three_levels(pools: Pools) -> None:
    pool = pools.unbounded(1)
    found: list[Any] = []

    def level(depth: int) -> None:
        argument = tasks.CallsWhenPickled(lambda: level(depth - 1)) if depth else "bottom"
        found.append(pool.submit(tasks.echo, argument))

    level(3)
    wait_until(lambda: len(found) == 4, "each level submits")
    assert sorted(str(future.result()) for future in found) == ["None", "None", "None", "bottom"]


def test_pickling_of_many_objects_and_then_of_few(pools: Pools) -> None:
    pool = pools.unbounded(1)
    boxes = [tasks.Box(number) for number in range(20_000)]
    assert pool.submit(len, boxes).result() == 20_000
    assert [pool.submit(tasks.square, number).result() for number in range(50)][-1] == 49 * 49


# ---- Processes in tasks --------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["fork", "spawn"])
def test_a_task_can_run_a_pool_of_its_own(pools: Pools, start_method: str, inner: str) -> None:
    assert pools.unbounded(1, start_method).submit(tasks.run_own_pool, inner).result() == 30


def test_a_task_that_forks_gives_one_result(pools: Pools, start_method: str) -> None:
    """The forked child returns from the task, too; it must end there."""
    pool = pools.unbounded(1, start_method)
    worker = pool.submit(tasks.pid).result()
    for _ in range(5):
        assert pool.submit(tasks.fork_and_both_return).result() == worker
    assert pool.submit(tasks.square, 3).result() == 9
    assert pool.stats().finished == 7


def test_a_task_can_fork_and_reap(pools: Pools, start_method: str) -> None:
    assert pools.unbounded(1, start_method).submit(tasks.fork_and_reap).result() == 7


def test_processes_are_known_by_pid(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(2, start_method)
    pids = {pool.submit(tasks.pid).result() for _ in range(20)}
    assert pids <= set(pool._processes)
    assert all(process.is_alive() for process in pool._processes.values())
    assert os.getpid() not in pids


def test_workers_start_as_they_are_needed(pools: Pools) -> None:
    pool = pools.unbounded(4, "forkserver")
    for _ in range(5):
        pool.submit(tasks.nothing).result()
        wait_until(lambda: pool.stats().outstanding == 0, "the task has ended")
    assert 1 <= len(pool._processes) <= 2


def test_a_process_of_its_own_can_use_a_pool(pools: Pools) -> None:
    def run() -> int:
        return tasks.run_own_pool("fork")

    assert in_forked_child(run) == "30"


# ---- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [weirpool.RejectedSubmission, weirpool.SubmitTimeout])
def test_refusals_mean_that_later_may_do(kind: type[Exception]) -> None:
    assert issubclass(kind, queue.Full)
    assert not issubclass(kind, RuntimeError), "which means never again"
    assert issubclass(kind, TimeoutError) == (kind is weirpool.SubmitTimeout)
    copy = pickle.loads(pickle.dumps(kind("no room")))
    assert type(copy) is kind
    assert copy.args == ("no room",)
