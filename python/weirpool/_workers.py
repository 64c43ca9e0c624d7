"""What can be known of an executor that may be anybody's."""

from __future__ import annotations

import concurrent.futures as cf
import inspect
from typing import Any

from weirpool._executor import Executor


def check_executor(who: str, executor: object) -> None:
    """Raise TypeError unless it looks like an executor. ``who`` wants one."""
    if isinstance(executor, type):
        raise TypeError(f"{who} takes an executor, not a class: make one, {executor.__name__}(...)")
    if isinstance(executor, cf.Executor):
        return
    if hasattr(executor, "get_executor"):  # Dask's client, whose submit() returns something else
        raise TypeError(f"{who} takes an executor, not a {type(executor).__name__}: pass its get_executor(pure=False)")
    if not (callable(getattr(executor, "submit", None)) and callable(getattr(executor, "shutdown", None))):
        raise TypeError(f"{who} takes an executor, which has submit() and shutdown(), not {executor!r}")


def count_workers(executor: Any) -> int | None:
    """As the executor itself says, or the attributes that executors are known by; None: it does not tell."""
    if isinstance(executor, Executor):
        return executor._worker_count()
    for name in ("_max_workers", "max_workers", "num_workers"):
        count = getattr(executor, name, None)
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return count
    return _count_threads_of_dask(getattr(getattr(executor, "_client", None), "nthreads", None))


def _count_threads_of_dask(nthreads: Any) -> int | None:
    threads = nthreads() if callable(nthreads) else None
    if inspect.iscoroutine(threads):  # on the thread of the client's loop, where it cannot be waited for
        threads.close()
        return None
    return (sum(threads.values()) or None) if isinstance(threads, dict) else None
