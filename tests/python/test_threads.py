"""Thread pools with a weir: every combination of bound, timeout and policy, and the traps."""

import asyncio
import concurrent.futures
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.thread import BrokenThreadPool
from typing import Any, NoReturn

import pytest
from support import Script, Threads, in_forked_child, wait_until

from weirpool import (
    BlockingSubmitWarning,
    BoundedThreadPoolExecutor,
    RejectedSubmission,
    SubmitTimeout,
    ThreadPoolExecutor,
    bounded,
)

BOUNDS: dict[str, dict[str, Any]] = {
    "tasks": {"max_queue_size": 1},
    "backlog": {"max_submit_backlog": 1},
    "both": {"max_queue_size": 2, "max_submit_backlog": 1},
}


@pytest.fixture(params=BOUNDS)
def bounds(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOUNDS[request.param]


@pytest.fixture
def dam() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def make(bounds: dict[str, Any], **options: Any) -> BoundedThreadPoolExecutor:
    return BoundedThreadPoolExecutor(**{"max_workers": 1, **bounds, **options})


def eventually(condition: Callable[[], object]) -> None:
    wait_until(condition, "the pool to get there")


def is_idle(pool: ThreadPoolExecutor) -> bool:
    stats = pool.stats()
    return stats.outstanding == stats.waiting == stats.running == stats.blocked_producers == 0


def fill_up(pool: ThreadPoolExecutor, dam: threading.Event, bounds: dict[str, Any]) -> None:
    """Afterwards there is no room."""
    pool.submit(dam.wait)
    eventually(lambda: pool.stats().running == 1)
    if "max_submit_backlog" in bounds:
        pool.submit(dam.wait)


# ---- bounds, timeouts, policies ----


def test_blocks(dam: threading.Event, bounds: dict[str, Any], threads: Threads) -> None:
    with make(bounds) as pool:
        fill_up(pool, dam, bounds)
        threads.start(lambda: pool.submit(abs, -3).result())
        eventually(lambda: pool.stats().blocked_producers == 1)
        dam.set()
        assert threads.join() == [3]
        eventually(lambda: is_idle(pool))
        assert pool.stats().rejected == 0
        assert pool.stats().blocked_seconds > 0


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_times_out(dam: threading.Event, bounds: dict[str, Any], timeout: float) -> None:
    with make(bounds, submit_backlog_timeout=timeout) as pool:
        fill_up(pool, dam, bounds)
        began = time.monotonic()
        with pytest.raises(SubmitTimeout, match=r"submit_backlog_timeout.*submit again later"):
            pool.submit(abs, -1)
        assert time.monotonic() - began >= timeout
        assert (pool.stats().blocked_producers, pool.stats().rejected) == (0, 1)
        dam.set()
        eventually(lambda: is_idle(pool))
        assert pool.submit(abs, -1).result() == 1


def test_rejects(dam: threading.Event, bounds: dict[str, Any]) -> None:
    with make(bounds, block_on_submit=False) as pool:
        fill_up(pool, dam, bounds)
        with pytest.raises(RejectedSubmission, match="block_on_submit=False") as caught:
            pool.submit(abs, -1)
        assert isinstance(caught.value, queue.Full)
        assert not isinstance(caught.value, TimeoutError)
        dam.set()
        eventually(lambda: is_idle(pool))
        assert pool.submit(abs, -1).result() == 1


POLICIES: list[dict[str, Any]] = [{}, {"block_on_submit": False}, {"submit_backlog_timeout": 0}]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_callback_that_submits_is_admitted_over_the_bound(bounds: dict[str, Any], policy: dict[str, Any]) -> None:
    go = threading.Event()
    with make(bounds, **policy) as pool:
        children: list[Future[int]] = []
        first = pool.submit(go.wait)
        first.add_done_callback(lambda _: children.extend(pool.submit(abs, -number) for number in range(10)))
        go.set()
        eventually(lambda: len(children) == 10)
        assert [child.result() for child in children] == list(range(10))
        eventually(lambda: is_idle(pool))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_task_that_submits_to_its_own_full_pool(bounds: dict[str, Any], policy: dict[str, Any]) -> None:
    with make(bounds, **policy) as pool:
        futures = pool.submit(lambda: [pool.submit(abs, -number) for number in range(10)]).result()
        assert [future.result() for future in futures] == list(range(10))
        assert pool.stats().admitted_over_bound >= 8
        eventually(lambda: is_idle(pool))


@pytest.mark.parametrize("policy", POLICIES[1:], ids=str)
def test_without_a_bound_nothing_is_refused(policy: dict[str, Any]) -> None:
    with ThreadPoolExecutor(1, **policy) as pool:
        assert [future.result() for future in [pool.submit(abs, -n) for n in range(500)]] == list(range(500))
        assert pool.stats().bound is None


def test_counts(dam: threading.Event) -> None:
    def fail() -> NoReturn:
        raise KeyError

    with BoundedThreadPoolExecutor(True, 2) as pool:
        assert pool.stats().bound == 4
        held = [pool.submit(dam.wait) for _ in range(3)]
        eventually(lambda: pool.stats().running == 2)
        assert pool.stats().waiting == 1
        assert held[2].cancel()
        assert pool.stats().outstanding == 2
        dam.set()
        wait([*held, pool.submit(fail)])
        eventually(lambda: is_idle(pool))
        stats = pool.stats()
        assert (stats.engine, stats.submitted, stats.finished) == ("threads", 4, 4)
        assert (stats.completed, stats.failed, stats.cancelled, stats.peak_outstanding) == (2, 1, 1, 3)


def test_a_task_with_callbacks_is_finished_when_they_have_run() -> None:
    with BoundedThreadPoolExecutor(1, 1) as pool:
        seen: list[int] = []
        go = threading.Event()
        future = pool.submit(go.wait)
        future.add_done_callback(lambda _: seen.append(pool.stats().outstanding))
        go.set()
        eventually(lambda: is_idle(pool))
        assert seen == [1]


def test_cancelling_makes_room(dam: threading.Event) -> None:
    with BoundedThreadPoolExecutor(2, 1, block_on_submit=False) as pool:
        pool.submit(dam.wait)
        for _ in range(20):
            assert pool.submit(abs, -1).cancel()
        assert pool.stats().outstanding == 1
        dam.set()


def test_tracebacks_have_no_frame_of_ours() -> None:
    def fail() -> NoReturn:
        raise KeyError

    with BoundedThreadPoolExecutor(2, 1) as pool:
        error = pool.submit(fail).exception()
        assert error is not None
        assert error.__traceback__ is not None
        names = []
        traceback = error.__traceback__
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next  # type: ignore[assignment]
        assert names == ["run", "fail"]


# ---- order, and load ----


def test_first_come_first_served(dam: threading.Event, threads: Threads) -> None:
    order: list[int] = []
    with BoundedThreadPoolExecutor(1, 1) as pool:
        pool.submit(dam.wait)
        for number in range(20):
            threads.start(pool.submit, order.append, number)
            eventually(lambda number=number: pool.stats().blocked_producers == number + 1)
        dam.set()
        threads.join()
    assert order == list(range(20))


@pytest.mark.race
def test_many_producers(bounds: dict[str, Any], threads: Threads) -> None:
    with make(bounds) as pool:
        for _ in range(8):
            threads.start(lambda: [pool.submit(abs, -n).result() for n in range(200)])
        assert threads.join() == [list(range(200))] * 8
        eventually(lambda: is_idle(pool))


def test_map_is_lazy(bounds: dict[str, Any]) -> None:
    with make(bounds) as pool:
        assert list(itertools.islice(pool.map(abs, itertools.count()), 50)) == list(range(50))


def test_map_beside_submit_with_rivals(threads: Threads) -> None:
    with BoundedThreadPoolExecutor(2, 2) as pool:
        for _ in range(5):
            threads.start(lambda: [pool.submit(abs, -n).result() for n in range(50)])
        for number in pool.map(abs, range(50)):
            pool.submit(abs, number)
        threads.join()


# ---- ends ----


def test_shutdown_wakes_who_waits(dam: threading.Event, bounds: dict[str, Any], threads: Threads) -> None:
    pool = make(bounds)
    fill_up(pool, dam, bounds)
    for _ in range(12):
        threads.start(pool.submit, abs, -1)
    eventually(lambda: pool.stats().blocked_producers == 12)
    pool.shutdown(wait=False)
    threads.join()
    assert [str(error) for error in threads.errors] == ["cannot schedule new futures after shutdown"] * 12
    dam.set()
    pool.shutdown()
    assert is_idle(pool)


def test_submitting_after_shutdown_raises_each_time(bounds: dict[str, Any]) -> None:
    pool = make(bounds)
    pool.shutdown()
    for _ in range(5):
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(abs, -1)
    assert is_idle(pool)


def test_shutdown_that_cancels_returns_permits(dam: threading.Event) -> None:
    pool = BoundedThreadPoolExecutor(5, 1)
    futures = [pool.submit(dam.wait) for _ in range(5)]
    eventually(lambda: pool.stats().running == 1)
    pool.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] + [True] * 4
    assert pool.stats().outstanding == 1
    dam.set()
    pool.shutdown()
    assert is_idle(pool)


