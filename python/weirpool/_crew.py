"""Starting, replacing and ending the worker processes of one executor, through multiprocessing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from weirpool import _core, _entry, _interrupts, _main, _reap, _report, _support, _worker
from weirpool._pickler import Initializer

_GRACE_SECONDS = 5.0
_EXIT_CODE_SECONDS = 1.0  # an exit code is told a moment after the end
_MOST_CODES = 4096  # more than there may be workers: of tasks that died long ago, and that nobody has asked
_REAP_SECONDS = 30.0  # only a fork server that is stopped takes so long


class Crew:
    """The processes of one executor. ``processes`` maps pids, as the standard executor's ``_processes`` does.

    It does not keep the executor, nor what the executor was given for its workers: those may refer to it.
    """

    def __init__(self, executor: Any) -> None:
        self.processes: dict[int, BaseProcess] = {}
        self._executor = weakref.ref(executor)
        self._owner = os.getpid()
        self._lock = threading.RLock()  # while a worker is started; of `_by_number` and `_halted`
        self._by_number: dict[int, BaseProcess] = {}
        self._engine: _core.Engine | None = None  # from before the first start until the collector's end
        self._halted = False
        self._dead_lock = threading.RLock()
        self._dead: dict[int, int] | None = None
        self._codes: dict[int, int] = {}  # exit codes of workers that left, other than 0
        self._report = None if executor._initializer is None else _report.Report()

    def serve(self, engine: _core.Engine) -> None:
        """Start workers for this engine from now on."""
        self._engine = engine

    def dismiss(self) -> None:
        """All have ended: let go of them, whose descriptors would stay open, and of the engine."""
        self._engine = None
        for pid, process in self.processes.items():
            self._note_code(pid, process.exitcode or 0)
        self.processes = {}
        self._by_number = {}
        if self._report is not None:
            self._report.close()

    def halt(self) -> None:
        """Start no more workers: all that there will be are in ``processes``, or end by themselves."""
        with self._lock:
            self._halted = True

    def start_one(self) -> None:
        """Start one more worker, unless there are enough. What starting a process raises is raised."""
        engine, executor = self._engine, self._executor()
        with _interrupts.put_off(), self._lock:
            if engine is None or executor is None or self._halted:
                return
            number = engine.reserve()
            if number is None:
                return
            try:
                self._start(engine, executor, number)
            except BaseException:
                engine.abandon(number)
                raise

    def _start(self, engine: _core.Engine, executor: Any, number: int) -> None:
        channel = _worker.Channel(*engine.channel())
        args = executor._replaces, _is_unblocked(executor), channel, engine.badge(number), *self._worker_args(executor)
        process = executor._mp_context.Process(target=_worker.main, args=args)
        try:
            _main.restore_path()
            with _ctrl_c_blocked(executor, process):
                process.start()
            _reap.serialise_polls(process)
            self.processes[process.pid] = self._by_number[number] = process
            self._watch(engine, number, process)
        except BaseException:
            if process.pid is not None:
                process.kill()
                _reap.join(process)
                self.processes.pop(process.pid, None)
                self._by_number.pop(number, None)
            elif not engine.revoke(number):  # a process that nobody can end, or see end, is a worker of this pool
                engine.break_(None, _support.UNKNOWN_WORKER)
            raise
        if self._halted:  # by a signal handler, meanwhile
            process.kill()

    def _worker_args(self, executor: Any) -> tuple[Any, ...]:
        initializer, pickler = executor._initializer, executor._pickler
        if initializer is not None and pickler is not None:
            initializer = Initializer(pickler, initializer)
        if self._report is not None:
            initializer = self._report.watch(initializer)
        limits = executor._max_tasks_per_child or 0, executor._max_worker_memory or 0
        return initializer, executor._initargs, limits, pickler

    def _watch(self, engine: _core.Engine, number: int, process: BaseProcess) -> None:
        assert process.pid is not None
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:  # it has ended already; its sentinel may be held open by what it left behind
            fd = os.eventfd(1)
        except OSError:  # pidfds are refused here
            engine.watch(number, process.sentinel, process.pid)
            return
        try:
            engine.watch(number, fd, process.pid)
        finally:
            os.close(fd)

    def see_off(self, number: int) -> None:
        """A worker has left, as planned, or died and is to be replaced: forget all but how it ended."""
        with self._lock:
            process = self._by_number.pop(number)
            _reap.join(process)
            assert process.pid is not None
            self._note_code(process.pid, process.exitcode or 0)
            self.processes.pop(process.pid, None)
            if self._engine is not None:
                self._engine.vacate(number)

    def _note_code(self, pid: int, code: int) -> None:
        self._codes.pop(pid, None)  # another process had that pid before
        if code != 0:
            self._codes[pid] = code
        if len(self._codes) > _MOST_CODES:
            del self._codes[next(iter(self._codes))]

    def exit_code_of(self, pid: int) -> int:
        """How a worker ended that has died. Waits a moment where that is not known yet."""
        process = self.processes.get(pid) if os.getpid() == self._owner else None
        if process is not None:
            _reap.join(process, _REAP_SECONDS)
        code = None if process is None else process.exitcode
        return self._codes.get(pid, 0) if code is None else code

    def start_wanted(self) -> str | None:
        """Start one more worker if there is work for it. Returns why it could not be started, as a text."""
        try:
            if self._engine is not None and self._engine.wants_worker():
                self.start_one()
        except BaseException as error:
            return _support.format_cause(error)
        return None

    def is_deserted(self) -> bool:
        """Is there no worker, and none being started?"""
        return not self._all()

    def find_dead(self) -> dict[int, int]:
        """The exit codes of the workers that had ended when this was first asked for: when the pool broke, that is.

        Waits up to a second for the first of them. Holds no lock meanwhile that starting a worker holds.
        """
        if os.getpid() != self._owner:
            return {}
        deadline = time.monotonic() + _EXIT_CODE_SECONDS
        while self._dead is None:
            codes = {process.pid: process.exitcode for process in list(self.processes.values())}
            dead = {pid: code for pid, code in codes.items() if pid is not None and code is not None}
            if dead or time.monotonic() > deadline:
                self._remember(dead)
            else:
                time.sleep(0.001)
        return self._dead

    def why_not_set_up(self) -> BaseException | None:
        """What an initializer has raised, if one has. A new instance each time."""
        return None if self._report is None else self._report.error()

    def _remember(self, dead: dict[int, int]) -> None:
        with self._dead_lock:
            if self._dead is None:
                self._dead = dead

    def turn_away(self) -> None:
        """End the workers that have not come yet, and may import for long: nobody waits for them any more."""
        engine = self._engine
        with self._lock:
            for number, process in self._by_number.items():
                if engine is not None and engine.revoke(number):
                    process.kill()

    def join(self) -> None:
        """Wait for workers that were told to leave."""
        for process in self._all():
            _reap.join(process)

    def _all(self) -> list[BaseProcess]:
        with self._lock:  # one that is being started is waited for
            return list(self.processes.values())

    def listed(self) -> dict[int, BaseProcess]:
        """``processes``, with every worker whose results may have come."""
        if os.getpid() == self._owner:
            with self._lock:
                pass
        return self.processes

    def signal(self, operation: Literal["terminate", "kill"]) -> int:
        """Send every worker that lives a signal, and wait for none. Returns how many there are or were."""
        processes = self._all()
        for process in processes:
            if process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    getattr(process, operation)()
        return len(processes)

    def terminate(self) -> None:
        """End every worker: politely, and by force where that does not help (one that is stopped cannot listen)."""
        processes = self._all()
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS  # of all of them together
        for process in processes:
            if not _reap.join(process, deadline - time.monotonic()):
                process.kill()
                _reap.join(process)


def _is_unblocked(executor: Any) -> bool:
    """Is a process that is started now to unblock Ctrl-C? A program that has it blocked itself wants its forks so, too.

    So it does those that it spawns; a fork server's have that server's mask, whatever is blocked here.
    """
    method = executor._mp_context.get_start_method(allow_none=False)
    return method != "fork" and not (method == "spawn" and _entry.is_blocked())


@contextlib.contextmanager
def _ctrl_c_blocked(executor: Any, process: BaseProcess) -> Iterator[None]:
    """For a process that is started within, and is no fork: it has much to import before it knows what Ctrl-C means.

    With initargs a spawned one imports the main module before it reads all of them: the main thread may have to wait
    for that, so Ctrl-C is not blocked there.
    """
    method = executor._mp_context.get_start_method(allow_none=False)
    with contextlib.ExitStack() as stack:
        if method != "fork":
            stack.enter_context(_entry.blocked_by_name(process))
        if method == "spawn" and not executor._initargs:
            from multiprocessing import resource_tracker  # as multiprocessing does: others have no need of it

            resource_tracker.ensure_running()  # else it is started within, and leaves Ctrl-C unblocked
            stack.enter_context(_entry.blocked())
        yield
