"""An idle pool sleeps."""

import os
import threading
import time
from pathlib import Path

import pytest
import tasks
from support import START_METHODS, Pools, worker_pids

SECONDS = 5
A_SECOND = 2  # wake-ups of a worker, or of a thread of the pool
SLACK = 2  # what began before the count


def switches(pid: int) -> dict[int, int]:
    """How often each thread of a process has gone to sleep."""
    found = {}
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                found[int(status.parent.name)] = int(line.split()[1])
    return found


@pytest.mark.slow
def test_an_idle_pool_wakes_up_at_most_twice_a_second_a_worker(pools: Pools) -> None:
    """Six pools at once: each start method, after much work and after one task."""
    for method in START_METHODS:
        for count in (1, 20):
            pool = pools.bounded(8, 3, method)
            for _ in range(2):
                list(pool.map(tasks.nap, [0.02] * count))
    time.sleep(1)
    me = os.getpid()
    workers = [pid for pool in pools.made for pid in worker_pids(pool)]
    before = {pid: switches(pid) for pid in [me, *workers]}
    time.sleep(SECONDS)
    after = {pid: switches(pid) for pid in [me, *workers]}
    for pid in workers:
        slept = sum(after[pid].values()) - sum(before[pid].values())
        assert slept <= A_SECOND * SECONDS + SLACK, f"worker {pid} woke up {slept} times"
    for thread in set(before[me]) - {threading.main_thread().native_id}:
        slept = after[me][thread] - before[me][thread]
        assert slept <= A_SECOND * SECONDS + SLACK, f"thread {thread} of the pool woke up {slept} times"
