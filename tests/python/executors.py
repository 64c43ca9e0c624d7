"""Executors of every kind, for tests of what stands on submit() alone."""

import concurrent.futures as cf
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import weirpool
from weirpool._executor import Executor


class Wrapped(Executor):
    """The least that is needed: another executor's submit(), and two answers."""

    def __init__(self, inner: cf.Executor, workers: int, window: int | None = None) -> None:
        self.inner = inner
        self.workers = workers
        self.window = window
        self.submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future = self.inner.submit(fn, *args, **kwargs)
        self.submitted += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.inner.shutdown(wait, cancel_futures=cancel_futures)

    def _window(self) -> int | None:
        return self.window

    def _worker_count(self) -> int:
        return self.workers


class ByHand(Executor):
    """Runs nothing until it is told to, and counts. `refuse`: how many submissions it turns away."""

    def __init__(self, window: int | None = None, workers: int = 2) -> None:
        self.window = window
        self.workers = workers
        self.waiting: deque[tuple[cf.Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self.futures: list[cf.Future[Any]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.refuse = 0
        self.at_once = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.refuse:
            self.refuse -= 1
            raise weirpool.RejectedSubmission("no room")
        future: cf.Future[Any] = cf.Future()
        self.futures.append(future)
        self.calls.append(args)
        self.waiting.append((future, fn, args))
        if self.at_once:
            self.run()
        return future

    def run(self, index: int = 0) -> None:
        """Run one of those that wait: the oldest, unless told."""
        self.waiting.rotate(-index)
        future, fn, args = self.waiting.popleft()
        self.waiting.rotate(index)
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(fn(*args))
            except BaseException as error:
                future.set_exception(error)

    def run_all(self) -> None:
        while self.waiting:
            self.run()

    def _window(self) -> int | None:
        return self.window

    def _worker_count(self) -> int:
        return self.workers


def _fork() -> Any:
    return multiprocessing.get_context("fork")


KINDS: dict[str, Callable[[int | None], Executor]] = {
    "weirpool": lambda bound: weirpool.BoundedProcessPoolExecutor(bound, min(2, bound or 2), _fork()),
    "processes": lambda bound: Wrapped(cf.ProcessPoolExecutor(2, _fork()), 2, bound),
    "threads": lambda bound: Wrapped(cf.ThreadPoolExecutor(2), 2, bound),
}

every_kind = pytest.mark.parametrize("kind", list(KINDS))


@contextmanager
def executor_of(kind: str, bound: int | None) -> Iterator[Executor]:
    """One of KINDS, with a bound as its window."""
    with KINDS[kind](bound) as executor:
        yield executor
