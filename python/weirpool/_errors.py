"""What weirpool raises beside the exceptions of ``concurrent.futures``."""

from __future__ import annotations

import queue
import signal as signals
from typing import Any


class WorkerDied(RuntimeError):  # noqa: N818 - it says what happened
    """A worker process ended although the pool had not told it to.

    With ``on_worker_death="replace"`` it is the exception of the task that this worker ran, if it had no retries left.

    Where a death broke the pool it is the ``__cause__`` of the ``BrokenProcessPool`` that tasks of the pool end with,
    and that ``submit()`` raises. Where the pool broke otherwise, the cause is the text of a traceback (a result could
    not be unpickled, a worker could not be started) or None (nobody was left to run the task).

    Attributes:
        pid: The process that it was.
        exitcode: As ``multiprocessing.Process.exitcode``: negative for a signal.
        signal: The name of the signal that killed it, such as "SIGKILL", or None.
        attempts: How often workers have started the task, counting retries.
    """

    def __init__(self, pid: int, exitcode: int, attempts: int = 1) -> None:
        super().__init__(pid, exitcode, attempts)
        self.pid = pid
        self.exitcode = exitcode
        self.signal = _signal_name(-exitcode) if exitcode < 0 else None
        self.attempts = attempts

    def __str__(self) -> str:
        at = _at_attempt(self.attempts)
        if self.signal is not None:
            return f"worker process {self.pid} was killed by signal {-self.exitcode} ({self.signal}){at}"
        return f"worker process {self.pid} exited with code {self.exitcode}{at}"


class TaskTimeout(TimeoutError):  # noqa: N818 - it says what happened
    """A task ran longer than ``with_options(timeout=)`` allows; its worker was killed, and another took the place.

    Not to be confused with the TimeoutError of ``result(timeout=)``, after which the task goes on.

    Attributes:
        seconds: How long each attempt was allowed to run.
        attempts: How often workers have started the task, counting retries.
    """

    def __init__(self, seconds: float, attempts: int = 1) -> None:
        super().__init__(f"the task ran longer than the {seconds:g} s that it was given{_at_attempt(attempts)}")
        self.seconds = seconds
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds, self.attempts)


def _at_attempt(number: int) -> str:
    return "" if number == 1 else f", at attempt {number}"


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class RejectedSubmission(queue.Full):
    """There was no room for one more task, and the submitter did not want to wait.

    Nothing was submitted. Later may do, unlike after a ``RuntimeError``, which means: never again.
    """


class SubmitTimeout(RejectedSubmission, TimeoutError):  # noqa: N818 - it says what happened
    """There was no room for one more task within the time that its submitter was willing to wait.

    Nothing was submitted. Later may do.
    """


class BlockingSubmitWarning(RuntimeWarning):
    """``submit()`` had to wait for room in a thread that runs an event loop: nothing else ran there meanwhile.

    Said once for each executor; the call was submitted all the same. ``await executor.asubmit()`` waits without that.
    """
