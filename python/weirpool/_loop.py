"""Waiting for room at an executor in an event loop: one bell, and everybody who waits for it; and for results."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from weirpool._aio import AsyncMethods, Ticket
from weirpool._results import STOPPED

T = TypeVar("T")

_AT_ONCE = 0.005  # seconds of polling, which may be pickling, before the loop may do something else

_Lines = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, "weakref.ref[Line]"]
_lines: weakref.WeakKeyDictionary[AsyncMethods, _Lines] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def line_of(executor: AsyncMethods, loop: asyncio.AbstractEventLoop) -> Iterator[Line]:
    """The line of this loop at this executor, which is there as long as somebody uses it.

    Only its users keep it: a loop that is forgotten with coroutines in it takes them, and their places, along.
    """
    lines = _lines.setdefault(executor, weakref.WeakKeyDictionary())
    known = lines.get(loop)
    line = known() if known is not None else None
    if line is None or line.users == 0:
        line = Line(loop)
        lines[loop] = weakref.ref(line)
    line.users += 1
    try:
        yield line
    finally:
        line.users -= 1
        if line.users == 0:
            line.close()


def follow(future: cf.Future[T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    """As ``asyncio.wrap_future()``, whose future never ends where a task raised StopIteration (in 3.11, and 3.12.1)."""
    followed: asyncio.Future[T] = loop.create_future()

    def pass_cancel_on(_: asyncio.Future[T]) -> None:
        if followed.cancelled():
            future.cancel()

    def tell_loop(_: cf.Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits there
            loop.call_soon_threadsafe(_copy_end, future, followed)

    followed.add_done_callback(pass_cancel_on)
    future.add_done_callback(tell_loop)
    return followed


def _copy_end(future: cf.Future[T], followed: asyncio.Future[T]) -> None:
    if followed.done():
        return
    if future.cancelled():
        followed.cancel()
        return
    error = future.exception()
    try:
        if error is None:
            followed.set_result(future.result())
        elif isinstance(error, StopIteration):  # the awaiting coroutine would return
            stopped = RuntimeError(STOPPED)
            stopped.__cause__ = error
            followed.set_exception(stopped)
        else:
            followed.set_exception(error)
    finally:
        del error  # else its traceback would keep it in a cycle


class Waiter:
    """A coroutine that waits, and its ticket. ``room`` ends with the future of its call, or with why there is none."""

    def __init__(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        self.ticket = ticket
        self.room: asyncio.Future[cf.Future[Any]] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, ask: Callable[[], cf.Future[Any] | None]) -> bool:
        """Ask its ticket. Returns whether it waits no longer."""
        if self.room.done():
            return True
        try:
            future = ask()
        except BaseException as error:  # it is the waiter's
            self.room.set_exception(error)
            return True
        if future is not None:
            self.room.set_result(future)
        return future is not None

    def give_up(self) -> None:
        """Nobody will learn of its future."""
        if self.room.cancelled() or not self.room.done():
            future = self.ticket.leave()
        else:
            future = None if self.room.exception() else self.room.result()
        if future is not None:
            future.cancel()


class Line:
    """Who waits in one loop for room at one executor. The thread of that loop uses it, and no other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.users = 0
        self._loop = loop
        self._ear, self._bell = _make_bell()
        self._hears = False
        self._entrance = asyncio.Lock()  # who waits for a preparation is not overtaken
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()  # settled from its beginning on
        self._permitted: OrderedDict[Waiter, None] = OrderedDict()  # settled in any order

    async def submit(
        self, executor: AsyncMethods, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[Any]:
        """Await room, and submit."""
        async with self._entrance:
            prepare = executor._preparation()
            if prepare is not None:
                await self._loop.run_in_executor(None, prepare)
            answer = executor._submit_soon(fn, args, kwargs, self._bell)
        if isinstance(answer, cf.Future):
            return answer
        return await self._wait(answer, executor._patience)

    async def _wait(self, ticket: Ticket, patience: float | None) -> cf.Future[Any]:
        waiter = Waiter(ticket, self._loop)
        if patience is not None:
            waiter.timer = self._loop.call_later(patience, self._expire, waiter)
        self._line_up(waiter)
        try:
            return await waiter.room
        except BaseException:
            waiter.give_up()
            raise
        finally:
            self._waiting.pop(waiter, None)
            self._permitted.pop(waiter, None)
            if waiter.timer is not None:
                waiter.timer.cancel()

    def _expire(self, waiter: Waiter) -> None:
        """One that another thread submits at this moment may wait on after that, for bytes: it is asked again."""
        if not waiter.settle(waiter.ticket.expire):
            waiter.timer = self._loop.call_later(_AT_ONCE, self._expire, waiter)

    def _line_up(self, waiter: Waiter) -> None:
        (self._permitted if waiter.ticket.permitted else self._waiting)[waiter] = None
        if not self._hears:
            self._loop.add_reader(self._ear, self._hear)
            self._hears = True

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._ear, 4096)
        for waiter in list(self._permitted):
            if waiter.settle(waiter.ticket.poll):
                self._permitted.pop(waiter)
        self._look_at_line()

    def _look_at_line(self) -> None:
        """Settle those whose turn has come: all that there are before the first whose turn has not."""
        until = time.monotonic() + _AT_ONCE  # the time of a loop may be that of its last look at the clock
        while time.monotonic() < until:
            waiter = next(iter(self._waiting), None)
            if waiter is None:
                return
            if not waiter.settle(waiter.ticket.poll):
                if not waiter.ticket.permitted:
                    return
                self._permitted[waiter] = None
            self._waiting.pop(waiter)
        self._loop.call_soon(self._look_at_line)

    def close(self) -> None:
        """Nobody waits any more: tickets have ended, and nothing rings the bell."""
        if self._hears and not self._loop.is_closed():
            self._loop.remove_reader(self._ear)
        for fd in {self._ear, self._bell}:
            os.close(fd)


def _make_bell() -> tuple[int, int]:
    """Descriptors to hear a bell by, and to ring it: an eventfd is both, and where there is none a pipe will do."""
    with contextlib.suppress(AttributeError, OSError):
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return bell, bell
    ear, bell = os.pipe()
    os.set_blocking(ear, False)
    os.set_blocking(bell, False)
    return ear, bell
