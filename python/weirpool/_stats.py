"""What an executor says of itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weirpool._advice import Advice, advise_from

if TYPE_CHECKING:
    from weirpool import _core


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took, in seconds, over the life of the executor: the percentiles to about 3 %."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    count: int = 0
    """How often it was measured. With 0 the others mean nothing."""
    total: float = 0.0
    """The sum of all."""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker process."""

    pid: int
    rss: int
    """Bytes of memory that it has resident, what it shares with others among them. 0: it has just ended."""
    tasks: int
    """Tasks that it has finished."""
    busy_seconds: float
    """How long it has run tasks, the present one included."""


@dataclass(frozen=True, slots=True)
class Stats:
    """One moment of an executor, from its ``stats()``. Counters start at the first ``submit()``.

    A task that cannot be pickled is not among those submitted and finished. ``dataclasses.asdict()`` makes of it what
    ``json.dumps()`` takes.
    """

    engine: str = "native"
    """What executes the tasks: "native" is weirpool's own process pool, "stdlib" the standard library's in its place,
    "threads" its thread pool; else the class of the executor that ``bounded()`` was given."""
    bound: int | None = None
    """The most outstanding tasks, at this moment. None: there is no such bound."""
    submitted: int = 0
    """Tasks accepted, ever."""
    finished: int = 0
    """Accepted tasks that have ended: completed, failed, or cancelled."""
    completed: int = 0
    """Tasks that returned."""
    failed: int = 0
    """Tasks that raised, or were lost with their worker or pool."""
    cancelled: int = 0
    """Tasks that were cancelled after they had been accepted."""
    retried: int = 0
    """How often a task was run again."""
    stopped: int = 0
    """How often a task was ended by force: it ran over its time limit, or by ``cancel(force=True)``."""
    rejected: int = 0
    """Submissions that were refused because there was no room."""
    workers_died: int = 0
    """Worker processes that ended although nobody had told them to."""
    outstanding: int = 0
    """Tasks accepted and not finished: waiting and running. What ``max_queue_size`` bounds."""
    waiting: int = 0
    """Outstanding tasks that no worker has started."""
    running: int = 0
    """Outstanding tasks that a worker has started, or whose done-callbacks have not all run."""
    peak_outstanding: int = 0
    """The most tasks that were outstanding at once. A task is, until its result was fetched: behind a backlog alone
    (``max_submit_backlog``) that may be more than the backlog and the workers, by those that have run meanwhile."""
    blocked_producers: int = 0
    """Threads that wait in ``submit()`` for room at this moment."""
    blocked_seconds: float = 0.0
    """How long threads waited in ``submit()``, summed over them; waits that have ended."""
    admitted_over_bound: int = 0
    """Tasks accepted past the bound because waiting would have been a deadlock: submitted by a done-callback, or
    while another task was pickled."""
    bytes_held: int = 0
    """Bytes of the arguments of outstanding tasks, pickled. More than ``max_bytes`` while a larger task runs alone."""
    segment_bytes: int = 0
    """Bytes that the memory shared with the workers really holds, or held when the executor ended."""
    wait: Percentiles = Percentiles()
    """From a task's acceptance, when ``submit()`` had room for it and its pickle, until a worker started it."""
    run: Percentiles = Percentiles()
    """How long workers were at a task, with its unpickling and the pickling of its result."""
    refill_lag: Percentiles = Percentiles()
    """From a worker's end of one task to its start of the next, where a task or a producer was waiting."""
    occupancy: float = 0.0
    """The share of the last ten seconds that worker processes spent running tasks, from 0 to 1."""
    tasks_per_second: float = 0.0
    """Tasks that workers finished in the last ten seconds, by the second."""
    advice: Advice | None = None
    """The bound that these measurements ask for. None: there are too few of them."""
    workers: tuple[WorkerStats, ...] = ()
    """The worker processes at this moment."""


def of_engine(engine: _core.Engine | None, most_workers: int, bound: int | None) -> Stats:
    """Return the numbers of a native engine; None: it was not started yet, and will begin with this bound."""
    if engine is None:
        return Stats(bound=bound)
    fields = engine.stats()
    for name in ("wait", "run", "refill_lag"):
        fields[name] = Percentiles(*fields[name])
    fields["bound"] = fields["bound"] or None
    workers = tuple(WorkerStats(pid, resident(pid), tasks, busy) for pid, tasks, busy in engine.workers())
    advice = advise_from(
        run=fields["run"],
        refill_lag=fields["refill_lag"],
        workers=most_workers,
        bound=fields["bound"],
        occupancy=fields["occupancy"],
        blocked=fields["blocked_seconds"] > 0 or fields["blocked_producers"] > 0,
    )
    return Stats(**fields, workers=workers, advice=advice)


def of_gate(engine: str, fields: dict[str, Any]) -> Stats:
    """Return the numbers of an executor that is a gate before another engine."""
    return Stats(engine=engine, **{**fields, "bound": fields["bound"] or None})


def resident(pid: int) -> int:
    """Return the bytes that a process has resident; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
