"""What every executor of the package is: a standard executor with the maps of this package."""

from __future__ import annotations

import concurrent.futures as cf
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from weirpool import _map

T = TypeVar("T")


class Executor(cf.Executor):
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
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over ``fn`` of the items of the iterables, in their order.

        With a window (buffersize, or the bound of a bounded executor) it is lazy: calls are submitted as results are
        read, so that the iterables may be infinite, and what is not read is not submitted.

        Each submission, here and in the iterator, waits for room at the bound. One thread at a time may use the
        iterator.

        Args:
            fn: Takes as many arguments as there are iterables.
            timeout: Seconds from this call until the last result must have come, else the iterator raises
                TimeoutError. None: no limit.
            chunksize: How many calls travel together. Larger chunks pay for very short calls.
            buffersize: How many chunks may be submitted and not yet yielded. None: the bound of a bounded executor
                (max_submit_backlog + max_workers; 2 x max_workers with max_bytes alone); an unbounded one submits all
                of them at once, as the standard class does.

        Raises:
            ValueError: chunksize or buffersize below 1.
            TypeError: buffersize is no int.
            RuntimeError, BrokenProcessPool, MemoryError, OSError: As submit(), here and from the iterator.
        """
        _map.check_arguments(chunksize, buffersize)
        window = self._window() if buffersize is None else buffersize
        return _map.results(self, fn, iterables, timeout, chunksize, window)
