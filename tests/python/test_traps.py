"""Ways in which bounded pools lose permits, hang or lie; none may be here."""

import contextlib
import gc
import itertools
import os
import pickle
import random
import signal
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import Gate, Pools, Script, Threads, end_soon, in_forked_child, kill_a_worker, start_workers, wait_until

import weirpool

SOON = 60.0
SHUT = r"^cannot schedule new futures after shutdown$"


def block_producers(pool: weirpool.ProcessPoolExecutor, threads: Threads, count: int, *call: Any) -> None:
    """Starts threads that submit, and waits until each of them is blocked."""
    for _ in range(count):
        threads.start(pool.submit, *(call or (tasks.nothing,)))
    wait_until(lambda: pool.stats().blocked_producers == count, f"{count} producers are blocked")


def outcomes(threads: Threads) -> list[BaseException | None]:
    """How each producer ended: with the error of submit(), or else with that of its future."""
    futures = threads.join()
    return [*threads.errors, *(future.exception(SOON) for future in futures)]


# ---- 1: submit() that raises loses no permit -----------------------------------------------------


def test_submitting_to_a_pool_that_was_shut_down_raises_every_time(pools: Pools, start_method: str) -> None:
    pool = pools.bounded(2, 2, start_method)
    pool.submit(tasks.nothing).result()
    pool.shutdown()
    for _ in range(10):
        with pytest.raises(RuntimeError, match=SHUT):
            pool.submit(tasks.nothing)
    assert pool.stats().outstanding == 0


def test_submitting_to_a_broken_pool_raises_every_time(pools: Pools, start_method: str) -> None:
    pool = pools.bounded(2, 2, start_method)
    assert isinstance(pool.submit(tasks.die).exception(), BrokenProcessPool)
    for _ in range(10):
        with pytest.raises(BrokenProcessPool):
            pool.submit(tasks.nothing)


def test_workers_that_cannot_be_started_lose_no_permit(pools: Pools) -> None:
    pool = pools.bounded(1, 1, "spawn", initializer=tasks.initialize, initargs=(threading.Lock(),))
    for _ in range(5):
        with pytest.raises((pickle.PicklingError, TypeError)):
            pool.submit(tasks.nothing)
    assert pool.stats().outstanding == 0


def test_arguments_that_cannot_be_pickled_lose_no_permit(pools: Pools) -> None:
    pool = pools.bounded(2)
    for _ in range(10):
        assert pool.submit(tasks.echo, threading.Lock()).exception() is not None
        assert pool.submit(tasks.echo, [bytes(300_000), threading.Lock()]).exception() is not None
    assert pool.stats().outstanding == 0
    assert pool.stats().peak_outstanding <= 2


# ---- 2: every blocked producer learns that the pool is gone --------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("size", [0, 200_000], ids=["small", "large"])
def test_a_killed_worker_wakes_every_blocked_producer(
    pools: Pools, gate: Gate, threads: Threads, start_method: str, size: int
) -> None:
    pool = pools.bounded(2, 2, start_method)
    start_workers(pool, gate, 2)
    block_producers(pool, threads, 12, tasks.echo, bytes(size))
    kill_a_worker(pool)
    ends = outcomes(threads)
    assert [type(end) for end in ends] == [BrokenProcessPool] * 12
    assert len({id(end) for end in ends}) == 12, "an exception of its own for each"


@pytest.mark.race
@pytest.mark.parametrize("size", [0, 200_000], ids=["small", "large"])
def test_shutdown_wakes_every_blocked_producer(pools: Pools, gate: Gate, threads: Threads, size: int) -> None:
    pool = pools.bounded(2)
    start_workers(pool, gate, 2)
    block_producers(pool, threads, 12, tasks.echo, bytes(size))
    pool.shutdown(wait=False)
    threads.join()
    assert [str(error) for error in threads.errors] == ["cannot schedule new futures after shutdown"] * 12
    assert {type(error) for error in threads.errors} == {RuntimeError}


