"""What weirpool is held to, a row of the table each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BEST = "best peer"
Medians = Callable[[str, str], dict[str, float]]  # of a workload's figure, by contender


@dataclass(frozen=True)
class Target:
    """With `against`, what is compared is weirpool's figure divided by that contender's; else the figure itself."""

    workload: str
    figure: str
    limit: float
    against: str | None = None
    at_least: bool = True
    what: str = ""  # in place of the workload's title
    text: str = ""  # in place of the limit

    def value(self, medians: Medians) -> float | None:
        found = medians(self.workload, self.figure)
        mine = found.pop("weirpool", None)
        if mine is None or self.against is None:
            return mine
        theirs = self.theirs(found)
        return None if theirs is None else mine / found[theirs]

    def theirs(self, medians: dict[str, float]) -> str | None:
        """Whom weirpool is compared with."""
        others = {name: value for name, value in medians.items() if name not in ("weirpool", "bare loops")}
        if self.against == BEST:
            choose = max if self.at_least else min
            return choose(others, key=others.__getitem__) if others else None
        return self.against if self.against in medians else None

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return self.text or f"{'>=' if self.at_least else '<='} {self.limit:g}{' x' if self.against else ''}"


def at_least(workload: str, figure: str, limit: float, against: str | None, what: str = "") -> Target:
    return Target(workload, figure, limit, against, what=what)


def at_most(
    workload: str, figure: str, limit: float, against: str | None = None, what: str = "", text: str = ""
) -> Target:
    return Target(workload, figure, limit, against, at_least=False, what=what, text=text)


def no_slower(method: str) -> list[Target]:
    return [
        at_most(f"startup-{method}", figure, 1.0, "standard", f"pool of 8, {method}: {figure.removesuffix(' ms')}")
        for figure in ("first ms", "shutdown ms")
    ]


TARGETS = [
    at_least("noop", "tasks/s", 40, "standard"),
    at_least("noop", "tasks/s", 20, BEST),
    at_least("bound4", "tasks/s", 15, "recipe", "no-op at bound 4, 2 workers"),
    at_least("bound16", "tasks/s", 15, "recipe", "no-op at bound 16, 8 workers"),
    at_least("producers", "tasks/s", 15, "recipe", "no-op from 128 threads, 8 workers, bound 16"),
    at_most("roundtrip", "p50 us", 1 / 15, "standard", text="<= 1/15"),
    at_most("roundtrip", "p99 us", 1 / 4, "standard", text="<= 1/4"),
    at_least("bytes-argument", "GB/s", 6, "standard"),
    at_least("bytes-result", "GB/s", 6, "standard"),
    at_least("array-argument", "GB/s", 8, "standard"),
    at_least("array-result", "GB/s", 8, "standard"),
    at_least("map", "tasks/s", 50, "standard"),
    at_least("map200", "tasks/s", 2, "standard"),
    at_least("as-completed", "tasks/s", 8, "standard"),
    at_least("wait", "tasks/s", 8, "standard"),
    at_most("mixed", "s", 1.05, "bare loops"),
    at_most("mixed", "MB", 30, what="the same: peak growth of memory"),
    at_least("occupancy", "of unbounded", 0.97, None, "occupancy at bound 16, of an unbounded pool's"),
    *no_slower("fork"),
    *no_slower("forkserver"),
    *no_slower("spawn"),
    at_most("memory", "bytes/task", 1 / 4, "standard", text="<= 1/4"),
    at_most("flat", "slowest / fastest", 1.2),
    at_most("idle", "% of a core", 0.2),
]
