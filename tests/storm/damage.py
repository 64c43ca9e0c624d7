"""What was done to a pool, and whether an error fits it. Whatever is done is noted before it is done."""

from __future__ import annotations

import threading
from concurrent.futures.process import BrokenProcessPool

import work

from weirpool import WorkerDied, _support

COLLECTED = "was garbage collected"
IN_A_ROW = "in a row"


class Damage:
    """Of one round. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.exitcodes: set[int] = set()  # with which workers may have ended
        self.killed: set[int] = set()  # processes that were killed from outside
        self.doomed: set[int] = (
            set()
        )  # processes that killed themselves, perhaps during another task than the cruel one
        self.deaths = 0  # workers that died, or may have
        self.poisoned = False  # a result that cannot be unpickled was returned
        self.unready = False  # the initializer raises
        self.forced = False  # terminate_workers() or kill_workers()
        self.collected = False  # the executor was let go
        self.broke = False  # the pool broke, or nobody knows
        self.shut = False  # shutdown() was called
        self.cancelled = False  # ... with cancel_futures=True

    def died(self, exitcode: int) -> None:
        """A worker ends like that, or may."""
        with self._lock:
            self.exitcodes.add(exitcode)
            self.deaths += 1

    def kill(self, pid: int, exitcode: int) -> None:
        """A worker is killed from outside."""
        self.killed.add(pid)
        self.died(exitcode)

    def explains(self, error: BrokenProcessPool, *, by_submit: bool) -> bool:
        """Could the pool break like that?"""
        cause = error.__cause__
        text = str(error)
        if by_submit and cause is None:  # futures tell why
            return self.deaths > 0 or self.poisoned or self.forced or self.unready
        if text == _support.FORCED:
            return self.forced
        if COLLECTED in text:
            return self.collected
        if text == _support.NOT_SET_UP:
            return self.unready and isinstance(cause, work.StormError)
        if isinstance(cause, WorkerDied):
            return cause.exitcode in self.exitcodes and (IN_A_ROW not in text or self.deaths >= 3)
        return cause is not None and self.poisoned and work.REFUSAL[0] in str(cause)
