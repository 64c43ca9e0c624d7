"""What weirpool raises beside the exceptions of ``concurrent.futures``."""

from __future__ import annotations

import signal as signals


class WorkerDied(RuntimeError):  # noqa: N818 - it says what happened
    """A worker process ended although the pool had not told it to.

    It is the ``__cause__`` of the ``BrokenProcessPool`` that tasks of the pool end with.

    Attributes:
        pid: The process that it was.
        exitcode: As ``multiprocessing.Process.exitcode``: negative for a signal.
        signal: The name of the signal that killed it, such as "SIGKILL", or None.
        attempts: How often its task was started.
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
