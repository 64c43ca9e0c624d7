"""Every task has a number and an account: what it was to do, what was done to it, how it ended."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures as cf
import itertools
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import work
from damage import Damage
from ledger import Start

import weirpool
from weirpool import _core

_KINDS = {
    "result": "tasks with a result",
    "dropped": "tasks that nobody asked again",
    "cancelled": "cancels",
    "forced cancelled": "forced cancels",
    "forced result": "tasks with a result",
}


@dataclass(eq=False)
class Task:
    """One task. ``end`` is what its producer saw, where there is no future to be asked."""

    number: int
    act: str = "return"
    seconds: float = 0.0
    size: int = 0
    attempts: int = 1
    """How often it may be started."""
    limit: float | None = None
    """Seconds that an attempt may take."""
    sendable: bool = True
    future: cf.Future[Any] | None = None
    ends: list[tuple[str, Any]] = field(default_factory=list)
    """Of "result", "error", "refused", "cancelled", "dropped", with a value: one, once it has ended."""
    asked: bool = False
    """Somebody tried to cancel it."""
    forced: bool = False
    """... by force."""
    loose: bool = False
    """Who waited for it may be gone before it starts: its cancelling is no promise that it does not run."""
    cancelled_at: int | None = None
    """When a cancel() had returned True."""
    fed: bool = False
    """A feeder tries it again: to the pool each attempt is a task."""
    impatient: bool = False
    """Its producer waits a limited time for room, whatever the executor says."""
    callbacks: int = 0
    called: int = 0

    def end_with(self, error: BaseException) -> None:
        """It ended with this, be it of ``submit()`` or of its future."""
        if isinstance(error, (cf.CancelledError, asyncio.CancelledError)):
            self.end("cancelled")
            return
        of_submit = type(error) is RuntimeError or str(error) == _core.UNUSABLE or isinstance(error, queue.Full)
        self.end("refused" if of_submit else "error", error)

    def end(self, how: str, value: Any = None) -> None:
        """Note how it ended. The frames of an error are let go: they hold the executor."""
        if isinstance(value, BaseException):
            value = value.with_traceback(None)
            value.__context__ = None
        self.ends.append((how, value))

    def ask(self, timeout: float | None) -> None:
        """Wait for its result. An error keeps the frames that it was raised in, and these the executor: they go."""
        assert self.future is not None
        try:
            self.future.result(timeout)
        except (Exception, cf.CancelledError) as error:
            error.__traceback__ = None

    def cancel(self, *, force: bool = False) -> bool:
        """Cancel its future, and note whether that was promised."""
        assert self.future is not None
        self.asked = True
        self.forced |= force
        done = self.future.cancel(force=True) if force else self.future.cancel()  # type: ignore[call-arg]
        if done and self.cancelled_at is None:
            self.cancelled_at = time.monotonic_ns()
        return done

    def is_over(self) -> bool:
        """Has it ended, as far as this can be asked?"""
        return self.future.done() if self.future is not None else bool(self.ends)


class Account:
    """The tasks of one round, and how many of what was seen. Thread-safe."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.faults: list[str] = []
        self.seen: collections.Counter[str] = collections.Counter()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def open(self, **what: Any) -> Task:
        """A new task."""
        with self._lock:
            task = Task(next(self._numbers), **what)
            self.tasks.append(task)
        return task

    def fault(self, text: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.faults.append(text)

    def count(self, what: str) -> None:
        """One more of these."""
        with self._lock:
            self.seen[what] += 1

    def unfinished(self) -> list[Task]:
        """The tasks that have not ended."""
        return [task for task in self.tasks if not task.is_over()]

    def close(self, starts: dict[int, list[Start]], damage: Damage, *, refuses: bool, breaks: bool) -> None:
        """All has ended: judge each task."""
        damage.doomed = {
            start.pid for task in self.tasks if task.act == "midway" for start in starts.get(task.number, [])
        }
        for task in self.tasks:
            if task.future is not None:
                _ask(task)
            judge = _Judge(task, starts.pop(task.number, []), damage, refuses, breaks)
            for fault in judge.faults():
                self.fault(f"task {task.number} ({_describe(task)}): {fault}")
            self.count("tasks")
            self.count(_kind(task))
            self.seen["retries"] += max(0, len(judge.starts) - 1)
            task.future = None
        for number in starts:
            self.fault(f"a task {number} ran that nobody submitted")


def _ask(task: Task) -> None:
    future = task.future
    assert future is not None
    if not future.done():
        task.end("lost")
    elif future.cancelled():
        task.end("cancelled")
    elif (error := future.exception()) is not None:
        task.end("error", error)
    else:
        task.end("result", future.result())


def _kind(task: Task) -> str:
    how, value = task.ends[0] if task.ends else ("lost", None)
    if how == "refused":
        return "rejections" if isinstance(value, queue.Full) else "submissions to an ended pool"
    if how == "error":
        return f"tasks that ended with {type(value).__name__}"
    return _KINDS.get(("forced " if task.forced else "") + how, how)


def _describe(task: Task) -> str:
    facts = {
        "act": task.act,
        "seconds": task.seconds,
        "size": task.size,
        "attempts": task.attempts,
        "limit": task.limit,
        "ends": [(how, _short(value)) for how, value in task.ends],
        "asked": task.asked,
        "forced": task.forced,
        "loose": task.loose,
        "cancelled at": task.cancelled_at,
    }
    return ", ".join(f"{name} {value!r}" for name, value in facts.items() if value not in (None, False, 0))


def _short(value: Any) -> str:
    cause = f" from {value.__cause__!r}" if isinstance(value, BaseException) and value.__cause__ else ""
    return repr(value)[:300] + cause[:1500]


@dataclass
class _Judge:
    task: Task
    starts: list[Start]
    damage: Damage
    refuses: bool
    """A full pool refuses."""
    breaks: bool
    """A worker's death breaks the pool."""

    def faults(self) -> Iterator[str]:
        task, starts = self.task, self.starts
        if len(task.ends) != 1:
            yield f"it ended {len(task.ends)} times"
            return
        how, value = task.ends[0]
        if len(starts) > task.attempts:
            yield f"it was started {len(starts)} times: {starts}"
        if task.cancelled_at is not None:
            yield from self._promise(how, task.cancelled_at)
        if task.called != task.callbacks:
            yield f"{task.called} calls of {task.callbacks} callbacks"
        fault = getattr(self, f"_{how}")(value)
        if fault is not None:
            yield fault

    def _promise(self, how: str, at: int) -> Iterator[str]:
        if how != "cancelled":
            yield f"cancel() returned True, and it ended as {how}"
        if any(start.at > at for start in self.starts):
            yield f"it was started after cancel() had returned True: {self.starts}"

    # ---- how it ended: what is wrong with that? ----

    def _lost(self, _: Any) -> str | None:
        return "it has not ended"

    def _dropped(self, _: Any) -> str | None:
        return None

    def _result(self, value: Any) -> str | None:
        task = self.task
        if not self.starts:
            return "it has a result and was never started"
        spared = task.act != "once" or len(self.starts) > 1
        if task.act not in work.MAY_RETURN or not spared or not task.sendable:
            return "it should not have a result"
        right = isinstance(value, tuple) and len(value) == 2 and value[0] == task.number
        if not right or bytes(value[1]) != work.content(task.number, task.size):
            return "its result is wrong"
        return None

    def _cancelled(self, _: Any) -> str | None:
        task, damage = self.task, self.damage
        if not (task.asked or task.loose or damage.cancelled or damage.forced):
            return "nobody cancelled it"
        may_have_run = task.forced or task.loose or task.attempts > 1
        return f"it was cancelled, and started: {self.starts}" if self.starts and not may_have_run else None

    def _refused(self, error: BaseException) -> str | None:
        if self.starts and not self.task.loose:
            return f"it was refused, and started: {self.starts}"
        if isinstance(error, queue.Full):
            return None if self.refuses or self.task.impatient else "refused, though the executor waits"
        if isinstance(error, BrokenProcessPool):
            return None if self.damage.explains(error, by_submit=True) else "nothing was done that breaks a pool"
        if type(error) is RuntimeError and "cannot schedule new futures" in str(error):
            return None if self.damage.shut else "refused, though nobody called shutdown()"
        return "refused without a reason"

    def _error(self, error: BaseException) -> str | None:
        task = self.task
        if not task.sendable:
            return self._error_of_unsendable(error)
        if task.act == "unreadable" and self.starts:
            return "it cannot be read, and was started"
        if isinstance(error, work.StormError):
            return self._error_of_storm(error)
        if isinstance(error, BrokenProcessPool):
            return None if self.damage.explains(error, by_submit=False) else "nothing was done that breaks a pool so"
        if isinstance(error, weirpool.WorkerDied):
            return self._error_of_death(error)
        if isinstance(error, weirpool.TaskTimeout):
            return None if task.limit is not None and len(self.starts) <= task.attempts else "it had no limit"
        if task.act == "secret" and self.starts and "pickle" in str(error):
            return None
        return "an error that nothing explains"

    def _error_of_storm(self, error: work.StormError) -> str | None:
        if self.task.act == "unreadable":
            return None if error.args == work.REFUSAL else "not its error"
        fits = self.task.act == "raise" and error.args == (self.task.number,) and self.starts
        return None if fits else "not its error"

    def _error_of_unsendable(self, error: BaseException) -> str | None:
        if self.starts:
            return "it cannot be sent, and was started"
        fits = isinstance(error, work.StormError) or (
            isinstance(error, BrokenProcessPool) and self.damage.explains(error, by_submit=False)
        )
        return None if fits else "not its error"

    def _error_of_death(self, error: weirpool.WorkerDied) -> str | None:
        task = self.task
        if self.breaks:
            return "a death breaks the pool"
        if error.exitcode not in self.damage.exitcodes:
            return "no worker ended like that"
        if task.loose:  # it may be another task of its chunk
            return None
        if task.act not in work.EXITCODES and error.pid not in self.damage.killed | self.damage.doomed:
            return "nobody killed that worker"
        attempts = 1 if task.fed else task.attempts
        if error.attempts > attempts or (error.attempts < attempts and not self.damage.broke):
            return "it was not tried as often as it should"
        if self.starts and len(self.starts) == task.attempts and self.starts[-1].pid != error.pid:
            return f"another worker ran it: {self.starts}"
        return None
