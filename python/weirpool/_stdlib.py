"""The fall-back: the process pool executors over the standard library's pool, for where the engine cannot run.

The standard pool is given as many tasks as it has workers. All others wait here, where they can be counted and
cancelled, and where they are not said to be running.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import functools
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar

from weirpool import _support, process, thread
from weirpool._collector import Collector
from weirpool._engine import core as _core
from weirpool._gated import Gated
from weirpool._standard import StandardPool
from weirpool._weir import Weir, is_in_callback

if TYPE_CHECKING:
    from weirpool._stats import Stats

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_LOOK_SECONDS = 1.0  # so often somebody looks whether there is something to do: a signal handler may have raised

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


class Future(thread.Future[T]):
    """A future whose task can be cancelled as long as the standard pool was not given it."""

    def __init__(self, permit: _core.Permit, pool: Pool) -> None:
        super().__init__()
        self._permit = permit
        self._weir = pool.weir
        self._pool: Pool | None = pool
        self._owner = os.getpid()

    def cancel(self, *, force: bool = False) -> bool:
        """As of a standard future.

        Raises:
            NotImplementedError: force, which would stop a running task.
        """
        if force:
            refuse("cancel(force=True)", "the standard pool breaks when a worker is killed")
        pool = self._pool
        if pool is None or not pool.withdraw(self):
            return super().cancel()
        try:
            return super().cancel()
        finally:
            self.set_running_or_notify_cancel()  # nobody else will pass by

    def result(self, timeout: float | None = None) -> T:
        """As of a standard future. RuntimeError: its task has not ended, and this is a forked child."""
        self._refuse_forks()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As of a standard future. RuntimeError: as result()."""
        self._refuse_forks()
        return super().exception(timeout)

    def _refuse_forks(self) -> None:
        """Before its lock, which another thread of the parent's may seem to hold, and before waiting for ever."""
        if os.getpid() != self._owner and self._state in ("PENDING", "RUNNING"):
            raise RuntimeError(_core.FORKED)

    def _invoke_callbacks(self) -> None:
        try:
            super()._invoke_callbacks()
        finally:
            self._pool = None


