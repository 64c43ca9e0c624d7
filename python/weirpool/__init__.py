"""weirpool: process pools behind a weir. ``submit()`` waits when enough work is outstanding.

    from weirpool import BoundedProcessPoolExecutor

    with BoundedProcessPoolExecutor(16, max_workers=8) as executor:
        for item in more_items_than_fit_into_memory():
            executor.submit(work, item)

The classes drop in for those of ``concurrent.futures``.
"""

from weirpool._errors import WorkerDied
from weirpool._stats import Stats
from weirpool.process import BoundedProcessPoolExecutor, ProcessPoolExecutor

__all__ = ["BoundedProcessPoolExecutor", "ProcessPoolExecutor", "Stats", "WorkerDied"]

__version__ = "0.1.0"
