"""Threads that submit, each in a way of its own, until the storm is over or the pool wants nothing more."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import itertools
import os
import queue
import select
import signal
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import coroutines
import work
from account import Task
from scene import Scene

import weirpool

REFUSALS = (queue.Full, RuntimeError)
"""What ``submit()`` raises: come again, or never again."""
_PATIENCE = 60.0  # seconds; only a hang takes so long


def _rounds(scene: Scene) -> Iterator[int]:
    """As many as the budget allows, while the storm blows and the pool accepts tasks."""
    return itertools.takewhile(lambda _: not scene.is_over(), range(scene.plan.budget))


def submits(scene: Scene, rng: Random) -> None:
    """Submits one after another; waits for some results, cancels some tasks."""
    for _ in _rounds(scene):
        if not scene.plan.breaks and rng.random() < 0.05:
            _stop_one(scene, rng)
        task = scene.submit(rng)
        if task is None or task.future is None:
            continue
        dice = rng.random()
        if dice < 0.1:
            task.ask(rng.choice((None, 0, 0.01)) if dice < 0.05 else None)
        elif dice < 0.2:
            task.cancel()
        elif dice < 0.22:
            cf.wait([task.future], timeout=rng.uniform(0, 0.1))
        elif dice < 0.25 and not scene.plan.breaks:
            task.cancel(force=True)


def _stop_one(scene: Scene, rng: Random) -> None:
    """A task that would run for long, and is stopped."""
    executor, attempts, limit = scene.choose_executor(rng)
    task = scene.account.open(seconds=60.0, attempts=attempts, limit=limit)
    try:
        task.future = executor.submit(work.run, *scene.call(task))
    except REFUSALS as refusal:
        scene.note_refusal(refusal)
        task.end("refused", refusal)
        return
    task.ask(rng.uniform(0, 0.1))
    if not task.cancel(force=True) and not task.future.done():
        scene.account.fault(f"cancel(force=True) did not stop task {task.number}")


# ---- maps ----


def maps(scene: Scene, rng: Random) -> None:
    """Maps of both kinds, in chunks of any size, some of them left unread."""
    left = scene.plan.budget
    while left > 0 and not scene.is_over():
        count = rng.randrange(1, 40)
        left -= count
        _map_once(scene, rng, count)


def _map_once(scene: Scene, rng: Random, count: int) -> None:
    executor, attempts, limit = scene.choose_executor(rng)
    made: dict[int, Task] = {}
    ordered = rng.random() < 0.5
    options: dict[str, Any] = {
        "chunksize": rng.choice((1, 1, 3, "auto")),
        "buffersize": rng.choice((None, None, 1, 5)),
        "timeout": rng.choice((None, None, None, 0.02)),
    }
    items = _items(scene, rng, made, count, attempts, limit)
    leave_after = rng.choice((None, None, 0, 5))
    try:
        results = (executor.map if ordered else executor.map_unordered)(work.run_one, items, **options)
    except REFUSALS as refusal:
        scene.note_refusal(refusal)
        _end_rest(made, refusal)
        return
    with contextlib.closing(results):
        _read(scene, results, made, ordered, leave_after)
    _end_rest(made, None)


def _items(
    scene: Scene, rng: Random, made: dict[int, Task], count: int, attempts: int, limit: float | None
) -> Iterator[tuple[Any, ...]]:
    for _ in range(count):
        task = scene.draw_task(rng, plain=rng.random() < 0.98)
        task.loose = True  # its chunk, or its map, may end before it
        task.attempts, task.limit = attempts, limit
        made[task.number] = task
        data = work.content(task.number, rng.choice((0, 100, 5000)))
        yield scene.call(task, data or None)


def _read(scene: Scene, results: Iterator[Any], made: dict[int, Task], ordered: bool, leave_after: int | None) -> None:
    last = 0
    for read in itertools.count():
        if read == leave_after:
            return
        try:
            value = next(results)
        except StopIteration:
            return
        except queue.Full:  # nothing to wait for and no room: later may do
            if scene.is_over():
                return
            continue
        except (Exception, cf.CancelledError) as error:
            _blame(scene, made, error)
            return
        task = made.get(value[0]) if isinstance(value, tuple) else None
        if task is None:
            scene.account.fault(f"a map yielded {value!r:.200}")
            return
        task.end("result", value)
        if ordered and task.number < last:
            scene.account.fault(f"an ordered map yielded {task.number} after {last}")
        last = task.number


def _blame(scene: Scene, made: dict[int, Task], error: BaseException) -> None:
    """A map ended with an error: of a task, of the pool, or of its own timeout."""
    task = next((task for task in made.values() if not task.ends), None)
    if isinstance(error, work.StormError) and error.args == work.REFUSAL:
        task = next((task for task in made.values() if task.act == "unreadable"), None)
    elif isinstance(error, work.StormError):
        task = made.get(error.args[0])
    elif isinstance(error, TypeError):
        task = next((task for task in made.values() if task.act == "secret"), None)
    if task is None:
        scene.account.fault(f"a map ended with {error!r}")
    elif not isinstance(error, TimeoutError):  # that is the map's own
        task.end_with(error)


def _end_rest(made: dict[int, Task], refusal: BaseException | None) -> None:
    """Nobody will look at the other tasks of a map."""
    for task in reversed(made.values()):
        if not task.ends and refusal is not None:
            task.end("refused", refusal)
            refusal = None
        elif not task.ends:
            task.end("dropped")


# ---- others ----


def feeds(scene: Scene, rng: Random) -> None:
    """Puts items into a feeder, which tries some of them again."""
    pool = scene.pool
    assert pool is not None
    retries = rng.choice((0, 0, 2))
    made: dict[int, Task] = {}

    def succeed(call: tuple[Any, ...], result: Any) -> None:
        made[call[1]].end("result", result)

    feeder = weirpool.Feeder(pool, work.run_one, maxsize=rng.choice((True, 3)), retries=retries, on_result=succeed)
    for _ in _rounds(scene):
        task = scene.draw_task(rng)
        task.fed, task.attempts = True, 1 + retries
        patience = rng.choice((None, 0.1))
        task.impatient = patience is not None
        made[task.number] = task
        try:
            feeder.put(scene.call(task), timeout=patience)
        except REFUSALS as refusal:
            scene.note_refusal(refusal)
            task.end("refused", refusal)
    feeder.close()
    for failure in feeder.failures:
        made[failure.item[1]].end_with(failure.exception)
    if feeder.stats().outstanding:
        scene.account.fault(f"a closed feeder has outstanding items: {feeder.stats()}")


def completes(scene: Scene, rng: Random) -> None:
    """Takes futures as they end, from a lazy iterable, some of them twice; and leaves the rest."""
    futures = (task.future for _ in _rounds(scene) if (task := scene.submit(rng)) is not None)
    leave_after = rng.choice((None, 3))
    results = weirpool.as_completed(futures, buffersize=rng.choice((None, 1, 10)))  # type: ignore[arg-type]
    for future in itertools.islice(results, leave_after):
        if not future.done():
            scene.account.fault("as_completed() yielded a future that was not done")


def forks(scene: Scene, rng: Random) -> None:
    """Forks this process now and then; the children try to use the pool, which has to refuse."""
    for _ in range(rng.randrange(1, 4)):
        task = scene.submit(rng)
        scene.over.wait(rng.uniform(0, 0.2))
        said = _in_forked_child(lambda task=task: _use_in_child(scene, task))
        scene.account.count("forks")
        if said != "refused":
            scene.account.fault(f"a forked child: {said}")


def _use_in_child(scene: Scene, task: Task | None) -> None:
    pool = scene.pool
    assert pool is not None
    if pool._owner is None:  # nothing was submitted yet: it would be the child's
        return
    for use in (lambda: pool.submit(work.run), pool.stats, pool.shutdown, pool.kill_workers):
        try:
            use()
        except RuntimeError as error:
            if "forked child" not in str(error):
                raise
        else:
            raise AssertionError("it was not refused")
    future = task.future if task is not None else None
    if future is not None:
        for ask in (future.cancel, future.running, lambda: future.result(timeout=_PATIENCE)):
            with contextlib.suppress(Exception, cf.CancelledError):
                ask()


def _in_forked_child(run: Callable[[], None]) -> str:
    """What ``run`` came to in a fork of this process: "refused" if it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "refused"
        try:
            run()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], _PATIENCE)[0]:
            os.kill(child, signal.SIGABRT)  # faulthandler prints its stacks
            return f"stuck for {_PATIENCE:.0f} s"
        return os.read(reader, 65536).decode()
    finally:
        os.close(reader)
        os.waitpid(child, 0)


KINDS: dict[str, Callable[[Scene, Random], None]] = {
    "submits": submits,
    "coroutines": coroutines.run,
    "maps": maps,
    "feeds": feeds,
    "completes": completes,
    "forks": forks,
}