def test_a_broken_pool_wakes_who_waits(dam: threading.Event, threads: Threads) -> None:
    def initialize() -> NoReturn:
        dam.wait()
        raise KeyError

    with BoundedThreadPoolExecutor(1, 1, initializer=initialize) as pool:
        future = pool.submit(abs, -1)
        for _ in range(12):
            threads.start(pool.submit, abs, -1)
        eventually(lambda: pool.stats().blocked_producers == 12)
        dam.set()
        threads.join()
        assert [type(error) for error in threads.errors] == [BrokenThreadPool] * 12
        assert isinstance(future.exception(), BrokenThreadPool)
        with pytest.raises(BrokenThreadPool):
            pool.submit(abs, -1)
        assert is_idle(pool)


def test_a_forked_child_is_refused() -> None:
    with BoundedThreadPoolExecutor(2, 1) as pool:
        pool.submit(abs, -1).result()
        assert "forked child" in in_forked_child(lambda: pool.submit(abs, -1))
        assert "forked child" in in_forked_child(pool.shutdown)
        assert pool.submit(abs, -1).result() == 1


def test_ctrl_c_while_blocked_loses_no_permit(script: Callable[..., Script]) -> None:
    running = script("""
        dam = threading.Event()
        with weirpool.BoundedThreadPoolExecutor(1, 1) as pool:
            pool.submit(dam.wait)
            for _ in range(3):
                say("blocking")
                try:
                    pool.submit(abs, -1)
                except KeyboardInterrupt:
                    say(pool.stats().blocked_producers, pool.stats().outstanding)
            dam.set()
            soon(lambda: pool.stats().outstanding == 0, "every permit is back")
            say(pool.submit(abs, -1).result())
    """)
    for _ in range(3):
        assert running.line() == "blocking"
        time.sleep(0.1)  # what it does not wait for may come earlier, and is noticed all the same
        running.interrupt()
        assert running.line() == "0 1"
    assert running.finish() == ["1"]


