"""The thread that tells futures of their results and callbacks of their futures; one for each executor in use."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from weirpool import _support
from weirpool._engine import core as _core

if TYPE_CHECKING:
    from weirpool._crew import Crew

_RETRY_SECONDS = 1.0  # after a worker that could not be started

_lock = threading.RLock()  # of `_running`, and of beginning to exit; a signal handler may come upon it
_exiting = False
_prepared: int | None = None
_running: weakref.WeakSet[Collector] = weakref.WeakSet()


class Collector(threading.Thread):
    """Runs until the executor was shut down (or collected) and its tasks have ended, or until its pool broke.

    It keeps the engine and the crew alive, and not the executor.
    """

    def __init__(self, executor: Any, engine: _core.Engine, crew: Crew) -> None:
        super().__init__(name="weirpool-collector", daemon=False)
        self._engine = engine
        self._crew = crew
        self._executor = weakref.ref(executor, lambda _: _shut_down(engine))
        self._owner = os.getpid()
        self._runs = threading.Lock()  # held until it has ended
        self._runs.acquire()
        recycles = executor._max_tasks_per_child is not None and not executor._replaces
        self._collected = _support.COLLECTED if recycles else _support.COLLECTED_LATER

    def start(self) -> None:
        with _lock:
            if _exiting:
                raise RuntimeError(_support.EXITING)
            _finish_before_children_are_joined()
            _running.add(self)
            try:
                super().start()
            except BaseException:
                if not self.is_alive():
                    _running.discard(self)
                raise

    def join(self, timeout: float | None = None) -> None:
        """As of any thread. (That of Python 3.11 and 3.12 takes one for ended if Ctrl-C comes while it waits.)"""
        is_other = threading.current_thread() is not self and os.getpid() == self._owner  # else it would wait for ever
        if timeout is None and self.ident is not None and is_other:
            with self._runs:  # no signal handler comes between taking the lock and leaving the block
                pass
        super().join(timeout)

    def run(self) -> None:
        try:
            self._run()
        finally:
            self._runs.release()

    def _run(self) -> None:
        try:
            self._collect()
        except BaseException as error:  # whatever it was, no future may be left behind
            self._engine.break_(_support.format_cause(error))
            self._collect()
        self._crew.dismiss()
        executor = self._executor()
        if executor is not None:
            executor._release(self._engine)
        self._engine.close()

    def _collect(self) -> None:
        is_short = False  # of a worker, which could not be started
        while True:
            kind, worker = self._engine.collect(_RETRY_SECONDS if is_short else None)
            if kind == _core.BROKE:
                self._report_broken()
                if not self._engine.explained():
                    self._crew.find_dead()  # before the others are ended, too
                self._crew.terminate()
                return
            if kind == _core.DRAINED:
                self._crew.join()
                return
            if kind == _core.WORKER_LEFT:
                self._crew.see_off(worker)
            is_short = not self._replace_one()

    def stop(self) -> None:
        """Accept nothing more; what was accepted runs to its end."""
        self._engine.shutdown()

    def cancel_waiting(self) -> None:
        """Cancel what no worker has started, and wait for no worker that starts."""
        self._engine.cancel_waiting(0)
        self._crew.turn_away()

    def _replace_one(self) -> bool:
        """A worker has left, or died: another takes its place. If there is none, what waits ends with the reason.

        As in CPython 3.14, nobody takes the place of a worker once the executor was collected or is shut down by force.
        Returns False where one could not be started, and others go on: later it may do.
        """
        executor = self._executor()
        cause = None
        if executor is None:
            reason = self._collected
        elif executor._force_shutting_down:
            reason = _support.FORCED
        else:
            reason = _support.NOT_STARTED
            cause = self._crew.start_wanted()
            if cause is None:  # work that comes from now on starts its worker itself
                return True
        if self._crew.is_deserted() and self._engine.wants_worker():
            self._engine.break_(cause, reason)
        return cause is None

    def _report_broken(self) -> None:
        executor = self._executor()
        if executor is not None:
            executor._report_broken(self._engine)


def _shut_down(engine: _core.Engine) -> None:
    """The executor was collected. Takes no lock that a submit could hold: garbage may be collected inside one."""
    with contextlib.suppress(RuntimeError):  # in a forked child: the pool is the parent's
        engine.shutdown()


def is_exiting() -> bool:
    """Has the interpreter begun to exit?"""
    return _exiting


def _finish_all() -> None:
    """Turn producers away, run what was accepted, join."""
    with _lock:
        collectors = list(_running)
    for collector in collectors:
        collector.stop()
    try:
        for collector in collectors:
            collector.join()
    except KeyboardInterrupt:  # who presses Ctrl-C now does not want what is pending
        for collector in collectors:
            collector.cancel_waiting()
        raise


def _finish_at_exit() -> None:
    global _exiting
    with _lock:
        _exiting = True
    _finish_all()


def _finish_before_children_are_joined() -> None:
    """In a process of multiprocessing's, children are joined at exit before threads are: ours must have been told."""
    global _prepared
    if _prepared != os.getpid():
        _prepared = os.getpid()
        util.Finalize(None, _run_finalizer, exitpriority=100)


def _run_finalizer() -> None:
    """Finalizers run at exit, and when a test suite wants multiprocessing to be as new."""
    global _prepared
    _prepared = None
    if util.is_exiting():
        _finish_at_exit()
    else:
        _finish_all()


def _forget_all() -> None:
    """In a forked child: the threads are the parent's, and one of them may have held the lock."""
    global _lock
    _lock = threading.RLock()
    _running.clear()


threading._register_atexit(_finish_at_exit)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):  # not where there is no fork()
    os.register_at_fork(after_in_child=_forget_all)
