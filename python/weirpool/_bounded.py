"""``bounded()``: the weir in front of any executor."""

from __future__ import annotations

import concurrent.futures as cf
import functools
import inspect
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from weirpool import _policy
from weirpool._engine import core as _core
from weirpool._executor import Executor
from weirpool._gated import Gated
from weirpool._weir import Weir, is_in_callback, is_inside, is_worker_of
from weirpool._workers import check_executor, count_workers

if TYPE_CHECKING:
    from weirpool._stats import Stats

P = ParamSpec("P")
T = TypeVar("T")


def bounded(
    executor: cf.Executor,
    max_queue_size: int | Literal[True] | None = True,
    *,
    workers: int | Callable[[], int] | None = None,
    submit_timeout: float | None = None,
    block_on_submit: bool = True,
) -> BoundedExecutor:
    """Return an executor over another one, of any kind, that admits a bounded number of outstanding tasks.

    Submit through it alone: what is submitted past it is not counted. Functions, futures and errors are those of the
    other executor. A task has finished when its future says so: before the done-callbacks that users add to it have
    run. What is bounded twice has both bounds.

    ``asubmit()`` awaits room, and then calls the other executor's ``submit()`` in the loop's thread or in one that has
    made room. The first calls of a standard process pool start its processes there, which takes tens of milliseconds:
    submit something before the loop runs. Another executor that is bounded itself makes the loop wait for its own room.

    Args:
        executor: The executor that runs the tasks: of threads or processes, of loky, Dask, mpi4py.
        max_queue_size: The most outstanding tasks: accepted and not finished. True: twice the number of workers. None:
            no bound.
        workers: How many tasks the executor can run at once, or what returns that; it is called once. None: the
            executor is asked, by the names that such numbers usually have.
        submit_timeout: Seconds that ``submit()`` waits for room before it raises SubmitTimeout; 0: it tries once. None:
            it waits as long as it takes.
        block_on_submit: False: where there is no room ``submit()`` raises RejectedSubmission at once.

    Raises:
        ValueError: A bound or a timeout that is none, or a timeout beside block_on_submit=False; or the number of
            workers is wanted and not known.
        TypeError: executor is no executor.

    Warns:
        RuntimeWarning: max_queue_size is less than the number of workers; or a Dask executor was made without
            ``pure=False``, so that equal calls run once.
    """
    check_executor("bounded()", executor)
    _policy.check_size("max_queue_size", max_queue_size)
    patience = _policy.patience(submit_timeout, block_on_submit, ("submit_timeout", "block_on_submit"))
    count = _count_workers(executor, workers, required=max_queue_size is True)
    bound = _policy.tasks(max_queue_size, count or 0)
    if bound is not None and count is not None:
        _policy.warn_of_low_bound(bound, count, stacklevel=3)
    _warn_of_pure(executor)
    return BoundedExecutor(executor, bound, count, patience)


