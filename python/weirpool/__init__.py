"""weirpool: process pools behind a weir. ``submit()`` waits when enough work is outstanding.

    from weirpool import BoundedProcessPoolExecutor

    with BoundedProcessPoolExecutor(16, max_workers=8) as executor:
        for item in more_items_than_fit_into_memory():
            executor.submit(work, item)

The classes drop in for those of ``concurrent.futures``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weirpool._advice import Advice, advise
    from weirpool._as_completed import as_completed
    from weirpool._bounded import bounded
    from weirpool._errors import BlockingSubmitWarning, RejectedSubmission, SubmitTimeout, TaskTimeout, WorkerDied
    from weirpool._feeder import Feeder
    from weirpool._items import Failure, FeederStats
    from weirpool._policy import AUTO_BACKLOG
    from weirpool._results import Results
    from weirpool._stats import Percentiles, Stats, WorkerStats
    from weirpool.process import BoundedProcessPoolExecutor, Future, ProcessPoolExecutor
    from weirpool.thread import BoundedThreadPoolExecutor, ThreadPoolExecutor

__all__ = [
    "AUTO_BACKLOG",
    "Advice",
    "BlockingSubmitWarning",
    "BoundedProcessPoolExecutor",
    "BoundedThreadPoolExecutor",
    "Failure",
    "Feeder",
    "FeederStats",
    "Future",
    "Percentiles",
    "ProcessPoolExecutor",
    "RejectedSubmission",
    "Results",
    "Stats",
    "SubmitTimeout",
    "TaskTimeout",
    "ThreadPoolExecutor",
    "WorkerDied",
    "WorkerStats",
    "advise",
    "as_completed",
    "bounded",
]

__version__ = "0.1.0"

# Imported when they are asked for: each worker that is not forked imports this package, and needs none of them.
_HOMES = {
    "AUTO_BACKLOG": "weirpool._policy",
    "Advice": "weirpool._advice",
    "BlockingSubmitWarning": "weirpool._errors",
    "BoundedProcessPoolExecutor": "weirpool.process",
    "BoundedThreadPoolExecutor": "weirpool.thread",
    "Failure": "weirpool._items",
    "Feeder": "weirpool._feeder",
    "FeederStats": "weirpool._items",
    "Future": "weirpool.process",
    "Percentiles": "weirpool._stats",
    "ProcessPoolExecutor": "weirpool.process",
    "RejectedSubmission": "weirpool._errors",
    "Results": "weirpool._results",
    "Stats": "weirpool._stats",
    "SubmitTimeout": "weirpool._errors",
    "TaskTimeout": "weirpool._errors",
    "ThreadPoolExecutor": "weirpool.thread",
    "WorkerDied": "weirpool._errors",
    "WorkerStats": "weirpool._stats",
    "advise": "weirpool._advice",
    "bounded": "weirpool._bounded",
    "as_completed": "weirpool._as_completed",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
