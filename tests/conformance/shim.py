"""Puts weirpool's classes in the place of the standard ones; each interpreter imports it at its start, children too.

A file in the environment's site-packages imports this one, because a patch in the parent alone would reach neither
the workers that are spawned nor the isolated interpreters that some tests start.
"""

import concurrent.futures as cf
import os
from typing import Any

FOLDER = "WEIRPOOL_CONFORMANCE"  # where the suite lies, if not beside the interpreter; nothing is replaced without it
BOUND = "WEIRPOOL_CONFORMANCE_BOUND"


def install() -> None:
    import concurrent.futures.process as cfp

    import weirpool._core

    cf.Future = cf._base.Future = weirpool._core.Future  # type: ignore[misc]
    pool: Any = _bounded(int(os.environ[BOUND])) if os.environ.get(BOUND) else _unbounded()
    cf.ProcessPoolExecutor = cfp.ProcessPoolExecutor = pool  # type: ignore[misc]
    if os.environ[FOLDER]:
        import test

        test.__path__.append(os.environ[FOLDER])


def _unbounded() -> Any:
    import weirpool

    return weirpool.ProcessPoolExecutor


def _bounded(bound: int) -> Any:
    import weirpool

    class ProcessPoolExecutor(weirpool.BoundedProcessPoolExecutor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(bound, *args, **kwargs)

    return ProcessPoolExecutor


if FOLDER in os.environ:
    install()
