"""The thread that tells futures of their results and callbacks of their futures; one for each executor in use."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from weirpool import _core, _support
from weirpool._crew import Crew

_exiting = False
_running: weakref.WeakSet[Collector] = weakref.WeakSet()


class Collector(threading.Thread):
    """Runs until the executor was shut down (or collected) and its tasks have ended, or until its pool broke.

    It keeps the engine and the crew alive, and not the executor.
    """

    def __init__(self, executor: Any, engine: _core.Engine, crew: Crew) -> None:
        super().__init__(name="weirpool-collector", daemon=False)
        self._engine = engine
        self._crew = crew
        # Takes no lock that a submit could hold: it may run inside one, wherever garbage is collected.
        self._owner = weakref.ref(executor, lambda _: engine.shutdown())

    def start(self) -> None:
        super().start()
        _running.add(self)

    def run(self) -> None:
        while True:
            kind, worker = self._engine.collect()
            if kind == _core.WORKER_LEFT:
                self._replace(worker)
            elif kind == _core.BROKE:
                self._report_broken()
                self._crew.terminate()
                return
            else:
                self._crew.join()
                return

    def stop(self) -> None:
        """Accept nothing more; what was accepted runs to its end."""
        self._engine.shutdown()

    def _replace(self, worker: int) -> None:
        try:
            self._crew.replace(worker)
        except BaseException as error:
            self._engine.break_(_support.format_cause(error))

    def _report_broken(self) -> None:
        executor = self._owner()
        if executor is not None:
            executor._broken = _support.UNUSABLE


def is_exiting() -> bool:
    """Has the interpreter begun to exit?"""
    return _exiting


def _finish_all() -> None:
    """At interpreter exit: turn producers away, run what was accepted, join."""
    global _exiting
    _exiting = True
    collectors = list(_running)
    for collector in collectors:
        collector.stop()
    for collector in collectors:
        collector.join()


def _forget_all() -> None:
    """In a forked child: the threads are the parent's."""
    _running.clear()


threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_forget_all)
