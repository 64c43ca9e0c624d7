"""Starting, replacing and ending the worker processes of one executor, through multiprocessing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from weirpool import _core, _worker
from weirpool._pickler import Initializer, Pickler
from weirpool._support import format_cause

_GRACE_SECONDS = 5.0
_EXIT_CODE_SECONDS = 1.0  # a fork server tells exit codes a moment after the end


class Crew:
    """The processes of one executor. ``processes`` maps pids, as the standard executor's ``_processes`` does."""

    def __init__(
        self,
        context: BaseContext,
        size: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
        pickler: str | Pickler | None,
    ) -> None:
        self.processes: dict[int, BaseProcess] = {}
        self._context = context
        self._size = size
        if initializer is not None and pickler is not None:
            initializer = Initializer(pickler, initializer)
        self._worker_args = (initializer, initargs, max_tasks, pickler)
        self._lock = threading.RLock()
        self._by_number: dict[int, BaseProcess] = {}
        self._engine: _core.Engine | None = None
        self._halted = False
        self._owner = os.getpid()
        self._dead: dict[int, int] | None = None

    def serve(self, engine: _core.Engine) -> None:
        """Start workers for this engine from now on."""
        self._engine = engine

    def dismiss(self) -> None:
        """All have ended: let go of them, whose descriptors would stay open, and of the engine."""
        self._engine = None
        self.processes = {}
        self._by_number = {}

    def halt(self) -> None:
        """Start no more workers: when this returns, all that there will be are in ``processes``."""
        with self._lock:
            self._halted = True

    @property
    def forks(self) -> bool:
        """Must all workers be started before there are threads?"""
        return self._context.get_start_method(allow_none=False) == "fork"

    def start_all(self) -> None:
        for _ in range(self._size):
            self.start_one()

    def start_one(self) -> None:
        """Start one more worker, unless there are enough. What starting a process raises is raised."""
        engine = self._engine
        with self._lock:
            number = engine.reserve() if engine is not None and not self._halted else None
            if engine is None or number is None:
                return
            try:
                process = self._start(engine, number)
            except BaseException:
                engine.abandon(number)
                raise
            assert process.pid is not None
            self.processes[process.pid] = process
            self._by_number[number] = process

    def _start(self, engine: _core.Engine, number: int) -> BaseProcess:
        channel = _worker.Channel(*engine.channel())
        process: BaseProcess = self._context.Process(  # type: ignore[attr-defined]
            target=_worker.main, args=(channel, number, *self._worker_args)
        )
        try:
            process.start()
            self._watch(engine, number, process)
        except BaseException:
            if process.pid is not None:
                process.kill()
                process.join()
            raise
        return process

    def _watch(self, engine: _core.Engine, number: int, process: BaseProcess) -> None:
        assert process.pid is not None
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:  # it has ended already, or pidfds are refused here
            engine.watch(number, process.sentinel, process.pid)
            return
        try:
            engine.watch(number, fd, process.pid)
        finally:
            os.close(fd)

    def see_off(self, number: int) -> None:
        """A worker left as planned: forget it."""
        with self._lock:
            process = self._by_number.pop(number)
            process.join()
            assert process.pid is not None
            self.processes.pop(process.pid, None)
            if self._engine is not None:
                self._engine.vacate(number)

    def start_wanted(self) -> str | None:
        """Start one more worker if there is work for it. Returns why it could not be started, as a text."""
        try:
            with self._lock:
                if self._engine is not None and self._engine.wants_worker():
                    self.start_one()
        except BaseException as error:
            return format_cause(error)
        return None

    def is_deserted(self) -> bool:
        """Is there no worker, and none being started?"""
        return not self._all()

    def find_dead(self) -> dict[int, int]:
        """The exit codes of the workers that had ended when this was first asked for: when the pool broke, that is."""
        if os.getpid() != self._owner:
            return {}
        with self._lock:
            deadline = time.monotonic() + _EXIT_CODE_SECONDS
            while self._dead is None:
                codes = ((process.pid, process.exitcode) for process in self.processes.values())
                dead = {pid: code for pid, code in codes if pid is not None and code is not None}
                if dead or time.monotonic() > deadline:
                    self._dead = dead
                else:
                    time.sleep(0.001)
            return self._dead

    def join(self) -> None:
        """Wait for workers that were told to leave."""
        for process in self._all():
            process.join()

    def _all(self) -> list[BaseProcess]:
        with self._lock:  # one that is being started is waited for
            return list(self.processes.values())

    def signal(self, operation: Literal["terminate", "kill"]) -> int:
        """Send every worker that lives a signal, and wait for none. Returns their number."""
        living = [process for process in self._all() if process.is_alive()]
        for process in living:
            with contextlib.suppress(ProcessLookupError):
                getattr(process, operation)()
        return len(living)

    def terminate(self) -> None:
        """End every worker: politely, and by force where that does not help (one that is stopped cannot listen)."""
        processes = self._all()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_GRACE_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
