"""What every executor of the package is: a standard executor with this package's maps, and methods for asyncio."""

from __future__ import annotations

import concurrent.futures as cf
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from weirpool import _map
from weirpool._aio import AsyncMethods
from weirpool._results import Results

T = TypeVar("T")


class Executor(AsyncMethods, cf.Executor):
    """The base of the executors. A subclass has ``submit()`` and ``shutdown()``, and answers two questions."""

    @abstractmethod
    def _window(self) -> int | None:
        """The most unread items (or chunks) that a map may hold for which no buffersize is given; None: no limit."""

    @abstractmethod
    def _worker_count(self) -> int:
        """How many tasks can run at once."""

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
    ) -> Results[T]:
        """Return an iterator over ``fn`` of the items of the iterables, in their order.

        With a window (buffersize, or the bound of a bounded executor) it is lazy: the window is filled at this call,
        and from then on calls are submitted as results are read, so that the iterables may be infinite. What is not
        read is not submitted: a lazy map that is closed or collected before it was read, although there are items
        left, warns (RuntimeWarning).

        Each submission, here and in the iterator, waits for room at the bound. One thread at a time may use the
        iterator. It has ``close()``; to close it, or to let go of it, cancels what it holds.

        An exception of a call is raised at its place and ends the iterator, and the rest is cancelled. In a chunk, the
        results before it are yielded first; its other items are not executed. (If a result cannot be pickled, the
        results of its chunk are lost with it.)

        Args:
            fn: Takes as many arguments as there are iterables.
            timeout: Seconds from this call until the last result must have come, else the iterator raises
                TimeoutError. It does not cut short a wait for room, which ends where others' tasks do, or as
                submit() has it: then the error comes later. None: no limit.
            chunksize: How many calls travel together. Larger chunks pay for very short calls. "auto": as many as take
                50 to 500 ms, as their worker measures it, beginning with one; fewer at the end, where the iterables
                tell their lengths, so that all workers end together.
            buffersize: How many chunks may be submitted and not yet yielded. None: the bound of a bounded executor
                (max_submit_backlog + max_workers; 2 x max_workers with max_bytes alone); an unbounded one submits all
                of them at once, as the standard class does, or with "auto" 4 for each worker.

        Raises:
            ValueError: chunksize or buffersize below 1, or chunksize another text than "auto".
            TypeError: chunksize or buffersize is no int.
            RuntimeError, BrokenExecutor, MemoryError, OSError: As submit(), here and from the iterator.
            queue.Full: As submit(), from the iterator, when it has no result to wait for. It can be asked again.
        """
        return self._map(True, fn, iterables, timeout, chunksize, buffersize)

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
    ) -> Results[T]:
        """Return an iterator over ``fn`` of the items of the iterables: what has finished first comes first.

        One slow call does not hold up the results of the others, nor what is submitted after it. The items of a chunk
        come together. All else is as of map().
        """
        return self._map(False, fn, iterables, timeout, chunksize, buffersize)

    def _map(
        self,
        ordered: bool,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int | Literal["auto"],
        buffersize: int | None,
    ) -> Results[Any]:
        _map.check_arguments(chunksize, buffersize)
        window = self._window() if buffersize is None else buffersize
        return _map.start(ordered, self, fn, iterables, timeout, chunksize, window, self._worker_count())
