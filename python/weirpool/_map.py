"""``map`` and ``map_unordered``: eager as in the standard library, or lazy with a window of unread results."""

from __future__ import annotations

import contextlib
import operator
import queue
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Literal

from weirpool import _chunks, _policy
from weirpool._chunks import AUTO, Chunks, Cut, Sizer
from weirpool._results import STOPPED, Arrivals, Refused, Results, check_buffersize, deadline_of, outcome


def check_arguments(chunksize: int | Literal["auto"], buffersize: int | None) -> None:
    """Raise what the standard library's newest ``map`` raises."""
    if isinstance(chunksize, str):
        if chunksize != AUTO:
            raise ValueError(f'chunksize must be an int or "auto", not {chunksize!r}')
    elif _policy.check_int("chunksize", chunksize) < 1:
        raise ValueError("chunksize must be >= 1.")
    check_buffersize(buffersize)


def start(
    ordered: bool,
    executor: Executor,
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int | Literal["auto"],
    window: int | None,
    workers: int,
) -> Results[Any]:
    """Submit the first ``window`` calls, or all of them; return the iterator over the results."""
    deadline = deadline_of(timeout)
    iterators = [iter(iterable) for iterable in iterables]
    if chunksize == 1:
        one_by_one = AsTheyFinish if not ordered else AllInOrder if window is None else InOrder
        return one_by_one(Source(executor, fn, zip(*iterators, strict=False), iterators), window, deadline)
    by_chunk = InOrderByChunk if ordered else AsTheyFinishByChunk
    if chunksize == AUTO:
        sizer = Sizer(workers)
        source = Source(executor, _chunks.run_timed, Chunks(fn, iterators, sizer), iterators)
        return by_chunk(source, 4 * workers if window is None else window, deadline, sizer)
    source = Source(executor, _chunks.run, Chunks(fn, iterators, operator.index(chunksize)), iterators)
    return by_chunk(source, window, deadline, None)


class Source:
    """The calls of a map that were not submitted yet.

    It keeps the executor alive: as long as there are calls none may be left out silently.
    """

    def __init__(
        self,
        executor: Executor,
        fn: Callable[..., Any],
        calls: Iterator[tuple[Any, ...]],
        iterators: list[Iterator[Any]],
    ) -> None:
        self._executor = executor
        self._fn = fn
        self._calls = calls
        self._iterators = iterators
        self._kept: tuple[Any, ...] | None = None  # taken from the iterables, and refused
        self._submitted = 0

    def submit_all(self) -> Iterator[Future[Any]]:
        """Submit every call, as the futures are taken."""
        executor, fn = self._executor, self._fn
        return (executor.submit(fn, *args) for args in self._calls)

    def submit_one(self) -> Future[Any] | None:
        """Submit one more call; None: there is none. A call that is refused is the next one again."""
        args = self._kept or next(self._calls, None)
        if args is None:
            return None
        try:
            future = self._executor.submit(self._fn, *args)
        except queue.Full as refusal:
            self._kept = args
            raise Refused(refusal) from None
        self._kept = None
        self._submitted += 1
        return future

    def _count_items(self) -> int:
        """How many have been submitted."""
        if not isinstance(self._calls, Chunks):
            return self._submitted
        return self._calls.taken - (len(self._kept[-1]) if self._kept is not None else 0)

    def describe_rest(self) -> str | None:
        """What is lost if nothing more is submitted; None: nothing. Takes no item to find out."""
        left, exact = _chunks.count_remaining(self._iterators)
        if left == 0 and self._kept is None:
            return None
        count = self._count_items()
        were = "item was" if count == 1 else "items were"
        whether = "" if exact or self._kept is not None else ", if there are any,"
        return (
            f"a lazy map was never read: {count} {were} submitted, and the items from index "
            f"{count} on{whether} were never submitted; read its results, or give it no bound and no "
            "buffersize"
        )


