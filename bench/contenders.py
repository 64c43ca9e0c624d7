"""The pools, each behind the same few calls and each at its best setting. A comment says what that is and why.

Whatever can be forked is forked, also where another start method is the default: it is the fastest for all of them, and
one method for all compares pools and not start methods. (The workloads about starting choose for themselves.)
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.metadata
import multiprocessing
import operator
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SUBMIT = "submit"  # hands over a task and returns at once
BOUND = "bound"  # can be made to accept a limited number of tasks, by itself or with a semaphore
UNBOUNDED = "unbounded"  # accepts any number
FUTURES = "futures"  # what it returns works with concurrent.futures.wait and as_completed
MAP = "map"
CHUNKS = "chunks"  # its map takes a chunk size
METHODS = "methods"  # its start method can be chosen
CALL = "call"  # can run a single task and return its result


@dataclass(frozen=True)
class Setting:
    workers: int
    bound: int | None = None
    method: str = "fork"

    @property
    def context(self) -> Any:
        return multiprocessing.get_context(self.method)


class Pool:
    """`result(submit(fn, *args))` runs one task. Both are attributes, so that a loop pays for no adapter."""

    submit: Callable[..., Any]
    result: Callable[[Any], Any]

    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        raise NotImplementedError

    def close(self) -> None:
        """Returns when the workers have ended."""
        raise NotImplementedError

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Contender:
    name: str
    open: Callable[[Setting], Pool]
    abilities: frozenset[str]
    package: str | None = None  # on PyPI
    note: str = ""

    @property
    def version(self) -> str:
        if self.package is None:
            return sys.version.split()[0]
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"


# ---- Executors -----------------------------------------------------------------------------------------------------


class ExecutorPool(Pool):
    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self.submit = executor.submit
        self.result = operator.methodcaller("result")

    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        return list(self._executor.map(fn, items, chunksize=chunksize))

    def close(self) -> None:
        self._executor.shutdown(wait=True)


def open_weirpool(setting: Setting) -> Pool:
    """As it comes."""
    import weirpool

    return ExecutorPool(weirpool.BoundedProcessPoolExecutor(setting.bound, setting.workers, setting.context))


def open_standard(setting: Setting) -> Pool:
    """As it comes: there is nothing to set."""
    return ExecutorPool(concurrent.futures.ProcessPoolExecutor(setting.workers, setting.context))


class Semaphore:
    """The recipe for a bound that is found everywhere: a semaphore that a done-callback releases."""

    def __init__(self, submit: Callable[..., Any], bound: int) -> None:
        self._submit = submit
        self._room = threading.Semaphore(bound)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        self._room.acquire()
        future = self._submit(fn, *args)
        future.add_done_callback(self._release)
        return future

    def _release(self, _: object) -> None:
        self._room.release()


def bounded(pool: Pool, setting: Setting) -> Pool:
    """An executor without a bound of its own gets the recipe's."""
    if setting.bound is not None:
        pool.submit = Semaphore(pool.submit, setting.bound).submit
    return pool


def open_recipe(setting: Setting) -> Pool:
    """The standard pool and the semaphore; without a bound it is the standard pool."""
    return bounded(open_standard(setting), setting)


def open_loky(setting: Setting) -> Pool:
    """Its own start method (fork and exec), which its authors recommend; of fork they warn. Workers never time out."""
    import loky

    return bounded(ExecutorPool(loky.ProcessPoolExecutor(setting.workers, timeout=None)), setting)


class DeadpoolPool(ExecutorPool):
    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        return list(self._executor.map(fn, items))  # it would ignore a chunk size


def open_deadpool(setting: Setting) -> Pool:
    """Its own bound counts what has not started: with what runs it comes to the same. 0: none. (Default: 1,000.)"""
    import deadpool

    backlog = 0 if setting.bound is None else max(1, setting.bound - setting.workers)
    return DeadpoolPool(deadpool.Deadpool(setting.workers, mp_context=setting.method, max_backlog=backlog))


class PebblePool(Pool):
    """`schedule()` is what its manual recommends."""

    def __init__(self, setting: Setting) -> None:
        import pebble

        self._pool: Any = pebble.ProcessPool(setting.workers, context=setting.context)
        self.result = operator.methodcaller("result")

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        return self._pool.schedule(fn, args)

    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        return list(self._pool.map(fn, items, chunksize=chunksize).result())

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


def open_pebble(setting: Setting) -> Pool:
    """As it comes; its bound is the recipe's."""
    return bounded(PebblePool(setting), setting)


# ---- Pools with apply_async() --------------------------------------------------------------------------------------


