"""weirpool against the standard library's pool, in turns, in one run.

    python bench/bench.py [--rounds 3] [--scale 1.0]

Prints a Markdown table of medians. Every result is checked.
"""

import argparse
import collections
import concurrent.futures
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import weirpool

WORKERS = 2
BOUND = 4
MIB = 1 << 20

Pool = concurrent.futures.Executor
Case = Callable[[Pool, int], dict[str, float]]


class SemaphorePool(concurrent.futures.ProcessPoolExecutor):
    """The usual recipe for a bound: a semaphore around the standard pool."""

    def __init__(self, bound: int, workers: int) -> None:
        super().__init__(workers)
        self.room = threading.Semaphore(bound)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.room.acquire()
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self.room.release())
        return future


# ---- Tasks ---------------------------------------------------------------------------------------


def echo(value: Any) -> Any:
    return value


def length(data: bytes) -> int:
    return len(data)


def fill(size: int) -> bytes:
    return b"x" * size


# ---- Cases: a warm pool and a count in, figures out ----------------------------------------------


def submit_then_read(pool: Pool, count: int) -> dict[str, float]:
    start = time.perf_counter()
    futures = [pool.submit(echo, number) for number in range(count)]
    total = sum(future.result() for future in futures)
    seconds = time.perf_counter() - start
    check(total == count * (count - 1) // 2)
    return {"tasks/s": count / seconds}


def submit_and_read(pool: Pool, count: int) -> dict[str, float]:
    """Reads the oldest of a few futures, so that the bound is what holds the producer back."""
    unread: collections.deque[concurrent.futures.Future[int]] = collections.deque()
    total = 0
    start = time.perf_counter()
    for number in range(count):
        unread.append(pool.submit(echo, number))
        if len(unread) > 2 * BOUND:
            total += unread.popleft().result()
    total += sum(future.result() for future in unread)
    seconds = time.perf_counter() - start
    check(total == count * (count - 1) // 2)
    return {"tasks/s": count / seconds}


def round_trip(pool: Pool, count: int) -> dict[str, float]:
    times = []
    for number in range(count):
        start = time.perf_counter()
        check(pool.submit(echo, number).result() == number)
        times.append(time.perf_counter() - start)
    cuts = statistics.quantiles(times, n=100)
    return {"p50 us": cuts[49] * 1e6, "p99 us": cuts[98] * 1e6}


def big_argument(pool: Pool, count: int) -> dict[str, float]:
    data = fill(16 * MIB)
    start = time.perf_counter()
    for _ in range(count):
        check(pool.submit(length, data).result() == len(data))
    return {"GB/s": count * len(data) / (time.perf_counter() - start) / 1e9}


def big_result(pool: Pool, count: int) -> dict[str, float]:
    size = 16 * MIB
    start = time.perf_counter()
    for _ in range(count):
        check(len(pool.submit(fill, size).result()) == size)
    return {"GB/s": count * size / (time.perf_counter() - start) / 1e9}


def map_all(pool: Pool, count: int) -> dict[str, float]:
    start = time.perf_counter()
    results = list(pool.map(echo, range(count)))
    seconds = time.perf_counter() - start
    check(results == list(range(count)))
    return {"tasks/s": count / seconds}


def check(condition: bool) -> None:
    if not condition:
        raise AssertionError("a wrong result")


# ---- Running -------------------------------------------------------------------------------------


def standard() -> Pool:
    return concurrent.futures.ProcessPoolExecutor(WORKERS)


def recipe() -> Pool:
    return SemaphorePool(BOUND, WORKERS)


def unbounded() -> Pool:
    return weirpool.ProcessPoolExecutor(WORKERS)


def bounded() -> Pool:
    return weirpool.BoundedProcessPoolExecutor(BOUND, WORKERS)


# what, case, (weirpool's pool, count), (the other pool, count)
CASES: list[tuple[str, Case, tuple[Callable[[], Pool], int], tuple[Callable[[], Pool], int]]] = [
    ("submit all, then read all", submit_then_read, (unbounded, 100_000), (standard, 10_000)),
    (f"at most {BOUND} outstanding (recipe: semaphore)", submit_and_read, (bounded, 100_000), (recipe, 10_000)),
    ("round trip", round_trip, (unbounded, 5_000), (standard, 2_000)),
    ("argument of 16 MiB", big_argument, (unbounded, 40), (standard, 10)),
    ("result of 16 MiB", big_result, (unbounded, 40), (standard, 10)),
    ("list(map(f, range(n)))", map_all, (unbounded, 100_000), (standard, 10_000)),
]


def run(case: Case, make: Callable[[], Pool], count: int) -> dict[str, float]:
    with make() as pool:
        for future in [pool.submit(echo, number) for number in range(50)]:
            future.result()  # the workers are up
        return case(pool, count)


def measure(rounds: int, scale: float) -> dict[tuple[str, str], tuple[float, float]]:
    """Medians of each figure, for weirpool and for the other pool, which take turns."""
    rows = {}
    for what, case, *sides in CASES:
        taken: list[list[dict[str, float]]] = [[], []]
        for _ in range(rounds):
            for (make, count), figures in zip(sides, taken, strict=True):
                figures.append(run(case, make, max(10, int(count * scale))))
        for unit in taken[0][0]:
            mine, other = (statistics.median(figures[unit] for figures in side) for side in taken)
            rows[what, unit] = (mine, other)
        print(f"measured: {what}", file=sys.stderr)
    return rows


def cores() -> str:
    models = [line for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {model}"


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: dict[tuple[str, str], tuple[float, float]]) -> str:
    lines = ["| what | unit | weirpool | standard | times better |", "|---|---|---:|---:|---:|"]
    for (what, unit), (mine, other) in rows.items():
        better = other / mine if unit.endswith("us") else mine / other
        lines.append(f"| {what} | {unit} | {number(mine)} | {number(other)} | {better:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are shown")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of tasks")
    options = parser.parse_args()
    rows = measure(options.rounds, options.scale)
    print(f"Python {platform.python_version()}, {cores()}, {WORKERS} workers, {options.rounds} rounds\n")
    print(table(rows))


if __name__ == "__main__":
    main()