class MapResults(Results[Any]):
    """Submits one more call when the consumer has come back for its next result: the window is never exceeded.

    The yielded object and its future are not referred to.
    """

    def __init__(self, source: Source, window: int | None, deadline: float | None) -> None:
        super().__init__()
        self._source: Source | None = None
        self._window = window
        self._deadline = deadline
        self._is_dropped = False
        self._hold_nothing()
        try:
            if window is None:
                self._hold_all(source.submit_all())
            else:
                self._source = source
                with contextlib.suppress(Refused):  # it is tried again when the first result is wanted
                    self._fill()
        except BaseException:  # as of the standard map: what was submitted runs
            self._source = None
            self._hold_nothing()
            raise

    def close(self) -> None:
        rest = None if self._busy is not None or self._source is None else self._source.describe_rest()
        super().close()
        if rest is not None:  # at where it was closed, or at what was executed when it was let go of
            warnings.warn(rest, RuntimeWarning, stacklevel=2 + self._is_dropped)

    def __del__(self) -> None:
        self._busy = None if self._busy is None else False  # a thread that used it is no more
        self._is_dropped = True
        self.close()

    def _advance(self) -> Any:
        if self._source is not None:
            self._fill()
        if not self._held:
            raise StopIteration
        return self._next_outcome()

    def _fill(self) -> None:
        assert self._window is not None
        while self._source is not None and len(self._held) < self._window:
            try:
                future = self._source.submit_one()
            except Refused:
                if self._held:
                    return  # there is something to read meanwhile
                raise
            if future is None:
                self._source = None
                return
            self._hold(future)

    def _finish(self) -> None:
        self._source = None
        held = self._held
        self._hold_nothing()
        for future in held:
            future.cancel()

    _held: Collection[Future[Any]]

    @abstractmethod
    def _hold_nothing(self) -> None:
        """Let go of every future."""

    @abstractmethod
    def _hold(self, future: Future[Any]) -> None:
        """It was submitted."""

    @abstractmethod
    def _hold_all(self, futures: Iterator[Future[Any]]) -> None:
        """They are submitted as they are taken."""

    @abstractmethod
    def _next_outcome(self) -> Any:
        """Wait for the next of those that are held, and hold it no more."""


class Ordered(MapResults):
    """Waits for the oldest call."""

    _held: deque[Future[Any]]

    def _hold_nothing(self) -> None:
        self._held = deque()

    def _hold(self, future: Future[Any]) -> None:
        self._held.append(future)

    def _hold_all(self, futures: Iterator[Future[Any]]) -> None:
        self._held.extend(futures)

    def _next_outcome(self) -> Any:
        return outcome(self._held.popleft(), self._deadline)


class InOrder(Ordered):
    """``map``, lazy."""


class AllInOrder(Ordered):
    """``map`` of which everything was submitted at the call."""

    def __next__(self) -> Any:
        if not self._held:
            return super().__next__()
        try:  # a short way where nothing is submitted any more: nobody can come in between
            return outcome(self._held.popleft(), self._deadline)
        except BaseException:
            self._finish()
            raise


class AsTheyFinish(MapResults):
    """``map_unordered``. Each future says itself that it has ended, so that nobody has to look at all of them."""

    _held: set[Future[Any]]

    def __init__(self, source: Source, window: int | None, deadline: float | None) -> None:
        self._arrivals = Arrivals(deadline)
        super().__init__(source, window, deadline)

    def _hold_nothing(self) -> None:
        self._held = set()

    def _hold(self, future: Future[Any]) -> None:
        self._held.add(future)
        future.add_done_callback(self._arrivals.put)

    def _hold_all(self, futures: Iterator[Future[Any]]) -> None:
        for future in futures:
            self._hold(future)

    def _next_outcome(self) -> Any:
        future = self._arrivals.get(lambda: f"{len(self._held)} calls unfinished")
        self._held.discard(future)
        try:
            return outcome(future)
        finally:
            del future

    def _finish(self) -> None:
        self._arrivals.close()
        super()._finish()


class ByChunk(MapResults):
    """Opens the chunks that come back. An exception costs its own item: the results before it are yielded first."""

    def __init__(self, source: Source, window: int | None, deadline: float | None, sizer: Sizer | None) -> None:
        self._items: list[Any] = []  # of the chunk that is being read, the next one last
        self._error: BaseException | None = None
        self._sizer = sizer
        super().__init__(source, window, deadline)

    def __next__(self) -> Any:
        if self._items:
            return self._items.pop()
        return super().__next__()

    def _advance(self) -> Any:
        while not self._items:
            self._raise_error()
            self._open(super()._advance())
        return self._items.pop()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        try:
            if isinstance(error, StopIteration):
                raise RuntimeError(STOPPED) from error
            if error is not None:
                raise error
        finally:
            del error  # else its traceback would keep it in a cycle

    def _open(self, chunk: Any) -> None:
        seconds = None
        if self._sizer is not None:
            seconds, chunk = chunk
        if isinstance(chunk, Cut):
            self._items, self._error = chunk.done, chunk.error
        else:
            self._items = chunk
        if self._sizer is not None and seconds is not None:
            self._sizer.learn(len(self._items) + (self._error is not None), seconds)
        self._items.reverse()

    def _finish(self) -> None:
        self._items = []
        self._error = None
        super()._finish()


class InOrderByChunk(ByChunk, Ordered):
    """``map`` with a chunksize."""


class AsTheyFinishByChunk(ByChunk, AsTheyFinish):
    """``map_unordered`` with a chunksize: the items of a chunk come together, in their order."""
