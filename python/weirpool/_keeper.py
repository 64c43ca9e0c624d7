"""The tasks of one executor of the fall-back, and the thread that hands them to the standard library's pool.

That is given as many as it has workers. All others wait here, where they can be counted and cancelled, and where they
are not said to be running.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import functools
import operator
import os
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

from weirpool import _support, thread
from weirpool._collector import Collector
from weirpool._engine import core as _core
from weirpool._standard import StandardPool

if TYPE_CHECKING:
    from weirpool._report import Report
    from weirpool._stdlib import ProcessPoolExecutor
    from weirpool._weir import Weir

T = TypeVar("T")

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_HOLD_BACK_SECONDS = 0.5  # after Ctrl-C, which has interrupted a task: the program may be about to cancel the others
_LOOK_SECONDS = 1.0  # so often somebody looks whether there is something to do: a signal handler may have raised
_LOST_THREAD = (
    "A thread of the standard library's process pool has ended by an error, which threading.excepthook was told: "
    "no task would end any more, and the pool is not usable anymore"
)


class _Condition(threading.Condition):
    """Whose with statement calls its lock, in C: no signal handler comes between taking the lock and the block.

    One that raises there would leave the lock taken for good, and the keeper waiting.
    """

    __enter__ = property(operator.attrgetter("_lock.__enter__"))
    __exit__ = property(operator.attrgetter("_lock.__exit__"))


class Future(thread.Future[T]):
    """A future whose task can be cancelled as long as the standard pool was not given it.

    A signal handler may raise at any moment of ``cancel()``. So the keeper goes over every future that was cancelled:
    it tells those who wait, and whatever was broken off is done there (``settle_cancelled()``).
    """

    def __init__(self, permit: _core.Permit, pool: Pool) -> None:
        super().__init__()
        self._condition = _Condition()
        self._uncalled = iter(self._done_callbacks)  # type: ignore[attr-defined]
        self._permit = permit
        self.order: int = permit.order  # type: ignore[attr-defined]  # a permit of the gate in Python
        self._weir = pool.weir
        self._pool: Pool | None = pool
        self._owner = os.getpid()

    def cancel(self, *, force: bool = False) -> bool:
        """As of a standard future.

        Raises:
            RuntimeError: Its task has not ended, and this is a forked child.
            NotImplementedError: force, which would stop a running task.
        """
        if force:
            from weirpool._stdlib import refuse

            refuse("cancel(force=True)", "the standard pool breaks when a worker is killed")
        self._refuse_forks()
        pool = self._pool
        try:
            return super().cancel()
        finally:
            if pool is not None and self._state == "CANCELLED":
                pool.note_cancelled(self)

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

    def settle_cancelled(self) -> None:
        """For the keeper, which alone does so. Harmless when it is called again."""
        if self._state == "CANCELLED":
            self.set_running_or_notify_cancel()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        """May be called again: each callback is called once."""
        try:
            for callback in self._uncalled:
                try:  # nothing comes between the iterator's step and the call
                    callback(self)
                except BaseException as error:
                    if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                        raise
                    _support.log_callback_error(self, error)  # a thread of the pool's must not end by it
        finally:
            self._return_permit()
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
        self._cancelled: deque[Future[Any]] = deque()  # to be gone over by the keeper; whoever cancels adds to it
        self._held_back_until = 0.0
        self._newest = 0  # the latest in order of those that came
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
            if len(self._running) < self._workers or not self._waiting:  # from now on the keeper looks
                self._events.put(None)  # first: whoever looks now waits for the lock
            self._waiting[future] = call
            self._keep_order(future)

    def _keep_order(self, future: Future[Any]) -> None:
        """Lock held. Threads that were admitted one after the other may come here in another order."""
        if future.order < self._newest:
            for other in sorted(self._waiting, key=operator.attrgetter("order")):
                if other.order > future.order and other in self._waiting:
                    self._waiting.move_to_end(other)
        self._newest = max(self._newest, future.order)

    def take_back(self, future: Future[Any]) -> bool:
        """Nobody will have this future: its submission was broken off. Returns whether it was not handed over."""
        with self._lock:
            self._waiting.pop(future, None)
            return future not in self._running

    def note_cancelled(self, future: Future[Any]) -> None:
        """It may still be among those that wait."""
        self._cancelled.append(future)
        self._events.put(None)

    def cancel_waiting(self, spare: int | None = None) -> None:
        """Cancel what was not handed over. If nothing was yet, the oldest are spared; None: as in the standard pool."""
        with self._lock:
            spared = self._workers + 1 if spare is None else spare
            futures = list(self._waiting)[0 if self._has_begun else spared :]
        for future in futures:
            future.cancel()

    # ---- the keeper's thread: no signal handler runs there ----

    def serve(self) -> None:
        """Hand tasks over until there will be no more, or until the pool breaks."""
        while not self._has_ended():
            try:
                self._events.get(timeout=self._patience() if self._waiting or self._running else None)
            except queue.Empty:
                self._find_cancelled()
            self._look_for_threads()
            self._see_to_cancelled()
            while (task := self._next()) is not None:
                self._hand_over(*task)
            self._start_workers()
        self._fail_waiting()
        self._see_to_cancelled()
        self.standard.end(by_force=self._why is not None)
        self._fail_running()

    def _has_ended(self) -> bool:
        self._look_for_break()
        with self._lock:
            return self._why is not None or (self._is_closing and not self._waiting and not self._running)

    def _patience(self) -> float:
        held_back = self._held_back_until - time.monotonic()
        return held_back if 0 < held_back < _LOOK_SECONDS else _LOOK_SECONDS

    def _find_cancelled(self) -> None:
        """Those that should have been noted, had no signal handler raised."""
        with self._lock:
            self._cancelled.extend(future for future in self._waiting if future.cancelled())

    def _see_to_cancelled(self) -> None:
        while self._cancelled:
            future = self._cancelled.popleft()
            with self._lock:
                self._waiting.pop(future, None)
            future.settle_cancelled()

    def _next(self) -> tuple[Future[Any], Call] | None:
        """Take the oldest task that waits, if a worker is free.

        With the lock held nothing is done to the future or its permit: they have locks of their own, and who holds one
        of those may come by here, in a signal handler.
        """
        while True:
            with self._lock:
                if self._why is not None or not self._waiting or len(self._running) >= self._workers:
                    return None
                if time.monotonic() < self._held_back_until:
                    return None
                future, call = self._waiting.popitem(last=False)
                self._running.add(future)
            if future.set_running_or_notify_cancel():
                future._permit.start()
                self._has_begun = True
                return future, call
            self._running.discard(future)

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
        if isinstance(error, KeyboardInterrupt):
            self._held_back_until = time.monotonic() + _HOLD_BACK_SECONDS
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
                self._why = functools.partial(_make_error, error, self.standard.report, dead)
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

    def _look_for_threads(self) -> None:
        if self.standard.has_lost_a_thread() and self._running and self._why is None:  # in this order
            self.break_(None, _LOST_THREAD)

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
            waiting = sum(not future.cancelled() for future in self._waiting)
            assert len(self._running) <= self._workers
            assert stats["waiting"] >= waiting
            assert stats["outstanding"] >= waiting + len(self._running)


def _make_error(
    found: BaseException | None, report: Report | None, dead: dict[int, int], text: str | None
) -> BrokenProcessPool:
    """One instance a future, as tracebacks grow on instances."""
    failure = None if report is None else report.error()
    if failure is not None:
        return _support.not_set_up(failure)
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
