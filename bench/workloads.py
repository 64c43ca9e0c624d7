"""What is measured, and of whom. Each workload checks the results that it gets."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing.forkserver
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import contenders, tasks
from bench.contenders import CONTENDERS, Contender, Pool, Setting
from bench.memory import Watcher, growth
from bench.processes import cpu_seconds, family, footprint
from bench.rates import Budget, Rate, Stopwatch, rate

MIB = 1 << 20
WARM_CALLS = 16  # for each worker: enough that all of them are up


@dataclass(frozen=True)
class Job:
    """One measurement: of this workload, with this contender."""

    workload: str
    contender: str
    scale: float = 1.0
    items: int | None = None  # as an earlier round counted them
    seed: int = 1

    def open(self, workers: int, bound: int | None = None, method: str = "fork") -> Pool:
        return CONTENDERS[self.contender].open(Setting(workers, bound, method))

    def budget(self, seconds: float = 1.0) -> Budget:
        return Budget(seconds * self.scale, self.items)

    def count(self, full: int, least: int = 1) -> int:
        return max(least, int(full * self.scale))


@dataclass(frozen=True)
class Outcome:
    figures: dict[str, float]
    items: int | None = None
    series: list[list[float]] = field(default_factory=list)  # for the pictures


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    run: Callable[[Job], Outcome]
    needs: frozenset[str]
    limit: float = 60.0  # seconds after which a measurement is given up
    only: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    together: bool = False  # all contenders at the same time: what is measured is not touched by the others

    def takes(self, contender: Contender) -> bool:
        if contender.name in self.also:
            return True
        return self.needs <= contender.abilities and (not self.only or contender.name in self.only)


def check(condition: bool) -> None:
    if not condition:
        raise AssertionError("a wrong result")


def warm(pool: Pool, workers: int) -> None:
    """All workers are up, and have worked."""
    count = workers * WARM_CALLS
    handles = [pool.submit(tasks.echo, number) for number in range(count)]
    check([pool.result(handle) for handle in handles] == list(range(count)))


@contextmanager
def warm_pool(job: Job, workers: int, bound: int | None = None) -> Iterator[Pool]:
    with job.open(workers, bound) as pool:
        warm(pool, workers)
        yield pool


def tasks_per_second(found: Rate) -> Outcome:
    return Outcome({"tasks/s": found.per_second}, found.items)


# ---- No-ops --------------------------------------------------------------------------------------------------------


def submit_all(pool: Pool, count: int) -> float:
    """Submits all, then reads all."""
    submit, result = pool.submit, pool.result
    with Stopwatch() as watch:
        handles = [submit(tasks.echo, number) for number in range(count)]
        total = sum(map(result, handles))
    check(total == count * (count - 1) // 2)
    return watch.seconds


def run_noop(job: Job, workers: int, bound: int | None) -> Outcome:
    with warm_pool(job, workers, bound) as pool:
        once = functools.partial(submit_all, pool)
        return tasks_per_second(rate(once, job.budget(), most=job.count(100_000), least=job.count(200, 8)))


PRODUCERS = 128


def submit_from_threads(pool: Pool, count: int) -> float:
    """Each of many threads submits its share, then reads it."""
    share = count // PRODUCERS
    totals: list[int] = []

    def produce(first: int) -> None:
        submit, result = pool.submit, pool.result
        handles = [submit(tasks.echo, number) for number in range(first, first + share)]
        totals.append(sum(map(result, handles)))

    seconds = run_threads(produce, [share * thread for thread in range(PRODUCERS)])
    check(sum(totals) == count * (count - 1) // 2)
    return seconds


def run_threads(body: Callable[[int], None], arguments: list[int]) -> float:
    """Runs a thread for each argument, and returns the seconds from when all are up. What goes wrong is raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(arguments) + 1)

    def run(argument: int) -> None:
        try:
            ready.wait()
            body(argument)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[argument], daemon=True) for argument in arguments]
    for thread in threads:
        thread.start()
    ready.wait()
    with Stopwatch() as watch:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return watch.seconds


def run_producers(job: Job) -> Outcome:
    with warm_pool(job, 8, 16) as pool:
        once = functools.partial(submit_from_threads, pool)
        return tasks_per_second(rate(once, job.budget(), most=job.count(102_400), least=PRODUCERS, step=PRODUCERS))


