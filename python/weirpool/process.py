"""The process pool executors."""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing as mp
import operator
import os
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from weirpool import _interrupts, _main, _pickler, _policy, _support
from weirpool._collector import Collector, is_exiting
from weirpool._engine import choice
from weirpool._engine import core as _core
from weirpool._executor import Executor
from weirpool._options import WithOptions
from weirpool._pickler import Pickler

if TYPE_CHECKING:
    from types import TracebackType

    from weirpool._crew import Crew
    from weirpool._stats import Stats

P = ParamSpec("P")
T = TypeVar("T")

_ORDER_OF_ARGUMENTS = "; the first argument of BoundedProcessPoolExecutor is the bound, max_workers comes after it"


class ProcessPoolExecutor(Executor):
    """A drop-in for ``concurrent.futures.ProcessPoolExecutor`` over the weirpool engine.

    Accepts every task at once, as the standard class does, unless it is given a bound. Thread-safe. A pool belongs to
    the process that made it: in a forked child its methods raise ``RuntimeError``.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_submit_backlog: int | Literal[True] | None = None,
        submit_backlog_timeout: float | None = None,
        block_on_submit: bool = True,
        max_bytes: int | None = None,
        adaptive_bound: bool = False,
        on_worker_death: Literal["break", "replace"] = "break",
        max_worker_memory: int | None = None,
        pickler: str | Pickler | None = None,
    ) -> None:
        """Make an executor. Processes are started when there is work for them.

        Args:
            max_workers: The most worker processes, 4096 at most; None: one for each core (from Python 3.13 on: each
                core that this process may use).
            mp_context: A multiprocessing context that starts the workers; None: the default one.
            initializer: Called in each new worker. If it raises, the pool is broken.
            initargs: Arguments for the initializer.
            max_tasks_per_child: How many tasks a worker executes before another takes its place; None: no limit.
                Not with fork; "spawn" is used where mp_context is None.
            max_submit_backlog: The most tasks that are accepted and that no worker has started; those that run come on
                top of them. True (AUTO_BACKLOG): twice the number of workers. None: no such bound.
            submit_backlog_timeout: Seconds that ``submit()`` waits for room, under whichever bound, before it raises
                SubmitTimeout; 0: it tries once. None: it waits as long as it takes.
            block_on_submit: False: where there is no room ``submit()`` raises RejectedSubmission at once.
            max_bytes: The most bytes that the arguments of outstanding tasks may have together, pickled. A task that
                is larger than that waits until it is alone. What a blocked thread holds beside it is at most 64 KiB
                of pickle. None: no such bound.
            adaptive_bound: Bound the outstanding tasks, and find the bound by itself: from 2 x max_workers on as low
                as max_workers + 1 while that keeps the workers busy, and up to 4 x max_workers (8 x where tasks take
                less than 10 ms) where they have to wait for tasks while producers are blocked. stats().bound has it.
            on_worker_death: "break": a worker that dies breaks the pool, as in the standard class. "replace": it costs
                only the task that it ran, which ends with WorkerDied or runs again (with_options(retries=)), and
                another worker takes its place; when three die in a row and no task has finished between, the pool
                breaks. A task that cannot be unpickled in a worker fails then, with that error, and Ctrl-C is for the
                tasks that run, not for idle workers. Not with fork; "forkserver" is used where mp_context is None.
            max_worker_memory: A worker that has more bytes resident than that when it has finished a task leaves, and
                another takes its place (stats().workers has each worker's: a new one has some 20 MB, and large
                arguments count while it holds them). None: no limit. Not with fork, as on_worker_death.
            pickler: Carries tasks (also their functions) to the workers, and results and exceptions back: the name of
                a module, such as "cloudpickle", or an object, with ``dumps(object)``, which returns bytes or another
                buffer, and ``loads(bytes)``. Where workers are not forked an object must be picklable itself. The
                initializer is carried by it, too, and initargs by multiprocessing, as locks and queues have to be.
                None: as multiprocessing pickles, which includes sockets and connections.

        Raises:
            ValueError, TypeError: As the standard class, for the same arguments.
            ValueError: A bound or a timeout that is none, or a timeout beside block_on_submit=False.
            TypeError: The pickler has no ``dumps`` or no ``loads``.
            ModuleNotFoundError: The pickler is not installed.
        """
        self._max_workers = _check_max_workers(max_workers)
        self._replaces = _check_on_worker_death(on_worker_death)
        self._max_worker_memory = _policy.check_bytes("max_worker_memory", max_worker_memory)
        renews = self._replaces or max_worker_memory is not None
        self._mp_context = _choose_context(mp_context, max_tasks_per_child, renews)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        _check_max_tasks(max_tasks_per_child, self._mp_context)
        if self._replaces:
            _refuse_fork("on_worker_death='replace'", self._mp_context)
        if max_worker_memory is not None:
            _refuse_fork("max_worker_memory", self._mp_context)
        self._initializer = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._pickler = _pickler.check(pickler)
        _policy.check_size("max_submit_backlog", max_submit_backlog)
        self._backlog = _policy.tasks(max_submit_backlog, self._max_workers)
        self._max_bytes = _policy.check_bytes("max_bytes", max_bytes)
        self._patience = _policy.patience(
            submit_backlog_timeout, block_on_submit, ("submit_backlog_timeout", "block_on_submit")
        )
        self._adaptive = _check_adaptive(adaptive_bound)
        self._bound: int | None = 2 * self._max_workers if adaptive_bound else None  # where it begins
        _main.note_path()
        # Held to write what follows. An RLock: a signal handler may come upon it.
        self._shutdown_lock = threading.RLock()
        self._broken: str | Literal[False] = False
        self._shutdown_thread = False
        self._force_shutting_down = False
        self._engine: _core.Engine | None = None
        self._owner: int | None = None  # the pid of the process in which it was started
        self._last_engine: _core.Engine | None = None  # closed, but still good for its numbers
        self._crew: Crew | None = None
        # Names of the standard class's, which programs and tests read.
        self._executor_manager_thread: Collector | None = None
        self._listed: Any = {}
        self._call_queue: _CallQueue | None = _CallQueue()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` executed by a worker, and return its future.

        Where the executor is bounded and full, the calling thread waits for room, first come first served, or as long
        as the executor's submit_backlog_timeout and block_on_submit say. Not so in a done-callback, or within another
        submission of this thread (a signal handler, or while a task is pickled), which is admitted over the bound: its
        waiting could stall the pool. If a signal handler raises while it waits, nothing was submitted, unless its turn
        came just then.

        A call that cannot be pickled fails its future.

        Raises:
            RuntimeError: After shutdown(), also for a thread that was waiting; in a forked child.
            BrokenProcessPool: The pool broke, also for a thread that was waiting. Its cause is as that of a future's.
            RejectedSubmission: There was no room, and block_on_submit is False.
            SubmitTimeout: There was no room within submit_backlog_timeout.
            MemoryError: The pickled task is larger than the shared memory, or there is no memory for it.
            OSError, or whatever else starting a process raises: A worker was wanted and could not be started.

        Warns:
            BlockingSubmitWarning: It waits in a thread that runs an event loop. Once for each executor.
        """
        engine = self._engine
        if engine is None:
            engine = self._start()
        return engine.submit(fn, args, kwargs)

    def with_options(self, *, timeout: float | None = None, retries: int = 0) -> WithOptions:
        """Return an executor over the same pool whose tasks may run so long, and run again so often.

        Args:
            timeout: Seconds that one attempt at a task may run (waiting does not count; of a map with a chunksize, each
                chunk). Past them its worker is killed, whatever it does, and another takes its place; the task ends
                with TaskTimeout, if it has no retries left. No other task is disturbed. None: no limit.
            retries: How often a task is started again after its worker died (WorkerDied) or it ran over its time. What
                it did up to then it does twice. A task that raises is not run again (see Feeder). All attempts count as
                one task: for bounds, for stats(), and for its future.

        Raises:
            ValueError: timeout or retries is something else; or the executor has on_worker_death="break".
        """
        if not self._replaces:
            raise ValueError('with_options() needs an executor with on_worker_death="replace"')
        return WithOptions(self, _policy.limit(timeout), _policy.check_retries(retries))

    def _window(self) -> int | None:
        if self._bound is not None:
            return self._bound
        if self._backlog is not None:
            return self._backlog + self._max_workers
        return None if self._max_bytes is None else 2 * self._max_workers

    def _worker_count(self) -> int:
        return self._max_workers

    def _submit_soon(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], bell: int
    ) -> cf.Future[T] | _core.Ticket[T]:
        return (self._engine or self._start()).submit_soon(fn, args, kwargs, bell)

    def _preparation(self) -> Callable[[], object] | None:
        return None if self._has_worker_for_one_more() else self._prepare

    def _has_worker_for_one_more(self) -> bool:
        engine, crew = self._engine, self._crew
        if engine is None or crew is None:
            return False
        workers = len(crew.processes)
        return workers >= self._max_workers or engine.stats()["outstanding"] < workers

    def _prepare(self) -> None:
        """Have the worker started that one more task wants."""
        self._start()
        crew = self._crew
        if crew is not None and not self._has_worker_for_one_more():
            crew.start_one()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; what was accepted is executed. Threads that wait for room get RuntimeError.

        Args:
            wait: Return only when all tasks have ended and all workers have exited. A done-callback does not wait, nor
                does an object, or a signal handler, that shuts the pool down to which it is just being submitted.
            cancel_futures: Cancel the tasks that no worker has started. If none was started yet, the oldest
                max_workers + 1 are spared, as in the standard class.

        May be called several times, and from any thread.

        Raises:
            RuntimeError: In a forked child.
        """
        self._refuse_forks()
        with self._shutdown_lock:
            self._shutdown_thread = True
            engine, collector = self._engine, self._executor_manager_thread
            if engine is None:
                self._listed = None
                self._call_queue = None
            else:
                engine.shutdown()  # first: else cancelling would make room for producers that wait
                if cancel_futures:
                    engine.cancel_waiting(self._max_workers + 1)
        waits = wait and collector is not threading.current_thread() and not (engine and engine.is_holding())
        if collector is not None and waits:
            collector.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Shut down, and wait for all tasks and workers.

        After a Ctrl-C, in the block or while this waits, tasks that no worker has started are cancelled: else who wants
        to leave would have to press it again and again.
        """
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self._cancel_waiting()
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self._cancel_waiting()
            raise
        return False

    def _cancel_waiting(self) -> None:
        """Shut down without waiting, and cancel all that no worker has started. Does nothing in a forked child."""
        if self._owner == os.getpid():
            self.shutdown(wait=False)
            collector = self._executor_manager_thread
            if collector is not None:
                collector.cancel_waiting()

    def worker_pids(self) -> tuple[int, ...]:
        """Return the process ids of the workers that there are at this moment, in the order in which they started.

        Empty before the first task, and after the end. Thread-safe; waits for a worker that is just being started.

        Raises:
            RuntimeError: In a forked child.
        """
        self._refuse_forks()
        return tuple(self._processes or ())

    def terminate_workers(self) -> None:
        """Shut down without waiting, cancel what can be cancelled, and send each worker SIGTERM.

        Tasks that are lost by that end with ``BrokenProcessPool``. As in Python 3.14.

        Raises:
            RuntimeError: In a forked child.
        """
        self._force_shutdown(operation="terminate")

    def kill_workers(self) -> None:
        """As ``terminate_workers()``, with SIGKILL.

        Raises:
            RuntimeError: In a forked child.
        """
        self._force_shutdown(operation="kill")

    @property
    def _processes(self) -> Any:
        """The workers by their pids, as of the standard class. One that is being started is waited for."""
        crew = self._crew
        return self._listed if crew is None else crew.listed()

    def _force_shutdown(self, operation: Literal["terminate", "kill"]) -> None:
        if operation not in ("terminate", "kill"):
            raise ValueError(f"Unsupported operation: {operation!r}")
        self._refuse_forks()
        with self._shutdown_lock:
            self._force_shutting_down = True
            engine, crew = self._engine, self._crew
        self.shutdown(wait=False, cancel_futures=True)
        if engine is None or crew is None:
            return
        crew.halt()
        if self._replaces:  # deaths would not end what is outstanding
            engine.break_(None, _support.FORCED)
        if crew.signal(operation) == 0:  # no death will end what is still enqueued
            engine.break_(None, _support.FORCED)

    def stats(self) -> Stats:
        """Return what the executor does at this moment, and what it has measured.

        Thread-safe. Costs some ten microseconds and the reading of a small file for each worker; more with a large
        bound, up to two milliseconds: it looks at every slot of the shared memory while producers have to wait.

        Raises:
            RuntimeError: In a forked child.
        """
        self._refuse_forks()
        engine = self._engine or self._last_engine
        from weirpool import _stats  # dataclasses take a while to import

        return _stats.of_engine(engine, self._max_workers, self._bound)

    def _report_broken(self, engine: _core.Engine) -> None:
        """The collector has seen the pool of this engine break."""
        with self._shutdown_lock:
            if self._engine is engine:
                self._broken = _core.UNUSABLE

    def _release(self, engine: _core.Engine) -> None:
        """The collector of this engine has ended, and closes it."""
        with self._shutdown_lock:
            if self._engine is not engine:
                return
            self._last_engine, self._engine = engine, None
            self._executor_manager_thread = None
            self._crew = None
            if self._shutdown_thread:
                self._listed = None
                self._call_queue = None

    def _refuse_forks(self) -> None:
        """Before any lock: in a forked child another thread of the parent's may seem to hold it."""
        if self._owner not in (None, os.getpid()):
            raise RuntimeError(_core.FORKED)

    def _start(self) -> _core.Engine:
        self._refuse_forks()
        with self._shutdown_lock:
            if self._broken:
                raise self._why_broken()
            if self._shutdown_thread:
                raise RuntimeError(_core.SHUT_DOWN)
            if is_exiting():
                raise RuntimeError(_support.EXITING)
            if self._engine is None:
                self._owner = os.getpid()
                with _interrupts.put_off():
                    self._open()
            assert self._engine is not None
            return self._engine

    def _why_broken(self) -> BaseException:
        engine = self._engine or self._last_engine
        return BrokenProcessPool(self._broken) if engine is None else engine.why_broken()

    def _open(self) -> None:
        from weirpool._crew import Crew  # which the fall-back cannot import

        crew = Crew(self)
        engine = _core.Engine(
            self._max_workers,
            0 if self._adaptive else self._bound or 0,
            crew,
            _pickler.find(self._pickler),
            self._adaptive,
            self._backlog or 0,
            self._max_bytes or 0,
            self._patience,
            self._replaces,
        )
        crew.serve(engine)
        collector = Collector(self, engine, crew)
        try:
            if self._mp_context.get_start_method(allow_none=False) == "fork":  # before there are threads
                for _ in range(self._max_workers):
                    crew.start_one()
            collector.start()
        except BaseException:
            engine.shutdown()  # for a collector that runs although its start was interrupted
            crew.terminate()
            if not collector.is_alive():  # else it does so
                crew.dismiss()
                engine.close()
            raise
        if self._engine is not None:  # a signal handler has submitted meanwhile: one is enough
            engine.shutdown()
            return
        self._listed = crew.processes
        self._executor_manager_thread = collector
        self._crew = crew
        self._engine = engine

    def _check(self) -> None:
        """For tests: raise AssertionError if an invariant of the pool is broken."""
        with self._shutdown_lock:
            if self._engine is not None:
                self._engine.check()


