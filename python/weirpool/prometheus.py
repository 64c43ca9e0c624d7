"""Metrics of executors for Prometheus. Needs ``prometheus_client``: ``pip install weirpool[prometheus]``.

    from weirpool import prometheus

    prometheus.register(executor, name="hashing")

Each scrape asks ``executor.stats()``; between scrapes nothing is done. Works for every executor that has ``stats()``.
Of threads and of ``bounded()``, which know no times, workers or bytes, those metrics are left out.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol

from weirpool._stats import Percentiles, Stats

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("weirpool.prometheus needs prometheus_client: pip install 'weirpool[prometheus]'") from error

__all__ = ["PoolCollector", "register"]

_COUNTERS = {
    "tasks_submitted": ("submitted", "Tasks accepted."),
    "tasks_completed": ("completed", "Tasks that returned."),
    "tasks_failed": ("failed", "Tasks that raised or were lost."),
    "tasks_cancelled": ("cancelled", "Tasks that were cancelled."),
    "tasks_retried": ("retried", "Times that a task was run again."),
    "tasks_stopped": ("stopped", "Times that a task was ended by force: over its time limit, or cancelled so."),
    "submissions_rejected": ("rejected", "Submissions refused because there was no room."),
    "admitted_over_bound": ("admitted_over_bound", "Tasks accepted past the bound, where waiting would deadlock."),
    "workers_died": ("workers_died", "Worker processes that ended although nobody had told them to."),
    "blocked_seconds": ("blocked_seconds", "Time that producers waited for room, summed over them."),
}
_GAUGES = {
    "tasks_outstanding": ("outstanding", "Tasks accepted and not finished."),
    "tasks_waiting": ("waiting", "Outstanding tasks that no worker has started."),
    "tasks_running": ("running", "Outstanding tasks that a worker has started."),
    "producers_blocked": ("blocked_producers", "Threads that wait for room."),
}
_GAUGES_OF_ENGINE = {
    "held_bytes": ("bytes_held", "Bytes of the arguments of outstanding tasks."),
    "segment_bytes": ("segment_bytes", "Bytes that the memory shared with the workers holds."),
    "occupancy_ratio": ("occupancy", "Share of the last ten seconds that workers spent running tasks."),
}
_SUMMARIES_OF_ENGINE = {
    "wait_seconds": ("wait", "From a task's acceptance until a worker started it."),
    "run_seconds": ("run", "How long workers were at a task."),
    "refill_lag_seconds": ("refill_lag", "From a worker's end of one task to its next, while something waited."),
}


class _HasStats(Protocol):
    def stats(self) -> Stats: ...


class PoolCollector(Collector):
    """The metrics of one executor, ``weirpool_...`` with the label ``pool``.

    It keeps no executor alive: once that is collected, its metrics are gone. Thread-safe.
    """

    def __init__(self, executor: _HasStats, name: str = "default") -> None:
        """Make a collector; ``register()`` also makes it known.

        Args:
            executor: Whatever has a ``stats()`` that returns ``weirpool.Stats``.
            name: The value of the label ``pool``.

        Raises:
            TypeError: It has no such ``stats()``.
            RuntimeError: It belongs to the parent of this process.
        """
        stats = getattr(executor, "stats", None)
        if isinstance(executor, type) or not callable(stats) or not isinstance(stats(), Stats):
            raise TypeError(f"an executor is wanted whose stats() returns weirpool.Stats, not {executor!r}")
        self._executor = weakref.ref(executor)
        self._name = name

    @property
    def name(self) -> str:
        """The value of the label ``pool``."""
        return self._name

    def describe(self) -> Iterable[Metric]:
        """Return nothing: several executors share the names of the metrics."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment; none if the executor is gone, or belongs to the parent of this process."""
        executor = self._executor()
        if executor is None:
            return
        try:
            stats = executor.stats()
        except RuntimeError:  # in a forked child
            return
        yield from _families([(self._name, stats)])


