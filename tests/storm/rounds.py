"""One round: an executor, its producers, the weather, the end, and the reckoning."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import os
import threading
import time
from random import Random

import endings
import ledger
import producers
import work
from account import Account
from endings import Troupe
from plan import Plan
from scene import Scene
from support import wait_until
from watch import LogReader, Watchdog
from weather import Weather

import weirpool

_GRANULE = 0.02  # seconds


def play(plan: Plan, seed: str, path: str, watchdog: Watchdog, log: LogReader) -> Account:
    """Play a round. The account has its faults."""
    ledger.create(path)
    scene = Scene(plan, path, plan.make())
    watchdog.scene, log.account = scene, scene.account
    if plan.initializer == "bad":
        scene.damage.unready = True
    troupe, weather = Troupe(), Weather(scene, Random(f"{seed} weather"))
    for number, kind in enumerate(plan.producers):
        troupe.start(scene, kind, producers.KINDS[kind], Random(f"{seed} {number}"))
    weather.start()
    _let_it_blow(plan, troupe)
    endings.KINDS[plan.ending](scene, troupe, weather)
    scene.over.set()
    troupe.join()
    weather.end()
    _end(scene)
    _reckon(scene)
    os.unlink(path)
    _spoil()
    return scene.account


def _spoil() -> None:
    """On purpose."""
    if work.SPOILED == "leak":
        os.dup(0)
    elif work.SPOILED == "hang":
        threading.Event().wait()


def _let_it_blow(plan: Plan, troupe: Troupe) -> None:
    deadline = time.monotonic() + plan.seconds
    while time.monotonic() < deadline and any(thread.is_alive() for thread in troupe.threads):
        time.sleep(_GRANULE)


def _end(scene: Scene) -> None:
    """Whatever was done: all tasks end, the executor ends, and its collector."""
    pool = scene.pool
    cf.wait([task.future for task in scene.account.tasks if task.future is not None])
    if pool is not None:
        scene.damage.shut = True
        pool.shutdown()
    del pool
    wait_until(_has_ended, "the collector ends")


def _has_ended() -> bool:
    """An executor that nobody has shut down ends when it is collected, which a cycle may put off."""
    gc.collect()
    return not _collectors()


def _collectors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "weirpool-collector"]


def _reckon(scene: Scene) -> None:
    account, pool = scene.account, scene.pool
    scene.damage.broke = pool is None or bool(pool._broken)
    if pool is not None:
        account.seen["broken pools"] += scene.damage.broke
        _check_numbers(account, pool.stats())
    scene.pool = None
    account.close(ledger.read(scene.path), scene.damage, refuses=scene.plan.refuses, breaks=scene.plan.breaks)


def _check_numbers(account: Account, stats: weirpool.Stats) -> None:
    for name in ("outstanding", "waiting", "running", "blocked_producers", "bytes_held"):
        if getattr(stats, name):
            account.fault(f"at the end {name} is {getattr(stats, name)}")
    if stats.submitted != stats.finished or stats.finished != stats.completed + stats.failed + stats.cancelled:
        account.fault(f"the numbers do not add up: {stats}")
    account.seen["tasks over the bound"] += stats.admitted_over_bound
    account.seen["workers that died"] += stats.workers_died
