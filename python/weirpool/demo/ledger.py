"""The parent's own account of what it submitted: every digest is checked against it."""

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from .work import Answer


class Ledger:
    """Keeps the digest of what was submitted until its answer comes, and adds up; safe to use from many threads."""

    def __init__(self) -> None:
        self.checked = 0
        self.differing = 0
        self.failed = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.first_error: str | None = None
        self._start = self._last_change = 0.0
        self._expected: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """The clock runs from now until the last answer."""
        self._start = self._last_change = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._last_change - self._start

    def expect(self, number: int, data: bytes) -> Callable[[Future[Answer]], None]:
        """Notes the digest of a task that is about to be submitted; returns the done-callback for its future."""
        digest = hashlib.sha256(data).digest()
        with self._lock:
            self._expected[number] = digest
        return partial(self._settle, number)

    def withdraw(self, number: int, error: BaseException) -> None:
        """Notes that the pool refused a task."""
        with self._lock:
            del self._expected[number]
            self.first_error = self.first_error or describe(error)

    @property
    def pending(self) -> int:
        """Tasks whose answers have not come."""
        return len(self._expected)

    def _settle(self, number: int, future: Future[Answer]) -> None:
        if future.cancelled():
            self._fail(number, "cancelled")
        elif error := future.exception():
            self._fail(number, describe(error))
        else:
            self._check(number, future.result())

    def _check(self, number: int, answer: Answer) -> None:
        with self._lock:
            if self._expected.pop(number) != answer.digest:
                self.differing += 1
                self.first_error = self.first_error or f"the digest of task {number} differs"
            self.checked += 1
            self.bytes_in += answer.size
            self.bytes_out += answer.compressed
            self._last_change = time.monotonic()

    def _fail(self, number: int, error: str) -> None:
        with self._lock:
            del self._expected[number]
            self.failed += 1
            self.first_error = self.first_error or error
            self._last_change = time.monotonic()


def describe(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
