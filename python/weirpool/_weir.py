"""The weir of executors that are not the engine's: permits, refusals, and who must not wait for one."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its exit handler waits for tasks: ours, being later, comes before it
import contextlib
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from weirpool import _support
from weirpool._engine import core as _core

if TYPE_CHECKING:
    from weirpool._errors import RejectedSubmission

_open: dict[int, weakref.ref[Weir]] = {}
_FRAMES = 7 + getattr(_core, "FRAMES", 0)  # from a warning to the caller of submit()
_exiting = False


class Waiting(Protocol):
    """Who waits in line without a thread."""

    def serve(self) -> bool:
        """Submit if there is room by now. Returns whether it waits no longer."""


class Submitting(threading.local):
    """Of each thread: how many submissions to executors behind a weir it is in.

    Such an executor may hold a lock then, so that this thread submits for nobody else before it is out of all of them.
    """

    depth = 0


submitting = Submitting()


class _Here(threading.local):
    """What a weir knows of one thread."""

    serves = False
    """It submits for those who wait without a thread."""

    def __init__(self) -> None:
        self.tickets: weakref.WeakSet[Waiting] = weakref.WeakSet()


class Weir:
    """Admits tasks within two bounds (None: no such bound), as long as its executor wants to wait.

    Args:
        tasks: The most outstanding tasks.
        unstarted: The most of them that were not started.
        patience: What ``_policy.patience()`` returned.
        timeout_name: How the executor calls its timeout.
    """

    def __init__(self, tasks: int | None, unstarted: int | None, patience: float | None, timeout_name: str) -> None:
        self._gate = _core.Gate(tasks or 0, unstarted or 0)
        self._patience = patience
        self._timeout_name = timeout_name
        self._here = _Here()
        self.line: OrderedDict[int, weakref.ref[Waiting]] = OrderedDict()  # those who wait without a thread
        self._warned = False
        key = id(self)
        _open[key] = weakref.ref(self, lambda _: _open.pop(key, None))
        self.shut = self._gate.shut
        self.stats = self._gate.stats

    def admit(self, must_not_wait: Callable[[], bool]) -> _core.Permit:
        """Return a permit. ``must_not_wait()`` is asked where there is no room, and if it says so that is overlooked.

        Raises:
            RejectedSubmission, SubmitTimeout: There was no room.
            RuntimeError: The weir is shut; in a forked child.
        """
        if _exiting:
            raise RuntimeError(_support.EXITING)
        permit = self._gate.admit(lambda: must_not_wait() or self._must_not_stop_a_loop(), self._patience)
        if permit is None:
            raise self.refusal()
        return permit

    def queue(self, bell: int) -> _core.Place:
        """Take a place in line, for who does not wait in it; it may be the first, and its turn come.

        Raises:
            RuntimeError: The weir is shut; in a forked child.
        """
        if _exiting:
            raise RuntimeError(_support.EXITING)
        return self._gate.queue(bell)

    def admit_now(self) -> _core.Permit:
        """As ``admit()``, of who has waited long enough."""
        permit = self._gate.admit(lambda: False, -1)
        if permit is None:
            raise self.refusal()
        return permit

    def note_place(self, ticket: Waiting) -> None:
        """It waits, and the loop of the calling thread will ask whether its turn has come."""
        line, key = self.line, id(ticket)
        line[key] = weakref.ref(ticket, lambda _: line.pop(key, None))
        self._here.tickets.add(ticket)

    def forget_place(self, ticket: Waiting) -> None:
        """It waits no longer."""
        self.line.pop(id(ticket), None)

    def give_back(self, permit: _core.Permit) -> None:
        """Nothing was submitted under it."""
        permit.give_back()
        self.serve()

    def serve(self) -> None:
        """Room was made: have those submit whose turn has come, and whose loops may be busy, or stopped.

        What they submit may have ended at once, and made room again: whoever serves already will see it.
        """
        here = self._here
        if here.serves or submitting.depth > 0:
            return
        here.serves = True
        try:
            while (first := _first(self.line)) is not None and first.serve():
                pass
        finally:
            here.serves = False

    def _must_not_stop_a_loop(self) -> bool:
        """Before a wait: behind tickets of its own a thread would wait for ever. In a loop's thread, say so once."""
        if len(self._here.tickets) > 0:
            return True
        waits = self._patience is None or self._patience > 0
        self._warned = self._warned or (waits and _support.warn_of_blocking(stacklevel=_FRAMES))
        return False

    def refusal(self) -> RejectedSubmission:
        """Return what is raised where there is no room in time."""
        seconds = self._patience if self._patience is not None and self._patience >= 0 else None
        return _support.refusal(seconds, self._timeout_name)


def _first(line: OrderedDict[int, weakref.ref[Waiting]]) -> Waiting | None:
    while line:
        with contextlib.suppress(RuntimeError, StopIteration):  # another thread has changed it meanwhile
            key, ref = next(iter(line.items()))
            ticket = ref()
            if ticket is not None:
                return ticket
            line.pop(key, None)  # its own callback may have to wait for us
    return None


def is_in_callback() -> bool:
    """Does a done-callback run in this thread? Waiting there could stall whoever delivers completions."""
    if _core.is_delivering():
        return True
    return is_inside("_invoke_callbacks")


def is_worker_of(executor: object) -> bool:
    """Does this thread belong to that executor, in the way of the standard thread pool?"""
    threads, lock = getattr(executor, "_threads", None), getattr(executor, "_shutdown_lock", None)
    if not isinstance(threads, set) or lock is None:
        return False
    me = threading.current_thread()
    if me in threads:
        return True
    with lock:  # a thread is started, and then listed, while it is held
        return me in threads


def is_inside(name: str) -> bool:
    """Does this thread run a function of that name?"""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _shut_all() -> None:
    """Before threads and pools are joined: nobody may wait for room meanwhile."""
    global _exiting
    _exiting = True
    for ref in list(_open.values()):
        weir = ref()
        if weir is not None:
            with contextlib.suppress(RuntimeError):  # in a forked child: it is the parent's
                weir.shut()


threading._register_atexit(_shut_all)  # type: ignore[attr-defined]
