"""How a worker process ended, whoever else asks multiprocessing for that at the same time."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

_POLL_SECONDS = 0.05
_patience = 1.0  # how long after an end its exit code may come: from a fork server, or a thread that has just reaped


def serialise_polls(process: BaseProcess) -> None:
    """Let one thread at a time ask this process, which was just started, for its exit code.

    multiprocessing asks all children whenever it starts one, in any thread. Of two that ask at once the second would
    read a wrong code from a fork server (255), and none of a child that the first has just reaped.

    Processes of a context that is not multiprocessing's may have nothing to ask there: they are left as they are.
    """
    popen: Any = getattr(process, "_popen", None)
    poll: Any = getattr(type(popen), "poll", None)
    if poll is None or not hasattr(popen, "__dict__"):
        return
    lock = threading.RLock()
    owner = os.getpid()
    itself = weakref.ref(popen)  # a cycle would keep its descriptors open

    def poll_alone(flag: int = os.WNOHANG) -> Any:
        # Who blocks is not waited for; nor is, in a forked child, a thread of the parent's that had the lock.
        if flag != os.WNOHANG or os.getpid() != owner:
            return poll(itself(), flag)
        with lock:
            return poll(itself(), flag)

    popen.poll = poll_alone


def join(process: BaseProcess, timeout: float = math.inf) -> bool:
    """Wait until it has ended. Its children may hold its sentinel open, so that only its exit code tells.

    Where somebody else has reaped it (a program that ignores SIGCHLD, or waits for any child) nobody knows that; who
    does it once is taken to do it again.
    """
    global _patience
    deadline = time.monotonic() + timeout
    given_up = math.inf
    while process.exitcode is None:
        now = time.monotonic()
        if now >= given_up:
            _patience = 0.0
            return True
        if now >= deadline:
            return False
        connection.wait([process.sentinel], min(deadline - now, _POLL_SECONDS))
        if _is_gone(process):
            given_up = min(given_up, now + _patience)
            time.sleep(0.001)  # its sentinel does not make us wait any more
    process.join(0)  # else multiprocessing would keep it, and its descriptors, until another process is started
    return True


def _is_gone(process: BaseProcess) -> bool:
    """Has it ended, and been reaped?"""
    try:
        os.kill(process.pid or 0, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it has become another user
        pass
    return False
