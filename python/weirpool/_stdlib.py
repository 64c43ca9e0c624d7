"""The fall-back: the process pool executors over the standard library's pool, for where the engine cannot run."""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar

from weirpool import process
from weirpool._engine import core as _core
from weirpool._gated import Gated
from weirpool._keeper import Future, Keeper, Pool
from weirpool._weir import Weir, is_in_callback

if TYPE_CHECKING:
    from weirpool._stats import Stats

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_NATIVE_ALONE = {
    "max_bytes": (
        "the standard pool pickles a task after it was accepted, so that nobody knows its size: bound the number of "
        "tasks with max_queue_size, and pass the paths of what is large"
    ),
    "adaptive_bound": "nothing measures there what it goes by: give max_queue_size a number",
    "pickler": "the standard pool pickles as multiprocessing does: pass what that can pickle",
    "on_worker_death": "the standard pool breaks when a worker dies: make another pool then, and submit again",
    "max_worker_memory": "nobody looks at a worker's memory there: max_tasks_per_child replaces workers, too",
}
_OFF = (None, False, "break")


def refuse_what_is_native(keywords: dict[str, Any]) -> None:
    """Raise NotImplementedError for a keyword of a constructor that only the native engine can honour."""
    for name, why in _NATIVE_ALONE.items():
        if keywords.get(name) not in _OFF:
            refuse(name, why)


def refuse(what: str, why: str) -> NoReturn:
    """Raise NotImplementedError."""
    from weirpool._engine import choice

    raise NotImplementedError(
        f"{what} needs weirpool's native engine; here the standard library's pool runs the tasks ({choice().reason}). "
        f"There is no such thing with it: {why}"
    )


class _Here(threading.local):
    """Of each thread: how many submissions it is in."""

    depth = 0


def _with_signature_of(other: Callable[..., Any]) -> Callable[[F], F]:
    """So that ``help()`` and ``inspect.signature`` show every parameter."""

    def decorate(method: F) -> F:
        functools.update_wrapper(method, other)
        return method

    return decorate


class ProcessPoolExecutor(Gated, process.ProcessPoolExecutor):  # type: ignore[misc]  # tickets of our own
    __doc__ = process.ProcessPoolExecutor.__doc__

    _engine: Any
    _last_engine: Any

    @_with_signature_of(process.ProcessPoolExecutor.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_what_is_native(kwargs)
        self._here = _Here()
        self._made_weir: Weir | None = None

    @property
    def _weir(self) -> Weir:  # type: ignore[override]
        if self._made_weir is None:
            with self._shutdown_lock:
                if self._made_weir is None:
                    self._made_weir = Weir(self._bound, self._backlog, self._patience, "submit_backlog_timeout")
        return self._made_weir

    def submit(  # type: ignore[override]  # nor is it the engine's future
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        here = self._here
        depth = here.depth
        try:
            here.depth = depth + 1
            return self._submit_with(self._admit(), fn, args, kwargs)
        except BaseException as error:  # a signal handler's: the frames that it has left may hold a permit
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            here.depth = depth

    def _submit_with(
        self, permit: _core.Permit, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        future: Future[T] | None = None
        try:
            with self._submitting():
                pool: Any = self._engine or self._start()
                future = Future(permit, pool)
                pool.put(future, (fn, args, kwargs))
            return future
        except BaseException:
            if future is None or pool.take_back(future):
                self._weir.give_back(permit)
            raise

    def _must_not_wait(self) -> bool:
        pool: Pool | None = self._engine
        return self._here.depth > 1 or is_in_callback() or (pool is not None and pool.standard.is_busy_here())

    def _may_submit_for_others(self) -> bool:
        return not (self._shutdown_thread or self._broken)

    def _explain(self, error: RuntimeError) -> BaseException:
        pool: Pool | None = self._engine or self._last_engine
        return (pool and pool.why()) or error

    def _why_broken(self) -> BaseException:
        return self._explain(RuntimeError(_core.UNUSABLE))

    def _preparation(self) -> Callable[[], object] | None:
        return None if self._engine is not None else self._start

    def _open(self) -> None:
        pool = Pool(self, self._weir)
        pool.standard.begin()
        keeper = Keeper(self, pool)
        try:
            keeper.start()
        except BaseException:
            pool.shutdown()  # for a keeper that runs although its start was interrupted
            if not keeper.is_alive():
                pool.standard.shutdown(wait=False)
            raise
        if self._engine is not None:  # a signal handler has submitted meanwhile: one is enough
            pool.shutdown()
            return
        self._listed = pool.standard.workers
        self._executor_manager_thread = keeper
        self._engine = pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._weir.shut()
        super().shutdown(wait=False)
        with self._shutdown_lock:
            pool, keeper = self._engine, self._executor_manager_thread
        if pool is not None and cancel_futures:
            pool.cancel_waiting()
        would_stall = self._here.depth > 0 or is_in_callback() or (pool is not None and pool.standard.is_busy_here())
        if keeper is not None and wait and keeper is not threading.current_thread() and not would_stall:
            keeper.join()

    def _force_shutdown(self, operation: Literal["terminate", "kill"]) -> None:
        if operation not in ("terminate", "kill"):
            raise ValueError(f"Unsupported operation: {operation!r}")
        self._refuse_forks()
        with self._shutdown_lock:
            pool = self._engine
        self.shutdown(wait=False, cancel_futures=True)
        if pool is not None:
            pool.standard.signal_workers(operation)

    def stats(self) -> Stats:
        """Return how tasks stand and ended, how long producers waited, and the workers with their memory.

        Times of tasks, and what follows from them, are not measured.

        Raises:
            RuntimeError: In a forked child.
        """
        from weirpool import _stats

        fields = self._weir.stats()
        pool: Pool | None = self._engine or self._last_engine
        if pool is not None:
            fields["workers_died"] = pool.workers_died
            pids = list(pool.standard.workers) if pool is self._engine else []
            fields["workers"] = tuple(_stats.WorkerStats(pid, _stats.resident(pid), 0, 0.0) for pid in pids)
        return _stats.of_gate("stdlib", fields)

    def with_options(self, *, timeout: float | None = None, retries: int = 0) -> NoReturn:
        """Not with this engine.

        Raises:
            NotImplementedError: Always.
        """
        refuse("with_options()", "the standard pool breaks when a worker is killed, and runs no task again")


class BoundedProcessPoolExecutor(process.BoundedProcessPoolExecutor, ProcessPoolExecutor):  # type: ignore[misc]
    __doc__ = process.BoundedProcessPoolExecutor.__doc__


for _class in (ProcessPoolExecutor, BoundedProcessPoolExecutor):
    _class.__module__ = process.__name__  # where they are found
