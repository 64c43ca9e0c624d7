"""What executors say of themselves."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
from support import Pools, wait_until

from weirpool import Advice, Percentiles, Stats, advise
from weirpool._advice import advise_from


def test_stats_of_an_executor_that_was_not_used(pools: Pools) -> None:
    assert pools.unbounded().stats() == Stats()
    assert pools.bounded(4).stats() == Stats(bound=4)
    assert pools.unbounded(adaptive_bound=True).stats() == Stats(bound=4)


def test_every_end_is_counted(pools: Pools) -> None:
    pool = pools.bounded(16, workers=2)
    assert pool.submit(pow, 2, 3).result() == 8
    assert isinstance(pool.submit(int, "x").exception(), ValueError)
    stats = pool.stats()
    assert (stats.submitted, stats.completed, stats.failed, stats.cancelled) == (2, 1, 1, 0)
    assert stats.finished == stats.completed + stats.failed + stats.cancelled
    assert stats.bound == 16


def test_durations_are_measured(pools: Pools) -> None:
    pool = pools.bounded(4, workers=2)
    for future in [pool.submit(time.sleep, 0.01) for _ in range(30)]:
        future.result()
    stats = pool.stats()
    assert stats.run.count == stats.wait.count == 30
    assert stats.run.total >= 0.3
    assert 0.0095 < stats.run.p50 <= stats.run.p95 <= stats.run.p99
    assert stats.refill_lag.count <= 28
    assert 0 < stats.occupancy <= 1
    assert stats.tasks_per_second > 0


def test_workers_are_told_one_by_one(pools: Pools) -> None:
    pool = pools.bounded(4, workers=2)
    pids = {future.result() for future in [pool.submit(os.getpid) for _ in range(50)]}
    stats = pool.stats()
    assert pids <= {worker.pid for worker in stats.workers}
    assert sum(worker.tasks for worker in stats.workers) == 50
    assert all(worker.rss > 0 for worker in stats.workers)
    assert sum(worker.busy_seconds for worker in stats.workers) == pytest.approx(stats.run.total)


def test_a_dead_worker_is_counted(pools: Pools) -> None:
    pool = pools.bounded(4, workers=1)
    with pytest.raises(BrokenProcessPool):
        pool.submit(os._exit, 3).result()
    assert pool.stats().workers_died == 1
    assert pool.stats().failed == 1


def test_numbers_stay_after_shutdown(pools: Pools) -> None:
    pool = pools.bounded(4, workers=1)
    pool.submit(pow, 2, 3).result()
    pool.shutdown()
    stats = pool.stats()
    assert (stats.completed, stats.run.count, stats.workers) == (1, 1, ())


def test_stats_can_be_written_as_json(pools: Pools) -> None:
    pool = pools.bounded(4, workers=1)
    for future in [pool.submit(pow, 2, 3) for _ in range(50)]:
        future.result()
    written = json.loads(json.dumps(dataclasses.asdict(pool.stats())))
    assert written["completed"] == 50
    assert written["workers"][0]["tasks"] == 50
    assert set(written["run"]) == {"p50", "p95", "p99", "count", "total"}
    assert written["advice"]["chunksize"] > 1


# ---- a bound that finds itself ---------------------------------------------------------------------


def test_an_adaptive_bound_begins_with_two_a_worker(pools: Pools) -> None:
    for pool in (pools.bounded(True, adaptive_bound=True), pools.unbounded(adaptive_bound=True)):
        pool.submit(pow, 2, 3).result()
        assert pool.stats().bound == 4


def test_an_adaptive_bound_stays_in_its_range(pools: Pools) -> None:
    pool = pools.bounded(None, adaptive_bound=True)
    bounds = set()
    for number in range(3000):
        pool.submit(pow, number, 2)
        bounds.add(pool.stats().bound)
    assert all(bound is not None and 3 <= bound <= 16 for bound in bounds)
    assert pool.stats().peak_outstanding <= 16


def test_an_adaptive_bound_moves(pools: Pools) -> None:
    pool = pools.bounded(None, adaptive_bound=True)

    def has_moved() -> bool:
        for _ in range(50):
            pool.submit(time.sleep, 0.02)  # long enough that less than two a worker will do
        return pool.stats().bound == 3

    wait_until(has_moved, "the bound has fallen to one more than there are workers")


def test_an_adaptive_bound_needs_no_other(pools: Pools) -> None:
    for bound in (1, 8):
        with pytest.raises(ValueError, match="choose one"):
            pools.bounded(bound, adaptive_bound=True)
    with pytest.raises(TypeError, match="adaptive_bound"):
        pools.unbounded(adaptive_bound=1)


# ---- advice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run_p50", "run_p95", "lag", "places"),
    [
        (1.0, 1.1, None, 2),
        (1.0, 1.1, 0.001, 2),
        (1.0, 2.0, None, 3),
        (0.1, 0.1, 0.3, 4),
        (0.1, 0.1, 30.0, 4),
        (0.001, 0.001, None, 6),
        (0.001, 0.01, None, 8),
        (0.001, 0.001, 0.02, 8),
    ],
)
def test_places_a_worker(run_p50: float, run_p95: float, lag: float | None, places: int) -> None:
    assert advise(run_p50=run_p50, run_p95=run_p95, workers=8, refill_lag=lag).bound == 8 * places


def test_the_need_follows_the_lag_over_the_task_time() -> None:
    assert advise(run_p50=0.1, run_p95=0.1, workers=10, refill_lag=0.15).bound == 26


def test_short_tasks_are_told_to_travel_together() -> None:
    assert advise(run_p50=0.001, run_p95=0.001, workers=2).chunksize == 50
    assert advise(run_p50=0.1, run_p95=0.1, workers=2).chunksize == 1
    assert "chunksize" in advise(run_p50=0.001, run_p95=0.001, workers=2).reason


@pytest.mark.parametrize("name", ["run_p50", "run_p95", "refill_lag"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_advice_refuses_what_is_no_duration(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        advise(**{"run_p50": 1.0, "run_p95": 1e9, "workers": 2, name: value})  # type: ignore[arg-type]


def test_advice_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="less than run_p50"):
        advise(run_p50=1.0, run_p95=0.5, workers=2)
    with pytest.raises(ValueError, match="workers"):
        advise(run_p50=1.0, run_p95=1.0, workers=0)
    for workers in (True, 1.5, "2"):
        with pytest.raises(TypeError):
            advise(run_p50=1.0, run_p95=1.0, workers=workers)  # type: ignore[arg-type]


def measured(bound: int | None, occupancy: float, *, blocked: bool = True, count: int = 100) -> Advice | None:
    run = Percentiles(0.1, 0.1, 0.1, count)
    return advise_from(run=run, refill_lag=Percentiles(), workers=8, bound=bound, occupancy=occupancy, blocked=blocked)


def test_idle_workers_behind_a_bound_ask_for_more() -> None:
    more = measured(16, 0.8)
    assert more is not None
    assert more.bound == 24
    assert "80%" in more.reason
    for enough in (measured(16, 0.95), measured(16, 0.8, blocked=False), measured(None, 0.5), measured(9, 0.8)):
        assert enough is not None
        assert enough.bound == 16


def test_at_the_top_no_more_is_asked_for() -> None:
    top = measured(32, 0.8)
    assert top is not None
    assert top.bound <= 32
    assert "will not mend" in top.reason


def test_no_advice_without_measurements() -> None:
    assert measured(16, 0.8, count=5) is None