class ApplyPool(Pool):
    """`apply_async(fn, args, callback=, error_callback=)`; at a bound the callbacks release a semaphore."""

    def __init__(self, apply: Callable[..., Any], bound: int | None) -> None:
        self._apply = apply
        self._room = threading.Semaphore(bound or 0)
        self.submit = self._submit if bound is None else self._submit_bounded
        self.result = operator.methodcaller("get")

    def _submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        return self._apply(fn, args)

    def _submit_bounded(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        self._room.acquire()
        return self._apply(fn, args, callback=self._release, error_callback=self._release)

    def _release(self, _: object) -> None:
        self._room.release()


class MultiprocessingPool(ApplyPool):
    """As it comes: there is nothing to set."""

    def __init__(self, setting: Setting) -> None:
        self._pool = setting.context.Pool(setting.workers)
        super().__init__(self._pool.apply_async, setting.bound)

    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        results: list[int] = self._pool.map(fn, items, chunksize)
        return results

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class MpirePool(ApplyPool):
    """Its `map` by default waits while two chunks a worker are active; here it may hand over everything at once, which
    is faster for short tasks. Workers are kept from one map to the next. Maps have a pool of their own: in 2.10 a map
    of the function that started the workers through apply_async() calls it wrongly.
    """

    def __init__(self, setting: Setting) -> None:
        from mpire.pool import WorkerPool

        self._open = functools.partial(WorkerPool, n_jobs=setting.workers, start_method=setting.method, keep_alive=True)
        self._pool = self._open()
        self._maps: Any = None
        self._lock = threading.Lock()
        super().__init__(self._apply_locked, setting.bound)

    def _apply_locked(self, *args: Any, **kwargs: Any) -> Any:
        # It writes a task in two messages; another thread's between them would break the worker.
        with self._lock:
            return self._pool.apply_async(*args, **kwargs)

    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        self._maps = self._maps or self._open()
        results: list[int] = self._maps.map(fn, items, chunk_size=chunksize, max_tasks_active=len(items) + chunksize)
        return results

    def close(self) -> None:
        self._pool.stop_and_join()
        if self._maps is not None:
            self._maps.stop_and_join()


# ---- joblib --------------------------------------------------------------------------------------------------------


class JoblibPool(Pool):
    """Its default backend (loky), whose workers stay from one `Parallel` to the next. It has no submit: a single task
    is a list of one. In `map` everything is dispatched at once, which is faster for short tasks than twice the workers.
    """

    def __init__(self, setting: Setting) -> None:
        import joblib

        self._workers = setting.workers
        self._delayed = joblib.delayed
        self._one = joblib.Parallel(n_jobs=setting.workers, batch_size=1)
        self._one.__enter__()
        self.result = operator.itemgetter(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        return self._one([self._delayed(fn)(*args)])

    def map(self, fn: Callable[[int], int], items: Sequence[int], chunksize: int) -> list[int]:
        import joblib

        call = self._delayed(fn)
        parallel = joblib.Parallel(n_jobs=self._workers, batch_size=chunksize, pre_dispatch="all")
        results: list[int] = parallel(call(item) for item in items)
        return results

    def close(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        self._one.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True)


# ---- Eight loops ---------------------------------------------------------------------------------------------------


class Loops(Pool):
    """No pool: a plain process for each call. What the mixed load is compared with."""

    def __init__(self, setting: Setting) -> None:
        self._context = setting.context
        self.result = self._join

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        process = self._context.Process(target=fn, args=args)
        process.start()
        return process

    def _join(self, process: Any) -> None:
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"a loop ended with status {process.exitcode}")

    def close(self) -> None:
        pass


# ---- All of them ---------------------------------------------------------------------------------------------------

EXECUTOR = frozenset({CALL, SUBMIT, BOUND, UNBOUNDED, FUTURES, MAP, CHUNKS, METHODS})

# In the order of the tables.
_ALL = (
    Contender("weirpool", open_weirpool, EXECUTOR, "weirpool", "as it comes"),
    Contender("standard", open_standard, EXECUTOR - {BOUND}, None, "concurrent.futures.ProcessPoolExecutor"),
    Contender(
        "recipe",
        open_recipe,
        frozenset({SUBMIT, BOUND}),
        None,
        "standard, and a semaphore that a done-callback releases",
    ),
    Contender("Pool", MultiprocessingPool, EXECUTOR - {FUTURES}, None, "multiprocessing.Pool; bound: semaphore"),
    Contender("loky", open_loky, EXECUTOR - {METHODS}, "loky", "started in its own way; bound: semaphore"),
    Contender("joblib", JoblibPool, frozenset({CALL, MAP, CHUNKS}), "joblib", "Parallel on its loky; has no submit()"),
    Contender("pebble", open_pebble, EXECUTOR, "pebble", "ProcessPool.schedule(); bound: semaphore"),
    Contender(
        "mpire", MpirePool, EXECUTOR - {FUTURES}, "mpire", "WorkerPool.apply_async() in a lock; bound: semaphore"
    ),
    Contender("deadpool", open_deadpool, EXECUTOR - {CHUNKS}, "deadpool-executor", "max_backlog = bound - workers"),
    Contender("bare loops", Loops, frozenset(), None, "plain processes that only sleep, as fast as the load can be"),
)
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _ALL}
