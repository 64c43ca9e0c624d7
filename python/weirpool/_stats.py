"""What an executor says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """One moment of an executor, from its ``stats()``. Counters start at the first ``submit()``.

    A task that cannot be pickled is not among those submitted and finished.
    """

    outstanding: int = 0
    """Tasks accepted and not finished: waiting and running. What ``max_queue_size`` bounds."""
    waiting: int = 0
    """Outstanding tasks that no worker has started."""
    running: int = 0
    """Outstanding tasks that a worker has started, or whose done-callbacks have not all run."""
    blocked_producers: int = 0
    """Threads that wait in ``submit()`` for room at this moment."""
    blocked_seconds: float = 0.0
    """How long threads waited in ``submit()``, summed over them; waits that have ended."""
    admitted_over_bound: int = 0
    """Tasks accepted past the bound because waiting would have been a deadlock: submitted by a done-callback, or
    while another task was pickled."""
    peak_outstanding: int = 0
    """The most tasks that were outstanding at once."""
    submitted: int = 0
    """Tasks accepted, ever."""
    finished: int = 0
    """Accepted tasks that have ended: returned, raised, or cancelled."""
    workers: int = 0
    """Worker processes at this moment."""
    segment_bytes: int = 0
    """Bytes that the memory shared with the workers really holds, or held when the executor ended."""
