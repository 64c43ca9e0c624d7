"""The gate in pure Python, for where the extension is not used: as ``_core`` has it, and what else is asked of that.

A permit is an object here, too: it returns when its task has ended, when its submission fails, and at the latest when
nobody refers to it any more. Where things have to change together nothing is called in between, so that no signal
handler and no permit that is collected can come in between.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

MAX_WORKERS = 4096
FORKED = (
    "this pool belongs to the process that created it and cannot be used in a forked child: create a new pool there"
)
SHUT_DOWN = "cannot schedule new futures after shutdown"
UNUSABLE = "A child process terminated abruptly, the process pool is not usable anymore"

FRAMES = 1  # between who asks a gate for a permit, and what the gate asks back

_LOOK_SECONDS = 1.0  # who waits looks so often for itself: a signal handler may have raised in who was to wake it

_RETURNED, _HELD, _STARTED = range(3)

Outcome = Literal["completed", "failed", "cancelled"]


def is_delivering() -> bool:
    """Does the native engine deliver in this thread? There is none."""
    return False


class Permit:
    """The right of one task to be outstanding. Called with the task's future it returns, and counts."""

    __slots__ = ("_gate", "_standing", "order")

    def __init__(self, gate: Gate) -> None:
        self._standing = _RETURNED
        self._gate = gate
        self.order = 0  # the how manieth it was

    def __call__(self, future: Future[Any], /) -> None:
        if self._standing != _RETURNED:
            self._gate._take_back(self, _outcome_of(future))

    def start(self) -> None:
        """The task was started."""
        self._gate._start(self)

    def give_back(self) -> None:
        """The task was not submitted. Harmless after the permit's return."""
        self._gate._take_back(self, None)

    def starting(self, fn: Callable[..., Any], /) -> Starter:
        """Return a callable that says start() and calls fn."""
        return Starter(self, fn)

    def __del__(self) -> None:
        gate = getattr(self, "_gate", None)  # a signal handler may have raised before __init__()
        if gate is not None:
            gate._take_back(self, None)


class Starter:
    """What ``Permit.starting()`` returns."""

    __slots__ = ("_fn", "_permit")

    def __init__(self, permit: Permit, fn: Callable[..., Any]) -> None:
        self._permit = permit
        self._fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._permit.start()
        return self._fn(*args, **kwargs)


class _Turn:
    """One who stands in line, as the line knows him."""

    __slots__ = ("_bell", "_standing", "order", "since", "wake")

    def __init__(self, bell: int) -> None:
        self._bell = bell
        self._standing = _RETURNED
        self.order = 0
        self.since = time.monotonic()
        self.wake = threading.Lock()  # released when its turn has come, or never will
        self.wake.acquire()

    def ring(self) -> None:
        """Wake him. Twice does no harm."""
        if self._bell >= 0:
            ring(self._bell)
        elif self.wake.locked():
            with contextlib.suppress(RuntimeError):  # a signal handler was quicker
                self.wake.release()


def ring(bell: int) -> None:
    """Ring a bell: an eventfd, or the writing end of a pipe. One that is full of rings is rung enough."""
    with contextlib.suppress(BlockingIOError):
        os.write(bell, (1).to_bytes(8, sys.byteorder))


class Place:
    """A place in the line at a gate. It is left when nobody refers to it."""

    __slots__ = ("_gate", "_turn")

    def __init__(self, gate: Gate, bell: int) -> None:
        self._turn: _Turn | None = None  # None: it has ended
        self._gate = gate
        turn = _Turn(bell)
        self._turn = turn
        try:
            gate._join(turn)
        except BaseException:
            self._abandon()
            raise

    def poll(self) -> Permit | None:
        """Return a Permit if the turn has come, else None. RuntimeError: it never will."""
        return self._gate._settle(self, leaving=False)

    def leave(self) -> Permit | None:
        """Give the place up; return a Permit if the turn had come. RuntimeError: as poll()."""
        return self._gate._settle(self, leaving=True)

    def wait(self, patience: float | None) -> Permit | None:
        """Wait for the turn, for so many seconds at most (None: without end). Whatever raises ends the place."""
        deadline = None if patience is None else time.monotonic() + patience
        try:
            while True:
                permit = self.poll()
                left = _LOOK_SECONDS if deadline is None else min(deadline - time.monotonic(), _LOOK_SECONDS)
                if permit is not None or self._turn is None:
                    return permit
                if left <= 0:
                    return self.leave()
                self._turn.wake.acquire(timeout=left)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        gate, turn = self._gate, self._turn
        if turn is not None and not gate._is_foreign():
            with gate._lock:
                gate._give_up(turn)
                self._turn = None

    def __del__(self) -> None:
        if hasattr(self, "_gate"):
            self._abandon()


