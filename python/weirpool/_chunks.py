"""Calls that travel together: how workers execute them, how they are cut, and how large ``"auto"`` makes them."""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from weirpool import _pickler

AUTO: Literal["auto"] = "auto"

_TARGET_SECONDS = 0.2  # between the 50 and 500 ms that a chunk shall take
_GROWTH = 8  # at most, from one measured chunk to the next: the first items may be unlike the rest


# ---- In the worker -------------------------------------------------------------------------------


def run(fn: Callable[..., Any], spread: bool, chunk: tuple[Any, ...]) -> list[Any] | Cut:
    """Call a function for each item: its only argument, or (spread) its arguments."""
    done: list[Any] = []
    append = done.append
    try:
        if spread:
            for args in chunk:
                append(fn(*args))
        else:
            for item in chunk:
                append(fn(item))
    except BaseException as error:  # as of a task of its own: whatever it was, it is the item's
        return Cut(done, error)
    return done


def run_timed(fn: Callable[..., Any], spread: bool, chunk: tuple[Any, ...]) -> tuple[float, list[Any] | Cut]:
    """The same, with the seconds that it took."""
    start = time.perf_counter()
    outcome = run(fn, spread, chunk)
    return time.perf_counter() - start, outcome


class Cut:
    """What came of a chunk in which a call raised: the results before it, and the exception."""

    def __init__(self, done: list[Any], error: BaseException) -> None:
        self.done = done
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return Cut, (self.done, _sendable(self.error))


def _sendable(error: BaseException) -> Any:
    """In the form that carries its traceback. If it cannot be pickled, what pickling raised goes instead."""
    from weirpool._support import portable

    carried = portable(error)
    try:
        _dumps(carried)
    except BaseException as problem:
        return portable(problem)
    return carried


def _dumps(value: Any) -> None:
    if _pickler.of_this_worker is not None:
        _pickler.of_this_worker.dumps(value)
    else:
        from multiprocessing.reduction import ForkingPickler

        ForkingPickler.dumps(value)


# ---- In the parent -------------------------------------------------------------------------------


class Sizer:
    """Finds by what was measured how many items a chunk shall have, so that it takes about 0.2 s.

    It begins with one. One slow chunk makes the next ones smaller at once; fast ones make them larger little by
    little. Where the number of items is known the last chunks get smaller, so that all workers end together.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._seconds_each: float | None = None
        self._measured = 1  # items of the last chunk that was measured

    def size(self, remaining: int | None) -> int:
        """For the next chunk. ``remaining``: how many items there are yet, if that is known."""
        if self._seconds_each is None:
            return 1
        most = _GROWTH * self._measured
        size = most if self._seconds_each * most <= _TARGET_SECONDS else int(_TARGET_SECONDS / self._seconds_each)
        if remaining is not None:
            size = min(size, -(-remaining // (2 * self._workers)))
        return max(size, 1)

    def learn(self, items: int, seconds: float) -> None:
        """A chunk of so many items has taken so long in its worker."""
        each = seconds / items
        if self._seconds_each is None or each > self._seconds_each:
            self._seconds_each = each
        else:
            self._seconds_each = (self._seconds_each + each) / 2
        self._measured = items


class Chunks(Iterator[tuple[Any, ...]]):
    """Cuts items into the arguments of run() or run_timed()."""

    def __init__(self, fn: Callable[..., Any], iterators: list[Iterator[Any]], size: int | Sizer) -> None:
        self._fn = fn
        self._spread = len(iterators) != 1
        self._iterators = iterators
        self._items: Iterator[Any] = zip(*iterators, strict=False) if self._spread else iterators[0]
        self._size = size
        self.taken = 0  # items

    def __next__(self) -> tuple[Any, ...]:
        size = self._size if isinstance(self._size, int) else self._size.size(count_remaining(self._iterators)[0])
        chunk = tuple(itertools.islice(self._items, size))
        if not chunk:
            raise StopIteration
        self.taken += len(chunk)
        return self._fn, self._spread, chunk


def count_remaining(iterators: list[Iterator[Any]]) -> tuple[int | None, bool]:
    """How many items are left, as far as that can be known without taking one; and whether it is exact."""
    hints = [operator.length_hint(iterator, -1) for iterator in iterators]
    known = [hint for hint in hints if hint >= 0]
    return min(known, default=None), len(known) == len(hints)