@pytest.mark.parametrize("daemon", [False, True])
def test_exit_with_blocked_producers(script: Callable[..., Script], daemon: bool) -> None:
    running = script(f"""
        pool = weirpool.BoundedThreadPoolExecutor(1, 1)
        go = threading.Event()
        pool.submit(go.wait)

        def produce():
            try:
                pool.submit(abs, -1)
            except RuntimeError as error:
                say(error)
                go.set()

        threading.Thread(target=produce, daemon={daemon}).start()
        soon(lambda: pool.stats().blocked_producers == 1, "the producer waits")
    """)
    assert running.finish() == ["cannot schedule new futures after shutdown"]


# ---- arguments ----

WRONG: list[dict[str, Any]] = [
    {"max_submit_backlog": 0},
    {"max_submit_backlog": False},
    {"max_submit_backlog": 1.5},
    {"submit_backlog_timeout": -1},
    {"submit_backlog_timeout": True},
    {"submit_backlog_timeout": 1, "block_on_submit": False},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("executor", [ThreadPoolExecutor, BoundedThreadPoolExecutor])
def test_wrong_arguments(executor: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        executor(**wrong)


@pytest.mark.parametrize("size", [False, 0, -1, 1.5, "8"])
def test_wrong_bounds(size: Any) -> None:
    with pytest.raises(ValueError, match="max_queue_size must be None, True, or a positive int"):
        BoundedThreadPoolExecutor(size)


@pytest.mark.parametrize("keyword", ["max_bytes", "adaptive_bound", "pickler"])
def test_keywords_of_processes_alone(keyword: str) -> None:
    with pytest.raises(TypeError, match=keyword):
        BoundedThreadPoolExecutor(2, 1, **{keyword: 1})


def test_a_bound_below_the_threads_warns() -> None:
    with pytest.warns(RuntimeWarning, match="max_queue_size=2 is less than the 4 workers"):
        BoundedThreadPoolExecutor(2, 4)


# ---- in the thread of an event loop ----


@pytest.fixture(params=["threads", "bounded"])
def small(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "threads":
        with BoundedThreadPoolExecutor(1, 1) as pool:
            yield pool
    else:
        with bounded(concurrent.futures.ThreadPoolExecutor(1), 1) as pool:
            yield pool


@pytest.mark.timeout(30)
def test_a_submit_behind_coroutines_of_its_own_loop_is_admitted(small: Any, dam: threading.Event) -> None:
    """Only the loop, which stands still meanwhile, could take their turn."""

    async def main() -> list[Any]:
        first = small.submit(dam.wait)
        calls = [asyncio.create_task(small.arun(abs, -number)) for number in range(5)]
        while small.stats().blocked_producers < 5:
            await asyncio.sleep(0.001)
        last = small.submit(abs, -5)
        dam.set()
        return [first.result(), *await asyncio.gather(*calls), await asyncio.wrap_future(last)]

    assert asyncio.run(main()) == [True, 0, 1, 2, 3, 4, 5]
    wait_until(lambda: small.stats().outstanding == 0, "permits are back")


def test_waiting_in_the_thread_of_a_loop_warns_once(small: Any, dam: threading.Event) -> None:
    async def main() -> None:
        small.submit(dam.wait)
        threading.Timer(0.05, dam.set).start()
        for number in range(20):
            small.submit(abs, number)

    with pytest.warns(BlockingSubmitWarning, match="asubmit") as caught:
        asyncio.run(main())
    assert [warning.filename for warning in caught] == [__file__]
