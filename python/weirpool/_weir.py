"""The weir of executors that are not the engine's: permits, refusals, and who must not wait for one."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its exit handler waits for tasks: ours, being later, comes before it
import contextlib
import sys
import threading
import weakref
from collections.abc import Callable

from weirpool import _core, _support

_open: dict[int, weakref.ref[Weir]] = {}
_exiting = False


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
        permit = self._gate.admit(must_not_wait, self._patience)
        if permit is None:
            seconds = self._patience if self._patience is not None and self._patience >= 0 else None
            raise _support.refusal(seconds, self._timeout_name)
        return permit


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
