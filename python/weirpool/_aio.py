"""What executors have for asyncio: methods that await room instead of waiting for it."""

from __future__ import annotations

import concurrent.futures as cf
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar

from weirpool import _map

if TYPE_CHECKING:
    import asyncio  # only a program that uses it pays for its import
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")


class Ticket(Protocol):
    """A place in the line for room. One thread at a time uses it."""

    @property
    def permitted(self) -> bool:
        """It has left the line, and waits for something else; then its turn no longer depends on those before it."""

    def poll(self) -> cf.Future[Any] | None:
        """The future, if the call is submitted by now; None: not yet. Raises what a ``submit()`` raises that waits."""

    def leave(self) -> cf.Future[Any] | None:
        """Give the place up; the future, if the call was submitted just then."""

    def expire(self) -> cf.Future[Any] | None:
        """As ``leave()``, but raise SubmitTimeout where that returns None. None: ask again, it is being submitted."""


class AsyncMethods:
    """A part of an executor, which has ``shutdown()``, and answers these questions."""

    _patience: float | None = None
    """How many seconds a submission waits for room; None: without end; 0 or less: ``_submit_soon`` refuses."""

    @abstractmethod
    def _submit_soon(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], bell: int
    ) -> cf.Future[T] | Ticket:
        """Submit without waiting, or take a place in line. ``bell``, an eventfd, rings when tickets want a poll.

        Places of one loop are settled in the order in which they were taken, until they are ``permitted``.
        """

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As every executor's."""

    @abstractmethod
    def _window(self) -> int | None:
        """The most unread results that a map may hold for which no buffersize is given; None: no limit."""

    @abstractmethod
    def _worker_count(self) -> int:
        """How many tasks can run at once."""

    def _accept_nothing_more(self) -> None:
        """Before the end is waited for in a thread."""
        self.shutdown(wait=False)

    def _preparation(self) -> Callable[[], object] | None:
        """What has to be done before one more call is submitted, and would keep a loop from its work; None: nothing."""
        return None

    async def asubmit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Await room, submit ``fn(*args, **kwargs)``, and return an asyncio future for its result.

        As ``submit()``, but where the executor is full other coroutines run meanwhile, and no thread waits; first come
        first served, among threads and coroutines. The executor may be used by several event loops at a time.

        A coroutine that is cancelled while it awaits room gives its place up, and nothing is submitted. Should room
        have come just then, the task is cancelled, and does run if a worker has started it already. For a deadline use
        ``asyncio.timeout()``; a timeout of the executor's own holds here, too.

        Cancelling the future that it returns cancels the task if it has not started. Worker processes are started in a
        thread. Arguments are pickled in the loop's thread: pass the path of what is large, not its contents.

        Raises:
            Whatever ``submit()`` raises, also while it waits: RuntimeError, BrokenProcessPool, RejectedSubmission,
            SubmitTimeout, MemoryError, OSError.
        """
        import asyncio

        from weirpool import _loop

        loop = asyncio.get_running_loop()
        with _loop.line_of(self, loop) as line:
            future = await line.submit(self, fn, args, kwargs)
        return _loop.follow(future, loop)

    async def arun(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await room, submit ``fn(*args, **kwargs)``, and await its result.

        A coroutine that is cancelled gives its place up, or cancels the task if no worker has started it.

        Raises:
            What the call raises, and what ``asubmit()`` raises. asyncio.CancelledError also if the task was cancelled.
        """
        return await (await self.asubmit(fn, *args, **kwargs))

    def amap(
        self,
        fn: Callable[[Any], T],
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
    ) -> AsyncGenerator[T, None]:
        """Return an asynchronous iterator over ``fn(item)`` for each item of an iterable, asynchronous or not.

        It is lazy: items are taken from the iterable as there is room for them and as results are read, so that the
        iterable may be infinite. An iterable that is not asynchronous is read in the loop's thread.

        Nothing happens before the first result is asked for. Where a program leaves the iteration early,
        ``contextlib.aclosing()`` sees to it that what was submitted and has not started is cancelled at once.

        Args:
            fn: Takes one item.
            ordered: Yield results in the order of the items; False: as they come.
            buffersize: How many items may be taken and their results not yet yielded. None: the executor's bound, or
                twice its workers if it has none.

        Raises:
            ValueError: buffersize is below 1.
            TypeError: buffersize is no int, or the iterable is none.
            What a call raises, what the iterable raises, and what ``asubmit()`` raises, from the iterator, which ends
            with it and cancels what has not started.
        """
        _map.check_arguments(1, buffersize)
        from weirpool import _amap

        window = buffersize or self._window() or 2 * self._worker_count()
        return _amap.results(self, fn, _amap.as_async(iterable), ordered, window)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut down, and await the end of all tasks and workers.

        Where the coroutine is cancelled (by Ctrl-C, mostly), tasks that no worker has started are cancelled, too.
        """
        import asyncio

        interrupts = (asyncio.CancelledError, KeyboardInterrupt)
        if isinstance(error, interrupts):
            self.shutdown(wait=False, cancel_futures=True)
        self._accept_nothing_more()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.shutdown)
        except interrupts:
            self.shutdown(wait=False, cancel_futures=True)
            raise