def test_a_failing_initializer_wakes_every_blocked_producer(pools: Pools, threads: Threads, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    pool = pools.bounded(2, 2, "fork", initializer=tasks.hold_and_fail, initargs=(gate.folder,))
    futures = [pool.submit(tasks.nothing) for _ in range(2)]
    block_producers(pool, threads, 12)
    gate.open()
    assert [type(end) for end in outcomes(threads)] == [BrokenProcessPool] * 12
    assert [type(future.exception()) for future in futures] == [BrokenProcessPool] * 2


@pytest.mark.race
def test_the_pool_breaks_while_producers_come_and_go(pools: Pools, threads: Threads) -> None:
    """No quiet moment: producers submit all the time, some with callbacks, when the worker dies."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = pools.bounded(4)
    ended: list[Future[Any]] = []
    accepted: list[Future[Any]] = []

    def produce(number: int) -> None:
        for count in itertools.count():
            future = pool.submit(tasks.echo, count)
            accepted.append(future)
            if number % 2:
                future.add_done_callback(ended.append)

    for number in range(12):
        threads.start(produce, number)
    wait_until(lambda: pool.stats().finished > 100, "the pool is busy")
    time.sleep(random.Random(seed).random() * 0.02)
    kill_a_worker(pool)
    threads.join()
    assert [type(error) for error in threads.errors] == [BrokenProcessPool] * 12
    assert wait(accepted, SOON).not_done == set()
    assert {type(future.exception()) for future in accepted} <= {type(None), BrokenProcessPool}


# ---- 3: a callback that submits more than there is room for --------------------------------------


@pytest.mark.race
def test_a_callback_may_submit_more_than_there_is_room_for(pools: Pools, gate: Gate, start_method: str) -> None:
    pool = pools.bounded(2, 2, start_method)
    children: list[Future[int]] = []
    submitted = threading.Event()

    def more(_: Future[Any]) -> None:
        children.extend(pool.submit(tasks.square, number) for number in range(8))
        submitted.set()

    held = pool.submit(tasks.hold, gate.folder)
    held.add_done_callback(more)
    gate.open()
    assert submitted.wait(SOON), "the callback is stuck"
    assert [future.result(SOON) for future in children] == [number * number for number in range(8)]
    assert pool.stats().admitted_over_bound > 0
    wait_until(lambda: pool.stats().outstanding == 0, "every permit is back")


@pytest.mark.race
def test_callbacks_that_submit_among_rival_producers(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(2)
    ended = itertools.count(1)
    all_ended = threading.Event()

    def tree(depth: int) -> None:
        def grow(_: Future[Any]) -> None:
            if depth:
                for _ in range(3):
                    tree(depth - 1)
            if next(ended) == 1 + 3 + 9 + 27:
                all_ended.set()

        pool.submit(tasks.nothing).add_done_callback(grow)

    for _ in range(4):
        threads.start(lambda: [pool.submit(tasks.echo, number).result() for number in range(100)])
    tree(3)
    assert all_ended.wait(SOON), "a callback is stuck"
    assert threads.join() == [list(range(100))] * 4


# ---- 4: an infinite map, and submitting while it is read -----------------------------------------


def test_an_infinite_map_yields(pools: Pools, start_method: str) -> None:
    pool = pools.bounded(2, 2, start_method)
    assert list(itertools.islice(pool.map(tasks.square, itertools.count()), 20)) == [n * n for n in range(20)]


@pytest.mark.race
def test_submitting_while_reading_a_map_at_bound_two(pools: Pools, start_method: str) -> None:
    pool = pools.bounded(2, 2, start_method)
    futures = [pool.submit(tasks.square, number) for number in pool.map(tasks.echo, range(40))]
    assert [future.result() for future in futures] == [number * number for number in range(40)]


def test_unread_results_of_a_map_hold_no_permits(pools: Pools) -> None:
    pool = pools.bounded(2)
    unread = [pool.map(tasks.echo, itertools.count()) for _ in range(5)]
    wait_until(lambda: pool.stats().outstanding == 0, "the windows have run")
    assert [pool.submit(tasks.square, number).result() for number in range(10)][-1] == 81
    assert [next(results) for results in unread] == [0] * 5


# ---- 5: shutdown with a full backlog and blocked producers ---------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("cancel", [False, True])
def test_shutdown_returns_with_a_full_pool_and_blocked_producers(
    pools: Pools, gate: Gate, threads: Threads, start_method: str, cancel: bool
) -> None:
    pool = pools.bounded(6, 2, start_method)
    futures = [pool.submit(tasks.hold, gate.folder, number) for number in range(6)]
    gate.wait_started(2)
    block_producers(pool, threads, 8)
    closing = Threads()
    closing.start(lambda: pool.shutdown(wait=True, cancel_futures=cancel))
    threads.join()
    assert [str(error) for error in threads.errors] == ["cannot schedule new futures after shutdown"] * 8
    gate.open()
    closing.join()
    assert closing.errors == []
    assert all(future.done() for future in futures)
    ran = [future.result() for future in futures if not future.cancelled()]
    assert ran == list(range(len(ran)))
    assert 2 <= len(ran) <= (5 if cancel else 6)
    assert cancel or len(ran) == 6


@pytest.mark.race
def test_shutdown_in_the_middle_of_a_flood(pools: Pools, threads: Threads) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = pools.bounded(4)
    accepted: list[Future[int]] = []

    def produce() -> None:
        for number in itertools.count():
            accepted.append(pool.submit(tasks.echo, number))

    for _ in range(16):
        threads.start(produce)
    wait_until(lambda: pool.stats().finished > 50, "the pool is busy")
    time.sleep(random.Random(seed).random() * 0.02)
    pool.shutdown(wait=True)
    threads.join()
    assert [str(error) for error in threads.errors] == ["cannot schedule new futures after shutdown"] * 16
    assert all(future.done() and future.exception() is None for future in accepted)


# ---- 6: a worker killed while big data are on their way ------------------------------------------


def ends_and_breaks(pool: weirpool.ProcessPoolExecutor, futures: list[Future[Any]]) -> None:
    """Every future ends, with its result or because the pool broke; the pool says that it did."""
    assert wait(futures, SOON).not_done == set()
    assert {type(future.exception()) for future in futures} <= {type(None), BrokenProcessPool}
    wait_until(lambda: pool._broken, "the pool knows that it is broken")
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing)


@pytest.mark.race
def test_a_worker_killed_while_it_sends_a_big_result(pools: Pools, gate: Gate, start_method: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.start_then_return, gate.folder, 100_000_000) for _ in range(2)]
    gate.wait_started(1)
    time.sleep(random.Random(seed).random() * 0.08)
    kill_a_worker(pool)
    ends_and_breaks(pool, futures)


@pytest.mark.race
def test_a_worker_killed_while_it_receives_big_arguments(pools: Pools, threads: Threads, start_method: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = pools.bounded(4, 2, start_method)
    pool.submit(tasks.nothing).result()
    argument = bytes(50_000_000)
    futures: list[Future[Any]] = []

    def produce() -> None:
        while True:
            futures.append(pool.submit(tasks.size_of, argument))

    for _ in range(2):
        threads.start(produce)
    time.sleep(random.Random(seed).random() * 0.1)
    kill_a_worker(pool)
    threads.join()
    assert [type(error) for error in threads.errors] == [BrokenProcessPool] * 2
    ends_and_breaks(pool, futures)


@pytest.mark.race
def test_no_task_sees_damaged_arguments_when_the_pool_breaks(
    pools: Pools, threads: Threads, tmp_path: Path, start_method: str
) -> None:
    """The memory of arguments is not given away while a worker that is left may still read them."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    log = tmp_path / "damaged"
    pool = pools.bounded(6, 3, start_method)
    data = random.Random(1).randbytes(1 << 20) * 8
    crc = zlib.crc32(data)
    pool.submit(tasks.log_damage, str(log), data, crc).result()

    def produce() -> None:
        while True:
            pool.submit(tasks.log_damage, str(log), data, crc)

    for _ in range(4):
        threads.start(produce)
    time.sleep(0.05 + random.Random(seed).random() * 0.1)
    kill_a_worker(pool)
    threads.join()
    end_soon(pool)
    assert not log.exists(), log.read_text()


@pytest.mark.parametrize(
    ("fn", "argument"),
    [
        (tasks.size_of, [bytes(8_000_000), tasks.DiesWhenRebuilt()]),
        (tasks.dying_result, 8_000_000),
        (tasks.die, bytes(8_000_000)),
    ],
    ids=["while it rebuilds the argument", "while it pickles the result", "while it runs"],
)
def test_a_worker_that_dies_with_big_data(
    pools: Pools, start_method: str, fn: Callable[..., Any], argument: Any
) -> None:
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(fn, argument)]
    with contextlib.suppress(BrokenProcessPool):  # so soon
        futures += [pool.submit(tasks.size_of, bytes(4_000_000)) for _ in range(10)]
    assert isinstance(futures[0].exception(SOON), BrokenProcessPool)
    ends_and_breaks(pool, futures)


