"""bounded() over MPIPoolExecutor: run by `mpirun -n 3 python -m mpi4py.futures mpi_job.py`; prints what it saw."""

from __future__ import annotations

import itertools
import json

from mpi4py.futures import MPIPoolExecutor
from work import PATIENCE, Counted, fail, square, submit_from_callback, wait_until

import weirpool


def main() -> None:
    inner = MPIPoolExecutor()
    counted = Counted(inner)
    executor = weirpool.bounded(counted, 2, workers=inner.num_workers)
    said = {
        "workers": inner.num_workers,
        "map": list(itertools.islice(executor.map(square, itertools.count()), 20)),
        "error": str(executor.submit(fail, "on purpose").exception(PATIENCE)),
        "many": sum(future.result(PATIENCE) for future in [executor.submit(square, n) for n in range(100)]),
        "peak": counted.peak,
        "callback": submit_from_callback(executor, 10),
    }
    wait_until(lambda: executor.stats().outstanding == 0, "permits are back")
    executor.shutdown()
    try:
        executor.submit(square, 1)
    except RuntimeError:
        said["after shutdown"] = "RuntimeError"
    said["outstanding"] = executor.stats().outstanding
    print(json.dumps(said))


if __name__ == "__main__":
    main()
