"""How many workers an executor has that may be anybody's."""

from __future__ import annotations

import inspect
from typing import Any

from weirpool._executor import Executor


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
