"""The engines, each behind a factory, and what they run.

Not among tests/python: these need Dask, mpi4py, loky and an mpirun. `make test-distributed` installs them.
"""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that workers find `work`, also in processes of their own

WORKERS = 2


@pytest.fixture(scope="session")
def dask_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    folder = str(tmp_path_factory.mktemp("dask"))
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=folder
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(WORKERS, timeout=60)
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        yield client


@pytest.fixture(params=["threads", "processes", "loky", "dask"])
def engine(request: pytest.FixtureRequest) -> Iterator[concurrent.futures.Executor]:
    """An executor with two workers, unbounded; it is shut down at the end, whatever the test did."""
    inner = make_engine(request)
    yield inner
    inner.shutdown(wait=True)


def make_engine(request: pytest.FixtureRequest) -> Any:
    if request.param == "threads":
        return concurrent.futures.ThreadPoolExecutor(WORKERS)
    if request.param == "processes":
        return concurrent.futures.ProcessPoolExecutor(WORKERS)
    if request.param == "loky":
        import loky

        return loky.ProcessPoolExecutor(WORKERS)
    return request.getfixturevalue("dask_client").get_executor(pure=False)