class _Pools(Collector):
    """All executors of one registry: a metric has to appear once, with the samples of all of them."""

    def __init__(self) -> None:
        self._collectors: dict[str, PoolCollector] = {}

    def add(self, collector: PoolCollector) -> None:
        self._collectors[collector.name] = collector

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        found: list[tuple[str, Stats]] = []
        for name, collector in list(self._collectors.items()):
            executor = collector._executor()
            if executor is None:
                del self._collectors[name]
                continue
            try:
                found.append((name, executor.stats()))
            except RuntimeError:
                continue
        if found:
            yield from _families(found)


_pools: weakref.WeakKeyDictionary[CollectorRegistry, _Pools] = weakref.WeakKeyDictionary()


def register(executor: _HasStats, name: str = "default", registry: CollectorRegistry = REGISTRY) -> PoolCollector:
    """Show an executor's metrics in a registry, for as long as the executor lives; return its collector.

    Args:
        executor: Whatever has a ``stats()`` that returns ``weirpool.Stats``.
        name: The value of the label ``pool``. A second executor of the same name takes the first one's place.
        registry: Where; by default the one that prometheus_client exposes.

    Raises:
        TypeError, RuntimeError: As PoolCollector.
    """
    collector = PoolCollector(executor, name)
    pools = _pools.get(registry)
    if pools is None:
        pools = _pools[registry] = _Pools()
        registry.register(pools)
    pools.add(collector)
    return collector


def _families(found: list[tuple[str, Stats]]) -> Iterator[Metric]:
    for metric, (field, text) in _COUNTERS.items():
        counter = CounterMetricFamily(f"weirpool_{metric}", text, labels=["pool"])
        for name, stats in found:
            counter.add_metric([name], getattr(stats, field))
        yield counter
    yield from _gauges(_GAUGES, found)
    yield _bounds(found)
    engines = [(name, stats) for name, stats in found if stats.engine == "native"]
    if engines:
        yield from _families_of_engine(engines)


def _families_of_engine(found: list[tuple[str, Stats]]) -> Iterator[Metric]:
    yield from _gauges(_GAUGES_OF_ENGINE, found)
    for metric, (field, text) in _SUMMARIES_OF_ENGINE.items():
        yield _summary(f"weirpool_{metric}", text, [(name, getattr(stats, field)) for name, stats in found])
    yield from _workers(found)


def _gauges(gauges: dict[str, tuple[str, str]], found: list[tuple[str, Stats]]) -> Iterator[Metric]:
    for metric, (field, text) in gauges.items():
        gauge = GaugeMetricFamily(f"weirpool_{metric}", text, labels=["pool"])
        for name, stats in found:
            gauge.add_metric([name], getattr(stats, field))
        yield gauge


def _summary(metric: str, text: str, durations: list[tuple[str, Percentiles]]) -> Metric:
    summary = SummaryMetricFamily(metric, text, labels=["pool"])
    for name, measured in durations:
        summary.add_metric([name], measured.count, measured.total)
        for quantile, value in (("0.5", measured.p50), ("0.95", measured.p95), ("0.99", measured.p99)):
            known = value if measured.count else math.nan
            summary.add_sample(metric, {"pool": name, "quantile": quantile}, known)
    return summary


def _bounds(found: list[tuple[str, Stats]]) -> Metric:
    bound = GaugeMetricFamily("weirpool_bound_tasks", "The most outstanding tasks; none: unbounded.", labels=["pool"])
    for name, stats in found:
        if stats.bound is not None:
            bound.add_metric([name], stats.bound)
    return bound


def _workers(found: list[tuple[str, Stats]]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("weirpool_workers", "Worker processes.", labels=["pool"])
    rss = GaugeMetricFamily("weirpool_workers_resident_bytes", "Their resident memory.", labels=["pool"])
    for name, stats in found:
        workers.add_metric([name], len(stats.workers))
        rss.add_metric([name], sum(worker.rss for worker in stats.workers))
    yield from (workers, rss)
