"""Occupancy at fixed bounds and at the one that finds itself, while the length of tasks goes from 1 ms to 1 s and back.

    python -m bench.adaptive [--workers 4] [--seconds 5] [--rounds 1]

Tasks sleep, so that occupancy is not a matter of cores. One producer is always ready. A stretch is a time in which
tasks are equally long; its occupancy the share of that time in which workers ran tasks, also those that the stretch
before left in the queue.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import weirpool

STRETCHES = (0.001, 1.0, 0.001, 1.0)


def settled(pool: weirpool.BoundedProcessPoolExecutor) -> weirpool.Stats:
    """Return the pool's numbers when the results of tasks that ended just now have been taken."""
    time.sleep(0.01)
    return pool.stats()


def run_stretch(pool: weirpool.BoundedProcessPoolExecutor, task: float, seconds: float) -> tuple[float, int]:
    """Submit tasks of one length for so many seconds; return the workers' occupancy and the largest bound seen."""
    before = settled(pool)
    workers = len(before.workers)
    began = time.monotonic()
    largest = 0
    while time.monotonic() < began + seconds:
        pool.submit(time.sleep, task)
        largest = max(largest, pool.stats().bound or 0) if task > 0.01 else largest
    stats = settled(pool)
    largest = max(largest, stats.bound or 0)
    busy = sum(worker.busy_seconds for worker in stats.workers) - sum(worker.busy_seconds for worker in before.workers)
    return busy / workers / (time.monotonic() - began), largest


def run(bound: int | None, workers: int, seconds: float) -> list[tuple[float, int]]:
    """Go through all stretches with one pool. None: its bound is adaptive."""
    with weirpool.BoundedProcessPoolExecutor(bound, workers, adaptive_bound=bound is None) as pool:
        for future in [pool.submit(time.sleep, 0.01) for _ in range(4 * workers)]:
            future.result()
        return [run_stretch(pool, task, max(seconds, 5 * task)) for task in STRETCHES]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each bound: the occupancy of each stretch, in per cent (and the largest bound in it)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    workers: int = options.workers
    bounds = (workers + 1, 2 * workers, 3 * workers, 4 * workers, 8 * workers, None)
    runs = [[run(bound, workers, options.seconds) for bound in bounds] for _ in range(options.rounds)]
    print("bound     " + "".join(f"{task:>12g} s" for task in STRETCHES))
    for index, bound in enumerate(bounds):
        cells = []
        for stretch in range(len(STRETCHES)):
            measured = [each[index][stretch] for each in runs]
            occupancy = statistics.median(share for share, _ in measured)
            cells.append(f"{occupancy:>8.1%} ({max(most for _, most in measured):>2})")
        print(f"{bound or 'adaptive':<10}" + "  ".join(cells))


if __name__ == "__main__":
    main()
