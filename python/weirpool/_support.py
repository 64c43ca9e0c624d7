"""What the extension leaves to Python: the parts of an error that are text."""

from __future__ import annotations

import concurrent.futures as cf
from concurrent.futures import _base, process
from traceback import format_exception

UNUSABLE = "A child process terminated abruptly, the process pool is not usable anymore"
BROKEN = "A process in the process pool was terminated abruptly while the future was running or pending."


def format_cause(error: BaseException) -> str:
    """The traceback of an error, as a text that outlives its frames."""
    return "".join(format_exception(error))


def broken(cause: str | None) -> process.BrokenProcessPool:
    """The exception of a task whose pool broke; one instance a future, as tracebacks grow on instances."""
    error = process.BrokenProcessPool(BROKEN)
    if cause is not None:
        error.__cause__ = process._RemoteTraceback(f"\n'''\n{cause}'''")
    return error


def with_remote_traceback(error: BaseException) -> BaseException:
    """An error of the parent's that took the place of a task's: its traceback becomes its cause, as from a worker."""
    error.__cause__ = process._RemoteTraceback(f'\n"""\n{format_cause(error)}"""')
    return error.with_traceback(None)


def portable(error: BaseException) -> process._ExceptionWithTraceback:
    """A task's exception in the form that carries its traceback to the parent."""
    return process._ExceptionWithTraceback(error, error.__traceback__)


def log_callback_error(future: cf.Future[object], error: BaseException) -> None:
    """A done-callback raised."""
    _base.LOGGER.error("exception calling callback for %r", future, exc_info=error)