class Gate:
    """Hands out permits, first come first served; 0: no such bound."""

    def __init__(self, tasks: int, unstarted: int) -> None:
        self._owner = os.getpid()
        self._tasks = tasks
        self._unstarted = unstarted
        # Of what follows. An RLock: a signal handler, or a permit that is collected, may come upon it.
        self._lock = threading.RLock()
        self._line: deque[_Turn] = deque()
        self._is_shut = False
        self._flows = False  # a call of _flow() is under way,
        self._flows_on = False  # and has to look again: another came within it
        self._handed_out = 0  # since the beginning
        self._outstanding = 0
        self._waiting = 0  # of those: not started
        self._peak = 0
        self._over_bound = 0
        self._blocked_seconds = 0.0
        self._rejected = 0
        self._ended = {"completed": 0, "failed": 0, "cancelled": 0}

    def admit(self, must_not_wait: Callable[[], bool], patience: float | None, /) -> Permit | None:
        """Return a Permit, or None if there was no room within ``patience`` seconds (None: without end; -1: at once).

        If there is none, must_not_wait() says whether the caller is admitted over the bound.

        Raises:
            RuntimeError: The gate is shut, or this is a forked child.
        """
        permit = self._try(over_bound=False)
        if permit is None and must_not_wait():
            permit = self._try(over_bound=True)
        elif permit is None and (patience is None or patience > 0):
            permit = Place(self, -1).wait(patience)
        if permit is None:
            with self._lock:
                self._rejected += 1
        return permit

    def queue(self, bell: int, /) -> Place:
        """Take a place in line. ``bell`` (see ring()) is rung when its turn has come or never will."""
        return Place(self, bell)

    def shut(self) -> None:
        """Admit nobody any more, and wake those who wait."""
        self._refuse_forks()
        with self._lock:
            self._is_shut = True
            while self._line:
                first = self._line[0]
                first.ring()
                self._drop(first)

    def stats(self) -> dict[str, Any]:
        """Return the fields of Stats that a gate knows."""
        self._refuse_forks()
        with self._lock:
            finished = sum(self._ended.values())
            return {
                "bound": self._tasks,
                "outstanding": self._outstanding,
                "waiting": self._waiting,
                "running": self._outstanding - self._waiting,
                "peak_outstanding": self._peak,
                "admitted_over_bound": self._over_bound,
                "blocked_producers": len(self._line),
                "blocked_seconds": self._blocked_seconds,
                "submitted": finished + self._outstanding,
                "finished": finished,
                **self._ended,
                "rejected": self._rejected,
            }

    # ---- permits ----

    def _try(self, over_bound: bool) -> Permit | None:
        self._refuse_forks()
        permit = Permit(self)
        with self._lock:
            self._refuse_shut()
            if not self._line and self._has_room():
                self._hand_out(permit)
            elif over_bound:
                self._over_bound += 1
                self._hand_out(permit)
            else:
                return None
        return permit

    def _has_room(self) -> bool:
        if self._tasks and self._outstanding >= self._tasks:
            return False
        return not self._unstarted or self._waiting < self._unstarted

    def _hand_out(self, holder: Permit | _Turn) -> None:
        holder._standing = _HELD
        self._handed_out += 1
        holder.order = self._handed_out
        self._outstanding += 1
        self._waiting += 1
        if self._outstanding > self._peak:
            self._peak = self._outstanding

    def _start(self, permit: Permit) -> None:
        if self._is_foreign():
            return
        with self._lock:
            if permit._standing == _HELD:
                permit._standing = _STARTED
                self._waiting -= 1
            self._flow()

    def _take_back(self, holder: Permit | _Turn, outcome: Outcome | None) -> None:
        if holder._standing == _RETURNED or self._is_foreign():
            return
        with self._lock:
            if holder._standing != _RETURNED:
                if holder._standing == _HELD:
                    self._waiting -= 1
                holder._standing = _RETURNED
                self._outstanding -= 1
                if outcome is not None:
                    self._ended[outcome] += 1
            self._flow()

    # ---- the line ----

    def _join(self, turn: _Turn) -> None:
        self._refuse_forks()
        with self._lock:
            self._refuse_shut()
            self._line.append(turn)
            self._flow()

    def _flow(self) -> None:
        """Admit those whose turn has come. May be broken off anywhere and called again.

        A call within a call (a signal handler's, or of a permit that is collected) leaves its work to that one.
        """
        self._flows_on = True
        if self._flows:
            return
        try:
            self._flows = True
            while self._flows_on:
                self._flows_on = False
                self._admit_first_ones()
        finally:
            self._flows = False

    def _admit_first_ones(self) -> None:
        while self._line:
            first = self._line[0]
            if first._standing == _RETURNED:
                if not self._has_room():
                    return
                self._hand_out(first)
            first.ring()
            if not self._drop(first) and not self._is_shut:
                self._take_back(first, None)  # he has left meanwhile

    def _drop(self, first: _Turn) -> bool:
        """Returns whether he was the first in line still."""
        if not self._line or self._line[0] is not first:
            return False
        self._line.popleft()
        return True

    def _settle(self, place: Place, leaving: bool) -> Permit | None:
        self._refuse_forks()
        permit = Permit(self)
        with self._lock:
            turn = place._turn
            if turn is None:
                return None
            self._flow()
            if turn._standing == _HELD:
                permit.order = turn.order
                turn._standing, permit._standing, place._turn = _RETURNED, _HELD, None
                self._blocked_seconds += time.monotonic() - turn.since
                return permit
            if leaving or self._is_shut:
                self._give_up(turn)
                place._turn = None
                self._refuse_shut()
        return None

    def _give_up(self, turn: _Turn) -> None:
        """Lock held. May be called twice."""
        if turn in self._line:
            self._line.remove(turn)
        self._blocked_seconds += time.monotonic() - turn.since
        turn.since = time.monotonic()
        self._take_back(turn, None)
        self._flow()

    # ---- refusals ----

    def _is_foreign(self) -> bool:
        """In a forked child another thread of the parent's may seem to hold the lock."""
        return os.getpid() != self._owner

    def _refuse_forks(self) -> None:
        if self._is_foreign():
            raise RuntimeError(FORKED)

    def _refuse_shut(self) -> None:
        if self._is_shut:
            raise RuntimeError(SHUT_DOWN)


def _outcome_of(future: Future[Any]) -> Outcome:
    if future.cancelled():
        return "cancelled"
    return "completed" if future.exception() is None else "failed"