class BoundedProcessPoolExecutor(ProcessPoolExecutor):
    """A ``ProcessPoolExecutor`` that admits a bounded number of outstanding tasks: accepted and not finished.

    At the bound ``submit()`` waits, so that producers that are faster than the workers do not fill memory. It blocks
    its thread: do not call it on an event loop's.

    The bound is the first argument: ``BoundedProcessPoolExecutor(16, max_workers=8)``. Without it there is no bound.
    """

    def __init__(
        self,
        max_queue_size: int | Literal[True] | None = None,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_submit_backlog: int | Literal[True] | None = None,
        submit_backlog_timeout: float | None = None,
        block_on_submit: bool = True,
        max_bytes: int | None = None,
        adaptive_bound: bool = False,
        on_worker_death: Literal["break", "replace"] = "break",
        max_worker_memory: int | None = None,
        pickler: str | Pickler | None = None,
    ) -> None:
        """Make a bounded executor.

        Args:
            max_queue_size: The most outstanding tasks (waiting and running; a task whose future has done-callbacks is
                finished when they have run). True: twice the number of workers. None: no bound.
            max_workers, mp_context, initializer, initargs, max_tasks_per_child, max_submit_backlog,
            submit_backlog_timeout, block_on_submit, max_bytes, adaptive_bound, on_worker_death, max_worker_memory,
            pickler: As ProcessPoolExecutor. Where there are several bounds a task is admitted when all of them have
                room.

        Raises:
            ValueError: max_queue_size is anything else; or a number, with adaptive_bound. Nothing was started.
            ValueError, TypeError, ModuleNotFoundError: As ProcessPoolExecutor, for its arguments.

        Warns:
            RuntimeWarning: max_queue_size is less than the number of workers, so that some will never have work.
        """
        _policy.check_size("max_queue_size", max_queue_size)
        if adaptive_bound and not (max_queue_size is None or max_queue_size is True):
            raise ValueError("choose one: max_queue_size as a number, or adaptive_bound=True")
        super().__init__(
            max_workers,
            mp_context,
            initializer,
            initargs,
            max_tasks_per_child=max_tasks_per_child,
            max_submit_backlog=max_submit_backlog,
            submit_backlog_timeout=submit_backlog_timeout,
            block_on_submit=block_on_submit,
            max_bytes=max_bytes,
            adaptive_bound=adaptive_bound,
            on_worker_death=on_worker_death,
            max_worker_memory=max_worker_memory,
            pickler=pickler,
        )
        if not adaptive_bound:
            self._bound = _policy.tasks(max_queue_size, self._max_workers)
        if self._bound is not None:
            _policy.warn_of_low_bound(self._bound, self._max_workers, hint=_ORDER_OF_ARGUMENTS, stacklevel=3)


