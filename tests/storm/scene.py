"""One round while it runs: what its threads share, and how they draw and submit a task."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from random import Random
from typing import Any

import work
from account import Account, Task
from damage import Damage
from plan import Plan

import weirpool

SIZES = (0,) * 6 + (10, 200, 210, 1000, 70_000, 300_000)
LARGE = (1_000_000, 2_500_000, 4_000_000)
_MOST_NESTED = 2  # how deep tasks are submitted from within submissions and callbacks


@dataclass
class Scene:
    """What the threads of a round share."""

    plan: Plan
    path: str
    """Of the ledger."""
    pool: weirpool.ProcessPoolExecutor | None
    account: Account = field(default_factory=Account)
    damage: Damage = field(default_factory=Damage)
    over: threading.Event = field(default_factory=threading.Event)
    """Submit nothing more."""
    refused: bool = False
    """The pool has ended: it will accept nothing more."""

    def is_over(self) -> bool:
        """Is there nothing more to submit?"""
        return self.refused or self.over.is_set()

    def note_refusal(self, error: BaseException) -> None:
        """``submit()`` raised this."""
        self.refused |= not isinstance(error, queue.Full)

    def draw_task(self, rng: Random, *, plain: bool = False) -> Task:
        """A task to be submitted; a plain one does nothing that a map or a feeder would end with."""
        plan = self.plan
        act, seconds, size = "return", _draw_seconds(rng, plan.pace), _draw_size(rng, plan.large)
        if not plain and rng.random() < 0.06:
            act = rng.choice(work.MILD_ACTS[1:])
        if rng.random() < plan.cruel:
            act = rng.choice(work.CRUEL_ACTS)
            size = rng.choice(LARGE) if act == "midway" else size
        return self.account.open(act=act, seconds=seconds, size=size)

    def _warn(self, task: Task) -> None:
        """Before it is submitted: note what it may do to the pool."""
        if task.act == "poison":
            self.damage.poisoned = True
        elif task.act in work.EXITCODES:
            for _ in range(task.attempts):
                self.damage.died(work.EXITCODES[task.act])

    def call(self, task: Task, payload: Any = None) -> tuple[Any, ...]:
        """The arguments of ``work.run``."""
        self._warn(task)
        if task.act == "unreadable":
            payload = work.Unreadable()
        fixed = (self.path, task.number, task.act, task.seconds, task.size)
        return fixed if payload is None else (*fixed, payload)

    def choose_executor(self, rng: Random) -> tuple[weirpool.ProcessPoolExecutor, int, float | None]:
        """The pool, perhaps with options: how often a task may be started, and how many seconds it may take."""
        pool = self.pool
        assert pool is not None
        if self.plan.breaks or rng.random() < 0.5:
            return pool, 1, None
        attempts = rng.choice((1, 1, 2, 3))
        limit = rng.choice((None, None, 0.05, 0.5, 30.0))
        return pool.with_options(timeout=limit, retries=attempts - 1), attempts, limit

    def _executor_for(self, task: Task, rng: Random) -> Executor:
        executor, task.attempts, task.limit = self.choose_executor(rng)
        if task.limit is not None and task.limit < 1 and task.act == "return" and rng.random() < 0.3:
            task.seconds = 60.0
        return executor

    def payload(self, task: Task, rng: Random, depth: int) -> Any:
        """An argument, which may do something when it is pickled."""
        dice = rng.random()
        if dice < 0.01:
            task.sendable = False
            return work.Unsendable()
        if dice < 0.03 and depth < _MOST_NESTED:
            return work.CallsWhenPickled(lambda: self.submit(rng, depth + 1))
        data = work.content(task.number, _draw_size(rng, self.plan.large))
        return None if not data else data if dice < 0.8 else work.Block(data)

    def submit(self, rng: Random, depth: int = 0) -> Task | None:
        """Submit a task of any kind. None: the pool has ended, or refuses it."""
        if self.pool is None:
            return None
        task = self.draw_task(rng)
        try:
            executor = self._executor_for(task, rng)
            payload = self.payload(task, rng, depth)
            task.future = executor.submit(work.run, *self.call(task, payload))
        except (queue.Full, RuntimeError) as refusal:
            self.note_refusal(refusal)
            task.end("refused", refusal)
            return None
        self.add_callbacks(task, rng, depth)
        return task

    # ---- callbacks ----

    def add_callbacks(self, task: Task, rng: Random, depth: int) -> None:
        """None, one or several, of any kind."""
        assert task.future is not None
        while rng.random() < 0.25:
            task.callbacks += 1
            kind = rng.choice(("looks", "raises", "submits", "blocks"))
            seed = rng.random()
            task.future.add_done_callback(
                lambda future, kind=kind, seed=seed: self._call_back(future, task, kind, Random(seed), depth)
            )

    def _call_back(self, future: Future[Any], task: Task, kind: str, rng: Random, depth: int) -> None:
        task.called += 1
        if not future.done():
            self.account.fault(f"a callback of task {task.number} was called before its end")
        if kind == "raises":
            raise work.StormError("a callback")
        if kind == "blocks":
            time.sleep(rng.uniform(0, 0.03))
        if kind == "submits" and depth < _MOST_NESTED and not self.is_over():
            for _ in range(rng.randrange(1, 4)):
                self.submit(rng, depth + 1)


def _draw_seconds(rng: Random, pace: float) -> float:
    return 0.0 if rng.random() < 0.5 else min(rng.expovariate(0.5 / pace), 1.0)


def _draw_size(rng: Random, large: float) -> int:
    return rng.choice(LARGE if rng.random() < large else SIZES)
