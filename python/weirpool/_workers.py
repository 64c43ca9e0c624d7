"""How many workers an executor has that may be anybody's."""

from __future__ import annotations

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
    return _count_threads_of_dask(executor)


def _count_threads_of_dask(executor: Any) -> int | None:
    client: Any = getattr(executor, "_client", None)
    if not callable(getattr(client, "nthreads", None)):
        return None
    return sum(client.nthreads().values()) or None
