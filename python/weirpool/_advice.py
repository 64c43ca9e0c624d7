"""Choosing a bound from what tasks are like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from weirpool import _policy

_SHORT = 0.005  # seconds: below this, what a submission costs shows
_CHUNK = 0.05  # seconds that a chunk of short tasks should take
_VARIED = 2.0  # p95 over p50 from which on durations vary
_ENOUGH = 20  # tasks to judge by
_BUSY = 0.9
_LEAST = 1e-7  # seconds: no task is shorter


@dataclass(frozen=True, slots=True)
class Advice:
    """What ``advise()`` says."""

    bound: int
    """For ``max_queue_size``. It counts submissions: with ``map(chunksize=...)`` those are chunks."""
    chunksize: int
    """For ``map()``. 1: the tasks are long enough to travel alone."""
    reason: str
    """Why, in a sentence."""


def advise(*, run_p50: float, run_p95: float, workers: int, refill_lag: float | None = None) -> Advice:
    """Advise on a bound.

    A bound has to keep workers supplied while a free place is filled again, and more than that only makes tasks wait
    and memory grow. Two tasks a worker do for most; three where durations vary; about ``workers * (1 + refill_lag /
    run_p50)`` where filling a place takes long; four is the top. Very short tasks should travel in chunks of 50 ms
    first, and then may have six to eight places a worker.

    Args:
        run_p50: How long a task runs, in seconds: the median.
        run_p95: The same, for the 95th percentile.
        workers: How many there are.
        refill_lag: Seconds from a worker's end of one task to its start of the next, where there was one. None: small.

    Raises:
        ValueError: A time is not a positive finite number (refill_lag may be 0), run_p95 is less than run_p50, or
            workers is less than 1.
        TypeError: workers is no int, or a time no number.
    """
    _check_seconds("run_p50", run_p50)
    _check_seconds("run_p95", run_p95)
    if run_p95 < run_p50:
        raise ValueError("run_p95 must not be less than run_p50")
    workers = _policy.check_int("workers", workers)
    if workers < 1:
        raise ValueError("workers must be at least 1")
    lag = 0.0 if refill_lag is None else refill_lag
    if lag != 0:
        _check_seconds("refill_lag", lag)
    if run_p50 < _SHORT:
        return _advise_short(run_p50, run_p95, workers, lag)
    return _advise_usual(run_p50, run_p95, workers, lag)


def _check_seconds(name: str, seconds: object) -> None:
    if isinstance(seconds, bool) or not hasattr(type(seconds), "__float__"):
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
    if not 0 < float(seconds) < math.inf:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a positive, finite number of seconds")


def _varies(run_p50: float, run_p95: float) -> bool:
    return run_p95 >= _VARIED * run_p50


def _advise_short(run_p50: float, run_p95: float, workers: int, lag: float) -> Advice:
    chunksize = math.ceil(_CHUNK / run_p50)
    wide = _varies(run_p50, run_p95) or 1 + lag / run_p50 > 6
    times = 8 if wide else 6
    return Advice(
        times * workers,
        chunksize,
        f"tasks of {run_p50 * 1e3:.3g} ms are very short: send {chunksize} at a time with map(chunksize=...), "
        f"then {times} places a worker",
    )


def _advise_usual(run_p50: float, run_p95: float, workers: int, lag: float) -> Advice:
    need = math.ceil(workers * (1 + lag / run_p50)) + 1
    times = 3 if _varies(run_p50, run_p95) else 2
    if need > times * workers:
        bound = min(need, 4 * workers)
        return Advice(
            bound,
            1,
            f"filling a free place takes {lag / run_p50:.1%} of a task's time: "
            f"{bound} of at most {4 * workers} places keep the workers supplied",
        )
    why = f"durations vary (p95 is {run_p95 / run_p50:.1f} x p50)" if times == 3 else "durations are even"
    return Advice(max(times * workers, workers + 1), 1, f"{why}: {times} places a worker")


class _Measured(Protocol):
    @property
    def p50(self) -> float: ...
    @property
    def p95(self) -> float: ...
    @property
    def count(self) -> int: ...


def advise_from(
    *, run: _Measured, refill_lag: _Measured, workers: int, bound: int | None, occupancy: float, blocked: bool
) -> Advice | None:
    """Return the advice that measurements give; None: there are too few."""
    if run.count < _ENOUGH:
        return None
    lag = refill_lag.p50 if refill_lag.count >= _ENOUGH else None
    run_p50 = max(run.p50, _LEAST)
    advice = advise(run_p50=run_p50, run_p95=max(run.p95, run_p50), workers=workers, refill_lag=lag)
    if bound is None or not blocked or occupancy >= _BUSY or bound < advice.bound:
        return advice
    return _ask_for_more(advice, workers, bound, occupancy)


def _ask_for_more(advice: Advice, workers: int, bound: int, occupancy: float) -> Advice:
    """The bound is as advised already, and yet workers were idle while producers were blocked."""
    idle = f"workers were busy {occupancy:.0%} of the time while producers were blocked"
    top = (4 if advice.chunksize == 1 else 8) * workers
    if bound >= top:
        return Advice(advice.bound, advice.chunksize, f"{advice.reason}; {idle}, which a larger bound will not mend")
    more = min(max(bound + bound // 2, bound + 1), top)
    return Advice(more, advice.chunksize, f"{idle}: more than {bound} places are needed")