class _CallQueue:
    """Stands for the standard class's queue to its workers, whose thread some programs join. Ours has no thread."""

    def close(self) -> None:
        """Nothing to do."""

    def join_thread(self) -> None:
        """Nothing to wait for."""


def _check_adaptive(adaptive: object) -> bool:
    if not isinstance(adaptive, bool):
        raise TypeError("adaptive_bound must be True or False")
    return adaptive


def _check_max_workers(max_workers: int | None) -> int:
    if max_workers is None:
        usable = getattr(os, "process_cpu_count", os.cpu_count)()
        return min(usable or 1, _core.MAX_WORKERS)
    _policy.check_int("max_workers", max_workers)
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if max_workers > _core.MAX_WORKERS:
        raise ValueError(f"max_workers must be <= {_core.MAX_WORKERS}")
    return operator.index(max_workers)


def _check_on_worker_death(what: object) -> bool:
    """Is a worker that dies replaced?"""
    if not isinstance(what, str) or what not in ("break", "replace"):
        raise ValueError('on_worker_death must be "break" or "replace"')
    return what == "replace"


def _choose_context(context: BaseContext | None, max_tasks_per_child: int | None, renews: bool) -> BaseContext:
    if context is not None:
        return context
    if renews:
        return mp.get_context("forkserver")
    return mp.get_context("spawn" if max_tasks_per_child is not None else None)


def _check_max_tasks(max_tasks: int | None, context: BaseContext) -> None:
    if max_tasks is None:
        return
    if not isinstance(max_tasks, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    _refuse_fork("max_tasks_per_child", context)


def _refuse_fork(option: str, context: BaseContext) -> None:
    """A worker that takes another's place would be a fork of a process that has threads."""
    if context.get_start_method(allow_none=False) == "fork":
        raise ValueError(
            f"{option} is incompatible with the 'fork' multiprocessing start method; supply a different mp_context."
        )


if TYPE_CHECKING or choice().name == "native":
    from weirpool._core import Future as Future
else:
    # The same classes over the standard library's pool. They derive from those above, whose arguments they take.
    from weirpool._stdlib import BoundedProcessPoolExecutor, Future, ProcessPoolExecutor  # noqa: F401
