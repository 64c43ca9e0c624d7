"""``amap``: a coroutine that takes items and submits them, and an asynchronous iterator that reads their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Self

from weirpool._aio import AsyncMethods


def as_async(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    """An asynchronous iterator over either kind. TypeError: it is no iterable."""
    return aiter(items) if isinstance(items, AsyncIterable) else _Each(iter(items))


class _Each:
    """What an asynchronous generator would be, without anything to close."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        for item in self._items:
            return item
        raise StopAsyncIteration


async def results(
    executor: AsyncMethods, fn: Callable[[Any], Any], items: AsyncIterator[Any], ordered: bool, window: int
) -> AsyncGenerator[Any, None]:
    """The iterator. Items are submitted while its user is busy with a result, at most ``window`` ahead of him."""
    feed = _Feed(executor, fn, items, ordered, window)
    feeding = asyncio.create_task(feed.run())
    try:
        while (future := await feed.ready.get()) is not None:
            result = await future
            feed.done_with(future)
            yield result
        await feeding  # raises what ended it
    finally:
        feeding.cancel()
        feed.cancel_all()
        await asyncio.wait([feeding])
        _ignore_error(feeding)


class _Feed:
    """Submits items, as there is room in the window. ``ready`` has the futures in the order in which to read them."""

    def __init__(
        self, executor: AsyncMethods, fn: Callable[[Any], Any], items: AsyncIterator[Any], ordered: bool, window: int
    ) -> None:
        self.ready: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()  # None: there are no more
        self._executor = executor
        self._fn = fn
        self._items = items
        self._ordered = ordered
        self._room = asyncio.Semaphore(window)
        self._unread: set[asyncio.Future[Any]] = set()

    async def run(self) -> None:
        """Until the items end, or something raises."""
        try:
            await self._submit_all()
        finally:
            if not self._ordered and self._unread:
                await asyncio.wait(self._unread)
            self.ready.put_nowait(None)

    async def _submit_all(self) -> None:
        await self._room.acquire()
        async for item in self._items:
            future = await self._executor.asubmit(self._fn, item)
            self._unread.add(future)
            if self._ordered:
                self.ready.put_nowait(future)
            else:
                future.add_done_callback(self.ready.put_nowait)
            await self._room.acquire()

    def done_with(self, future: asyncio.Future[Any]) -> None:
        """Its result was read."""
        self._unread.discard(future)
        self._room.release()

    def cancel_all(self) -> None:
        """Nobody will read what is left."""
        for future in self._unread:
            if not future.cancel():
                _ignore_error(future)


def _ignore_error(future: asyncio.Future[Any]) -> None:
    """Else asyncio complains of an error that nobody has asked for."""
    if not future.cancelled():
        future.exception()
