"""An event loop in a thread, whose coroutines submit and are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from random import Random

import work
from account import Task
from scene import Scene


def run(scene: Scene, rng: Random) -> None:
    """A loop with some coroutines, until all of them have ended."""
    asyncio.run(_main(scene, rng))


async def _main(scene: Scene, rng: Random) -> None:
    count = rng.choice((1, 3, 10))
    kinds = [rng.choice((_call, _call, _iterate)) for _ in range(count)]
    await asyncio.gather(*(kind(scene, Random(rng.random()), scene.plan.budget // count + 1) for kind in kinds))


async def _call(scene: Scene, rng: Random, budget: int) -> None:
    """Calls one after another, and gives some of them up."""
    for _ in range(budget):
        if scene.is_over():
            return
        task = scene.draw_task(rng)
        calling = asyncio.ensure_future(_arun(scene, task, rng))
        if rng.random() < 0.2:
            task.asked = task.loose = True
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.05)))
            calling.cancel()
        try:
            task.end("result", await calling)
        except (Exception, asyncio.CancelledError) as error:
            task.end_with(error)
            if task.ends[0][0] == "refused":
                scene.note_refusal(error)
            await asyncio.sleep(0.001 if isinstance(error, queue.Full) else 0)


async def _arun(scene: Scene, task: Task, rng: Random) -> object:
    executor, task.attempts, task.limit = scene.choose_executor(rng)
    call = scene.call(task, work.content(task.number, rng.choice((0, 0, 100, 100_000))) or None)
    if rng.random() < 0.5:
        return await executor.arun(work.run, *call)
    return await (await executor.asubmit(work.run, *call))


async def _iterate(scene: Scene, rng: Random, budget: int) -> None:
    """Reads an amap, perhaps not to its end."""
    executor, attempts, limit = scene.choose_executor(rng)
    tasks = [scene.draw_task(rng, plain=True) for _ in range(budget)]
    for task in tasks:
        task.loose, task.attempts, task.limit = True, attempts, limit
    by_number = {task.number: task for task in tasks}
    calls = (scene.call(task) for task in tasks)
    leave_after = rng.choice((None, None, budget // 2))
    results = executor.amap(work.run_one, calls, ordered=rng.random() < 0.5, buffersize=rng.choice((None, 1, 5)))
    try:
        async with contextlib.aclosing(results):
            async for value in results:
                by_number[value[0]].end("result", value)
                if leave_after is not None and sum(len(task.ends) for task in tasks) >= leave_after:
                    break
    except (Exception, asyncio.CancelledError) as error:
        scene.account.count(f"amaps ended by {type(error).__name__}")
    for task in tasks:
        if not task.ends:
            task.end("dropped")
