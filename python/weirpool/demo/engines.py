"""Three ways to run tasks in worker processes, behind one interface.

Every engine is handled in the same way: nobody keeps a future; what becomes of a task is told to a done-callback.
A task is outstanding from its acceptance until that callback has run.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import weirpool

T = TypeVar("T")
R = TypeVar("R")

EngineName = Literal["weirpool", "stdlib", "recipe"]
Bound = int | Literal[True] | None


@dataclass(frozen=True)
class Meter:
    """What an engine says about itself."""

    outstanding: int
    blocked_producers: int
    peak_outstanding: int
    blocked_seconds: float
    segment_bytes: int


class Engine(Protocol):
    """A pool of processes as the demo uses it."""

    def submit(self, task: Callable[[T], R], item: T, done: Callable[[Future[R]], None]) -> None:
        """Hands a task to the pool; `done` is called with its future. RuntimeError when the pool takes no more."""

    def meter(self) -> Meter:
        """What the engine is doing now."""

    def shutdown(self, *, cancel: bool = False) -> None:
        """Ends the workers, after their tasks or (cancel) without those that have not started."""


class Weirpool:
    """The bounded pool itself."""

    def __init__(self, workers: int, bound: Bound) -> None:
        self._pool = weirpool.BoundedProcessPoolExecutor(bound, workers)

    def submit(self, task: Callable[[T], R], item: T, done: Callable[[Future[R]], None]) -> None:
        self._pool.submit(task, item).add_done_callback(done)

    def meter(self) -> Meter:
        stats = self._pool.stats()
        return Meter(
            stats.outstanding,
            stats.blocked_producers,
            stats.peak_outstanding,
            stats.blocked_seconds,
            stats.segment_bytes,
        )

    def shutdown(self, *, cancel: bool = False) -> None:
        self._pool.shutdown(wait=True, cancel_futures=cancel)


class Stdlib:
    """The standard pool, which accepts every task at once."""

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers)
        self._lock = threading.Lock()
        self._outstanding = 0
        self._peak = 0

    def submit(self, task: Callable[[T], R], item: T, done: Callable[[Future[R]], None]) -> None:
        self._count(1)
        try:
            future = self._pool.submit(task, item)
        except BaseException:
            self._count(-1)
            raise
        future.add_done_callback(done)
        future.add_done_callback(self._finish)

    def _finish(self, _: Future[Any]) -> None:
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._outstanding += change
            self._peak = max(self._peak, self._outstanding)

    def meter(self) -> Meter:
        return Meter(self._outstanding, 0, self._peak, 0.0, 0)

    def shutdown(self, *, cancel: bool = False) -> None:
        self._pool.shutdown(wait=True, cancel_futures=cancel)


class Recipe(Stdlib):
    """A semaphore around the standard pool: acquire, submit, release in a done-callback."""

    def __init__(self, workers: int, bound: int) -> None:
        super().__init__(workers)
        self._permits = threading.BoundedSemaphore(bound)
        self._blocked = 0
        self._blocked_seconds = 0.0

    def submit(self, task: Callable[[T], R], item: T, done: Callable[[Future[R]], None]) -> None:
        if not self._permits.acquire(blocking=False):
            self._wait()
        try:
            super().submit(task, item, done)
        except BaseException:
            self._permits.release()
            raise

    def _wait(self) -> None:
        start = time.monotonic()
        with self._lock:
            self._blocked += 1
        self._permits.acquire()
        with self._lock:
            self._blocked -= 1
            self._blocked_seconds += time.monotonic() - start

    def _finish(self, future: Future[Any]) -> None:
        super()._finish(future)
        self._permits.release()

    def meter(self) -> Meter:
        return replace(super().meter(), blocked_producers=self._blocked, blocked_seconds=self._blocked_seconds)


def make_engine(name: EngineName, workers: int, bound: Bound) -> Engine:
    """The engine of that name; its workers start with the first tasks."""
    if name == "weirpool":
        return Weirpool(workers, bound)
    if name == "stdlib":
        return Stdlib(workers)
    assert bound is not None, "the recipe needs a bound"
    return Recipe(workers, as_number(bound, workers))


def as_number(bound: int, workers: int) -> int:
    """A bound as it is meant: True is two for each worker."""
    return 2 * workers if bound is True else bound
