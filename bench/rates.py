"""How many items a measurement has, and how often it is repeated, so that fast and slow pools take about as long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

PROBE_SECONDS = 0.05  # what shorter takes says nothing about a rate
MOST_REPEATS = 30

Once = Callable[[int], float]  # runs so many items, returns the seconds that it took


@dataclass(frozen=True)
class Budget:
    """`seconds` is what a measurement may take, `items` what an earlier round found to fit into it."""

    seconds: float
    items: int | None = None


@dataclass(frozen=True)
class Rate:
    per_second: float
    items: int  # of one repeat
    repeats: int


def rate(once: Once, budget: Budget, most: int, least: int = 1, step: int = 1) -> Rate:
    """Runs `once` with as many items as fit into the budget (a multiple of `step`), and again until it is used up."""
    items = budget.items or fitting(once, budget.seconds, most, least, step)
    spent = 0.0
    repeats = 0
    while repeats == 0 or (spent < budget.seconds and repeats < MOST_REPEATS):
        spent += once(items)
        repeats += 1
    return Rate(items * repeats / spent, items, repeats)


def fitting(once: Once, seconds: float, most: int, least: int, step: int) -> int:
    """Warms up at the same time."""
    items = rounded(least, step)
    most = max(rounded(most, step), items)
    while (spent := once(items)) < min(PROBE_SECONDS, seconds) and items < most:
        items = min(rounded(4 * items, step), most)
    return max(rounded(least, step), min(most, rounded(int(items * seconds / spent), step)))


def rounded(items: int, step: int) -> int:
    return max(step, items - items % step)


class Stopwatch:
    """`with Stopwatch() as watch: ...` and `watch.seconds`."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
