"""The thread pool executors."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from weirpool import _policy
from weirpool._engine import core as _core
from weirpool._gated import Gated
from weirpool._weir import Weir, is_in_callback, is_worker_of

if TYPE_CHECKING:
    from weirpool._stats import Stats

P = ParamSpec("P")
T = TypeVar("T")


class ThreadPoolExecutor(Gated, cf.ThreadPoolExecutor):
    """The standard library's ``ThreadPoolExecutor`` with a weir.

    Accepts every task at once, as the standard class does, unless it is given a bound. Thread-safe. In a forked child
    its methods raise ``RuntimeError``.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_submit_backlog: int | Literal[True] | None = None,
        submit_backlog_timeout: float | None = None,
        block_on_submit: bool = True,
    ) -> None:
        """Make an executor. Threads are started when there is work for them.

        Args:
            max_workers, thread_name_prefix, initializer, initargs: As the standard class.
            max_submit_backlog: The most tasks that are accepted and that no thread has started; those that run come on
                top of them. True (AUTO_BACKLOG): twice the number of threads. None: no such bound.
            submit_backlog_timeout: Seconds that ``submit()`` waits for room, under whichever bound, before it raises
                SubmitTimeout; 0: it tries once. None: it waits as long as it takes.
            block_on_submit: False: where there is no room ``submit()`` raises RejectedSubmission at once.

        Raises:
            ValueError, TypeError: As the standard class, for the same arguments.
            ValueError: A bound or a timeout that is none, or a timeout beside block_on_submit=False.
        """
        if max_workers is not None:
            _policy.check_int("max_workers", max_workers)
        _policy.check_size("max_submit_backlog", max_submit_backlog)
        names = ("submit_backlog_timeout", "block_on_submit")
        self._patience = _policy.patience(submit_backlog_timeout, block_on_submit, names)
        super().__init__(max_workers, thread_name_prefix, initializer, initargs)
        self._bound: int | None = None
        self._backlog = _policy.tasks(max_submit_backlog, self._max_workers)
        self._weir = self._make_weir()

    def _make_weir(self) -> Weir:
        return Weir(self._bound, self._backlog, self._patience, "submit_backlog_timeout")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> cf.Future[T]:
        """Have ``fn(*args, **kwargs)`` executed by a thread, and return its future.

        Where the executor is bounded and full, the calling thread waits for room, first come first served, or as long
        as the executor's submit_backlog_timeout and block_on_submit say. Not so in a done-callback, or in a task of
        this executor's, which is admitted over the bound: its waiting could stall the pool.

        Raises:
            RuntimeError: After shutdown(), also for a thread that was waiting; in a forked child.
            BrokenThreadPool: An initializer raised, also for a thread that was waiting.
            RejectedSubmission: There was no room, and block_on_submit is False.
            SubmitTimeout: There was no room within submit_backlog_timeout.
        """
        return self._submit_with(self._admit(), fn, args, kwargs)

    def _submit_with(
        self, permit: _core.Permit, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[T]:
        try:
            with self._submitting():
                future = super().submit(permit.starting(fn), *args, **kwargs)
                _hold(future, permit, self._weir)
        except BaseException:
            self._weir.give_back(permit)
            raise
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the standard class's. Threads that wait for room get RuntimeError.

        Raises:
            RuntimeError: In a forked child.
        """
        self._weir.shut()
        cf.ThreadPoolExecutor.shutdown(self, wait, cancel_futures=cancel_futures)

    def stats(self) -> Stats:
        """Return what the gate knows: bounds, how tasks stand and ended, how long producers waited. No times of tasks.

        Raises:
            RuntimeError: In a forked child.
        """
        from weirpool._stats import of_gate

        return of_gate("threads", self._weir.stats())

    def _window(self) -> int | None:
        if self._bound is not None:
            return self._bound
        return None if self._backlog is None else self._backlog + self._max_workers

    def _worker_count(self) -> int:
        return self._max_workers

    def _explain(self, error: RuntimeError) -> BaseException:
        return BrokenThreadPool(self._broken) if self._broken else error

    def _must_not_wait(self) -> bool:
        return is_in_callback() or is_worker_of(self)

    def _may_submit_for_others(self) -> bool:
        return not (self._shutdown or self._broken)

    def _initializer_failed(self) -> None:
        super()._initializer_failed()
        self._weir.shut()  # then: whoever it wakes finds out why


class BoundedThreadPoolExecutor(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that admits a bounded number of outstanding tasks: accepted and not finished.

    The bound is the first argument: ``BoundedThreadPoolExecutor(16, max_workers=8)``. Without it there is no bound.
    """

    def __init__(
        self,
        max_queue_size: int | Literal[True] | None = None,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_submit_backlog: int | Literal[True] | None = None,
        submit_backlog_timeout: float | None = None,
        block_on_submit: bool = True,
    ) -> None:
        """Make a bounded executor.

        Args:
            max_queue_size: The most outstanding tasks (waiting and running; a task whose future has done-callbacks is
                finished when they have run). True: twice the number of threads. None: no bound.
            max_workers, thread_name_prefix, initializer, initargs, max_submit_backlog, submit_backlog_timeout,
            block_on_submit: As ThreadPoolExecutor. Where there are two bounds a task is admitted when both have room.

        Raises:
            ValueError: max_queue_size is anything else.
            ValueError, TypeError: As ThreadPoolExecutor, for its arguments.

        Warns:
            RuntimeWarning: max_queue_size is less than the number of threads, so that some will never have work.
        """
        _policy.check_size("max_queue_size", max_queue_size)
        super().__init__(
            max_workers,
            thread_name_prefix,
            initializer,
            initargs,
            max_submit_backlog=max_submit_backlog,
            submit_backlog_timeout=submit_backlog_timeout,
            block_on_submit=block_on_submit,
        )
        self._bound = _policy.tasks(max_queue_size, self._max_workers)
        self._weir = self._make_weir()
        if self._bound is not None:
            _policy.warn_of_low_bound(self._bound, self._max_workers, stacklevel=3)


class Future(cf.Future[T]):
    """A standard future whose task is finished when its done-callbacks have run. Its name is in its ``repr()``."""

    _permit: _core.Permit
    _weir: Weir

    def _invoke_callbacks(self) -> None:
        try:
            super()._invoke_callbacks()  # type: ignore[misc]
        finally:
            self._return_permit()

    def _return_permit(self) -> None:
        """Harmless after its return."""
        _end(self, self._permit, self._weir)


def _end(future: cf.Future[Any], permit: _core.Permit, weir: Weir) -> None:
    permit(future)
    if weir.line:
        weir.serve()


def _hold(future: cf.Future[Any], permit: _core.Permit, weir: Weir) -> None:
    """Let the permit return with the future's end, of which a thread may be telling already."""
    with future._condition:
        if not future.done():
            future._permit = permit  # type: ignore[attr-defined]
            future._weir = weir  # type: ignore[attr-defined]
            future.__class__ = Future
            return
    _end(future, permit, weir)