class BoundedExecutor(Gated):
    """What ``bounded()`` returns. Thread-safe. In a forked child its methods raise ``RuntimeError``."""

    def __init__(self, executor: cf.Executor, bound: int | None, workers: int | None, patience: float | None) -> None:
        """For ``bounded()``, which checks."""
        self._inner = executor
        self._bound = bound
        self._workers = workers
        self._patience = patience
        self._weir = Weir(bound, None, patience, "submit_timeout")
        self._here = _Here()
        self._broken: Callable[[], BaseException] | None = None
        self._is_ending = False
        self._known = _parameters(executor.shutdown)
        # To be cancelled by shutdown(), if the other executor's cannot.
        self._futures: weakref.WeakSet[cf.Future[Any]] | None = (
            None if "cancel_futures" in self._known else weakref.WeakSet()
        )
        self._futures_lock = threading.RLock()  # a signal handler may come upon it

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> cf.Future[T]:
        """Submit a call to the other executor, when there is room, and return its future.

        Waits for room first come, first served. Never waits, but is admitted over the bound: a done-callback, a thread
        that delivers completions, a task in a thread of the other executor's, and a submission within another one.

        Raises:
            RuntimeError: After shutdown(), also for a thread that was waiting; in a forked child.
            BrokenExecutor: The other executor broke, also for a thread that was waiting.
            RejectedSubmission: There was no room, and block_on_submit is False.
            SubmitTimeout: There was no room within submit_timeout.
            Whatever the other executor's ``submit()`` raises.
        """
        return self._submit_with(self._admit(), fn, args, kwargs)

    def _submit_with(
        self, permit: _core.Permit, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[T]:
        here = self._here
        depth = here.depth
        try:
            here.depth = depth + 1
            with self._submitting():
                future = self._inner.submit(fn, *args, **kwargs)
                if self._futures is not None:
                    with self._futures_lock:
                        self._futures.add(future)
                future.add_done_callback(functools.partial(_finish, weakref.ref(self), permit))
        except BaseException:
            self._weir.give_back(permit)
            raise
        finally:
            here.depth = depth
        return future

    def _preparation(self) -> Callable[[], object] | None:
        return self._inner._preparation() if isinstance(self._inner, Executor) else None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and shut the other executor down. Threads that wait for room get RuntimeError.

        Args:
            wait: As the other executor's.
            cancel_futures: As the other executor's; if it has no such parameter, every future is cancelled that can be.

        Raises:
            RuntimeError: In a forked child.
        """
        self._is_ending = True
        self._weir.shut()
        if cancel_futures and self._futures is not None:
            with self._futures_lock:
                futures = list(self._futures)
            for future in futures:
                future.cancel()
        wanted = {"wait": wait, "cancel_futures": cancel_futures}
        self._inner.shutdown(**{name: value for name, value in wanted.items() if name in self._known})

    def stats(self) -> Stats:
        """Return what the gate knows: the bound, what is outstanding, how tasks ended, and how long producers waited.

        When the other executor starts a task is not known: all outstanding ones count as waiting. Nor are times.

        Raises:
            RuntimeError: In a forked child.
        """
        from weirpool._stats import of_gate

        return of_gate(type(self._inner).__name__, self._weir.stats())

    def _window(self) -> int | None:
        return self._bound

    def _worker_count(self) -> int:
        return self._workers or self._bound or 1

    def _explain(self, error: RuntimeError) -> BaseException:
        return self._broken() if self._broken is not None else error

    def _must_not_wait(self) -> bool:
        here = self._here
        if here.depth > 0 or here.delivers or is_in_callback():
            return True
        return self._inner._must_not_wait() if isinstance(self._inner, Gated) else is_worker_of(self._inner)

    def _may_submit_for_others(self) -> bool:
        if isinstance(self._inner, Executor) and self._inner._window() is not None:
            return False  # it is bounded itself: who has made room here would be admitted over that bound
        return not (self._is_ending or _is_broken(self._inner) or _is_shut(self._inner))

    def _note_end(self, future: cf.Future[Any]) -> None:
        """Before the permit of the future returns."""
        if self._broken is None and _is_broken(self._inner):
            self._break(future)
        here = self._here
        if here.depth == 0 and not here.delivers and not _core.is_delivering() and not is_inside("cancel"):
            here.delivers = True

    def _break(self, future: cf.Future[Any]) -> None:
        """Turn everybody away here: the other executor may hold a lock that its ``submit()`` takes."""
        error = None if future.cancelled() else future.exception()
        kind = type(error) if isinstance(error, cf.BrokenExecutor) else cf.BrokenExecutor
        text = str(error) if isinstance(error, cf.BrokenExecutor) else "the executor broke and is not usable anymore"
        self._broken = functools.partial(kind, text)
        self._weir.shut()


class _Here(threading.local):
    """Of each thread: how many submissions it is in, and whether it was seen delivering completions."""

    depth = 0
    delivers = False


def _finish(ref: weakref.ref[BoundedExecutor], permit: _core.Permit, future: cf.Future[Any]) -> None:
    """The done-callback. A future that is kept does not keep the executor."""
    executor = ref()
    try:
        if executor is not None:
            executor._note_end(future)
    finally:
        permit(future)
        if executor is not None and executor._weir.line:
            executor._weir.serve()


def _is_broken(executor: cf.Executor) -> bool:
    """As the standard pools say it, and loky."""
    flags = getattr(executor, "_flags", None)
    return bool(getattr(executor, "_broken", False)) or bool(getattr(flags, "broken", False))


def _is_shut(executor: cf.Executor) -> bool:
    """As the standard pools say it."""
    return bool(getattr(executor, "_shutdown", False)) or bool(getattr(executor, "_shutdown_thread", False))


def _parameters(shutdown: Callable[..., object]) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(shutdown).parameters)
    except (TypeError, ValueError):
        return frozenset({"wait"})


def _warn_of_pure(executor: cf.Executor) -> None:
    client, options = getattr(executor, "_client", None), getattr(executor, "_kwargs", None)
    if client is None or not isinstance(options, dict) or not options.get("pure", True):
        return
    warnings.warn(
        "this Dask executor takes functions for pure: equal calls run once and share a result; "
        "make it with client.get_executor(pure=False)",
        RuntimeWarning,
        stacklevel=3,
    )


# ---- how many workers ----


def _count_workers(executor: cf.Executor, workers: int | Callable[[], int] | None, *, required: bool) -> int | None:
    count = workers() if callable(workers) else workers
    if count is None:
        count = count_workers(executor)
    elif not _policy.is_count(count):
        raise ValueError("workers must be a positive int, or a callable that returns one")
    if count is None and required:
        raise ValueError(
            f"how many workers {type(executor).__name__} has at this moment is not known: pass workers=, or "
            "max_queue_size as a number; where a cluster's workers are still to come, wait for them"
        )
    return count
