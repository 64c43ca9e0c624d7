"""``map``: eager as in the standard library, or lazy with a window of unread results."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any


def check_arguments(chunksize: int, buffersize: int | None) -> None:
    """Raise what the standard library's newest ``map`` raises."""
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def results(
    executor: Executor,
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int,
    window: int | None,
) -> Iterator[Any]:
    """Submit (the first ``window`` calls, or all of them) at once; return the iterator over the results."""
    deadline = None if timeout is None else timeout + time.monotonic()
    calls = zip(*iterables, strict=False)
    if chunksize == 1:
        return _in_order(executor, fn, calls, deadline, window)
    chunks = ((chunk,) for chunk in _chunked(calls, chunksize))
    return _flatten(_in_order(executor, _Chunk(fn), chunks, deadline, window))


class _Chunk:
    """Calls a function for each item of a chunk, in the worker."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
        return [self.fn(*args) for args in chunk]


def _chunked(items: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def _in_order(
    executor: Executor,
    fn: Callable[..., Any],
    calls: Iterator[tuple[Any, ...]],
    deadline: float | None,
    window: int | None,
) -> Iterator[Any]:
    futures = deque(executor.submit(fn, *args) for args in itertools.islice(calls, window))
    more = None if window is None else _More(executor, fn, calls)
    return _yield_results(futures, more, deadline)


class _More:
    """Submits one more call. The executor is kept alive as long as there are calls: none may be left out silently."""

    def __init__(self, executor: Executor, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]]) -> None:
        self._executor: Executor | None = executor
        self._fn = fn
        self._calls = calls

    def submit_into(self, futures: deque[Future[Any]]) -> None:
        if self._executor is None:
            return
        for args in self._calls:
            futures.append(self._executor.submit(self._fn, *args))
            return
        self._executor = None


def _yield_results(futures: deque[Future[Any]], more: _More | None, deadline: float | None) -> Iterator[Any]:
    # One more is submitted only when the consumer has come back for its next result: the window is never exceeded.
    # The yielded object and its future are not referred to meanwhile.
    try:
        while futures:
            yield _result_or_cancel(futures.popleft(), deadline)
            if more is not None:
                more.submit_into(futures)
    finally:
        for future in futures:
            future.cancel()


def _result_or_cancel(future: Future[Any], deadline: float | None) -> Any:
    try:
        try:
            return future.result(None if deadline is None else deadline - time.monotonic())
        finally:
            future.cancel()
    finally:
        del future  # an exception's traceback would keep it in a cycle


def _flatten(lists: Iterator[list[Any]]) -> Iterator[Any]:
    for items in lists:
        items.reverse()
        while items:
            yield items.pop()
