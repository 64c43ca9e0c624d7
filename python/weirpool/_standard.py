"""The standard library's process pool, mended where one death or one bad moment would keep it waiting for ever.

Only what all its versions have (3.11 to 3.14) is relied upon: the names of ``_processes``, ``_call_queue``,
``_result_queue``, ``_pending_work_items``, ``_broken``, ``_shutdown_lock``, ``_safe_to_dynamically_spawn_children``,
``_spawn_process``, ``_adjust_process_count``, ``_start_executor_manager_thread`` and
``_executor_manager_thread_wakeup``, of its queue of calls ``shutdown_lock``, ``_send_bytes``, ``_thread``, ``_rlock``
and ``_on_queue_feeder_error``, and of its queue of results ``_wlock``.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, util
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

from weirpool import _interrupts, _main
from weirpool._pipes import Calls, CallWriter, ResultReader, start_worker
from weirpool._report import Report

T = TypeVar("T")

_GRACE_SECONDS = 5.0
_EXIT_CODE_SECONDS = 1.0  # a fork server tells exit codes a moment after the end
_LOOK_SECONDS = 0.1  # so often who waits for the lock looks whether the pool has broken


class _Tasks(dict[int, Any]):
    """Those of the standard pool. Its thread may go over them while the one that pickles takes one out."""

    def items(self) -> Any:
        """A copy."""
        return list(super().items())


class StandardPool(cf.ProcessPoolExecutor):
    """Starts a worker when it holds more tasks than it has workers, and replaces one only when it is asked to.

    Args:
        tasks: Returns how many tasks it holds.
        notify: Called with its lock held: it wants a worker started, or it has broken.
        Others: As of the base class.
    """

    _call_queue: Any
    _result_queue: Any
    _max_workers: int
    _shutdown_lock: Any
    _executor_manager_thread_wakeup: Any
    _safe_to_dynamically_spawn_children: bool

    def __init__(self, *args: Any, tasks: Callable[[], int], notify: Callable[[], None], **kwargs: Any) -> None:
        self._nobody_reads = threading.Event()
        self._why_broken: str | Literal[False] = False
        super().__init__(*args, **kwargs)
        self.report: Report | None = None
        if self._initializer is not None and sys.platform != "win32":
            self.report = Report()
            self._initializer = self.report.watch(self._initializer)
        self._tasks = tasks
        self._notify = notify
        self.workers: Any = self._processes  # the base class lets go of its own references at its end
        if not self._safe_to_dynamically_spawn_children:
            self._initializer = functools.partial(_start_as_fork, self._initializer)
        self._calls = calls = self._call_queue
        self._wakeup = self._executor_manager_thread_wakeup
        results = self._result_queue
        self._initializer = functools.partial(start_worker, self._initializer, results)
        self._locks = list(filter(None, [calls._rlock, results._wlock]))  # that workers take
        self._pipes: list[Any] = [calls._reader, calls._writer, results._reader, results._writer]
        # Its own thread may keep this lock while it ends a broken pool, and waits for workers: see _unless_broken().
        self._shutdown_lock = calls.shutdown_lock = threading.RLock()
        self._pending_work_items = calls.pending_work_items = _Tasks()
        if sys.platform != "win32":
            results._reader = ResultReader(os.dup(results._reader.fileno()), self.workers)
            calls._writer = CallWriter(os.dup(calls._writer.fileno()), self._nobody_reads)
            calls._send_bytes = calls._writer.send_bytes
            calls.__class__ = Calls
            self._pipes += [results._reader, calls._writer]

    def begin(self) -> None:
        """Start the first worker (with fork: all of them), and the thread that manages them, in this thread.

        Whatever raises leaves nothing behind.
        """
        try:
            with self._shutdown_lock:
                if self._safe_to_dynamically_spawn_children:
                    self._spawn_process()
                self._start_executor_manager_thread()
            self._manager: Any = self._executor_manager_thread
        except BaseException:
            for process in list(self.workers.values()):
                process.kill()
                process.join()
            self.shutdown(wait=False)
            raise

    def start_wanted(self) -> None:
        """Start the workers that its tasks want. Raises what starting a process raises."""
        with self._unless_broken():
            while not self._broken and len(self.workers) < min(self._tasks(), self._max_workers):
                self._spawn_process()
                self._wakeup.wakeup()  # so that its thread watches this one, too

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> cf.Future[T]:
        """As of the base class."""
        with self._unless_broken():
            return super().submit(fn, *args, **kwargs)

    @contextlib.contextmanager
    def _unless_broken(self) -> Iterator[None]:
        """Hold its lock. Raises BrokenProcessPool where its thread keeps that while it ends a broken pool."""
        while not self._shutdown_lock.acquire(timeout=_LOOK_SECONDS):
            if self._broken:
                raise BrokenProcessPool(self._broken)
        try:
            yield
        finally:
            self._shutdown_lock.release()

    def _spawn_process(self) -> None:
        _main.restore_path()
        super()._spawn_process()  # type: ignore[misc]
        _watch(next(reversed(list(self.workers.values())), None))

    def _adjust_process_count(self) -> None:
        # The base class counts idle workers, and forgets that one of those may have left. And where its own thread
        # cannot start a process, that thread ends, and nobody is told of anything any more. So others start them.
        if len(self.workers) < min(self._tasks(), self._max_workers):
            self._notify()

    @property  # type: ignore[override]
    def _broken(self) -> str | Literal[False]:
        return self._why_broken

    @_broken.setter
    def _broken(self, text: str | Literal[False]) -> None:
        """Written by the base class, whose thread tells nobody if it holds no task."""
        if not text:
            self._why_broken = text
            return
        with self._shutdown_lock:  # so that no submission, and no start of a worker, comes after its thread has looked
            self._why_broken = text
        self._nobody_reads.set()
        self._notify()

    def is_busy_here(self) -> bool:
        """Is this thread one of its own, which pickles a task or unpickles a result? Nobody else would go on."""
        return threading.current_thread() in (self._manager, getattr(self._calls, "_thread", None))

    def has_lost_a_thread(self) -> bool:
        """Has one of its two threads ended by an error? Then nobody tells of the ends of the tasks that it holds."""
        feeder = self._calls._thread
        has_lost_feeder = feeder is not None and feeder._started.is_set() and not feeder.is_alive()
        return (has_lost_feeder and not self._broken) or not self._manager.is_alive()  # a break ends the former, too

    def find_dead(self) -> dict[int, int]:
        """The exit codes, by their pids, of workers that have ended by themselves."""
        ended = [process for process in list(self.workers.values()) if _has_ended(process)]
        deadline = time.monotonic() + _EXIT_CODE_SECONDS
        dead = {}
        for process in ended:
            while process.exitcode is None and time.monotonic() < deadline:
                time.sleep(0.001)
            if process.pid is not None and process.exitcode is not None:
                dead[process.pid] = process.exitcode
        return dead

    def end(self, by_force: bool) -> None:
        """Wait until its tasks have ended, and its workers. By force: it is broken, or nobody would run its tasks."""
        if by_force or not self._ends_by_itself():
            self._nobody_reads.set()
            self._end_workers()
            if not self._broken:
                self._drop_tasks()
        self.shutdown(wait=False)
        self._manager.join()
        self._clean_up()

    def _ends_by_itself(self) -> bool:
        """Ask it to end, and wait. False: it would not, for lack of a worker, or of its thread.

        That does not see who has died while it is asked. Where a dead worker has held a lock, no other learns of the
        end. A worker that is told, and takes its time to leave, holds none.
        """
        with contextlib.suppress(BrokenProcessPool), self._unless_broken():
            self.shutdown(wait=False)
        locked = 0  # at so many looks, one after the other
        while self._manager.is_alive():
            self._manager.join(_LOOK_SECONDS)
            locked = locked + 1 if self._is_locked() else 0
            if self._broken or (locked * _LOOK_SECONDS > _GRACE_SECONDS and any(self.find_dead().values())):
                return False
        return not any(process.is_alive() for process in list(self.workers.values()))

    def _is_locked(self) -> bool:
        for lock in self._locks:
            if not lock.acquire(block=False):
                return True
            lock.release()
        return False

    def _clean_up(self) -> None:
        """What its thread does, if that has ended by itself."""
        self._calls.close()
        self._calls.join_thread()
        for process in list(self.workers.values()):
            process.join()
        for pipe in self._pipes:
            pipe.close()
        if self.report is not None:
            self.report.close()

    def forget(self) -> None:
        """Let go of everything: the traceback of an exception may keep this pool."""
        self._tasks = int
        self._notify = lambda: None
        self._initializer = None
        self._locks = []
        self._pipes = []
        self._manager = None
        self.workers = {}

    def _drop_tasks(self) -> None:
        """Its thread goes on as long as it has tasks, and looks for each that it has not written yet."""
        for number, item in self._pending_work_items.items():
            if not item.future.cancel():
                self._pending_work_items.pop(number, None)

    def _end_workers(self) -> None:
        """Politely, and by force where that does not help: one that is stopped cannot listen, and would be joined."""
        processes = list(self.workers.values())
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            if not _has_ended(process, max(0.0, deadline - time.monotonic())):
                process.kill()

    def signal_workers(self, operation: str) -> int:
        """Send every worker that lives a signal. Returns how many workers there are or were."""
        processes = list(self.workers.values())
        for process in processes:
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    getattr(process, operation)()
        return len(processes)


def _has_ended(process: BaseProcess, timeout: float = 0.0) -> bool:
    """One at a time: poll() takes no more descriptors than may be open, and that limit may have become lower."""
    with contextlib.suppress(OSError):  # it may be 0
        return bool(connection.wait([process.sentinel], timeout))
    return False


def _start_as_fork(initializer: Callable[..., object] | None, *initargs: Any) -> None:
    """In a worker that was forked while Ctrl-C was put off."""
    _interrupts.resume()
    if initializer is not None:
        initializer(*initargs)


def _watch(process: BaseProcess | None) -> None:
    """Where there are pidfds, have its sentinel tell of its own end: what a task left behind keeps the usual one."""
    if process is None or process.pid is None:
        return
    with contextlib.suppress(AttributeError, OSError):
        descriptor = os.pidfd_open(process.pid)
        util.Finalize(process, os.close, (descriptor,))
        process._sentinel = descriptor  # type: ignore[attr-defined]
