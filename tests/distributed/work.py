"""What the engines run, and what every test asks of them. Also used by ranks of MPI, so it imports no pytest."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds; only a hang takes so long


def square(number: int) -> int:
    return number * number


def fail(text: str) -> None:
    raise ValueError(text)


def hold(folder: str, result: int = 0) -> int:
    """Runs until the file `open` is in the folder, and leaves one that says it has started."""
    Path(folder, f"started-{time.monotonic_ns()}").touch()
    deadline = time.monotonic() + PATIENCE
    while not Path(folder, "open").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.01)
    return result


def release(folder: Path) -> None:
    (folder / "open").touch()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {PATIENCE:.0f} s: {what}")
        time.sleep(0.01)


class Counted(concurrent.futures.Executor):
    """Counts what its inner executor has accepted and not finished, apart from anything that weirpool counts."""

    def __init__(self, inner: concurrent.futures.Executor) -> None:
        self.inner = inner
        self.lock = threading.Lock()
        self.outstanding = 0
        self.peak = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            self.outstanding += 1
            self.peak = max(self.peak, self.outstanding)
        try:
            future = self.inner.submit(fn, *args, **kwargs)
        except BaseException:
            self.finished()
            raise
        future.add_done_callback(self.finished)  # before anybody else's, so never too late
        return future

    def finished(self, _: object = None) -> None:
        with self.lock:
            self.outstanding -= 1

    def shutdown(self, wait: bool = True) -> None:
        self.inner.shutdown(wait=wait)


def submit_from_callback(executor: concurrent.futures.Executor, count: int) -> list[int]:
    """What `count` tasks return that are submitted by the done-callback of another one."""
    futures: list[concurrent.futures.Future[int]] = []
    submitted = threading.Event()

    def submit_more(_: object) -> None:
        futures.extend(executor.submit(square, number) for number in range(count))
        submitted.set()

    executor.submit(square, 1).add_done_callback(submit_more)
    if not submitted.wait(PATIENCE):
        raise AssertionError("a done-callback that submits is stuck")
    return [future.result(PATIENCE) for future in futures]
