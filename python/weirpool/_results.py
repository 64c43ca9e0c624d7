"""The iterators over results: what ``map``, ``map_unordered`` and ``as_completed`` have in common."""

from __future__ import annotations

import os
import queue
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_BUSY = "another thread uses this iterator, or it was asked for a result while it fetched one"
STOPPED = "a task raised StopIteration"
_FORKED = "this iterator belongs to the process that made it, and cannot be used in a forked child"


class Refused(Exception):  # noqa: N818 - it is not raised to users
    """Carries a refused submission, which is no end, past what ends an iterator."""

    def __init__(self, refusal: queue.Full) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Results(Iterator[T]):
    """An iterator over results, as a map of this package returns it. One thread at a time may use it.

    It ends for good with the last result, with the first exception that it raises, or when it is closed. Only a
    refused submission (``queue.Full``, such as ``RejectedSubmission``) does not end it: the item is kept, and the next
    call tries it again. It is raised only where there is no result to wait for.
    """

    def __init__(self) -> None:
        self._busy: bool | None = None  # None: it was never asked for a result

    def __iter__(self) -> Results[T]:
        return self

    def __next__(self) -> T:
        # Between the look and the mark no other thread and no signal handler can come: nothing is called there.
        if self._busy:
            raise ValueError(_BUSY)
        self._busy = True
        try:
            return self._advance()
        except Refused as refused:
            raise refused.refusal from None
        except BaseException:
            self._finish()
            raise
        finally:
            self._busy = False

    def close(self) -> None:
        """End it: nothing more is submitted, and what was submitted and has not started is cancelled.

        May be called several times.

        Raises:
            ValueError: Another thread uses it at this moment.
        """
        if self._busy:
            raise ValueError(_BUSY)
        self._finish()

    @abstractmethod
    def _advance(self) -> T:
        """The next result. Raises StopIteration after the last one."""

    @abstractmethod
    def _finish(self) -> None:
        """Cancel what is held and let go of it. Called once or several times."""


class Arrivals:
    """Where futures come to that have ended, in that order. Putting is a done-callback."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._ended: queue.SimpleQueue[Future[Any]] | None = queue.SimpleQueue()
        self._owner = os.getpid()

    def put(self, future: Future[Any]) -> None:
        """This one has ended. Once the iterator is closed nobody wants to know."""
        ended = self._ended
        if ended is not None:
            ended.put(future)

    def are_there(self) -> bool:
        """Would get() return at once?"""
        return self._ended is not None and not self._ended.empty()

    def get(self, unfinished: Callable[[], str]) -> Future[Any]:
        """Wait for the next one. TimeoutError, with a text, when the time is up."""
        assert self._ended is not None
        if os.getpid() != self._owner:  # nothing ever arrives there
            raise RuntimeError(_FORKED)
        if self._deadline is None:
            return self._ended.get()
        try:
            return self._ended.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(unfinished()) from None

    def close(self) -> None:
        """Let go of what has come, and of what will."""
        self._ended = None


def deadline_of(timeout: float | None) -> float | None:
    """When it is over, on the clock of time.monotonic(); a negative timeout is over, as in the standard library.

    Raises:
        ValueError: It is a bool or NaN.
        TypeError: It is no number.
    """
    if timeout is None:
        return None
    deadline = timeout + time.monotonic()
    if isinstance(timeout, bool) or deadline != deadline:
        raise ValueError(f"timeout must be None or a number of seconds, not {timeout!r}")
    return deadline


def check_buffersize(buffersize: int | None) -> None:
    """Raise what the standard library's newest ``map`` raises."""
    if buffersize is not None and (not isinstance(buffersize, int) or isinstance(buffersize, bool)):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def outcome(future: Future[T], deadline: float | None = None) -> T:
    """The result, waited for until the deadline. A future that raises is cancelled: it may not have started."""
    try:
        return future.result(None if deadline is None else deadline - time.monotonic())
    except StopIteration as error:  # the caller's __next__ would end silently
        raise RuntimeError(STOPPED) from error
    except BaseException:
        future.cancel()
        raise
    finally:
        del future  # an exception's traceback would keep it in a cycle
