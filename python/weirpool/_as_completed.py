"""``as_completed`` over any futures, also over more of them than can be held at once."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from weirpool._results import Arrivals, Results, check_buffersize, deadline_of

T = TypeVar("T")

_MOST_BY_DEFAULT = 1024


def as_completed(
    futures: Iterable[Future[T]], *, timeout: float | None = None, buffersize: int | None = None
) -> Results[Future[T]]:
    """Return an iterator that yields each future when it has ended: finished or cancelled.

    As the function of the same name of ``concurrent.futures``, for futures of any executors, and also for an iterable
    that makes them as they are taken, which may be infinite::

        for future in as_completed(executor.submit(work, item) for item in source):
            print(future.result())

    Futures are taken as results are consumed: none at this call, and one more whenever the consumer comes back. A
    future that comes twice is yielded once. The iterator has ``close()``, which cancels the futures that it has taken
    and not yielded. Letting go of it without that cancels nothing: the futures may be somebody else's.

    Args:
        futures: A collection of futures, or any iterable.
        timeout: Seconds from this call until the last future must have ended, else the iterator raises TimeoutError.
            Time that the iterable takes to give one is not cut short. None: no limit.
        buffersize: How many futures may be taken and not yet yielded. None: of a collection all, as they exist
            anyway; of another iterable as many as can be taken until the first one ends, 1024 at most. Where that
            iterable submits to a bounded executor, this is about the executor's bound.

    Raises:
        TypeError: buffersize is no int; or what is to be waited for is no future of an executor: of a collection at
            this call, of another iterable when it is taken.
        ValueError: buffersize is less than 1.
        Whatever the iterable raises: From the iterator, which ends with it, and cancels nothing.
    """
    check_buffersize(buffersize)
    return AsCompleted(futures, deadline_of(timeout), buffersize)


class AsCompleted(Results[Any]):
    """What it holds is limited twice: by ``_most``, always, and by ``_enough``, which grows while nothing has ended."""

    def __init__(self, futures: Iterable[Future[Any]], deadline: float | None, buffersize: int | None) -> None:
        super().__init__()
        self._arrivals = Arrivals(deadline)
        self._held: set[Future[Any]] = set()
        self._taken = 0
        self._source: Iterator[Future[Any]] | None
        if isinstance(futures, Collection):
            for future in futures:
                _check_future(future)
            once = deque(dict.fromkeys(futures))
            self._source = _drain(once)
            self._enough = self._most = buffersize or len(once)
        else:
            self._source = _drop_repeated(futures)
            self._most = buffersize or _MOST_BY_DEFAULT
            self._enough = buffersize or 0

    def close(self) -> None:
        held = self._held
        super().close()
        for future in held:
            future.cancel()

    def __del__(self) -> None:
        self._arrivals.close()

    def _advance(self) -> Future[Any]:
        while self._source is not None and self._has_room():
            self._take(self._source)
        if not self._held:
            raise StopIteration
        future = self._arrivals.get(lambda: f"{len(self._held)} (of {self._taken}) futures unfinished")
        self._held.discard(future)
        return future

    def _has_room(self) -> bool:
        held = len(self._held)
        return held < self._enough or (held < self._most and not self._arrivals.are_there())

    def _take(self, source: Iterator[Future[Any]]) -> None:
        for future in source:
            self._taken += 1
            self._held.add(future)
            self._enough = max(self._enough, len(self._held))
            future.add_done_callback(self._arrivals.put)
            return
        self._source = None

    def _finish(self) -> None:
        self._arrivals.close()
        self._source = None
        self._held = set()


def _check_future(future: object) -> None:
    if not isinstance(future, Future):
        hint = "; asyncio.as_completed() takes those of asyncio" if hasattr(future, "get_loop") else ""
        raise TypeError(f"as_completed() takes futures of executors, not {future!r}{hint}")


def _drain(futures: deque[Future[Any]]) -> Iterator[Future[Any]]:
    """Keeps none that it has given."""
    while futures:
        yield futures.popleft()


def _drop_repeated(futures: Iterable[Future[Any]]) -> Iterator[Future[Any]]:
    """Remembers what it has given for as long as somebody has it: only such a future can come again."""
    seen: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
    for future in futures:
        _check_future(future)
        if future not in seen:
            seen.add(future)
            yield future
        del future
