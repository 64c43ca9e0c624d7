"""What weirpool raises beside the exceptions of ``concurrent.futures``."""

from __future__ import annotations

import queue
import signal as signals


class WorkerDied(RuntimeError):  # noqa: N818 - it says what happened
    """A worker process ended although the pool had not told it to.

    Where that broke the pool it is the ``__cause__`` of the ``BrokenProcessPool`` that tasks of the pool end with.

    Where the pool broke otherwise, the cause is the text of a traceback (a result could not be unpickled, a worker
    could not be started) or None (nobody was left to run the task). What ``submit()`` itself raises has no cause.

    Attributes:
        pid: The process that it was.
        exitcode: As ``multiprocessing.Process.exitcode``: negative for a signal; 0 also where the initializer raised.
        signal: The name of the signal that killed it, such as "SIGKILL", or None.
        attempts: How often its task was started: 1, tasks are not retried yet.
    """

    def __init__(self, pid: int, exitcode: int, attempts: int = 1) -> None:
        super().__init__(pid, exitcode, attempts)
        self.pid = pid
        self.exitcode = exitcode
        self.signal = _signal_name(-exitcode) if exitcode < 0 else None
        self.attempts = attempts

    def __str__(self) -> str:
        if self.signal is not None:
            return f"worker process {self.pid} was killed by signal {-self.exitcode} ({self.signal})"
        return f"worker process {self.pid} exited with code {self.exitcode}"


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
