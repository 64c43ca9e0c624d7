"""What a round is like: an executor and what is done to it, drawn from a seed."""

from __future__ import annotations

import importlib.util
import multiprocessing
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Literal

import work

import weirpool

Death = Literal["break", "replace"]
"""What ``on_worker_death`` may be."""

METHODS = ("fork", "forkserver", "spawn")
ENDINGS = ("drain", "shutdown", "cancel", "no wait", "callback", "kill", "terminate", "collect")
PRODUCERS = ("submits", "submits", "submits", "coroutines", "maps", "maps", "feeds", "completes", "forks")


@dataclass(frozen=True)
class Plan:
    """One round."""

    death: Death
    method: str
    workers: int
    bound: int | Literal[True] | None
    adaptive: bool
    backlog: int | Literal[True] | None
    max_bytes: int | None
    patience: float | None
    block: bool
    max_tasks: int | None
    pickler: str | None
    initializer: Literal["none", "good", "bad"]
    producers: tuple[str, ...]
    budget: int
    """How many tasks a producer submits."""
    seconds: float
    """How long the storm blows before the executor is ended."""
    ending: str
    pace: float
    """Seconds that a usual task takes, on the average."""
    large: float
    """The share of arguments, and of results, of megabytes."""
    kill_every: float | None
    """Seconds between kills of workers; None: no kills."""
    stop_every: float | None
    cruel: float
    """The share of tasks that end their worker, or whose results cannot be unpickled."""

    def __str__(self) -> str:
        return ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))

    @property
    def refuses(self) -> bool:
        """Does a full pool refuse?"""
        return not self.block or self.patience is not None

    @property
    def breaks(self) -> bool:
        """Does a worker's death break the pool?"""
        return self.death == "break"

    @property
    def is_violent(self) -> bool:
        """May the pool break?"""
        return self.kill_every is not None or self.cruel > 0 or self.initializer == "bad"

    def make(self) -> weirpool.ProcessPoolExecutor:
        """The executor."""
        options: dict[str, Any] = {} if self.breaks else {"on_worker_death": "replace"}
        return weirpool.BoundedProcessPoolExecutor(
            self.bound,
            self.workers,
            multiprocessing.get_context(self.method),
            {"none": None, "good": work.initialize, "bad": work.fail_to_initialize}[self.initializer],
            ("as it was given",) if self.initializer == "good" else (),
            max_tasks_per_child=self.max_tasks,
            max_submit_backlog=self.backlog,
            submit_backlog_timeout=self.patience,
            block_on_submit=self.block,
            max_bytes=self.max_bytes,
            adaptive_bound=self.adaptive,
            pickler=self.pickler,
            **options,
        )


def _or_none(rng: Random, chance: float, values: list[Any]) -> Any:
    return rng.choice(values) if rng.random() < chance else None


def draw(rng: Random, death: Death) -> Plan:
    """Draw a round."""
    replaces = death == "replace"
    method = rng.choice(METHODS[1:] if replaces else METHODS)
    workers = rng.choice((1, 2, 2, 3, 4, 8))
    adaptive = rng.random() < 0.15
    patience = _or_none(rng, 0.2, [0, 0.001, 0.02, 5.0])
    violent = rng.random() < (0.7 if replaces else 0.4)
    picklers = ["pickle", "cloudpickle"] if importlib.util.find_spec("cloudpickle") else ["pickle"]
    return Plan(
        death=death,
        method=method,
        workers=workers,
        bound=_or_none(rng, 0.7, [True]) if adaptive else _or_none(rng, 0.7, [True, 1, 2, workers, 3 * workers, 50]),
        adaptive=adaptive,
        backlog=_or_none(rng, 0.25, [True, 1, workers, 20]),
        max_bytes=_or_none(rng, 0.25, [1000, 100_000, 3_000_000]),
        patience=patience,
        block=patience is not None or rng.random() < 0.9,
        max_tasks=_or_none(rng, 0.3, [1, 5, 20, 100]) if method != "fork" else None,
        pickler=_or_none(rng, 0.15, picklers),
        initializer="bad" if rng.random() < 0.02 else rng.choice(("none", "none", "good")),
        producers=tuple(rng.choice(PRODUCERS) for _ in range(rng.choice((1, 2, 3, 5, 8, 12)))),
        budget=rng.choice((10, 50, 200)),
        seconds=rng.uniform(0.05, 1.2) * (1 if method == "fork" else 2),
        ending=rng.choice(ENDINGS),
        pace=rng.choice((0.0002, 0.001, 0.02)),
        large=rng.choice((0.02, 0.02, 0.02, 0.5)),
        kill_every=(rng.choice((0.05, 0.2, 0.6)) if replaces else 1.0) if violent else None,
        stop_every=_or_none(rng, 0.35, [0.02, 0.1, 0.3]),
        cruel=_or_none(rng, 0.5 if replaces else 0.2, [0.002, 0.02]) or 0.0,
    )