def run_roundtrip(job: Job) -> Outcome:
    times: list[float] = []

    def once(count: int) -> float:
        submit, result, clock = pool.submit, pool.result, time.perf_counter
        before = len(times)
        for number in range(count):
            start = clock()
            answer = result(submit(tasks.echo, number))
            times.append(clock() - start)
            check(answer == number)
        return sum(times[before:])

    with warm_pool(job, 2) as pool:
        found = rate(once, job.budget(), most=job.count(20_000), least=job.count(200, 20))
    micros = [seconds * 1e6 for seconds in times]
    cuts = statistics.quantiles(micros, n=1000)
    series = [[percent / 10, cuts[percent - 1]] for percent in (*range(5, 995, 5), 995, 996, 997, 998, 999)]
    return Outcome({"p50 us": cuts[499], "p99 us": cuts[989]}, found.items, series)


# ---- Payloads ------------------------------------------------------------------------------------------------------

LARGE = 64 * MIB
AT_A_TIME = 4  # payloads that exist at once


def large_arguments(make: Callable[[int], Any], size: int, task: Callable[[Any], Any], pool: Pool, count: int) -> float:
    """Each payload is an object of its own: one pool keeps what it has seen, and would hand over the same once."""
    seconds = 0.0
    while count > 0:
        payloads = [make(size) for _ in range(min(count, AT_A_TIME))]
        expected = task(payloads[0])
        with Stopwatch() as watch:
            answers = [pool.result(pool.submit(task, payload)) for payload in payloads]
        check(all(answer == expected for answer in answers))
        seconds += watch.seconds
        count -= len(payloads)
    return seconds


def large_results(make: Callable[[int], Any], size: int, look: Callable[[Any], Any], pool: Pool, count: int) -> float:
    expected = look(make(size))
    seconds = 0.0
    for _ in range(count):
        with Stopwatch() as watch:
            answer = pool.result(pool.submit(make, size))
        check(look(answer) == expected)
        seconds += watch.seconds
    return seconds


def fresh_bytes(size: int) -> bytes:
    return bytes(bytearray(tasks.payload(size)))


def fresh_array(size: int) -> Any:
    return tasks.array(size).copy()


def run_large(job: Job, once: Callable[[Pool, int], float], size: int) -> Outcome:
    with warm_pool(job, 2) as pool:
        warm_up_arrays(pool)
        found = rate(functools.partial(once, pool), job.budget(), most=40)
    return Outcome({"GB/s": found.per_second * size / 1e9}, found.items)


def warm_up_arrays(pool: Pool) -> None:
    """Workers that are not forked import numpy when they meet an array."""
    if "numpy" in sys.modules:
        for handle in [pool.submit(tasks.array, 8) for _ in range(WARM_CALLS)]:
            check(len(pool.result(handle)) == 1)


