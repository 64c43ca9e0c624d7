"""Executors' metrics, as a Prometheus server reads them."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import Pools, show

prometheus_client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

import weirpool  # noqa: E402
from weirpool import Stats, prometheus  # noqa: E402


def scrape(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """By the sample's name, its pool and its quantile."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, sample.labels["pool"], sample.labels.get("quantile", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_pool_shows_what_it_did(pools: Pools) -> None:
    registry = CollectorRegistry()
    pool = pools.bounded(8)
    prometheus.register(pool, "squares", registry)
    for future in [pool.submit(pow, number, 2) for number in range(20)]:
        future.result()
    samples = scrape(registry)
    assert samples["weirpool_tasks_submitted_total", "squares", ""] == 20
    assert samples["weirpool_tasks_completed_total", "squares", ""] == 20
    assert samples["weirpool_tasks_outstanding", "squares", ""] == 0
    assert samples["weirpool_bound_tasks", "squares", ""] == 8
    assert samples["weirpool_wait_seconds_count", "squares", ""] == 20
    assert samples["weirpool_wait_seconds", "squares", "0.95"] == pytest.approx(pool.stats().wait.p95)
    assert samples["weirpool_workers_resident_bytes", "squares", ""] > 0


def test_what_an_executor_does_not_know_is_left_out(pools: Pools) -> None:
    registry = CollectorRegistry()
    idle = pools.bounded(8)
    with weirpool.bounded(ThreadPoolExecutor(1), 3) as other:
        prometheus.register(other, "other", registry)
        other.submit(abs, -1).result()
        samples = scrape(registry)
        assert samples["weirpool_tasks_completed_total", "other", ""] == 1
        assert samples["weirpool_bound_tasks", "other", ""] == 3
        assert not [name for name, _, _ in samples if "seconds" in name and "blocked" not in name]
        assert not [name for name, _, _ in samples if "workers" in name and "died" not in name]
        assert ("weirpool_occupancy_ratio", "other", "") not in samples
        prometheus.register(idle, "idle", registry)
        samples = scrape(registry)
    assert samples["weirpool_bound_tasks", "idle", ""] == 8
    assert samples["weirpool_run_seconds_count", "idle", ""] == 0
    assert math.isnan(samples["weirpool_run_seconds", "idle", "0.5"])


@pytest.mark.parametrize("what", [5, ThreadPoolExecutor(1), weirpool.BoundedProcessPoolExecutor], ids=show)
def test_what_has_no_such_stats_is_refused_and_breaks_no_scrape(what: Any) -> None:
    registry = CollectorRegistry()
    with pytest.raises(TypeError, match=r"whose stats\(\) returns weirpool\.Stats"):
        prometheus.register(what, "wrong", registry)
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError, match=r"whose stats\(\) returns weirpool\.Stats"):
        prometheus.register(weirpool.Feeder(pool, abs), "feeder", registry)  # type: ignore[arg-type]
    assert scrape(registry) == {}


class Fixed:
    def __init__(self, submitted: int) -> None:
        self.submitted = submitted

    def stats(self) -> Stats:
        return Stats(engine="fixed", submitted=self.submitted)


def test_several_executors_share_a_metric() -> None:
    registry = CollectorRegistry()
    executors = {"a": Fixed(1), "b": Fixed(2)}
    for name, executor in executors.items():
        prometheus.register(executor, name, registry)
    assert generate_latest(registry).count(b"# TYPE weirpool_tasks_submitted_total counter") == 1
    samples = scrape(registry)
    assert [samples["weirpool_tasks_submitted_total", name, ""] for name in executors] == [1, 2]
    assert ("weirpool_bound_tasks", "a", "") not in samples


def test_a_collected_executor_is_gone() -> None:
    registry = CollectorRegistry()
    executor = Fixed(1)
    prometheus.register(executor, "a", registry)
    assert scrape(registry)
    del executor
    gc.collect()
    assert scrape(registry) == {}


def test_a_collector_of_its_own() -> None:
    registry = CollectorRegistry()
    executor = Fixed(7)
    registry.register(prometheus.PoolCollector(executor, "own"))
    assert scrape(registry)["weirpool_tasks_submitted_total", "own", ""] == 7


def test_without_the_client_the_extra_is_named() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import weirpool.prometheus"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        "ImportError: weirpool.prometheus needs prometheus_client: pip install 'weirpool[prometheus]'" in result.stderr
    )
