"""What the extension leaves to Python: the parts of an error that are text."""

from __future__ import annotations

import concurrent.futures as cf
import io
import pickle
import sys
import threading
import warnings
from concurrent.futures import _base, process
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from weirpool._errors import BlockingSubmitWarning, RejectedSubmission, SubmitTimeout, TaskTimeout, WorkerDied

if TYPE_CHECKING:
    from weirpool._crew import Crew

EXITING = "cannot schedule new futures after interpreter shutdown"
BROKEN = "A process in the process pool was terminated abruptly while the future was running or pending."

# CPython's texts, of 3.14 and newer: programs and tests look for parts of them.
COLLECTED = (
    "The ProcessPoolExecutor was garbage collected with work pending after its last worker process exited upon "
    "reaching max_tasks_per_child; the pending work can never be run. Keep a reference to the executor until then."
)
FORCED = "The pool was forcefully shut down; work that was still enqueued will not be run."
NOT_STARTED = (
    "A replacement worker process could not be started, leaving the pool without workers to run the remaining work."
)

# Ours.
NOT_SET_UP = "A process initializer failed, the process pool is not usable anymore"  # as that of a thread pool says
COLLECTED_LATER = (
    "The ProcessPoolExecutor was garbage collected with work pending after its last worker process had ended; the "
    "pending work can never be run. Keep a reference to the executor until then."
)
UNKNOWN_WORKER = (
    "The start of a worker process was interrupted by a signal handler, and that process works on: nobody knows which "
    "it is, so nobody would see it die."
)
CORRUPT = "A worker process wrote over the memory that it shares with the pool: nothing there can be relied on."


def format_cause(error: BaseException) -> str:
    """The traceback of an error, as a text that outlives its frames."""
    return "".join(format_exception(error))


def _remote(text: str) -> BaseException:
    """The standard library's own class: programs look for it."""
    return process._RemoteTraceback(text)  # type: ignore[arg-type]


def broken(
    cause: str | None, reason: str | None, fault: int, crew: Crew, pid: int, text: str | None
) -> process.BrokenProcessPool:
    """The exception of a task whose pool broke; one instance a future, as tracebacks grow on instances.

    Its cause is the given one (a text), what an initializer has raised, or the death of the worker with this pid (0: of
    the one that broke the pool).
    ``text`` is what it says where nothing more is known; None: the standard library's words.
    """
    failure = crew.why_not_set_up() if cause is None and reason is None else None
    if failure is not None:
        return not_set_up(failure)
    error = process.BrokenProcessPool(reason or _describe(fault) or text or BROKEN)
    if cause is not None:
        error.__cause__ = quote(cause)
    elif reason is None and _is_death(fault):
        error.__cause__ = _death(crew.find_dead(), pid)
    return error


def not_set_up(failure: BaseException) -> process.BrokenProcessPool:
    """The exception of a task whose pool broke because an initializer raised this."""
    error = process.BrokenProcessPool(NOT_SET_UP)
    error.__cause__ = failure
    return error


def undecodable(cause: str) -> process.BrokenProcessPool:
    """The exception of a task whose result cannot be unpickled, which breaks the pool."""
    error = process.BrokenProcessPool(BROKEN)
    error.__cause__ = quote(cause)
    return error


def quote(cause: str) -> BaseException:
    """The text of a traceback, as a cause."""
    return _remote(f"\n'''\n{cause}'''")


def _is_death(fault: int) -> bool:
    from weirpool import _core  # which imports this module

    return fault != _core.FAULT_CORRUPT


def _describe(fault: int) -> str | None:
    from weirpool import _core

    if fault == _core.FAULT_DEATHS_IN_A_ROW:
        return f"{_core.DEATHS_IN_A_ROW} workers died in a row without finishing a task: no more are started."
    return CORRUPT if fault == _core.FAULT_CORRUPT else None


def _death(dead: dict[int, int], pid: int) -> WorkerDied | None:
    if pid not in dead:
        pid = max(dead, key=lambda one: dead[one] != 0, default=0)
    return WorkerDied(pid, dead[pid]) if dead else None


def died(crew: Crew, pid: int, attempts: int) -> WorkerDied:
    """The exception of a task whose worker died, in a pool that goes on."""
    return WorkerDied(pid, crew.exit_code_of(pid), attempts)


def ran_over(seconds: float, attempts: int) -> TaskTimeout:
    """The exception of a task that was stopped because its time was over."""
    return TaskTimeout(seconds, attempts)


def with_remote_traceback(error: BaseException) -> BaseException:
    """An error of the parent's that took the place of a task's: its traceback becomes its cause, as from a worker."""
    error.__cause__ = _remote(f'\n"""\n{format_cause(error)}"""')
    return error.with_traceback(None)


def portable(error: BaseException) -> process._ExceptionWithTraceback:
    """A task's exception in the form that carries its traceback to the parent."""
    return process._ExceptionWithTraceback(error, error.__traceback__)  # type: ignore[arg-type]


def log_callback_error(future: cf.Future[Any], error: BaseException) -> None:
    """A done-callback raised."""
    _base.LOGGER.error("exception calling callback for %r", future, exc_info=error)


def refusal(seconds: float | None, timeout_name: str = "submit_backlog_timeout") -> RejectedSubmission:
    """What submit() raises where there is no room, and the executor waits no longer than so (None: not at all)."""
    if seconds is None:
        return RejectedSubmission("the pool is full, and it was made with block_on_submit=False: submit again later")
    return SubmitTimeout(
        f"the pool has been full for the {seconds:g} s of {timeout_name}: submit again later"
        if seconds
        else f"the pool is full, and its {timeout_name} is 0: submit again later"
    )


def warn_of_blocking(stacklevel: int = 3) -> bool:
    """A call of submit() has to wait. Says so if an event loop runs in its thread; returns whether it did."""
    events = sys.modules.get("asyncio.events")
    if events is None or events._get_running_loop() is None:
        return False
    warnings.warn(
        "submit() waits for room in a thread that runs an event loop, which stands still meanwhile: "
        "use `await executor.asubmit(...)`",
        BlockingSubmitWarning,
        stacklevel=stacklevel,
    )
    return True


def make_condition(lock: Any) -> threading.Condition:
    """For who waits on the condition of a future."""
    return threading.Condition(lock)


def load_global(module: str, name: str) -> Any:
    """As unpickling a function does that was sent by its names."""
    return pickle.Unpickler(io.BytesIO(), fix_imports=False).find_class(module, name)
