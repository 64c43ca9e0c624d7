"""The feeder: many producers hand over items, one place submits them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any, Generic, Literal, TypeVar

from weirpool import _policy
from weirpool._bounded import BoundedExecutor
from weirpool._errors import SubmitTimeout
from weirpool._items import Failure, FeederStats, Item
from weirpool._weir import is_worker_of
from weirpool._workers import check_executor, count_workers

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

_CLOSED = "cannot put into a feeder that was closed"
_FORKED = "a feeder belongs to the process that made it, and cannot be used in a forked child"


class Feeder(Generic[I, R]):
    """Submits the items of many producers to any executor, ``maxsize`` of them at once, and keeps account of each.

        with Feeder(executor, work, retries=2) as feeder:
            for item in source:
                feeder.put(item)      # from any number of threads
        print(feeder.failures)

    What counts against maxsize is outstanding: handed over and not finished, in all its attempts. An item that came to
    nothing is in ``failures``, with its exception; none is lost. Thread-safe. It has no thread of its own and does not
    shut the executor down. In a forked child its methods raise RuntimeError.
    """

    def __init__(
        self,
        executor: Executor,
        fn: Callable[[I], R],
        *,
        maxsize: int | Literal[True] = True,
        retries: int = 0,
        on_result: Callable[[I, R], object] | None = None,
    ) -> None:
        """Make a feeder of an executor, which may be anybody's: standard, of this package, distributed.

        Args:
            executor: Submits the items. Where it is bounded itself, put() waits for its room, too.
            fn: Called with each item, by the executor.
            maxsize: The most items outstanding. True: twice the workers of the executor.
            retries: How often an item is submitted again whose call has raised. Not if it was cancelled, or the
                executor broke or was shut down.
            on_result: Called with each item and its result, in the thread that delivers it, perhaps in several at
                once. If it raises, the item fails with that exception, and is not tried again: its work was done.
                It may put(): such an item is admitted past maxsize, as its waiting could be a deadlock.

        Raises:
            ValueError: maxsize or retries is something else; or maxsize is True, and the executor does not tell how
                many workers it has.
            TypeError: executor is no executor, or fn or on_result cannot be called.
        """
        check_executor("Feeder()", executor)
        _check_callable("fn", fn)
        if on_result is not None:
            _check_callable("on_result", on_result)
        self._executor = executor
        self._fn = fn
        self._maxsize = _check_maxsize(maxsize, executor)
        self._retries = _policy.check_retries(retries)
        self._on_result = on_result
        self._owner = os.getpid()
        # Of all that follows. A signal handler, or a callback of what is collected meanwhile, may come upon it. What
        # belongs together is changed without a call in between, where no such thing can come.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._line: deque[Item[I]] = deque()
        self._serves = False  # a call of _serve_line() is under way,
        self._serves_on = False  # and has to look again: another came within it
        self._closed = False
        self._outstanding = 0
        self._peak = 0
        self._accepted = 0
        self._succeeded = 0
        self._retried = 0
        self._blocked_seconds = 0.0
        self._over_bound = 0
        self._failures: list[Failure[I]] = []
        self._thread = _Standing()

    def put(self, item: I, timeout: float | None = None) -> None:
        """Hand an item over. Waits while maxsize items are outstanding; first come, first served.

        A thread that delivers results does not wait, nor does a worker thread of the executor: the items that they put
        are admitted past maxsize, and counted. If a signal handler raises, the item was not accepted, unless it had
        been submitted just then. (One that raises within the executor's submit() leaves it to that.)

        Args:
            item: The argument for the call.
            timeout: Seconds to wait for room; 0: do not wait. None: no limit. The time that the executor's own
                submit() takes is not cut short.

        Raises:
            SubmitTimeout: There was no room in time. Later may do.
            RuntimeError: The feeder was closed, also while this waited; or in a forked child.
            ValueError: The timeout is negative or no number.
            Whatever the executor's submit() raises: RuntimeError after its shutdown, BrokenExecutor, queue.Full. The
                item was not accepted. Producers that waited for room get it, too, one after the other.
        """
        _policy.check_timeout("timeout", timeout)
        self._refuse_forks()
        new = Item(item)
        try:
            self._wait_for_room(new, timeout)
            self._thread.submitting += 1
            try:
                self._submit(new)
            finally:
                self._thread.submitting -= 1
            self._accept(new)
        except BaseException:
            self._undo(new)
            raise

    def close(self) -> None:
        """Accept nothing more, and wait until all that was accepted has finished.

        Producers that wait for room get RuntimeError: their items were not accepted. May be called several times, and
        from any thread; one that delivers results does not wait.
        """
        self._refuse_forks()
        may_not_wait = self._may_not_wait()
        with self._lock:
            self._closed = True
            while self._line:
                item = self._line.popleft()
                item.is_refused = True
                item.turn.release()
            if not may_not_wait:
                self._idle.wait_for(lambda: self._outstanding == 0)

    def __enter__(self) -> Feeder[I, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def failures(self) -> tuple[Failure[I], ...]:
        """Every item that came to nothing so far, in the order in which they failed. They are kept for good."""
        self._refuse_forks()
        with self._lock:
            return tuple(self._failures)

    def stats(self) -> FeederStats:
        """Return what the feeder does at this moment."""
        self._refuse_forks()
        with self._lock:
            return FeederStats(
                accepted=self._accepted,
                outstanding=self._outstanding,
                succeeded=self._succeeded,
                failed=len(self._failures),
                retried=self._retried,
                blocked_producers=len(self._line),
                blocked_seconds=self._blocked_seconds,
                admitted_over_bound=self._over_bound,
                peak_outstanding=self._peak,
            )

    # ---- room ----

    def _wait_for_room(self, item: Item[I], timeout: float | None) -> None:
        if self._enter(item, timeout):
            return
        item.turn.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        self._leave_line(item)
        if item.is_refused:
            raise RuntimeError(_CLOSED)
        if not item.has_room:
            raise SubmitTimeout(f"no room in {timeout} s: {self._maxsize} items are outstanding")

    def _enter(self, item: Item[I], timeout: float | None) -> bool:
        """Take room, or stand in line for it."""
        with self._lock:
            if self._take_room(item):
                return True
        may_not_wait = self._may_not_wait()
        with self._lock:
            if self._take_room(item):
                return True
            if may_not_wait:
                self._over_bound += 1
                self._give_room(item)
                return True
            if timeout == 0:
                raise SubmitTimeout(f"{self._maxsize} items are outstanding")
            item.waits = time.monotonic()
            self._line.append(item)
            return False

    def _take_room(self, item: Item[I]) -> bool:
        if self._closed:
            raise RuntimeError(_CLOSED)
        if self._outstanding >= self._maxsize or self._line:
            return False
        self._give_room(item)
        return True

    def _may_not_wait(self) -> bool:
        """Asked without the lock: it takes one of the executor's."""
        return self._thread.delivers or _is_thread_of(self._executor)

    def _give_room(self, item: Item[I]) -> None:
        self._outstanding += 1
        item.has_room = True
        if self._outstanding > self._peak:
            self._peak = self._outstanding

    def _settle(self, item: Item[I], succeeded: int, failure: list[Failure[I]]) -> None:
        """It needs its room no more, and is counted, both at once and once only. Those in line have the room."""
        with self._lock:
            if item.has_room:
                item.has_room = False
                self._outstanding -= 1
                self._succeeded += succeeded
                self._failures += failure
            self._serve_line()

    def _serve_line(self) -> None:
        """May be broken off anywhere and called again; a call within a call leaves its work to that one."""
        self._serves_on = True
        if self._serves:
            return
        try:
            self._serves = True
            while self._serves_on:
                self._serves_on = False
                self._serve_first_ones()
        finally:
            self._serves = False
        if self._outstanding == 0:
            self._idle.notify_all()

    def _serve_first_ones(self) -> None:
        while self._line:
            first = self._line[0]
            if not first.has_room:
                if self._outstanding >= self._maxsize:
                    return
                self._give_room(first)
            if first.turn.locked():
                first.turn.release()
            if self._line and self._line[0] is first:
                self._line.popleft()

    def _leave_line(self, item: Item[I]) -> None:
        """From now on it is decided whether its turn has come."""
        with self._lock:
            if item in self._line:
                self._line.remove(item)
            if item.waits is not None:
                self._blocked_seconds += time.monotonic() - item.waits
                item.waits = None

    def _undo(self, item: Item[I]) -> None:
        """Its put() raises: it was not accepted. If a signal handler raised when it had been submitted, it was."""
        self._leave_line(item)
        future = item.future
        if item.is_submitted:
            if future is not None:
                self._await(item, future)  # perhaps it was not yet; twice does no harm
            self._accept(item)
            return
        self._settle(item, 0, [])

    def _accept(self, item: Item[I]) -> None:
        with self._lock:
            if not item.is_accepted:
                self._accepted += 1
                item.is_accepted = True

    # ---- attempts ----

    def _submit(self, item: Item[I]) -> None:
        future = self._executor.submit(self._fn, item.value)
        item.future = future
        item.is_submitted = True
        item.attempts += 1
        self._await(item, future)

    def _await(self, item: Item[I], future: Future[R]) -> None:
        future.add_done_callback(lambda future: self._end_attempt(item, future))

    def _end_attempt(self, item: Item[I], future: Future[R]) -> None:
        """A done-callback."""
        try:
            with self._lock:
                if item.future is not future:
                    return  # told already
                item.future = None
            self._conclude(item, future)
        except BaseException as error:  # a signal handler's
            if item.future in (None, future):
                self._fail(item, error)
            raise

    def _conclude(self, item: Item[I], future: Future[R]) -> None:
        cancelled = future.cancelled()
        error = CancelledError() if cancelled else future.exception()
        before = self._thread.delivers
        self._thread.delivers = True
        try:
            if error is None:
                self._succeed(item, future.result())
            elif item.attempts <= self._retries and not isinstance(error, BrokenExecutor | CancelledError):
                self._try_again(item, error)
            else:
                self._fail(item, error)
        finally:
            # Who cancels delivers that and nothing else; and so does a producer whose call has ended at once.
            self._thread.delivers = before or not (cancelled or self._thread.submitting)

    def _succeed(self, item: Item[I], result: R) -> None:
        if self._on_result is not None:
            try:
                self._on_result(item.value, result)
            except BaseException as error:
                self._fail(item, error)
                self._pass_on(error)
                return
        self._settle(item, 1, [])

    def _fail(self, item: Item[I], error: BaseException) -> None:
        self._settle(item, 0, [Failure(item.value, error, item.attempts)])

    def _try_again(self, item: Item[I], error: BaseException) -> None:
        with self._lock:
            self._retried += 1
        try:
            self._submit(item)
        except BaseException as refusal:
            if item.future is not None:
                raise  # it is on its way
            with self._lock:
                self._retried -= 1
            error.add_note(f"not tried again: {refusal!r}")
            self._fail(item, error)
            self._pass_on(refusal)

    def _pass_on(self, error: BaseException) -> None:
        """Ctrl-C is the producer's in whose put() it came. Else nobody is there who could be told."""
        if self._thread.submitting and isinstance(error, KeyboardInterrupt):
            raise error

    def _refuse_forks(self) -> None:
        """Before any lock: another thread of the parent's may seem to hold it."""
        if os.getpid() != self._owner:
            raise RuntimeError(_FORKED)


class _Standing(threading.local):
    """What the calling thread is to the feeder."""

    submitting = 0
    """It is in put(), past the line."""
    delivers = False
    """It delivers results, now or at any time: nobody else may be there to end what it would wait for."""


def _is_thread_of(executor: Any) -> bool:
    """Is this one on which the executor depends, as far as standard executors show them?"""
    while isinstance(executor, BoundedExecutor):
        executor = executor._inner
    standard = getattr(getattr(executor, "_engine", None), "standard", None)  # of the fall-back
    if standard is not None and _is_thread_of(standard):
        return True
    manager = getattr(executor, "_executor_manager_thread", None)
    return manager is threading.current_thread() or is_worker_of(executor)


def _check_maxsize(maxsize: object, executor: Executor) -> int:
    if maxsize is True:
        workers = count_workers(executor)
        if workers is None:
            raise ValueError(
                "maxsize=True is twice the number of workers, which this executor does not tell; give it a number"
            )
        return 2 * workers
    if not _policy.is_count(maxsize):
        raise ValueError("maxsize must be True or a positive int")
    return maxsize


def _check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")
