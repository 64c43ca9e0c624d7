"""What a feeder tells of its items, and what it knows of each."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

I = TypeVar("I")  # noqa: E741 - an item


class Failure(NamedTuple, Generic[I]):
    """An item that came to nothing."""

    item: I
    """What was put."""
    exception: BaseException
    """What its last attempt raised (CancelledError: it was cancelled); or what on_result raised."""
    attempts: int
    """How often it was submitted."""


@dataclass(frozen=True, slots=True)
class FeederStats:
    """One moment of a feeder. Unless a put is just submitting, accepted = succeeded + failed + outstanding."""

    accepted: int
    """Items whose put() has handed them to the executor, ever."""
    outstanding: int
    """Items handed over, or just being so, and not finished: neither succeeded nor failed. What ``maxsize`` bounds."""
    succeeded: int
    """Items whose call returned, and whose on_result, if any, has returned, too."""
    failed: int
    """Items that are in ``failures``."""
    retried: int
    """Attempts beyond the first of each item, ever."""
    blocked_producers: int
    """Threads that wait for room in put() at this moment. (Waits in the executor's own submit() are not counted.)"""
    blocked_seconds: float
    """How long threads have waited for room, summed over them; waits that have ended."""
    admitted_over_bound: int
    """Items accepted past maxsize because waiting would have been a deadlock."""
    peak_outstanding: int
    """The most items that were outstanding at once."""


class Item(Generic[I]):
    """An item on its way. It has room from its producer's turn until it has succeeded or failed."""

    __slots__ = (
        "attempts",
        "future",
        "has_room",
        "is_accepted",
        "is_refused",
        "is_submitted",
        "turn",
        "value",
        "waits",
    )

    def __init__(self, value: I) -> None:
        self.value = value
        self.attempts = 0
        self.future: Future[Any] | None = None  # of the attempt whose end is awaited
        self.has_room = False
        self.is_refused = False  # by close(), while it stood in line
        self.is_submitted = False
        self.is_accepted = False
        self.waits: float | None = None  # since when it stands in line
        self.turn = threading.Lock()  # released when its turn has come, or never will
        self.turn.acquire()