class Pool:
    """The tasks of one executor, and the standard pool that runs them. To the executor it is engine and crew.

    It does not keep the executor. One thread, the keeper (``serve()``), hands tasks over.
    """

    def __init__(self, executor: ProcessPoolExecutor, weir: Weir) -> None:
        self._workers = executor._max_workers
        self.weir = weir
        self._owner = os.getpid()
        self._events: queue.SimpleQueue[None] = queue.SimpleQueue()  # something may be to be done
        self._lock = threading.RLock()  # of what follows; a signal handler may come upon it
        self._waiting: OrderedDict[Future[Any], Call] = OrderedDict()
        self._running: set[Future[Any]] = set()
        self._is_closing = False
        self._has_begun = False
        self._lacks_worker = False
        self._why: Callable[[str | None], BrokenProcessPool] | None = None
        self.workers_died = 0
        self.standard = StandardPool(
            executor._max_workers,
            executor._mp_context,
            executor._initializer,
            executor._initargs,
            max_tasks_per_child=executor._max_tasks_per_child,
            tasks=lambda: len(self._running),
            notify=self._note_news,
        )

    # ---- a task's way in, and out again ----

    def put(self, future: Future[Any], call: Call) -> None:
        """Accept a task. Raises BrokenProcessPool, RuntimeError: nothing is accepted any more."""
        self._look_for_break()
        with self._lock:
            if self._why is not None:
                raise self._why(_core.UNUSABLE)
            if self._is_closing:
                raise RuntimeError(_core.SHUT_DOWN)
            if len(self._running) < self._workers:
                self._events.put(None)  # first: whoever looks now waits for the lock
            self._waiting[future] = call

    def withdraw(self, future: Future[Any]) -> bool:
        """Take a task back. Returns whether it was waiting: then it is the caller's."""
        if os.getpid() != self._owner:
            return False
        with self._lock:
            return self._waiting.pop(future, None) is not None

    def cancel_waiting(self, spare: int | None = None) -> None:
        """Cancel what was not handed over. If nothing was yet, the oldest are spared; None: as in the standard pool."""
        with self._lock:
            spared = self._workers + 1 if spare is None else spare
            futures = list(self._waiting)[0 if self._has_begun else spared :]
        for future in futures:
            future.cancel()

    def _next(self) -> tuple[Future[Any], Call] | None:
        with self._lock:
            if self._why is not None or not self._waiting or len(self._running) >= self._workers:
                return None
            future, call = self._waiting.popitem(last=False)
            future.set_running_or_notify_cancel()
            future._permit.start()
            self._running.add(future)
            self._has_begun = True
            return future, call

    # ---- the keeper's thread: no signal handler runs there ----

    def serve(self) -> None:
        """Hand tasks over until there will be no more, or until the pool breaks."""
        while not self._has_ended():
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=_LOOK_SECONDS if self._waiting else None)
            while (task := self._next()) is not None:
                self._hand_over(*task)
            self._start_workers()
        self._fail_waiting()
        self.standard.end(by_force=self._why is not None)

    def _has_ended(self) -> bool:
        self._look_for_break()
        with self._lock:
            return self._why is not None or (self._is_closing and not self._waiting and not self._running)

    def _hand_over(self, future: Future[Any], call: Call) -> None:
        fn, args, kwargs = call
        try:
            given = self.standard.submit(fn, *args, **kwargs)
        except BaseException as error:
            self._end(future, error)
        else:
            given.add_done_callback(functools.partial(self._note_end, future))

    def _start_workers(self) -> None:
        with self._lock:
            lacks, self._lacks_worker = self._lacks_worker, False
        if not lacks:
            return
        try:
            self.standard.start_wanted()
        except BaseException as error:
            if not self.standard.workers:  # else the others go on
                self.break_(_support.format_cause(error), _support.NOT_STARTED)

    def _note_news(self) -> None:
        self._lacks_worker = True
        self._events.put(None)

    # ---- the end of a task: in a thread of the standard pool's, which may hold a lock that its submit() takes ----

    def _note_end(self, future: Future[Any], given: cf.Future[Any]) -> None:
        error = cf.CancelledError() if given.cancelled() else given.exception()
        if error is None:
            self._end(future, None, given.result())
        else:
            self._end(future, error)

    def _end(self, future: Future[Any], error: BaseException | None, result: Any = None) -> None:
        if self.standard._broken:
            self._note_break(error)
        with self._lock:
            self._running.discard(future)
            if self._why is not None and isinstance(error, BrokenProcessPool | cf.CancelledError):
                error = self._why(None)
        self._events.put(None)
        with contextlib.suppress(cf.InvalidStateError):  # it was told of the break already
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    # ---- the end of the pool ----

    def _note_break(self, error: BaseException | None) -> None:
        """The standard pool is broken. Before anybody is told: who submits then must not ask it."""
        if self._why is not None:
            return
        dead = self.standard.find_dead()
        with self._lock:
            if self._why is None:
                self._why = functools.partial(_make_error, error, dead)
                self.workers_died = len(dead)
        self.weir.shut()
        self._events.put(None)

    def _look_for_break(self) -> None:
        """Where it holds no task nobody is told of it. Else the end of one will tell more."""
        if self.standard._broken and not self._running:
            self._note_break(None)

    def why(self) -> BrokenProcessPool | None:
        """What a submission raises, an instance of its own; None: the pool is not broken."""
        return None if self._why is None else self._why(_core.UNUSABLE)

    def _fail_waiting(self) -> None:
        with self._lock:
            futures = list(self._waiting)
            self._waiting.clear()
        for future in futures:
            assert self._why is not None
            if future.set_running_or_notify_cancel():
                future.set_exception(self._why(None))

    def _fail_running(self) -> None:
        """Nobody is left who runs them."""
        with self._lock:
            futures = list(self._running)
        for future in futures:
            self._end(future, cf.CancelledError())

    # ---- as an engine and a crew ----

    def shutdown(self) -> None:
        """Accept nothing more. Takes no lock: the executor may be collected anywhere."""
        if os.getpid() != self._owner:
            raise RuntimeError(_core.FORKED)
        self._is_closing = True
        self._events.put(None)

    def break_(self, cause: str | None, reason: str | None = None) -> None:
        """End every task."""
        error = BrokenProcessPool(reason or _support.BROKEN)
        if cause is not None:
            error.__cause__ = _support.quote(cause)
        self._note_break(error)
        self._fail_running()

    def find_dead(self) -> dict[int, int]:
        """As of a crew."""
        return self.standard.find_dead()

    def dismiss(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """All has ended."""
        self.standard.forget()

    def check(self) -> None:
        """For tests: raise AssertionError if the permits do not agree with the tasks."""
        with self._lock:
            stats = self.weir.stats()
            assert len(self._running) <= self._workers
            assert stats["waiting"] >= len(self._waiting)
            assert stats["outstanding"] >= len(self._waiting) + len(self._running)


def _make_error(found: BaseException | None, dead: dict[int, int], text: str | None) -> BrokenProcessPool:
    """One instance a future, as tracebacks grow on instances."""
    error = BrokenProcessPool(text or (str(found) if isinstance(found, BrokenProcessPool) else _support.BROKEN))
    error.__cause__ = _support._death(dead, 0) or (None if found is None else found.__cause__)
    return error


class Keeper(Collector):
    """The thread that hands tasks over. It keeps the pool, and not the executor."""

    _engine: Any

    def __init__(self, executor: Any, pool: Pool) -> None:
        super().__init__(executor, pool, pool)  # type: ignore[arg-type]

    def cancel_waiting(self) -> None:
        self._engine.cancel_waiting(0)

    def _collect(self) -> None:
        self._engine.serve()
        if self._engine.why() is not None:
            self._report_broken()


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
        finally:
            here.depth = depth

    def _submit_with(
        self, permit: _core.Permit, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        try:
            with self._submitting():
                pool: Any = self._engine or self._start()
                future: Future[T] = Future(permit, pool)
                pool.put(future, (fn, args, kwargs))
        except BaseException:
            self._weir.give_back(permit)
            raise
        return future

    def _must_not_wait(self) -> bool:
        pool: Pool | None = self._engine
        return self._here.depth > 1 or is_in_callback() or (pool is not None and pool.standard.is_busy_here())

    def _may_submit_for_others(self) -> bool:
        return not (self._shutdown_thread or self._broken)

    def _explain(self, error: RuntimeError) -> BaseException:
        pool: Pool | None = self._engine or self._last_engine
        return (pool and pool.why()) or error

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
        if keeper is not None and wait and keeper is not threading.current_thread() and not is_in_callback():
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