def large_size(job: Job) -> int:
    return max(64 * 1024, int(LARGE * min(1.0, job.scale)) // 8 * 8)


def run_bytes_argument(job: Job) -> Outcome:
    size = large_size(job)
    return run_large(job, functools.partial(large_arguments, fresh_bytes, size, tasks.length), size)


def run_bytes_result(job: Job) -> Outcome:
    size = large_size(job)
    return run_large(job, functools.partial(large_results, tasks.payload, size, bytes), size)


def run_array_argument(job: Job) -> Outcome:
    import numpy  # noqa: F401 - before workers are forked: its import is not measured

    size = large_size(job)
    return run_large(job, functools.partial(large_arguments, fresh_array, size, tasks.ends), size)


def run_array_result(job: Job) -> Outcome:
    import numpy

    size = large_size(job)
    look: Callable[[Any], bytes] = numpy.ndarray.tobytes
    return run_large(job, functools.partial(large_results, tasks.array, size, look), size)


SIZES = [1, 64, 1024, 16 * 1024, 64 * 1024, 256 * 1024, MIB, 4 * MIB, 16 * MIB]
WINDOW_BYTES = 64 * MIB


def submit_in_windows(pool: Pool, data: bytes, count: int) -> float:
    """Never more than a window is outstanding: what an unbounded pool keeps is measured elsewhere."""
    window = max(1, min(1000, WINDOW_BYTES // len(data)))
    total = 0
    with Stopwatch() as watch:
        for first in range(0, count, window):
            handles = [pool.submit(tasks.length, data) for _ in range(min(window, count - first))]
            total += sum(map(pool.result, handles))
    check(total == count * len(data))
    return watch.seconds


def run_sizes(job: Job) -> Outcome:
    series = []
    with warm_pool(job, 2) as pool:
        for size in SIZES:
            once = functools.partial(submit_in_windows, pool, tasks.payload(size))
            found = rate(once, Budget(0.2 * job.scale), most=job.count(50_000, 2), least=2)
            series.append([size, found.per_second])
    return Outcome({f"{size} bytes, tasks/s": per_second for size, per_second in series}, None, series)


# ---- Maps, and waiting for futures ---------------------------------------------------------------------------------


def map_once(pool: Pool, chunksize: int, count: int) -> float:
    with Stopwatch() as watch:
        results = pool.map(tasks.echo, range(count), chunksize)
    check(results == list(range(count)))
    return watch.seconds


def run_map(job: Job, chunksize: int) -> Outcome:
    with warm_pool(job, 2) as pool:
        once = functools.partial(map_once, pool, chunksize)
        return tasks_per_second(rate(once, job.budget(), most=job.count(1_000_000), least=200, step=chunksize))


def as_completed_once(pool: Pool, count: int) -> float:
    with Stopwatch() as watch:
        futures = [pool.submit(tasks.echo, number) for number in range(count)]
        total = sum(future.result() for future in concurrent.futures.as_completed(futures))
    check(total == count * (count - 1) // 2)
    return watch.seconds


def wait_once(pool: Pool, count: int) -> float:
    with Stopwatch() as watch:
        futures = [pool.submit(tasks.echo, number) for number in range(count)]
        done, not_done = concurrent.futures.wait(futures)
    check(not not_done and sum(future.result() for future in done) == count * (count - 1) // 2)
    return watch.seconds


def run_futures(job: Job, once: Callable[[Pool, int], float]) -> Outcome:
    with warm_pool(job, 2) as pool:
        found = rate(functools.partial(once, pool), job.budget(), most=job.count(20_000), least=job.count(200, 8))
        return tasks_per_second(found)


# ---- Mixed load ----------------------------------------------------------------------------------------------------

TASKS_OF_A_PRODUCER = 160
MIXED_BYTES = 100_000


def run_mixed(job: Job) -> Outcome:
    share = job.count(TASKS_OF_A_PRODUCER, 2)
    if job.contender == "bare loops":
        return run_bare_loops(job, share * PRODUCERS)
    bound = 16 if contenders.BOUND in CONTENDERS[job.contender].abilities else None
    with warm_pool(job, 8, bound) as pool:
        watcher = Watcher()
        seconds = feed_from_threads(pool, share)
        samples = watcher.stop()
    figures = {"s": seconds, "MB": growth(samples) / 1e6}
    series = [[at, (size - samples[0][1]) / 1e6] for at, size in samples]
    return Outcome(figures, share * PRODUCERS, series)


def feed_from_threads(pool: Pool, share: int) -> float:
    totals: list[int] = []

    def produce(first: int) -> None:
        handles = []
        for number in range(first, first + share):
            data = number.to_bytes(8, "little") * (MIXED_BYTES // 8)
            handles.append(pool.submit(tasks.doze, data))
            del data  # else one for each producer would be ours
        totals.append(sum(map(pool.result, handles)))

    seconds = run_threads(produce, [share * thread for thread in range(PRODUCERS)])
    count = share * PRODUCERS
    check(sum(totals) == count * (count - 1) // 2)
    return seconds


def run_bare_loops(job: Job, count: int) -> Outcome:
    with job.open(8) as pool, Stopwatch() as watch:
        for process in [pool.submit(tasks.doze_often, count // 8) for _ in range(8)]:
            pool.result(process)
    return Outcome({"s": watch.seconds}, count)


# ---- Occupancy -----------------------------------------------------------------------------------------------------


def run_occupancy(job: Job) -> Outcome:
    """A bounded pool and then an unbounded one of the same kind run the same tasks."""
    dice = random.Random(job.seed)
    durations = [dice.expovariate(1 / (0.05 * min(1.0, 10 * job.scale))) for _ in range(100)]
    reached: list[float] = []
    for bound in (16, None):
        with warm_pool(job, 8, bound) as pool:
            reached.append(statistics.mean(occupancy(pool, durations) for _ in range(2)))
    figures = {"occupancy": reached[0], "unbounded": reached[1], "of unbounded": reached[0] / reached[1]}
    return Outcome(figures, len(durations))


def occupancy(pool: Pool, durations: list[float]) -> float:
    with Stopwatch() as watch:
        handles = [pool.submit(tasks.nap, duration) for duration in durations]
        results = [pool.result(handle) for handle in handles]
    check(results == durations)
    return sum(durations) / (8 * watch.seconds)


# ---- Starting, and doing nothing -----------------------------------------------------------------------------------


def run_startup(job: Job, method: str) -> Outcome:
    if method == "forkserver":  # one for the whole program, and not a pool's
        multiprocessing.forkserver.ensure_running()
    first: list[float] = []
    shutdown: list[float] = []
    enough = time.monotonic() + 1.5 * job.scale
    while len(first) < 3 or (time.monotonic() < enough and len(first) < 20):
        with Stopwatch() as watch:
            pool = job.open(8, None, method)
            check(pool.result(pool.submit(tasks.echo, 1)) == 1)
        first.append(watch.seconds * 1e3)
        with Stopwatch() as watch:
            pool.close()
        shutdown.append(watch.seconds * 1e3)
    # The first one of a program imports, and starts a resource tracker.
    return Outcome(
        {"first ms": statistics.median(first[1:]), "shutdown ms": statistics.median(shutdown[1:])}, len(first)
    )


def run_idle(job: Job) -> Outcome:
    seconds = max(0.2, 10 * job.scale)
    with warm_pool(job, 8) as pool:
        time.sleep(min(1.0, seconds))  # what follows the last result
        mine = family(os.getpid())
        before = cpu_seconds(mine)
        cost_of_asking = cpu_seconds(mine) - before
        time.sleep(seconds)
        used = cpu_seconds(mine) - before - 2 * cost_of_asking
        check(pool.result(pool.submit(tasks.echo, 1)) == 1)
    return Outcome({"% of a core": 100 * used / seconds})


# ---- Many outstanding tasks ----------------------------------------------------------------------------------------


@contextmanager
def closed_gate() -> Iterator[tuple[str, Callable[[], int]]]:
    """A gate at which tasks wait, and what opens it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "gate")
        os.mkfifo(path)
        opened: list[int] = []

        def open_gate() -> int:
            opened.append(os.open(path, os.O_RDWR))  # waits for nobody
            return opened[0]

        yield path, open_gate
        for descriptor in opened:
            os.close(descriptor)


def submit_behind_gate(pool: Pool, workers: int, count: int) -> float:
    """Seconds for each of so many tasks, all of which are outstanding at the same time."""
    with closed_gate() as (gate, open_gate):
        blockers = [pool.submit(tasks.wait_at, gate) for _ in range(workers)]
        with Stopwatch() as submitting:
            handles = [pool.submit(tasks.echo, number) for number in range(count)]
        open_gate()
        with Stopwatch() as reading:
            total = sum(map(pool.result, handles))
        check(total == count * (count - 1) // 2 and sum(map(pool.result, blockers)) == 0)
    return (submitting.seconds + reading.seconds) / count


FLAT_COUNTS = [1_000, 10_000, 100_000, 1_000_000]
FLAT_SECONDS = 2.0  # for one count; small ones are repeated
FLAT_LIMIT = 15.0  # a count that would take a pool longer than this is left out


def run_flat(job: Job) -> Outcome:
    series: list[list[float]] = []
    with warm_pool(job, 2) as pool:
        submit_behind_gate(pool, 2, job.count(1_000, 20))
        for full in FLAT_COUNTS:
            count = job.count(full, 20)
            if series and series[-1][1] * count / 1e6 > FLAT_LIMIT:
                break
            series.append([count, micros_of_a_task(pool, count)])
    spread = max(micros for _, micros in series) / min(micros for _, micros in series)
    figures = {f"{count:,.0f}, us": micros for count, micros in series}
    return Outcome({"slowest / fastest": spread, "largest": series[-1][0], **figures}, None, series)


def micros_of_a_task(pool: Pool, count: int) -> float:
    micros: list[float] = []
    enough = time.monotonic() + FLAT_SECONDS
    while not micros or (len(micros) < 50 and time.monotonic() < enough):
        micros.append(submit_behind_gate(pool, 2, count) * 1e6)
    return statistics.median(micros)


MEMORY_SECONDS = 4.0  # for submitting; a slow pool gets fewer tasks
MEMORY_CHECKED = 5_000


def run_memory(job: Job) -> Outcome:
    """Leaves the pool as it is, and the end to the end of the process: a slow one would work for a minute."""
    pool = job.open(2)
    warm(pool, 2)
    with closed_gate() as (gate, open_gate):
        mine = family(os.getpid())
        blockers = [pool.submit(tasks.wait_at, gate) for _ in range(2)]
        before = footprint(mine)
        handles = submit_for(pool, job.count(1_000_000, 1000), MEMORY_SECONDS)
        grown = footprint(mine) - before
        open_gate()
        some = [pool.result(handle) for handle in handles[:MEMORY_CHECKED]]
        check(some == list(range(len(some))) and sum(map(pool.result, blockers)) == 0)
    return Outcome({"bytes/task": grown / len(handles), "tasks": len(handles)})


def submit_for(pool: Pool, count: int, seconds: float) -> list[Any]:
    """As many as go into this time. The list is part of what is measured: nobody submits without keeping futures."""
    enough = time.monotonic() + seconds
    handles: list[Any] = []
    for number in range(count):
        handles.append(pool.submit(tasks.echo, number))
        if number % 1024 == 0 and time.monotonic() > enough:
            break
    return handles


# ---- All of them ---------------------------------------------------------------------------------------------------


def needs(*abilities: str) -> frozenset[str]:
    return frozenset(abilities)


def startup(method: str) -> Workload:
    # loky starts its workers in its own way, which is nearest to spawn.
    also = ("loky",) if method == "spawn" else ()
    title = f"pool of 8: first result, shutdown ({method})"
    run = functools.partial(run_startup, method=method)
    return Workload(f"startup-{method}", title, run, needs(contenders.METHODS), also=also)


SUBMIT, BOUND, UNBOUNDED, CALL = contenders.SUBMIT, contenders.BOUND, contenders.UNBOUNDED, contenders.CALL
_ALL = (
    Workload(
        "noop",
        "no-op: submit all, then read all; 2 workers",
        functools.partial(run_noop, workers=2, bound=None),
        needs(UNBOUNDED),
    ),
    Workload("bound4", "the same at bound 4", functools.partial(run_noop, workers=2, bound=4), needs(BOUND)),
    Workload("bound16", "at bound 16, 8 workers", functools.partial(run_noop, workers=8, bound=16), needs(BOUND)),
    Workload("producers", "128 producer threads, 8 workers, bound 16", run_producers, needs(BOUND)),
    Workload("roundtrip", "submit().result(), 2 workers", run_roundtrip, needs(CALL)),
    Workload("bytes-argument", "bytes of 64 MiB as argument", run_bytes_argument, needs(CALL)),
    Workload("bytes-result", "bytes of 64 MiB as result", run_bytes_result, needs(CALL)),
    Workload("array-argument", "numpy array of 64 MiB as argument", run_array_argument, needs(CALL)),
    Workload("array-result", "numpy array of 64 MiB as result", run_array_result, needs(CALL)),
    Workload("sizes", "arguments of 1 B to 16 MiB", run_sizes, needs(SUBMIT, UNBOUNDED)),
    Workload("map", "list(map(f, range(n)))", functools.partial(run_map, chunksize=1), needs(contenders.MAP)),
    Workload(
        "map200",
        "list(map(f, range(n), chunksize=200))",
        functools.partial(run_map, chunksize=200),
        needs(contenders.MAP, contenders.CHUNKS),
    ),
    Workload(
        "as-completed",
        "submit 20,000, as_completed() over them",
        functools.partial(run_futures, once=as_completed_once),
        needs(contenders.FUTURES, UNBOUNDED),
    ),
    Workload(
        "wait",
        "submit 20,000, wait() for them",
        functools.partial(run_futures, once=wait_once),
        needs(contenders.FUTURES, UNBOUNDED),
    ),
    Workload(
        "mixed",
        "128 producers x 160 tasks of 2 ms and 100 kB, 8 workers, bound 16",
        run_mixed,
        needs(BOUND),
        limit=90.0,
        also=("standard", "bare loops"),
    ),
    Workload("occupancy", "100 tasks of varying length, 8 workers, bound 16", run_occupancy, needs(BOUND)),
    startup("fork"),
    startup("forkserver"),
    startup("spawn"),
    Workload("memory", "memory of an outstanding task", run_memory, needs(SUBMIT, UNBOUNDED), limit=120.0),
    Workload(
        "flat",
        "time for each of 1 thousand to 1 million outstanding tasks",
        run_flat,
        needs(SUBMIT, UNBOUNDED),
        limit=120.0,
        only=("weirpool", "standard"),
    ),
    Workload("idle", "CPU of an idle pool of 8", run_idle, needs(CALL), together=True),
)
WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ALL}
