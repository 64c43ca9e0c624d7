"""Starting, replacing and ending the worker processes of one executor, through multiprocessing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from weirpool import _core, _worker

_GRACE_SECONDS = 5.0


class Crew:
    """The processes of one executor. ``processes`` maps pids, as the standard executor's ``_processes`` does."""

    def __init__(
        self,
        context: BaseContext,
        size: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
    ) -> None:
        self.processes: dict[int, BaseProcess] = {}
        self._context = context
        self._size = size
        self._worker_args = (initializer, initargs, max_tasks)
        self._lock = threading.RLock()
        self._by_number: dict[int, BaseProcess] = {}
        self._engine: _core.Engine | None = None

    def serve(self, engine: _core.Engine) -> None:
        """Start workers for this engine from now on."""
        self._engine = engine

    def dismiss(self) -> None:
        """Start no more workers, and let the engine go."""
        self._engine = None

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
            number = engine.reserve() if engine is not None else None
            if engine is None or number is None:
                return
            channel = _worker.Channel(*engine.channel())
            process = self._context.Process(  # type: ignore[attr-defined]
                target=_worker.main, args=(channel, number, *self._worker_args)
            )
            try:
                process.start()
                self._watch(engine, number, process)
            except BaseException:
                if process.pid is not None:
                    process.kill()
                    process.join()
                engine.abandon(number)
                raise
            self.processes[process.pid] = process
            self._by_number[number] = process

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

    def replace(self, number: int) -> None:
        """A worker left as planned: take leave of it, and start another one if there is work for it."""
        with self._lock:
            process = self._by_number.pop(number)
            process.join()
            assert process.pid is not None
            self.processes.pop(process.pid, None)
            if self._engine is not None:
                self._engine.vacate(number)
                if self._engine.wants_worker():
                    self.start_one()

    def join(self) -> None:
        """Wait for workers that were told to leave."""
        for process in self._all():
            process.join()

    def _all(self) -> list[BaseProcess]:
        with self._lock:  # one that is being started is waited for
            return list(self.processes.values())

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