# ---- 7: neither shutdown(wait=False) nor exit hang behind a blocked producer ---------------------


@pytest.mark.race
def test_shutdown_without_waiting_returns_with_blocked_producers(pools: Pools, gate: Gate, threads: Threads) -> None:
    pool = pools.bounded(2)
    held = [pool.submit(tasks.hold, gate.folder, number) for number in range(2)]
    block_producers(pool, threads, 4)
    closing = Threads()
    closing.start(lambda: pool.shutdown(wait=False))
    closing.join()
    assert not any(future.done() for future in held)
    threads.join()
    assert len(threads.errors) == 4
    gate.open()
    assert [future.result() for future in held] == [0, 1]


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon threads", "plain threads"])
@pytest.mark.parametrize("ending", ["pass", "pool.shutdown(wait=False)", "sys.exit(0)"])
def test_exit_with_blocked_producers(
    script: Callable[..., Script], start_method: str, daemon: bool, ending: str
) -> None:
    lines = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context({start_method!r}))
        pool.submit(tasks.nothing).result()

        def produce():
            try:
                while True:
                    pool.submit(tasks.nap, 0.05)
            except RuntimeError as error:
                {"pass" if daemon else "say(error)"}

        for _ in range(6):
            threading.Thread(target=produce, daemon={daemon}).start()
        soon(lambda: pool.stats().blocked_producers >= 4, "producers are blocked")
        {ending}
        """
    ).finish()
    assert len(lines) == (0 if daemon else 6)
    assert all(line.startswith("cannot schedule new futures after") for line in lines)


# ---- 8: running() tells the truth, a returned exception is returned ------------------------------


def test_running_tells_the_truth(pools: Pools, gate: Gate, start_method: str) -> None:
    """Exactly the tasks that workers execute are running; all others can still be cancelled."""
    pool = pools.unbounded(2, start_method)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(12)]
    gate.wait_started(2)
    assert [future.running() for future in futures] == [True] * 2 + [False] * 10
    assert [future.cancel() for future in futures] == [False] * 2 + [True] * 10
    gate.open()
    assert [future.exception() for future in futures[:2]] == [None] * 2
    assert gate.started == 2


def test_an_exception_that_is_returned_is_a_result(pools: Pools, start_method: str) -> None:
    future = pools.bounded(2, 1, start_method).submit(tasks.return_error)
    assert isinstance(future.result(), tasks.OddError)
    assert future.exception() is None


# ---- 12: use in a forked child -------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda pool, future: pool.submit(tasks.nothing),
        lambda pool, future: list(pool.map(tasks.square, range(3))),
        lambda pool, future: future.result(5),
    ],
    ids=["submit", "map", "result"],
)
def test_a_forked_child_cannot_use_the_pool(pools: Pools, gate: Gate, start_method: str, use: Any) -> None:
    pool = pools.bounded(4, 2, start_method)
    future = pool.submit(tasks.hold, gate.folder, "held")
    gate.wait_started(1)
    assert in_forked_child(lambda: use(pool, future)).startswith("RuntimeError")
    gate.open()
    assert future.result() == "held"
    assert list(pool.map(tasks.square, range(20))) == [number * number for number in range(20)]


@pytest.mark.race
def test_forks_in_mid_load_leave_the_pool_unharmed(pools: Pools, threads: Threads, start_method: str) -> None:
    pool = pools.bounded(4, 2, start_method)
    pool.submit(tasks.nothing).result()
    for start in range(0, 1200, 300):
        threads.start(lambda start=start: [pool.submit(tasks.echo, start + i).result() for i in range(300)])
    for _ in range(5):
        assert in_forked_child(lambda: pool.submit(tasks.nothing)).startswith("RuntimeError")
        assert not in_forked_child(pool.shutdown).startswith("stuck")
    assert sorted(itertools.chain(*threads.join())) == list(range(1200))


def test_a_forked_child_that_drops_the_pool_leaves_it_unharmed(pools: Pools) -> None:
    pools.bounded(4, 2, "fork")
    futures = [pools.made[0].submit(tasks.square, number) for number in range(3)]

    def drop() -> str:
        pools.made.clear()
        futures.clear()
        gc.collect()
        return "dropped"

    assert in_forked_child(drop) == "dropped"
    assert [future.result() for future in futures] == [0, 1, 4]
    assert pools.made[0].submit(tasks.square, 5).result() == 25


@pytest.mark.parametrize("how", ["os.fork", "Process"])
def test_a_forked_child_that_exits_as_usual_leaves_the_pool_unharmed(script: Callable[..., Script], how: str) -> None:
    """Exit hooks run in the child, too."""
    lines = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(4, 2, multiprocessing.get_context("fork"))
        futures = [pool.submit(tasks.nap, 0.05) for _ in range(4)]
        if {how!r} == "Process":
            child = multiprocessing.get_context("fork").Process(target=tasks.nothing)
            child.start()
            child.join(60)
            say("child", child.exitcode)
        else:
            pid = os.fork()
            if pid == 0:
                sys.exit(0)
            say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        say(sum(future.result() for future in futures))
        say(pool.submit(tasks.square, 5).result())
        pool._check()
        """
    ).finish(may_complain=how == "os.fork")  # multiprocessing's exit hook does, of children that are not its own
    assert lines == ["child 0", "0.2", "25"]


def test_a_worker_cannot_use_the_pool_that_it_inherited(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pools.bounded(4, 2, "fork")
    monkeypatch.setitem(tasks.inherited, "pool", pool)
    error = pool.submit(tasks.use_inherited_pool).exception()
    assert type(error) is RuntimeError
    assert pool.submit(tasks.square, 5).result() == 25


def test_a_killed_forked_child_is_no_dead_worker(pools: Pools) -> None:
    pool = pools.bounded(4, 2, "fork")
    pool.submit(tasks.nothing).result()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert pool.submit(tasks.square, 5).result() == 25
